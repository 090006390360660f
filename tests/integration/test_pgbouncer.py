"""Through a real PgBouncer: results in any mode, SQL tasks in session mode, and an error that says why in others."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery, states

from celery_pgbg.database import poolers
from celery_pgbg.database.results import close_stores
from celery_pgbg.database.sessions import Session, connect
from celery_pgbg.errors import ConfigurationError, ServerRefused
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.operating.diagnosis import diagnose
from celery_pgbg.orders import Order
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Watch
from tests.effects import effects
from tests.fix_celery import Shop
from tests.fix_pgbouncer import PASSWORD, PgBouncer
from tests.waiting import eventually

WAIT = 60


@pytest.fixture(scope="module", autouse=True)
def _no_session_outlives_the_module() -> Iterator[None]:
    yield
    close_stores()


def new_app(url: str, **settings: object) -> Celery:
    """An app that only stores and reads results."""
    app = Celery("results", broker="memory://", backend=url, set_as_current=False)
    app.conf.update(settings)
    return app


def opener(url: str) -> Callable[[], Session]:
    """Make sessions through a PgBouncer."""
    return lambda: connect(url, application_name="test", connect_timeout=10)


def test_a_pooler_and_its_mode_are_recognised(
    session_pgbouncer: PgBouncer, transaction_pgbouncer: PgBouncer, dsn: str
) -> None:
    told = []
    for url in (dsn, session_pgbouncer.url(), transaction_pgbouncer.url()):
        with opener(url)() as session:
            told.append((poolers.through_pooler(session), poolers.shares_sessions(session, opener(url))))
    assert told == [(False, False), (True, False), (True, True)]


# --- the result backend --------------------------------------------------------------------------


def test_results_arrive_by_notify_in_session_mode(session_pgbouncer: PgBouncer) -> None:
    app = new_app(f"pgbg+{session_pgbouncer.url()}")
    task_id = str(uuid.uuid4())

    def store() -> None:
        eventually("notifications arrive", lambda: app.backend.store.notifications.working)
        app.backend.store_result(task_id, 1, states.SUCCESS)

    storing = threading.Thread(target=store)
    storing.start()
    assert app.AsyncResult(task_id).get(timeout=WAIT) == 1
    storing.join()


def test_results_are_polled_for_in_transaction_mode_with_one_warning(
    transaction_pgbouncer: PgBouncer, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app(f"pgbg+{transaction_pgbouncer.url()}")
    ids = [str(uuid.uuid4()) for _ in range(20)]

    def store() -> None:
        eventually("the warning", lambda: "notifications do not arrive" in caplog.text)
        for number, task_id in enumerate(ids):
            new_app(f"pgbg+{dsn}").backend.store_result(task_id, number, states.SUCCESS)

    storing = threading.Thread(target=store)
    with caplog.at_level(logging.WARNING):
        storing.start()
        results = [app.AsyncResult(task_id) for task_id in ids]
        assert app.ResultSet(results).join_native(timeout=WAIT) == list(range(20))
        assert [result.get(timeout=WAIT) for result in results] == list(range(20))
    storing.join()
    assert caplog.text.count("notifications do not arrive") == 1
    assert not app.backend.store.notifications.working


def test_groups_and_chords_work_in_transaction_mode(transaction_pgbouncer: PgBouncer) -> None:
    app = new_app(f"pgbg+{transaction_pgbouncer.url()}?notify=false")
    group = app.GroupResult(str(uuid.uuid4()), [app.AsyncResult(str(uuid.uuid4()))])
    group.save(backend=app.backend)
    assert app.backend.restore_group(group.id) == group
    app.backend.set_chord_size(group.id, 1)
    assert app.backend.store.extend_chord_claim(group.id, "nobody's", 1) is False


@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "as it is"])
def test_a_password_may_have_any_character(session_pgbouncer: PgBouncer, encoded: bool) -> None:
    url = session_pgbouncer.url(encoded)
    if not encoded:
        # A "?" begins the parameters and "%41" is an "A" in any URL: these two must be encoded.
        url = url.replace("?", "%3F").replace("%41", "%2541")
    app = new_app(f"pgbg+{url}")
    task_id = str(uuid.uuid4())
    app.backend.store_result(task_id, 1, states.SUCCESS)
    assert app.AsyncResult(task_id).get(timeout=WAIT) == 1
    assert PASSWORD not in app.backend.as_uri()
    assert new_app(app.backend.as_uri(include_password=True)).AsyncResult(task_id).get(timeout=WAIT) == 1


def test_a_wrong_password_is_refused_and_not_shown(session_pgbouncer: PgBouncer) -> None:
    app = new_app(f"pgbg+{session_pgbouncer.url().replace('p%40ss', 'xyzzy')}")
    with pytest.raises(ServerRefused, match=r"(password|SASL) authentication failed") as caught:
        app.backend.store_result("x", 1, states.SUCCESS)
    assert "xyzzy" not in str(caught.value)


# --- SQL tasks -------------------------------------------------------------------------------------


def run_one(url: str) -> object:
    """Run one statement as a task would."""
    runner = Runner(url, read_settings({"pgbg_dsn": url}))
    attempt = Attempt(str(uuid.uuid4()))
    try:
        return runner.run(Order(attempt, "test", "test", "SELECT 1", {}, "value"), Watch(attempt))
    finally:
        runner.close()


def test_sql_tasks_run_through_a_pool_in_session_mode(
    new_shop: Callable[..., Shop], redis_url: str, session_pgbouncer: PgBouncer, table: str, database: object
) -> None:
    """In a real Celery worker, whose settings have the password as a URL and as a key=value string."""
    url = session_pgbouncer.url()
    shop = new_shop(f"{redis_url}/12", f"pgbg+{url}", pgbg_dsn=session_pgbouncer.key_values())
    worker = shop.start_worker()
    assert shop.task("insert").delay(table, "x").get(timeout=WAIT) == 1
    assert shop.task("vacuum").delay(table).get(timeout=WAIT) == "VACUUM"
    slow = shop.task("sleep").delay(600)
    shop.wait_active(slow)
    slow.revoke(terminate=True)
    eventually("revoked", lambda: slow.state == states.REVOKED)
    assert effects(database, table) == ["x"]
    worker.stop()
    assert PASSWORD not in worker.text()


def test_handles_that_an_earlier_client_left_in_a_pooled_session_are_detached(session_pgbouncer: PgBouncer) -> None:
    url = session_pgbouncer.url()
    with connect(url, application_name="test", connect_timeout=10) as session:
        session.execute("SELECT pg_background_launch('SELECT 1')")
        left = server_pid(session)
    launchers = [Launcher(opener(url)) for _ in range(4)]
    seen = {}
    for launcher in launchers:
        states_of = launcher.states()
        with launcher._exclusive() as session:
            seen[server_pid(session)] = states_of
    assert seen[left] == {}, "the pool gave that session to one of four"
    for launcher in launchers:
        launcher.close()


def server_pid(session: Session) -> int:
    """Which process serves a connection."""
    return session.execute("SELECT pg_backend_pid()").fetchone()[0]  # type: ignore[index]


def test_transaction_mode_is_refused_for_sql_tasks_with_the_reason(transaction_pgbouncer: PgBouncer) -> None:
    with pytest.raises(ConfigurationError, match="holds their handles"):
        run_one(transaction_pgbouncer.url())


def test_the_doctor_tells_the_modes_apart(session_pgbouncer: PgBouncer, transaction_pgbouncer: PgBouncer) -> None:
    told = {}
    for pooler in (session_pgbouncer, transaction_pgbouncer):
        findings = list(diagnose(new_app("disabled", pgbg_dsn=pooler.url()), None))
        told[pooler] = {finding.what: (finding.level, finding.said) for finding in findings}
    assert told[session_pgbouncer]["pooler"][0] == "ok"
    assert told[session_pgbouncer]["round trip"][0] == "ok"
    level, said = told[transaction_pgbouncer]["pooler"]
    assert level == "error"
    assert "pool_mode = transaction" in said
    assert "round trip" not in told[transaction_pgbouncer]


def test_a_celery_worker_says_at_its_start_that_transaction_mode_will_not_do(
    new_shop: Callable[..., Shop], redis_url: str, transaction_pgbouncer: PgBouncer
) -> None:
    url = transaction_pgbouncer.url()
    shop = new_shop(f"{redis_url}/12", f"pgbg+{url}", pgbg_dsn=url)
    worker = shop.start_worker()
    assert "holds their handles" in worker.text()
    with pytest.raises(ConfigurationError, match="session mode"):
        shop.task("add").delay(1).get(timeout=WAIT)
    assert shop.task("double").delay(2).get(timeout=WAIT) == 4
    assert PASSWORD not in worker.text()


def test_transaction_mode_is_found_out_while_others_use_the_pooler(transaction_pgbouncer: PgBouncer) -> None:
    open_session = opener(transaction_pgbouncer.url())

    def look(_: int) -> bool:
        with open_session() as session:
            # So often that psycopg would prepare what it asks for.
            return all(poolers.shares_sessions(session, open_session) for _ in range(5))

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(look, range(40))) == {True}
