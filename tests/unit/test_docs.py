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
from tests.doc_blocks import FILE, PAGES, PROJECT, python_blocks


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
    """What the blocks import may warn; those that are files are run by tests of their own, see below."""
    pages = [(page.stem, [block for block in python_blocks(page) if not FILE.match(block)]) for page in PAGES]
    assert sum(len(blocks) for _, blocks in pages) > 5
    ended = subprocess.run(
        [sys.executable, "-c", _RUN], input=json.dumps(pages), capture_output=True, text=True, cwd=PROJECT
    )
    assert ended.returncode == 0, ended.stderr


def test_blocks_that_are_files_are_on_pages_that_have_a_test_of_their_own() -> None:
    """Those are ``test_django.py`` and ``test_pytest_plugin.py`` in ``tests/acceptance``."""
    pages = {page.name for page in PAGES if any(FILE.match(block) for block in python_blocks(page))}
    assert pages == {"django.md", "test-your-tasks.md"}


@pytest.mark.parametrize(
    "block", python_blocks(PROJECT / "docs" / "how-to" / "django.md"), ids=lambda block: block.partition("\n")[0]
)
def test_a_block_of_the_django_page_is_the_examples_code(block: str) -> None:
    heading = FILE.match(block)
    assert heading
    compile(block, heading[1], "exec")
    code = _without_indentation((PROJECT / "example_project" / "django_shop" / heading[1]).read_text())
    for part in block[heading.end() :].split("...\n"):
        assert _without_indentation(part) in code


def _without_indentation(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())
