"""Finding PostgreSQL's programs, with pg_background beside them."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from celery_pgbg.devserver.errors import DevServerError

_CONTROL = "extension/pg_background.control"
_UNREACHABLE = "PostgreSQL's user must be able to enter the folder: set PGBG_DEVSERVER_DIR to a folder where that holds"


@dataclass(frozen=True)
class Installation:
    """Where PostgreSQL's programs are.

    Attributes:
        programs: the folder of ``initdb`` and ``pg_ctl``, as seen inside ``root``.
        root: the private root they run in, or None for this system's own.
    """

    programs: str
    root: Path | None = None

    def path_inside(self, path: Path) -> str:
        """Name a path as the programs see it."""
        return str(path) if self.root is None else "/" + str(path.relative_to(self.root))

    def give(self, path: Path) -> None:
        """Make a file or folder that of the user who runs the programs."""
        if self.root is not None:
            lines = (self.root / "etc/passwd").read_text().splitlines()
            fields = next(line.split(":") for line in lines if line.startswith("postgres:"))
            os.chown(path, int(fields[2]), int(fields[3]))
        elif os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")

    def make_locale(self, name: str) -> None:
        """Make a locale such as ``de_DE.UTF-8`` for the programs to speak, unless it is there.

        Raises:
            DevServerError: no such locale, or this user may not make it.
        """
        into = [] if self.root is None else ["chroot", str(self.root)]
        known = subprocess.run([*into, "locale", "-a"], check=False, capture_output=True, text=True, cwd="/").stdout
        language, _, encoding = name.partition(".")
        if f"{language}.{encoding.lower().replace('-', '')}" in known.split():
            return
        command = [*into, "localedef", "-i", language, "-f", encoding or "UTF-8", name]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")
        if done.returncode:
            raise DevServerError(f"the locale {name!r} cannot be made: {done.stderr.strip()}")

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL, as a user that may: it refuses to be root.

        Raises:
            DevServerError: it failed; the message is the program's own.
        """
        command = [f"{self.programs}/{program}", *arguments]
        if self.root is not None:
            command = [_chroot(), "--userspec=postgres:postgres", str(self.root), *command]
        elif os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        # Output goes to a pipe that the server must not inherit, or reading it would never end.
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd="/")
        if done.returncode:
            output = done.stderr.strip() or done.stdout.strip()
            hint = f"\n{_UNREACHABLE}" if "Permission denied" in output else ""
            raise DevServerError(f"{program} failed: {output}{hint}")


def _chroot() -> str:
    """Find chroot, which is where only root looks; after `su` the PATH is still another user's."""
    return shutil.which("chroot") or shutil.which("chroot", path="/usr/sbin:/sbin") or "chroot"


def installed() -> Installation | None:
    """Look for an installed PostgreSQL that has the extension; the newest wins."""
    candidates = [Path(path) for path in glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin")]
    candidates += [Path(path) for path in os.environ.get("PATH", "").split(os.pathsep) if path]
    # PATH may name folders that this user may not even look into.
    found = [folder for folder in candidates if shutil.which("initdb", path=folder) and _has_extension(folder)]
    return Installation(str(max(found, key=_version))) if found else None


def in_root(root: Path) -> Installation | None:
    """Look inside a private root."""
    found = sorted(root.glob("usr/lib/postgresql/*/bin/initdb"))
    if not found or not list(root.glob(f"usr/share/postgresql/*/{_CONTROL}")):
        return None
    return Installation("/" + str(found[-1].parent.relative_to(root)), root)


def _has_extension(programs: Path) -> bool:
    try:
        share = subprocess.run(
            [str(programs / "pg_config"), "--sharedir"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        # Debian has pg_config in a package of its own; the folders' names agree.
        share = str(programs.parent).replace("/usr/lib/", "/usr/share/")
    return (Path(share) / _CONTROL).exists()


def _version(programs: Path) -> int:
    digits = "".join(c for c in programs.parent.name if c.isdigit())
    return int(digits or 0)
