# `make` lists the targets. Everything is installed into .venv, nothing outside.
# Another interpreter: make quickstart PYTHON=/path/to/python3.12
# For an accelerator: make quickstart JAX=cuda13 (or cuda12, tpu)

.DEFAULT_GOAL := help
VENV := .venv
NEXT := .venv-next
PY := $(VENV)/bin/python
PIP := -m pip install --quiet --disable-pip-version-check
INTERPRETERS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
# What differs between two JAX releases shows in these.
CORE := tests/ops tests/models tests/training/test_step.py
# Both cores; a file's tests share what they trained and compiled.
PYTEST := -m pytest -q -n 2 --dist loadfile
# Compiled tests are kept, whatever the shell says: collecting takes half as long.
export PYTHONDONTWRITEBYTECODE :=

$(PY):
	@python=$$(.ci/find_python "sys.version_info >= (3, 11)" $(INTERPRETERS)); \
	if [ -z "$$python" ]; then \
	  echo "deeplax needs Python 3.11 or newer with its venv module" \
	    "(on Debian: apt install python3-venv). Tried: $(INTERPRETERS)." \
	    "Name yours: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV)

# A changed requirements file is installed again.
$(VENV)/installed: requirements.txt | $(PY)
	@echo "Installing requirements.txt: about 1.2 GB on disk, some minutes"
	@$(PY) $(PIP) -r requirements.txt
	@touch $@

# requirements.txt again, so that JAX keeps a version that it allows.
$(VENV)/jax-%: $(VENV)/installed
	@echo "Installing jax[$*]: for cuda some GB on disk"
	@$(PY) $(PIP) -r requirements.txt "jax[$*]"
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@echo "Installing requirements-dev.txt"
	@$(PY) $(PIP) -r requirements-dev.txt
	@touch $@

$(NEXT)/installed: requirements.txt requirements-dev.txt
	@echo "Installing requirements-dev.txt for the other JAX"
	@$(NEXT)/bin/python $(PIP) -r requirements-dev.txt $(PIN)
	@touch $@

.PHONY: help bench quickstart test test-all test-next lint types lines clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' Makefile | column -t -s '|'

bench: $(VENV)/installed  ## deeplax against PyTorch on this CPU: half an hour
	@$(PY) $(PIP) -e ".[bench]"
	@$(PY) -m benchmarks.versus_torch

quickstart: $(VENV)/installed $(if $(JAX),$(VENV)/jax-$(JAX))  ## install, train on made-up data, evaluate, predict
	@$(PY) -m deeplax.main --config=configs/quickstart.py
	@$(PY) -m deeplax.data.shapes --out=runs/quickstart/samples
	@$(PY) -m deeplax.predict --workdir=runs/quickstart \
	  --out=runs/quickstart/predictions runs/quickstart/samples
	@$(PY) -m deeplax.evaluate --workdir=runs/quickstart --pictures=4
	@echo "Pictures: runs/quickstart/predictions"
	@echo "Next: $(VENV)/bin/python -m deeplax.main --config=configs/v3plus_xception.py"

test: $(VENV)/installed-dev  ## the fast tests
	@$(PY) $(PYTEST) -m "not slow"

test-all: $(VENV)/installed-dev  ## the slow tests as well, types of every call checked
	@DEEPLAX_CHECK_EVERY_CALL=1 $(PY) $(PYTEST)

# .venv has the newest JAX that its Python takes, this the oldest supported. On
# Python 3.11 both are 0.10.2: then this takes the newest, on a newer Python.
test-next: $(VENV)/installed-dev  ## the core tests at the other end of the JAX range
	@oldest=$$(sed -n 's/^jax>=\([0-9.]*\).*/\1/p' requirements.txt); \
	if $(PY) -c "import jax; raise SystemExit(jax.__version__ != '$$oldest')"; then \
	  want="sys.version_info >= (3, 12)"; pin=; \
	else \
	  want="True"; pin="jax==$$oldest"; \
	fi; \
	python=$$(.ci/find_python "$$want" python3.13 python3.12 python3.11); \
	if [ -z "$$python" ]; then \
	  echo "test-next: skipped, no Python 3.12 or newer for a newer JAX here"; \
	else \
	  { [ -x $(NEXT)/bin/python ] || $$python -m venv $(NEXT); } \
	  && $(MAKE) --no-print-directory $(NEXT)/installed PIN="$$pin" \
	  && $(NEXT)/bin/python $(PYTEST) -m "not slow" $(CORE); \
	fi

lint: $(VENV)/installed-dev  ## ruff check, ruff format --check
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: $(VENV)/installed-dev  ## pyright
	@PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m pyright

lines:  ## lines of code, without blank lines, comments and docstrings
	@.ci/lines

clean:  ## remove the environments and the caches; runs/ stays
	rm -rf $(VENV) $(NEXT) .cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
