"""The development server: started, found again, asked, crashed, stopped."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from celery_pgbg.devserver import private_root
from celery_pgbg.devserver.cluster import Cluster
from celery_pgbg.devserver.errors import DevServerError
from celery_pgbg.devserver.folder import checked_name, folder_of, locked
from celery_pgbg.devserver.installations import Installation, in_root, installed
from celery_pgbg.devserver.processes import send
from celery_pgbg.devserver.progress import Say, say_on_stderr

_DATABASE = "pgbg"


@dataclass(frozen=True)
class Status:
    """The properties of a running server."""

    dsn: str
    postgresql: str
    pg_background: str
    data: str
    uptime_seconds: float


class DevServer:
    """One server, by name; several can run side by side from one installation.

    It listens on the loopback only, and every user of this machine may connect without a password: it is not for
    valuable data.

    Args:
        name: several servers have several names.
        directory: where roots and data live; ``PGBG_DEVSERVER_DIR``, else ``.devserver`` here.
        say: shows progress.
    """

    def __init__(self, name: str = "default", directory: Path | None = None, say: Say = say_on_stderr) -> None:
        self.name = checked_name(name)
        self.directory = folder_of(directory)
        self._root = self.directory / "root"
        self._say = say

    def start(
        self, max_worker_processes: int | None = None, fsync: bool | None = None, lc_messages: str | None = None
    ) -> str:
        """Start the server unless it runs. Safe to interrupt, and for several callers at once.

        A server that runs with other settings than those given is restarted, which ends its sessions.

        Args:
            max_worker_processes: slots for background workers; unset: as it has them, at first 100.
            fsync: False for tests that need speed and no durability; unset: as it is, at first True.
            lc_messages: the locale of its messages, such as ``de_DE.UTF-8``; unset: as it is, at first English.

        Returns:
            The DSN of a superuser in database ``pgbg``, which has the extension.

        Raises:
            DevServerError: no PostgreSQL with pg_background can be had, or it does not start.
        """
        with locked(self.directory, self._say):
            installation = self._installation()
            cluster = self._cluster(installation)
            if not cluster.exists:
                self._say(f"initialising the server {self.name!r}")
                cluster.initialise(installation)
            if lc_messages is not None:
                installation.make_locale(lc_messages)
            if cluster.configure(max_worker_processes, fsync, lc_messages) and cluster.postmaster is not None:
                self._say(f"restarting the server {self.name!r} with other settings")
                cluster.stop(installation, "fast")
            if cluster.postmaster is None:
                cluster.launch(installation)
            _prepare(cluster)
            return cluster.dsn(_DATABASE)

    @property
    def dsn(self) -> str | None:
        """DSN of the running server, or None."""
        cluster = self._existing()
        return cluster.dsn(_DATABASE) if cluster and cluster.postmaster else None

    def is_named_by(self, dsn: str) -> bool:
        """Whether a DSN leads to this server, running or not: to its host and port, in any database.

        Raises:
            DevServerError: libpq cannot read the DSN.
        """
        cluster = self._existing()
        if cluster is None:
            return False
        try:
            given, ours = (conninfo.conninfo_to_dict(each) for each in (dsn, cluster.dsn(_DATABASE)))
        except psycopg.ProgrammingError:
            raise DevServerError("libpq cannot read the DSN") from None
        return all(given.get(key) == ours.get(key) for key in ("host", "port"))

    def status(self) -> Status | None:
        """Ask the running server, or None.

        Raises:
            DevServerError: it runs, and does not accept connections.
        """
        cluster = self._existing()
        if cluster is None or cluster.postmaster is None:
            return None
        return status_of(cluster.dsn(_DATABASE), str(cluster.data))

    def stop(self, purge: bool = False) -> bool:
        """Stop the server in order, ending its sessions.

        Args:
            purge: also delete its data.

        Returns:
            Whether it ran.
        """
        if not self.directory.exists():
            return False
        with locked(self.directory, self._say):
            cluster = self._existing()
            if cluster is None:
                return False
            ran = cluster.postmaster is not None
            cluster.stop(self._installation(), "fast")
            if purge:
                cluster.remove()
            return ran

    def restart(self, mode: str = "fast") -> None:
        """Restart it: ``fast`` ends all sessions in order, ``immediate`` is a crash with recovery."""
        with locked(self.directory, self._say):
            installation = self._installation()
            cluster = self._cluster(installation)
            cluster.stop(installation, mode)
            cluster.launch(installation)

    def crash(self) -> None:
        """Kill the postmaster with SIGKILL; its other processes end by themselves, ``start`` recovers."""
        cluster = self._existing()
        pid = cluster.postmaster if cluster else None
        if cluster is not None and pid is not None:
            send(pid, signal.SIGKILL)
            cluster.await_end()

    def remove_root(self) -> bool:
        """Delete the private root, unless it has data of a server. Returns whether it is gone."""
        if not self.directory.exists():
            return True
        with locked(self.directory, self._say):
            if list(self._root.glob("srv/pgbg/*/PG_VERSION")):
                return False
            private_root.remove(self._root)
            return True

    def _installation(self) -> Installation:
        """Find the programs. A root that was made wins, as servers live in it."""
        found = in_root(self._root) or installed()
        if found is None:
            private_root.make(self._root, self._say)
            found = in_root(self._root)
        if found is None:
            raise DevServerError(f"{self._root} is incomplete: run `python -m celery_pgbg.devserver stop --purge`")
        return found

    def _cluster(self, installation: Installation) -> Cluster:
        base = self.directory if installation.root is None else installation.root / "srv"
        return Cluster(base / "pgbg" / self.name)

    def _existing(self) -> Cluster | None:
        candidates = [Cluster(base / "pgbg" / self.name) for base in (self._root / "srv", self.directory)]
        return next((cluster for cluster in candidates if cluster.exists), None)


def status_of(dsn: str, data: str) -> Status:
    """Ask any server, waiting while it recovers.

    Args:
        dsn: of a database with the extension.
        data: what to show as its data folder.

    Raises:
        DevServerError: no connection, or no extension.
    """
    with _connect(dsn) as session:
        row = session.execute(
            "SELECT current_setting('server_version'), extversion,"
            " extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
            " FROM pg_extension WHERE extname = 'pg_background'"
        ).fetchone()
    if row is None:
        raise DevServerError("the database has no extension pg_background")
    return Status(dsn, row[0], row[1], data, row[2])


def _prepare(cluster: Cluster) -> None:
    """Make the database with the extension, where they are missing."""
    with _connect(cluster.dsn("postgres")) as session:
        if session.execute("SELECT FROM pg_database WHERE datname = %s", [_DATABASE]).fetchone() is None:
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_DATABASE)))
    with _connect(cluster.dsn(_DATABASE)) as session:
        session.execute("SET client_min_messages = warning")
        session.execute("CREATE EXTENSION IF NOT EXISTS pg_background")


def _connect(dsn: str, within_seconds: float = 20.0) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect, waiting while the server recovers from a crash of one of its processes.

    Raises:
        DevServerError: it does not let us in.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            return psycopg.connect(dsn, autocommit=True, connect_timeout=10)
        except psycopg.OperationalError as exc:
            if time.monotonic() > deadline:
                raise DevServerError(f"the server runs but does not accept connections: {exc}") from exc
            time.sleep(0.1)
