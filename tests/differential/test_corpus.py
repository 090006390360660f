"""Statements run as tasks and by psycopg on a plain connection: the same values, the same errors."""

from __future__ import annotations

import pytest

from celery_pgbg.execution.runner import Runner
from tests.differential.comparing import as_task, by_psycopg
from tests.differential.corpus import ERRORS, KINDS, STATES, VALUES


@pytest.mark.parametrize("statement", [*VALUES, *KINDS, *ERRORS])
def test_a_statement_comes_to_what_psycopg_makes_of_it(odd_runner: Runner, odd_dsn: str, statement: str) -> None:
    expected = by_psycopg(odd_dsn, statement)
    assert as_task(odd_runner, statement) == expected


@pytest.mark.parametrize("reuse", [False, True], ids=["", "reused"])
@pytest.mark.parametrize("statement", STATES)
def test_the_statements_own_state_does_not_reach_us(
    odd_runner: Runner, odd_dsn: str, statement: str, reuse: bool
) -> None:
    expected = by_psycopg(odd_dsn, statement)
    assert as_task(odd_runner, statement, reuse=reuse) == expected
