"""A trigger notes which task has changed a row."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema
from celery_pgbg.execution.inline import InlineRunner
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Returned
from celery_pgbg.settings import read_settings
from tests.fix_runner import order, run


@pytest.fixture(scope="module")
def audited(new_database: Callable[[], str]) -> Any:
    """A database with a table whose trigger keeps an audit, which any role may write."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
        session.execute(f"""
            CREATE TABLE account (id int);
            CREATE TABLE audit (task_id text, task_name text, attempt int, query text);
            GRANT ALL ON account, audit TO PUBLIC;
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN
                    INSERT INTO audit SELECT t.*, current_query() FROM celery_pgbg.current_task() AS t;
                    RETURN NULL;
                END';
            CREATE TRIGGER note AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION note();
            CREATE ROLE {ROLE};
        """)
        runner = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
        yield runner, session
        runner.close()
        session.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


ROLE = f"auditor_{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize("task_id", ["plain", 'it\'s \\ a "trial"', "ä\nb", "x" * 3000])
@pytest.mark.parametrize("options", [{}, {"reuse": True}, {"role": ROLE}, {"settings": {"work_mem": "5MB"}}])
def test_a_trigger_knows_the_task(audited: Any, task_id: str, options: dict[str, Any]) -> None:
    runner, session = audited
    session.execute("TRUNCATE audit")
    asked = order(
        "RESET ALL; SET application_name = 'etl'; INSERT INTO account VALUES (1)",
        f"{task_id} {uuid.uuid4()}",
        **options,
    )
    assert run(runner, asked) == Returned(1)
    [(*seen, query)] = session.execute("SELECT * FROM audit").fetchall()
    assert seen == [asked.attempt.task_id, "test", 0]
    assert "INSERT" not in query or "run_v1" in query, "the statement itself cannot be known so"


def test_under_an_older_snapshot_the_name_is_not_known(audited: Any) -> None:
    runner, session = audited
    session.execute("TRUNCATE audit")
    settings = {"default_transaction_isolation": "serializable"}
    asked = order("INSERT INTO account VALUES (1)", settings=settings)
    assert run(runner, asked) == Returned(1)
    [(task_id, name, attempt, _)] = session.execute("SELECT * FROM audit").fetchall()
    assert (task_id, attempt) == (asked.attempt.task_id, 0)
    assert name in (None, "test")


def test_a_statement_that_stands_alone_knows_it_after_its_start(audited: Any) -> None:
    runner, session = audited
    session.execute("TRUNCATE audit")
    asked = order("DO 'BEGIN COMMIT; PERFORM pg_sleep(1); INSERT INTO account VALUES (1); END'", atomic=False)
    assert isinstance(run(runner, asked), Returned)
    [(*seen, _)] = session.execute("SELECT * FROM audit").fetchall()
    assert seen == [asked.attempt.task_id, "test", 0]


def test_inline_and_without_a_task(audited: Any) -> None:
    _, session = audited
    session.execute("TRUNCATE audit")
    session.execute("INSERT INTO account VALUES (1)")
    with psycopg.connect(session.info.dsn) as own:
        asked = order("INSERT INTO account VALUES (1)")
        assert run(InlineRunner(own), asked) == Returned(1)
        own.commit()
    seen = session.execute("SELECT task_id, task_name, attempt FROM audit ORDER BY task_id NULLS FIRST").fetchall()
    assert seen == [(None, None, None), (asked.attempt.task_id, "test", 0)]
