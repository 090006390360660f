"""The tasks for upkeep do what they say, on real tables."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import psycopg
import pytest
from celery import Celery
from dateutil.relativedelta import relativedelta

import celery_pgbg.maintenance  # noqa: F401 - registers the tasks
from celery_pgbg.configuration import forget_settings
from celery_pgbg.database import schema
from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.runners import close_runners
from tests.waiting import eventually

Database = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def own_dsn(new_database: Callable[[], str]) -> str:
    made = new_database()
    with psycopg.connect(made, autocommit=True) as session:
        schema.install(session)
    return made


@pytest.fixture
def session(own_dsn: str) -> Iterator[Database]:
    with psycopg.connect(own_dsn, autocommit=True) as made:
        yield made


@pytest.fixture
def run(own_dsn: str) -> Iterator[Callable[..., Any]]:
    """Run a task by its name, and at once what it sends."""
    app = Celery("upkeep", broker="memory://", backend="cache+memory://")
    app.conf.update(pgbg_dsn=own_dsn, task_always_eager=True, task_eager_propagates=True)

    def run(name: str, *args: Any, **kwargs: Any) -> Any:
        return app.tasks[f"celery_pgbg.maintenance.{name}"].delay(*args, **kwargs).get()

    run.app = app  # type: ignore[attr-defined]
    yield run
    close_runners(at_once=True)
    app.close()


def test_a_call_chooses_its_database(run: Callable[..., Any], session: Database, new_database: Any) -> None:
    other = new_database()
    with psycopg.connect(other, autocommit=True) as there:
        schema.install(there)
        there.execute("CREATE TABLE due (id integer) WITH (autovacuum_enabled = off)")
        there.execute("CREATE TABLE sale (day date NOT NULL) PARTITION BY RANGE (day)")
        there.execute("INSERT INTO due SELECT generate_series(1, 5000)")
        there.execute("SELECT pg_stat_force_next_flush()")
        run.app.conf.pgbg_databases = {"archive": other}
        forget_settings(run.app)
        assert run("vacuum_due", database="archive") == ["public.due"]
        there.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
        assert one(there, "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'due'") == 1
        create = run.app.tasks["celery_pgbg.maintenance.create_partitions"]
        create.apply_async(("sale",), {"ahead": 0}, pgbg={"database": "archive"}).get()
        assert one(there, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sale'::regclass") == 1
        with pytest.raises(TaskDefinitionError, match=r"unknown database alias 'archve' \(did you mean 'archive'"):
            create.apply_async(("sale",), pgbg={"database": "archve"})


def one(session: Database, query: str) -> Any:
    row = session.execute(query).fetchone()
    return row and row[0]


def await_old_snapshots(session: Database) -> None:
    """Wait until no other session, such as autovacuum's, may still see what was deleted: VACUUM would keep it."""
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    eventually("nobody has a snapshot", lambda: not session.execute(f"{query} AND backend_xmin IS NOT NULL").rowcount)


def test_what_is_due_is_vacuumed(run: Callable[..., Any], session: Database) -> None:
    session.execute('CREATE TABLE "Due" (id integer) WITH (autovacuum_enabled = off)')
    session.execute("CREATE TABLE fresh (id integer) WITH (autovacuum_enabled = off)")
    session.execute(
        'INSERT INTO "Due" SELECT generate_series(1, 5000); INSERT INTO fresh SELECT generate_series(1, 5000)'
    )
    session.execute("SELECT pg_stat_force_next_flush()")
    session.execute('VACUUM ANALYZE "Due", fresh')
    session.execute('DELETE FROM "Due" WHERE id % 2 = 0; DELETE FROM fresh WHERE id < 10')
    await_old_snapshots(session)
    session.execute("SELECT pg_stat_force_next_flush()")

    assert run("vacuum_due") == ["public.Due"]

    dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = '{}'"
    # A snapshot that came in between, such as autovacuum's, keeps dead rows for the next time.
    eventually("it is clean", lambda: one(session, dead.format("Due")) == 0 or run("vacuum_due") is None)
    assert one(session, dead.format("fresh")) == 9


def test_a_bloated_index_is_built_anew(run: Callable[..., Any], session: Database) -> None:
    session.execute("CREATE TABLE bloated (id bigint PRIMARY KEY, name text) WITH (autovacuum_enabled = off)")
    session.execute("INSERT INTO bloated SELECT g, md5(g::text) FROM generate_series(1, 60000) g")
    session.execute("CREATE INDEX bloated_name ON bloated (name)")
    session.execute("CREATE INDEX slim ON bloated (id)")
    session.execute("DELETE FROM bloated WHERE id % 10 <> 0")
    await_old_snapshots(session)
    session.execute("VACUUM ANALYZE bloated")
    session.execute("REINDEX INDEX slim")
    before = one(session, "SELECT pg_relation_size('bloated_name')")
    # As a REINDEX CONCURRENTLY leaves it that is stopped.
    session.execute("CREATE INDEX bloated_name_ccnew ON bloated (name)")
    session.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'bloated_name_ccnew'::regclass")

    # The primary key has 60,000 entries of 20 bytes no more, and is as bloated.
    assert set(run("reindex_bloated", least_bytes=100_000)) == {"public.bloated_name", "public.bloated_pkey"}

    assert one(session, "SELECT pg_relation_size('bloated_name')") < before / 3
    assert one(session, "SELECT to_regclass('bloated_name_ccnew')") is None
    session.execute("ANALYZE bloated")
    assert run("reindex_bloated", least_bytes=100_000) == []


def test_materialised_views_are_refreshed_after_those_they_read(run: Callable[..., Any], session: Database) -> None:
    session.execute("""
        CREATE TABLE base AS SELECT 1 AS v;
        CREATE MATERIALIZED VIEW z_first AS SELECT v FROM base;
        CREATE VIEW y_between AS SELECT v FROM z_first;
        CREATE MATERIALIZED VIEW "A second" AS SELECT v FROM y_between;
        CREATE UNIQUE INDEX ON "A second" (v);
        CREATE MATERIALIZED VIEW m_empty AS SELECT v FROM "A second" WITH NO DATA;
        UPDATE base SET v = 2;
    """)
    readers = "SELECT name, may_be_concurrent FROM celery_pgbg.materialized_views('{public}')"
    assert session.execute(readers).fetchall() == [
        ("public.z_first", False),
        ('public."A second"', True),
        ("public.m_empty", False),
    ]

    assert run("refresh_materialized_views", ["public"]) == "CALL"

    assert one(session, 'SELECT v FROM "A second"') == 2
    assert one(session, "SELECT v FROM m_empty") == 2


def test_views_of_a_schema_that_is_not_there_are_not_passed_over(run: Callable[..., Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidSchemaName, match='schema "no such" does not exist'):
        run("refresh_materialized_views", ["public", "no such"])
    with pytest.raises(TypeError, match="a list of names"):
        run("refresh_materialized_views", "public")


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_partitions_come_and_go(run: Callable[..., Any], session: Database, kind: str) -> None:
    name = f"Sale_{uuid.uuid4().hex[:6]}"
    session.execute(f'CREATE TABLE "{name}" (at {kind} NOT NULL) PARTITION BY RANGE (at)')
    session.execute(f'CREATE TABLE "{name}_rest" PARTITION OF "{name}" DEFAULT')
    first = date.today().replace(day=1)
    old = first - relativedelta(months=14)
    upper = old + relativedelta(months=1)
    bounds = f"FROM ('{old}') TO ('{upper}')"
    session.execute(f'CREATE TABLE "{name}_old" PARTITION OF "{name}" FOR VALUES {bounds}')
    months = [f'public."{name}_{first + relativedelta(months=number):%Y_%m}"' for number in range(4)]

    assert run("create_partitions", f'"{name}"') == [{"created": month} for month in months]
    assert run("create_partitions", f'"{name}"') == []
    assert run("drop_partitions", f'"{name}"', "12 months") == [{"dropped": f'public."{name}_old"'}]

    session.execute(f"INSERT INTO \"{name}\" VALUES (now()), (now() + interval '2 months')")
    assert one(session, f'SELECT count(*) FROM "{name}_rest"') == 0
    assert one(session, f"SELECT count(*) FROM pg_inherits WHERE inhparent = '\"{name}\"'::regclass") == 5


def test_a_table_that_is_not_partitioned_by_time_is_refused(run: Callable[..., Any], session: Database) -> None:
    session.execute("CREATE TABLE plain (id integer)")
    with pytest.raises(psycopg.errors.WrongObjectType, match="plain is not partitioned"):
        run("create_partitions", "plain")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="day, week, month or year"):
        run("create_partitions", "plain", "hour")


def test_partman_is_called_where_it_is(run: Callable[..., Any], session: Database) -> None:
    session.execute("CREATE SCHEMA partman; CREATE TABLE partman.called (v integer)")
    session.execute(
        "CREATE PROCEDURE partman.run_maintenance_proc() LANGUAGE plpgsql"
        " AS 'BEGIN INSERT INTO partman.called VALUES (1); COMMIT; END'"
    )
    assert run("run_partman") == "CALL"
    assert one(session, "SELECT count(*) FROM partman.called") == 1
