"""Sends the members of a group together. Celery publishes them one by one, and each would wait for the disk."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from kombu.utils.imports import symbol_by_name


def send_groups_within(block: str) -> None:
    """Wrap the sending of each group and each chord's header in a block, for every broker.

    Args:
        block: where the context manager is, as ``module:name``; imported for the first group.
    """
    from celery.canvas import group

    apply_tasks = group._apply_tasks

    @functools.wraps(apply_tasks)
    def applying(*args: Any, **options: Any) -> Iterator[Any]:
        with symbol_by_name(block)():
            yield from apply_tasks(*args, **options)

    group._apply_tasks = applying
