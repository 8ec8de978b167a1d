# Treadle's tasks. Each makes what it needs: an environment in .venv, with the project installed
# in it. A stamp per set of extras says that nothing changed since, so that a second run starts at
# once and needs no network.

VENV  ?= .venv
VENV_TORCH ?= .venv-torch
SEED  ?= 0
ARGS  ?=
PY    := $(VENV)/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench sweep-files sweep-program-files sweep-bits sweep-programs sweep-torch wheel doctor clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.ready-plot,tensorboard  ## train a network on real digits (SEED=n chooses the seed)
	@$(VENV)/bin/treadle demo --seed $(SEED) $(ARGS)

test: $(VENV)/.ready-test  ## run every test (ARGS='-k name' runs some)
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/.ready-check  ## run the linter and the type checker
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: $(VENV)/.ready-test  ## measure speed and memory against their bounds
	$(PY) -m bench $(ARGS)

sweep-program-files: $(VENV)/.ready-test  ## load and run 200,000 damaged program files
	$(PY) -m tools.sweep_program_files $(ARGS)

sweep-bits: $(VENV)/.ready-test  ## run ops, programs and trainings in all ways that must give the same bits
	$(PY) -m tools.sweep_bits $(ARGS)

sweep-programs: $(VENV)/.ready-test  ## run whole programs beside PyTorch (TORCH=/path/to/python has it)
	$(PY) -m tools.sweep_programs $(if $(TORCH),--torch $(TORCH)) $(ARGS)

sweep-files: $(VENV)/.ready-test  ## load 100,000 damaged files, each of which must load or be refused
	$(PY) -m tools.sweep_files $(ARGS)

sweep-torch: $(VENV_TORCH)/.ready  ## compare with PyTorch on the samples of its own tests (20 minutes)
	$(VENV_TORCH)/bin/python -m tools.sweep_torch $(ARGS)

doctor: $(VENV)/.ready-test  ## say what this machine and this installation have
	@$(VENV)/bin/treadle doctor

wheel: $(PY)  ## build the wheel into dist/
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls -l dist/*.whl

clean:  ## remove the environment and everything built
	rm -rf $(VENV) $(VENV_TORCH) dist build .pytest_cache .mypy_cache .ruff_cache
	find treadle tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready-%: pyproject.toml | $(PY)
	@echo "Installing Treadle with its extras [$*] into $(VENV) (once; this needs the network) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch '$@'

# PyTorch, for comparison only, in an environment of its own.
$(VENV_TORCH)/.ready: pyproject.toml
	@$(MAKE) --no-print-directory VENV='$(VENV_TORCH)' '$(VENV_TORCH)/bin/python'
	@echo "Installing PyTorch (CPU) and Treadle into $(VENV_TORCH) (once; this needs the network) ..."
	@$(VENV_TORCH)/bin/python -m pip install --quiet --disable-pip-version-check \
	    --extra-index-url https://download.pytorch.org/whl/cpu 'torch==2.13.*' expecttest pytest
	@$(VENV_TORCH)/bin/python -m pip install --quiet --disable-pip-version-check \
	    --editable '.[test,linalg]'
	@touch '$@'

# The first Python that is new enough and can make environments. Where none can, the text names the
# package to install.
PYTHONS := $(strip $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11)
$(PY):
	@for python in $(PYTHONS); do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    new_enough=$${new_enough:-$$python}; \
	    $$python -c 'import venv, ensurepip' 2>/dev/null || continue; \
	    echo "Making the environment $(VENV) with $$($$python --version) ..."; \
	    exec $$python -m venv $(VENV); \
	done; \
	if [ -n "$$new_enough" ]; then \
	    name=$$($$new_enough -c 'import sys; print("python%d.%d" % sys.version_info[:2])'); \
	    echo "$$(command -v $$new_enough) cannot make environments: its module venv is missing." \
	        "Install the package $$name-venv, for example: sudo apt install $$name-venv"; \
	else \
	    echo "Treadle needs Python 3.11 or newer and found none of: $(PYTHONS)." \
	        "Install one, for example: sudo apt install python3 python3-venv," \
	        "or name one: make PYTHON=/path/to/python3"; \
	fi >&2; \
	exit 1
