"""PostgreSQL restarted under running tasks: what committed stands, the rest runs again once."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from celery_pgbg.database import schema
from celery_pgbg.devserver import DevServer
from tests.effects import effects
from tests.fix_celery import Shop


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_of_the_server_loses_nothing_and_repeats_nothing(
    new_shop: Callable[..., Shop], redis_url: str, mode: str
) -> None:
    server = DevServer(f"restart-{mode}")
    dsn = server.start(max_worker_processes=30)
    try:
        with psycopg.connect(dsn, autocommit=True) as session:
            schema.install(session)
            session.execute("DROP TABLE IF EXISTS restarted; CREATE TABLE restarted (v text)")
        shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
        shop.start_worker()
        done = shop.task("insert").delay("restarted", "before")
        assert done.get(timeout=60) == 1
        result = shop.task("insert").delay("restarted", "during", 4)
        shop.wait_active(result)
        server.restart(mode)
        assert result.get(timeout=90) == 1
        with psycopg.connect(dsn, autocommit=True) as session:
            assert effects(session, "restarted") == ["before", "during"]
    finally:
        server.stop(purge=True)
