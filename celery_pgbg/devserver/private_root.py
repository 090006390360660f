"""Debian's PostgreSQL with pg_background, in a root of its own: nothing is installed in this system."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from celery_pgbg.devserver.errors import THREE_WAYS, DevServerError

#: The Debian release that packages pg_background, and the package, which brings PostgreSQL along.
SUITE = "forky"
PACKAGE = "postgresql-18-pg-background"

Say = Callable[[str], None]


def can_make() -> bool:
    """Tell whether this system can: root on Debian."""
    release = Path("/etc/os-release")
    return os.geteuid() == 0 and release.exists() and "ID=debian" in release.read_text().split()


def make(root: Path, say: Say) -> None:
    """Make the root. It appears under its name only when complete; an interrupted one is removed.

    Raises:
        DevServerError: not possible on this system, or the packages cannot be had.
    """
    if not can_make():
        raise DevServerError(THREE_WAYS)
    mirror = debian_mirror()
    _remove_partial(root)
    partial = root.with_name(f"{root.name}.partial-{os.getpid()}")
    say("making a private root with Debian's PostgreSQL and pg_background (about 400 MB, once)")
    try:
        _ensure_mmdebstrap(say)
        # The mirror's release file may be past its date where the mirror is a snapshot.
        command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGE}"]
        command += ['--aptopt=Acquire::Check-Valid-Until "false"', SUITE, str(partial), mirror]
        _run_loudly(command, say)
        partial.rename(root)
    except BaseException:
        remove(partial)
        raise


def remove(root: Path) -> None:
    """Delete a root, after taking away what is mounted in it."""
    for place in reversed(mounts_below(root)):
        subprocess.run(["umount", "--lazy", place], check=True)
    if mounts_below(root):
        raise DevServerError(f"something is still mounted below {root}: it is not deleted")
    shutil.rmtree(root, ignore_errors=True)


def mounts_below(folder: Path) -> list[str]:
    """List what is mounted below a folder."""
    prefix = str(folder.resolve()) + "/"
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [place for place in mounted if place.startswith(prefix)]


def debian_mirror(folder: Path = Path("/etc/apt")) -> str:
    """Find the mirror of Debian's main archive in the machine's own apt configuration.

    Raises:
        DevServerError: there is none.
    """
    for path in sorted([folder / "sources.list", *folder.glob("sources.list.d/*")]):
        if path.suffix in (".list", ".sources") and path.exists():
            for uri in _uris(path):
                if re.search(r"/debian/?$", uri):
                    return uri
    raise DevServerError("no mirror of Debian found in apt's configuration\n" + THREE_WAYS)


def _uris(path: Path) -> Iterable[str]:
    """The addresses in one file of apt sources, of either format."""
    for line in path.read_text().splitlines():
        if path.suffix == ".sources" and line.lower().startswith("uris:"):
            yield from line.split()[1:]
        elif path.suffix == ".list" and line.startswith("deb "):
            yield from (word for word in line.split()[1:] if "://" in word)


def _ensure_mmdebstrap(say: Say) -> None:
    if shutil.which("mmdebstrap"):
        return
    say("installing mmdebstrap")
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "mmdebstrap"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(install, env=environment, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "update"], env=environment, capture_output=True, check=False)
        done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DevServerError(f"mmdebstrap cannot be installed: {done.stderr.strip()}\n{THREE_WAYS}")


def _remove_partial(root: Path) -> None:
    for partial in root.parent.glob(f"{root.name}.partial-*"):
        remove(partial)


def _run_loudly(command: list[str], say: Say) -> None:
    """Run a long command, passing its progress on; an interrupt is passed to it and waited for."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    stop = threading.Event()
    threading.Thread(target=_tick, args=(say, stop), daemon=True).start()
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line.rstrip())
            if line.startswith("I: "):
                say("  " + line[3:].strip())
        if process.wait():
            raise DevServerError("mmdebstrap failed:\n" + "\n".join(lines[-15:]) + "\n" + THREE_WAYS)
    finally:
        stop.set()
        if process.poll() is None:
            # It takes its own mounts away.
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _tick(say: Say, stop: threading.Event) -> None:
    begin = time.monotonic()
    while not stop.wait(5):
        say(f"  ... {time.monotonic() - begin:.0f} s")


def say_on_stderr(message: str) -> None:
    """The usual way to show progress: standard output is for the DSN alone."""
    print(message, file=sys.stderr, flush=True)
