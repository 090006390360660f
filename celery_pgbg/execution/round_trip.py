"""One statement from its launch to its outcome, to see that the whole way is open."""

from __future__ import annotations

import threading
import time
import uuid

from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Detached, Raised, Returned
from celery_pgbg.settings import Settings
from celery_pgbg.watch import Interruption, Watch

#: How long the doctor waits for ``SELECT 1``, in seconds.
_ROUND_TRIP_SECONDS = 15.0


def round_trip(dsn: str, settings: Settings) -> float:
    """Run ``SELECT 1`` as a task would.

    Returns:
        Seconds from launch to outcome.

    Raises:
        RuntimeError: it did not end in time, or otherwise than with its value.
    """
    runner = Runner(dsn, settings, "doctor")
    attempt = Attempt(f"doctor-{uuid.uuid4()}")
    order = Order(attempt, "pgbg.doctor", "doctor", "SELECT 1", {}, "value", notify=settings.notify)
    watch = Watch(attempt)
    alarm = threading.Timer(_ROUND_TRIP_SECONDS, watch.interrupt, (Interruption.DETACH,))
    alarm.start()
    try:
        begin = time.monotonic()
        ending = runner.run(order, watch)
        seconds = time.monotonic() - begin
    finally:
        alarm.cancel()
        runner.close()
    if ending == Detached():
        raise RuntimeError(
            f"SELECT 1 in a background worker took more than {_ROUND_TRIP_SECONDS:g} s: probably no slot is free"
        )
    if ending != Returned(1):
        end = str(ending)
        if isinstance(ending, Raised):
            end = f"{ending.report.message} (SQLSTATE {ending.report.sqlstate})"
        raise RuntimeError(f"SELECT 1 in a background worker ended with {end}")
    return seconds
