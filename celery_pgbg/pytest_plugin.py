"""Fixtures for the tests of projects that use celery-pgbg; pytest finds them by our entry point.

Nothing but pytest is imported until a fixture is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from celery import Celery

    from celery_pgbg.testing.tasks import PgbgTasks
    from celery_pgbg.testing.workers import WorkerProcess


# --- servers ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pgbg_server() -> str:
    """DSN of a PostgreSQL server with pg_background: ``PGBG_DSN``, else a development server.

    Without a server the test is skipped, or fails if ``CI`` is set.
    """
    from celery_pgbg.devserver import DevServer, DevServerError

    if os.environ.get("PGBG_DSN"):
        return os.environ["PGBG_DSN"]
    try:
        return str(DevServer().start())
    except (DevServerError, PermissionError) as exc:
        _missing(str(exc))


@pytest.fixture(scope="session")
def pgbg_database(pgbg_server: str) -> Iterator[str]:
    """DSN of a database for this run, with our schema, dropped at the end.

    Override it to make your tables there, or to name a database of your own.
    """
    from celery_pgbg.testing.databases import scratch_database

    with scratch_database(pgbg_server) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def pgbg_broker() -> Iterator[str]:
    """URL of a Redis that processes can share: the server on the usual port, else a server started for this run.

    Without a Redis the test is skipped, or fails if ``CI`` is set.
    """
    from celery_pgbg.devserver import DevServerError
    from celery_pgbg.devserver.brokers import RedisServer

    server = RedisServer(f"pytest-{os.getpid()}")
    try:
        url = server.find_or_start()
    except (DevServerError, PermissionError) as exc:
        _missing(str(exc))
    yield url
    server.purge()


def _missing(what: str) -> NoReturn:
    """Skip the test, or fail in CI: an untested part must not look tested."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}\n(and CI is set)", pytrace=False)
    pytest.skip(what)


# --- the app, its Celery workers, its tasks ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def _pgbg_token() -> str:
    """A prefix of this run alone, for its keys in a shared Redis."""
    import uuid

    return f"pgbg-test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def pgbg_app(request: pytest.FixtureRequest, pgbg_database: str, _pgbg_token: str) -> Iterator[Celery]:
    """Celery's ``celery_app``, with our pool and ``pgbg_database`` for every database alias.

    Override ``celery_app`` to name an app of your own. Statements that still run at the end are ended.
    """
    from celery_pgbg.testing.apps import app_under_test
    from celery_pgbg.testing.tasks import end_statements

    app = _value_of(request, "celery_app")
    if app is None:
        pytest.fail(
            "pgbg_app needs a fixture celery_app: Celery's, with pytest_plugins = ('celery.contrib.pytest',) "
            "in conftest.py, or your own, which returns your app",
            pytrace=False,
        )
    with app_under_test(app, pgbg_database, _pgbg_token):
        yield app
        end_statements(pgbg_database)


@pytest.fixture
def pgbg_worker(request: pytest.FixtureRequest, pgbg_app: Celery) -> Iterator[Any]:
    """A Celery worker with our pool in a thread of this process; the broker may be ``memory://``.

    ``celery_includes`` and ``celery_worker_parameters`` are taken from Celery's plugin.
    """
    from celery_pgbg.testing.workers import worker_thread

    parameters = _value_of(request, "celery_worker_parameters") or {}
    with worker_thread(pgbg_app, _value_of(request, "celery_includes") or (), **parameters) as worker:
        yield worker


@pytest.fixture
def pgbg_worker_process(
    request: pytest.FixtureRequest, pgbg_app: Celery, tmp_path: Path
) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts ``celery worker`` processes: ``pgbg_worker_process("proj.app", "-c", "4")``.

    Without the app's name it has the modules of ``celery_includes``. The processes have the configuration
    of ``pgbg_app``, whose broker must be one that processes share. They are killed at the end, and their
    logs are shown if the test failed.
    """
    from celery_pgbg.testing.workers import WorkerProcess

    includes = _value_of(request, "celery_includes") or ()
    started: list[WorkerProcess] = []

    def start(name: str | None = None, *arguments: str) -> WorkerProcess:
        started.append(WorkerProcess(pgbg_app, tmp_path / f"worker-{len(started)}.log", name, includes, arguments))
        started[-1].wait_ready()
        return started[-1]

    yield start
    for worker in started:
        worker.kill()
        print(f"--- {worker.nodename}\n{worker.log()[-8000:]}")  # noqa: T201 - pytest shows it where a test fails


@pytest.fixture
def pgbg_tasks(pgbg_app: Celery, pgbg_database: str) -> Iterator[PgbgTasks]:
    """Calls that inspect and disturb SQL tasks: see ``celery_pgbg.testing.tasks.PgbgTasks``."""
    from celery_pgbg.testing.tasks import PgbgTasks

    tasks = PgbgTasks(pgbg_app, pgbg_database)
    yield tasks
    tasks.close()


# --- without background workers --------------------------------------------------------------------------------


@pytest.fixture
def pgbg_inline() -> Iterator[Callable[..., None]]:
    """Runs SQL tasks in the transaction of a connection until the test ends: ``pgbg_inline(connection)``.

    Takes the arguments of ``celery_pgbg.testing.inline``, the context manager.
    """
    from celery_pgbg.testing import inline

    with ExitStack() as stack:

        def start(connection: Any, *, app: Celery | None = None, database: str | None = None) -> None:
            stack.enter_context(inline(connection, app=app, database=database))

        yield start


def _value_of(request: pytest.FixtureRequest, name: str) -> Any:
    """The value of a fixture of Celery's plugin, or None if that plugin is not enabled."""
    try:
        return request.getfixturevalue(name)
    except pytest.FixtureLookupError as exc:
        if exc.argname != name:
            raise
        return None
