"""The app of a Celery worker in a container: pytest-celery puts imports, name and configuration in its places."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

imports = None

app = Celery("celery_test_app")
config: dict[str, Any] | None
config = None

if config:
    app.config_from_object(config)

# The addresses in it are those of the host; Celery itself reads CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
app.conf.worker_pool = "celery_pgbg.pool:TaskPool"
app.conf.pgbg_dsn = os.environ.get("PGBG_DSN")
