"""Pages that a newcomer pastes into a terminal: their commands, and the output that they promise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(bash|text)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """What is pasted, and what then stands in the terminal; ``...`` stands for anything, None for whatever comes."""

    commands: str
    expected: str | None
    optional: bool = False


def steps_of(page: Path) -> list[Step]:
    """Read a page: each block of ``bash`` is pasted; the ``text`` that follows next is its output."""
    steps: list[Step] = []
    for language, title, body in _BLOCK.findall(page.read_text()):
        if language == "bash":
            steps.append(Step(body, None, "optional" in title))
        elif steps and steps[-1].expected is None:
            steps[-1] = Step(steps[-1].commands, body)
    return steps
