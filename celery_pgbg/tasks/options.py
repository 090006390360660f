"""The options of a SQL task beside Celery's own: checked when the task is defined."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.outcomes import Returns
from celery_pgbg.settings import did_you_mean
from celery_pgbg.tasks.rows_as import check_rows_as

_SHAPES = [shape for shape in get_args(Returns) if shape != "command"]

#: The options of a SQL task beside Celery's own.
NAMES = ("atomic", "reuse", "returns", "rows_as", "database", "role", "settings", "per_call", "retry_invalid")

#: Celery's own options that are easily misspelled.
_CELERYS = (
    "acks_late", "autoretry_for", "bind", "default_retry_delay", "ignore_result", "max_retries", "priority", "queue",
    "rate_limit", "reject_on_worker_lost", "retry_backoff", "retry_jitter", "serializer", "soft_time_limit",
    "throws", "time_limit", "track_started",
)  # fmt: skip

#: Similarity, out of 1, from which a name counts as a misspelled option.
_ALIKE = 0.85

#: Parameters that we set ourselves, or that would prevent the outcome from being written or read.
_OURS = {
    "application_name": "it names the task",
    "role": "use the option role=",
    "session_authorization": "use the option role=",
    "transaction_read_only": "the outcome is written in the same transaction",
    "default_transaction_read_only": "the outcome is written in the same transaction",
    "client_min_messages": "only tasks with atomic=False log messages; for the server's log use log_min_messages",
    "client_encoding": "it is always UTF-8",
}


def check_body(body: Any, owner: str) -> None:
    """Check that the call of a body gives what the body returns.

    Raises:
        TaskDefinitionError: the body is a coroutine or a generator.
    """
    function = inspect.unwrap(body.__func__ if isinstance(body, staticmethod) else body) if body else None
    for is_kind, kind in (
        (inspect.iscoroutinefunction, "an async def"),
        (inspect.isasyncgenfunction, "an async generator"),
        (inspect.isgeneratorfunction, "a generator"),
    ):
        if is_kind(function):
            raise TaskDefinitionError(f"{owner}: the body must be a function that returns a statement, got {kind}")


@dataclass(frozen=True)
class TaskOptions:
    """The options as given; ``check`` checks them."""

    atomic: Any
    reuse: Any
    returns: Any
    rows_as: Any
    database: Any
    role: Any
    settings: Any
    per_call: Any
    retry_invalid: Any

    @classmethod
    def of(cls, task: type) -> TaskOptions:
        """Read the options off a task class."""
        return cls(*(getattr(task, name) for name in NAMES))

    def check(self, owner: str) -> None:
        """Check each option, then their combinations.

        Raises:
            TaskDefinitionError: names the owner, the option, and what was expected.
        """
        for name in ("atomic", "reuse", "retry_invalid"):
            if not isinstance(getattr(self, name), bool):
                raise TaskDefinitionError(f"{owner}: {name} must be True or False, got {getattr(self, name)!r}")
        if self.returns is not None and self.returns not in _SHAPES:
            raise TaskDefinitionError(
                f"{owner}: returns must be one of {', '.join(_SHAPES)}, got {self.returns!r}"
                f"{did_you_mean(str(self.returns), _SHAPES)}"
            )
        for name in ("database", "role"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise TaskDefinitionError(f"{owner}: {name} must be a name or None, got {value!r}")
        if self.settings is not None and not isinstance(self.settings, Mapping):
            raise TaskDefinitionError(f"{owner}: settings must be a dict, got {self.settings!r}")
        for name in self.settings or {}:
            if not isinstance(name, str):
                raise TaskDefinitionError(f"{owner}: settings are named by strings, got {name!r}")
            if name.lower() == "client_min_messages" and not self.atomic:
                # They go to the task's log.
                continue
            if name.lower() in _OURS:
                raise TaskDefinitionError(f"{owner}: settings may not have {name!r}: {_OURS[name.lower()]}")
        check_rows_as(owner, self.rows_as, self.returns)
        self._check_per_call(owner)
        if self.retry_invalid and self.atomic:
            raise TaskDefinitionError(
                f"{owner}: retry_invalid is for indexes that are built concurrently, with atomic=False"
            )

    def _check_per_call(self, owner: str) -> None:
        """Check ``per_call``: for ``settings``, ``role`` and ``database`` a list of names, or True for any."""
        if not isinstance(self.per_call, Mapping):
            raise TaskDefinitionError(f"{owner}: per_call must be a dict, got {self.per_call!r}")
        known = ["settings", "role", "database"]
        for name, allowed in self.per_call.items():
            if name not in known:
                raise TaskDefinitionError(f"{owner}: per_call has no {name!r}{did_you_mean(str(name), known)}")
            if allowed is not True and (isinstance(allowed, str) or not isinstance(allowed, Collection)):
                raise TaskDefinitionError(
                    f"{owner}: per_call[{name!r}] must be a list of names or True, got {allowed!r}"
                )

    def normalised_settings(self) -> dict[str, str]:
        """Write the settings as PostgreSQL reads them."""
        return {name: _as_text(value) for name, value in (self.settings or {}).items()}


def check_spelling(task: type, owner: str) -> None:
    """Find unknown attributes of a task's class that look like a misspelled option, or like the options of one call.

    Raises:
        TaskDefinitionError: names the option that was meant.
    """
    if "pgbg" in vars(task):
        raise TaskDefinitionError(f"{owner}: pgbg= is for one call; give the task each option by its name")
    known = [*NAMES, *_CELERYS]
    inherited = {name for base in task.__mro__[1:] for name in vars(base)}
    for name, value in vars(task).items():
        if name in known or name in inherited or name.startswith("_") or callable(value):
            continue
        if near := difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE):
            raise TaskDefinitionError(f"{owner}: unknown option {name!r} (did you mean {near[0]!r}?)")


def _as_text(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
