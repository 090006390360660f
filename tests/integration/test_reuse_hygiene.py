"""What one task leaves in the session of a reusable background worker, and what the next one finds of it.

The same table is in docs/explanation/session-state.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Raised
from tests.doc_blocks import PROJECT
from tests.integration.test_reuse import in_one_worker, reused

#: Kind of state: what makes it, what looks for it, and what is seen where there is none.
STATES: dict[str, tuple[str, str, Any]] = {
    "parameters": ("SET work_mem = '77MB'", "SELECT current_setting('work_mem') <> '77MB'", True),
    "styles": ("SET datestyle = 'German'", "SELECT '2026-02-03'::date::text", "2026-02-03"),
    "search path": ("SET search_path = nowhere", "SELECT current_setting('search_path') <> 'nowhere'", True),
    "parameters of one's own": ("SET my.own = 'x'", "SELECT coalesce(current_setting('my.own', true), '')", ""),
    "role": ("SET ROLE pg_monitor", "SELECT current_user = session_user AND current_setting('role') = 'none'", True),
    "session authorization": ("SET SESSION AUTHORIZATION pg_monitor", "SELECT session_user <> 'pg_monitor'", True),
    "characteristics of transactions": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
        "SELECT concat_ws(' ', current_setting('transaction_isolation'), current_setting('transaction_read_only'))",
        "read committed off",
    ),
    "row security": ("SET row_security = off", "SELECT current_setting('row_security')", "on"),
    "replication role": ("SET session_replication_role = replica", "SHOW session_replication_role", "origin"),
    "temporary tables": ("CREATE TEMP TABLE left_behind (v int)", "SELECT to_regclass('pg_temp.left_behind')", None),
    "temporary functions": (
        "CREATE FUNCTION pg_temp.left_behind() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT to_regproc('pg_temp.left_behind')",
        None,
    ),
    "prepared statements": ("PREPARE left_behind AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements", 0),
    "cursors WITH HOLD": (
        "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 'secret'",
        "SELECT count(*) FROM pg_cursors WHERE name = 'left_behind'",
        0,
    ),
    "advisory locks": (
        "SELECT pg_advisory_lock(815)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid = 815",
        0,
    ),
    "last values of sequences": (
        "CREATE TEMP SEQUENCE s; SELECT nextval('s')",
        "SELECT lastval()",
        "lastval is not yet defined in this session",
    ),
    "seed of random()": ("SELECT setseed(0.5)", "SELECT random() <> {expected_random}", True),
}


def random_after_seed(database: Any) -> float:
    database.execute("SELECT setseed(0.5)")
    (value,) = database.execute("SELECT random()").fetchone()
    return float(value)


def test_each_state_is_there_before_the_reset(server_dsn: str) -> None:
    """Else the test below would prove nothing: in one session, without a reset, each look finds something."""
    for kind, (leave, look, nothing) in STATES.items():
        with psycopg.connect(server_dsn, autocommit=True) as session:
            look = look.format(expected_random=random_after_seed(session))
            session.execute(leave.encode())
            row = session.execute(look.encode()).fetchone()
            assert row is not None
            assert row[0] != nothing, kind


def test_no_state_is_left_to_the_next_task(runner: Runner, database: Any) -> None:
    expected_random = random_after_seed(database)
    queries = []
    for leave, look, _ in STATES.values():
        queries += [leave, look.format(expected_random=expected_random)]
    options = {"returns": None}
    found = in_one_worker(runner, *queries, **options)
    for (kind, (_, _, nothing)), value in zip(STATES.items(), found[1::2], strict=True):
        seen = value.report.message if isinstance(value, Raised) else next(iter(value[0].values()))
        assert seen == nothing, kind


def test_a_shadow_of_what_the_reset_calls_is_not_called(runner: Runner, database: Any) -> None:
    database.execute("CREATE SCHEMA IF NOT EXISTS shadow")
    for name, returned in (("pg_advisory_unlock_all()", "void"), ("set_config(text, text, boolean)", "text")):
        database.execute(
            f"CREATE OR REPLACE FUNCTION shadow.{name} RETURNS {returned} LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_catalog.pg_sleep(1000); END'"
        )
    left = "SET search_path = shadow, pg_catalog; SELECT pg_catalog.pg_advisory_lock(816)"
    look = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid = 816"
    assert in_one_worker(runner, left, look)[1] == 0


def test_one_background_worker_serves_one_role_only(runner: Runner) -> None:
    pids: dict[str | None, set[int]] = {None: set(), "pg_monitor": set(), "pg_read_all_data": set()}
    for _ in range(5):
        for role, seen in pids.items():
            seen.add(reused(runner, "SELECT pg_backend_pid()", role=role))
    all_pids = [pid for seen in pids.values() for pid in seen]
    assert len(all_pids) == len(set(all_pids))
    assert len(all_pids) < 15, "they are reused"


def test_connections_of_dblink_end_with_the_task(new_database: Callable[[], str], new_runner: Any) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
        session.execute("CREATE EXTENSION dblink")
        runner = Runner(dsn, new_runner()._settings)
        try:
            connect = f"SELECT dblink_connect('kept', '{dsn}'), dblink_connect('{dsn}')"
            assert isinstance(reused(runner, connect), str)
            assert reused(runner, "SELECT dblink_get_connections()") is None
            assert isinstance(reused(runner, "SELECT * FROM dblink('SELECT 1') AS t (v int)"), Raised)
        finally:
            runner.close()


def test_what_plpython_keeps_ends_with_the_task(new_database: Callable[[], str], new_runner: Any) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        if not session.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'plpython3u'").fetchone():
            pytest.skip("this server has no PL/Python")
        schema.install(session)
        session.execute("CREATE EXTENSION plpython3u")
        session.execute(
            "CREATE FUNCTION kept() RETURNS text LANGUAGE plpython3u AS"
            " $$ return GD.setdefault('kept', plpy.execute('SELECT gen_random_uuid() AS v')[0]['v']) $$"
        )
        assert session.execute("SELECT kept() = kept()").fetchone() == (True,)
        runner = Runner(dsn, new_runner()._settings)
        try:
            kept = [reused(runner, "SELECT kept()") for _ in range(3)]
            assert len(set(kept)) == 3, kept
        finally:
            runner.close()


def test_the_page_has_the_same_states() -> None:
    page = (PROJECT / "docs/explanation/session-state.md").read_text()
    assert set(re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE)) >= set(STATES)
