"""Debian's PostgreSQL with pg_background, in a root of its own: nothing of it is installed in this system."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from celery_pgbg.devserver.apt_sources import debian_mirror
from celery_pgbg.devserver.errors import THREE_WAYS, DevServerError
from celery_pgbg.devserver.progress import Say, ticking

#: The Debian release that packages pg_background; the package, which brings PostgreSQL along; and PL/Python, which many
#: databases have.
SUITE = "forky"
PACKAGE = "postgresql-18-pg-background"
_WITH = "postgresql-plpython3-18"

# What is mounted in namespaces of its own cannot outlive its maker, and all its processes end with the
# first one; that one ends with us, even if we are killed.
_APART = ["setpriv", "--pdeathsig=KILL"]
_APART += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def can_make() -> bool:
    """Check whether this system can: root on Debian."""
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
    for left in root.parent.glob(f"{root.name}.partial-*"):
        remove(left)
    partial = root.with_name(f"{root.name}.partial-{os.getpid()}")
    say("making a private root with Debian's PostgreSQL and pg_background (about 400 MB, once)")
    try:
        _ensure_mmdebstrap(say)
        _bootstrap(partial, mirror, say)
        (partial / "root").rename(root)
    finally:
        remove(partial)


def remove(root: Path) -> None:
    """Delete a root.

    Raises:
        DevServerError: something is mounted in it, which would be deleted too.
    """
    if mounts_below(root):
        raise DevServerError(f"something is mounted below {root}: it is not deleted")
    shutil.rmtree(root, ignore_errors=True)


def mounts_below(folder: Path) -> list[str]:
    """List what is mounted below a folder."""
    prefix = str(folder.resolve()) + "/"
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [place for place in mounted if place.startswith(prefix)]


def _ensure_mmdebstrap(say: Say) -> None:
    if shutil.which("mmdebstrap"):
        return
    say("installing mmdebstrap")
    if _apt_get("install", "--yes", "--no-install-recommends", "mmdebstrap"):
        _apt_get("update")
        if output := _apt_get("install", "--yes", "--no-install-recommends", "mmdebstrap"):
            raise DevServerError(f"mmdebstrap cannot be installed: {output}\n{THREE_WAYS}")


def _apt_get(*arguments: str) -> str:
    """Run apt-get. Returns its complaint, or an empty string."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip() or "it failed" if done.returncode else ""


def _bootstrap(folder: Path, mirror: str, say: Say) -> None:
    """Run mmdebstrap, passing its progress on; when we are interrupted it is ended at once.

    Args:
        folder: is made; gets the ``root`` and all that mmdebstrap and apt put aside meanwhile.
        mirror: where the packages come from.
        say: shows progress.
    """
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    command = [*_apart(), "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={PACKAGE},{_WITH}"]
    # The mirror's release file may be past its date where the mirror is a snapshot.
    command += ['--aptopt=Acquire::Check-Valid-Until "false"', SUITE, str(folder / "root"), mirror]
    lines: list[str] = []
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with (
        ticking(say),
        subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=environment,
        ) as process,
    ):
        assert process.stderr is not None
        try:
            for line in process.stderr:
                lines.append(line.rstrip())
                if line.startswith("I: "):
                    say("  " + line[3:].strip())
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            # Its end comes when the last of its processes is gone.
            process.stderr.read()
            raise
    if process.returncode:
        raise DevServerError("mmdebstrap failed:\n" + "\n".join(lines[-15:]) + "\n" + THREE_WAYS)


def _apart() -> list[str]:
    """The prefix of a command with namespaces of its own, empty where the system has none to give."""
    tried = subprocess.run([*_APART, "true"], capture_output=True, check=False)
    return [] if tried.returncode else _APART
