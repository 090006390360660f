"""Processes known by what they are, not by a PID in a file, which may be another process by now."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from celery_pgbg.devserver.errors import DevServerError

_PROC = Path("/proc")


def is_postgres_in(pid: int, folder: Path) -> bool:
    """Check whether a live process is one of PostgreSQL's, which all work in their data folder."""
    process = _PROC / str(pid)
    try:
        return (process / "cwd").readlink() == folder and (process / "exe").readlink().name.startswith("postgres")
    except OSError:
        return False


def command_line(pid: int) -> str:
    """The command line of a live process, else an empty string."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill_postgres_in(folder: Path, within_seconds: float = 20.0) -> None:
    """End PostgreSQL's processes in a data folder with SIGKILL, and wait until they are gone.

    Raises:
        DevServerError: some do not go.
    """
    deadline = time.monotonic() + within_seconds
    while left := _postgres_in(folder):
        if time.monotonic() > deadline:
            raise DevServerError(f"processes {left} use {folder} and do not end")
        for pid in left:
            send(pid, signal.SIGKILL)
        time.sleep(0.02)


def _postgres_in(folder: Path) -> list[int]:
    pids = [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]
    return [pid for pid in pids if is_postgres_in(pid, folder)]


def send(pid: int, signum: signal.Signals) -> None:
    """Send a signal, unless the process is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
