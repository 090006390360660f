"""The development server: started, found again, stopped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from celery_pgbg.devserver import private_root
from celery_pgbg.devserver.errors import DevServerError
from celery_pgbg.devserver.installations import Installation, in_root, installed
from celery_pgbg.devserver.private_root import Say, say_on_stderr

_DATABASE = "pgbg"

#: How long a start or stop may take, in seconds.
_DEADLINE = 60.0

#: Everything the server is told; loopback only, no Unix socket, no shared memory file system needed.
_CONFIGURATION = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_worker_processes = {max_worker_processes}
max_connections = 300
dynamic_shared_memory_type = mmap
timezone = 'UTC'
log_line_prefix = '%m [%p] %b %a '
"""


@dataclass(frozen=True)
class Status:
    """What a running server says of itself."""

    dsn: str
    postgresql: str
    pg_background: str
    data: str
    uptime_seconds: float


class DevServer:
    """One server, by name; several can run side by side from one installation.

    Anybody on this machine may connect, without a password: it listens on the loopback only, and is
    not for data of any worth.

    Args:
        name: several servers have several names.
        directory: where roots and data live; ``PGBG_DEVSERVER_DIR``, else ``.devserver`` here.
        say: shows progress.
    """

    def __init__(self, name: str = "default", directory: Path | None = None, say: Say = say_on_stderr) -> None:
        self.name = name
        self.directory = (directory or Path(os.environ.get("PGBG_DEVSERVER_DIR", ".devserver"))).absolute()
        self._root = self.directory / "root"
        self._say = say

    # --- starting ------------------------------------------------------------------------------

    def start(self, max_worker_processes: int = 100, fsync: bool = True) -> str:
        """Start the server unless it runs with these settings already. Safe to interrupt.

        Args:
            max_worker_processes: slots for background workers.
            fsync: False for tests that need speed and no durability.

        Returns:
            The DSN of a superuser in database ``pgbg``, which has the extension.

        Raises:
            DevServerError: no PostgreSQL with pg_background can be had, or it does not start.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._locked():
            installation = self._installation()
            data = self._data(installation)
            if not (data / "PG_VERSION").exists():
                self._initialise(installation, data)
            changed = self._configure(data, max_worker_processes, fsync)
            if changed and self._postmaster(data) is not None:
                self._stop(installation, data, "fast")
            if self._postmaster(data) is None:
                self._launch(installation, data)
            self._prepare_database(data)
            return self._dsn(data)

    def _installation(self) -> Installation:
        found = installed() or in_root(self._root)
        if found is None:
            private_root.make(self._root, self._say)
            found = in_root(self._root)
        if found is None:
            raise DevServerError(f"{self._root} is incomplete: run `python -m celery_pgbg.devserver stop --purge`")
        return found

    def _data(self, installation: Installation) -> Path:
        base = self.directory if installation.root is None else installation.root / "srv"
        return base / "pgbg" / self.name

    def _initialise(self, installation: Installation, data: Path) -> None:
        self._say(f"initialising {self.name}")
        shutil.rmtree(data, ignore_errors=True)
        partial = data.with_name(f"{data.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._give_to_postgres(installation, partial)
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]
        self._run(installation, "initdb", "--pgdata", installation.path_inside(partial), *options)
        with (partial / "postgresql.conf").open("a") as file:
            file.write("include 'pgbg.conf'\n")
        partial.rename(data)

    def _give_to_postgres(self, installation: Installation, folder: Path) -> None:
        if installation.root is not None:
            fields = next(
                line.split(":")
                for line in (installation.root / "etc/passwd").read_text().splitlines()
                if line.startswith("postgres:")
            )
            os.chown(folder, int(fields[2]), int(fields[3]))
        elif os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")

    def _configure(self, data: Path, max_worker_processes: int, fsync: bool) -> bool:
        """Write the configuration; tells whether it differs from the one before."""
        path = data / "pgbg.conf"
        before = path.read_text() if path.exists() else ""
        port = next((line.split()[2] for line in before.splitlines() if line.startswith("port = ")), None)
        text = _CONFIGURATION.format(port=port or free_port(), max_worker_processes=max_worker_processes)
        if not fsync:
            text += "fsync = off\nfull_page_writes = off\n"
        path.write_text(text)
        return text != before

    def _launch(self, installation: Installation, data: Path) -> None:
        """Start the postmaster; another process may have taken its port meanwhile, then on a new one."""
        log = data.with_name(f"{data.name}.log")
        log.touch()
        self._give_to_postgres(installation, log)
        deadline = time.monotonic() + _DEADLINE
        while True:
            arguments = ["start", "--wait", "--pgdata", installation.path_inside(data)]
            arguments += ["--log", installation.path_inside(log)]
            done = installation.run("pg_ctl", *arguments, check=False)
            if done.returncode == 0:
                return
            tail = log.read_text(errors="replace")[-2000:]
            # Processes of a crashed predecessor hold its shared memory for a moment.
            dying = any(sign in tail + done.stderr for sign in ("still in use", "already exists"))
            if time.monotonic() > deadline or not dying:
                raise DevServerError(f"PostgreSQL does not start: {done.stderr.strip()}\n{tail}")
            time.sleep(0.2)

    def _prepare_database(self, data: Path) -> None:
        with psycopg.connect(self._dsn(data, "postgres"), autocommit=True) as session:
            if session.execute("SELECT FROM pg_database WHERE datname = %s", [_DATABASE]).fetchone() is None:
                session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_DATABASE)))
        with psycopg.connect(self._dsn(data), autocommit=True) as session:
            session.execute("SET client_min_messages = warning")
            session.execute("CREATE EXTENSION IF NOT EXISTS pg_background")

    # --- asking ----------------------------------------------------------------------------------

    @property
    def dsn(self) -> str | None:
        """DSN of the running server, or None."""
        data = self._existing_data()
        return self._dsn(data) if data and self._postmaster(data) else None

    def status(self) -> Status | None:
        """Ask the running server, or None."""
        data, dsn = self._existing_data(), self.dsn
        if data is None or dsn is None:
            return None
        with psycopg.connect(dsn) as session:
            row = session.execute(
                "SELECT current_setting('server_version'), extversion,"
                " extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
                " FROM pg_extension WHERE extname = 'pg_background'"
            ).fetchone()
        assert row is not None
        return Status(dsn, row[0], row[1], str(data), row[2])

    def _existing_data(self) -> Path | None:
        candidates = (self._root / "srv" / "pgbg" / self.name, self.directory / "pgbg" / self.name)
        return next((data for data in candidates if (data / "PG_VERSION").exists()), None)

    def _postmaster(self, data: Path) -> int | None:
        """PID of the live postmaster of this data folder, or None; a stale file counts as none."""
        path = data / "postmaster.pid"
        try:
            pid = int(path.read_text().split("\n")[0])
            return pid if b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
        except (OSError, ValueError):
            return None

    def _dsn(self, data: Path, database: str = _DATABASE) -> str:
        lines = (data / "pgbg.conf").read_text().splitlines()
        port = next(line.split()[2] for line in lines if line.startswith("port = "))
        return f"postgresql://postgres@127.0.0.1:{port}/{database}"

    # --- ending ----------------------------------------------------------------------------------

    def stop(self, purge: bool = False) -> bool:
        """Stop the server.

        Args:
            purge: also delete its data, and the private root once no other server lives in it.

        Returns:
            Whether it ran.
        """
        if not self.directory.exists():
            return False
        with self._locked():
            data = self._existing_data()
            ran = data is not None and self._postmaster(data) is not None
            if data is not None and ran:
                self._stop(self._installation(), data, "fast")
            if purge:
                self._purge(data)
        return ran

    def restart(self, mode: str = "fast") -> None:
        """Restart it: ``fast`` ends all sessions in order, ``immediate`` is a crash with recovery."""
        with self._locked():
            installation = self._installation()
            data = self._data(installation)
            self._stop(installation, data, mode)
            self._launch(installation, data)

    def crash(self) -> None:
        """Kill the postmaster with SIGKILL; its other processes then end by themselves."""
        data = self._existing_data()
        pid = self._postmaster(data) if data else None
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            while data is not None and self._postmaster(data) is not None:
                time.sleep(0.01)

    def _stop(self, installation: Installation, data: Path, mode: str) -> None:
        self._run(installation, "pg_ctl", "stop", "--wait", "--mode", mode, "--pgdata", installation.path_inside(data))

    def _purge(self, data: Path | None) -> None:
        if data is not None:
            shutil.rmtree(data, ignore_errors=True)
            data.with_name(f"{data.name}.log").unlink(missing_ok=True)
        others = self._root / "srv" / "pgbg"
        if self._root.exists() and not any(path.is_dir() for path in others.glob("*")):
            private_root.remove(self._root)

    def _run(self, installation: Installation, program: str, *arguments: str) -> None:
        try:
            installation.run(program, *arguments)
        except subprocess.CalledProcessError as exc:
            raise DevServerError(f"{program} failed: {exc.stderr.strip() or exc.stdout.strip()}") from exc

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time in this directory; the lock ends with the process."""
        with (self.directory / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say("waiting for another command on the development server")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def free_port() -> int:
    """Find a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
