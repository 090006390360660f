"""The Celery app: two settings make it run SQL tasks in PostgreSQL's background workers."""

import os

from celery import Celery

DSN = os.environ.get("FLIGHTS_DSN", "postgresql://postgres@127.0.0.1/flights")

app = Celery(
    "flights",
    broker=os.environ.get("FLIGHTS_BROKER", "redis://127.0.0.1:6379/0"),
    backend=f"pgbg+{DSN}",
    include=["flights.tasks"],
)
app.conf.worker_pool = "celery_pgbg.pool:TaskPool"
app.conf.pgbg_dsn = DSN

# Only for the demo on a machine without Redis: where kombu's filesystem transport keeps its messages.
folder = os.environ.get("FLIGHTS_BROKER_FOLDER")
if folder:
    app.conf.broker_transport_options = {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": f"{folder}/control",
    }
