"""Batched tasks inside the transaction of a test: all their batches, and nothing is committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from celery import Celery

from celery_pgbg.testing import inline
from tests.batches.conftest import Walked


@pytest.fixture
def filled(walked: Walked) -> Walked:
    walked.make("id integer PRIMARY KEY, v integer", "SELECT n, n FROM generate_series(1, 1000) AS n")
    return walked


def test_all_batches_run_in_the_transaction_and_go_with_it(
    app: Celery, batched: Callable[..., Any], filled: Walked, dsn: str
) -> None:
    task = batched(filled.noting(), filled.name, max_batch_rows=150)
    count = f"SELECT count(*), count(DISTINCT key) FROM {filled.log}"
    with psycopg.connect(dsn) as connection:
        with inline(connection):
            done = task()
            assert done["rows"] == 1000
            assert done["batches"] >= 7
            assert connection.execute(count).fetchone() == (1000, 1000)
        with inline(connection, app=app):
            assert task.delay().get()["rows"] == 1000
            parts = task.in_ranges(3).apply_async().get()
            assert [part["rows"] > 0 for part in parts] == [True, True, True]
            assert sum(part["rows"] for part in parts) == 1000
        connection.rollback()
    assert filled.noted().total() == 0


def test_an_error_of_a_batch_is_the_tasks(app: Celery, batched: Callable[..., Any], filled: Walked, dsn: str) -> None:
    task = batched(f"UPDATE {filled.name} SET v = 1 / (id - 700) WHERE {{batch}}", filled.name)
    with psycopg.connect(dsn) as connection, inline(connection):
        with pytest.raises(psycopg.errors.DivisionByZero):
            task()
        assert connection.execute("SELECT 1").fetchone() == (1,)
