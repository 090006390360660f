"""Stopping an attempt from outside: from a process that does not wait for it, or whose wait was broken off."""

from __future__ import annotations

import time
from typing import Literal, TypeAlias

import psycopg

from celery_pgbg.database import queries
from celery_pgbg.database.attempts import attempts_as_arrays
from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import PgbgError
from celery_pgbg.handles import Attempt

#: ``finished``: it had an outcome already, which stands; ``stopped``: its background worker is signalled;
#: ``absent``: it has no background worker, and will not get one.
Stop: TypeAlias = Literal["finished", "stopped", "absent"]

#: The message by which those who wait for an attempt know that it was revoked.
REVOKED = "revoked from another process"

#: The message of an attempt whose waiting thread was told to end.
BROKEN_OFF = "its wait was broken off"

#: Pause between looks for a background worker that is starting, in seconds.
_PAUSE = 0.02


def stop_attempt(session: Session, attempt: Attempt, application_name: str, message: str) -> Stop:
    """Let an attempt end as cancelled, unless it has ended. Its effects are absent then, for good.

    The cancel is committed as its outcome first: whoever launches it later is told so, and a background
    worker that is just about to commit cannot, since its own outcome is refused.

    Args:
        session: in autocommit mode, and nobody else's.
        attempt: what to stop.
        application_name: the identity of its background worker.
        message: of the outcome.
    """
    if not _store_cancel(session, attempt, message):
        return "finished"
    while not session.execute(queries.query("terminate_worker"), {"application_name": application_name}).fetchone():
        if not _is_starting(session, attempt):
            return "absent"
        time.sleep(_PAUSE)
    return "stopped"


def _store_cancel(session: Session, attempt: Attempt, message: str) -> bool:
    """Leave a cancel as its outcome, unless it has one.

    In two statements, since the snapshot of one that waits for a hand-over is older than this, and does not show
    which background worker got the attempt. That one would be taken for free by who reads our outcome.
    """
    parameters = {"task_id": attempt.task_id, "attempt": attempt.number, "message": message}
    session.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    with session.transaction():
        session.execute(queries.query("lock_delivery"), parameters)
        return session.execute(queries.query("store_cancel"), parameters).fetchone() is not None


def forget_cancel(session: Session, attempt: Attempt, message: str) -> None:
    """Let an attempt that was stopped with this message be launched again.

    Its background worker may still be ending: a launch finds it, waits, and launches anew when it is gone.
    """
    parameters = {"task_id": attempt.task_id, "attempt": attempt.number, "messages": [message, BROKEN_OFF]}
    session.execute(queries.query("forget_cancel"), parameters)


def _is_starting(session: Session, attempt: Attempt) -> bool:
    """Tell whether it was launched so lately that its background worker may not be visible yet."""
    parameters = {**attempts_as_arrays([attempt]), "was_seen": False}
    return session.execute(queries.query("running_attempts"), parameters).fetchone() is not None


def breaks_off(error: BaseException) -> bool:
    """Tell whether an exception was raised into the waiting thread to end its task, as time limits of other pools are.

    Not our own errors, nor what ends the process or the greenlet: a shutdown leaves statements running.
    """
    ends_the_thread = isinstance(error, (SystemExit, KeyboardInterrupt)) or type(error).__name__ == "GreenletExit"
    return not ends_the_thread and not isinstance(error, (PgbgError, psycopg.Error))
