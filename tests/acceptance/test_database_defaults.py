"""A database whose defaults differ from PostgreSQL's own, as broker, as result backend and for tasks."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from celery import chord, group
from celery.exceptions import TaskRevokedError
from psycopg import sql

from celery_pgbg.database import schema
from tests.effects import running
from tests.fix_celery import Shop
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
}

_SHOWN = {
    "transaction_isolation": "serializable",
    "default_transaction_isolation": "serializable",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kolkata",
    "bytea_output": "escape",
    "lock_timeout": "5s",
    # The exception, see docs/explanation/session-state.md.
    "standard_conforming_strings": "on",
}


@pytest.fixture
def odd(new_database: Callable[[], str]) -> str:
    """A database with these defaults and our schema."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        for name, value in _DEFAULTS.items():
            query = sql.SQL("ALTER DATABASE {} SET {} = {}")
            session.execute(query.format(sql.Identifier(session.info.dbname), sql.Identifier(name), sql.Literal(value)))
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
        session.execute(
            "CREATE TABLE public.kept (v text); ALTER DATABASE {} RESET search_path".format(dsn.rsplit("/")[-1])
        )
    return dsn


def test_tasks_run_whatever_the_defaults_of_their_database_are(odd: str, new_shop: Callable[..., Shop]) -> None:
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
