"""Components for pytest-celery's clusters: PostgreSQL as result backend, Celery workers with our pool."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import psycopg
from pytest_celery import CeleryTestBackend, CeleryTestContainer, CeleryWorkerContainer

from celery_pgbg.database import schema

_USER, _PASSWORD, _DATABASE = "postgres", "pgbg", "pgbg"
_PORT = "5432/tcp"
_SCHEME = "pgbg+"


class PostgresContainer(CeleryTestContainer):
    """A container of PostgreSQL with pg_background."""

    @property
    def client(self) -> psycopg.Connection[Any]:
        """A new connection from the host, in autocommit mode."""
        return psycopg.connect(self.host_dsn, autocommit=True, connect_timeout=5)

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """The URLs of the result backend: ``url`` for containers, ``host_url`` for the tests."""
        return {
            "url": _SCHEME + self.dsn,
            "host_url": _SCHEME + self.host_dsn,
            "hostname": self.hostname,
            "port": self.port,
            "vhost": _DATABASE,
        }

    @property
    def dsn(self) -> str:
        """Where containers of the same network find it."""
        return f"postgresql://{_USER}:{_PASSWORD}@{self.hostname}:{_PORT.partition('/')[0]}/{_DATABASE}"

    @property
    def host_dsn(self) -> str:
        """Where the tests find it."""
        return f"postgresql://{_USER}:{_PASSWORD}@localhost:{self.port}/{_DATABASE}"

    @property
    def hostname(self) -> str:
        """Its name in the network."""
        return str(self.attrs["Config"]["Hostname"])

    @property
    def port(self) -> int:
        """Its port on the host."""
        return int(self._wait_port(_PORT))

    @classmethod
    def initial_env(cls) -> dict[str, str]:
        """What the image makes its database from."""
        return {"POSTGRES_USER": _USER, "POSTGRES_PASSWORD": _PASSWORD, "POSTGRES_DB": _DATABASE}

    @classmethod
    def ports(cls) -> dict[str, None]:
        """Any free port on the host."""
        return {_PORT: None}

    def ready(self) -> bool:
        """Whether it accepts connections; the image starts PostgreSQL twice, so its log does not show that."""
        if not super().ready():
            return False
        try:
            self.client.close()
        except psycopg.OperationalError:
            return False
        return True


class PgbgTestBackend(CeleryTestBackend):
    """A node of our result backend, which is also the database of the SQL tasks."""

    def install(self) -> None:
        """Install our schema."""
        with self.container.client as session:
            schema.install(session)


class PgbgWorkerContainer(CeleryWorkerContainer):
    """A container of a Celery worker with our pool."""

    @classmethod
    def app_module(cls) -> ModuleType:
        """Our own: it sets the pool and the database."""
        from celery_pgbg.testing.docker import worker_app

        return worker_app

    @classmethod
    def buildargs(cls) -> dict[str, str]:
        """What pip installs in the image; ``CELERY_PGBG_PKG`` in the environment names another version."""
        package = os.environ.get("CELERY_PGBG_PKG", "celery-pgbg[binary,redis]")
        return {"CELERY_PGBG_PKG": package, "PYTEST_CELERY_PKG": cls.pytest_celery_pkg()}

    @classmethod
    def initial_env(
        cls, celery_worker_cluster_config: dict[str, Any], initial: dict[str, str] | None = None
    ) -> dict[str, str]:
        """The addresses of broker, result backend and database.

        Raises:
            ValueError: no result backend of the cluster is ours.
        """
        env: dict[str, str] = super().initial_env(celery_worker_cluster_config, initial)
        urls = env.get("CELERY_RESULT_BACKEND", "").split(";")
        dsn = next((url.removeprefix(_SCHEME) for url in urls if url.startswith(_SCHEME)), None)
        if dsn is None:
            raise ValueError("the cluster needs a result backend of celery-pgbg: the fixture celery_pgbg_backend")
        return {**env, "PGBG_DSN": dsn}
