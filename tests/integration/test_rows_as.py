"""Rows as objects of a class, where they are read."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict

import psycopg
import pydantic
import pytest
from celery import Celery, chain

from celery_pgbg import SQLTask
from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.runners import close_runners

QUERY = "SELECT 1 AS id, 1.50 AS total, date '2026-01-02' AS day"
VALUES: dict[str, Any] = {"id": 1, "total": Decimal("1.50"), "day": datetime.date(2026, 1, 2)}


@dataclasses.dataclass(frozen=True)
class Total:
    id: int
    total: Decimal
    day: datetime.date


class TotalTuple(NamedTuple):
    id: int
    total: Decimal
    day: datetime.date


class TotalDict(TypedDict):
    id: int
    total: Decimal
    day: datetime.date


class TotalModel(pydantic.BaseModel):
    id: str
    total: float
    day: datetime.date

    model_config = {"coerce_numbers_to_str": True}


KINDS = [
    (Total, Total(**VALUES)),
    (TotalTuple, TotalTuple(**VALUES)),
    (TotalDict, VALUES),
    (TotalModel, TotalModel(id="1", total=1.5, day=VALUES["day"])),
]


@pytest.fixture(scope="module")
def app(dsn: str) -> Iterator[Celery]:
    made = Celery("rows_as", broker="memory://", backend=f"pgbg+{dsn}", set_as_current=False)
    made.conf.pgbg_dsn = dsn
    yield made
    close_runners(made)


def define(app: Celery, kind: Any, query: str = QUERY, **options: Any) -> Any:
    @app.task(base=SQLTask, shared=False, rows_as=kind, name=f"task-{uuid.uuid4()}", **options)
    def task() -> str:
        return query

    return task


@pytest.mark.parametrize(("kind", "expected"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_rows_are_of_the_kind_that_was_asked_for(app: Celery, kind: Any, expected: Any) -> None:
    task = define(app, kind)
    assert task() == [expected]
    assert type(task()[0]) is type(expected)
    assert task.apply().get() == [expected]
    assert define(app, kind, returns="row")() == expected
    assert define(app, kind, f"{QUERY} LIMIT 0", returns="row")() is None
    assert define(app, kind, f"{QUERY} LIMIT 0", returns="rows")() == []


@pytest.mark.parametrize(("kind", "expected"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_result_that_is_read_elsewhere_is_so_too(app: Celery, kind: Any, expected: Any) -> None:
    task = define(app, kind)
    app.backend.store_result(f"id-{kind}", [VALUES], "SUCCESS")
    assert task.AsyncResult(f"id-{kind}").get(timeout=10) == [expected]
    # A signature's result, as a chain returns it.
    frozen = task.s().freeze(f"id-{kind}")
    assert frozen.get(timeout=10) == [expected]
    assert frozen.result == [VALUES]


def test_a_statement_without_rows_is_an_error(app: Celery) -> None:
    """As with ``returns="rows"``: a type checker takes the value for a list."""
    with pytest.raises(psycopg.errors.SyntaxError, match="returns no rows"):
        define(app, Total, "SET LOCAL work_mem = '5MB'")()


def test_rows_of_one_are_the_argument_of_the_next(app: Celery) -> None:
    @app.task(base=SQLTask, shared=False, name="load", returns="value")
    def load(rows: list[Total]) -> str:
        return "SELECT sum(total) FROM jsonb_to_recordset(%(rows)s) AS r (total numeric)"

    assert chain(define(app, Total).s(), load.s()).apply().get() == Decimal("1.50")
    assert load([Total(**VALUES)] * 2) == Decimal("3.00")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (int, {}, "rows_as must be a dataclass"),
        ("Total", {}, "rows_as must be a dataclass"),
        (Total, {"returns": "value"}, "there are no rows"),
        (Total, {"returns": "count"}, "there are no rows"),
    ],
)
def test_what_cannot_be_is_refused(app: Celery, kind: Any, options: Any, message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message):
        define(app, kind, **options).run  # noqa: B018 - makes the task
