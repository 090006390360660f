"""Commits that wait: for a standby, and for each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from celery_pgbg.devserver import DevServer
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Returned
from celery_pgbg.settings import read_settings
from tests.faults import moments
from tests.fix_runner import in_background, order
from tests.waiting import eventually


def test_a_tasks_lock_timeout_is_not_one_of_commits_that_wait_for_each_other(
    new_server: Callable[..., DevServer],
) -> None:
    dsn = str(new_server().dsn)
    moments.prepare(dsn)
    runner = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
    waits = "SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background' AND wait_event = %s"
    try:
        with psycopg.connect(dsn, autocommit=True) as session:

            def run_until_it_waits(asked: Any, wait_event: str) -> tuple[Any, list[Any]]:
                _, thread, endings = in_background(runner, asked)
                eventually("its commit waits", lambda: session.execute(waits, [wait_event]).fetchone() is not None)
                return thread, endings

            with moments.hold_commits(dsn):
                # Commits that notify wait for each other, and so for this one.
                first = run_until_it_waits(order("SET LOCAL synchronous_commit = on; SELECT 1 AS v"), "SyncRep")
                second = run_until_it_waits(order("SELECT 2 AS v", settings={"lock_timeout": "50ms"}), "object")
                session.execute("SELECT pg_sleep(0.5)")
            for thread, endings in (first, second):
                thread.join(60)
                assert [type(ending) for ending in endings] == [Returned], endings
    finally:
        runner.close()
