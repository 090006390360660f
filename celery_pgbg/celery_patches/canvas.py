"""Sends the members of a group together. Celery publishes them one by one, and each would wait for the disk."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from kombu.utils.imports import symbol_by_name


def send_groups_within(block: str) -> None:
    """Wrap the sending of each group and each chord's header in a block, for every broker.

    Args:
        block: where the context manager is, as ``module:name``; imported for the first group. It takes the policy by
            which Celery sends the members again, or None.
    """
    from celery.canvas import group

    apply_tasks = group._apply_tasks

    @functools.wraps(apply_tasks)
    def applying(self: Any, *args: Any, **options: Any) -> Iterator[Any]:
        with symbol_by_name(block)(_retry_policy(self.app.conf, **options)):
            yield from apply_tasks(self, *args, **options)

    group._apply_tasks = applying


def _retry_policy(conf: Any, retry: bool | None = None, retry_policy: Any = None, **options: Any) -> Any:
    """Find how Celery sends again: the options of the call, else the settings."""
    if not (conf.task_publish_retry if retry is None else retry):
        return None
    return {**conf.task_publish_retry_policy, **(retry_policy or {})}
