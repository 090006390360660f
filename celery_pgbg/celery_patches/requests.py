"""Finds objects that Celery does not pass to a pool."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from celery.result import AsyncResult

#: The code by which an ``AsyncResult`` begins to keep a meta; a rename is an AttributeError here.
_KEEPS = AsyncResult._set_cache.__code__


def request_of(callbacks: Mapping[str, Callable[..., Any] | None]) -> Any:
    """Find the request of a task: it passes the pool one of its methods, to be called when the task is accepted.

    Returns:
        None if the caller of the pool is not a Celery worker's consumer: its callback may be a method of its own.
    """
    owner = getattr(callbacks.get("accept_callback"), "__self__", None)
    # Not by its class: importing it would import all of Celery's worker into processes that only send.
    return owner if hasattr(owner, "revoked") else None


def nodename_of(options: Mapping[str, Any]) -> str:
    """Find the Celery worker's name; Celery passes it only to initialisers of processes, as ``(app, name)``."""
    initargs: tuple[Any, ...] = options.get("initargs") or ()
    return str(initargs[1]) if len(initargs) > 1 else socket.gethostname()


def is_asked_by_celery_itself() -> bool:
    """Whether the caller's caller is Celery, which reads the children of every meta that it begins to keep."""
    return sys._getframe(2).f_code is _KEEPS
