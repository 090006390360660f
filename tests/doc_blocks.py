"""The Python blocks of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/**/*.md"))]

#: What the first line of a block says that is a file of the Django example, or a part of one.
DJANGO_FILE = re.compile(r"# (shop/\S+\.py)\n")


def python_blocks(page: Path) -> list[str]:
    """The blocks of a page, in order."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
