"""Walks of batched tasks under accidents that really happen: each row is done once, none is left out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_pgbg.devserver import DevServer
from celery_pgbg.errors import SessionLost
from tests.effects import running
from tests.faults.conftest import ALONE
from tests.faults.standby import standby_of
from tests.fix_celery import Shop
from tests.fix_server import HASTY
from tests.waiting import eventually

WAIT = 60

ROWS = 600

Database = psycopg.Connection[Any]


def make_table(dsn: str) -> Database:
    """The table that the app's task ``walk`` walks, and its log."""
    session = psycopg.connect(dsn, autocommit=True)
    session.execute("CREATE TABLE walked (id bigint PRIMARY KEY); CREATE TABLE walked_log (id bigint)")
    session.execute("CREATE TABLE walked_hold ()")
    session.execute("INSERT INTO walked SELECT generate_series(1, %s)", [ROWS])
    return session


def noted(session: Database) -> Counter[int]:
    """How often each row was given to the statement, in what committed."""
    return Counter(number for (number,) in session.execute("SELECT id FROM walked_log"))


EACH_ONCE = Counter(range(1, ROWS + 1))


@pytest.mark.timeout(240)
def test_a_walk_survives_every_accident(
    new_server: Callable[..., DevServer], new_shop: Callable[..., Shop], redis_url: str, hasty_redis: str
) -> None:
    server = new_server()
    dsn = server.dsn
    assert dsn is not None
    session = make_table(dsn)
    shop = new_shop(
        hasty_redis, f"{redis_url}/10", pgbg_dsn=dsn, pgbg_sweep_interval=0.2, broker_transport_options=HASTY
    )
    workers = [shop.start_worker(*ALONE)]
    result = shop.task("walk").delay()

    def kill_celery_worker() -> None:
        workers[-1].kill()
        workers.append(shop.start_worker(*ALONE))

    def deploy() -> None:
        workers[-1].send(3)  # SIGQUIT, a cold shutdown
        workers[-1].wait()
        workers.append(shop.start_worker(*ALONE))

    def end_background_worker() -> None:
        for pid in running(session, result.id):
            session.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    def crash_server() -> None:
        nonlocal session
        session.close()
        server.crash()
        server.start()
        session = eventually("the server is back", lambda: _connection(dsn))

    accidents = [kill_celery_worker, deploy, end_background_worker, crash_server]
    random.shuffle(accidents)
    for accident in accidents:
        before = noted(session).total()
        goal = before + random.choice((1, 20, 60))
        eventually(f"{goal} rows", lambda goal=goal: result.ready() or noted(session).total() >= goal)
        accident()

    value = result.get(timeout=WAIT)
    assert noted(session) == EACH_ONCE, [accident.__name__ for accident in accidents]
    assert value["rows"] == ROWS
    assert value["batches"] >= ROWS / 20
    session.close()


def _connection(dsn: str) -> Database | None:
    try:
        return psycopg.connect(dsn, autocommit=True)
    except (psycopg.OperationalError, SessionLost):
        return None


def test_a_walk_waits_for_a_standby_that_is_behind(
    new_server: Callable[..., DevServer], new_shop: Callable[..., Shop], redis_url: str
) -> None:
    server = new_server()
    dsn = server.dsn
    assert dsn is not None
    with standby_of(server) as standby, make_table(dsn) as session:
        shop = new_shop(f"{redis_url}/12", f"{redis_url}/10", pgbg_dsn=dsn)
        shop.start_worker(*ALONE)
        with psycopg.connect(standby.dsn, autocommit=True) as reader:
            standby.wait_replayed(dsn)
            reader.execute("SELECT pg_wal_replay_pause()")
            result = shop.task("walk_with_standby").delay()
            query = "SELECT progress_message FROM celery_pgbg.execution WHERE task_id = %s"

            def waits() -> bool:
                row = session.execute(query, [result.id]).fetchone()
                return bool(row and row[0] and "waits for a standby" in row[0])

            eventually("it waits", waits)
            assert not result.ready()
            reader.execute("SELECT pg_wal_replay_resume()")
        assert result.get(timeout=WAIT)["rows"] == ROWS
        assert noted(session) == EACH_ONCE
