"""Programs beside the Celery worker, and a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fix_celery import PROJECT
from tests.fix_server import missing


@contextmanager
def program(log: Path, *command: str, cwd: Path = PROJECT, **environment: str) -> Iterator[Callable[[], str]]:
    """Run a Python program such as ``-m celery ...`` beside the test; gives a function that reads its output."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            cwd=cwd,
            stdout=file,
            stderr=subprocess.STDOUT,
        )

    def text() -> str:
        written = log.read_text(errors="replace")
        assert process.poll() is None, written
        return written

    try:
        yield text
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this very state."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(PROJECT))
    [built] = folder.glob("*.whl")
    return built


def pip(command: str, *arguments: str) -> None:
    """Run pip of this environment, without an index."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-index", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        missing("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = ("background-networking", "component-update", "sync", "gpu", "quic", "dev-shm-usage")
    for argument in (
        "headless",
        "no-sandbox",
        "no-first-run",
        "window-size=1400,900",
        *(f"disable-{q}" for q in quiet),
    ):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield made
    made.quit()
