"""snapjax: learned sparse spikes on the boundaries between devices, in JAX.

`snapjax` holds what crosses a device boundary and what it costs; models, data and training live
in `zoo`.
"""

__version__ = "0.2.0"  # the one place; pyproject.toml reads it
