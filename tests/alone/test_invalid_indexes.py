"""An index that was not finished is named, and made again where the task wants that."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg import SQLTask
from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Cancelled, Returned
from celery_pgbg.watch import Interruption
from tests.fix_runner import in_background, order
from tests.waiting import eventually

Database = psycopg.Connection[Any]


@pytest.fixture
def doubled(database: Database) -> Iterator[str]:
    """A table with a value twice."""
    name = f"Doubled {uuid.uuid4().hex[:8]}"
    database.execute(f'CREATE TABLE "{name}" (v integer); INSERT INTO "{name}" VALUES (1), (1)')
    yield name
    database.execute(f'DROP TABLE "{name}"')


def indexes(database: Database, table: str) -> dict[str, bool]:
    """Which indexes there are, and whether they are valid."""
    query = (
        "SELECT c.relname, i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = %s::regclass"
    )
    return dict(database.execute(query, [f'"{table}"']).fetchall())


@pytest.mark.parametrize("name", ['"by V"', ""])
def test_what_a_failed_build_leaves_is_named(
    alone: Callable[..., Any], database: Database, doubled: str, name: str
) -> None:
    task = alone(f'CREATE UNIQUE INDEX CONCURRENTLY {name} ON "{doubled}" (v)')
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        task()
    [left] = indexes(database, doubled)
    assert f'invalid index, which slows writes and serves no query: public."{left}"' in str(caught.value)
    assert "retry_invalid=True" in str(caught.value)

    # What was there before is not what the next one leaves.
    with pytest.raises(psycopg.errors.UndefinedColumn) as caught:
        alone(f'CREATE INDEX CONCURRENTLY other ON "{doubled}" (nothing)')()
    assert "invalid index" not in str(caught.value)


def test_it_is_dropped_and_made_again(alone: Callable[..., Any], database: Database, doubled: str) -> None:
    build = f'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "by V" ON "{doubled}" (v)'
    task = alone(build, retry_invalid=True)
    with pytest.raises(psycopg.errors.UniqueViolation):
        alone(build)()
    database.execute(f'CREATE INDEX stays ON "{doubled}" (v); TRUNCATE "{doubled}"')
    database.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'stays'::regclass")
    assert alone(build)() == "CREATE INDEX"
    assert indexes(database, doubled) == {"by V": False, "stays": False}, "as PostgreSQL leaves it"

    assert task() == "CREATE INDEX"
    assert indexes(database, doubled) == {"by V": True, "stays": False}
    oid = "SELECT '\"by V\"'::regclass::oid"
    before = database.execute(oid).fetchone()
    assert task() == "CREATE INDEX"
    assert database.execute(oid).fetchone() == before, "a valid one stays"


def test_what_cannot_be_built_is_dropped_at_once(alone: Callable[..., Any], database: Database, doubled: str) -> None:
    task = alone(f'CREATE UNIQUE INDEX CONCURRENTLY ON "{doubled}" (v)', retry_invalid=True)
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        task()
    assert "invalid index" not in str(caught.value)
    assert indexes(database, doubled) == {}


def test_what_waited_too_long_is_built_again_in_the_same_run(
    new_runner: Callable[..., Runner], database: Database, doubled: str, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    build = f'CREATE INDEX CONCURRENTLY "by V" ON "{doubled}" (v)'
    asked = order(build, atomic=False, retry_invalid=True, settings={"lock_timeout": "1s"})
    with psycopg.connect(dsn) as other:
        other.execute(f'INSERT INTO "{doubled}" VALUES (3)')
        _, thread, endings = in_background(new_runner(), asked)
        eventually("it waits for the other", lambda: len(indexes(database, doubled)) == 1)
        eventually("it drops the index, which waits too", lambda: waits_to_drop(database))
    thread.join(60)
    assert endings == [Returned("CREATE INDEX")]
    assert indexes(database, doubled) == {"by V": True}
    assert "building the index again" in caplog.text


def waits_to_drop(database: Database) -> bool:
    query = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'DROP INDEX%' AND wait_event_type = 'Lock')"
    )
    row = database.execute(query).fetchone()
    return bool(row and row[0])


def test_what_a_revoke_leaves_is_logged_and_the_next_reindex_drops_it(
    new_runner: Callable[..., Runner],
    database: Database,
    doubled: str,
    dsn: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    index = f"{doubled} i"
    database.execute(f'CREATE INDEX "{index}" ON "{doubled}" (v)')
    asked = order(f'REINDEX (CONCURRENTLY) TABLE "{doubled}"', atomic=False, retry_invalid=True)
    runner = new_runner()
    with psycopg.connect(dsn) as other:
        other.execute(f'INSERT INTO "{doubled}" VALUES (3)')
        watch, thread, endings = in_background(runner, asked)
        eventually("it waits for the other", lambda: len(indexes(database, doubled)) == 2)
        watch.interrupt(Interruption.REVOKE)
        thread.join(60)
    assert endings == [Cancelled()]
    assert f'serves no query: public."{index}_ccnew"' in caplog.text

    again = order(asked.query, atomic=False, retry_invalid=True)
    _, thread, endings = in_background(runner, again)
    thread.join(60)
    assert indexes(database, doubled) == {index: True}
    assert "to build it again" in caplog.text


def test_it_is_for_statements_that_stand_alone() -> None:
    with pytest.raises(TaskDefinitionError, match="retry_invalid is for"):
        type("Atomic", (SQLTask,), {"retry_invalid": True})
