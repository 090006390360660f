"""The result backend while its database refuses sessions for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from celery import Celery, states
from celery.result import AsyncResult, GroupResult
from kombu import pools

from celery_pgbg.broker.station import close_stations
from celery_pgbg.database.results import close_stores
from tests.losses import losing, outage
from tests.waiting import eventually

WAIT = 60


@pytest.fixture
def server(own_dsn: str) -> Iterator[Any]:
    """A plain session that stays."""
    with psycopg.connect(own_dsn, autocommit=True) as session:
        yield session


@pytest.fixture
def app(own_dsn: str) -> Iterator[Celery]:
    url = f"pgbg+{own_dsn}"
    made = Celery("results", broker=url, backend=url, set_as_current=False)
    # Patient enough for the outages below.
    made.conf.task_publish_retry_policy = {"max_retries": 40, "interval_start": 0.1, "interval_step": 0}
    yield made
    made.close()
    pools.reset()
    close_stations()
    close_stores()


def test_a_nested_chord_calls_back_though_the_server_is_away_for_its_last_member(
    app: Celery, server: Any, server_dsn: str
) -> None:
    callback = app.signature("callback")
    callback.options["task_id"] = "callback"
    app.send_task("callback")
    server.execute("TRUNCATE celery_pgbg.message")
    members = [AsyncResult(f"member {i}", app=app) for i in range(2)]
    app.backend.apply_chord(("chord", [GroupResult("inner", members, app=app)]), callback)
    app.backend.set_chord_size("chord", 2)

    def end(i: int) -> None:
        app.backend.store_result(f"member {i}", i, states.SUCCESS)
        request = SimpleNamespace(
            group="chord", id=f"member {i}", group_index=i, chord=callback, task="member", retries=0
        )
        app.backend.on_chord_part_return(request, states.SUCCESS, i)

    end(0)
    # It is stored and recorded; with the third round trip the saved group is read.
    with outage(server_dsn, server, 1.0) as begin, losing(server, 3, then=begin) as losses:
        end(1)
    assert losses.lost
    assert AsyncResult("callback", app=app).state == states.PENDING
    [(sent,)] = server.execute("SELECT envelope::json -> 'headers' ->> 'id' FROM celery_pgbg.message").fetchall()
    assert sent == "callback"


@pytest.mark.parametrize("of_group", [False, True])
def test_who_waits_in_a_chain_waits_on_while_the_server_is_away(
    app: Celery, server: Any, server_dsn: str, of_group: bool
) -> None:
    first = AsyncResult("first", app=app)
    second = AsyncResult("second", app=app, parent=first)
    awaited = GroupResult("group", [AsyncResult("second", app=app)], parent=first, app=app) if of_group else second
    got: list[Any] = []

    def wait() -> None:
        try:
            got.append(awaited.get(timeout=WAIT))
        except Exception as exc:
            got.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually("waiting", lambda: app.backend.store.notifications.working)
    with outage(server_dsn, server, 2.0) as begin:
        begin()
    for task_id in ("first", "second"):
        app.backend.store_result(task_id, 7, states.SUCCESS)
    thread.join(WAIT)
    assert got == [[7] if of_group else 7]
