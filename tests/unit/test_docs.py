"""The documentation keeps up with the code."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from celery_pgbg.settings import Settings
from tests.doc_blocks import DJANGO_FILE, PAGES, PROJECT, python_blocks


def test_the_settings_page_is_the_one_the_code_makes() -> None:
    made = runpy.run_path(str(PROJECT / "docs" / "make_settings.py"))["page"]()
    assert (PROJECT / "docs" / "reference" / "settings.md").read_text() == made, "run `python docs/make_settings.py`"
    assert re.findall(r"## `pgbg_(\w+)`", made) == [field.name for field in dataclasses.fields(Settings)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


#: Runs the blocks of each page in one namespace, as a reader would who pastes them into one module.
_RUN = """
import json, sys
for name, blocks in json.load(sys.stdin):
    namespace = {"__name__": name}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{name}, block {number}", "exec"), namespace)
"""


def test_every_python_block_runs() -> None:
    pages = [(page.stem, [block for block in python_blocks(page) if not DJANGO_FILE.match(block)]) for page in PAGES]
    assert sum(len(blocks) for _, blocks in pages) > 5
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", _RUN],
        input=json.dumps(pages),
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "block",
    [block for page in PAGES for block in python_blocks(page) if DJANGO_FILE.match(block)],
    ids=lambda block: block.partition("\n")[0],
)
def test_a_block_of_the_django_page_is_the_examples_code(block: str) -> None:
    """The example itself is run by ``tests/acceptance/test_django.py``."""
    heading = DJANGO_FILE.match(block)
    assert heading
    compile(block, heading[1], "exec")
    code = _without_indentation((PROJECT / "example_project" / "django_shop" / heading[1]).read_text())
    for part in block[heading.end() :].split("...\n"):
        assert _without_indentation(part) in code


def _without_indentation(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def test_every_test_that_the_documentation_names_exists() -> None:
    defined = {
        name
        for path in (PROJECT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", path.read_text())
    }
    for page in PROJECT.glob("docs/**/*.md"):
        assert set(re.findall(r"`(test_\w+)`", page.read_text())) <= defined, page.name


def test_every_row_of_what_dies_names_its_proof() -> None:
    page = (PROJECT / "docs" / "explanation" / "when-it-dies.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"\| `test_\w+`[^|]* \|$", row)] == []
