"""``celery -A proj pgbg ...`` as a process: what operates tasks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
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
from celery.exceptions import TaskRevokedError
from prometheus_client.parser import text_string_to_metric_families

from tests.effects import running
from tests.fix_celery import PROJECT, Shop
from tests.fix_commands import assert_one_message
from tests.fix_server import url_of
from tests.waiting import eventually


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


def test_a_revoked_task_has_not_failed(new_shop: Callable[..., Shop], pgbg: Callable[..., Any], own_dsn: str) -> None:
    shop = new_shop("pgbg://", "pgbg://", pgbg_dsn=own_dsn)
    shop.start_worker()
    arguments = {"queue": shop.queue, "pgbg_dsn": own_dsn, "broker": "pgbg://", "backend": "pgbg://"}
    revoked = {name: shop.task(name).delay(600) for name in ("sleep", "standalone_sleep")}
    for result in revoked.values():
        shop.wait_active(result)
        result.revoke(terminate=True)
        with pytest.raises(TaskRevokedError):
            result.get(timeout=60)
        assert f"task {result.id} does not run: it was revoked" in pgbg("cancel", result.id, **arguments).stderr
    by_hand = shop.task("sleep").delay(601)
    shop.wait_active(by_hand)
    assert pgbg("cancel", by_hand.id, "--force", **arguments).returncode == 0
    with pytest.raises(psycopg.errors.QueryCanceled):
        by_hand.get(timeout=60)
    assert [row["task_id"] for row in json.loads(pgbg("failed", "--json", **arguments).stdout)] == [by_hand.id]
    rows = json.loads(pgbg("stats", "--json", **arguments).stdout)
    assert {row["task_name"]: (row["runs"], row["failures"]) for row in rows} == {
        "shop.sleep": (2, 1), "shop.standalone_sleep": (1, 0),
    }  # fmt: skip
    states = {row["task_id"]: row["state"] for row in json.loads(pgbg("ps", "--all", "--json", **arguments).stdout)}
    assert states == {**{result.id: "revoked" for result in revoked.values()}, by_hand.id: "failed"}
    assert "attempt 0: revoked" in pgbg("show", revoked["sleep"].id, **arguments).stdout


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
