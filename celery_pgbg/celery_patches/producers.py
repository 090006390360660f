"""Diverts an app's messages from its broker within a block."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from celery.utils.objects import FallbackContext


def divert_producers(divert: Callable[[Any], Any]) -> None:
    """Call ``divert`` whenever an app acquires a producer; a producer given by the caller stays.

    Args:
        divert: given the app, returns the producer to use instead, or None.
    """
    from celery import Celery

    acquire = Celery.producer_or_acquire
    if getattr(acquire, "is_diverted", False):
        return

    @functools.wraps(acquire)
    def acquiring(self: Any, producer: Any = None) -> Any:
        other = divert(self) if producer is None else None
        return acquire(self, producer) if other is None else FallbackContext(other, None)

    acquiring.is_diverted = True  # type: ignore[attr-defined]
    Celery.producer_or_acquire = acquiring
    Celery.default_producer = acquiring
