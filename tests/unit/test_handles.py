"""Names of attempts."""

from __future__ import annotations

import uuid
from hashlib import blake2b

from hypothesis import example, given
from hypothesis import strategies as st

from celery_pgbg.handles import APPLICATION_NAME_BYTES, Attempt, application_name


def test_the_task_id_is_whole_and_the_name_gets_the_rest() -> None:
    task_id = str(uuid.uuid4())
    assert application_name("shop.add", Attempt(task_id)) == f"pgbg {task_id} shop.add"
    assert application_name("shop.tasks.close_the_month", Attempt(task_id)) == f"pgbg {task_id} close_the_month"


def test_the_task_name_makes_no_name_another_attempts() -> None:
    assert application_name("b c", Attempt("a")) != application_name("c", Attempt("a b"))


@given(st.text(max_size=200), st.text(min_size=1, max_size=300), st.integers(0, 10_000))
def test_a_name_always_fits_and_is_ascii(task_name: str, task_id: str, number: int) -> None:
    name = application_name(task_name, Attempt(task_id, number))
    assert len(name.encode()) <= APPLICATION_NAME_BYTES
    assert name.isascii()


@given(st.text(min_size=1), st.text(min_size=1), st.integers(0, 99), st.integers(0, 99))
@example("job#1", "job", 0, 1)
@example("x" * 41, "~" + blake2b(b"x" * 41, digest_size=16).hexdigest(), 0, 0)
@example("x" * 41, blake2b(b"x" * 41, digest_size=16).hexdigest(), 0, 0)
def test_different_attempts_have_different_names(first: str, second: str, one: int, two: int) -> None:
    attempts = Attempt(first, one), Attempt(second, two)
    names = {application_name("x", attempt) for attempt in attempts}
    assert len(names) == len(set(attempts))
