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
    text = "EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON) " + written.as_string(session)
    with session.transaction(force_rollback=True):
        row = session.execute(text.encode(), parameters).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("what", [*_ASKED, "old results"])
def test_a_hundred_times_as_many_records_take_the_same_pages(pages: dict[str, list[int]], what: str) -> None:
    few, many = pages[what]
    assert many <= few + _MORE_PAGES, pages[what]
