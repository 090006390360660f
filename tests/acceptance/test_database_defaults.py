"""A database whose defaults differ from PostgreSQL's own, as broker, as result backend and for tasks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from celery import chord, group
from celery.exceptions import TaskRevokedError
from psycopg import sql

from celery_pgbg.database import schema
from tests.effects import running
from tests.fix_celery import Shop
from tests.fix_server import url_of
from tests.waiting import eventually

WAIT = 60

_DEFAULTS = {
    "default_transaction_isolation": "serializable",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kolkata",
    "lock_timeout": "5s",
    "statement_timeout": "50s",
    "idle_session_timeout": "20s",
    "track_activities": "off",
    "row_security": "off",
    "client_min_messages": "debug1",
    "search_path": "",
    "plan_cache_mode": "force_generic_plan",
    "enable_indexscan": "off",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
}

_SHOWN = {
    "transaction_isolation": "serializable",
    "default_transaction_isolation": "serializable",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kolkata",
    "bytea_output": "escape",
    "lock_timeout": "5s",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "row_security": "off",
    # The exception, see docs/explanation/session-state.md.
    "standard_conforming_strings": "on",
}


@pytest.fixture
def odd(new_database: Callable[[], str]) -> Iterator[str]:
    """A database with these defaults and our schema, for a role that is no superuser."""
    dsn = new_database()
    role = f"pgbg_test_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn, autocommit=True) as session:
        for name, value in _DEFAULTS.items():
            query = sql.SQL("ALTER DATABASE {} SET {} = {}")
            session.execute(query.format(sql.Identifier(session.info.dbname), sql.Identifier(name), sql.Literal(value)))
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        schema.install(session, grant_to=[role])
        session.execute(
            "CREATE TABLE public.kept (v text);"
            "CREATE TABLE public.walked (id integer PRIMARY KEY);"
            "INSERT INTO public.walked SELECT generate_series(1, 50);"
            "CREATE TABLE public.walked_log (id integer); CREATE TABLE public.walked_hold ();"
            "ALTER DATABASE {} RESET search_path".format(dsn.rsplit("/")[-1])
        )
        for table in ("kept", "walked", "walked_log", "walked_hold"):
            query = sql.SQL("ALTER TABLE public.{} OWNER TO {}")
            session.execute(query.format(sql.Identifier(table), sql.Identifier(role)))
    yield url_of(dsn, user=role)
    with psycopg.connect(dsn, autocommit=True) as session:
        query = sql.SQL("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
        session.execute(query.format(role=sql.Identifier(role)))


def test_tasks_run_whatever_the_defaults_of_their_database_are(
    odd: str, new_shop: Callable[..., Shop], pgbg: Callable[..., Any]
) -> None:
    shop = new_shop("pgbg://", "pgbg://", pgbg_dsn=odd)
    shop.start_worker(concurrency=8)
    shown, shown_in_reused = shop.task("parameter"), shop.task("parameter_in_reused")
    for _ in range(3):
        for task in (shown, shown_in_reused):
            for name, value in _SHOWN.items():
                assert task.delay(name).get(timeout=WAIT) == value
    writes = [shop.task(name).s("kept", f"{number} \\'") for number in range(20) for name in ("audit", "insert")]
    assert group(writes).delay().get(timeout=WAIT) == [1] * 40
    assert chord([shop.task("add").s(i) for i in range(6)], shop.task("total").s()).delay().get(timeout=WAIT) == 27
    with pytest.raises(psycopg.errors.DivisionByZero):
        shop.task("divide").delay(1, 0).get(timeout=WAIT)
    assert shop.task("vacuum").delay("kept").get(timeout=WAIT) == "VACUUM"
    assert shop.task("walk").delay().get(timeout=WAIT)["rows"] == 50
    for command in ("ps", "failed", "doctor"):
        done = pgbg(command, queue=shop.queue, pgbg_dsn=odd, broker="pgbg://", backend="pgbg://")
        assert done.returncode == 0, done.stdout + done.stderr
    result = shop.task("sleep").delay(60)
    with psycopg.connect(odd, autocommit=True) as session:
        eventually("it runs", lambda: running(session, result.id))
        result.revoke(terminate=True)
        with pytest.raises(TaskRevokedError):
            result.get(timeout=WAIT)
        assert session.execute("SELECT count(*), count(DISTINCT v) FROM public.kept").fetchone() == (40, 20)
    log = shop.workers[-1].text()
    assert "trying" not in log
    assert "standard_conforming_strings is off" in log
