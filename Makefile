# Every target starts from nothing: a fresh .venv, the tested versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install -q -c constraints.txt

.PHONY: quickstart test check

quickstart: .venv/.installed
	$(BIN)/synth quickstart --out quickstart

test: .venv/.installed-test
	$(BIN)/python -m pytest

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# torch first and alone: pip then takes the build that the machine's index offers
.venv/.torch: constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) torch
	touch $@

.venv/.installed: .venv/.torch pyproject.toml
	$(INSTALL) -e .
	touch $@

.venv/.installed-test: .venv/.torch pyproject.toml
	$(INSTALL) -e '.[test]'
	touch $@ .venv/.installed

.venv/.installed-dev: .venv/.torch pyproject.toml
	$(INSTALL) -e '.[dev]'
	touch $@ .venv/.installed-test .venv/.installed
