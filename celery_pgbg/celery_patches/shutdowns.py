"""Finds the kind of shutdown: Celery stops the pool in every kind, and only its frames distinguish them."""

from __future__ import annotations

import sys
import traceback
from types import CodeType

import celery
from celery.apps import worker
from celery.worker import state

# Celery's handlers from 5.5 on; earlier ones do not stop the pool. Code objects are compared, so a rename is an
# AttributeError here.
_HAS_HANDLERS = celery.VERSION >= (5, 5)
_COLD: CodeType | None = worker.on_cold_shutdown.__code__ if _HAS_HANDLERS else None
_HARD: CodeType | None = worker.on_hard_shutdown.__code__ if _HAS_HANDLERS else None


def is_cold_shutdown() -> bool:
    """Whether a cold shutdown stops the pool."""
    return state.should_terminate not in (None, False)


def is_in_handler_of_cold_shutdown() -> bool:
    """Whether the pool is stopped in the signal's handler, as in Celery 5.5 and later."""
    return any(frame.f_code is _COLD for frame, _ in traceback.walk_stack(sys._getframe()))


def is_hard_shutdown() -> bool:
    """Whether the signal came a third time; Celery then raises the same exception as for a cold shutdown."""
    error = sys.exc_info()[1]
    frames = traceback.walk_tb(error.__traceback__) if error else ()
    return any(frame.f_code is _HARD for frame, _ in frames)
