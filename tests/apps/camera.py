"""A camera for ``celery events``: writes what it sees of the tasks to the file in ``PGBG_TEST_FILM``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery.events.snapshot import Polaroid

FIELDS = ("name", "state", "args", "result", "runtime", "exception")


class Camera(Polaroid):
    clear_after = False

    def on_shutter(self, state: Any) -> None:
        tasks = {
            task.uuid: {name: getattr(task, name) for name in FIELDS}
            | {"worker": task.worker and task.worker.hostname, "worker_pid": task.__dict__.get("worker_pid")}
            for task in state.tasks.values()
        }
        film = Path(os.environ["PGBG_TEST_FILM"])
        film.with_suffix(".new").write_text(
            json.dumps({"alive": [w.hostname for w in state.alive_workers()], "tasks": tasks})
        )
        film.with_suffix(".new").replace(film)
