"""Errors survive pickle and Celery's JSON, message and class."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import psycopg
import pytest
from celery import Celery

from celery_pgbg import errors
from celery_pgbg.database.values import to_exception
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
