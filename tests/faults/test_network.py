"""The network between us and PostgreSQL: connections cut and stalled by a proxy of the test."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Literal

import psycopg
import pytest

from celery_pgbg.database import results
from celery_pgbg.devserver.ports import LOOPBACK, free_port
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Cancelled, Detached, Lost, Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Interruption, Watch
from tests.effects import effects, running
from tests.faults.moments import hold_in_gate
from tests.fix_runner import in_background, order, run
from tests.fix_server import url_of
from tests.proxy import TcpProxy
from tests.waiting import eventually

LAUNCHER, LISTENER, STANDALONE = b"pgbg launcher", b"pgbg listener", b"pgbg standalone"


class Statement(threading.Thread):
    """One statement that a runner runs in a thread; it ends when the test lets go of its lock."""

    def __init__(self, runner: Runner, database: Any, table: str, **fields: Any) -> None:
        super().__init__(daemon=True)
        self.attempt = Attempt(str(uuid.uuid4()))
        self.watch = Watch(self.attempt)
        self.ending: Any = None
        self._runner = runner
        self._database = database
        self._key = uuid.uuid4().int % 2**62
        body = f"INSERT INTO {table} VALUES ('x'); {{}} pg_advisory_xact_lock_shared({self._key})"
        body = body.format("SELECT") if fields.get("atomic", True) else f"DO $$ BEGIN {body.format('PERFORM')}; END $$"
        self._order = Order(self.attempt, "test", "test", body, {}, **fields)
        database.execute("SELECT pg_advisory_lock(%s)", [self._key])

    def run(self) -> None:
        self.ending = self._runner.run(self._order, self.watch)

    def wait_running(self) -> None:
        eventually("it runs", lambda: running(self._database, self.attempt.task_id) and self.watch.pid)

    def release(self) -> None:
        self._database.execute("SELECT pg_advisory_unlock(%s)", [self._key])

    def end(self) -> Any:
        """Wait for its end."""
        self.join(60)
        return self.ending


@pytest.fixture
def proxy(dsn: str) -> Iterator[TcpProxy]:
    """A proxy before PostgreSQL."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    with TcpProxy(str(parts["host"]), int(str(parts["port"]))) as made:
        yield made


@pytest.fixture
def new_runner(dsn: str, proxy: TcpProxy) -> Iterator[Callable[..., Runner]]:
    """Make runners behind the proxy."""
    made: list[Runner] = []

    def make(**settings: Any) -> Runner:
        made.append(Runner(url_of(dsn, port=str(proxy.port)), read_settings(settings)))
        return made[-1]

    yield make
    proxy.resume()
    for runner in made:
        runner.close()


@pytest.fixture
def runner(new_runner: Callable[..., Runner]) -> Runner:
    """A runner behind the proxy, with one launcher, that waits a second for an answer."""
    return new_runner(pgbg_launchers=1, pgbg_answer_timeout=1, pgbg_connect_timeout=2, pgbg_sweep_interval=0.2)


@pytest.fixture
def new_statement(runner: Runner, database: Any, table: str) -> Callable[..., Statement]:
    """Start statements."""

    def start(**fields: Any) -> Statement:
        made = Statement(runner, database, table, **fields)
        made.start()
        return made

    return start


@pytest.mark.parametrize("how", ["reset", "close"])
def test_cut_sessions_are_opened_again(
    proxy: TcpProxy, new_statement: Callable[..., Statement], table: str, database: Any, how: Literal["reset", "close"]
) -> None:
    for whose in (LAUNCHER, LISTENER, b""):
        statement = new_statement()
        statement.wait_running()
        eventually("it listens", lambda: proxy.count(LISTENER))
        assert proxy.cut(how, whose) >= 1
        statement.release()
        assert statement.end() == Returned([{"pg_advisory_xact_lock_shared": ""}])
    assert effects(database, table) == ["x"] * 3


def test_a_stalled_launcher_is_replaced(
    proxy: TcpProxy, new_statement: Callable[..., Statement], table: str, database: Any
) -> None:
    first = new_statement()
    first.wait_running()
    assert proxy.stall(LAUNCHER) == 1
    second = new_statement()
    second.wait_running()
    for statement in (first, second):
        statement.release()
        assert isinstance(statement.end(), Returned)
    assert effects(database, table) == ["x", "x"]


def assert_all_end(statements: list[Statement], proxy: TcpProxy, database: Any, table: str) -> None:
    """All run although a session is stalled, and end with their effects after it has gone on."""
    for statement in statements:
        statement.wait_running()
    proxy.resume()
    for statement in statements:
        statement.release()
        assert isinstance(statement.end(), Returned)
    assert effects(database, table) == ["x"] * len(statements)


@pytest.mark.parametrize("reuse", [False, True])
def test_no_task_comes_to_a_launcher_that_gives_no_answer(
    proxy: TcpProxy, new_runner: Callable[..., Runner], table: str, database: Any, reuse: bool
) -> None:
    runner = new_runner(pgbg_launchers=2, pgbg_answer_timeout=3600)
    assert isinstance(run(runner, order("SELECT 1", reuse=reuse)), Returned)
    assert proxy.stall(LAUNCHER) == 1
    eventually("it is in a long call", lambda: runner.launchers[0].seconds_in_call > 1)
    statements = [Statement(runner, database, table, reuse=reuse) for _ in range(4)]
    for statement in statements:
        statement.start()
    assert_all_end(statements, proxy, database, table)


@pytest.mark.parametrize("reuse", [False, True])
def test_tasks_that_wait_for_a_launcher_take_another_if_it_gives_no_answer(
    proxy: TcpProxy, new_runner: Callable[..., Runner], table: str, database: Any, reuse: bool
) -> None:
    runner = new_runner(pgbg_launchers=2, pgbg_answer_timeout=3600, pgbg_sweep_interval=0.1)
    assert isinstance(run(runner, order("SELECT 1", reuse=reuse)), Returned)
    silent, other = runner.launchers
    assert proxy.stall(LAUNCHER) == 1
    eventually("it is in a call", lambda: silent.seconds_in_call > 0)
    statements = [Statement(runner, database, table, reuse=reuse) for _ in range(4)]
    with other._exclusive():
        for statement in statements:
            statement.start()
        eventually("they have chosen what they wait for", lambda: silent.seconds_in_call > 0.8)
    assert_all_end(statements, proxy, database, table)


def test_a_launcher_that_gives_no_answer_does_not_hold_up_the_sweeps_of_others(
    new_runner: Callable[..., Runner], table: str, database: Any
) -> None:
    runner = new_runner(pgbg_launchers=2, pgbg_answer_timeout=3600, pgbg_notify=False, pgbg_sweep_interval=0.2)
    stuck = order("SELECT 1")
    with psycopg.connect(database.info.dsn) as holder:
        hold_in_gate(holder, stuck.attempt.task_id)
        _, thread, endings = in_background(runner, stuck)
        eventually("it is in a long call", lambda: runner.launchers[0].seconds_in_call > 1)
        finished, ended = statements = [Statement(runner, database, table) for _ in range(2)]
        for statement in statements:
            statement.start()
            statement.wait_running()
        finished.release()
        assert isinstance(finished.end(), Returned)
        database.execute("SELECT pg_terminate_backend(%s)", [ended.watch.pid])
        assert isinstance(ended.end(), Raised)
    thread.join(60)
    assert isinstance(endings[0], Returned)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_launcher_that_gives_no_answer_does_not_hold_up_the_end_of_its_task(
    proxy: TcpProxy, new_runner: Callable[..., Runner], table: str, database: Any, reuse: bool
) -> None:
    runner = new_runner(pgbg_launchers=1, pgbg_answer_timeout=3600)
    statement = Statement(runner, database, table, reuse=reuse)
    statement.start()
    statement.wait_running()
    eventually("it listens", lambda: proxy.count(LISTENER))
    assert proxy.stall(LAUNCHER) == 1
    eventually("it is in a long call", lambda: runner.launchers[0].seconds_in_call > 1)
    statement.release()
    assert isinstance(statement.end(), Returned)


def test_a_stall_in_the_launch_itself_launches_once(
    proxy: TcpProxy, new_statement: Callable[..., Statement], table: str, database: Any
) -> None:
    first = new_statement()
    first.wait_running()
    with psycopg.connect(database.info.dsn) as holder:
        holder.execute("LOCK celery_pgbg.execution IN SHARE MODE")
        second = new_statement()
        blocked = "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
        eventually("it is in the gate", lambda: database.execute(blocked, [holder.info.backend_pid]).fetchone())
        assert proxy.stall(LAUNCHER) == 1
    second.wait_running()
    for statement in (first, second):
        statement.release()
        assert isinstance(statement.end(), Returned)
    assert effects(database, table) == ["x", "x"]


def test_a_statement_is_revoked_though_its_launcher_is_stalled(
    proxy: TcpProxy, new_statement: Callable[..., Statement], table: str, database: Any
) -> None:
    statement = new_statement()
    statement.wait_running()
    assert proxy.stall(LAUNCHER) == 1
    statement.watch.interrupt(Interruption.REVOKE)
    assert statement.end() == Cancelled()
    assert running(database, statement.attempt.task_id) == []
    assert effects(database, table) == []


def test_a_stalled_listener_costs_no_outcome(proxy: TcpProxy, new_statement: Callable[..., Statement]) -> None:
    statement = new_statement()
    statement.wait_running()
    eventually("it listens", lambda: proxy.count(LISTENER))
    assert proxy.stall(LISTENER) == 1
    statement.release()
    assert isinstance(statement.end(), Returned)


def test_a_server_that_says_nothing_is_waited_for(
    proxy: TcpProxy, runner: Runner, new_statement: Callable[..., Statement], database: Any
) -> None:
    proxy.stall(new_ones=True)
    statement = new_statement()
    given_up = new_statement()
    eventually("they try to connect", lambda: proxy.count() >= 2)
    given_up.watch.interrupt(Interruption.DETACH)
    assert given_up.end() == Detached()
    proxy.resume()
    statement.wait_running()
    statement.release()
    assert isinstance(statement.end(), Returned)


def test_a_server_that_is_away_is_tried_ever_more_rarely_however_many_tasks_wait(dsn: str) -> None:
    with TcpProxy(LOOPBACK, free_port()) as proxy:
        # Else libpq may connect twice.
        away = url_of(dsn, port=str(proxy.port), sslmode="disable", gssencmode="disable")
        runner = Runner(away, read_settings({"pgbg_launchers": 1}))
        began = time.monotonic()
        waiting = [in_background(runner, order("SELECT 1")) for _ in range(50)]
        eventually("it was tried some times", lambda: proxy.accepted >= TRIES)
        # Half of each pause is the least.
        assert time.monotonic() - began >= sum(PAUSES[: TRIES - 1]) / 2
        runner.close()
    for watch, thread, endings in waiting:
        watch.interrupt(Interruption.DETACH)
        thread.join(60)
        assert endings == [Detached()]


#: Pauses of a launcher between tries to connect, before jitter, in seconds; and how many tries are counted.
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0, 1.0)
TRIES = 6


def test_closing_does_not_wait_for_a_server_that_says_nothing(
    proxy: TcpProxy, runner: Runner, new_statement: Callable[..., Statement]
) -> None:
    runner._settings = read_settings({"pgbg_answer_timeout": 3600})
    statement = new_statement()
    statement.wait_running()
    proxy.stall()
    runner.close()
    statement.watch.interrupt(Interruption.DETACH)
    assert statement.end() == Detached()
    statement.release()


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_the_result_backend_opens_another_session(
    proxy: TcpProxy, dsn: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "ANSWER_SECONDS", 1)
    store = results.ResultStore(url_of(dsn, port=str(proxy.port)), connect_timeout=2, notify=False)
    [unknown] = store.read(["nobody's"])
    assert getattr(proxy, fault)() == 1
    assert store.read(["nobody's"]) == [unknown]
    assert proxy.count() == (1 if fault == "cut" else 2)
    store.close()


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_standalone_statement_without_its_launcher_ends_honestly(
    proxy: TcpProxy, new_statement: Callable[..., Statement], table: str, database: Any, fault: str
) -> None:
    statement = new_statement(atomic=False)
    statement.wait_running()
    assert getattr(proxy, fault)(said=STANDALONE) == 1
    eventually("it is looked for from another session", lambda: proxy.count(STANDALONE) > (fault == "stall"))
    assert len(running(database, statement.attempt.task_id)) == 1
    statement.release()
    ending = statement.end()
    assert isinstance(ending, Lost)
    assert ending.effects == "unknown"
    assert "may have partly completed" in ending.reason
    assert effects(database, table) == ["x"]


def test_a_standalone_statement_without_its_launcher_can_be_revoked(
    proxy: TcpProxy, new_statement: Callable[..., Statement], table: str, database: Any
) -> None:
    statement = new_statement(atomic=False)
    statement.wait_running()
    seen = "SELECT seen_at FROM celery_pgbg.execution WHERE task_id = %s"
    eventually("it is on record", lambda: database.execute(seen, [statement.attempt.task_id]).fetchone() != (None,))
    assert proxy.cut(said=STANDALONE) == 1
    statement.watch.interrupt(Interruption.REVOKE)
    assert statement.end() == Cancelled()
    assert running(database, statement.attempt.task_id) == []
    assert effects(database, table) == []


@pytest.mark.parametrize("interruption", [Interruption.REVOKE, Interruption.SHUTDOWN])
@pytest.mark.parametrize("reuse", [False, True])
def test_a_stop_waits_for_the_server_if_the_answer_to_its_launch_was_lost(
    proxy: TcpProxy,
    runner: Runner,
    table: str,
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
    reuse: bool,
    interruption: Interruption,
) -> None:
    # The next order is for its background worker.
    assert run(runner, order("SELECT 1", returns="value", reuse=reuse)) == Returned(1)
    asked = order(f"SELECT pg_sleep(5); INSERT INTO {table} VALUES ('x')", reuse=reuse)
    name = "place" if reuse else "launch"
    method = getattr(Launcher, name)
    lost = threading.Event()

    def without_an_answer(launcher: Launcher, *args: Any) -> Any:
        monkeypatch.setattr(Launcher, name, method)
        method(launcher, *args)
        proxy.stall(new_ones=True)
        proxy.cut()
        lost.set()
        return method(launcher, *args)

    monkeypatch.setattr(Launcher, name, without_an_answer)
    watch, thread, endings = in_background(runner, asked)
    assert lost.wait(30)
    watch.interrupt(interruption)
    thread.join(3)
    assert not endings, "nobody can know yet"
    proxy.resume()
    thread.join(30)
    assert endings == [Cancelled()]
    eventually("it is gone", lambda: not runs(database, asked))
    assert effects(database, table) == []


def runs(database: Any, asked: Order) -> bool:
    """Whether an order runs or waits."""
    query = "SELECT FROM celery_pgbg.live_attempts() WHERE task_id = %s"
    return database.execute(query, [asked.attempt.task_id]).fetchone() is not None
