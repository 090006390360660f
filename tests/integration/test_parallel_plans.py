"""A task whose rows are asked for may have a parallel plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema
from celery_pgbg.database.values import to_exception
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Watch
from tests.fix_runner import order, run

#: The process that leads takes no part in a scan.
_PARALLEL = {
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "max_parallel_workers_per_gather": "2",
    "parallel_leader_participation": "off",
}


@pytest.fixture(scope="module")
def flights(new_database: Callable[[], str]) -> Iterator[Runner]:
    """A database with a table of some pages, and a function that tells in which process it runs."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
        session.execute("""
            CREATE TABLE flights AS SELECT i AS id, i % 7 AS carrier, now() AS at FROM generate_series(1, 20000) i;
            ALTER TABLE flights SET (parallel_workers = 2);
            ANALYZE flights;
            CREATE TABLE only_one AS SELECT 9 AS id, 0 AS process;
            CREATE FUNCTION process() RETURNS int LANGUAGE plpgsql PARALLEL SAFE
                AS 'BEGIN RETURN pg_backend_pid(); END';
        """)
    runner = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
    yield runner
    runner.close()


@pytest.mark.parametrize("returns", [None, "row"])
@pytest.mark.parametrize(
    "query",
    [
        "SELECT carrier, max(process()) AS process FROM flights GROUP BY carrier ORDER BY carrier",
        "WITH f AS (SELECT carrier % 7 AS c FROM flights) SELECT c, max(process()) AS process FROM f GROUP BY c",
        "-- a report\nSELECT carrier AS q, max(process()) AS process FROM flights AS q GROUP BY carrier; -- its end",
        "(SELECT 8 AS id, max(process()) AS process FROM flights) UNION ALL (TABLE only_one) ORDER BY 1",
    ],
)
def test_rows_that_are_asked_for_may_have_a_parallel_plan(flights: Runner, query: str, returns: Any) -> None:
    asked = order(query, settings=_PARALLEL, returns=returns, params=None)
    watch = Watch(asked.attempt)
    ending = flights.run(asked, watch)
    assert isinstance(ending, Returned)
    rows = [ending.value] if returns == "row" else ending.value
    assert watch.pid not in [row["process"] for row in rows]
    if returns != "row":
        assert len(rows) in (2, 7)


def test_the_value_of_a_query_may_have_a_parallel_plan(flights: Runner) -> None:
    asked = order("SELECT max(process()) FROM flights", settings=_PARALLEL, returns="value")
    watch = Watch(asked.attempt)
    assert flights.run(asked, watch) not in (Returned(None), Returned(watch.pid))


@pytest.mark.parametrize(
    "query", ["SELECT id FROM flights", "SELECT NULL FROM flights", "SELECT repeat('x', 100) FROM flights"]
)
def test_the_limit_holds_without_a_cursor(flights: Runner, query: str) -> None:
    ending = run(flights, order(query, max_result_bytes=1_000_000))
    assert isinstance(ending, Raised)
    assert "pgbg_max_result_bytes (1000000 bytes)" in ending.report.message
    assert to_exception(ending.report).diag.context is None
    assert ending.report.fields["table_name"] == "celery_pgbg.outcome"
    assert len(run(flights, order(query, max_result_bytes=10_000_000)).value) == 20_000


@pytest.mark.parametrize("returns", ["row", "value"])
def test_the_limit_is_for_what_is_returned(flights: Runner, returns: Any) -> None:
    asked = order("SELECT id FROM flights ORDER BY id", returns=returns, max_result_bytes=1000)
    assert run(flights, asked) == Returned({"id": 1} if returns == "row" else 1)


def test_the_order_of_the_rows_is_the_querys(flights: Runner) -> None:
    ending = run(flights, order("SELECT id FROM flights ORDER BY id DESC", settings=_PARALLEL))
    assert [row["id"] for row in ending.value] == list(range(20_000, 0, -1))
