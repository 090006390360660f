"""A hook of MkDocs: the order of the pages, by folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FOLDERS = {
    "how-to": "How to",
    "reference": "Reference",
    "explanation": "Explanation",
    "decisions": "Decisions",
}


def on_config(config: Any) -> None:
    """Name all pages, with the titles that they have themselves."""
    docs = Path(config["docs_dir"])
    sections = [{title: _pages(docs, folder)} for folder, title in _FOLDERS.items()]
    config["nav"] = [{"Start": ["index.md", "tutorial.md", "tutorial-shop.md", "comparison.md"]}, *sections]


def _pages(docs: Path, folder: str) -> list[str]:
    return sorted(str(page.relative_to(docs)) for page in (docs / folder).glob("*.md"))
