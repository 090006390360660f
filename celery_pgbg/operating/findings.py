"""What was found when something was checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    level: Literal["ok", "warning", "error"]
    what: str
    said: str

    def as_dict(self) -> dict[str, str]:
        """As JSON wants it."""
        return asdict(self)
