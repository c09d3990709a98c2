PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check install install-test

install: .venv/.installed
install-test: .venv/.installed-test

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch

.venv/.installed: .venv/bin/python pyproject.toml
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

.venv/.installed-test: .venv/bin/python pyproject.toml
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/.installed

quickstart: install
	$(BIN)/synth quickstart --out quickstart

test: install-test
	$(BIN)/python -m pytest

check: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
