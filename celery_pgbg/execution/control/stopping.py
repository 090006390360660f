"""Stops an attempt from outside: from a process that does not wait for it, or whose wait was interrupted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import psycopg

from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import PgbgError
from celery_pgbg.execution import queries
from celery_pgbg.execution.records.attempts import as_parameters, forgive_launches, read_outcomes, terminate
from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import StopReason

logger = logging.getLogger(__name__)

#: ``finished``: it already had an outcome, which stands; ``stopped``: its background worker is signalled; ``absent``:
#: it has no background worker, and will not get one.
Stop: TypeAlias = Literal["finished", "stopped", "absent"]

#: The message of an outcome that we stored to stop an attempt, by its reason; the reason is stored too.
_MESSAGES: dict[StopReason, str] = {
    "revoked": "revoked",
    "broken off": "its wait was broken off",
    "time limit": "its time limit has passed",
    "by hand": "cancelled by hand: pgbg cancel --force",
}

#: Pause between checks for a starting background worker, in seconds.
_PAUSE = 0.02


#: How long a stop may take before a thread checks whether the statement keeps our tables locked, in seconds.
_PATIENCE = 2.0


@contextmanager
def despite_locks(open_session: Callable[[], Session], task_id: str, numbers: Iterable[int]) -> Iterator[None]:
    """Stop attempts of a task in the block.

    The block may query our tables, and so wait for the very statement that it stops. See ``end_holder_soon``.
    """
    timer = end_holder_soon(open_session, task_id, numbers)
    try:
        yield
    finally:
        timer.cancel()


def end_holder_soon(open_session: Callable[[], Session], task_id: str, numbers: Iterable[int]) -> threading.Timer:
    """Unless cancelled soon, end a background worker that keeps our tables locked, without querying them.

    Args:
        open_session: makes another session in autocommit mode.
        task_id: the task.
        numbers: the attempts that may run in its background worker.
    """
    timer = threading.Timer(_PATIENCE, _end_holder, [open_session, task_id, list(numbers)])
    timer.daemon = True
    timer.start()
    return timer


def _end_holder(open_session: Callable[[], Session], task_id: str, numbers: list[int]) -> None:
    try:
        with open_session() as session:
            parameters = {"task_id": task_id, "attempts": numbers}
            ended = session.execute(queries.query("terminate_holder"), parameters).fetchall()
    except (psycopg.Error, PgbgError) as exc:
        logger.warning("%s: cannot find out whether its statement keeps our tables locked: %s", task_id, exc)
        return
    if ended:
        logger.warning("%s: its statement kept our tables locked, so its background worker was ended", task_id)


def stop_attempt(session: Session, attempt: Attempt, reason: StopReason, message: str | None = None) -> Stop:
    """End an attempt as cancelled, unless it has ended; its effects are then absent for good.

    The cancel is first committed as its outcome. A later launch finds that outcome, and a background worker that is
    about to commit cannot commit, because its own outcome is refused.

    Args:
        session: in autocommit mode, not shared.
        attempt: the attempt to stop.
        reason: stored with the outcome.
        message: the outcome's message, if not the usual message of the reason.
    """
    if not store_cancel(session, attempt, reason, message):
        if any(found.settled_as not in (None, "lost") for found in read_outcomes(session, [attempt])):
            # A stop, whose session may have been lost before it has signalled the background worker.
            terminate(session, attempt, although_finished=True)
        return "finished"
    while not terminate(session, attempt, although_finished=True):
        if not _is_starting(session, attempt):
            return "absent"
        time.sleep(_PAUSE)
    return "stopped"


def store_cancel(session: Session, attempt: Attempt, reason: StopReason, message: str | None = None) -> bool:
    """Store a cancel as the outcome of an attempt; False if it has an outcome. See ``stop_attempt``.

    Two statements are needed. The snapshot of a single statement that waits for a hand-over is older than the
    hand-over, and does not show which background worker got the attempt. A process that reads our outcome would treat
    that background worker as free.
    """
    parameters = {**as_parameters(attempt), "reason": reason, "message": message or _MESSAGES[reason]}
    session.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    with session.transaction():
        session.execute(queries.query("lock_delivery"), parameters)
        return session.execute(queries.query("store_cancel"), parameters).fetchone() is not None


def forget_cancel(session: Session, attempt: Attempt, reason: StopReason) -> None:
    """Allow a new launch of an attempt that was stopped for this reason.

    Its background worker may still be ending: a launch finds it, waits until it is gone, and then launches.
    """
    parameters = {**as_parameters(attempt), "reasons": [reason, "broken off"]}
    session.execute(queries.query("forget_cancel"), parameters)
    forgive_launches(session, attempt)


def _is_starting(session: Session, attempt: Attempt) -> bool:
    """Check whether its launch is so recent that its background worker may not be visible yet.

    A launching session that attends it, which may wait long for a slot, finds the cancel by itself.
    """
    row = session.execute(queries.query("live_state"), as_parameters(attempt)).fetchone()
    return row is not None and row[0] != "attended"


def breaks_off(error: BaseException) -> bool:
    """Check whether an exception was raised into the waiting thread to end its task, like time limits of other pools.

    False for our own errors, and for exceptions that end the process or the greenlet: a shutdown leaves statements
    running.
    """
    ends_the_thread = isinstance(error, (SystemExit, KeyboardInterrupt)) or type(error).__name__ == "GreenletExit"
    return not ends_the_thread and not isinstance(error, (PgbgError, psycopg.Error))
