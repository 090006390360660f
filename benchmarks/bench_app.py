"""The Celery app that is measured: the same statements on our pool and on Celery's threads pool."""

from __future__ import annotations

import os
import threading
import time

import psycopg
from celery import Celery

from celery_pgbg import SQLTask

DSN = os.environ.get("BENCH_DSN", "")

app = Celery(
    "bench",
    broker=os.environ.get("BENCH_BROKER", "memory://"),
    backend=os.environ.get("BENCH_BACKEND", "cache+memory://"),
    set_as_current=False,
)
app.conf.update(
    pgbg_dsn=DSN or None,
    pgbg_launchers=int(os.environ.get("BENCH_LAUNCHERS", "2")),
    task_default_queue=os.environ.get("BENCH_QUEUE", "bench"),
    control_exchange=os.environ.get("BENCH_QUEUE", "bench") + "-control",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=4,
)

_local = threading.local()


@app.task(base=SQLTask, name="bench.background", returns="value", shared=False)
def background(seconds: float = 0) -> str:
    """The statement in a background worker."""
    return "SELECT pg_sleep(%(seconds)s)::text" if seconds else "SELECT 1"


@app.task(base=SQLTask, name="bench.reused", returns="value", reuse=True, shared=False)
def reused(seconds: float = 0) -> str:
    """The same in a background worker that takes one task after another."""
    return background.body(seconds)


@app.task(name="bench.nothing", shared=False)
def nothing() -> None:
    """Celery alone."""


@app.task(name="bench.arrived", shared=False)
def arrived() -> float:
    """The clock when the task begins."""
    return time.time()


_INSERT = "INSERT INTO bench_effect (v) VALUES (%(v)s) RETURNING id, v"


@app.task(base=SQLTask, name="bench.insert", returns="row", shared=False)
def insert(v: str = "audited") -> str:
    """A short write, in a background worker of its own."""
    return _INSERT


@app.task(base=SQLTask, name="bench.insert_reused", returns="row", reuse=True, shared=False)
def insert_reused(v: str = "audited") -> str:
    """The same in a background worker that takes one task after another."""
    return _INSERT


@app.task(base=SQLTask, name="bench.committed_at", returns="value", shared=False)
def committed_at() -> str:
    """The server's clock as late in the statement as can be."""
    return "SELECT extract(epoch FROM clock_timestamp())::float8"


def _session() -> psycopg.Connection:
    """The connection that the thread keeps."""
    if not hasattr(_local, "session"):
        _local.session = psycopg.connect(DSN, autocommit=True)
    return _local.session


@app.task(name="bench.threaded", shared=False)
def threaded(seconds: float = 0) -> object:
    """The same statement on a connection that the thread keeps."""
    query = ("SELECT pg_sleep(%s)::text", [seconds]) if seconds else ("SELECT 1", None)
    row = _session().execute(*query).fetchone()
    return row[0]


@app.task(name="bench.inserted", shared=False)
def inserted(v: str = "audited") -> object:
    """The short write on that connection."""
    id_, value = _session().execute(_INSERT, {"v": v}).fetchone()
    return {"id": id_, "v": value}
