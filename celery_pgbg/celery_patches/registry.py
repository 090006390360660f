"""The apps that have their tasks already: a shared task that is defined now was just added to each of them.

Read: ``celery._state._get_active_apps``, as ``shared_task`` itself does; Celery 5.4 to 5.7.
"""

from __future__ import annotations

from typing import Any

from celery import _state


def finalized_apps() -> list[Any]:
    """List the living apps whose tasks have been made."""
    return [app for app in _state._get_active_apps() if app.finalized]
