"""Options of SQL tasks: checked when the task is defined."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, Task

from celery_pgbg import SQLTask, sql_task
from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.options import TaskOptions


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
        ({"atomic": False, "returns": "rows"}, "command tag"),
        ({"database": 5}, "database must be a name or None, got 5"),
        ({"role": ""}, "role must be a name or None, got ''"),
        ({"settings": ["work_mem"]}, "settings must be a dict"),
        ({"settings": {1: "x"}}, "settings are named by strings, got 1"),
        ({"settings": {"Application_Name": "x"}}, "may not have 'Application_Name': it names the task"),
        ({"settings": {"role": "x"}}, "use the option role="),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message):
        define(**options)


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
