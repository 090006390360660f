"""With ``pgbg_store_sql = False`` no argument of a task is left in our tables, nor is it there meanwhile."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from celery import Celery
from psycopg import errors, sql

from celery_pgbg import BatchedSQLTask, SQLTask
from celery_pgbg.runners import close_runners
from tests.apps.shop import make_app
from tests.waiting import eventually


@pytest.fixture
def new_app(dsn: str) -> Iterator[Callable[[bool], Celery]]:
    made: list[Celery] = []

    def make(store_sql: bool) -> Celery:
        made.append(make_app("memory://", "cache+memory://", "q", pgbg_dsn=dsn, pgbg_store_sql=store_sql))
        return made[-1]

    yield make
    close_runners()
    for app in made:
        app.close()


def places_of(session: psycopg.Connection[Any], text: str) -> set[str]:
    """In which of our tables a text is found, and whether a session shows it."""
    tables = session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'celery_pgbg'").fetchall()
    found = set()
    for (table,) in tables:
        query = sql.SQL("SELECT FROM celery_pgbg.{} AS t WHERE strpos(t::text, %s) > 0").format(sql.Identifier(table))
        if session.execute(query, [text]).rowcount:
            found.add(str(table))
    if session.execute("SELECT FROM pg_stat_activity WHERE strpos(query, %s) > 0", [text]).rowcount:
        found.add("pg_stat_activity")
    return found


def in_thread(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("stores", [True, False])
def test_an_argument_is_in_no_table(
    new_app: Callable[[bool], Celery], database: psycopg.Connection[Any], stores: bool
) -> None:
    app, secret, lock = new_app(stores), f"secret-{uuid.uuid4()}", uuid.uuid4().int % 2**31
    statement = "SELECT pg_advisory_xact_lock_shared(%(lock)s), length(%(secret)s) > 0 AS v"

    @app.task(base=SQLTask, reuse=True, shared=False)
    def held(secret: str, lock: int) -> str:
        return statement

    database.execute("SELECT pg_advisory_lock(%s)", [lock])
    thread = in_thread(lambda: held(secret, lock))
    eventually("it runs", lambda: "pg_stat_activity" in places_of(database, secret) or stores)
    eventually("it is stored", lambda: not stores or places_of(database, secret) - {"pg_stat_activity"})
    if not stores:
        assert places_of(database, secret) == {"pg_stat_activity"}
    database.execute("SELECT pg_advisory_unlock(%s)", [lock])
    thread.join(20)
    if not stores:
        eventually("its background worker is gone", lambda: not places_of(database, secret))


@pytest.mark.parametrize("stores", [True, False])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT length(%(secret)s) / 0",
        "INSERT INTO celery_pgbg_no_such_table VALUES (%(secret)s)",
        "SELECT set_config('a.b', %(secret)s, true); DO $$ BEGIN RAISE 'wrong'; END $$; SELECT 1",
        "SELECT pg_terminate_backend(pg_backend_pid()), %(secret)s, pg_sleep(60)",
    ],
    ids=["query", "other", "preamble", "fatal"],
)
def test_the_statement_is_not_in_the_stored_error(
    new_app: Callable[[bool], Celery], database: psycopg.Connection[Any], statement: str, stores: bool
) -> None:
    app, secret = new_app(stores), f"secret-{uuid.uuid4()}"

    @app.task(base=SQLTask, shared=False)
    def failing(secret: str) -> str:
        return statement

    with pytest.raises(psycopg.Error) as caught:
        failing(secret)
    assert secret not in str(caught.value)
    eventually("its background worker is gone", lambda: not places_of(database, secret))


def test_the_statement_of_a_batch_is_not_in_the_stored_error(
    new_app: Callable[[bool], Celery], database: psycopg.Connection[Any]
) -> None:
    app, secret, table = new_app(False), f"secret-{uuid.uuid4()}", f"walked_{uuid.uuid4().hex[:12]}"
    database.execute(f"CREATE TABLE {table} AS SELECT n AS id, 1 AS v FROM generate_series(1, 10) AS n")
    database.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (id)")
    statement = f"UPDATE {table} SET v = length(%(secret)s) / 0 WHERE {{batch}}"

    @app.task(base=BatchedSQLTask, table=table, key="id", shared=False)
    def failing(secret: str) -> str:
        return statement

    with pytest.raises(errors.DivisionByZero) as caught:
        failing(secret)
    assert secret not in str(caught.value)
    eventually("its background worker is gone", lambda: not places_of(database, secret))
    database.execute(f"DROP TABLE {table}")
