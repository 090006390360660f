"""``@sql_task`` as mypy and pyright see it, with and without the types of ``celery-types``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fix_celery import PROJECT

SAMPLE = Path(__file__).parent / "tasks.py"
WRONG = [number for number, line in enumerate(SAMPLE.read_text().splitlines(), 1) if line.endswith("# error")]
PACKAGES = Path(sysconfig.get_path("purelib"))


def run(*command: str, cwd: Path) -> str:
    return subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False).stdout


def mypy(folder: Path) -> list[int]:
    """The lines of the sample in which mypy finds an error."""
    output = run("mypy", "--strict", "--no-incremental", "--config-file", "mypy.ini", "sample.py", cwd=folder)
    assert "(checked 1 source file)" in output, output
    return sorted({int(number) for number in re.findall(r"^sample\.py:(\d+): error", output, re.MULTILINE)})


def pyright(folder: Path) -> list[int]:
    """The lines of the sample in which pyright finds an error."""
    found = json.loads(run("pyright", "--outputjson", "--project", ".", "sample.py", cwd=folder))
    errors = [each for each in found["generalDiagnostics"] if each["severity"] == "error"]
    return sorted({each["range"]["start"]["line"] + 1 for each in errors})


@pytest.fixture(params=["with celery-types", "without"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A user's project, in which our package is installed and Celery has types, or not."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "celery_pgbg").symlink_to(PROJECT / "celery_pgbg")
    for name in ("celery", "kombu", "billiard", "vine"):
        stubs = PACKAGES / f"{name}-stubs"
        if request.param == "with celery-types":
            assert stubs.exists(), "celery-types is among the dependencies of development"
            (packages / name).symlink_to(stubs)
    shutil.copy(SAMPLE, tmp_path / "sample.py")
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nno_site_packages = true\nmypy_path = {packages}\nignore_missing_imports = true\n"
        "[mypy-celery_pgbg.*]\nignore_errors = true\n"
    )
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"extraPaths": [str(packages)], "reportMissingImports": False, "reportMissingModuleSource": False})
    )
    return tmp_path


@pytest.mark.parametrize("check", [mypy, pyright])
def test_results_are_typed_by_returns_and_arguments_by_the_body(
    project: Path, check: Callable[[Path], list[int]]
) -> None:
    assert check(project) == WRONG
