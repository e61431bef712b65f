"""Settings of the site: Sphinx with MyST, the API reference from the docstrings, no network."""

import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "snapjax"
author = "the snapjax authors"
copyright = "the snapjax authors, Apache-2.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "plain_docstrings",
    "api_pages",
    "reference_pages",
]
exclude_patterns = ["_build"]
suppress_warnings = ["config.cache", "ref.python"]  # a short name may be that of several things

# Docstrings are Google style; a name in single backticks links where it is documented.
default_role = "py:obj"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature would be three lines; the docstring says the shapes
autodoc_preserve_defaults = True
add_module_names = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "snapjax"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


def setup(app: Sphinx) -> None:
    """Called by Sphinx: the blocks of layers, which a test reads, are plain text."""
    app.add_lexer("layers", TextLexer)
