"""An app of twins: each task is there as ``sql.NAME``, ours, and as ``python.NAME``, which does the same by psycopg."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import psycopg
from celery import Celery, Task, group
from celery.exceptions import Ignore, Reject
from celery.worker.request import Request
from psycopg.rows import dict_row

from celery_pgbg import SQLTask
from tests.apps.journal import Hooks, Journal
from tests.apps.shop import SLEEP_THE_FIRST_TIME
from tests.apps.shop import make_app as make_shop

KINDS = ("python", "sql")

#: What goes wrong once: a sequence knows whether it has.
FIRST_TIME = {
    "fail": "SELECT 1 / (nextval(%(sequence)s) - 1)",
    "sleep": SLEEP_THE_FIRST_TIME,
}


def make_app(broker: str, backend: str, queue: str, journal_url: str | None = None, **settings: Any) -> Celery:
    """Make the app; a test and its Celery workers make it with the same arguments."""
    app = make_shop(broker, backend, queue, **settings)
    journal = Journal(journal_url, queue) if journal_url else None
    Twins(app, settings.get("pgbg_dsn", ""), journal).define()
    if "PGBG_TEST_APP" in os.environ and journal is not None:
        journal.note_signals()
    return app


class NotingRequest(Request):  # type: ignore[misc]
    """A request class as Celery's documentation shows one: it knows nothing of ours."""

    def _note(self, what: str) -> None:
        self.task.journal.note(self.id, what, self.request_dict.get("retries", 0))

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        self._note("request accepted")

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        self._note("request failed")
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_retry(self, exc_info: Any) -> Any:
        self._note("request retried")
        return super().on_retry(exc_info)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        self._note(f"request timed out, {'soft' if soft else 'hard'}")
        super().on_timeout(soft, timeout)


class CallWrapped:
    """A base class with a call of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return {"wrapped": super().__call__(*args, **kwargs)}  # type: ignore[misc]


class FailingHooks:
    """A base class with a bug in its hooks."""

    def on_failure(self, *args: Any) -> None:
        raise LookupError("a bug in on_failure")

    def on_success(self, *args: Any) -> None:
        raise LookupError("a bug in on_success")


class Twins:
    """Registers the tasks, by pairs."""

    def __init__(self, app: Celery, dsn: str, journal: Journal | None) -> None:
        self._app = app
        self._dsn = dsn
        self._journal = journal
        self._attributes = {"journal": journal} if journal else {}

    def task(self, body: Any = None, *, mixin: type | None = None, returns: Any = "value", **options: Any) -> Any:
        """Register a body that returns a statement, and its twin."""
        if body is None:
            return functools.partial(self.task, mixin=mixin, returns=returns, **options)
        hooks = [Hooks] if self._attributes else []
        mixins = [mixin, *hooks] if mixin else hooks
        options = {"shared": False, "acks_late": True, **options}
        ours = type("OurBase", (*mixins, SQLTask), {"abstract": True, **self._attributes})
        theirs = type("TheirBase", (*mixins, Task), {"abstract": True, **self._attributes})
        name = body.__name__
        self._app.task(base=ours, name=f"sql.{name}", returns=returns, **options)(body)
        header = self._app.type_checker(body, bound=options.get("bind", False))
        execute = self._executing(body, returns)
        self._app.task(base=theirs, name=f"python.{name}", __header__=header, **options)(execute)
        return body

    def _executing(self, body: Callable[..., Any], returns: str) -> Callable[..., Any]:
        signature = inspect.signature(body)

        @functools.wraps(body)
        def execute(*args: Any, **kwargs: Any) -> Any:
            made = body(*args, **kwargs)
            named = signature.bind(*args, **kwargs)
            named.apply_defaults()
            query, parameters = made if isinstance(made, tuple) else (made, dict(named.arguments))
            return self._fetch(query, parameters, returns)

        return execute

    def _fetch(self, query: str, parameters: Any, returns: str) -> Any:
        with psycopg.connect(self._dsn) as session, session.cursor(row_factory=dict_row) as cursor:
            rows: Any = cursor.execute(query.encode(), parameters).fetchall()
        return next(iter(rows[0].values())) if returns == "value" else rows

    def define(self) -> None:
        """Register all."""
        task = self.task

        @self._app.task(base=SQLTask, atomic=False, shared=False, name="sql.sleep_alone")
        def sleep_alone(seconds: float) -> str:
            return "SELECT pg_sleep(%(seconds)s)"

        @task
        def double(x: int) -> str:
            return "SELECT %(x)s::int * 2"

        @task(returns="rows")
        def rows(number: int) -> str:
            return "SELECT i, i::text AS t FROM generate_series(1, %(number)s) i"

        @task
        def total(numbers: list[int]) -> str:
            return "SELECT sum(n)::int FROM unnest(%(numbers)s::int[]) n"

        @task
        def add(a: int, b: int) -> str:
            return "SELECT %(a)s::int + %(b)s::int"

        @task
        def sleep(seconds: float) -> str:
            return "SELECT pg_sleep(%(seconds)s)::text || extract(epoch FROM clock_timestamp())"

        @task
        def sleep_limited(seconds: float) -> str:
            return "SELECT pg_sleep(%(seconds)s)::text"

        @task
        def wait_for_lock(key: int) -> str:
            return "SELECT pg_advisory_xact_lock_shared(%(key)s)::text"

        @task(acks_late=False)
        def wait_acked_early(key: int) -> str:
            return "SELECT pg_advisory_xact_lock_shared(%(key)s)::text"

        @task(reject_on_worker_lost=False)
        def wait_not_requeued(key: int) -> str:
            return "SELECT pg_advisory_xact_lock_shared(%(key)s)::text"

        @task(acks_on_failure_or_timeout=False)
        def sleep_the_first_time(sequence: str) -> str:
            return FIRST_TIME["sleep"]

        @task(acks_on_failure=False)
        def acks_time_limits_only(how: str, sequence: str) -> str:
            return FIRST_TIME[how]

        @task(acks_on_timeout=False)
        def acks_failures_only(how: str, sequence: str) -> str:
            return FIRST_TIME[how]

        @task(track_started=True)
        def wait_tracked(key: int) -> str:
            return "SELECT pg_advisory_xact_lock_shared(%(key)s)::text"

        @task(bind=True)
        def wait_in_state(self: Any, key: int) -> str:
            self.update_state(state="PROGRESS", meta={"percent": 40})
            return "SELECT pg_advisory_xact_lock_shared(%(key)s)::text"

        @task
        def fail() -> str:
            return "SELECT 1 / 0"

        @task(bind=True)
        def retry_twice(self: Any) -> Any:
            if self.request.retries < 2:
                raise self.retry(countdown=0)
            return "SELECT %(n)s::int", {"n": self.request.retries}

        @task(bind=True)
        def retry_with_others(self: Any, a: int, b: int = 0) -> Any:
            if self.request.retries == 0:
                raise self.retry(args=(a + 1,), countdown=0)
            return "SELECT %(n)s::int", {"n": a * 100 + b}

        @task(bind=True, max_retries=1)
        def retry_in_vain(self: Any) -> str:
            raise self.retry(exc=LookupError("given up"), countdown=0)

        @task(autoretry_for=(psycopg.errors.DivisionByZero,), max_retries=1, retry_backoff=1, retry_jitter=False)
        def retry_by_itself() -> str:
            return "SELECT 1 / 0"

        @task(autoretry_for=(psycopg.Error,), dont_autoretry_for=(psycopg.errors.UndefinedTable,))
        def retry_not_for_this() -> str:
            return "SELECT 1 FROM pgbg_test_nowhere"

        @task(bind=True)
        def request_seen(self: Any, x: int, y: int = 0) -> Any:
            names = ("id", "args", "kwargs", "retries", "hostname", "is_eager", "called_directly", "root_id",
                     "parent_id", "group", "reply_to", "correlation_id", "origin", "stamps", "timelimit",
                     "delivery_info", "ignore_result", "task", "expires")  # fmt: skip
            seen = {name: getattr(self.request, name) for name in names}
            return "SELECT %(seen)s::json", {"seen": json.dumps(seen, default=str)}

        @task(ignore_result=True)
        def ignored(x: int) -> str:
            return "SELECT %(x)s::int"

        @task(ignore_result=True)
        def ignored_failure() -> str:
            return "SELECT 1 / 0"

        @task(ignore_result=True, store_errors_even_if_ignored=True)
        def stored_failure() -> str:
            return "SELECT 1 / 0"

        @task(acks_on_failure_or_timeout=False)
        def fail_unacknowledged() -> str:
            return "SELECT 1 / 0"

        @task(mixin=CallWrapped)
        def wrapped(x: int) -> str:
            return "SELECT %(x)s::int"

        @task(mixin=CallWrapped, bind=True)
        def wrapped_after_a_retry(self: Any, x: int) -> str:
            if not self.request.retries:
                raise self.retry(countdown=0)
            return "SELECT %(x)s::int"

        @task
        def count_of(values: list[Any]) -> Any:
            return "SELECT %(n)s::int", {"n": len(values)}

        @task(mixin=FailingHooks)
        def fail_with_a_bug_in_its_hooks() -> str:
            return "SELECT 1 / 0"

        @task(mixin=FailingHooks)
        def succeed_with_a_bug_in_its_hooks() -> str:
            return "SELECT 1"

        @task(bind=True, Request=NotingRequest)
        def noted(self: Any, how: str) -> str:
            if how == "retry" and not self.request.retries:
                raise self.retry(countdown=0)
            return {"fail": "SELECT 1 / 0", "wait": "SELECT pg_sleep(60)::text"}.get(how, "SELECT 1")

        @task(bind=True)
        def replaced(self: Any, x: int) -> Any:
            return self.replace(self.app.signature(_sibling(self, "double"), (x,)))

        @task(bind=True)
        def replaced_by_a_group(self: Any, numbers: list[int]) -> Any:
            double = self.app.tasks[_sibling(self, "double")]
            return self.replace(group(double.s(n) for n in numbers))

        @task
        def ignores_itself() -> str:
            raise Ignore

        @task
        def rejects_itself() -> str:
            raise Reject("no", requeue=False)

        @task
        def exits() -> str:
            sys.exit(3)

        @task(rate_limit="2/s")
        def limited(x: int) -> str:
            return "SELECT extract(epoch FROM clock_timestamp())::float8"

        @task
        def errback(parent_id: str) -> str:
            return "SELECT 'failed: ' || %(parent_id)s"

        @task
        def errback_called(request: Any, exc: Exception, traceback: str) -> Any:
            assert self._journal is not None
            self._journal.note(request.id, "errback called", error=type(exc).__name__)
            return "SELECT 1", {}


def _sibling(task: Any, name: str) -> str:
    return f"{task.name.partition('.')[0]}.{name}"


if "PGBG_TEST_APP" in os.environ:
    app = make_app(**json.loads(os.environ["PGBG_TEST_APP"]))
