"""What statements that stand alone say beside their command tag."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_pgbg import SQLTask
from celery_pgbg.errors import TaskDefinitionError


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name.startswith("alone.")]


def test_notices_come_to_the_tasks_log_when_it_asks_for_them(
    alone: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    statement = "DO $$ BEGIN RAISE NOTICE 'half of %%', 4; COMMIT; RAISE WARNING 'ä'; RAISE DEBUG 'no'; END $$"
    assert alone(statement)() == "DO"
    assert logged(caplog) == []

    assert alone(statement, settings={"client_min_messages": "notice"})() == "DO"
    assert logged(caplog) == [(logging.INFO, "NOTICE: half of 4"), (logging.WARNING, "WARNING: ä")]


def test_notices_before_an_error_come_too(alone: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    statement = "DO $$ BEGIN RAISE NOTICE 'so far'; COMMIT; PERFORM 1 / 0; END $$"
    with pytest.raises(psycopg.errors.DivisionByZero):
        alone(statement, settings={"client_min_messages": "notice"})()
    assert logged(caplog) == [(logging.INFO, "NOTICE: so far")]


def test_what_vacuum_verbose_says_is_logged(
    alone: Callable[..., Any], caplog: pytest.LogCaptureFixture, table: str
) -> None:
    caplog.set_level(logging.DEBUG)
    assert alone(f"VACUUM (VERBOSE) {table}")() == "VACUUM"
    assert any(table in text and text.startswith("INFO: ") for _, text in logged(caplog))


def test_an_atomic_task_cannot_ask_for_them(alone: Callable[..., Any]) -> None:
    with pytest.raises(TaskDefinitionError, match="only tasks with atomic=False log messages"):
        type("Atomic", (SQLTask,), {"settings": {"client_min_messages": "notice"}})
