"""A PostgreSQL before 18, without pg_background: what our SQL needs of the server, and what is said of the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from celery_pgbg.database import schema
from celery_pgbg.database.results import close_stores
from celery_pgbg.errors import ExtensionMissing
from celery_pgbg.execution.records.attempts import read_outcomes
from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import Raised, Returned
from celery_pgbg.settings import read_settings
from tests.apps.shop import make_app
from tests.fix_celery import PROJECT
from tests.fix_runner import order, run
from tests.fix_server import missing, url_of

_USUAL = os.environ.get("PGBG_OLDER_DSN", "postgresql://postgres@127.0.0.1:5432/postgres")


@pytest.fixture(scope="module")
def older() -> Iterator[str]:
    """A database of our own on a server before 18, which has no pg_background."""
    try:
        with psycopg.connect(_USUAL, autocommit=True, connect_timeout=5) as session:
            if session.info.server_version >= 180_000:
                missing("the server on port 5432 is not older than 18")
            if session.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_background'").fetchone():
                missing("the server on port 5432 has pg_background")
            name = f"pgbg_test_{uuid.uuid4().hex[:12]}"
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            yield url_of(_USUAL, dbname=name)
            session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    except psycopg.OperationalError as exc:
        missing(f"no older PostgreSQL answers: {exc}")


@pytest.fixture(scope="module")
def installed(older: str) -> str:
    """The same with our schema, from the script that is printed for a DBA, without the extension."""
    script = schema.install_script([])
    extension = "CREATE EXTENSION IF NOT EXISTS pg_background SCHEMA public;"
    assert extension in script
    with psycopg.connect(older, autocommit=True) as session:
        for _ in ("installed", "nothing to do"):
            session.execute(script.replace(extension, "").encode())
        assert schema.installed_version(session) == schema.current_version()
    return older


def run_here(session: psycopg.Connection[Any], task_id: str, statement: str, returns: str | None) -> Any:
    """Run an attempt as its background worker would, in a session of our own."""
    query = "SELECT celery_pgbg.run_call(true, %s, 0, NULL, %s, false, %s, NULL, 100000, false)"
    row = session.execute(query, [task_id, statement, returns]).fetchone()
    assert row is not None
    session.execute(row[0].encode())
    [outcome] = read_outcomes(session, [Attempt(task_id)])
    return outcome.ending()


def test_statements_run_and_leave_their_outcomes(installed: str) -> None:
    with psycopg.connect(installed, autocommit=True) as session:
        rows = run_here(session, "rows", "SELECT 1 AS one, '2 days'::interval AS two, 'x'::text AS three", None)
        assert isinstance(rows, Returned)
        assert rows.value[0]["one"] == 1
        assert run_here(session, "value", "SELECT 7", "value") == Returned(7)
        assert run_here(session, "count", "CREATE TABLE t AS SELECT 1", None) == Returned(1)
        failed = run_here(session, "failed", "SELECT 1 / 0", None)
        assert isinstance(failed, Raised)
        assert failed.report.sqlstate == "22012"


def test_results_are_kept(installed: str) -> None:
    app = make_app("memory://", f"pgbg+{installed}", "unused")
    try:
        app.backend.store_result("stored", {"a": [1]}, "SUCCESS")
        assert app.AsyncResult("stored").get(timeout=20) == {"a": [1]}
    finally:
        close_stores()
        app.close()


def test_a_launch_says_that_the_extension_is_missing(installed: str) -> None:
    runner = Runner(installed, read_settings({"pgbg_dsn": installed}))
    try:
        with pytest.raises(ExtensionMissing, match="has no extension pg_background: run"):
            run(runner, order("SELECT 1"))
    finally:
        runner.close()


def pgbg(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {"broker": "memory://", "backend": "cache+memory://", "queue": "unused", "pgbg_dsn": dsn}
    command = [sys.executable, "-m", "celery", "-A", "tests.apps.shop", "pgbg", *arguments]
    environment = {**os.environ, "PGBG_TEST_APP": json.dumps(settings)}
    return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)


def test_the_doctor_says_that_the_extension_is_missing(installed: str) -> None:
    done = pgbg(installed, "doctor", "--json")
    assert done.returncode == 1
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert findings["server"]["level"] == "ok"
    assert findings["extension"]["level"] == "error"
    assert "pg_background" in findings["extension"]["said"]


def test_installing_says_that_the_package_is_missing(older: str) -> None:
    done = pgbg(older, "install")
    assert done.returncode == 1
    assert "the extension pg_background cannot be created: its files are not on the server" in done.stderr
    assert "make && make install" in done.stderr
