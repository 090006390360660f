"""The execution pool: a thread for each task; the thread of a SQL task only waits."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.concurrency.base import BasePool
from celery.signals import worker_ready
from celery.worker import state

from celery_pgbg.broker.browsing import describe_queues
from celery_pgbg.celery_patches.control import reach_all_deliveries
from celery_pgbg.celery_patches.eventloop import LoopCaller
from celery_pgbg.celery_patches.events import send_by_loop
from celery_pgbg.celery_patches.requests import nodename_of
from celery_pgbg.celery_patches.shutdowns import is_cold_shutdown, is_hard_shutdown, is_in_handler_of_cold_shutdown
from celery_pgbg.configuration import read_settings_again, settings_of
from celery_pgbg.handles import Attempt
from celery_pgbg.lasting import describe_threads
from celery_pgbg.pool.startup import (
    check_databases,
    leave_modules_uncollected,
    look_often_for_lost_messages,
    warn_of_meaningless,
)
from celery_pgbg.pool.timelimits import TimeLimits
from celery_pgbg.runners import close_runners, name_this_worker, runners, unname_this_worker
from celery_pgbg.settings import OnShutdown
from celery_pgbg.tasks.interruptible import Interruptible
from celery_pgbg.tasks.task import SQLTask
from celery_pgbg.tasks.taskrun import TaskRun
from celery_pgbg.watch import Interruption, Watch

logger = logging.getLogger("celery_pgbg.pool")

#: How long a thread without work lives on, in seconds.
_IDLE_SECONDS = 60.0

#: How long a cold shutdown waits for statements to be left or cancelled, in seconds.
_LEAVE_SECONDS = 5.0

#: How long it then waits for threads that only the end of their sessions wakes, in seconds.
_LAST_SECONDS = 1.0

#: While the event loop's thread waits for tasks to end: seconds between two rounds of the loop's work. The shortest
#: heartbeat of brokers is a second.
_TENDING_SECONDS = 0.4


class TaskPool(Interruptible, BasePool):
    """Runs SQL tasks in background workers of PostgreSQL, and all other tasks in its threads.

    ``limit`` (``-c``) tasks run at once; a thread ends after a minute without work.
    """

    limit: int
    body_can_be_buffer = True
    signal_safe = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: deque[TaskRun] = deque()
        self._runs: dict[str, list[TaskRun]] = {}
        # None ends the thread that takes it.
        self._handed: deque[TaskRun | None] = deque()
        self._busy = self._idle_threads = 0
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._ended = threading.Condition(self._lock)
        self._time_limits = TimeLimits(self.options)
        self._loop_caller = LoopCaller()
        self._leaving: OnShutdown | None = None
        self._has_left = False
        self._is_stopping = False

    # --- starting and stopping ---------------------------------------------------------------------

    def on_start(self) -> None:
        """Check the configuration and log how the limits fit; tasks wait later for a server that is down."""
        name_this_worker(nodename_of(self.options))
        # Otherwise, after a reconnect, the thread that acknowledges asks the broker for the old prefetch count, while
        # the event loop reads from the same connection: that was seen to hang for ever.
        self.app.conf.worker_enable_prefetch_count_reduction = False
        look_often_for_lost_messages(self.app)
        reach_all_deliveries()
        send_by_loop(self.app, self._loop_caller)
        # The signal keeps only a weak reference.
        worker_ready.connect(self._on_ready)
        warn_of_meaningless(self.options)
        check_databases(self.app, self.limit)

    def _on_ready(self, sender: Any, **_: Any) -> None:
        """Take the consumer that is ready, unless it is of another Celery worker in this process."""
        if sender.pool is self:
            self._loop_caller.consumer = sender
            leave_modules_uncollected()

    def on_stop(self) -> None:
        """Warm shutdown: wait for running tasks. Celery calls this method for a cold shutdown too."""
        if is_in_handler_of_cold_shutdown():
            # Waiting here could last for ever: the interrupted code may hold a lock that a thread needs.
            self._leave_all(settings_of(self.app).on_shutdown)
            return
        with self._lock:
            self._is_stopping = True
            self._give_up_waiting(Interruption.DETACH)
        # A signal may turn this shutdown into a cold one meanwhile.
        self._wait_for(lambda: not self._busy or is_cold_shutdown())
        if is_cold_shutdown():
            self.on_terminate()
        else:
            self._close()

    def on_close(self) -> None:
        """Called before the broker's connection is closed, so tasks that end in a cold shutdown are acknowledged."""
        if is_cold_shutdown():
            self.on_terminate()

    def on_terminate(self) -> None:
        """Cold shutdown: treat running statements as ``pgbg_on_shutdown`` says, and wait for that; once."""
        if self._has_left:
            return
        self._has_left = True
        how = "detach" if is_hard_shutdown() else settings_of(self.app).on_shutdown
        if how != self._leaving:
            self._leave_all(how)
        self._wait_for(lambda: not self._runs_sql(), math.inf if how == "wait" else _LEAVE_SECONDS)
        # Wakes threads blocked on a server that no longer answers.
        close_runners(at_once=True)
        self._wait_for(lambda: not self._runs_sql(), _LAST_SECONDS)
        self._close()

    def _wait_for(self, condition: Callable[[], bool], seconds: float = math.inf) -> None:
        """Wait until tasks have ended, in the thread of Celery's event loop; the loop does not run in that time."""
        deadline = time.monotonic() + seconds
        while True:
            pause = min(_TENDING_SECONDS, deadline - time.monotonic())
            with self._lock:
                if self._ended.wait_for(condition, pause) or pause <= 0:
                    return
            self._loop_caller.tend()

    def _leave_all(self, how: OnShutdown) -> None:
        """Start no more tasks; leave the running statements, cancel them, or let them finish."""
        self._leaving = how
        with self._lock:
            self._give_up_waiting(Interruption.SHUTDOWN if how == "cancel" else Interruption.DETACH)
            for run in self._all_runs():
                self._leave(run, how)
            self._ended.notify_all()
            if how == "wait" and self._runs_sql():
                logger.warning("waiting for running SQL tasks, as pgbg_on_shutdown says")

    def _runs_sql(self) -> bool:
        return any(run.is_sql for run in self._all_runs())

    def _close(self) -> None:
        self._loop_caller.perform()
        self._loop_caller.close()
        close_runners()
        unname_this_worker(nodename_of(self.options))

    def restart(self) -> None:
        """Read the settings again, with new sessions and threads; running tasks are not disturbed.

        Raises:
            ConfigurationError: a setting is wrong; then nothing changes.
        """
        read_settings_again(self.app)
        close_runners()
        with self._lock:
            self._handed.extend([None] * (self._idle_threads - len(self._handed)))
            self._work.notify_all()
        check_databases(self.app, self.limit)

    def _give_up_waiting(self, interruption: Interruption) -> None:
        """Start no more tasks. Tasks that were not accepted go back to the broker, as in Celery's pools.

        Args:
            interruption: what to do with a statement that is just being launched.
        """
        while self._waiting:
            run = self._waiting.popleft()
            self._busy += 1
            self._forget(run)
        for run in self._all_runs():
            if run.is_sql and run.pid is None:
                run.interrupt(interruption)

    # --- running -------------------------------------------------------------------------------------

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        correlation_id: str | None = None,
        **options: Any,
    ) -> TaskRun:
        """Accept a task; it starts at once, or when another task has ended."""
        task_id = correlation_id or ""
        task, message = self._called(args)
        watch = Watch(Attempt.of_message(task_id, message.get("retries"))) if isinstance(task, SQLTask) else None
        run = TaskRun(task_id, watch, target, args, kwargs, options)
        if task is not None:
            run.limits = self._time_limits.of(task, message.get("timelimit"))
        with self._lock:
            # A task that comes during a shutdown is never accepted, so it goes back to the broker.
            if not self._leaving and not self._is_stopping:
                self._runs.setdefault(run.task_id, []).append(run)
                self._waiting.append(run)
                self._start_runs()
        return run

    def _called(self, args: Any) -> tuple[Task | None, dict[str, Any]]:
        """Find the task and the message's fields in the arguments of Celery's tracer.

        Returns:
            No task for another target: for example, celery-batches passes a function that runs many messages at once.
        """
        if not args or len(args) < 3 or not isinstance(args[2], dict):
            return None, {}
        task = self.app.tasks.get(args[0]) if isinstance(args[0], str) else args[0]
        return (task, args[2]) if isinstance(task, Task) else (None, {})

    def _start_runs(self) -> None:
        """Start the tasks that may run now. The caller holds the lock."""
        while self._busy < self.limit and self._waiting:
            self._start(self._waiting.popleft())

    def _start(self, run: TaskRun) -> None:
        """Give a run to an idle thread, or to a new thread. The caller holds the lock."""
        self._busy += 1
        self._time_limits.start(run)
        has_idle_thread = self._idle_threads > len(self._handed)
        # Not passed as the new thread's argument: the thread would hold it, and the task's value, as long as it lives.
        self._handed.append(run)
        if has_idle_thread:
            self._work.notify()
        else:
            threading.Thread(target=self._serve, name="pgbg-task", daemon=True).start()

    def _serve(self) -> None:
        """Execute runs until none has come for a while. Backends keep a connection in each thread."""
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Take a run and execute it; the thread keeps no reference to it while it waits for the next run."""
        with self._lock:
            run = self._next()
        if run is None:
            return False
        try:
            run.execute(is_only_delivery=len(self._runs[run.task_id]) == 1)
        finally:
            with self._lock:
                self._forget(run)
                self._start_runs()
        return True

    def _next(self) -> TaskRun | None:
        """Wait for a run. The caller holds the lock, which is released while waiting."""
        self._idle_threads += 1
        self._work.wait_for(lambda: self._handed, _IDLE_SECONDS)
        self._idle_threads -= 1
        return self._handed.popleft() if self._handed else None

    def _forget(self, run: TaskRun) -> None:
        self._time_limits.stop(run)
        runs = self._runs[run.task_id]
        runs.remove(run)
        if not runs:
            del self._runs[run.task_id]
        self._busy -= 1
        self._ended.notify_all()

    def _all_runs(self) -> list[TaskRun]:
        return [run for runs in list(self._runs.values()) for run in runs]

    # --- interrupting ----------------------------------------------------------------------------------

    def interrupt(self, task_id: str, interruption: Interruption) -> bool:
        """Interrupt the SQL task of this id. False if there is none, or it has ended."""
        runs = [run for run in self._runs.get(task_id, ()) if run.is_sql]
        return any([self._interrupt(run, interruption) for run in runs])

    def _interrupt(self, run: TaskRun, interruption: Interruption) -> bool:
        """Interrupt one run. A run that waits for a thread gets a thread, so it ends now."""
        interrupted = run.interrupt(interruption)
        with self._lock:
            if run in self._waiting:
                self._waiting.remove(run)
                self._start(run)
        return interrupted

    def leave(self, task_id: str) -> None:
        """Leave this task: Celery gives it up for a shutdown or a lost connection, not for a revoke."""
        for run in self._runs.get(task_id, ()):
            self._leave(run, settings_of(self.app).on_shutdown)

    def _leave(self, run: TaskRun, how: OnShutdown) -> None:
        if run.is_sql and how != "wait":
            self._interrupt(run, Interruption.DETACH if how == "detach" else Interruption.SHUTDOWN)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Cancel the statement of the background worker with this PID.

        Our own requests go by the task id instead; this serves requests of other classes.

        Raises:
            NotImplementedError: a Python task is revoked; its thread cannot be stopped. If Celery only gives the task
                up, for a shutdown or a lost connection, nothing is raised: an error would end the whole Celery worker.
        """
        runs = self._all_runs()
        for run in runs:
            if run.is_sql and run.pid == pid:
                run.interrupt(Interruption.REVOKE)
                return
        if state.revoked_stamps or any(run.task_id in state.revoked for run in runs if not run.is_sql):
            raise NotImplementedError("this pool cannot terminate Python tasks: a thread cannot be stopped")
        logger.warning("a Python task cannot be stopped: its thread runs until the task or the process ends")

    # --- size ------------------------------------------------------------------------------------------

    def grow(self, n: int = 1) -> None:
        """Allow so many more tasks at once."""
        with self._lock:
            self.limit += n
            self._start_runs()

    def shrink(self, n: int = 1) -> None:
        """Allow so many fewer tasks at once, as running tasks end; with autoscale, none fewer."""
        with self._lock:
            self.limit = max(0, self.limit - n)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        info.update({"running": self._busy, "idle-threads": self._idle_threads, "waiting": len(self._waiting)})
        info["databases"] = [runner.describe() for runner in runners()]
        info["threads"] = describe_threads()
        info["queues"] = describe_queues()
        return info

    def register_with_event_loop(self, loop: Any) -> None:
        """Let the threads call the loop."""
        self._loop_caller.register(loop)
