"""In the deployment one has: other result backends, several databases, settings of a shutdown."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from celery import chain
from psycopg import sql

from celery_pgbg.database import schema
from celery_pgbg.errors import ExtensionMissing
from tests.effects import effects, running
from tests.fix_celery import Shop
from tests.waiting import eventually

WAIT = 60


def test_celerys_database_backend_keeps_results(new_shop: Callable[..., Shop], redis_url: str, dsn: str) -> None:
    backend = "db+" + dsn.replace("postgresql://", "postgresql+psycopg://")
    shop = new_shop(f"{redis_url}/9", backend, pgbg_dsn=dsn)
    shop.start_worker()
    assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]
    with pytest.raises(psycopg.errors.DivisionByZero):
        shop.task("divide").delay(1, 0).get(timeout=WAIT)
    result = shop.task("sleep").delay(60)
    shop.wait_active(result)
    result.revoke(terminate=True)
    eventually("REVOKED", lambda: shop.app.AsyncResult(result.id).state == "REVOKED")


def test_a_task_names_the_database_it_runs_in(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, new_database: Callable[[], str]
) -> None:
    other = new_database()
    with psycopg.connect(other, autocommit=True) as session:
        schema.install(session)
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn, pgbg_databases={"other": other})
    shop.start_worker()
    names = [shop.task(name).delay().get(timeout=WAIT) for name in ("database_name", "other_database_name")]
    assert names == [dsn.rpartition("/")[2], other.rpartition("/")[2]]


def test_rows_of_one_database_are_the_next_ones_argument(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, new_database: Callable[[], str]
) -> None:
    other = new_database()
    columns = "d date, n numeric, u uuid, r int4range, b bytea, j jsonb"
    with psycopg.connect(other, autocommit=True) as session:
        schema.install(session)
        session.execute(f"CREATE TABLE facts ({columns})")
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn, pgbg_databases={"other": other})
    shop.start_worker()
    kinds = """
        SELECT date '2026-01-02' AS d, 1.50 AS n, gen_random_uuid() AS u, int4range(1, 5) AS r,
            '\\x00ff'::bytea AS b, '{"a": [1]}'::jsonb AS j
        FROM generate_series(1, %s)
    """
    for number in (2, 0):
        extract, load = shop.task("extract"), shop.task("load")
        result = chain(extract.s(kinds % number), load.s("facts")).delay()
        assert result.get(timeout=WAIT) == number
    with psycopg.connect(other) as session:
        rows = session.execute("SELECT d::text, n::text, r::text, b::text, j::text FROM facts").fetchall()
    assert rows == [("2026-01-02", "1.50", "[1,5)", "\\x00ff", '{"a": [1]}')] * 2


def test_a_shutdown_may_cancel_its_statements(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, table: str, database: Any
) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn, pgbg_on_shutdown="cancel")
    worker = shop.start_worker()
    result = shop.task("insert").delay(table, "x", 3)
    shop.wait_active(result)
    worker.send(signal.SIGQUIT)
    worker.wait()
    eventually("the statement is gone", lambda: not running(database, result.id))
    assert effects(database, table) == []
    shop.start_worker()
    assert result.get(timeout=WAIT) == 1
    assert effects(database, table) == ["x"]


def test_a_task_called_directly_or_eagerly_runs_its_statement(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str
) -> None:
    from celery_pgbg.runners import close_runners

    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    try:
        assert shop.task("add")(1, b=4) == [{"total": 5}]
        assert shop.task("add").apply((1,)).get() == [{"total": 3}]
        assert shop.task("divide").apply((1, 0)).state == "FAILURE"
    finally:
        close_runners()


def test_inspect_stats_shows_our_sessions_and_counts(new_shop: Callable[..., Shop], redis_url: str, dsn: str) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    worker = shop.start_worker("-c5")
    for number in range(3):
        shop.task("add").delay(number).get(timeout=WAIT)
    [database] = shop.app.control.inspect([worker.nodename]).stats()[worker.nodename]["pool"]["databases"]
    assert (database["launched"], database["succeeded"], database["running"]) == (3, 3, 0)
    assert len(database["launcher_pids"]) == 2
    shop.app.control.pool_grow(3, destination=[worker.nodename], reply=True)
    pool = shop.app.control.inspect([worker.nodename]).stats()[worker.nodename]["pool"]
    assert pool["max-concurrency"] == 8


@pytest.mark.parametrize("lost", ["prosrc = 'gone_' || prosrc", "probin = '$libdir/gone'"])
def test_an_update_of_the_packages_files_alone_names_its_cure_and_needs_no_new_celery_worker(
    new_shop: Callable[..., Shop], own_dsn: str, lost: str
) -> None:
    with psycopg.connect(own_dsn, autocommit=True) as session:
        name = sql.Identifier(session.info.dbname)
        session.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'").format(name))
    shop = new_shop("pgbg://", "pgbg://", pgbg_dsn=own_dsn)
    shop.start_worker()
    calls = {"add": (1,), "audit": ("kept", "x"), "vacuum": ("kept",)}
    with psycopg.connect(own_dsn, autocommit=True) as session:
        session.execute("CREATE TABLE kept (v text)")
        assert all(shop.task(name).delay(*arguments).get(timeout=60) for name, arguments in calls.items())
        # As after a newer package: the database names functions that the library has lost.
        session.execute(
            "CREATE TABLE proc AS SELECT oid, prosrc, probin FROM pg_proc WHERE probin LIKE '%/pg_background'"
        )
        session.execute(sql.SQL("UPDATE pg_proc SET {} WHERE oid IN (SELECT oid FROM proc)").format(sql.SQL(lost)))
        session.execute("UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'pg_background'")
        # The background worker of audit.
        ended = session.execute("""
            SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
            WHERE backend_type = 'pg_background' AND datname = current_database()
        """)
        assert ended.fetchall() == [(True,)]
        for name, arguments in calls.items():
            with pytest.raises(ExtensionMissing, match="ALTER EXTENSION pg_background UPDATE"):
                shop.task(name).delay(*arguments).get(timeout=60)
        session.execute("UPDATE pg_proc p SET prosrc = o.prosrc, probin = o.probin FROM proc AS o WHERE o.oid = p.oid")
        assert all(shop.task(name).delay(*arguments).get(timeout=60) for name, arguments in calls.items())
        # The launching sessions have examined the extension again, and know the database's default as before.
        assert {shop.task("parameter").delay("transaction_isolation").get(timeout=60) for _ in range(4)} == {
            "serializable"
        }
        # What failed has left no order.
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (2,)
