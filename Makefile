# The commands of the project. `make` lists them; each does the set-up it needs.

VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help venv server stop test lint demo bench clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed  ## Make the virtual environment (.venv)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

server: venv  ## Start PostgreSQL with pg_background and print its DSN
	$(BIN)/python -m celery_pgbg.devserver start

stop: venv  ## Stop that server
	$(BIN)/python -m celery_pgbg.devserver stop
