"""What one call chooses: settings, role and database, within what the task allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from celery import Celery, chain

from celery_pgbg import SQLTask
from celery_pgbg.configuration import forget_settings
from celery_pgbg.database import schema
from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.pool.startup import check_databases
from celery_pgbg.runners import close_runners
from tests.fix_celery import Shop

WAIT = 60


@pytest.fixture
def asking(new_shop: Callable[..., Shop], redis_url: str, dsn: str, new_database: Callable[[], str]) -> Shop:
    """An app with two databases, and its Celery worker."""
    other = new_database()
    with psycopg.connect(other, autocommit=True) as session:
        schema.install(session)
        session.execute("DO $$ BEGIN CREATE ROLE pgbg_test_reader; EXCEPTION WHEN duplicate_object THEN END $$")
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn, pgbg_databases={"other": other})
    shop.start_worker("--without-mingle", "--without-gossip")
    return shop


def test_a_call_chooses_settings_role_and_database(asking: Shop) -> None:
    task, names = asking.task("as_asked"), [asking.app.conf.pgbg_dsn, asking.app.conf.pgbg_databases["other"]]
    first, other = (psycopg.conninfo.conninfo_to_dict(dsn)["dbname"] for dsn in names)
    assert task.delay().get(timeout=WAIT) == f"postgres 70MB 0 {first}"
    said: dict[str, Any] = {"settings": {"lock_timeout": "3s"}, "role": "pgbg_test_reader", "database": "other"}
    assert task.apply_async(pgbg=said).get(timeout=WAIT) == f"pgbg_test_reader 70MB 3s {other}"
    signature = task.si().set(pgbg={"settings": {"work_mem": "71MB"}})
    assert chain(task.si(), signature).delay().get(timeout=WAIT) == f"postgres 71MB 0 {first}"
    retried = asking.task("as_asked_after_a_retry").apply_async(pgbg={"settings": {"work_mem": "72MB"}})
    assert retried.get(timeout=WAIT) == "72MB1"


def test_an_unknown_database_of_a_task_is_an_error_where_it_is_sent(dsn: str) -> None:
    app = Celery("aliases", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(pgbg_dsn=dsn, pgbg_databases={"archive": dsn})

    @app.task(base=SQLTask, database="archve", shared=False)
    def old_orders() -> str:
        return "SELECT 1"

    for send in (old_orders.delay, old_orders.si().delay, old_orders.apply_async):
        with pytest.raises(TaskDefinitionError, match=r"unknown database alias 'archve' \(did you mean 'archive'\?\)"):
            send()
    # A process that only sends need not have them.
    app.conf.update(pgbg_databases={})
    forget_settings(app)
    old_orders.delay()
    app.close()


def test_a_celery_worker_names_tasks_of_unknown_databases(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    app = Celery("aliases", broker="memory://", set_as_current=False)
    app.conf.update(pgbg_dsn=dsn, pgbg_databases={"archive": dsn})

    def body() -> str:
        return "SELECT 1"

    app.task(base=SQLTask, database="archve", shared=False, name="old")(body)
    app.task(base=SQLTask, database="archive", shared=False, name="good")(body)
    check_databases(app, 1)
    close_runners(at_once=True)
    app.close()
    [error] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    said = (
        "unknown database alias 'archve' (did you mean 'archive'?); known: archive, default; "
        "this Celery worker cannot run the task"
    )
    assert error == f"task old: {said}"


def test_the_celery_worker_checks_it_too(asking: Shop) -> None:
    result = asking.task("as_asked").apply_async(headers={"pgbg": {"role": "postgres"}})
    with pytest.raises(TaskDefinitionError, match="does not allow role 'postgres'"):
        result.get(timeout=WAIT)
