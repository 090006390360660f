"""Real tasks, held by locks of the test at each moment of their lives, with nothing changed in the product.

Every task runs the same statement; what differs is which lock somebody holds.
"""

from __future__ import annotations

import contextlib
import enum
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from tests.fix_celery import Shop
from tests.waiting import eventually

Database = psycopg.Connection[Any]

#: What a held task does: its effect, then two points where it can be held, then its result.
_STATEMENT = """
    INSERT INTO {table} VALUES ('{id}');
    SELECT pg_advisory_xact_lock_shared(hashtextextended('{id}', 0));
    {commit}
    SELECT '{id}' AS v
"""

#: Makes the commit wait for a standby that never comes, see ``hold_commits``.
_WAIT_FOR_STANDBY = "SET LOCAL synchronous_commit = on;"


class Moment(enum.Enum):
    """Where in its life a task is held."""

    BEFORE_LAUNCH = "before launch"
    IN_GATE = "in the gate"
    RUNNING = "running"
    COMMITTING = "committing"
    ON_DISK = "committed, and not seen yet"
    BEFORE_ACK = "before ack"


#: Moments without a background worker: not yet, or no more.
WITHOUT_WORKER = (Moment.BEFORE_LAUNCH, Moment.BEFORE_ACK)

#: The order to hold them in: the first two block a launching session.
STAGING = tuple(reversed(Moment))

#: What PostgreSQL shows of a held commit.
_COMMIT_WAITS = {Moment.COMMITTING: "object", Moment.ON_DISK: "SyncRep"}


class HeldTask:
    """A task that was sent and is held, until ``release``.

    Args:
        shop: the app.
        moment: where it shall be held.
        dsn: where it runs.
        holds: where files hold tasks before their acks.
        table: where it leaves its task id.
        after: id of a task of ``reuse=True`` that has just ended: this one is to be handed over to its
            background worker.
    """

    def __init__(
        self, shop: Shop, moment: Moment, dsn: str, holds: Path, table: str = "effects", after: str | None = None
    ) -> None:
        self.shop = shop
        self.moment = moment
        self.task_id = str(uuid.uuid4())
        self.after = after
        self._file = holds / self.task_id
        self._dsn = dsn
        self._session = psycopg.connect(dsn, autocommit=moment is not Moment.IN_GATE)
        self._hold()
        commit = _WAIT_FOR_STANDBY if moment is Moment.ON_DISK else ""
        text = _STATEMENT.format(id=self.task_id, commit=commit, table=table)
        task = shop.task("statement_reusing" if after else "statement")
        self.result = task.apply_async((text,), task_id=self.task_id)

    @property
    def cell(self) -> tuple[str, str, str]:
        """What an assertion shows of it."""
        return self.moment.value, "handed over" if self.after else "launched", self.task_id

    @property
    def has_worker(self) -> bool:
        """Whether it has a background worker by now; an order for reusable ones has none before it was placed."""
        return self.moment not in WITHOUT_WORKER and not (self.after and self.moment is Moment.IN_GATE)

    def _hold(self) -> None:
        lock = "SELECT pg_advisory_lock({})"
        match self.moment:
            case Moment.BEFORE_LAUNCH:
                self._session.execute(lock.format("celery_pgbg.attempt_key('delivery', %s, 0)"), [self.task_id])
            case Moment.IN_GATE:
                hold_in_gate(self._session, self.task_id)
            case Moment.RUNNING | Moment.COMMITTING | Moment.ON_DISK:
                self._session.execute(lock.format("hashtextextended(%s, 0)"), [self.task_id])
            case Moment.BEFORE_ACK:
                self._file.touch()

    def wait_held(self) -> None:
        """Wait until it has come to where it is held; before its commit it is held running, see ``commit``."""
        with psycopg.connect(self._dsn, autocommit=True) as session:
            eventually(f"a task is held {self.moment.value}", lambda: self._is_held(session))

    def commit(self) -> None:
        """Let it come to its commit, if it is to be held there.

        One ``ON_DISK`` has the lock under which commits that notify wait for each other, and so must come first:
        it makes the others ``COMMITTING``.
        """
        if self.moment not in _COMMIT_WAITS:
            return
        self._session.close()
        query = "SELECT pid FROM pg_stat_activity WHERE wait_event = %s AND application_name LIKE %s"
        parameters = [_COMMIT_WAITS[self.moment], f"pgbg {self.task_id}%"]
        with psycopg.connect(self._dsn, autocommit=True) as session:
            eventually(f"a task is held {self.moment.value}", lambda: session.execute(query, parameters).fetchone())

    def was_handed_over(self) -> bool:
        """Whether it got a background worker that had run another task; to be asked while it is held."""
        with psycopg.connect(self._dsn, autocommit=True) as session:
            if self.moment in (Moment.BEFORE_LAUNCH, Moment.IN_GATE):
                query = (
                    "SELECT query LIKE '%%place_work%%' FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
                )
                return session.execute(query, [self._session.info.backend_pid]).fetchone() == (True,)
            mine = "outcome" if self.moment is Moment.BEFORE_ACK else "bgworker"
            query = f"SELECT FROM celery_pgbg.{mine} AS mine JOIN celery_pgbg.outcome AS before USING (pid)"
            where = "WHERE mine.task_id = %s AND before.task_id <> mine.task_id"
            return bool(session.execute(f"{query} {where}".encode(), [self.task_id]).fetchall())

    def _is_held(self, session: Database) -> bool:
        if self.moment is Moment.BEFORE_ACK:
            return self._file.with_suffix(".held").exists()
        query = "SELECT FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
        return session.execute(query, [self._session.info.backend_pid]).fetchone() is not None

    def release(self) -> None:
        """Let it go on. A crash of the server has done so already."""
        with contextlib.suppress(psycopg.Error):
            self._session.close()
        self._file.unlink(missing_ok=True)


def hold_in_gate(session: Database, task_id: str) -> None:
    """Let the launch or the placing of a task wait for the end of this session's transaction."""
    columns = "(task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename)"
    row = "(%s, 0, '', true, 0, 0, '', '')"
    session.execute(f"INSERT INTO celery_pgbg.execution {columns} VALUES {row}", [task_id])


@contextlib.contextmanager
def hold_commits(dsn: str) -> Iterator[None]:
    """Let commits that ask for it wait for a standby, which there is none: they are on disk, and nobody sees them."""
    with psycopg.connect(dsn, autocommit=True) as session:
        _set_standby(session, "nobody")
        yield
    with psycopg.connect(dsn, autocommit=True) as session:
        _set_standby(session, "")


def _set_standby(session: Database, name: str) -> None:
    session.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    session.execute("SELECT pg_reload_conf()")
    query = "SELECT current_setting('synchronous_standby_names')"
    eventually("the server has the setting", lambda: session.execute(query).fetchone() == (name,))


def prepare(dsn: str) -> None:
    """Make the table of effects, and let no commit wait that does not ask for it."""
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("CREATE TABLE effects (v text)")
        database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        session.execute(f"ALTER DATABASE {database} SET synchronous_commit = local")


def count_effects(dsn: str) -> Counter[str]:
    """How often each task had its effect."""
    with psycopg.connect(dsn, autocommit=True) as session:
        return Counter(v for (v,) in session.execute("SELECT v FROM effects"))


def count_outcomes(dsn: str) -> Counter[str]:
    """How many outcomes each task has."""
    with psycopg.connect(dsn, autocommit=True) as session:
        return Counter(v for (v,) in session.execute("SELECT task_id FROM celery_pgbg.outcome"))


def count_launches(dsn: str) -> dict[str, int]:
    """How often each task was launched."""
    with psycopg.connect(dsn, autocommit=True) as session:
        return dict(session.execute("SELECT task_id, launches FROM celery_pgbg.execution").fetchall())
