"""The options of a SQL task beside Celery's own: checked when the task is defined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.outcomes import Returns
from celery_pgbg.settings import did_you_mean

_SHAPES = [shape for shape in get_args(Returns) if shape != "command"]

#: Parameters that we set ourselves, or that would break the writing or reading of the outcome.
_OURS = {
    "application_name": "it names the task",
    "role": "use the option role=",
    "session_authorization": "use the option role=",
    "datestyle": "results are read in ISO style",
    "intervalstyle": "results are read in the style 'postgres'",
    "transaction_read_only": "the outcome is written in the same transaction",
    "default_transaction_read_only": "the outcome is written in the same transaction",
    "client_min_messages": "nobody reads messages; those in the server's log have log_min_messages",
    "client_encoding": "it is always UTF-8",
}


@dataclass(frozen=True)
class TaskOptions:
    """The options as they were given, unchecked until ``check``."""

    atomic: Any
    reuse: Any
    returns: Any
    database: Any
    role: Any
    settings: Any

    @classmethod
    def of(cls, task: type) -> TaskOptions:
        """Read the options off a task class."""
        return cls(*(getattr(task, name) for name in ("atomic", "reuse", "returns", "database", "role", "settings")))

    def check(self, owner: str) -> None:
        """Check each alone, then together.

        Raises:
            TaskDefinitionError: names the owner, the option, and what was expected.
        """
        for name in ("atomic", "reuse"):
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
            if name.lower() in _OURS:
                raise TaskDefinitionError(f"{owner}: settings may not have {name!r}: {_OURS[name.lower()]}")
        if self.returns is not None and not self.atomic:
            raise TaskDefinitionError(f"{owner}: an atomic=False task returns its command tag, it takes no returns=")

    def normalised_settings(self) -> dict[str, str]:
        """Write the settings as PostgreSQL reads them."""
        return {name: _as_text(value) for name, value in (self.settings or {}).items()}


def _as_text(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
