"""What operating asks of a database with many records reads only what it shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema
from celery_pgbg.database.results import ResultStore
from celery_pgbg.execution import queries
from celery_pgbg.execution.control import operations
from celery_pgbg.execution.records.expiry import Expiry, delete_expired

RECORDS = 20_000

#: Seconds that half of them are older than.
_AGE = 10_000 * 600 + 300

_FILL = f"""
    INSERT INTO celery_pgbg.execution
        (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename, launched_at)
    SELECT 'task ' || n, 0, 'shop.task', true, 1000 + n % 30000, n, 'pgbg task ' || n, 'celery@host',
        now() - n * interval '10 minutes'
    FROM generate_series(1, {RECORDS}) AS n;
    INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at, sqlstate, message)
    SELECT task_id, 0, cookie % 1000 <> 0, pid, launched_at, launched_at + interval '1 second',
        CASE WHEN cookie % 1000 = 0 THEN '22012' END, CASE WHEN cookie % 1000 = 0 THEN 'division by zero' END
    FROM celery_pgbg.execution;
    ANALYZE celery_pgbg.execution, celery_pgbg.outcome, celery_pgbg.work, celery_pgbg.bgworker
"""


@pytest.fixture(scope="module")
def full(new_database: Callable[[], str]) -> Iterator[psycopg.Connection[Any]]:
    """A session in a database with many records, one for each ten minutes."""
    with psycopg.connect(new_database(), autocommit=True) as session:
        schema.install(session)
        session.execute(_FILL)
        yield session


def scanned(session: psycopg.Connection[Any], name: str, **parameters: Any) -> set[str]:
    """The tables of ours that the plan of a query reads from one end to the other."""

    def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield node
        for below in node.get("Plans", []):
            yield from nodes(below)

    explained = psycopg.ClientCursor(session)
    text = queries.query(name).as_string(session)
    row = explained.execute("EXPLAIN (FORMAT JSON) " + text, parameters).fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return {node["Relation Name"] for node in nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"} & {
        "execution", "outcome", "result",
    }  # fmt: skip


def test_listings_read_by_index(full: psycopg.Connection[Any]) -> None:
    assert scanned(full, "operate_ps", ended_ms=0, ended_limit=51, before=None) == set()
    assert scanned(full, "operate_ps", ended_ms=21_600_000, ended_limit=51, before=None) == set()
    week = 7 * 86_400_000
    assert scanned(full, "operate_ps", ended_ms=20 * week, ended_limit=51, before=None) == set()
    assert scanned(full, "operate_ps", ended_ms=20 * week, ended_limit=51, before="yesterday") == set()
    assert scanned(full, "operate_failed", ended_ms=2_000_000_000, limit=51, task_name=None) == set()
    assert scanned(full, "operate_show", task_id="task 1") == set()


def test_no_more_than_the_limit_is_listed_the_latest_first(full: psycopg.Connection[Any]) -> None:
    rows = operations.executions(full, 21_900, 10)
    assert [row["task_id"] for row in rows] == [f"task {n}" for n in range(1, 12)]
    assert len(operations.executions(full, 21_900, None)) == 36
    # the next page
    older = operations.executions(full, 21_900, 10, rows[-2]["finished_at"])
    assert [row["task_id"] for row in older] == [f"task {n}" for n in range(11, 22)]


def test_what_is_gone_is_listed_among_what_has_ended(full: psycopg.Connection[Any]) -> None:
    full.execute("DELETE FROM celery_pgbg.outcome WHERE task_id IN ('task 3', 'task 30')")
    try:
        rows = operations.executions(full, 2_000_000, 10)
        assert [(row["task_id"], row["state"]) for row in rows if row["state"] == "gone"] == [("task 3", "gone")]
        assert [row["task_id"] for row in rows] == [f"task {n}" for n in range(1, 12)]
        older = operations.executions(full, 2_000_000, 10, rows[-1]["finished_at"])
        older = operations.executions(full, 2_000_000, 10, older[-1]["finished_at"])
        assert [row["task_id"] for row in older if row["state"] == "gone"] == ["task 30"]
    finally:
        full.execute(
            "INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at)"
            " SELECT task_id, 0, true, pid, launched_at, launched_at + interval '1 second' FROM celery_pgbg.execution"
            " WHERE task_id IN ('task 3', 'task 30')"
        )


def test_failures_are_listed_the_latest_first(full: psycopg.Connection[Any]) -> None:
    failed = operations.failures(full, 2_000_000, 3)
    assert [row["task_id"] for row in failed] == ["task 1000", "task 2000", "task 3000"]


def test_batches_delete_what_is_old_and_count_what_is_kept(full: psycopg.Connection[Any]) -> None:
    full.execute(
        "INSERT INTO celery_pgbg.result (task_id, status, content_type, content_encoding, outcome_attempt)"
        " SELECT 'task ' || n, 'SUCCESS', 'application/json', 'utf-8', 0 FROM generate_series(15000, 15009) AS n;"
        " DELETE FROM celery_pgbg.outcome WHERE task_id IN ('task 16000', 'task 16001')"
    )
    seen: list[int] = []
    expired = delete_expired(full, _AGE, lambda each: seen.append(each.looked_at))
    assert (expired.deleted, expired.results, expired.chord_parts) == (9990, 10, 0)
    assert (expired.running, expired.earlier) == (0, 0)
    assert (expired.younger, expired.looked_at) == (10_000, expired.total)
    assert len(seen) >= 2
    left = full.execute("SELECT count(*) FROM celery_pgbg.execution").fetchone()
    assert left == (10_010,)
    # What is kept is not judged again the same day.
    again = delete_expired(full, _AGE)
    assert (again.looked_at, again.deleted, again.results, again.earlier, again.younger) == (0, 0, 0, 10, 10_000)
    full.execute("UPDATE celery_pgbg.expiry_mark SET all_judged_at = now() - interval '25 hours'")
    small = Expiry(_AGE, batch_size=3)
    while small.delete_batch(full):
        pass
    assert (small.expired.deleted, small.expired.results) == (0, 10)


def test_what_was_kept_for_a_result_goes_with_it(full: psycopg.Connection[Any]) -> None:
    full.execute("UPDATE celery_pgbg.result SET stored_at = now() - interval '2 days' WHERE task_id <> 'task 15000'")
    store = ResultStore(full.info.dsn, 5.0, notify=False)
    try:
        store.delete_expired(86_400, 86_400, 86_400)
    finally:
        store.close()
    for kept in ("result", "outcome", "execution"):
        query = f"SELECT task_id FROM celery_pgbg.{kept} WHERE task_id ~ '^task 150..$'"
        assert full.execute(query.encode()).fetchall() == [("task 15000",)]


def test_one_session_at_a_time_deletes(full: psycopg.Connection[Any]) -> None:
    with psycopg.connect(full.info.dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(celery_pgbg.lock_key('delete expired', ''))")
        assert delete_expired(full, 0).contended
    assert operations.executions(full, 21_900, 1) != []
