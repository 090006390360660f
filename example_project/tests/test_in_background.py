"""What happens around the statements: a Celery worker, background workers, and what disturbs them."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from celery import group
from flights import tasks

from celery_pgbg.testing.tasks import PgbgTasks


@pytest.fixture(autouse=True)
def flights(pgbg_database: str) -> Iterator[None]:
    """Many flights, for all to see."""
    with psycopg.connect(pgbg_database) as connection:
        connection.execute(
            "INSERT INTO flight (month, carrier, distance, arr_delay)"
            " SELECT 1 + n % 12, 'AA', n % 3000, n % 40 FROM generate_series(1, 50000) AS n"
        )
    yield
    with psycopg.connect(pgbg_database) as connection:
        connection.execute("TRUNCATE flight, monthly_delay")


def test_twelve_months_at_once(pgbg_worker: Any, pgbg_tasks: PgbgTasks) -> None:
    assert group(tasks.roll_up.s(month) for month in range(1, 13)).delay().get(timeout=60) == [1] * 12
    assert pgbg_tasks.committed("SELECT count(*) FROM monthly_delay") == [(12,)]


def test_what_must_stand_alone(pgbg_worker: Any) -> None:
    assert tasks.index_by_plane.delay().get(timeout=60) == "CREATE INDEX"
    assert tasks.vacuum.delay().get(timeout=60) == "VACUUM"


def test_a_runaway_is_revoked(pgbg_worker: Any, pgbg_tasks: PgbgTasks) -> None:
    result = tasks.runaway.delay()
    pgbg_tasks.wait_running(result)
    result.revoke(terminate=True)
    pgbg_tasks.assert_revoked(result)


def test_a_message_delivered_again_rolls_up_once(pgbg_worker: Any, pgbg_tasks: PgbgTasks) -> None:
    result = tasks.roll_up.delay(1)
    pgbg_tasks.deliver_again(result, times=3)
    pgbg_tasks.assert_runs_once(result)


def test_a_roll_up_survives_its_celery_worker(
    pgbg_database: str, pgbg_worker_process: Callable[..., Any], pgbg_tasks: PgbgTasks
) -> None:
    worker = pgbg_worker_process("flights.app")
    with psycopg.connect(pgbg_database) as other:
        other.execute("LOCK monthly_delay")  # holds the statement up
        result = tasks.roll_up.delay(1)
        pgbg_tasks.wait_running(result)
        worker.kill()
    assert result.get(timeout=60) == 1  # without any Celery worker
    pgbg_worker_process("flights.app")
    pgbg_tasks.deliver_again(result)
    pgbg_tasks.assert_runs_once(result)
