"""What is read with a hundred times as many records: the same pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import queries as database_queries
from celery_pgbg.database import schema
from celery_pgbg.execution import queries

FEW, MANY = 1_000, 100_000

#: Each record that is shown takes some pages of indexes, where a small table is read whole. A large one has thousands.
_MORE_PAGES = 500

_FILL = """
    INSERT INTO celery_pgbg.execution
        (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename, launched_at)
    SELECT 'task ' || n, 0, 'shop.task', true, 100000 + n % 30000, n, 'pgbg task ' || n, 'celery@host',
        now() - n * interval '1 minute'
    FROM generate_series({first}, {last}) AS n;
    INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at, sqlstate)
    SELECT task_id, 0, cookie % 100 <> 0, pid, launched_at, launched_at + interval '1 second',
        CASE WHEN cookie % 100 = 0 THEN '22012' END
    FROM celery_pgbg.execution WHERE cookie BETWEEN {first} AND {last};
    INSERT INTO celery_pgbg.result (task_id, status, content_type, content_encoding, stored_at)
    SELECT 'python task ' || n, 'SUCCESS', 'application/json', 'utf-8', now() - n * interval '1 minute'
    FROM generate_series({first}, {last}) AS n;
    ANALYZE celery_pgbg.execution, celery_pgbg.outcome, celery_pgbg.work, celery_pgbg.bgworker, celery_pgbg.result
"""

_HALF_A_DAY = {"ended_ms": 43_200_000}
_PS = {"ended_limit": 51, "before": None}
_TWO = {"task_ids": "{task 500,task 501}", "attempts": "{0,0}"}
_ORDERS = {
    "pool": "{p,p}", "task_id": "{task 500,new}", "attempt": "{0,0}", "task_name": "{t,t}", "application_name": "{t,t}",
    "nodename": "{n,n}", "preamble": "{NULL,NULL}", "statement": "{SELECT 1,SELECT 1}", "returns": "{value,value}",
    "role": "{NULL,NULL}", "max_result_bytes": "{1,1}", "notify": "{f,f}", "message_id": "{NULL,NULL}",
    "task_meta": "{NULL,NULL}",
}  # fmt: skip

#: Name of a query, its package, its parameters.
_ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ps": ("operate_ps", "execution", {**_PS, "ended_ms": 0}),
    "ps --all": ("operate_ps", "execution", {**_PS, **_HALF_A_DAY}),
    "failed": ("operate_failed", "execution", {**_HALF_A_DAY, "limit": 51, "task_name": None}),
    "failed of one task": ("operate_failed", "execution", {**_HALF_A_DAY, "limit": 51, "task_name": "shop.task"}),
    "stats": ("operate_stats", "execution", {"ended_ms": 3_600_000}),
    "show": ("operate_show", "execution", {"task_id": "task 500"}),
    "outcomes": ("read_outcomes", "execution", _TWO),
    "what runs": ("running_attempts", "execution", {**_TWO, "was_seen": False}),
    "what is lost": ("settle_lost", "execution", {"task_id": None, "message": "lost"}),
    "results": ("result_read", "database", {"task_ids": "{task 500,python task 501,none}"}),
    "a batch of old outcomes": ("expiry_outcomes", "execution", {"batch_size": 40}),
    "a batch of old launches": ("expiry_executions", "execution", {"batch_size": 40}),
}


@pytest.fixture(scope="module")
def pages(new_database: Callable[[], str]) -> Iterator[dict[str, list[int]]]:
    """How many pages each query reads, with few and with many records."""
    found: dict[str, list[int]] = {}
    with psycopg.connect(new_database(), autocommit=True, cursor_factory=psycopg.ClientCursor) as session:
        schema.install(session)
        for first, last in ((1, FEW), (FEW + 1, MANY)):
            session.execute(_FILL.format(first=first, last=last).encode())
            # The oldest five hundred.
            row = session.execute("SELECT now() - %s * interval '1 minute'", [last - 500]).fetchone()
            assert row is not None
            for what, (name, package, parameters) in _ASKED.items():
                old = {"before": row[0], "last_at": None, "last_task_id": "", "last_attempt": -1}
                given = {**(old if name.startswith("expiry") else {}), **parameters}
                found.setdefault(what, []).append(_pages(session, name, package, given))
            kept = dict.fromkeys(("age_ms", "failure_age_ms", "chord_age_ms"), (last - 500) * 60_000)
            found.setdefault("old results", []).append(_pages(session, "result_delete_expired", "database", kept))
        yield found


def _pages(session: psycopg.Connection[Any], name: str, package: str, parameters: dict[str, Any]) -> int:
    written = queries.query(name) if package == "execution" else database_queries.query(name)
    return _pages_of(session, written.as_string(session), parameters)


def _pages_of(session: psycopg.Connection[Any], text: str, parameters: dict[str, Any] | None = None) -> int:
    with session.transaction(force_rollback=True):
        row = session.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON) {text}".encode(), parameters
        ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("what", [*_ASKED, "old results"])
def test_a_hundred_times_as_many_records_take_the_same_pages(pages: dict[str, list[int]], what: str) -> None:
    few, many = pages[what]
    assert many <= few + _MORE_PAGES, pages[what]


#: What sessions ask for each task, with a plan that they may have made before there was any.
_ASKED_FOR_EACH_TASK: dict[str, tuple[str, str, dict[str, Any]]] = {
    "outcomes": _ASKED["outcomes"],
    "results": _ASKED["results"],
    "orders for reusable background workers": ("place_work", "execution", _ORDERS),
    "what became of orders": ("look_at_work", "execution", {**_TWO, "pools": "{p,p}"}),
    "launches of a task": ("attempts_of", "execution", {"task_id": "task 500"}),
    "whether a task runs": ("result_is_running", "database", {"task_id": "task 500"}),
}


@pytest.fixture(scope="module")
def pages_by_early_plans(new_database: Callable[[], str]) -> Iterator[dict[str, int]]:
    """How many pages each query reads by a plan that was made while all tables were empty."""
    calls: dict[str, str] = {}
    with psycopg.connect(new_database(), autocommit=True, cursor_factory=psycopg.ClientCursor) as session:
        schema.install(session)
        session.execute(database_queries.query("plan_once"))
        for number, (what, (name, package, parameters)) in enumerate(_ASKED_FOR_EACH_TASK.items()):
            text = (queries if package == "execution" else database_queries).query(name).as_string(session)
            places = {parameter: f"${place}" for place, parameter in enumerate(parameters, start=1)}
            session.execute(f"PREPARE asked_{number} AS {text % places}".encode())
            values = ", ".join(session.cursor().mogrify("%s", [value]) for value in parameters.values())
            calls[what] = f"EXECUTE asked_{number}({values})"
            with session.transaction(force_rollback=True):
                session.execute(calls[what].encode())
        for table in ("execution", "outcome", "result"):
            session.execute(f"ALTER TABLE celery_pgbg.{table} SET (autovacuum_enabled = off)".encode())
        session.execute(_FILL.format(first=1, last=20 * FEW).partition("ANALYZE")[0].encode())
        yield {what: _pages_of(session, call) for what, call in calls.items()}


@pytest.mark.parametrize("what", _ASKED_FOR_EACH_TASK)
def test_a_plan_made_for_empty_tables_reads_no_more_of_full_ones(
    pages_by_early_plans: dict[str, int], what: str
) -> None:
    # Read whole, each of the tables has some hundred pages, and its index as well.
    assert pages_by_early_plans[what] < 60
