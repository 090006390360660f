"""Options of SQL tasks: checked when the task is defined."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task

from celery_pgbg import SQLTask, sql_task
from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.tasks.options import TaskOptions
from tests.fix_celery import PROJECT


def define(**options: Any) -> Any:
    """Define a task with these options."""
    app = Celery("x", set_as_current=False)

    def body() -> str:
        return "SELECT 1"

    return app.task(base=SQLTask, shared=False, name="x.body", lazy=False, **options)(body)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"returns": "row_s"}, "x.body: returns must be one of rows, row, value, count.*did you mean 'rows'"),
        ({"returns": "command"}, "returns must be one of"),
        ({"atomic": "no"}, "atomic must be True or False, got 'no'"),
        ({"atomic": None}, "atomic must be True or False, got None"),
        ({"database": 5}, "database must be a name or None, got 5"),
        ({"role": ""}, "role must be a name or None, got ''"),
        ({"settings": ["work_mem"]}, "settings must be a dict"),
        ({"settings": {1: "x"}}, "settings are named by strings, got 1"),
        ({"settings": {"Application_Name": "x"}}, "may not have 'Application_Name': it names the task"),
        ({"settings": {"role": "x"}}, "use the option role="),
        ({"pgbg": {"reuse": True}}, "x.body: pgbg= is for one call; give the task each option by its name"),
        ({"atomc": False}, "x.body: unknown option 'atomc'.*did you mean 'atomic'"),
        ({"setings": {}}, "unknown option 'setings'.*did you mean 'settings'"),
        ({"max_retrys": 3}, "unknown option 'max_retrys'.*did you mean 'max_retries'"),
        ({"per_call": ["role"]}, "per_call must be a dict"),
        ({"per_call": {"roles": True}}, "per_call has no 'roles'.*did you mean 'role'"),
        ({"per_call": {"role": "reader"}}, "must be a list of names or True"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message):
        define(**options)


async def _async_body() -> str:
    return "SELECT 1"


def _generator() -> Iterator[str]:
    yield "SELECT 1"


async def _async_generator() -> AsyncIterator[str]:
    yield "SELECT 1"


@pytest.mark.parametrize(
    ("body", "got"),
    [(_async_body, "an async def"), (_generator, "a generator"), (_async_generator, "an async generator")],
)
@pytest.mark.parametrize("bind", [False, True])
def test_a_body_whose_call_gives_no_statement_is_refused(body: Any, got: str, bind: bool) -> None:
    app = Celery("options")
    with pytest.raises(TaskDefinitionError, match=f"x.body: the body must be a function .*, got {got}"):
        app.task(base=SQLTask, shared=False, name="x.body", lazy=False, bind=bind)(body)


def test_settings_are_written_as_postgresql_reads_them() -> None:
    task = define(settings={"jit": False, "enable_seqscan": True, "work_mem": "1GB", "statement_timeout": 50})
    assert TaskOptions.of(type(task)).normalised_settings() == {
        "jit": "off", "enable_seqscan": "on", "work_mem": "1GB", "statement_timeout": "50",
    }  # fmt: skip


def test_a_task_in_one_transaction_is_acknowledged_late_and_one_that_stands_alone_early() -> None:
    assert [(task.acks_late, task.reject_on_worker_lost) for task in (define(), define(atomic=False))] == [
        (True, True),
        (False, False),
    ]
    assert define(atomic=False, acks_late=True).acks_late
    assert not define(acks_late=False).acks_late


def test_the_decorator_takes_only_our_base() -> None:
    with pytest.raises(TaskDefinitionError, match="must be a subclass of SQLTask, got Task"):
        sql_task(base=Task)


@pytest.mark.parametrize("options", [{"my_own": 1}, {"owner": "me"}, {"roles_of_mine": []}, {"typing": False}])
def test_attributes_of_a_users_own_are_left_alone(options: dict[str, Any]) -> None:
    task = define(**options)
    assert {name: getattr(task, name) for name in options} == options


@pytest.mark.parametrize("name", ["settings", "role", "database", "returns", "atomic", "reuse"])
def test_an_option_of_the_task_is_none_of_a_call(name: str) -> None:
    task = define()
    with pytest.raises(TaskDefinitionError, match=f"x.body: {name} is an option of the task"):
        task.apply_async((), **{name: "x"})
    with pytest.raises(TaskDefinitionError, match=f"x.body: {name} is an option of the task"):
        task.s().set(**{name: "x"}).delay()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("x", "must be a dict"),
        ({"setings": {}}, "has no 'setings'.*did you mean 'settings'"),
        ({"returns": "row"}, "has no 'returns'"),
        ({"settings": ["a"]}, "settings must be a dict"),
        ({"settings": {"work_mem": "1GB"}}, "does not allow settings 'work_mem'; allowed: .*statement_timeout"),
        ({"settings": {1: 2}}, "does not allow settings 1"),
        ({"role": "postgres"}, "does not allow role 'postgres'; allowed: none"),
        ({"database": "other"}, "does not allow database 'other'"),
    ],
)
def test_a_call_may_choose_what_the_task_allows(said: Any, message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message):
        define().apply_async((), pgbg=said)


def test_a_task_that_is_sent_without_an_app_warns_once(tmp_path: Path) -> None:
    """In a process of its own, which has no app."""
    program = """
from celery_pgbg import sql_task
@sql_task
def f():
    return "SELECT 1"
for _ in range(2):
    try:
        f.apply_async(retry=False)
    except Exception:
        pass
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CELERY")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True
    )
    assert done.stderr.count("is sent without your app, so to Celery's default broker amqp://localhost") == 1
