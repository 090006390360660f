"""The Celery app: one PostgreSQL is broker and result backend, and runs the SQL tasks in its background workers."""

import os

from celery import Celery

import celery_pgbg  # noqa: F401 - makes the broker known

DSN = os.environ.get("FLIGHTS_DSN", "postgresql://postgres@127.0.0.1/flights")

app = Celery("flights", broker=f"pgbg+{DSN}", backend=f"pgbg+{DSN}", include=["flights.tasks"])
app.conf.worker_pool = "celery_pgbg.pool:TaskPool"
app.conf.pgbg_dsn = DSN
