"""SQLAlchemy Core statements; SQLAlchemy's own engine makes their text and parameters, as when it executes them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.exc import SQLAlchemyError, StatementError
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql import Executable
from sqlalchemy.sql.dml import Insert
from sqlalchemy.types import Enum, Float

from celery_pgbg.errors import BindingError, TaskDefinitionError
from celery_pgbg.outcomes import Returns

#: OIDs for SQLAlchemy's numeric types, by the Python type that psycopg loads.
_NUMBERS: dict[type, int] = {float: 701, Decimal: 1700, int: 20}

#: Makes the task's value from the statement's value and the shape that was asked for.
Reader = Callable[[Any, Returns | None], Any]


def is_statement(value: Any) -> bool:
    """Whether SQLAlchemy can execute it."""
    return isinstance(value, Executable)


def compile_statement(
    task_name: str, statement: Any, arguments: dict[str, Any]
) -> tuple[str, dict[str, Any], Reader | None]:
    """Compile a statement as SQLAlchemy's dialect for psycopg would send it, with defaults and types.

    Args:
        task_name: for messages.
        statement: anything that SQLAlchemy's ``Connection`` can execute.
        arguments: values by name, for each ``bindparam`` without a value.

    Returns:
        The text, its parameters for psycopg, and a function that turns the rows' values into SQLAlchemy's values, if
        any differ.

    Raises:
        TaskDefinitionError: SQLAlchemy cannot compile it, or would run several.
        BindingError: a bound parameter has no argument, or its type refuses the argument.
    """
    if isinstance(statement, Insert) and not list(statement.exported_columns):
        # Otherwise SQLAlchemy adds its own RETURNING for the primary key.
        statement = statement.inline()
    try:
        with _engine().connect() as connection:
            required = _required(connection, statement)
            connection.execute(statement, {name: arguments[name] for name in required if name in arguments})
    except _Sent as sent:
        return _read_off(task_name, statement, sent)
    except StatementError as exc:
        if isinstance(exc.orig, _Sent):
            raise TaskDefinitionError(_one_first(task_name, exc.orig.text)) from exc
        raise BindingError(f"{task_name}: SQLAlchemy cannot bind the statement: {exc.args[0]}") from exc
    except SQLAlchemyError as exc:
        raise TaskDefinitionError(f"{task_name}: SQLAlchemy cannot compile the statement: {exc}") from exc
    raise TaskDefinitionError(f"{task_name}: SQLAlchemy does not compile {statement!r} into a statement")


class _Sent(Exception):
    """The text and parameters that an engine was about to send."""

    def __init__(self, text: str, parameters: Any, context: Any, executemany: bool) -> None:
        super().__init__(text)
        self.text = text
        self.parameters = parameters
        self.context = context
        self.executemany = executemany


def _read_off(task_name: str, statement: Any, sent: _Sent) -> tuple[str, dict[str, Any], Reader | None]:
    context = sent.context
    if sent.text != context.statement or context.invoked_statement not in (statement, None):
        raise TaskDefinitionError(_one_first(task_name, sent.text))
    if sent.executemany:
        raise TaskDefinitionError(f"{task_name}: one statement with many sets of parameters is not supported")
    return sent.text, dict(sent.parameters or {}), _reader(context)


def _one_first(task_name: str, text: str) -> str:
    return (
        f"{task_name}: SQLAlchemy would run another statement first, such as one for a column's default, and that is "
        f"not supported: {text}"
    )


@cache
def _engine() -> Engine:
    """An engine that sends nothing."""
    engine = create_engine("postgresql+psycopg://", creator=_Nothing, poolclass=StaticPool)
    dialect: Any = engine.dialect
    # There is no server to ask. These are its answers: our psycopg does not know hstore, strings conform to the
    # standard.
    dialect.initialize = _Nothing()
    dialect._has_native_hstore = False
    dialect._backslash_escapes = False

    @event.listens_for(engine, "before_cursor_execute")
    def send(_connection: Any, _cursor: Any, text: str, parameters: Any, context: Any, executemany: bool) -> None:
        raise _Sent(text, parameters, context, executemany)

    return engine


class _Nothing:
    """Stands for a driver's connection, its cursor, and whatever else an engine asks for before it sends."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self


def _required(connection: Any, statement: Any) -> list[str]:
    compiled = statement.compile(dialect=connection.dialect)
    return [name for name, bind in getattr(compiled, "binds", {}).items() if bind.required]


def _reader(context: Any) -> Reader | None:
    """Find the columns whose values SQLAlchemy converts; their types convert a value when they see one."""
    dialect = context.dialect
    columns: Any = getattr(context.compiled, "_result_columns", None) or ()
    types = {column[0]: column[3] for column in columns if _changes_values(column[3], dialect)}
    if not types:
        return None
    first = columns[0][0]

    def read_column(name: str, value: Any) -> Any:
        return _read(types[name], value, dialect) if name in types else value

    def read(value: Any, returns: Returns | None) -> Any:
        if returns == "value":
            return read_column(first, value)
        if isinstance(value, list):
            return [read(row, "row") for row in value]
        return {name: read_column(name, one) for name, one in value.items()} if isinstance(value, dict) else value

    return read


def _changes_values(kind: Any, dialect: Dialect) -> bool:
    if isinstance(kind, Enum):
        # A label stays a label: its enum class does not fit into a message.
        return False
    usual = _NUMBERS[float if isinstance(kind, Float) else Decimal]
    return kind.dialect_impl(dialect).result_processor(dialect, usual) is not None


def _read(kind: Any, value: Any, dialect: Dialect) -> Any:
    example = value
    while isinstance(example, list) and example:
        example = example[0]
    process = kind.dialect_impl(dialect).result_processor(dialect, _NUMBERS.get(type(example), _NUMBERS[Decimal]))
    return process(value) if process else value
