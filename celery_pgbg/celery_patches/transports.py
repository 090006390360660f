"""Registers our own transport with kombu and Celery, which have no hook for that.

kombu's ``Connection`` does not know its app, which has the settings. And Celery has a list of names of transports for
mingle and gossip.
"""

from __future__ import annotations

import functools
import sys
import weakref
from typing import Any

from celery_pgbg.celery_patches.late import when_imported

#: The transport option with a connection's app: a number, because ``celery inspect stats`` shows these options.
_OPTION = "pgbg_app"

_apps: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def register(schemes: tuple[str, ...], transport: str) -> None:
    """Register a transport with kombu, and note the apps of its connections, as soon as kombu and Celery are imported.

    Args:
        schemes: how its URLs begin.
        transport: ``module:Class``, imported when first used.
    """
    when_imported("kombu.transport", functools.partial(_add_aliases, schemes, transport))
    when_imported("celery.app.base", functools.partial(_note_apps, schemes))


def _add_aliases(schemes: tuple[str, ...], transport: str) -> None:
    from kombu.transport import TRANSPORT_ALIASES

    TRANSPORT_ALIASES.update(dict.fromkeys(schemes, transport))


def _note_apps(schemes: tuple[str, ...]) -> None:
    """Note in the options of each connection which app it belongs to."""
    from celery.app.base import Celery

    make_connection = Celery._connection
    if getattr(make_connection, "notes_apps", False):
        return

    @functools.wraps(make_connection)
    def noting(self: Any, url: Any, *args: Any, transport_options: Any = None, **options: Any) -> Any:
        if str(url or "").startswith(schemes):
            _apps[id(self)] = self
            transport_options = {**(transport_options or {}), _OPTION: id(self)}
        return make_connection(self, url, *args, transport_options=transport_options, **options)

    noting.notes_apps = True  # type: ignore[attr-defined]
    Celery._connection = noting


def app_of(client: Any) -> Any:
    """Find the app of kombu's ``Connection``; None if no app made it."""
    return _apps.get((client.transport_options or {}).get(_OPTION, 0))


def admit(driver_type: str) -> None:
    """Let Celery's mingle and gossip use a transport, because it carries broadcasts."""
    for name in ("Mingle", "Gossip"):
        module = sys.modules.get(f"celery.worker.consumer.{name.lower()}")
        step = getattr(module, name, None)
        if step is not None:
            step.compatible_transports = {*step.compatible_transports, driver_type}
