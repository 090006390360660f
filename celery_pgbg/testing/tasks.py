"""Calls for tests that inspect and disturb SQL tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from celery import states

from celery_pgbg.execution import queries
from celery_pgbg.execution.control import operations
from celery_pgbg.execution.records.attempts import read_outcomes, terminate
from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import Lost, Raised, Returned
from celery_pgbg.testing.messages import SentMessages
from celery_pgbg.testing.waiting import DEADLINE, wait_until
from celery_pgbg.texts import storable

if TYPE_CHECKING:
    from celery import Celery


@dataclass(frozen=True)
class Running:
    """A statement that runs in a background worker.

    Attributes:
        task_id: Celery's.
        task_name: Celery's.
        pid: PostgreSQL's, of the background worker.
        statement: its beginning, as the server shows it.
        seconds: since its launch.
    """

    task_id: str
    task_name: str
    pid: int
    statement: str
    seconds: float


class PgbgTasks:
    """The SQL tasks of one app in one database: the fixture ``pgbg_tasks``.

    A parameter ``task`` is the result of sending the task, or its id. Times are in seconds.

    Args:
        app: the app of the tasks. dsn: the database where they run.
    """

    def __init__(self, app: Celery, dsn: str) -> None:
        self._app = app
        self._session = psycopg.connect(dsn, autocommit=True, application_name="pgbg test")
        self._sent = SentMessages(app)

    def close(self) -> None:
        """End the session."""
        self._sent.close()
        self._session.close()

    # --- looking -----------------------------------------------------------------------------------------

    def running(self, task: Any = None) -> list[Running]:
        """List the statements that run now: all, those of one task sent, or those of a task class."""
        rows = [row for row in operations.executions(self._session, 0) if row["state"] == "running"]
        if hasattr(task, "apply_async"):
            rows = [row for row in rows if row["task_name"] == task.name]
        elif task is not None:
            rows = [row for row in rows if row["task_id"] == _stored_id_of(task)]
        return [Running(**{key: row[key] for key in Running.__dataclass_fields__}) for row in rows]

    def outcome(self, task: Any) -> Returned | Raised | Lost | None:
        """Read what the latest attempt has committed: its value, its error, or None."""
        attempts = [Attempt(_stored_id_of(task), number) for number, _ in self._attempts(task)]
        outcomes = {outcome.attempt: outcome for outcome in read_outcomes(self._session, attempts)}
        return outcomes[max(outcomes)].ending() if outcomes else None

    def launches(self, task: Any) -> int:
        """Count how often background workers were launched for a task, its retries included."""
        return sum(launches for _, launches in self._attempts(task))

    def committed(self, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Read rows as every other session sees them."""
        return self._session.execute(query.encode(), parameters).fetchall()

    def _attempts(self, task: Any) -> list[tuple[int, int]]:
        rows = self._session.execute(queries.query("attempts_of"), {"task_id": _stored_id_of(task)})
        return [(attempt, launches) for attempt, launches in rows]

    # --- waiting -----------------------------------------------------------------------------------------

    def wait_running(self, task: Any, timeout: float = DEADLINE) -> Running:
        """Wait until a task's statement runs."""
        return wait_until(f"the statement of {_id_of(task)} runs", lambda: self.running(task), timeout)[0]

    def wait_stopped(self, task: Any = None, timeout: float = DEADLINE) -> None:
        """Wait until no statement of a task runs, or none at all."""
        wait_until("the statements have stopped", lambda: not self.running(task), timeout)

    # --- disturbing --------------------------------------------------------------------------------------

    def deliver_again(self, task: Any, times: int = 1) -> None:
        """Send a task's own message again, as a broker redelivers it.

        Raises:
            LookupError: it was sent by another process, or before this fixture was there.
        """
        for _ in range(times):
            self._sent.send_again(_id_of(task))

    def end_background_worker(self, task: Any) -> bool:
        """End the background worker of a task: its transaction rolls back, and the task is lost.

        Returns:
            False if there was none.
        """
        attempts = [Attempt(_stored_id_of(task), number) for number, _ in self._attempts(task)]
        return any([terminate(self._session, attempt) for attempt in attempts])

    # --- asserting ---------------------------------------------------------------------------------------

    def assert_runs_once(self, task: Any, timeout: float = DEADLINE) -> None:
        """Assert that a task ends with one outcome and one launch, however often its message was delivered."""
        wait_until(f"{_id_of(task)} has an outcome", lambda: self.outcome(task), timeout)
        self._sent.wait_consumed(_id_of(task), timeout)
        launches = self.launches(task)
        assert launches == 1, f"the statement of {_id_of(task)} was launched {launches} times"

    def assert_revoked(self, result: Any, timeout: float = DEADLINE) -> None:
        """Assert that a task ends REVOKED, with its statement gone and nothing of it committed."""
        wait_until(f"{result.id} is in a final state", lambda: result.state in states.READY_STATES, timeout)
        assert result.state == states.REVOKED, f"{result.id} is {result.state}, not revoked"
        self.wait_stopped(result, timeout)
        outcome = self.outcome(result)
        is_revoke = isinstance(outcome, Raised) and outcome.report.stopped == "revoked"
        assert outcome is None or is_revoke, f"{result.id} is revoked, but has committed {outcome}"


def end_statements(dsn: str) -> None:
    """End all background workers of SQL tasks in a database, and wait until they are gone."""
    with psycopg.connect(dsn, autocommit=True, application_name="pgbg test") as session:
        query = queries.query("end_background_workers")
        wait_until("all statements are ended", lambda: not session.execute(query).rowcount)


def _id_of(task: Any) -> str:
    return str(getattr(task, "id", None) or task)


def _stored_id_of(task: Any) -> str:
    return storable(_id_of(task))
