"""Statements that stand alone (``atomic=False``): VACUUM, CREATE INDEX CONCURRENTLY, CALL with COMMIT.

They run at top level, with no gate and no wrapper. So each has its own launching session, where handles cannot be
confused. That session finds their end by polling, and stores their outcome afterwards: if the Celery worker dies in
between, their effects are unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import psycopg

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.values import from_exception
from celery_pgbg.errors import SessionLost
from celery_pgbg.execution.alone.launcher import StandaloneLauncher
from celery_pgbg.execution.alone.results import UNKNOWN
from celery_pgbg.execution.strategies.counts import Counts
from celery_pgbg.execution.strategies.means import Means
from celery_pgbg.execution.strategies.standalone_ends import (
    brought_to_record,
    ended_before,
    is_our_stop,
    not_launched,
    stored_ending,
    twice,
)
from celery_pgbg.execution.waiting.slots import SlotLine
from celery_pgbg.handles import Handle
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import ENDED, UNSEEN, Cancelled, Detached, Ending, ErrorReport, Lost, Raised, Returned
from celery_pgbg.watch import Interruption, Watch

logger = logging.getLogger(__name__)

#: Pauses between two checks of a running statement, in seconds; they grow from the first to the longest.
_FIRST_LOOK, _LONGEST_LOOK = 0.01, 0.5

#: SQLSTATEs of temporary failures: a deadlock, a lock timeout.
_PASSING = ("40P01", "55P03")

#: Reading would hold a snapshot, and statements such as CREATE INDEX CONCURRENTLY wait for snapshots.
_QUEUE_FULL = ErrorReport(
    "54000",
    "the statement was stopped: its rows and messages do not fit into the queue of its background worker",
    {
        "message_hint": "The rows and messages of a task with atomic=False may have one megabyte. Leave out VERBOSE, "
        "return fewer rows, or write them to a table."
    },
)


class Standalone:
    """A background worker and a launching session of its own for a statement that stands alone."""

    def __init__(self, means: Means) -> None:
        self._means = means

    def run(self, order: Order, watch: Watch) -> Ending:
        """Launch, wait, stop on demand."""
        means = self._means
        means.standalone.append(watch)
        try:
            return _run(order, watch, means.opener("standalone"), means.line, means.counts)
        finally:
            means.standalone.remove(watch)


def _run(order: Order, watch: Watch, open_session: Callable[[], Session], line: SlotLine, counts: Counts) -> Ending:
    """Run a statement that stands alone to its end, in the calling thread.

    Raises:
        BindingError: the query and its arguments do not fit.
        ConfigurationError: extension or privilege are missing, or the server refuses us.
    """
    launcher = StandaloneLauncher(open_session, order)
    try:
        while True:
            state, pid = _record(launcher, watch)
            match state:
                case "interrupted":
                    ending: Ending | None = not_launched(launcher, watch, is_recorded=False)
                case "recorded":
                    ending = _launch_and_watch(launcher, order, watch, line, counts)
                case "attached":
                    logger.info("%s runs already, in background worker %d: attached", order.attempt, pid)
                    counts.add("attached")
                    watch.accept(pid or 0)
                    ending = _follow(launcher, watch)
                case _:
                    ending = ended_before(launcher, watch, state)
            if ending is not None:
                return ending
    finally:
        launcher.close()


def _record(launcher: StandaloneLauncher, watch: Watch) -> tuple[str, int | None]:
    backoff = Backoff()
    while watch.interruption is None:
        try:
            return launcher.record()
        except SessionLost as exc:
            logger.warning("%s cannot be launched, trying again: %s", watch.attempt, exc)
            watch.wait(backoff.next())
    return "interrupted", None


def _launch_and_watch(
    launcher: StandaloneLauncher, order: Order, watch: Watch, line: SlotLine, counts: Counts
) -> Ending | None:
    """Launch and wait; None if the session was lost before the launch."""
    try:
        handle = _launch(launcher, watch, line)
    except SessionLost as exc:
        if not launcher.may_have_launched:
            logger.warning("%s cannot be launched, trying again: %s", watch.attempt, exc)
            return None
        return Lost(f"the session was lost while launching; {UNKNOWN}", "unknown")
    except psycopg.Error as exc:
        twice(watch, launcher.forget)
        return Raised(from_exception(exc))
    except Exception:
        twice(watch, launcher.forget)
        raise
    if handle is None:
        return not_launched(launcher, watch, is_recorded=True)
    counts.add("launched")
    try:
        ending = _attend(launcher, watch, handle)
        if (
            _may_build_again(order, watch, ending)
            and launcher.dropped
            and (again := _launch_again(launcher, watch, line))
        ):
            counts.add("launched")
            handle = again
            ending = _attend(launcher, watch, handle)
    except SessionLost as exc:
        logger.warning("%s: %s; looking for its background worker", watch.attempt, exc)
        watch.accept(handle.pid)
        return _follow(launcher, watch, is_ours=True) or Lost(UNSEEN, "unknown")
    return brought_to_record(launcher, watch, ending)


def _attend(launcher: StandaloneLauncher, watch: Watch, handle: Handle) -> Ending:
    launcher.put_on_record(handle)
    if launcher.stored_outcome() is not None:
        # Stopped just before that, by a session that could not find it.
        launcher.terminate_own(handle)
    watch.handle = handle
    watch.accept(handle.pid)
    ending = _poll(launcher, watch, handle)
    watch.notices = launcher.notices
    try:
        return _with_invalid_index(launcher, watch, ending)
    except SessionLost as exc:
        logger.warning("%s: cannot look for an invalid index that it has left: %s", watch.attempt, exc)
        return ending


def _may_build_again(order: Order, watch: Watch, ending: Ending) -> bool:
    """Whether an index whose build failed is built again at once: not if the build was stopped."""
    is_passing = isinstance(ending, Raised) and ending.report.sqlstate in _PASSING
    return order.retry_invalid and is_passing and watch.interruption is None


def _launch_again(launcher: StandaloneLauncher, watch: Watch, line: SlotLine) -> Handle | None:
    """Launch the same statement once more; None if that is refused, and the first error stands."""
    logger.warning("%s: building the index again", watch.attempt)
    launcher.may_have_launched = False
    try:
        return _launch(launcher, watch, line)
    except (psycopg.Error, SessionLost) as exc:
        if launcher.may_have_launched and isinstance(exc, SessionLost):
            raise
        logger.warning("%s: cannot be launched again: %s", watch.attempt, exc)
        return None


def _with_invalid_index(launcher: StandaloneLauncher, watch: Watch, ending: Ending) -> Ending:
    """Name the invalid index that a failed statement has left, and drop it if the task wants that."""
    launcher.dropped = []
    if isinstance(ending, (Returned, Detached)) or not (names := launcher.left_invalid()):
        return ending
    if launcher.drop_left(names):
        logger.warning("%s: dropped the invalid index that the statement had left: %s", watch.attempt, ", ".join(names))
        return ending
    left = f"the statement left an invalid index, which slows writes and serves no query: {', '.join(names)}"
    logger.warning("%s: %s", watch.attempt, left)
    if isinstance(ending, Lost):
        return replace(ending, reason=f"{ending.reason}; {left}")
    if isinstance(ending, Raised):
        hint = f"{left}. Drop it, or give the task retry_invalid=True, which drops the index and builds it again."
        before = ending.report.fields.get("message_hint")
        fields = {**ending.report.fields, "message_hint": f"{before} {hint[0].upper()}{hint[1:]}".removeprefix("None ")}
        return Raised(replace(ending.report, fields=fields))
    return ending


def _launch(launcher: StandaloneLauncher, watch: Watch, line: SlotLine) -> Handle | None:
    try:
        # A session that stops the attempt stores the stop as its outcome, and does not wait for us.
        while watch.interruption is None and launcher.stored_outcome() is None:
            if line.join(watch) and (handle := launcher.launch_now()):
                return handle
            line.wait(watch)
    finally:
        line.leave(watch)
    return None


def _poll(launcher: StandaloneLauncher, watch: Watch, handle: Handle) -> Ending:
    """Wait for the end in the launching session."""
    pause = _FIRST_LOOK
    signalled = is_blocked = False
    while True:
        if launcher.states().get(handle) != "running":
            return _named(launcher, launcher.result_of(handle), watch, signalled, is_blocked)
        if watch.interruption is Interruption.DETACH:
            return Detached()
        if pause == _LONGEST_LOOK and launcher.blocked([handle]):
            is_blocked = launcher.terminate_own(handle)
        if watch.interruption not in (None, Interruption.DETACH):
            signalled = launcher.terminate_own(handle) or signalled
            pause = min(pause, _FIRST_LOOK * 5)
        pause = _pause(launcher, watch, pause, handle)


def _pause(launcher: StandaloneLauncher, watch: Watch, seconds: float, handle: Handle | None = None) -> float:
    """Wait before the next check; an interruption ends the wait once. Returns the next wait.

    Raises:
        SessionLost: the session with this handle is lost.
    """
    if seconds == _LONGEST_LOOK:
        try:
            launcher.look_at_progress(watch, handle)
        except SessionLost:
            # A new session does not have the handle.
            if handle is not None:
                raise
        except psycopg.Error as exc:
            logger.debug("%s: its progress cannot be read: %s", watch.attempt, exc)
        watch.pass_progress_on()
    if watch.interruption is None:
        watch.wait(seconds)
    else:
        watch.wait_for_end(seconds)
    return min(seconds * 1.5, _LONGEST_LOOK)


def _named(
    launcher: StandaloneLauncher, ending: Returned | Raised | Lost, watch: Watch, signalled: bool, was_blocked: bool
) -> Ending:
    """The background worker's error is the statement's error, unless we ended it."""
    if isinstance(ending, Returned) or (isinstance(ending, Raised) and ending.report.sqlstate not in ENDED):
        return ending
    if signalled:
        return Cancelled()
    if was_blocked:
        return Raised(_QUEUE_FULL)
    if isinstance(ending, Raised) and launcher.was_terminated(watch.attempt):
        return Lost(f"another delivery ended its background worker: {ending.report.message}; {UNKNOWN}", "unknown")
    return ending


def _follow(launcher: StandaloneLauncher, watch: Watch, is_ours: bool = False) -> Ending | None:
    """Wait for the end of a background worker whose handle is not ours: for its outcome, or for its absence.

    Args:
        launcher: a session of the statement's own.
        watch: the watch that waits.
        is_ours: whether the launching session was ours, and is lost.

    Returns:
        None if neither comes: the record shows whether it was launched at all.
    """
    pause = _FIRST_LOOK
    backoff = Backoff()
    absent = 0
    signalled = launcher.may_have_stopped
    while True:
        # Read once: it may come at any moment.
        interruption = watch.interruption
        if interruption is Interruption.DETACH:
            return Detached()
        try:
            state = launcher.live_state()
            is_alive = state is not None
            is_revoked = interruption is Interruption.REVOKE
            if (ending := stored_ending(launcher)) and not (is_alive and is_revoked):
                return Cancelled() if is_our_stop(ending, interruption) else ending
            if is_ours:
                launcher.disown()
                is_ours = False
            absent = 0 if is_alive else absent + 1
            if is_revoked:
                # One launched a moment ago may also have ended, and its revoke would say that it had no effects.
                if state not in (None, "launched"):
                    launcher.stop_live_worker()
            elif interruption is not None:
                signalled = launcher.terminate_live_worker() or signalled
        except SessionLost as exc:
            logger.warning("%s: %s; trying again", watch.attempt, exc)
            watch.wait_for_end(backoff.next())
            continue
        if absent > 3:
            if interruption is None:
                return None
            return brought_to_record(launcher, watch, Cancelled() if signalled else Lost(UNSEEN, "unknown"))
        pause = _pause(launcher, watch, max(pause, _LONGEST_LOOK) if absent else pause)
