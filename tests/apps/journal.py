"""A journal in Redis of what happens to tasks: signals, hooks of base classes, calls of request classes."""

from __future__ import annotations

import json
import time
from typing import Any

import redis
from celery import signals


class Journal:
    """Notes by task id, written by Celery workers and read by tests.

    Args:
        url: of a Redis database.
        name: what keeps it apart from others there.
    """

    def __init__(self, url: str, name: str) -> None:
        self._redis = redis.Redis.from_url(url)
        self._name = name

    def note(self, task_id: str, what: str, attempt: int = 0, **details: Any) -> None:
        """Write what happened to an attempt, now."""
        entry = {"what": what, "attempt": attempt, "time": time.time(), **details}
        key = self._key(task_id)
        self._redis.rpush(key, json.dumps(entry, default=repr))
        self._redis.expire(key, 3600)

    def read(self, task_id: str) -> list[dict[str, Any]]:
        """All that happened to a task, in order."""
        return [json.loads(entry) for entry in self._redis.lrange(self._key(task_id), 0, -1)]

    def words(self, task_id: str, attempt: int = 0) -> list[str]:
        """What happened to one attempt, in order."""
        return [entry["what"] for entry in self.read(task_id) if entry["attempt"] == attempt]

    def _key(self, task_id: str) -> str:
        return f"{self._name}-journal-{task_id}"

    def note_signals(self) -> None:
        """Write all signals of tasks from now on, in this process."""

        def on_received(request: Any, **_: Any) -> None:
            self.note(request.id, "task_received", request.request_dict.get("retries", 0))

        def on_prerun(task_id: str, task: Any, **_: Any) -> None:
            self.note(task_id, "task_prerun", task.request.retries)

        def on_postrun(task_id: str, task: Any, state: str, **_: Any) -> None:
            self.note(task_id, "task_postrun", task.request.retries, state=state)

        # Celery before 5.7 does not tell the runtime.
        def on_success(sender: Any, runtime: float | None = None, **_: Any) -> None:
            self.note(sender.request.id, "task_success", sender.request.retries, runtime=runtime)

        def on_failure(sender: Any, task_id: str, exception: Exception, **_: Any) -> None:
            self.note(task_id, "task_failure", sender.request.retries or 0, error=type(exception).__name__)

        def on_retry(request: Any, reason: Any, **_: Any) -> None:
            self.note(request.id, "task_retry", request.retries, when=reason.when)

        def on_revoked(request: Any, terminated: bool, expired: bool, **_: Any) -> None:
            self.note(request.id, "task_revoked", request.retries or 0, terminated=terminated, expired=expired)

        def on_internal_error(task_id: str, exception: Exception, **_: Any) -> None:
            self.note(task_id, "task_internal_error", error=type(exception).__name__)

        signals.task_received.connect(on_received, weak=False)
        signals.task_prerun.connect(on_prerun, weak=False)
        signals.task_postrun.connect(on_postrun, weak=False)
        signals.task_success.connect(on_success, weak=False)
        signals.task_failure.connect(on_failure, weak=False)
        signals.task_retry.connect(on_retry, weak=False)
        signals.task_revoked.connect(on_revoked, weak=False)
        signals.task_internal_error.connect(on_internal_error, weak=False)


class Hooks:
    """To mix into a task class: notes the calls of its hooks."""

    journal: Journal

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.journal.note(task_id, "before_start", self.request.retries)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.journal.note(task_id, "on_success", self.request.retries)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.journal.note(task_id, "on_failure", self.request.retries or 0)

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.journal.note(task_id, "on_retry", self.request.retries)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.journal.note(task_id, "after_return", self.request.retries or 0, status=status)
