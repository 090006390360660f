"""The messages that this process sends: kept, and sent once more."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from celery.signals import before_task_publish

from celery_pgbg.testing.waiting import wait_until

if TYPE_CHECKING:
    from celery import Celery


#: How long Celery workers have to report their tasks, in seconds.
_REPLIES_SECONDS = 1.0


class SentMessages:
    """Task messages of an app by task id, from its making until ``close``.

    Args:
        app: whose messages they are.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._messages: dict[str, dict[str, Any]] = {}
        self._repeated: set[str] = set()
        before_task_publish.connect(self._keep)

    def close(self) -> None:
        """Keep no more."""
        before_task_publish.disconnect(self._keep)

    def _keep(self, sender: str, headers: dict[str, Any], **message: Any) -> None:
        kept = {name: message[name] for name in ("body", "exchange", "routing_key", "declare", "properties")}
        self._messages[headers["id"]] = deepcopy({"name": sender, "headers": headers, **kept})

    def send_again(self, task_id: str) -> None:
        """Publish the message of a task once more, as a broker redelivers it.

        Raises:
            LookupError: this process has sent no such message.
        """
        if task_id not in self._messages:
            raise LookupError(f"no message of task {task_id} was sent by this process")
        self._repeated.add(task_id)
        message = deepcopy(self._messages[task_id])
        task = self._app.tasks.get(message.pop("name"))
        serializer = getattr(task, "serializer", None) or self._app.conf.task_serializer
        with self._app.producer_or_acquire() as producer:
            producer.publish(serializer=serializer, **message.pop("properties"), **message)

    def wait_consumed(self, task_id: str, timeout: float) -> None:
        """Wait until no message of a task is in its queue or in a Celery worker, if it was sent again.

        Raises:
            AssertionError: not in time.
        """
        if task_id in self._repeated:
            wait_until(f"all messages of {task_id} are consumed", lambda: not self._is_underway(task_id), timeout)

    def _is_underway(self, task_id: str) -> bool:
        message = self._messages[task_id]
        declared = [entity.name for entity in message["declare"] or ()]
        if self._waiting(declared[0] if declared else message["routing_key"]):
            return True
        found = self._app.control.inspect(timeout=_REPLIES_SECONDS).query_task(task_id) or {}
        return not found or any(found.values())

    def _waiting(self, queue: str) -> int:
        with self._app.connection_for_read() as connection:
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors:
                # Redis has no empty queues.
                return 0
