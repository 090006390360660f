"""The canvas on Celery's threads pool and on ours."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from celery import chain, chord, group
from celery.canvas import StampingVisitor
from celery.exceptions import ChordError

from tests.fix_parity import Side
from tests.waiting import eventually

WAIT = 60


def test_links_are_called_with_the_result(side: Side) -> None:
    ids = [str(uuid.uuid4()) for _ in range(2)]
    links = [side.task("double").s().set(task_id=ids[0]), side.task("add").s(1).set(task_id=ids[1])]
    result = side.task("double").apply_async((2,), link=links)
    assert result.get(timeout=WAIT) == 4
    assert [side.shop.app.AsyncResult(i).get(timeout=WAIT) for i in ids] == [8, 5]
    eventually("children", lambda: [child.id for group in result.children or [] for child in group.results] == ids)


def test_errbacks_are_called_with_the_failed_task(side: Side) -> None:
    task_id = str(uuid.uuid4())
    errbacks = [side.task("errback").s().set(task_id=task_id), side.task("errback_called").s()]
    result = side.task("fail").apply_async(link_error=errbacks)
    with pytest.raises(psycopg.errors.DivisionByZero):
        result.get(timeout=WAIT)
    assert side.shop.app.AsyncResult(task_id).get(timeout=WAIT) == f"failed: {result.id}"
    eventually("called", lambda: "errback called" in side.journal.words(result.id))


def test_a_chain_passes_results_on_and_stops_at_a_failure(side: Side) -> None:
    result = chain(side.task("double").s(2), side.task("double").s(), side.task("add").s(3)).delay()
    assert result.get(timeout=WAIT) == 11
    assert [result.parent.get(), result.parent.parent.get()] == [8, 4]
    broken = chain(side.task("double").s(2), side.task("fail").si(), side.task("double").si(1)).delay()
    with pytest.raises(psycopg.errors.DivisionByZero):
        broken.get(timeout=WAIT)
    assert broken.state == "FAILURE"


def test_a_chain_keeps_its_family(side: Side) -> None:
    result = chain(side.task("double").s(2), side.task("request_seen").s(y=1)).delay()
    seen = result.get(timeout=WAIT)
    assert (seen["root_id"], seen["parent_id"]) == (result.parent.id, result.parent.id)


def test_a_group_and_its_failures(side: Side) -> None:
    result = group(side.task("double").s(n) for n in range(10)).apply_async()
    assert result.get(timeout=WAIT) == [2 * n for n in range(10)]
    mixed = group(side.task("double").s(1), side.task("fail").s()).apply_async()
    with pytest.raises(psycopg.errors.DivisionByZero):
        mixed.get(timeout=WAIT)
    assert (mixed.results[0].get(timeout=WAIT), mixed.failed()) == (2, True)


def test_a_chord_and_its_failure(side: Side) -> None:
    assert chord((side.task("double").s(n) for n in range(5)), side.task("total").s()).delay().get(timeout=WAIT) == 20
    task_id = str(uuid.uuid4())
    body = side.task("total").s().on_error(side.task("errback").s().set(task_id=task_id))
    broken = chord([side.task("double").s(1), side.task("fail").s()], body).delay()
    with pytest.raises(ChordError, match="division by zero"):
        broken.get(timeout=WAIT, follow_parents=False)
    with pytest.raises(psycopg.errors.DivisionByZero):
        broken.get(timeout=WAIT)
    assert side.shop.app.AsyncResult(task_id).get(timeout=WAIT).startswith("failed: ")


def test_a_chord_in_a_chain_and_a_group_in_a_group(side: Side) -> None:
    double, total = side.task("double"), side.task("total")
    result = chain(double.s(1), group(double.s(), double.s()), total.s(), double.s()).delay()
    assert result.get(timeout=WAIT) == 16
    nested = group(chain(double.s(1), double.s()), double.s(3)).delay()
    assert nested.get(timeout=WAIT) == [4, 6]


def test_map_starmap_and_chunks(side: Side) -> None:
    double, add = side.task("double"), side.task("add")
    assert double.map([1, 2, 3]).delay().get(timeout=WAIT) == [2, 4, 6]
    assert add.starmap([(1, 2), (3, 4)]).delay().get(timeout=WAIT) == [3, 7]
    assert add.chunks([(1, 1), (2, 2), (3, 3)], 2).delay().get(timeout=WAIT) == [[2, 4], [6]]


def test_a_task_replaces_itself(side: Side) -> None:
    result = side.task("replaced").delay(4)
    assert result.get(timeout=WAIT) == 8
    chained = chain(side.task("replaced").s(4), side.task("double").s()).delay()
    assert chained.get(timeout=WAIT) == 16
    assert side.task("replaced_by_a_group").delay([1, 2]).get(timeout=WAIT) == [2, 4]


def test_stamps_reach_the_task_and_what_follows(side: Side) -> None:
    class Visitor(StampingVisitor):  # type: ignore[misc]
        def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
            return {"night": "seven"}

    signature = chain(side.task("request_seen").si(1), side.task("request_seen").si(2))
    signature.stamp(visitor=Visitor())
    result = signature.delay()
    assert result.get(timeout=WAIT)["stamps"] == {"night": "seven"}
    assert result.parent.get(timeout=WAIT)["stamps"] == {"night": "seven"}


def test_a_signature_is_immutable_partial_and_cloned(side: Side) -> None:
    partial = side.task("add").s(b=3)
    assert partial.delay(4).get(timeout=WAIT) == 7
    assert partial.clone(args=(5,)).delay().get(timeout=WAIT) == 8
    assert side.task("add").si(1, 1).apply_async(link=side.task("double").si(2)).get(timeout=WAIT) == 2
