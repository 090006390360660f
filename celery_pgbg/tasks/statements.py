"""Turns the return value of a task's body into a query for psycopg."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from psycopg import sql

from celery_pgbg.database.routines import RoutineCall
from celery_pgbg.errors import BindingError, TaskDefinitionError
from celery_pgbg.outcomes import Returns

_KINDS = "a str, a (str, params) pair, a psycopg.sql.Composable, a template string or a SQLAlchemy statement"


class Query(NamedTuple):
    """A query and its parameters for psycopg's ``execute``, and a function for its value."""

    query: Any
    params: Any
    read: Callable[[Any, Returns | None], Any] | None = None


def to_query(task_name: str, returned: Any, arguments: dict[str, Any]) -> Query:
    """Find query and parameters in the return value of a body.

    Args:
        task_name: for messages.
        returned: the body's return value.
        arguments: the task's arguments by name, for a statement without its own parameters.

    Raises:
        TaskDefinitionError: no statement, or an empty one.
        BindingError: parameters that are neither a mapping nor a sequence.
    """
    params: Any = arguments
    if isinstance(returned, tuple) and len(returned) == 2:
        returned, params = returned
        if isinstance(params, list):
            params = tuple(params)
        if not isinstance(params, (Mapping, tuple)):
            raise BindingError(f"{task_name}: parameters must be a dict, tuple or list, got {type(params).__name__}")
    if isinstance(returned, str):
        if not returned.strip().strip(";").strip():
            raise TaskDefinitionError(f"{task_name}: the body returned an empty statement")
        return Query(returned, params)
    if isinstance(returned, (sql.Composable, RoutineCall)):
        return Query(returned, params)
    if _is_template(returned):
        return Query(returned, None)
    # If a body returns a statement of SQLAlchemy, SQLAlchemy is imported.
    if "sqlalchemy" in sys.modules:
        from celery_pgbg.tasks.sqlalchemy_statements import compile_statement, is_statement

        if is_statement(returned):
            if not isinstance(params, Mapping):
                raise BindingError(f"{task_name}: a SQLAlchemy statement takes its parameters as a dict")
            return Query(*compile_statement(task_name, returned, dict(params)))
    got = "nothing: a return is missing" if returned is None else type(returned).__name__
    raise TaskDefinitionError(f"{task_name}: the body must return {_KINDS}, got {got}")


def _is_template(value: Any) -> bool:
    """Recognise a template string (Python 3.14) without importing a module that older Pythons lack."""
    return type(value).__name__ == "Template" and type(value).__module__ == "string.templatelib"
