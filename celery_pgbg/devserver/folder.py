"""The folder that holds the private root and all data, and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from celery_pgbg.devserver.errors import DevServerError
from celery_pgbg.devserver.progress import Say, say_on_stderr


def folder_of(directory: Path | None) -> Path:
    """Say where it is: as given, else ``PGBG_DEVSERVER_DIR``, else ``.devserver`` here."""
    return (directory or Path(os.environ.get("PGBG_DEVSERVER_DIR") or ".devserver")).resolve()


def checked_name(name: str) -> str:
    """Refuse a server's name that cannot be the name of a folder.

    Raises:
        DevServerError: it holds more than letters, digits, ``-`` and ``_``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise DevServerError(f"a server's name is made of letters, digits, '-' and '_', not {name!r}")
    return name


@contextlib.contextmanager
def locked(folder: Path, say: Say = say_on_stderr) -> Iterator[None]:
    """Let one command at a time change the folder; the lock ends with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command on the development server")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
