"""``celery -A proj pgbg ...`` as a process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from celery_pgbg.database import schema
from celery_pgbg.database.capabilities import detect
from tests.effects import running
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


def said(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What the doctor says, by what it looked at."""
    return {finding["what"]: finding["said"] for finding in json.loads(done.stdout)}


def levels(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What the doctor found, by what it looked at."""
    return {finding["what"]: finding["level"] for finding in json.loads(done.stdout)}


def assert_one_message(done: subprocess.CompletedProcess[str], message: str) -> None:
    """It failed, with that message and no traceback."""
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
def test_install_then_doctor_is_content(
    pgbg: Callable[..., Any], new_database: Callable[..., str], encoding: str
) -> None:
    dsn = new_database(encoding=encoding)
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
    assert "pgbg.doctor" in pgbg("ps", "--all", pgbg_dsn=dsn).stdout
    assert "pgbg.doctor" in pgbg("stats", pgbg_dsn=dsn).stdout


def test_install_prints_its_sql(pgbg: Callable[..., Any], dsn: str) -> None:
    done = pgbg("install", "--sql", "--grant-to", 'odd "role"', pgbg_dsn=dsn)
    assert "CREATE TABLE celery_pgbg.execution" in done.stdout
    assert """quote_ident('odd "role"')""" in done.stdout


def test_install_without_privilege_says_what_to_do(pgbg: Callable[..., Any], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS pgbg_test_installer; CREATE ROLE pgbg_test_installer LOGIN")
    done = pgbg("install", pgbg_dsn=url_of(dsn, user="pgbg_test_installer"))
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("DROP ROLE pgbg_test_installer")
    assert_one_message(done, "superuser")


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
    assert_one_message(done, 'database "nowhere" does not exist')


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "pgbg_dsn is not set"),
        ({"pgbg_dns": "x"}, "did you mean 'pgbg_dsn'"),
        ({"pgbg_dsn": "postgresql://h:port/d"}, "libpq cannot read the DSN: port must be a number"),
        ({"pgbg_dsn": "postgresql://postgres@127.0.0.1:1/d"}, "no connection to 127.0.0.1:1"),
    ],
)
def test_a_wrong_setting_is_a_message_of_every_command(
    pgbg: Callable[..., Any], settings: dict[str, Any], message: str
) -> None:
    for command in (["install"], ["ps"], ["stats"], ["purge", "--older-than", "60"], ["cancel", "--force", "x"]):
        assert_one_message(pgbg(*command, **settings), message)
    doctor = pgbg("doctor", "--json", **settings)
    assert doctor.returncode == 1
    assert any(found["level"] == "error" and message in found["said"] for found in json.loads(doctor.stdout))


def test_a_broker_that_does_not_answer_is_said(pgbg: Callable[..., Any], dsn: str) -> None:
    settings = {"broker": "redis://127.0.0.1:1/0", "pgbg_dsn": dsn}
    assert_one_message(pgbg("cancel", "bogus", **settings), "the broker cannot be reached")
    found = levels(pgbg("doctor", "--json", **settings))
    assert (found["broker"], found["round trip"]) == ("error", "ok")


def test_the_doctor_warns_of_what_slows_or_weakens(pgbg: Callable[..., Any], dsn: str) -> None:
    done = pgbg(
        "doctor", "--json", pgbg_dsn=dsn, worker_pool="prefork", worker_prefetch_multiplier=4, worker_concurrency=5000,
        pgbg_launchers=2, backend=None, broker_transport_options={"visibility_timeout": 60},
    )  # fmt: skip
    warned = {what for what, level in levels(done).items() if level == "warning"}
    with psycopg.connect(dsn) as session:
        found = detect(session)
    lacking = {"older extension"} if None in map(found.function, ("get_progress", "result_info")) else set()
    limited = {"launchers"} if found.limits_sessions else set()
    # the databases of --pg-background-line have an older version than the files
    assert warned - {"extension files"} == {
        "worker_pool", "worker_prefetch_multiplier", "result_backend", "visibility_timeout", "slots",
    } | lacking | limited  # fmt: skip
    assert done.returncode == 0


def test_the_doctor_knows_the_cure_where_only_the_files_of_the_extension_were_updated(
    pgbg: Callable[..., Any], own_dsn: str
) -> None:
    with psycopg.connect(own_dsn, autocommit=True) as session:
        function = detect(session).identifier("launch").as_string(session)
        # As after a newer package: the library has lost a function that the database names.
        session.execute(
            "UPDATE pg_proc SET prosrc = 'pg_background_gone' WHERE oid = %s::regprocedure",
            [f"{function}(text, integer)"],
        )
        session.execute("UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'pg_background'")
    done = pgbg("doctor", "--json", pgbg_dsn=own_dsn)
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert found["extension files"]["level"] == "warning"
    assert "ALTER EXTENSION pg_background UPDATE" in found["extension files"]["said"]
    assert found["round trip"]["level"] == "error"
    assert "pg_background_gone" in found["round trip"]["said"]
    assert "ErrorReport" not in found["round trip"]["said"]


@pytest.mark.parametrize("broker", ["pgbg", "amqp"])
def test_the_doctor_finds_the_broker(
    pgbg: Callable[..., Any], dsn: str, broker: str, request: pytest.FixtureRequest
) -> None:
    url = f"pgbg+{dsn}" if broker == "pgbg" else request.getfixturevalue("amqp_url")
    assert levels(pgbg("doctor", "--json", pgbg_dsn=dsn, broker=url))["broker"] == "ok"


def test_an_upgrade_does_not_wait_long_for_a_table(pgbg: Callable[..., Any], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(schema.install_script([], up_to=15).encode())
    with psycopg.connect(dsn) as session:
        session.execute("SELECT FROM celery_pgbg.work")
        assert_one_message(pgbg("install", pgbg_dsn=dsn), "run the command again later")
        assert schema.installed_version(session) == 15
    assert pgbg("install", pgbg_dsn=dsn).returncode == 0


def test_the_printed_sql_lets_the_granted_role_run_tasks(
    pgbg: Callable[..., Any], new_database: Callable[[], str]
) -> None:
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed")
    dsn = new_database()
    role = f"pgbg_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(f"CREATE ROLE {role} LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC")
        as_role = url_of(dsn, user=role)
        before = pgbg("doctor", "--json", pgbg_dsn=as_role)
        assert levels(before)["installation"] == "error"
        session.execute(schema.install_script([], senders=[role]).encode())
        assert_one_message(pgbg("ps", pgbg_dsn=as_role), "--grant-to ROLE")
        assert pgbg("uninstall", "--yes", pgbg_dsn=dsn).returncode == 0
        script = pgbg("install", "--sql", "--grant-to", role).stdout
        command = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", dsn]
        subprocess.run(command, input=script, text=True, check=True, capture_output=True)
        after = pgbg("doctor", "--json", pgbg_dsn=as_role)
        session.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert after.returncode == 0, after.stdout
    assert levels(after)["round trip"] == "ok"


def test_purge_and_uninstall(pgbg: Callable[..., Any], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    pgbg("install", pgbg_dsn=dsn)
    pgbg("doctor", pgbg_dsn=dsn)
    assert "pgbg.doctor" in pgbg("ps", "--all", pgbg_dsn=dsn).stdout
    assert "kept 1: they are younger" in pgbg("purge", "--older-than", "1d", pgbg_dsn=dsn).stdout
    assert "deleted 1 records" in pgbg("purge", "--older-than", "0", pgbg_dsn=dsn).stdout
    assert "pgbg.doctor" not in pgbg("ps", "--all", pgbg_dsn=dsn).stdout
    assert pgbg("uninstall", pgbg_dsn=dsn).returncode == 1  # nobody said yes
    assert pgbg("ps", pgbg_dsn=dsn).returncode == 0
    assert pgbg("uninstall", "--yes", pgbg_dsn=dsn).returncode == 0
    assert_one_message(pgbg("ps", pgbg_dsn=dsn), "pgbg install")


def test_ps_shows_a_running_task_and_cancel_stops_it(
    new_shop: Callable[..., Shop], pgbg: Callable[..., Any], redis_url: str, dsn: str, tmp_path: Path
) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    shop.start_worker()
    arguments = {"queue": shop.queue, "pgbg_dsn": dsn}
    result = shop.task("sleep").delay(600)
    pid = shop.wait_active(result)["worker_pid"]

    def shown() -> Any:
        rows = json.loads(pgbg("ps", "--json", **arguments).stdout)
        return next((row for row in rows if row["task_id"] == result.id and row["state"] == "running"), None)

    row = eventually("it is shown", shown)
    assert (row["pid"], row["task_name"], row["nodename"]) == (pid, "shop.sleep", shop.workers[0].nodename)
    assert row["statement"].startswith("SELECT pg_sleep(600")
    assert result.id in pgbg("ps", **arguments).stdout
    done = pgbg("cancel", result.id, **arguments)
    assert done.returncode == 0, done.stderr
    eventually("REVOKED", lambda: result.state == "REVOKED")
    assert eventually("it is not shown any more", lambda: result.id not in pgbg("ps", **arguments).stdout)
    assert shop.task("add").delay(1).get(timeout=60) == [{"total": 3}]
    assert "shop.add" in pgbg("stats", **arguments).stdout
    assert result.id in pgbg("ps", "--all", **arguments).stdout or "shop.add" in pgbg("ps", "--all", **arguments).stdout


def test_cancel_by_force_needs_no_celery_worker_and_is_for_good(
    new_shop: Callable[..., Shop], pgbg: Callable[..., Any], amqp_url: str, redis_url: str, dsn: str, database: Any
) -> None:
    shop = new_shop(amqp_url, f"{redis_url}/10", pgbg_dsn=dsn)
    arguments = {"broker": amqp_url, "queue": shop.queue, "pgbg_dsn": dsn}
    worker = shop.start_worker()
    result = shop.task("sleep").delay(600)
    shop.wait_active(result)
    worker.kill()
    assert_one_message(pgbg("cancel", result.id, **arguments), "no Celery worker answers")
    assert pgbg("cancel", "--force", result.id, **arguments).returncode == 0
    eventually("gone", lambda: not running(database, result.id))
    [attempt] = json.loads(pgbg("show", result.id, "--json", **arguments).stdout)["attempts"]
    assert attempt["started_at"] == attempt["launched_at"]
    assert_one_message(pgbg("cancel", "--force", result.id, **arguments), "no background worker runs")
    shop.start_worker()
    with pytest.raises(psycopg.errors.QueryCanceled, match="by hand"):
        result.get(timeout=60)
    assert shop.task("add").delay(1).get(timeout=60) == [{"total": 3}]


def test_cancel_of_a_task_that_nobody_has_fails(
    new_shop: Callable[..., Shop], pgbg: Callable[..., Any], redis_url: str, dsn: str
) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    shop.start_worker()
    arguments = {"queue": shop.queue, "pgbg_dsn": dsn}
    assert_one_message(pgbg("cancel", "bogus", **arguments), "no Celery worker has task bogus")
    without = pgbg("cancel", "bogus", **{**arguments, "pgbg_dsn": url_of(dsn, dbname="nowhere")})
    assert "cannot read the database" in without.stderr
    assert_one_message(without, "no Celery worker has task bogus")
    done = shop.task("add").delay(1)
    done.get(timeout=60)
    assert_one_message(pgbg("cancel", done.id, **arguments), "it has finished")


def test_a_failed_task_is_listed_shown_and_sent_again(
    new_shop: Callable[..., Shop], pgbg: Callable[..., Any], redis_url: str, dsn: str, database: Any, table: str
) -> None:
    shop = new_shop(f"{redis_url}/9", f"pgbg+{dsn}", pgbg_dsn=dsn, result_extended=True)
    shop.start_worker()
    arguments = {"queue": shop.queue, "pgbg_dsn": dsn, "backend": f"pgbg+{dsn}", "result_extended": True}
    # Fails until the table is there.
    later = f"{table}_later"
    result = shop.task("insert").delay(later, "x")
    with pytest.raises(psycopg.errors.UndefinedTable):
        result.get(timeout=60)
    [listed] = [row for row in json.loads(pgbg("failed", "--json", **arguments).stdout) if row["task_id"] == result.id]
    assert (listed["task_name"], listed["sqlstate"]) == ("shop.insert", "42P01")
    shown = pgbg("show", result.id[:20], **arguments).stdout
    assert "Celery    FAILURE" in shown
    assert f'error     UndefinedTable (42P01): relation "{later}" does not exist' in shown
    database.execute(f"CREATE TABLE {later} (v text)")
    try:
        again = pgbg("retry", result.id, **arguments)
        assert again.returncode == 0, again.stderr
        assert shop.app.AsyncResult(result.id).get(timeout=60) == 1
        assert database.execute(f"SELECT v FROM {later}").fetchall() == [("x",)]
    finally:
        database.execute(f"DROP TABLE {later}")
    assert result.id not in pgbg("failed", **arguments).stdout
    assert "attempt 1: finished" in pgbg("show", result.id, **arguments).stdout
    assert_one_message(pgbg("retry", result.id, **arguments), "has succeeded")
    assert_one_message(pgbg("show", "bogus", **arguments), "no record of a SQL task bogus")


def test_a_failed_task_whose_arguments_nobody_kept_is_not_sent_again(
    new_shop: Callable[..., Shop], pgbg: Callable[..., Any], redis_url: str, dsn: str
) -> None:
    shop = new_shop(f"{redis_url}/9", f"pgbg+{dsn}", pgbg_dsn=dsn)
    shop.start_worker()
    result = shop.task("divide").delay(1, 0)
    with pytest.raises(psycopg.errors.DivisionByZero):
        result.get(timeout=60)
    arguments = {"queue": shop.queue, "pgbg_dsn": dsn, "backend": f"pgbg+{dsn}"}
    assert_one_message(pgbg("retry", result.id, **arguments), "result_extended")


def test_the_doctor_is_content_with_the_mixed_setup_of_the_readme(
    pgbg: Callable[..., Any], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = {"pgbg_dsn": dsn, "worker_pool": "prefork", "task_routes": {"shop.sql.*": {"queue": "sql"}}}
    assert levels(pgbg("doctor", "--json", **mixed))["worker_pool"] == "ok"
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "celery_pgbg.pool:TaskPool")
    custom = pgbg("doctor", "--json", pgbg_dsn=dsn, worker_pool="prefork")
    assert levels(custom)["worker_pool"] == "ok"
    assert "None" not in said(custom)["slots"]


@pytest.mark.parametrize(
    ("pool", "level"),
    [
        ("celery_pgbg.pool.TaskPool", "ok"),
        ("celery_pgbg.pool:Taskpool", "error"),
        ("celery_pgbg.pol:TaskPool", "error"),
    ],
)
def test_the_doctor_imports_the_pool(pgbg: Callable[..., Any], dsn: str, pool: str, level: str) -> None:
    assert levels(pgbg("doctor", "--json", pgbg_dsn=dsn, worker_pool=pool))["worker_pool"] == level


def test_metrics_are_what_prometheus_reads(pgbg: Callable[..., Any], dsn: str) -> None:
    assert pgbg("doctor", pgbg_dsn=dsn).returncode == 0
    done = pgbg("metrics", pgbg_dsn=dsn)
    assert done.returncode == 0, done.stderr
    samples = {
        (sample.name, sample.labels.get("task") or sample.labels.get("by")): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }
    assert samples["pgbg_up", None] == 1
    assert samples["pgbg_recent_runs", "pgbg.doctor"] >= 1
    assert samples["pgbg_slots_limit", None] >= samples["pgbg_slots_used", "pg_background"]


def test_ps_at_80_columns_shows_what_people_look_for(
    new_shop: Callable[..., Shop], pgbg: Callable[..., Any], redis_url: str, dsn: str
) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    shop.start_worker()
    hostile, long = f"\x1b[31m{uuid.uuid4()}\x07", "x" * 9000
    results = [shop.task("sleep").apply_async((60,), task_id=task_id) for task_id in (hostile, long, str(uuid.uuid4()))]
    for result in results:
        shop.wait_active(result)
    text = in_terminal(["ps"], {"queue": shop.queue, "pgbg_dsn": dsn, "broker": f"{redis_url}/9"})
    assert "\x07" not in text
    assert "\x1b[31m" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["STATE", "TIME", "DONE", "TASK", "ID", "STATEMENT"]
    [line] = [line for line in lines if results[2].id[:8] in line]
    assert line.startswith("running ")
    assert "SELECT pg_sleep(60" in line
    for result in results:
        result.revoke(terminate=True)
    eventually("all are gone", lambda: all(result.state == "REVOKED" for result in results))


@pytest.mark.parametrize("while_it", ["sleeps", "asks"])
def test_ps_watches_until_it_is_interrupted(dsn: str, database: Any, while_it: str) -> None:
    command = [sys.executable, "-m", "celery", "-A", "tests.apps.shop", "pgbg", "ps", "--watch", "0.2"]
    app = {"broker": "memory://", "backend": None, "queue": "pgbg-test-cli", "pgbg_dsn": dsn}
    environment = {**os.environ, "PGBG_TEST_APP": json.dumps(app), "PYTHONUNBUFFERED": "1"}
    with (
        subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process,
        database.transaction(),
    ):
        assert process.stdout is not None
        seen = [process.stdout.readline().split() for _ in range(6)]
        assert seen.count(["STATE", "TIME", "DONE", "TASK", "ID", "STATEMENT"]) >= 2
        if while_it == "asks":
            database.execute("LOCK TABLE celery_pgbg.execution")
            waits = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'celery_pgbg.execution'::regclass"
            eventually("it waits for our lock", lambda: database.execute(waits).rowcount)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.parametrize("broker", ["pgbg://", "memory://"])
def test_the_doctor_is_content_with_other_brokers(pgbg: Callable[..., Any], dsn: str, broker: str) -> None:
    found = levels(pgbg("doctor", "--json", pgbg_dsn=dsn, broker=broker, backend="pgbg://"))
    assert found["broker"] == "ok"
    assert "lost messages" not in found


def test_the_doctor_asks_celery_workers_for_their_threads(
    new_shop: Callable[..., Shop], pgbg: Callable[..., Any], redis_url: str, dsn: str
) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    settings = {"pgbg_dsn": dsn, "broker": f"{redis_url}/9", "queue": shop.queue}
    assert "no Celery worker with our pool answers" in said(pgbg("doctor", "--json", **settings))["Celery workers"]
    shop.start_worker()
    assert shop.task("add").delay(1).get(timeout=60) == [{"total": 3}]
    found = said(pgbg("doctor", "--json", **settings))
    assert f"{shop.workers[0].nodename}" in found["Celery workers"]
    assert found["Celery workers"].endswith("threads of ours, all alive")
    assert "up to 10 s later" in found["lost messages"] or "kombu 5.7 checks" in found["lost messages"]


def in_terminal(arguments: list[str], app: dict[str, Any]) -> str:
    """What a command of the app prints on a terminal of 80 columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "PGBG_TEST_APP": json.dumps({"backend": None, **app}), "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "celery", "-A", "tests.apps.shop", "pgbg", *arguments]
    with subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=its, stderr=subprocess.PIPE) as process:
        os.close(its)
        printed = b""
        # Linux reports the end of a terminal as an error.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                printed += part
        os.close(ours)
        assert process.stderr is not None
        assert process.wait(60) == 0, process.stderr.read()
    return printed.decode().replace("\r\n", "\n")
