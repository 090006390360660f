"""Fixture for ``celery -A proj pgbg ...`` as a process, and what is asked of its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.fix_celery import PROJECT


@pytest.fixture
def pgbg(redis_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of an app whose settings are given as keywords."""

    def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        app = {"broker": f"{redis_url}/9", "backend": f"{redis_url}/10", "queue": "pgbg-test-cli", **settings}
        command = [sys.executable, "-m", "celery", "-A", "tests.apps.shop", "pgbg", *arguments]
        environment = {**os.environ, "PGBG_TEST_APP": json.dumps(app)}
        return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)

    return run


def said(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What the doctor says, by what it looked at."""
    return {finding["what"]: finding["said"] for finding in json.loads(done.stdout)}


def levels(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What the doctor found, by what it looked at."""
    return {finding["what"]: finding["level"] for finding in json.loads(done.stdout)}


def assert_one_message(done: subprocess.CompletedProcess[str], message: str) -> None:
    """It failed, with that message and no traceback."""
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
