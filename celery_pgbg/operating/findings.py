"""Findings: the results of checks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    level: Literal["ok", "warning", "error"]
    what: str
    said: str

    def as_dict(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return asdict(self)
