"""The classes of SQL tasks: where the body comes from, and which request class a Celery worker takes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from celery import Celery, Task
from celery.worker.request import Request

from celery_pgbg import SQLTask
from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.tasks.request import SQLRequest, with_our_ends


def define(body: Any, **options: Any) -> Any:
    """Define a task with this body."""
    app = Celery("x", set_as_current=False)
    app.conf.pgbg_dsn = "postgresql://h/d"
    return app.task(**{"base": SQLTask, "shared": False, "name": "x.body", "lazy": False, **options})(body)


def plain(a: int, *, b: int = 2) -> str:
    return "SELECT %(a)s, %(b)s"


def bound(self: Any, a: int, b: int = 2) -> str:
    return f"SELECT '{self.name}', %(a)s, %(b)s"


@pytest.mark.parametrize(("body", "options"), [(plain, {}), (bound, {"bind": True})])
def test_run_has_the_bodys_signature(body: Any, options: dict[str, Any]) -> None:
    task = define(body, **options)
    expected = [p for p in inspect.signature(body).parameters if p != "self"]
    assert list(inspect.signature(task.run).parameters) == expected
    assert task.make_order((1,), {}).params == {"a": 1, "b": 2} | ({"self": task} if options else {})


class FromMixin:
    """A body that comes from beside, as Django's mixins do."""

    def run(self, a: int) -> str:
        return "SELECT %(a)s"


def test_a_body_may_come_from_a_mixin() -> None:
    class Mixed(FromMixin, SQLTask):
        name = "x.mixed"

    class Child(Mixed):
        name = "x.child"

    for made in (Mixed(), Child()):
        made.bind(Celery("x", set_as_current=False))
        assert made.make_order((1,), {}).query == "SELECT %(a)s"
        assert "run_statement" in made.run.__code__.co_names


def test_a_class_of_a_decorated_task_keeps_its_body() -> None:
    task = define(plain)

    class Child(type(task)):  # type: ignore[misc]
        name = "x.child"
        returns = "row"

    order = Child().make_order((1,), {})
    assert (order.params, order.returns) == ({"a": 1, "b": 2}, "row")


def test_a_class_without_a_body_says_so() -> None:
    class Empty(SQLTask):
        name = "x.empty"

    with pytest.raises(NotImplementedError, match="must define the run method"):
        Empty().run()


def test_a_body_that_exits_fails_its_task() -> None:
    def leave() -> str:
        raise SystemExit(3)

    with pytest.raises(TaskDefinitionError, match=r"x.body: the body raised SystemExit\(3\)"):
        define(leave).make_order((), {})


def test_an_ignored_result_is_told_to_the_launch() -> None:
    assert define(plain, ignore_result=True).make_order((1,), {}).ignore_result
    assert not define(plain).make_order((1,), {}).ignore_result


class OwnRequest(Request):  # type: ignore[misc]
    """A request class that knows nothing of ours."""

    def on_failure(self, *args: Any, **kwargs: Any) -> Any:
        return super().on_failure(*args, **kwargs)


class OurRequest(SQLRequest):
    """A request class made from ours."""


def test_a_request_class_of_ones_own_is_put_on_top_of_ours() -> None:
    made = with_our_ends(OwnRequest)
    assert made.__mro__[1:3] == (OwnRequest, SQLRequest)
    assert [with_our_ends(known) for known in (SQLRequest, OurRequest, made)] == [SQLRequest, OurRequest, made]


@pytest.mark.parametrize("given", [OwnRequest, f"{__name__}:OwnRequest"])
def test_a_celery_worker_takes_a_tasks_own_request_class(given: Any) -> None:
    class Base(SQLTask):
        abstract = True
        Request = given
        Strategy = f"{__name__}:request_class_of"

    for task in (define(plain, base=Base), define(plain, Request=given, Strategy=Base.Strategy)):
        taken = task.start_strategy(task.app, None)
        assert issubclass(taken, OwnRequest)
        assert issubclass(taken, SQLRequest)
    assert define(plain, Strategy=Base.Strategy).start_strategy(None, None) is SQLRequest


def request_class_of(task: Task, app: Any, consumer: Any) -> Any:
    """A strategy that only tells which request class the task has."""
    return task.Request
