"""SQL tasks whose results are in ``pgbg+postgresql://``, where an outcome is readable before Celery stores a result."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chord

from celery_pgbg.database.results import close_stores
from tests.fix_parity import ALONE, TwinShop
from tests.waiting import eventually

WAIT = 60


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str) -> Iterator[Callable[[str], Any]]:
    """The SQL tasks of an app with our pool and our result backend."""
    shop = TwinShop(
        tmp_path_factory.mktemp("backend"), f"{redis_url}/9", f"pgbg+{dsn}", pgbg_dsn=dsn, result_extended=True,
        journal_url=f"{redis_url}/10",
    )  # fmt: skip
    shop.start_worker("-c4", *ALONE)
    yield lambda name: shop.app.tasks[f"sql.{name}"]
    shop.close()
    close_stores()


def test_a_call_of_the_tasks_own_gives_its_result(tasks: Callable[[str], Any]) -> None:
    results = [tasks("wrapped").delay(n) for n in range(20)]
    assert [result.get(timeout=WAIT) for result in results] == [{"wrapped": n} for n in range(20)]
    assert tasks("wrapped_after_a_retry").delay(1).get(timeout=WAIT) == {"wrapped": 1}
    header = [tasks("wrapped").s(n) for n in range(3)]
    assert chord(header, tasks("count_of").s()).delay().get(timeout=WAIT) == 3


def test_states_before_the_end(tasks: Callable[[str], Any], hold: Callable[[], int], database: Any) -> None:
    key = hold()
    in_state, tracked = tasks("wait_in_state").delay(key), tasks("wait_tracked").delay(key)
    eventually("its state", lambda: in_state.state == "PROGRESS")
    assert in_state.info == {"percent": 40}
    query = "SELECT pid FROM celery_pgbg.execution WHERE task_id = %s"
    eventually("its start", lambda: tracked.state == "STARTED")
    eventually("its PID", lambda: (tracked.info["pid"],) == database.execute(query, [tracked.id]).fetchone())
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    assert [in_state.get(timeout=WAIT), tracked.get(timeout=WAIT)] == ["", ""]


def test_an_ignored_result_is_passed_on(tasks: Callable[[str], Any]) -> None:
    linked = str(uuid.uuid4())
    result = tasks("ignored").apply_async((4,), link=tasks("double").s().set(task_id=linked))
    assert tasks("double").AsyncResult(linked).get(timeout=WAIT) == 8
    assert result.get(timeout=WAIT) is None


def test_what_celery_stores_besides_is_there_a_moment_after_the_value(tasks: Callable[[str], Any]) -> None:
    linked = str(uuid.uuid4())
    results = [tasks("double").apply_async((n,), link=tasks("double").s()) for n in range(10)]
    results.append(tasks("double").apply_async((4,), link=tasks("double").s().set(task_id=linked)))
    assert [result.get(timeout=WAIT) for result in results] == [*range(0, 20, 2), 8]
    for result in results:
        eventually("its children", lambda result=result: result.children)
    [child] = results[-1].children
    assert (child.id, child.get(timeout=WAIT)) == (linked, 16)
    assert (results[-1].name, results[-1].retries, results[-1].state) == ("sql.double", 0, "SUCCESS")
    assert [value for _, value in results[-1].collect()] == [8, 16]


def test_retries_replacements_and_errors(tasks: Callable[[str], Any]) -> None:
    assert tasks("retry_twice").delay().get(timeout=WAIT) == 2
    assert tasks("replaced").delay(4).get(timeout=WAIT) == 8
    assert tasks("replaced_by_a_group").delay([1, 2]).get(timeout=WAIT) == [2, 4]
    # The second attempt may end before the first has stored that it is retried.
    for in_vain in [tasks("retry_in_vain").delay() for _ in range(40)]:
        with pytest.raises(LookupError, match="given up"):
            in_vain.get(timeout=WAIT)
