"""What a task's body may return, made into what psycopg takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from psycopg import sql

from celery_pgbg.errors import BindingError, TaskDefinitionError

_KINDS = "a str, a (str, params) pair, a psycopg.sql.Composable, a template string or a SQLAlchemy statement"


def to_query(task_name: str, returned: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Find query and parameters in what a body returned.

    Args:
        task_name: for messages.
        returned: the body's return value.
        arguments: the task's arguments by name, for a statement that brings no parameters.

    Returns:
        A query and its parameters as psycopg's ``execute`` takes them.

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
        return returned, params
    if isinstance(returned, sql.Composable):
        return returned, params
    if _is_template(returned):
        return returned, None
    if hasattr(returned, "compile") and "sqlalchemy" in sys.modules:
        return _compile(task_name, returned)
    raise TaskDefinitionError(f"{task_name}: the body must return {_KINDS}, got {type(returned).__name__}")


def _is_template(value: Any) -> bool:
    """Tell a template string (Python 3.14) without importing what older Pythons lack."""
    return type(value).__name__ == "Template" and type(value).__module__ == "string.templatelib"


def _compile(task_name: str, statement: Any) -> tuple[str, dict[str, Any]]:
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
    from sqlalchemy.exc import CompileError

    make_dialect: Any = PGDialect_psycopg
    try:
        compiled = statement.compile(dialect=make_dialect(), compile_kwargs={"render_postcompile": True})
    except CompileError as exc:
        raise TaskDefinitionError(f"{task_name}: SQLAlchemy cannot compile the statement: {exc}") from exc
    return str(compiled), dict(compiled.construct_params() or {})
