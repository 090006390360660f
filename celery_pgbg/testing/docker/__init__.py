"""Fixtures for pytest-celery's clusters in Docker: ``pytest_plugins = ("celery_pgbg.testing.docker",)``.

The result backend is ours, in PostgreSQL with pg_background, and Celery workers have our pool; the
brokers are pytest-celery's own.

Written for pytest-celery 1.1 and later. Its parts are tested without Docker: URLs, environment,
commands, and a Celery worker with the content of the container's volume. That the images build and
the containers start is not tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_celery import CeleryBackendCluster
from pytest_celery.defaults import DEFAULT_WORKER_CONTAINER_TIMEOUT, DEFAULT_WORKER_VOLUME
from pytest_docker_tools import build, container, fxtr

from celery_pgbg.testing.docker.containers import PgbgTestBackend, PgbgWorkerContainer, PostgresContainer

__all__ = ["PgbgTestBackend", "PgbgWorkerContainer", "PostgresContainer"]

_FOLDER = str(Path(__file__).parent)

# --- PostgreSQL ---------------------------------------------------------------------------------------------

default_pgbg_backend_image = build(path=_FOLDER, dockerfile="postgres.Dockerfile", tag="celery-pgbg/postgres:default")

default_pgbg_backend = container(
    image="{default_pgbg_backend_image.id}",
    ports=PostgresContainer.ports(),
    environment=PostgresContainer.initial_env(),
    network="{default_pytest_celery_network.name}",
    wrapper_class=PostgresContainer,
    timeout=60,
)


@pytest.fixture
def celery_pgbg_backend(default_pgbg_backend: PostgresContainer) -> Iterator[PgbgTestBackend]:
    """Our result backend, with our schema installed."""
    backend = PgbgTestBackend(default_pgbg_backend)
    backend.install()
    yield backend
    backend.teardown()


@pytest.fixture
def celery_backend_cluster(celery_pgbg_backend: PgbgTestBackend) -> Iterator[CeleryBackendCluster]:
    """One node: ours."""
    cluster = CeleryBackendCluster(celery_pgbg_backend)
    yield cluster
    cluster.teardown()


# --- Celery workers -----------------------------------------------------------------------------------------

default_pgbg_worker_image = build(
    path=_FOLDER,
    dockerfile="worker.Dockerfile",
    tag="celery-pgbg/worker:default",
    buildargs=PgbgWorkerContainer.buildargs(),
)

default_worker_container = container(
    image="{default_pgbg_worker_image.id}",
    ports=fxtr("default_worker_ports"),
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    volumes={"{default_worker_volume.name}": DEFAULT_WORKER_VOLUME},
    wrapper_class=PgbgWorkerContainer,
    timeout=DEFAULT_WORKER_CONTAINER_TIMEOUT,
    command=fxtr("default_worker_command"),
)


@pytest.fixture
def default_worker_container_cls() -> type[PgbgWorkerContainer]:
    """The class of the Celery workers' containers."""
    return PgbgWorkerContainer


@pytest.fixture(scope="session")
def default_worker_container_session_cls() -> type[PgbgWorkerContainer]:
    """The same, for what lives as long as the run."""
    return PgbgWorkerContainer
