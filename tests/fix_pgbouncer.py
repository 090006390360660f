"""PgBouncer between us and the server, real, in any mode, asking for a password."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from celery_pgbg.devserver.ports import LOOPBACK, answers, free_port
from tests.fix_server import missing, url_of
from tests.waiting import eventually

#: What needs care in a URL, in a key=value string, and in PgBouncer's file.
PASSWORD = "p@ss:w/rd %41?#'\" \N{SNOWMAN}\\"


class PgBouncer:
    """One PgBouncer of ours; its clients give ``PASSWORD``, which the server behind it would not ask for."""

    def __init__(self, program: str, folder: Path, dsn: str, pool_mode: str) -> None:
        self._server = psycopg.conninfo.conninfo_to_dict(dsn)
        self.port = free_port()
        quoted = PASSWORD.replace('"', '""')
        (folder / "users.txt").write_text(f'"postgres" "{quoted}"\n')
        settings = {
            "listen_addr": LOOPBACK, "listen_port": self.port, "unix_socket_dir": "", "auth_type": "scram-sha-256",
            "auth_file": folder / "users.txt", "pool_mode": pool_mode,
        }  # fmt: skip
        if os.geteuid() == 0:
            settings["user"] = "nobody"
        lines = [f"{key} = {value}" for key, value in settings.items()]
        target = f"* = host={self._server['host']} port={self._server['port']} user={self._server['user']}"
        config = folder / "pgbouncer.ini"
        config.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]))
        self.log = folder / "log"
        with self.log.open("w") as file:
            self.process = subprocess.Popen([program, str(config)], stdout=file, stderr=subprocess.STDOUT)

    def wait_ready(self) -> PgBouncer:
        """Wait until it accepts connections."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return answers(self.port)

        eventually("PgBouncer answers", ready)
        return self

    def url(self, encoded: bool = True) -> str:
        """The database of the tests through it; the password percent-encoded, or as it is."""
        password = quote(PASSWORD, safe="") if encoded else PASSWORD
        return f"postgresql://postgres:{password}@{LOOPBACK}:{self.port}/{self._server['dbname']}"

    def key_values(self) -> str:
        """The same as a key=value string."""
        return psycopg.conninfo.make_conninfo(
            host=LOOPBACK, port=self.port, user="postgres", password=PASSWORD, dbname=self._server["dbname"]
        )

    def stop(self) -> None:
        """End it, and with it all connections."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def new_pgbouncer(tmp_path_factory: pytest.TempPathFactory, dsn: str) -> Iterator[Callable[[str], PgBouncer]]:
    """Start PgBouncers to the database of the tests; they end with the tests."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing("no pgbouncer is installed")
    made: list[PgBouncer] = []

    def make(pool_mode: str) -> PgBouncer:
        made.append(PgBouncer(program, tmp_path_factory.mktemp("pgbouncer"), url_of(dsn), pool_mode))
        return made[-1].wait_ready()

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="module")
def session_pgbouncer(new_pgbouncer: Callable[[str], PgBouncer]) -> PgBouncer:
    """A PgBouncer in session mode."""
    return new_pgbouncer("session")


@pytest.fixture(scope="module")
def transaction_pgbouncer(new_pgbouncer: Callable[[str], PgBouncer]) -> PgBouncer:
    """A PgBouncer in transaction mode."""
    return new_pgbouncer("transaction")
