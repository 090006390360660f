"""The Python blocks of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/**/*.md"))]

#: The first line of a block that is a file, or a part of one.
FILE = re.compile(r"# ([\w/]+\.py)\n")


def python_blocks(page: Path) -> list[str]:
    """The blocks of a page, in order."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
