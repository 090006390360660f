"""Celery's remote control, extended for several deliveries of a task in one Celery worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

from celery.utils.functional import maybe_list
from celery.worker.control import Panel

from celery_pgbg.watch import Interruption


def reach_all_deliveries() -> None:
    """Let ``revoke`` and ``terminate`` stop every delivery of a task in our pool.

    Celery remembers only one request for each task id, and forgets it when the first delivery ends.
    """
    for name in ("revoke", "terminate"):
        command = Panel.data[name]
        if not isinstance(command, partial):
            Panel.data[name] = update_wrapper(partial(_stop_all, command, name == "terminate"), command)


def _stop_all(command: Callable[..., Any], always: bool, state: Any, *args: Any, **options: Any) -> Any:
    answer = command(state, *args, **options)
    interrupt = getattr(state.consumer.pool, "interrupt", None)
    if interrupt and (always or options.get("terminate")):
        for task_id in maybe_list(options.get("task_id")) or ():
            interrupt(task_id, Interruption.REVOKE)
    return answer
