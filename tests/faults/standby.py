"""A standby of a development server, which may take its place."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import make_conninfo

from celery_pgbg.devserver import DevServer
from celery_pgbg.devserver.cluster import Cluster
from celery_pgbg.devserver.installations import Installation
from tests.waiting import eventually


class Standby:
    """A second server that follows the first by streaming replication.

    Args:
        installation: whose programs both run.
        cluster: its data.
    """

    def __init__(self, installation: Installation, cluster: Cluster) -> None:
        self._installation = installation
        self._cluster = cluster
        self.dsn = cluster.dsn("pgbg")

    def wait_replayed(self, primary_dsn: str) -> None:
        """Wait until it shows all that the primary has committed until now."""
        with (
            psycopg.connect(primary_dsn, autocommit=True) as primary,
            psycopg.connect(self.dsn, autocommit=True) as own,
        ):
            row = primary.execute("SELECT pg_current_wal_lsn()").fetchone()
            query = "SELECT pg_last_wal_replay_lsn() >= %s"
            eventually("it is replayed", lambda: own.execute(query, row).fetchone() == (True,))

    def promote(self) -> None:
        """Let it take the place of the primary."""
        place = self._installation.path_inside(self._cluster.data)
        self._installation.run("pg_ctl", "promote", "--wait", "--pgdata", place)


@contextmanager
def standby_of(primary: DevServer) -> Iterator[Standby]:
    """Copy a running server, and let the copy follow it; it is gone at the end."""
    installation = primary._installation()
    cluster = Cluster(primary._cluster(installation).data.with_name(f"standby-{uuid.uuid4().hex[:6]}"))
    cluster.data.mkdir(mode=0o700)
    try:
        installation.give(cluster.data)
        source = make_conninfo(primary.dsn or "", dbname="")
        copied = ["--pgdata", installation.path_inside(cluster.data), "--checkpoint=fast", "--write-recovery-conf"]
        installation.run("pg_basebackup", *copied, "--dbname", source)
        # The configuration is copied too; the port, which the primary has, is replaced.
        cluster.launch(installation)
        yield Standby(installation, cluster)
    finally:
        cluster.stop(installation, "immediate")
        cluster.remove()
