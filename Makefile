# The commands of the project. `make` lists them; each does the set-up it needs.

VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help venv server stop test tox oldest brief-soak lint demo bench soak clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed  ## Make the virtual environment (.venv)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

server: venv  ## Start PostgreSQL with pg_background and print its DSN
	$(BIN)/python -m celery_pgbg.devserver start

stop: venv  ## Stop that server
	$(BIN)/python -m celery_pgbg.devserver stop

demo: venv  ## Show it: real flights, a roll-up, a revoke; starts and stops all it needs
	$(BIN)/python example_project/demo.py

# The conformance tests of pg_background, where they lie beside the project; they fill the whole server. They are not
# ours to mend, and one looks at a background worker that may have no name yet: what fails is run again.
CONFORMANCE := $(wildcard ../shared/conformance/test_*.py)

test: venv  ## Run all tests; starts the servers it needs
ifneq ($(CONFORMANCE),)
	PGBG_CONFORMANCE_DSN="$$($(BIN)/python -m celery_pgbg.devserver start)" \
		$(BIN)/python -m pytest -q -c /dev/null -p no:cacheprovider --reruns 2 $(CONFORMANCE)
endif
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile

# Interpreters that are not in PATH are looked for where pyenv keeps them.
TOX := PATH="$$PATH:$$(echo $(wildcard $(HOME)/.pyenv/versions/3.1*/bin) | tr ' ' ':')" $(BIN)/tox

tox: venv  ## Run all tests with other versions of Celery, Python and psycopg
	$(TOX) run

oldest: venv  ## Run some tests with the oldest versions
	$(TOX) run -e oldest

lint: venv  ## Style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: venv  ## Measure: rates as ratios, memory, latencies
	$(BIN)/python -m benchmarks

SECONDS ?= 120

soak: venv  ## Load and accidents, then too few slots, for SECONDS (120) each: nothing leaks, gets lost or starves; long versions of tests
	$(BIN)/python -m tests.soak --seconds $(SECONDS)
	$(BIN)/python -m tests.soak.slots --seconds $(SECONDS)
	PGBG_STATEFUL_EXAMPLES=$$(($(SECONDS) / 4)) $(BIN)/python -m pytest -q tests/faults/test_stateful*.py
	PGBG_FAST_LAUNCHES=10000 $(BIN)/python -m pytest -q tests/integration/test_runner.py -k fast_launches

brief-soak: venv  ## Load and accidents for two minutes and a half
	$(BIN)/python -m tests.soak --seconds 150

clean: stop  ## Stop the server and delete what was downloaded or built
	$(BIN)/python -m celery_pgbg.devserver stop --purge
	rm -rf $(VENV) .devserver .tox build dist
