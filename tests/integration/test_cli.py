"""``celery -A proj pgbg ...`` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fix_celery import PROJECT, Shop
from tests.fix_server import url_of
from tests.waiting import eventually


@pytest.fixture
def pgbg(redis_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of an app whose settings are given as keywords."""

    def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        app = {"broker": f"{redis_url}/9", "backend": f"{redis_url}/10", "queue": "pgbg-test-cli", **settings}
        command = [sys.executable, "-m", "celery", "-A", "tests.apps.shop", "pgbg", *arguments]
        environment = {**os.environ, "PGBG_TEST_APP": json.dumps(app)}
        return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)

    return run


def levels(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What the doctor found, by what it looked at."""
    return {finding["what"]: finding["level"] for finding in json.loads(done.stdout)}


def test_install_then_doctor_is_content(pgbg: Callable[..., Any], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    before = pgbg("doctor", "--json", pgbg_dsn=dsn)
    assert before.returncode == 1
    assert levels(before)["installation"] == "error"
    for expected in ("newly installed", "schema version"):
        done = pgbg("install", pgbg_dsn=dsn)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    after = pgbg("doctor", "--json", pgbg_dsn=dsn)
    assert after.returncode == 0, after.stdout
    assert levels(after)["round trip"] == "ok"
    assert "error" not in pgbg("doctor", pgbg_dsn=dsn).stdout


def test_install_prints_its_sql(pgbg: Callable[..., Any], dsn: str) -> None:
    done = pgbg("install", "--sql", "--grant-to", 'odd "role"', pgbg_dsn=dsn)
    assert "CREATE TABLE celery_pgbg.execution" in done.stdout
    assert 'GRANT pgbackground_role TO "odd ""role"""' in done.stdout


def test_install_without_privilege_says_what_to_do(pgbg: Callable[..., Any], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS pgbg_test_installer; CREATE ROLE pgbg_test_installer LOGIN")
    done = pgbg("install", pgbg_dsn=url_of(dsn, user="pgbg_test_installer"))
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("DROP ROLE pgbg_test_installer")
    assert done.returncode == 1
    assert "superuser" in done.stderr
    assert "Traceback" not in done.stderr


def test_install_of_an_alias_goes_there(pgbg: Callable[..., Any], new_database: Callable[[], str], dsn: str) -> None:
    other = new_database()
    done = pgbg("install", "--database", "other", pgbg_dsn=dsn, pgbg_databases={"other": other})
    assert done.returncode == 0, done.stderr
    assert other.rpartition("/")[2] in done.stdout
    assert "unknown database alias 'othr' (did you mean 'other'?)" in (
        pgbg("doctor", "--database", "othr", pgbg_dsn=dsn, pgbg_databases={"other": other}).stdout
    )


def test_a_wrong_dsn_is_one_line(pgbg: Callable[..., Any], dsn: str) -> None:
    done = pgbg("ps", pgbg_dsn=url_of(dsn, dbname="nowhere"))
    assert done.returncode == 1
    assert 'database "nowhere" does not exist' in done.stderr
    assert "Traceback" not in done.stderr


def test_ps_shows_a_running_task_and_cancel_stops_it(
    new_shop: Callable[..., Shop], pgbg: Callable[..., Any], redis_url: str, dsn: str, tmp_path: Path
) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    shop.start_worker()
    arguments = {"queue": shop.queue, "pgbg_dsn": dsn}
    result = shop.task("sleep").delay(60)
    pid = shop.wait_active(result)["worker_pid"]

    def shown() -> Any:
        rows = json.loads(pgbg("ps", "--json", **arguments).stdout)
        return next((row for row in rows if row["task_id"] == result.id and row["state"] == "running"), None)

    row = eventually("it is shown", shown)
    assert (row["pid"], row["task_name"], row["nodename"]) == (pid, "shop.sleep", shop.workers[0].nodename)
    assert result.id in pgbg("ps", **arguments).stdout
    done = pgbg("cancel", result.id, **arguments)
    assert done.returncode == 0, done.stderr
    eventually("REVOKED", lambda: result.state == "REVOKED")
    assert eventually("it is not shown any more", lambda: result.id not in pgbg("ps", **arguments).stdout)
    assert shop.task("add").delay(1).get(timeout=60) == [{"total": 3}]
    assert "shop.add" in pgbg("stats", **arguments).stdout
    assert result.id in pgbg("ps", "--all", **arguments).stdout or "shop.add" in pgbg("ps", "--all", **arguments).stdout


def test_cancel_by_force_needs_no_celery_worker(
    new_shop: Callable[..., Shop], pgbg: Callable[..., Any], redis_url: str, dsn: str, database: Any
) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    worker = shop.start_worker()
    result = shop.task("sleep").delay(60)
    shop.wait_active(result)
    worker.kill()
    assert "no Celery worker answers" in pgbg("cancel", result.id, queue=shop.queue, pgbg_dsn=dsn).stderr
    assert pgbg("cancel", "--force", result.id, queue=shop.queue, pgbg_dsn=dsn).returncode == 0
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_background' AND application_name LIKE %s"
    eventually("gone", lambda: database.execute(query, [f"%{result.id}%"]).fetchone() == (0,))
    assert "no background worker runs" in pgbg("cancel", "--force", result.id, queue=shop.queue, pgbg_dsn=dsn).stderr
