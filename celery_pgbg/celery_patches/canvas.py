"""Sends the members of a group together. Celery publishes them one by one, and each would wait for the disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any


def send_groups_within(block: Callable[[], AbstractContextManager[None]]) -> None:
    """Wrap the sending of each group and each chord's header in a block, for every broker."""
    from celery.canvas import group

    apply_tasks = group._apply_tasks
    if getattr(apply_tasks, "is_within", False):
        return

    @functools.wraps(apply_tasks)
    def applying(*args: Any, **options: Any) -> Iterator[Any]:
        with block():
            yield from apply_tasks(*args, **options)

    applying.is_within = True  # type: ignore[attr-defined]
    group._apply_tasks = applying
