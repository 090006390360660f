"""``@sql_task``, with types for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import shared_task

from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.tasks.task import SQLTask

if TYPE_CHECKING:
    from celery_pgbg.tasks.typed import SQLTaskDecorator


def _sql_task(
    *args: Any, file: str | None = None, call: str | None = None, reload: bool | None = None, **options: Any
) -> Any:
    """Make a function into a SQL task of the current app: ``shared_task`` with our base.

    Usable as ``@sql_task`` and as ``@sql_task(returns="value", ...)``; takes the options of
    ``SQLTask`` and every option of Celery's tasks.

    Args:
        args: the function, if there are no options.
        file: path of a SQL file to run, relative to the module's; its variables, written as psql's, are the arguments.
        call: a function or procedure of the database to call, with its own arguments.
        reload: read the file again when it has changed; None: where Django's ``DEBUG`` is on.
        options: all others.

    Raises:
        TaskDefinitionError: the base is not one of ours, both ``file`` and ``call`` are given, or the file cannot be
            read.
    """
    options.setdefault("base", SQLTask)
    if not issubclass(options["base"], SQLTask):
        raise TaskDefinitionError(f"sql_task: base must be a subclass of SQLTask, got {options['base'].__name__}")
    if file is None and call is None:
        return shared_task(*args, **options)
    from celery_pgbg.tasks.declared import calling_module, declare

    return declare(file, call, reload, calling_module(), options)


sql_task: SQLTaskDecorator = _sql_task
sql_task.__name__ = sql_task.__qualname__ = "sql_task"
