"""Stopping an attempt from outside: from a process that does not wait for it, or whose wait was broken off."""

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
from celery_pgbg.execution.records.attempts import as_parameters, attempts_as_arrays, forgive_launches, terminate
from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import StopReason

logger = logging.getLogger(__name__)

#: ``finished``: it had an outcome already, which stands; ``stopped``: its background worker is signalled;
#: ``absent``: it has no background worker, and will not get one.
Stop: TypeAlias = Literal["finished", "stopped", "absent"]

#: The message of an outcome that we stored to stop an attempt, by the reason, which is stored beside it.
_MESSAGES: dict[StopReason, str] = {
    "revoked": "revoked",
    "broken off": "its wait was broken off",
    "time limit": "its time limit has passed",
    "by hand": "cancelled by hand: pgbg cancel --force",
}

#: Pause between looks for a background worker that is starting, in seconds.
_PAUSE = 0.02


#: How long a stop may take before somebody looks whether the statement keeps our tables locked, in seconds.
_PATIENCE = 2.0


@contextmanager
def despite_locks(open_session: Callable[[], Session], task_id: str, numbers: Iterable[int]) -> Iterator[None]:
    """Stop attempts of a task in the body, which may ask our tables and so wait for the very statement it is to stop.

    See ``end_holder_soon``.
    """
    timer = end_holder_soon(open_session, task_id, numbers)
    try:
        yield
    finally:
        timer.cancel()


def end_holder_soon(open_session: Callable[[], Session], task_id: str, numbers: Iterable[int]) -> threading.Timer:
    """Unless cancelled soon: end a background worker that keeps our tables locked, without asking them.

    Args:
        open_session: makes another session in autocommit mode.
        task_id: whose background worker.
        numbers: of the attempts that may run in it.
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
        logger.warning("%s: whether its statement keeps our tables locked cannot be seen: %s", task_id, exc)
        return
    if ended:
        logger.warning("%s: its statement kept our tables locked: its background worker was ended", task_id)


def stop_attempt(session: Session, attempt: Attempt, reason: StopReason, message: str | None = None) -> Stop:
    """Let an attempt end as cancelled, unless it has ended. Its effects are absent then, for good.

    The cancel is committed as its outcome first: a later launch finds it, and a background
    worker that is just about to commit cannot, since its own outcome is refused.

    Args:
        session: in autocommit mode, and nobody else's.
        attempt: what to stop.
        reason: stored with the outcome.
        message: of the outcome, if not the usual one of the reason.
    """
    if not store_cancel(session, attempt, reason, message):
        return "finished"
    while not terminate(session, attempt, although_finished=True):
        if not _is_starting(session, attempt):
            return "absent"
        time.sleep(_PAUSE)
    return "stopped"


def store_cancel(session: Session, attempt: Attempt, reason: StopReason, message: str | None = None) -> bool:
    """Leave a cancel as the outcome of an attempt, unless it has one: then return False. See ``stop_attempt``.

    In two statements, since the snapshot of one that waits for a hand-over is older than this, and does not show
    which background worker got the attempt. A process that reads our outcome would take that one for free.
    """
    parameters = {**as_parameters(attempt), "reason": reason, "message": message or _MESSAGES[reason]}
    session.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    with session.transaction():
        session.execute(queries.query("lock_delivery"), parameters)
        return session.execute(queries.query("store_cancel"), parameters).fetchone() is not None


def forget_cancel(session: Session, attempt: Attempt, reason: StopReason) -> None:
    """Let an attempt that was stopped for this reason be launched again.

    Its background worker may still be ending: a launch finds it, waits, and launches anew when it is gone.
    """
    parameters = {**as_parameters(attempt), "reasons": [reason, "broken off"]}
    session.execute(queries.query("forget_cancel"), parameters)
    forgive_launches(session, attempt)


def _is_starting(session: Session, attempt: Attempt) -> bool:
    """Check whether it was launched so lately that its background worker may not be visible yet."""
    parameters = {**attempts_as_arrays([attempt]), "was_seen": False}
    return session.execute(queries.query("running_attempts"), parameters).fetchone() is not None


def breaks_off(error: BaseException) -> bool:
    """Check whether an exception was raised into the waiting thread to end its task, as time limits of other pools are.

    Not our own errors, nor what ends the process or the greenlet: a shutdown leaves statements running.
    """
    ends_the_thread = isinstance(error, (SystemExit, KeyboardInterrupt)) or type(error).__name__ == "GreenletExit"
    return not ends_the_thread and not isinstance(error, (PgbgError, psycopg.Error))
