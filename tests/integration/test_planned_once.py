"""Arrays go to the server as text, and what is read for each task is planned once."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from celery_pgbg.database.arrays import as_array
from celery_pgbg.database.results import ResultStore
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Returned
from celery_pgbg.watch import Watch
from tests.fix_runner import order

_STRANGE = ["", "NULL", "a,b", "{}", ' "quoted" ', "\\", '\\"', "\\u0000", "ä ☃ 😀", "line\nbreak\t", "'", "$1", None]


@pytest.mark.parametrize(
    ("kind", "values"),
    [("text", _STRANGE), ("text", []), ("integer", [0, -1, None, 2**31 - 1]), ("bigint", [2**63 - 1]),
     ("boolean", [True, False, None]), ("jsonb", ['{"a": "\\"\\\\"}', None])],
)  # fmt: skip
def test_an_array_is_what_psycopg_would_send(database: psycopg.Connection[Any], kind: str, values: list[Any]) -> None:
    query = f"SELECT %s::{kind}[] IS NOT DISTINCT FROM %s::{kind}[]"
    assert database.execute(query.encode(), [as_array(values), values]).fetchone() == (True,)


def test_results_are_read_by_one_plan(dsn: str) -> None:
    store = ResultStore(dsn, 5.0, notify=False)
    try:
        for number in (1, 16, 1, 3, 100, 1, 1, 1):
            store.read(str(uuid.uuid4()) for _ in range(number))
        query = (
            "SELECT sum(generic_plans) > 3, sum(custom_plans) FROM pg_prepared_statements WHERE statement ~ 'result'"
        )
        assert store._sessions.run(lambda session: session.execute(query.encode()).fetchone()) == (True, 0)
    finally:
        store.close()


def test_background_workers_plan_as_their_server_says(runner: Runner) -> None:
    names = "plan_cache_mode", "enable_seqscan", "jit"
    query = f"SELECT {' || '.join(f'current_setting({name!r})' for name in names)}"
    for reuse in (True, False):
        asked = order(f"{query} FROM pg_sleep(0.1)", returns="value", reuse=reuse)
        found = runner.run(asked, Watch(asked.attempt))
        with runner.launchers[0]._exclusive() as session:
            [here] = session.execute(query.encode()).fetchone() or [None]
        assert isinstance(found, Returned)
        assert found.value == here
        assert str(here).startswith("autoon")
