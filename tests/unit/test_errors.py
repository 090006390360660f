"""Errors survive pickle and Celery's JSON, message and class."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import psycopg
import pytest
from celery import Celery

from celery_pgbg import errors
from celery_pgbg.database.values import had_begun, to_exception
from celery_pgbg.outcomes import ErrorReport

OURS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.PgbgError)]
PSYCOPGS = [kind for _, kind in inspect.getmembers(psycopg.errors, inspect.isclass) if issubclass(kind, psycopg.Error)]


def test_every_class_is_looked_at() -> None:
    assert len(OURS) > 7
    assert len(PSYCOPGS) > 200


@pytest.fixture(scope="module")
def backend() -> Any:
    """A result backend of Celery's own."""
    return Celery(backend="cache+memory://", set_as_current=False).backend


@pytest.mark.parametrize("kind", [*OURS, *PSYCOPGS])
def test_an_error_survives_pickle_and_json(kind: type[Exception], backend: Any) -> None:
    error = kind("what happened")
    for back in (
        pickle.loads(pickle.dumps(error)),
        backend.exception_to_python(backend.prepare_exception(error, "json")),
    ):
        assert type(back) is kind
        assert back.args == ("what happened",)


def test_a_servers_error_is_what_psycopg_would_have_raised() -> None:
    fields = {"message_detail": "Key exists.", "constraint_name": "c"}
    error = to_exception(ErrorReport("23505", "duplicate key", fields))
    assert type(error) is psycopg.errors.UniqueViolation
    assert str(error) == "duplicate key\nDETAIL:  Key exists."
    assert (error.sqlstate, error.diag.constraint_name, error.diag.message_primary) == ("23505", "c", "duplicate key")
    again = pickle.loads(pickle.dumps(error))
    assert (again.sqlstate, again.diag.constraint_name) == ("23505", "c")


@pytest.mark.parametrize(
    ("below", "told"),
    [("Zeile 62 bei EXECUTE", None), ("Zeile 71 bei FETCH", "PL/pgSQL-Funktion f(integer) Zeile 1 bei RETURN")],
)
def test_a_statement_with_its_values_is_not_told_in_another_language(below: str, told: str | None) -> None:
    lines = [f"PL/pgSQL-Funktion celery_pgbg.run_v1(text,integer) {below}", "background worker, pid 7"]
    if told:
        lines.insert(0, told)
    else:
        lines[:0] = ["PL/pgSQL-Funktion f(integer) Zeile 1 bei RETURN", "SQL-Anweisung »SELECT f(0), 'secret'«"]
    error = to_exception(ErrorReport("22012", "Division durch Null", {"context": "\n".join(lines)}))
    assert error.diag.context == told


def test_a_code_of_the_users_own_keeps_its_sqlstate() -> None:
    error = to_exception(ErrorReport("MY001", "mine"))
    assert isinstance(error, psycopg.DatabaseError)
    assert error.sqlstate == "MY001"


_OURS = 'SQL statement "SELECT pg_sleep(60)"\nPL/pgSQL function celery_pgbg.run_v1(text,integer) line 50 at OPEN'
_PASSED_ON = "background worker, pid 4711"


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        # 1.6 and 1.8: read from the handle, with pg_background's own line; 2.0: error_info, without it
        ("", False),
        (_PASSED_ON, False),
        (_OURS, True),
        (f"{_OURS}\n{_PASSED_ON}", True),
        # in another language, and clipped before any name of a function
        (f"SQL-Anweisung »SELECT pg_sleep(60)«\n{_PASSED_ON}", True),
        ('SQL statement "SELECT ' + "x" * 300, True),
    ],
)
def test_whether_a_background_worker_had_begun_is_known_by_any_line_of_its_call(context: str, expected: bool) -> None:
    assert had_begun(ErrorReport("57P01", "terminating", {"context": context})) is expected


def test_without_a_context_it_had_not_begun() -> None:
    assert not had_begun(ErrorReport("57P01", "terminating"))
