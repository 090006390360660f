# The commands of the project. `make` lists them; each does the set-up it needs.

VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help venv packages server stop conformance test translated tox contract oldest brief-soak lint lint-ruff lint-pyright lint-mypy lint-imports lint-bandit audit docs changelog demo bench soak clean

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

conformance: venv  ## Look whether the server behaves as ../shared says, if that is there
ifneq ($(CONFORMANCE),)
	PGBG_CONFORMANCE_DSN="$$($(BIN)/python -m celery_pgbg.devserver start)" \
		$(BIN)/python -m pytest -q -c /dev/null -p no:cacheprovider --reruns 2 $(CONFORMANCE)
endif

packages:  ## As root on Debian: install what tests need besides PostgreSQL (.ci/packages.txt)
	@.ci/packages

# What must work with every pg_background, in databases that have the functions of an older one: see tests/shapes.
CORE := tests/integration/test_runner.py tests/integration/test_stopping.py tests/integration/test_reuse.py \
	tests/acceptance/test_tasks.py tests/acceptance/test_revoke.py

test: venv packages  ## Run all tests, WITH other targets; installs and starts what they need, prints what it skips and why
	.ci/tests --numprocesses 6 --dist loadfile --no-loadscope-reorder
	@$(MAKE) --no-print-directory --jobs=5 --output-sync=target line-1.8 line-1.9 line-1.6 $(WITH)

line-1.8: TESTS := $(CORE)
line-1.9: TESTS := tests/alone
line-1.6: TESTS := tests/integration/test_runner.py

line-%:
	.ci/tests -q --numprocesses 2 --dist worksteal --pg-background-line $* $(TESTS)

LOCALE ?= de_DE.UTF-8
# What reads errors, besides the core.
TRANSLATED := $(CORE) tests/integration/test_errors_by_record.py tests/integration/test_refusals.py \
	tests/integration/test_identity.py tests/differential/test_results.py tests/acceptance/test_survival.py tests/alone

translated: venv  ## Run the core on a server that speaks another language: LOCALE (de_DE.UTF-8)
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --lc-messages $(LOCALE) $(TRANSLATED)
	env --unset=PGBG_DSN $(BIN)/python -m celery_pgbg.devserver stop --name speaks-$(firstword $(subst ., ,$(LOCALE)))

# Interpreters that are not in PATH are looked for where pyenv keeps them.
TOX := PATH="$$PATH:$$(echo $(wildcard $(HOME)/.pyenv/versions/3.1*/bin) | tr ' ' ':')" $(BIN)/tox

tox: venv  ## Run all tests with other versions of Celery, Python and psycopg
	$(TOX) run

contract: venv  ## Look whether each supported Celery still has what we rely on of its inside
	$(TOX) run -e contract-celery54,contract-celery55,contract-celery56,contract-celery57

oldest: venv  ## Run some tests with the oldest versions
	$(TOX) run -e oldest

lint: venv  ## Style, types, layers and what is known to be unsafe; under a minute
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint-ruff lint-pyright lint-mypy lint-imports lint-bandit

lint-ruff:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-pyright:
	$(BIN)/pyright

lint-mypy:
	$(BIN)/mypy

lint-imports:
	$(BIN)/lint-imports

lint-bandit:
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml celery_pgbg

audit: venv  ## Look for known faults of what we depend on; needs the service of PyPI
	$(BIN)/pip-audit --skip-editable

docs: venv  ## Make the documentation as a site in build/site; any warning is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mkdocs>=1.6,<2' 'mkdocs-material>=9.6'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

changelog: venv  ## Move the change fragments into CHANGELOG.md, for VERSION
	$(BIN)/towncrier build --yes --version $(VERSION)

bench: venv  ## Measure: CPU by process, rates as ratios, memory, latencies; prints a table, writes bench.json and pictures for the docs
	$(BIN)/python -m benchmarks --json bench.json --pictures docs/pictures

SECONDS ?= 120

soak: venv  ## Load and accidents, then too few slots, for SECONDS (120) each: nothing leaks, gets lost or starves; long versions of tests
	$(BIN)/python -m tests.soak --seconds $(SECONDS)
	$(BIN)/python -m tests.soak.slots --seconds $(SECONDS)
	PGBG_STATEFUL_EXAMPLES=$$(($(SECONDS) / 4)) $(BIN)/python -m pytest -q tests/faults/test_stateful*.py
	PGBG_FAST_LAUNCHES=10000 $(BIN)/python -m pytest -q tests/integration/test_runner.py -k fast_launches

brief-soak: venv  ## Load and accidents for two minutes
	$(BIN)/python -m tests.soak --seconds 120

clean: venv  ## Stop the server and delete what was downloaded or built
	env --unset=PGBG_DSN $(BIN)/python -m celery_pgbg.devserver stop --purge
	rm -rf $(VENV) .devserver .tox build dist
