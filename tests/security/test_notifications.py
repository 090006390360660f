"""Notifications that any role may send, on our channels."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
from celery import Celery, states

from celery_pgbg.database.notifications import OUTCOME_CHANNEL, RESULT_CHANNEL
from celery_pgbg.database.results import close_stores
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Returned
from tests.fix_runner import order, run
from tests.waiting import eventually

PAYLOADS = ["² x", "x", "", " ", "-1 x", "9" * 20 + " x", "٣ x", "1e3 x", "0x1 x", "0 ", "\u2028", "x" * 7_999, "'"]


def test_no_payload_ends_a_listener(new_runner: Callable[..., Runner], database: psycopg.Connection[Any]) -> None:
    # Only a notification ends this within the test's time.
    runner = new_runner(pgbg_sweep_interval=300)
    assert isinstance(run(runner, order("SELECT 1")), Returned)
    pid = eventually("it listens", lambda: runner.describe()["listener_pid"])
    for payload in PAYLOADS:
        database.execute("SELECT pg_notify(%s, %s)", [OUTCOME_CHANNEL, payload])
    assert isinstance(run(runner, order("SELECT pg_sleep(0.2)")), Returned)
    assert runner.describe()["listener_pid"] == pid


def test_no_payload_ends_the_wait_for_results(dsn: str, database: psycopg.Connection[Any]) -> None:
    app = Celery("results", broker="memory://", backend=f"pgbg+{dsn}", set_as_current=False)
    task_id = str(uuid.uuid4())

    def attack_and_store() -> None:
        eventually("it listens", lambda: app.backend.store.notifications.working)
        for channel in (OUTCOME_CHANNEL, RESULT_CHANNEL):
            for payload in PAYLOADS:
                database.execute("SELECT pg_notify(%s, %s)", [channel, payload])
        app.backend.store_result(task_id, 1, states.SUCCESS)

    attacker = threading.Thread(target=attack_and_store)
    attacker.start()
    assert app.AsyncResult(task_id).get(timeout=60) == 1
    attacker.join()
    assert app.backend.store.notifications.working
    close_stores()
