"""``celery -A proj pgbg doctor`` as a process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_pgbg.database.capabilities import detect
from tests.fix_celery import Shop
from tests.fix_commands import assert_one_message, levels, said


def test_a_broker_that_does_not_answer_is_said(pgbg: Callable[..., Any], dsn: str) -> None:
    settings = {"broker": "redis://127.0.0.1:1/0", "pgbg_dsn": dsn}
    assert_one_message(pgbg("cancel", "bogus", **settings), "the broker cannot be reached")
    found = levels(pgbg("doctor", "--json", **settings))
    assert (found["broker"], found["round trip"]) == ("error", "ok")


def test_the_doctor_warns_of_what_slows_or_weakens(pgbg: Callable[..., Any], own_dsn: str) -> None:
    done = pgbg(
        "doctor", "--json", pgbg_dsn=own_dsn, worker_pool="prefork", worker_prefetch_multiplier=4,
        worker_concurrency=5000, pgbg_launchers=2, backend=None, broker_transport_options={"visibility_timeout": 60},
    )  # fmt: skip
    warned = {what for what, level in levels(done).items() if level == "warning"}
    with psycopg.connect(own_dsn) as session:
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
