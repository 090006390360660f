"""Options of one call beside its arguments: ``apply_async(..., pgbg={"settings": {...}})``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from celery import Celery

from celery_pgbg.configuration import settings_of
from celery_pgbg.errors import ConfigurationError, TaskDefinitionError
from celery_pgbg.settings import did_you_mean
from celery_pgbg.tasks.options import NAMES, TaskOptions

#: The option of ``apply_async``, and the message's header, which retries keep.
HEADER = "pgbg"

#: The options that it may have.
_PER_CALL = ("settings", "role", "database")

_NO_APP = (
    "{name} is sent without your app, so to Celery's default broker amqp://localhost: first import the module with "
    "your Celery app (in Django: in the project's __init__.py)"
)

_has_warned: list[bool] = []


def checked_call(task: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Check the options of a call, and put our options into a header.

    Raises:
        TaskDefinitionError: one of the task's own options, an option that the task does not allow, or an unknown
            database.
    """
    stamps = options.get("stamped_headers") or ()
    for name in options:
        if name in NAMES and name not in stamps:
            cure = f"; for one call use {HEADER}={{{name!r}: ...}}" if name in _PER_CALL else ""
            raise TaskDefinitionError(f"{task.name}: {name} is an option of the task, not of apply_async{cure}")
    _warn_without_app(task.app, task.name)
    check_alias(task, options_of_call(task, options.get(HEADER)).database)
    if HEADER not in options:
        return options
    said = options[HEADER]
    rest = {name: value for name, value in options.items() if name != HEADER}
    return {**rest, "headers": {**(options.get("headers") or {}), HEADER: said}}


def check_alias(task: Any, alias: str | None) -> None:
    """Refuse a database that no Celery worker with these settings would find.

    A process that only sends may have no ``pgbg_databases``, and then cannot check.

    Raises:
        TaskDefinitionError: names the alias that was meant.
    """
    if alias is None:
        return
    settings = settings_of(task.app)
    if not settings.databases:
        return
    try:
        settings.dsn_of(alias)
    except ConfigurationError as exc:
        raise TaskDefinitionError(f"{task.name}: {exc}") from exc


def options_of_call(task: Any, said: Any) -> TaskOptions:
    """Find the options that hold for one call.

    Args:
        task: its ``per_call`` says what is allowed.
        said: the call's options; None if it has none.

    Raises:
        TaskDefinitionError: an option is wrong, or not allowed.
    """
    options = TaskOptions.of(type(task))
    if said is None:
        return options
    owner = f"{task.name}: {HEADER}"
    if not isinstance(said, Mapping):
        raise TaskDefinitionError(f"{owner} must be a dict, got {said!r:.100}")
    for name, value in said.items():
        if name not in _PER_CALL:
            raise TaskDefinitionError(f"{owner} has no {name!r}{did_you_mean(str(name), list(_PER_CALL))}")
        if name == "settings" and not isinstance(value, Mapping):
            raise TaskDefinitionError(f"{owner}: settings must be a dict, got {value!r:.100}")
        for wanted in value if name == "settings" else [value]:
            _ensure_allowed(owner, task.per_call, name, wanted)
    changed = dict(said)
    if "settings" in changed:
        changed["settings"] = {**(options.settings or {}), **changed["settings"]}
    options = replace(options, **changed)
    options.check(owner)
    return options


def _ensure_allowed(owner: str, per_call: Mapping[str, Any], name: str, wanted: Any) -> None:
    allowed = per_call.get(name, ())
    if allowed is True or (isinstance(wanted, str) and wanted in allowed):
        return
    choices = ", ".join(sorted(allowed)) or "none"
    raise TaskDefinitionError(f"{owner}: the task's per_call does not allow {name} {wanted!r:.100}; allowed: {choices}")


def _warn_without_app(app: Celery, name: str) -> None:
    """Warn, once, that without an app a shared task goes to the app that Celery makes."""
    if not _has_warned and app.main == "default" and not app.set_as_current and not app.conf.broker_url:
        _has_warned.append(True)
        warnings.warn(_NO_APP.format(name=name), RuntimeWarning, stacklevel=4)
