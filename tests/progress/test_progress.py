"""What statements report is seen at once, from every session, however they run."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg import show_progress
from celery_pgbg.database.capabilities import detect
from celery_pgbg.execution.control import operations
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Lost, Returned
from celery_pgbg.watch import Interruption
from tests.fix_celery import Shop
from tests.fix_runner import in_background, order
from tests.waiting import eventually

Database = psycopg.Connection[Any]


class Gates:
    """Two gates in a statement, before which and between which it reports its progress."""

    def __init__(self, dsn: str) -> None:
        self.name = uuid.uuid4().hex
        self._sessions = [psycopg.connect(dsn, autocommit=True) for _ in range(2)]
        for number, session in enumerate(self._sessions):
            session.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"{self.name}{number}"])

    def statements(self, verb: str = "SELECT") -> str:
        wait = f"{verb} pg_advisory_xact_lock_shared(hashtextextended('{self.name}%s', 0));"
        report = f"{verb} celery_pgbg.report_progress(%s, %s);"
        return " ".join((report % (33, "'one'"), wait % 0, report % (66, "'two'"), wait % 1))

    def open(self) -> None:
        """Let the statement go on to the next gate."""
        self._sessions.pop(0).close()

    def close(self) -> None:
        while self._sessions:
            self.open()


@pytest.fixture
def gates(dsn: str) -> Iterator[Gates]:
    made = Gates(dsn)
    yield made
    made.close()


def shown(session: Database, task_id: str) -> tuple[int | None, str | None]:
    """What ``pgbg ps --all`` knows."""
    for row in operations.executions(session, 600):
        if row["task_id"] == task_id:
            return row["progress_percent"], row["progress_message"]
    return None, None


def has_words(session: Database) -> bool:
    """Whether this pg_background carries them: from 1.8 on."""
    return detect(session).function("get_progress") is not None


@pytest.mark.parametrize("kind", ["atomic", "reuse", "alone"])
def test_it_is_seen_while_the_statement_runs(
    new_runner: Callable[..., Runner], database: Database, gates: Gates, kind: str
) -> None:
    words = has_words(database)
    runner = new_runner(pgbg_sweep_interval=0.1)
    fields: dict[str, Any] = {"atomic": kind != "alone", "reuse": kind == "reuse"}
    text = gates.statements() + " SELECT 1 AS v"
    if kind == "alone":
        text = f"DO $$ BEGIN {gates.statements('PERFORM')} END $$"
    asked = order(text, **fields)
    _, thread, endings = in_background(runner, asked)
    eventually("33 %", lambda: shown(database, asked.attempt.task_id) == (33, "one" if words else None))
    gates.open()
    eventually("66 %", lambda: shown(database, asked.attempt.task_id) == (66, "two" if words else None))
    gates.open()
    thread.join(60)
    assert isinstance(endings[0], Returned)
    assert shown(database, asked.attempt.task_id)[0] == 100
    if kind == "reuse":
        # The next task of the same background worker has reported nothing.
        gates.close()
        after = order("SELECT pg_sleep(0.5)", reuse=True)
        _, thread, endings = in_background(runner, after)
        thread.join(60)
        assert shown(database, after.attempt.task_id) == (None, None)


@pytest.mark.parametrize("atomic", [True, False])
def test_it_goes_on_for_another_celery_worker_that_attached(
    new_runner: Callable[..., Runner], database: Database, gates: Gates, atomic: bool
) -> None:
    text = gates.statements() if atomic else f"DO $$ BEGIN {gates.statements('PERFORM')} END $$"
    asked = order(text, atomic=atomic)
    first = new_runner(pgbg_sweep_interval=0.1)
    watch, thread, _ = in_background(first, asked)
    eventually("33 %", lambda: shown(database, asked.attempt.task_id)[0] == 33)
    watch.interrupt(Interruption.DETACH)
    thread.join(60)
    first.close()

    second = new_runner(pgbg_sweep_interval=0.1)
    attached, thread, endings = in_background(second, asked)
    eventually("it is attached", lambda: attached.pid)
    gates.open()
    eventually("66 %", lambda: shown(database, asked.attempt.task_id)[0] == 66)
    assert attached.progress is not None
    gates.open()
    thread.join(60)
    # What stands alone leaves its outcome to the session that launched it.
    assert isinstance(endings[0], Returned if atomic else Lost)


def test_the_server_counts_the_progress_of_an_index(
    new_runner: Callable[..., Runner], database: Database, gates: Gates
) -> None:
    name = f"indexed_{gates.name}"
    database.execute(f"CREATE TABLE {name} (id integer); INSERT INTO {name} SELECT generate_series(1, 20000)")
    database.execute(
        f"CREATE FUNCTION {name}_f(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN IF $1 = 15000"
        f" THEN PERFORM pg_advisory_xact_lock_shared(hashtextextended('{gates.name}0', 0)); END IF; RETURN $1; END $$"
    )
    try:
        asked = order(f"CREATE INDEX CONCURRENTLY ON {name} ({name}_f(id))", atomic=False)
        _, thread, endings = in_background(new_runner(), asked)
        message = eventually("its phase", lambda: shown(database, asked.attempt.task_id)[1])
        assert message.startswith("CREATE INDEX CONCURRENTLY: building index")
        eventually("its percent", lambda: (shown(database, asked.attempt.task_id)[0] or 0) > 50)
        gates.open()
        thread.join(60)
        assert isinstance(endings[0], Returned)
    finally:
        gates.close()
        database.execute(f"DROP TABLE {name}; DROP FUNCTION {name}_f")


def test_celerys_state_and_events_and_a_persons_bar(
    new_shop: Callable[..., Shop],
    redis_url: str,
    dsn: str,
    database: Database,
    gates: Gates,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = has_words(database)
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn, pgbg_sweep_interval=0.1)
    shop.start_worker("--without-mingle", "--without-gossip")
    events: list[dict[str, Any]] = []
    ready = threading.Event()

    def capture() -> None:
        with shop.app.connection_for_read() as connection:
            receiver = shop.app.events.Receiver(connection, handlers={"task-progress": events.append})
            with receiver.consumer_context():
                ready.set()
                for _ in receiver.consume(limit=None, timeout=60, wakeup=False):
                    if len(events) == 2:
                        return

    listener = threading.Thread(target=capture, daemon=True)
    listener.start()
    assert ready.wait(60)
    result = shop.task("statement_tracked").delay(gates.statements() + " SELECT 7 AS v")
    eventually(
        "its state",
        lambda: result.state == "PROGRESS" and result.info == {"percent": 33, "message": "one" if words else None},
    )
    values: list[Any] = []
    bar = threading.Thread(target=lambda: values.append(show_progress(result, 0.05)))
    bar.start()
    printed = []

    def prints(text: str) -> bool:
        printed.append(capfd.readouterr().err)
        return text in "".join(printed)

    eventually("it is shown", lambda: prints("33 % one" if words else "33 %"))
    gates.open()
    eventually("its state", lambda: result.state == "PROGRESS" and result.info["percent"] == 66)
    eventually("it is shown", lambda: prints("66 % two" if words else "66 %"))
    gates.open()
    assert result.get(timeout=60) == [{"v": 7}]
    bar.join(60)
    listener.join(60)
    assert prints("100 %")
    assert values == [[{"v": 7}]]
    assert [(event["uuid"], event["percent"]) for event in events] == [(result.id, 33), (result.id, 66)]
