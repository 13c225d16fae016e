# Every target sets itself up from a bare python3; the second time that is instant.
#   make demo PYTHON=python3.12     another interpreter for the virtual environment (3.11 or newer)
#   make demo VENV=/tmp/asap-venv   another place for it
# make exits 2 whenever a command fails; the command's own exit code is in the line "Error N".

PYTHON ?= python3
VENV ?= .venv
IMAGENET ?=
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

PY := $(VENV)/bin/python
STAMP := $(VENV)/.stamp
PYTHON_IS_NEW = $(shell $(PYTHON) -c "import sys; print(sys.version_info >= (3, 11))" 2>/dev/null)

.PHONY: help setup demo test lint check-macs imagenet-deit-base report clean _imagenet-given
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  %-20s %s\n' "$$name" "$$what"; done

setup: $(STAMP)  ## make the virtual environment and install everything into it

demo: $(STAMP)  ## evaluate every method on the embedded model and data, and print the table
	@$(PY) -m asap.run experiment=demo

test: $(STAMP)  ## run the tests (CPU, no network, no weights)
	@$(PY) -m pytest -n 2

lint: $(STAMP)  ## check style, format and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyright --pythonpath $(PY)

check-macs: $(STAMP)  ## compare our MACs with fvcore's and torch's counters
	@$(PY) scripts/check_macs.py

imagenet-deit-base: _imagenet-given $(STAMP)  ## the DeiT-Base table on ImageNet: make imagenet-deit-base IMAGENET=/data/imagenet
	@$(PY) -m asap.run experiment=imagenet_deit_base "data.path='$(IMAGENET)'"

report: $(STAMP)  ## make all tables from the records in results/runs
	@$(PY) -m asap.report

clean:  ## remove the virtual environment and caches (records in results/ stay)
	@test ! -f "$(VENV)/pyvenv.cfg" || rm -rf "$(VENV)"
	@rm -rf .pytest_cache .ruff_cache .hypothesis build dist
	@find asap scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

_imagenet-given:
	@$(if $(IMAGENET),:,$(error IMAGENET is empty: make imagenet-deit-base IMAGENET=/data/imagenet (the folder that holds val/<wnid>/*.JPEG)))

$(STAMP): pyproject.toml constraints.txt
	@$(if $(filter True,$(PYTHON_IS_NEW)),:,$(error PYTHON=$(PYTHON) is missing or older than Python 3.11: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.11))
	@echo "setting up $(VENV) (a few minutes the first time) ..."
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv "$(VENV)"
	@$(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch "$@"
