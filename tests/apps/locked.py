"""Included by a Celery worker: its event loop takes locks that other threads need, for as long as a file is there."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from celery.signals import worker_ready

from tests.waiting import be_held

_FILE = Path(os.environ["PGBG_TEST_HOLDS"]) / "loop"


@worker_ready.connect(weak=False)
def lock_when_told(sender: Any, **_: Any) -> None:
    """Let the loop look at each of its rounds."""
    hub, handler = sender.controller.hub, logging.getLogger().handlers[0]

    def hold() -> None:
        if _FILE.exists():
            with hub._ready_lock, handler.lock:
                be_held(_FILE)

    hub.on_tick.add(hold)
