"""The blocks of code in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(PROJECT.glob("docs/**/*.md")),
]

#: The first line of a block that is a file, or a part of one.
FILE = re.compile(r"# ([\w/]+\.py)\n")


def python_blocks(page: Path) -> list[str]:
    """The Python blocks of a page, in order."""
    return blocks_of(page, "python")


def blocks_of(page: Path, language: str) -> list[str]:
    """The blocks of a page in a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
