"""The documentation keeps up with the code."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path

import pytest

from celery_pgbg.settings import Settings

PROJECT = Path(__file__).parent.parent.parent


def test_the_settings_page_is_the_one_the_code_makes() -> None:
    made = runpy.run_path(str(PROJECT / "docs" / "make_settings.py"))["page"]()
    assert (PROJECT / "docs" / "reference" / "settings.md").read_text() == made, "run `python docs/make_settings.py`"
    assert re.findall(r"## `pgbg_(\w+)`", made) == [field.name for field in dataclasses.fields(Settings)]


@pytest.mark.parametrize(
    "page", [*sorted(PROJECT.glob("docs/**/*.md")), PROJECT / "README.md"], ids=lambda path: path.name
)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "page", [*sorted(PROJECT.glob("docs/**/*.md")), PROJECT / "README.md"], ids=lambda path: path.name
)
def test_every_python_block_compiles(page: Path) -> None:
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
        compile(block, f"{page.name} block {number}", "exec")
