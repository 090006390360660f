"""The Django example: real Celery workers, a real beat, Django's commands and Django's own test runner."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.fix_celery import PROJECT
from tests.fix_tools import program
from tests.waiting import eventually

FOLDER = PROJECT / "example_project" / "django_shop"


class Site(NamedTuple):
    """The example with a database of its own, a Celery worker for each result backend, and beat."""

    environment: dict[str, str]
    session: psycopg.Connection[Any]

    def manage(self, *arguments: str, **environment: str) -> str:
        """Run one of ``manage.py``'s commands; returns what it says."""
        command = [sys.executable, "manage.py", *arguments]
        ended = subprocess.run(
            command, cwd=FOLDER, env={**os.environ, **self.environment, **environment}, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def row(self, query: str, *parameters: object) -> Any:
        """The first row of a query, None where there is none."""
        return self.session.execute(query, parameters).fetchone()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, redis_url: str, new_database: Callable[[], str]) -> Iterator[Site]:
    pytest.importorskip("django_celery_beat")
    pytest.importorskip("django_celery_results")
    folder: Path = tmp_path_factory.mktemp("site")
    dsn = new_database()
    given = conninfo_to_dict(dsn)
    names = {"HOST": "host", "PORT": "port", "NAME": "dbname", "USER": "user", "PASSWORD": "password"}
    queue = f"pgbg-test-{uuid.uuid4().hex[:12]}"
    environment = {f"SHOP_DB_{name}": str(given.get(key) or "") for name, key in names.items()}
    environment |= {"SHOP_BROKER": f"{redis_url}/9", "SHOP_QUEUE": queue}
    celery = ("-m", "celery", "-A", "shop")
    with ExitStack() as stack:
        made = Site(environment, stack.enter_context(psycopg.connect(dsn, autocommit=True)))
        # Dozens of migrations need not reach the disk one by one.
        made.session.execute(f"ALTER DATABASE {given['dbname']} SET synchronous_commit = off")
        made.manage("migrate")
        made.manage("schedule_vacuum", "--every", "1")
        logs = []
        for results in ("django-db", "pgbg://"):
            name = results.partition(":")[0]
            worker = (*celery, "worker", "-c4", "-l", "INFO", "-n", f"{name}@{queue}")
            here = {**environment, **of_worker(environment, results)}
            logs.append(stack.enter_context(program(folder / f"{name}.log", *worker, cwd=FOLDER, **here)))
        beat = ("beat", "-l", "INFO", "--pidfile", str(folder / "beat.pid"))
        stack.enter_context(program(folder / "beat.log", *celery, *beat, cwd=FOLDER, **environment))
        for log in logs:
            eventually("the Celery worker is ready", lambda log=log: " ready." in log())
        yield made


def of_worker(environment: dict[str, str], results: str) -> dict[str, str]:
    """Each result backend has a Celery worker of its own, with a queue of its own; one has the broker ``pgbg://``."""
    if results == "django-db":
        return {"SHOP_RESULTS": results}
    return {"SHOP_RESULTS": results, "SHOP_QUEUE": f"{environment['SHOP_QUEUE']}-pgbg", "SHOP_BROKER": "pgbg://"}


@pytest.mark.parametrize("results", ["django-db", "pgbg://"])
def test_a_command_runs_a_chain_and_gets_its_results(site: Site, results: str) -> None:
    where = of_worker(site.environment, results)
    for product, amount in (("tea", "3.50"), ("rice", "1")):
        site.session.execute(
            "INSERT INTO shop_sale (product, amount, sold_on) VALUES (%s, %s, '2026-01-31')", [product, amount]
        )
    assert site.manage("close_month", "2026-01-01", **where) == "tea sold best of 2 products\n"
    if results == "django-db":
        query = "SELECT status, result, task_args FROM django_celery_results_taskresult WHERE task_name = %s"
        status, result, arguments = site.row(query, "shop.tasks.close_month")
        assert (status, result) == ("SUCCESS", "2")
        assert "2026" in arguments
    else:
        query = "SELECT status, outcome_attempt FROM celery_pgbg.result WHERE name = %s"
        assert site.row(query, "shop.tasks.close_month") == ("SUCCESS", 0)


@pytest.mark.parametrize(("results", "product"), [("django-db", "coffee"), ("pgbg://", "cocoa")])
def test_a_task_is_sent_in_the_transaction(site: Site, results: str, product: str) -> None:
    site.manage("sell", product, "2.25", "2026-03-17", **of_worker(site.environment, results))
    query = "SELECT amount FROM shop_monthlytotal WHERE month = %s AND product = %s"
    closed = eventually("the month is closed", lambda: site.row(query, date(2026, 3, 1), product))
    assert closed == (Decimal("2.25"),)


def test_beat_sends_a_vacuum_from_djangos_database(site: Site) -> None:
    query = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'shop_sale' AND vacuum_count > 1"
    eventually("it is vacuumed again and again", lambda: site.row(query))
    query = "SELECT result FROM django_celery_results_taskresult WHERE periodic_task_name = 'vacuum sales'"
    assert eventually("its result", lambda: site.row(query)) == ('"VACUUM"',)


def test_djangos_test_runner_runs_sql_tasks_in_its_test_database(site: Site) -> None:
    said = site.manage("test")
    assert "Ran 4 tests" in said
    assert "OK" in said
