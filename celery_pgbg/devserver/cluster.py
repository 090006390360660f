"""One data folder of PostgreSQL: made, configured, its postmaster started and ended."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from celery_pgbg.devserver.errors import DevServerError
from celery_pgbg.devserver.installations import Installation
from celery_pgbg.devserver.ports import LOOPBACK, free_port
from celery_pgbg.devserver.processes import is_postgres_in, kill_postgres_in

#: How often a start is tried where another process takes the port each time.
_TRIES = 5

#: Loopback only, no Unix socket, no shared memory file system needed, /proc neither.
_ALWAYS = {
    "listen_addresses": f"'{LOOPBACK}'",
    "unix_socket_directories": "''",
    "max_connections": "300",
    "dynamic_shared_memory_type": "mmap",
    # Each background worker is a new process, which loads what is not loaded already.
    "shared_preload_libraries": "'plpgsql'",
    "timezone": "'UTC'",
    "log_line_prefix": "'%m [%p] %b %a '",
}
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
_OUR_FILE = "pgbg.conf"


class Cluster:
    """What PostgreSQL calls a database cluster.

    Args:
        data: its folder.
    """

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()
        self.log = self.data.with_name(f"{data.name}.log")

    @property
    def exists(self) -> bool:
        """Whether it was initialised."""
        return (self.data / "PG_VERSION").exists()

    @property
    def postmaster(self) -> int | None:
        """PID of its live postmaster, or None; a stale file counts as none."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n")[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if is_postgres_in(pid, self.data) else None

    def dsn(self, database: str) -> str:
        """DSN of its superuser, who needs no password."""
        return f"postgresql://postgres@{LOOPBACK}:{self._settings()['port']}/{database}"

    def initialise(self, installation: Installation) -> None:
        """Run initdb; the folder appears under its name only when complete."""
        partial = self.data.with_name(f"{self.data.name}.partial")
        for left in (self.data, partial):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            installation.give(partial)
            options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]
            installation.run("initdb", "--pgdata", installation.path_inside(partial), *options)
            with (partial / "postgresql.conf").open("a") as file:
                file.write(f"include '{_OUR_FILE}'\n")
            partial.rename(self.data)
        except BaseException:
            kill_postgres_in(partial)
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def configure(
        self, max_worker_processes: int | None = None, fsync: bool | None = None, lc_messages: str | None = None
    ) -> bool:
        """Write the configuration, keeping what is not given.

        Returns:
            Whether it differs from the one before.
        """
        before = self._settings()
        workers = max_worker_processes or before.get("max_worker_processes", "100")
        settings = {**_ALWAYS, "port": before.get("port") or str(free_port()), "max_worker_processes": str(workers)}
        if fsync is False or (fsync is None and "fsync" in before):
            settings |= _NOT_DURABLE
        language = f"'{lc_messages}'" if lc_messages else before.get("lc_messages")
        if language:
            settings["lc_messages"] = language
        if settings != before:
            self._write(settings)
        return settings != before

    def launch(self, installation: Installation) -> None:
        """Start the postmaster and wait until it accepts connections.

        What a crash left running is ended first, or it would hold the shared memory. If another process
        took the port meanwhile, a new one is chosen; one that a predecessor held is free again in a moment.
        An interrupted start is taken back.

        Raises:
            DevServerError: it does not start; the message holds the end of its log.
        """
        kill_postgres_in(self.data)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for tries_left in reversed(range(_TRIES)):
            try:
                self._try_launch(installation)
                return
            except DevServerError as exc:
                if "could not bind" not in str(exc) or not tries_left:
                    raise
                settings = self._settings()
                self._write({**settings, "port": str(free_port(int(settings["port"])))})
            except BaseException:
                kill_postgres_in(self.data)
                raise

    def _try_launch(self, installation: Installation) -> None:
        self.log.touch()
        installation.give(self.log)
        begin = self.log.stat().st_size
        places = ["--pgdata", installation.path_inside(self.data), "--log", installation.path_inside(self.log)]
        try:
            installation.run("pg_ctl", "start", "--wait", *places)
        except DevServerError as exc:
            output = self.log.read_bytes()[begin:][-2000:].decode(errors="replace")
            raise DevServerError(f"PostgreSQL does not start\n{exc}\n{output}") from exc

    def stop(self, installation: Installation, mode: str) -> None:
        """Stop the postmaster if it lives: ``fast`` in order, ``immediate`` like a crash."""
        if self.postmaster is not None:
            place = installation.path_inside(self.data)
            installation.run("pg_ctl", "stop", "--wait", "--mode", mode, "--pgdata", place)

    def await_end(self, within_seconds: float = 20.0) -> None:
        """Wait until no postmaster lives.

        Raises:
            DevServerError: one still does.
        """
        deadline = time.monotonic() + within_seconds
        while self.postmaster is not None:
            if time.monotonic() > deadline:
                raise DevServerError(f"the postmaster of {self.data} does not end")
            time.sleep(0.01)

    def remove(self) -> None:
        """Delete the data and the log."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def _settings(self) -> dict[str, str]:
        path = self.data / _OUR_FILE
        lines = path.read_text().splitlines() if path.exists() else []
        return {key: value for key, _, value in (line.partition(" = ") for line in lines)}

    def _write(self, settings: dict[str, str]) -> None:
        partial = self.data / f"{_OUR_FILE}.partial"
        partial.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
        partial.rename(self.data / _OUR_FILE)
