"""The app that the tests' Celery workers run: SQL tasks of every kind, and some Python tasks."""

from __future__ import annotations

import datetime
import gc
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import kombu
import psycopg
from celery import Celery, Task
from kombu.transport.redis import QoS
from psycopg import sql

from celery_pgbg import BatchedSQLTask, SQLTask
from celery_pgbg.pool.taskpool import TaskPool
from celery_pgbg.runners import runners

#: A sequence knows whether it has.
SLEEP_THE_FIRST_TIME = "SELECT pg_sleep(CASE nextval(%(sequence)s) WHEN 1 THEN 60 ELSE 0 END)::text"


def make_app(broker: str, backend: str, queue: str, **settings: Any) -> Celery:
    """Make the app; a test and its Celery workers make it with the same arguments."""
    app = Celery("shop", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(
        worker_pool="celery_pgbg.pool:TaskPool",
        task_default_queue=queue,
        # Celery workers of other tests would answer, and mark revoked what they do not know.
        control_exchange=f"{queue}-control",
        event_exchange=f"{queue}-events",
        broker_connection_retry_on_startup=True,
        worker_prefetch_multiplier=1,
    )
    if broker.startswith("amqp"):
        app.conf.update(task_queues=None, task_create_missing_queues=True, broker_transport_options={})
    app.conf.update(settings)
    if kombu.VERSION < (5, 7):
        # It has no option for this, and looks every hundred seconds only for messages to restore; now every ten.
        QoS.restore_visible.__defaults__ = (0, 10, 1)
    define_tasks(app)
    return app


def define_tasks(app: Celery) -> None:
    """Register the tasks, named ``shop.*``."""

    def sql_task(function: Any = None, **options: Any) -> Any:
        def register(body: Any) -> Any:
            return app.task(**{"base": SQLTask, "shared": False, "name": f"shop.{body.__name__}", **options})(body)

        return register(function) if function else register

    @sql_task
    def add(a: int, b: int = 2) -> str:
        return "SELECT %(a)s::int + %(b)s::int AS total"

    @sql_task(returns="value")
    def worker_pid() -> str:
        return "SELECT pg_backend_pid()"

    @sql_task(returns="value")
    def seen_name() -> str:
        return "SELECT current_setting('application_name')"

    @sql_task(returns="count")
    def insert(table: str, value: str, seconds: float = 0) -> Any:
        query = sql.SQL("INSERT INTO {} VALUES (%(value)s); SELECT pg_sleep(%(seconds)s)")
        return query.format(sql.Identifier(table))

    @sql_task(returns="value", acks_on_failure_or_timeout=False)
    def sleep_the_first_time(sequence: str) -> str:
        return SLEEP_THE_FIRST_TIME

    @sql_task(returns="count", reuse=True)
    def audit(table: str, value: str) -> Any:
        return sql.SQL("INSERT INTO {} VALUES (%(value)s)").format(sql.Identifier(table))

    @sql_task(returns="value")
    def parameter(name: str) -> str:
        return "SELECT current_setting(%(name)s)"

    @sql_task(returns="value", reuse=True)
    def parameter_in_reused(name: str) -> str:
        return "SELECT current_setting(%(name)s)"

    @sql_task(returns="value")
    def sleep(seconds: float) -> str:
        return "SELECT pg_sleep(%(seconds)s)::text"

    @sql_task
    def days(start: datetime.date, number: int) -> str:
        return "SELECT %(start)s::date + i AS day, i::numeric / 4 AS quarter FROM generate_series(1, %(number)s) i"

    @sql_task
    def fail(message: str = "no") -> str:
        return "DO $$ BEGIN RAISE EXCEPTION 'failed on purpose' USING HINT = 'as asked'; END $$"

    @sql_task
    def divide(a: int, b: int) -> str:
        return "SELECT %(a)s / %(b)s AS quotient"

    @sql_task(returns="count")
    def insert_unique(table: str, value: str) -> Any:
        return sql.SQL("INSERT INTO {} VALUES (%(value)s)").format(sql.Identifier(table))

    @sql_task(autoretry_for=(psycopg.errors.DivisionByZero,), max_retries=2, default_retry_delay=0, retry_backoff=False)
    def divide_with_retries(table: str) -> Any:
        query = "SELECT nextval({}); SELECT 1 / (CASE currval({}) WHEN 3 THEN 1 ELSE 0 END) AS quotient"
        return sql.SQL(query).format(sql.Literal(table), sql.Literal(table))

    @sql_task
    def pair(a: int) -> Any:
        return "SELECT %s::int AS x, %s::text AS y", (a, "50%")

    @sql_task
    def percent() -> str:
        return "SELECT 'a' LIKE '%%a%%' AS matches"

    @sql_task(returns="count")
    def several(table: str) -> Any:
        name = sql.Identifier(table)
        query = "INSERT INTO {n} VALUES ('one;'); INSERT INTO {n} VALUES ($$two;$$); UPDATE {n} SET v = v || '!'"
        return sql.SQL(query).format(n=name)

    @sql_task(bind=True, returns="value")
    def bound(self: Any, suffix: str) -> Any:
        return "SELECT %(prefix)s || %(suffix)s", {"prefix": self.request.id, "suffix": suffix}

    @sql_task(atomic=False)
    def vacuum(table: str) -> Any:
        return sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table))

    @sql_task(atomic=False)
    def index_concurrently(table: str) -> Any:
        return sql.SQL("CREATE INDEX CONCURRENTLY ON {} (v)").format(sql.Identifier(table))

    @sql_task(atomic=False)
    def call(procedure: str) -> Any:
        return sql.SQL("CALL {}()").format(sql.Identifier(procedure))

    @sql_task(atomic=False)
    def standalone_sleep(seconds: float) -> str:
        return "DO $$ BEGIN PERFORM pg_sleep(300); END $$"

    @sql_task(track_progress=True)
    def statement_tracked(text: str) -> str:
        return text.replace("%", "%%")

    note_batch = "INSERT INTO walked_log SELECT id FROM walked WHERE {batch}"

    held = "SELECT EXISTS (SELECT FROM walked_hold)"

    @sql_task(base=BatchedSQLTask, table="walked", key="id", max_batch_rows=20, wait_while=held)
    def walk() -> str:
        return f"SELECT pg_sleep(0.1); {note_batch}"

    @sql_task(base=BatchedSQLTask, table="walked", key="id", max_batch_rows=20, max_replication_lag=0.5)
    def walk_with_standby() -> str:
        return f"SELECT pg_sleep(0.05); {note_batch}"

    @sql_task(returns="value", settings={"work_mem": "77MB"}, role="pgbg_test_reader")
    def as_reader() -> str:
        return "SELECT current_user || ' ' || current_setting('work_mem')"

    @sql_task(
        returns="value",
        settings={"work_mem": "70MB"},
        per_call={"settings": ["lock_timeout", "work_mem"], "role": ["pgbg_test_reader"], "database": True},
    )
    def as_asked() -> str:
        return """
            SELECT concat_ws(' ', current_user, current_setting('work_mem'), current_setting('lock_timeout'),
                current_database())
        """

    @sql_task(
        bind=True,
        returns="value",
        per_call={"settings": True},
        autoretry_for=(psycopg.errors.DivisionByZero,),
        max_retries=1,
        default_retry_delay=0,
        retry_backoff=False,
    )
    def as_asked_after_a_retry(self: Any) -> str:
        return "SELECT current_setting('work_mem') || 1 / %(retries)s", {"retries": self.request.retries}

    @sql_task(settings={"statement_timeout": "300ms"})
    def too_slow() -> str:
        return "SELECT pg_sleep(60)"

    @sql_task
    def serializable(table: str) -> Any:
        return sql.SQL("SELECT count(*) AS n FROM {}").format(sql.Identifier(table))

    @sql_task(returns="count")
    def insert_when_free(table: str, key: int) -> Any:
        query = "INSERT INTO {} VALUES ('x'); SELECT pg_advisory_xact_lock(%(key)s)"
        return sql.SQL(query).format(sql.Identifier(table))

    @sql_task(returns="count")
    def insert_later(table: str, path: str) -> Any:
        while not Path(path).exists():
            time.sleep(0.05)
        return sql.SQL("INSERT INTO {} VALUES ('x')").format(sql.Identifier(table))

    @sql_task(returns="value")
    def large(size: int) -> str:
        return "SELECT repeat('x', %(size)s)"

    @sql_task(returns="value")
    def text_of(value: Any) -> str:
        return "SELECT %(value)s::text"

    @sql_task
    def missing_argument(a: int) -> str:
        return "SELECT %(b)s"

    @sql_task
    def lone_percent() -> str:
        return "SELECT 1 % 2"

    @sql_task
    def returned(kind: str) -> Any:
        return {
            "none": None, "empty": " ; ", "list": ["SELECT 1"], "bytes": b"SELECT 1", "number": 42,
            "parameters": ("SELECT %s", 5), "too few": ("SELECT %s, %s", [1]), "too many": ("SELECT %s", [1, 2]),
            "mixed": "SELECT %s, %(kind)s", "object": ("SELECT %(o)s", {"a": 1, "o": object()}),
            "nul": "SELECT 'a\0b'", "surrogate": "SELECT '\ud800'",
        }[kind]  # fmt: skip

    @sql_task
    def statement(text: str) -> Any:
        return text, {}

    @sql_task(reuse=True)
    def statement_reusing(text: str) -> Any:
        return text, {}

    class Hooked(SQLTask):
        abstract = True

        def on_success(self, *args: Any, **kwargs: Any) -> None:
            """Nothing, but it could be more."""

    @sql_task(base=Hooked)
    def hooked(text: str) -> Any:
        return text, {}

    @sql_task(atomic=False)
    def statement_alone(text: str) -> Any:
        return text, {}

    @sql_task(atomic=False, acks_late=True)
    def late_statement_alone(text: str) -> Any:
        return text, {}

    @sql_task(role="pgbg_test_nobody")
    def wrong_role() -> str:
        return "SELECT 1"

    @sql_task(settings={"no_such_setting": 1})
    def wrong_setting() -> str:
        return "SELECT 1"

    @sql_task(atomic=False, settings={"work_mem": "a lot"})
    def wrong_setting_alone() -> str:
        return "VACUUM"

    @sql_task
    def syntax_error() -> str:
        return "SELEC 1"

    @sql_task(database="nowhere")
    def unknown_database() -> str:
        return "SELECT 1"

    @sql_task(returns="value")
    def database_name() -> str:
        return "SELECT current_database()"

    @sql_task(returns="value", database="other")
    def other_database_name() -> str:
        return "SELECT current_database()"

    @sql_task
    def extract(text: str) -> Any:
        return text, {}

    @sql_task(database="other", returns="count")
    def load(rows: list[Any], table: str) -> Any:
        query = "INSERT INTO {n} SELECT * FROM jsonb_populate_recordset(NULL::{n}, %(rows)s)"
        return sql.SQL(query).format(n=sql.Identifier(table))

    @app.task(shared=False, name="shop.total")
    def total(results: list[Any]) -> int:
        return sum(result[0]["total"] for result in results)

    @app.task(shared=False, name="shop.something")
    def something() -> object:
        return object()

    @app.task(shared=False, name="shop.wait_for")
    def wait_for(path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.05)

    class NotesFailures(Task):  # type: ignore[misc]
        def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            Path(args[1]).write_text(ascii(exc))

    @app.task(shared=False, name="shop.fail_with", base=NotesFailures)
    def fail_with(message: str, path: str) -> None:
        raise ValueError(message)

    @app.task(shared=False, name="shop.holdings")
    def holdings() -> dict[str, int]:
        return holdings_of_this_process()

    @app.task(shared=False, name="shop.double")
    def double(x: int) -> int:
        return x * 2


def holdings_of_this_process() -> dict[str, int]:
    """Count what this Celery worker holds; a Python task runs in a thread of it."""
    ours = runners()
    threads = [thread for thread in threading.enumerate() if thread.name == "pgbg-task"]
    # Not by gc.get_objects(), from which a Celery worker's pool is exempt.
    pools: set[TaskPool] = {thread._target.__self__ for thread in threads}  # type: ignore[attr-defined]
    return {
        "handles": sum(len(launcher.states()) for runner in ours for launcher in runner.launchers),
        "watches": sum(len(runner.watches.entries()) for runner in ours),
        "in line": sum(len(runner.line) for runner in ours),
        "runs": sum(len(runs) for pool in pools for runs in pool._runs.values()),
        "deadlines": sum(len(pool._time_limits) for pool in pools),
        "objects": len(gc.get_objects()),
        "pool threads": len(threads),
    }


if "PGBG_TEST_APP" in os.environ:
    app = make_app(**json.loads(os.environ["PGBG_TEST_APP"]))
