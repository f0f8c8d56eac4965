# Two commands on a fresh machine: `make demo` and `make test`. `make help` explains how to choose the Python.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
WORKERS ?= 2

ifeq ($(strip $(VENV)),)
# No venv: install nothing, and use PYTHON as it is.
VENV_PYTHON := $(PYTHON)
READY :=
READY_TEST :=
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
else
VENV_PYTHON := $(abspath $(VENV))/bin/python
READY := $(VENV)/.mmcondetr-ready
READY_TEST := $(VENV)/.mmcondetr-ready-test
endif

PIP = $(VENV_PYTHON) -m pip --disable-pip-version-check --quiet
TORCH_PIN = $(shell grep '^torch==' requirements.txt)

.PHONY: help demo test lint torture clean clean-venv
.DEFAULT_GOAL := help

help:
	@echo 'make demo    train a small Conditional DETR on generated images, evaluate it, write pictures to work_dirs/demo'
	@echo 'make test    the whole test suite'
	@echo 'make lint    ruff: rules and format'
	@echo 'make torture attacks from outside, seeded, 40 minutes on two cores: docs/reliability.md'
	@echo 'make clean   remove the environment, the build and everything under work_dirs'
	@echo
	@echo 'PYTHON=...   the Python (>= 3.11) to make the environment from; now: $(PYTHON)'
	@echo 'VENV=...     where to make it, or an environment to reuse and install the pins into; now: $(VENV)'
	@echo 'VENV=        (empty) install nothing and run PYTHON as it is, with what it has:'
	@echo '             make demo VENV= PYTHON=/path/to/your/environment/bin/python'
	@echo 'WORKERS=...  processes that run the tests, each on one core with up to 3 GB; now: $(WORKERS)'
	@echo 'TORCH_INDEX= a package index to take torch from, such as the one with the CPU wheels of PyTorch'

demo: $(READY)
	$(VENV_PYTHON) tools/demo.py --work-dir work_dirs/demo

# In the files' order: xdist's own, those with most tests first, leaves the slowest few to the end, for one process.
test: $(READY_TEST)
	$(VENV_PYTHON) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(READY_TEST)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .

torture: $(READY_TEST)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) tools/torture.py

clean: clean-venv
	rm -rf work_dirs build dist mmcondetr.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

ifeq ($(strip $(VENV)),)
clean-venv:
else
clean-venv:
	@if [ -e '$(VENV)/.mmcondetr-created' ]; then rm -rf '$(VENV)'; \
	elif [ -e '$(VENV)' ]; then rm -f $(READY) $(READY_TEST); echo '$(VENV) was not made here: kept'; fi

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "make: the tested pins need Python >= 3.11, \
	and $(PYTHON) is %d.%d: give another one with PYTHON=..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
	touch $(VENV)/.mmcondetr-created

$(READY): requirements.txt setup.cfg setup.py | $(VENV)/bin/python
	@echo 'Installing the tested set into $(VENV) (once)'
	$(PIP) install --upgrade "$(shell grep '^setuptools==' requirements.txt)"
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH_PIN)'
	$(PIP) install --requirement requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(READY_TEST): requirements-test.txt $(READY)
	$(PIP) install --requirement requirements-test.txt
	touch $@
endif
