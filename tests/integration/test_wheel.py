"""What users install: the wheel, complete, and at work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.fix_celery import PROJECT
from tests.fix_tools import pip

PACKAGE = PROJECT / "celery_pgbg"


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == {str(path.relative_to(PROJECT)) for path in files}
    assert {"celery_pgbg/py.typed", "celery_pgbg/database/functions/run_v1.sql"} < inside
    assert "celery_pgbg/testing/docker/postgres.Dockerfile" in inside


def test_the_description_on_pypi_has_readmes_words_and_no_link_that_leads_nowhere(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        description = archive.read(metadata).decode().partition("\n\n")[2]
    without_pictures = re.sub(r"!\[[^\]]*\]\((?!https?://)[^)]+\)\n+", "", (PROJECT / "README.md").read_text())
    assert "![" not in description
    without_links = re.sub(r"\[([^\]]+)\]\((?!https?://)[^)]+\)", r"\1", without_pictures)
    assert description.strip() == without_links.strip()
    assert [target for target in re.findall(r"\]\(([^)]+)\)", description) if "://" not in target] == []


def test_the_installed_wheel_works(wheel: Path, tmp_path: Path, new_database: Callable[[], str]) -> None:
    pip("install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel))
    (tmp_path / "shop.py").write_text(
        "import os\n"
        "from celery import Celery\n"
        "app = Celery('shop', broker='memory://', backend='pgbg+' + os.environ['SHOP_DSN'])\n"
        "app.conf.pgbg_dsn = os.environ['SHOP_DSN']\n"
    )
    # Before the editable installation that runs these tests.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "SHOP_DSN": new_database()}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert str(tmp_path) in run("-c", "import celery_pgbg.operating.cli; print(celery_pgbg.operating.cli.__file__)")
    run("-m", "celery", "-A", "shop", "pgbg", "install")
    assert "SELECT 1" in run("-m", "celery", "-A", "shop", "pgbg", "doctor")
    assert "PostgresBackend" in run("-c", "from shop import app; print(type(app.backend))")
    assert "pgbg_inline" in run("-m", "pytest", "--fixtures", "-p", "no:cacheprovider", "-p", "no:celery")
