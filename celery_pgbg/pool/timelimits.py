"""Time limits of tasks in our pool, and their clocks."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from celery import Task

from celery_pgbg.deadlines import Deadlines
from celery_pgbg.tasks.taskrun import TaskRun

logger = logging.getLogger("celery_pgbg.pool")


class TimeLimits:
    """The clocks of all tasks of a pool.

    Args:
        options: the pool's options, with the Celery worker's own ``--time-limit`` and ``--soft-time-limit``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._deadlines = Deadlines()
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._deadlines)

    def of(self, task: Task, sent: Sequence[float | None] | None) -> tuple[float | None, float | None]:
        """Find soft and hard limit: the message's, else the task's, else the Celery worker's.

        Celery's request has the task's limits at start-up; a control command may have changed them since.
        """
        hard, soft = sent or (None, None)
        soft = soft or task.soft_time_limit or self._options.get("soft_timeout")
        return soft, hard or task.time_limit or self._options.get("timeout")

    def start(self, run: TaskRun) -> None:
        """Start the clocks of a run: they include the wait for a background worker slot, not the wait for a thread."""
        soft, hard = run.limits
        if not soft and not hard:
            return
        if not run.is_sql:
            self._warn()
            return
        reference = weakref.ref(run)
        for is_soft, seconds in ((True, soft), (False, hard)):
            if seconds:
                run.deadlines.append(self._deadlines.add(seconds, partial(_time_out, reference, is_soft, seconds)))

    def stop(self, run: TaskRun) -> None:
        """Stop the clocks of a run."""
        for deadline in run.deadlines:
            self._deadlines.take_back(deadline)

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("time limits do not stop Python tasks in this pool's threads, only SQL tasks")


def _time_out(reference: Callable[[], TaskRun | None], soft: bool, seconds: float) -> None:
    run = reference()
    if run is not None:
        run.time_out(soft, seconds)
