"""The ends of statements that stand alone: those that are stored, and those that we have to bring to record."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import psycopg

from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.errors import PgbgError, SessionLost
from celery_pgbg.execution.alone.launcher import StandaloneLauncher
from celery_pgbg.outcomes import UNSEEN, Cancelled, Detached, Ending, ErrorReport, Lost, Raised, Returned
from celery_pgbg.watch import Interruption, Watch

T = TypeVar("T")

logger = logging.getLogger(__name__)


def ended_before(launcher: StandaloneLauncher, watch: Watch, state: str) -> Ending | None:
    """The end of an earlier delivery's statement; None if it cannot be read now."""
    try:
        if state == "gone":
            launcher.settle_lost(watch.attempt.task_id)
            return stored_ending(launcher) or Lost(UNSEEN, "unknown")
        return stored_ending(launcher) or Lost("its outcome was deleted")
    except SessionLost as exc:
        logger.warning("%s: its outcome cannot be read, trying again: %s", watch.attempt, exc)
        return None


def brought_to_record(launcher: StandaloneLauncher, watch: Watch, ending: Ending) -> Ending:
    """Store an end that we have seen, if need be on a new session."""
    if isinstance(ending, (Returned, Raised)):
        twice(watch, partial(launcher.store, ending))
    if isinstance(ending, Cancelled) and watch.interruption is Interruption.REVOKE:
        twice(watch, launcher.settle_revoke)
    if isinstance(ending, (Cancelled, Detached)):
        return ending
    # Another process may have revoked it, and stored the revoke as its outcome.
    return twice(watch, partial(stored_ending, launcher)) or _decoded(ending)


def stored_ending(launcher: StandaloneLauncher) -> Ending | None:
    """The stored outcome, if there is one."""
    outcome = launcher.stored_outcome()
    return _ending_of(outcome) if outcome else None


def _decoded(ending: Ending) -> Ending:
    """The end of a statement whose outcome could not be stored, because its record is gone."""
    if not isinstance(ending, Returned):
        return ending
    return _ending_of(StoredOutcome("", 0, succeeded=True, **ending.value.as_parameters()))


def _ending_of(outcome: StoredOutcome) -> Ending:
    try:
        return outcome.ending()
    except Exception as exc:  # noqa: BLE001 - psycopg's loaders raise what they like
        message = f"the statement has completed, but a value of its result cannot be loaded: {exc}"
        return Raised(ErrorReport("22000", message))


def not_launched(launcher: StandaloneLauncher, watch: Watch, is_recorded: bool) -> Ending:
    """The end of an order that an interruption, or a stop by another session, has kept from its launch.

    A revoke is stored as its outcome: other deliveries may not know of it yet.

    Args:
        launcher: the session of the statement.
        watch: the watch that waits.
        is_recorded: whether the record is ours. If not, an earlier delivery may have left a background worker.
    """
    interruption = watch.interruption

    def settle() -> Ending | None:
        if interruption is Interruption.REVOKE and is_recorded:
            launcher.settle_revoke()
        elif interruption is Interruption.REVOKE:
            launcher.stop_live_worker()
        elif interruption not in (None, Interruption.DETACH) and not is_recorded:
            launcher.terminate_live_worker()
        return None if interruption is Interruption.DETACH else stored_ending(launcher)

    stored = twice(watch, settle)
    twice(watch, launcher.forget if is_recorded else launcher.forget_unlaunched)
    if interruption is Interruption.DETACH:
        return Detached()
    if interruption is None:
        return stored or Lost("it was stopped before its launch, and the outcome cannot be read")
    return Cancelled() if stored is None or is_our_stop(stored, interruption) else stored


def is_our_stop(ending: Ending, interruption: Interruption | None) -> bool:
    """Whether an outcome is the revoke that has also interrupted us."""
    is_revoked = isinstance(ending, Raised) and ending.report.stopped == "revoked"
    return interruption is Interruption.REVOKE and is_revoked


def twice(watch: Watch, call: Callable[[], T]) -> T | None:
    """Make a call, again on a new session if the session is lost; None if it fails."""
    for is_last in (False, True):
        try:
            return call()
        except (psycopg.Error, PgbgError) as exc:
            if is_last or not isinstance(exc, SessionLost):
                logger.warning("%s: its record cannot be brought to its end: %s", watch.attempt, exc)
                break
    return None
