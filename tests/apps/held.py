"""Included by a Celery worker: holds tasks after their results are stored and before they are acknowledged."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery.signals import task_postrun

_DIRECTORY = Path(os.environ["PGBG_TEST_HOLDS"])


@task_postrun.connect(weak=False)
def hold(task_id: str, **_: Any) -> None:
    """Wait as long as the file named after the task is there; another one tells that we do."""
    file = _DIRECTORY / task_id
    if file.exists():
        file.with_suffix(".held").touch()
    while file.exists():
        time.sleep(0.02)
