"""Included by a Celery worker: holds tasks after their results are stored and before they are acknowledged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery.signals import task_postrun

from tests.waiting import be_held

_DIRECTORY = Path(os.environ["PGBG_TEST_HOLDS"])


@task_postrun.connect(weak=False)
def hold(task_id: str, **_: Any) -> None:
    """Wait as long as the file named after the task is there."""
    be_held(_DIRECTORY / task_id)
