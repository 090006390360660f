"""The documentation keeps up with the code."""

from __future__ import annotations

import configparser
import dataclasses
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from celery_pgbg.operating.cli import pgbg
from celery_pgbg.settings import Settings
from tests.doc_blocks import FILE, PAGES, PROJECT, blocks_of, python_blocks


def test_the_settings_page_is_the_one_the_code_makes() -> None:
    made = runpy.run_path(str(PROJECT / "docs" / "make_settings.py"))["page"]()
    assert (PROJECT / "docs" / "reference" / "settings.md").read_text() == made, "run `python docs/make_settings.py`"
    assert re.findall(r"## `pgbg_(\w+)`", made) == [field.name for field in dataclasses.fields(Settings)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_map_of_folders_is_the_tree() -> None:
    text = (PROJECT / "CONTRIBUTING.md").read_text()
    table = text[text.index("| folder |") : text.index("## How to add")]
    drawn = {
        folder
        for cells in re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)
        for folder in re.findall(r"`(.+?)/`", cells)
    }
    files = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()
    tree = {str(folder) for file in files for folder in Path(file).parents if folder.parts and file[0] != "."}
    outer = ("celery_pgbg", "tests", "docs", "benchmarks", "example_project")
    assert {folder.partition("/")[0] for folder in tree} == set(outer)
    deep = {folder for folder in tree if re.match("example_project/|tests/.*/", folder)}
    assert drawn == tree - deep - {"tests"}, "CONTRIBUTING.md needs a line for each folder"


def test_what_the_contributors_page_names_is_there() -> None:
    text = (PROJECT / "CONTRIBUTING.md").read_text()
    places = (PROJECT, PROJECT / "celery_pgbg")
    for name in re.findall(r"`((?:\w+/)+[\w.]+\.(?:py|sql))`", text):
        assert any((place / name).exists() for place in places), name
    for name in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{name}:", (PROJECT / "Makefile").read_text(), re.MULTILINE), name


def test_each_line_of_the_threat_model_has_a_test() -> None:
    text = (PROJECT / "docs" / "explanation" / "security.md").read_text()
    lines = [line for line in text[: text.index("\n## ")].splitlines() if line.startswith("| ")][1:]
    assert len(lines) > 8
    named = [re.findall(r"`([\w/]+\.py)`", line.rstrip(" |").rpartition("|")[2]) for line in lines]
    assert all(named), "a line without a test"
    tests = PROJECT / "tests"
    there = {str(path.relative_to(tests / "security")) for path in (tests / "security").glob("test_*.py")}
    there |= {str(path.relative_to(tests)) for path in tests.glob("*/test_*.py")}
    assert {name for names in named for name in names} <= there


def test_each_change_fragment_has_a_kind() -> None:
    kinds = "added|changed|deprecated|removed|fixed|security"
    for fragment in (PROJECT / "docs" / "changes").iterdir():
        assert fragment.name == "README.md" or re.fullmatch(rf"\+[\w-]+\.({kinds})\.md", fragment.name), fragment.name


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


def test_every_command_of_ours_on_the_pages_has_these_options() -> None:
    """In blocks and in the text; a word in capitals or ``$(...)`` stands for a value."""
    found = {
        words.strip()
        for page in PAGES
        for words in re.findall(
            r"(?:celery -A \S+ |`(?:celery )?)pgbg (?!results <)((?:[^`#|>\n(]|\$\(.*?\))+)", page.read_text()
        )
    }
    assert len(found) > 30
    wrong = [f"{words}: {problem}" for words in sorted(found) if (problem := _problem_of(words))]
    assert not wrong, "\n".join(wrong)


def _problem_of(words: str) -> str | None:
    """What click says of the arguments of ``celery pgbg``; nothing runs."""
    arguments = shlex.split(re.sub(r"\$\(.*?\)", "ID", words.strip()).rstrip(".,;:"))
    if arguments in (["COMMAND"], []):
        return None
    context = click.Context(pgbg, info_name="pgbg")
    try:
        name, command, rest = pgbg.resolve_command(context, arguments)
        assert command is not None
        command.make_context(name, rest, parent=context)
    except (click.MissingParameter, click.BadOptionUsage):
        # The text names a command or an option without its value.
        return None
    except click.ClickException as exc:
        return exc.format_message()
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_configuration_files_on_pages_parse(page: Path) -> None:
    for block in blocks_of(page, "yaml"):
        assert list(yaml.safe_load_all(block))
    for block in blocks_of(page, "ini"):
        read = configparser.ConfigParser(strict=False, interpolation=None)
        read.read_string(block)
        assert read.sections()


def test_blocks_that_are_files_are_on_pages_that_have_a_test_of_their_own() -> None:
    """Those are ``test_django.py``, ``test_pytest_plugin.py`` and ``test_declared_tasks.py``."""
    pages = {page.name for page in PAGES if any(FILE.match(block) for block in python_blocks(page))}
    assert pages == {"django.md", "test-your-tasks.md", "sql-files.md"}


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
