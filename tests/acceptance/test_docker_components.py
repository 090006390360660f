"""The components for pytest-celery's clusters, as far as they go without Docker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from celery import Celery
from redis import Redis

from celery_pgbg.database import schema
from celery_pgbg.database.results import close_stores
from celery_pgbg.devserver.errors import COMPOSE_FILE
from celery_pgbg.devserver.private_root import PACKAGE
from celery_pgbg.testing.databases import as_url
from celery_pgbg.testing.docker import PgbgTestBackend, PgbgWorkerContainer, PostgresContainer
from tests.apps import docker_tasks
from tests.waiting import eventually

pytest_plugins = ("pytester",)

PROJECT = Path(__file__).parent.parent.parent
FOLDER = PROJECT / "celery_pgbg" / "testing" / "docker"


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> PostgresContainer:
    """A container as Docker would describe it."""
    monkeypatch.setattr(PostgresContainer, "_wait_port", lambda self, port: {"5432/tcp": 49_155}[port])
    return PostgresContainer(SimpleNamespace(attrs={"Config": {"Hostname": "0123456789ab"}}))


def test_the_urls_of_a_node_are_those_of_the_network_and_of_the_host(postgres: PostgresContainer) -> None:
    config = PgbgTestBackend(postgres).config()
    assert config["url"] == "pgbg+postgresql://postgres:pgbg@0123456789ab:5432/pgbg"
    assert config["host_url"] == "pgbg+postgresql://postgres:pgbg@localhost:49155/pgbg"
    app = Celery("host", backend=config["host_url"], set_as_current=False)
    assert type(app.backend).__name__ == "PostgresBackend"
    assert PostgresContainer.initial_env() == {
        "POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": "pgbg", "POSTGRES_DB": "pgbg",
    }  # fmt: skip


def test_a_node_gets_our_schema(
    postgres: PostgresContainer, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresContainer, "host_dsn", new_database())
    PgbgTestBackend(postgres).install()
    with postgres.client as session:
        assert schema.installed_version(session) == schema.current_version()


def test_a_cluster_without_our_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="celery_pgbg_backend"):
        PgbgWorkerContainer.initial_env({"celery_backend_cluster_config": {"urls": ["redis://redis/0"]}})


def test_a_worker_with_the_content_of_its_volume_runs_sql_tasks(tmp_path: Path, redis_url: str, dsn: str) -> None:
    class Worker(PgbgWorkerContainer):
        @classmethod
        def worker_queue(cls) -> str:
            return queue

    queue = f"pgbg-test-{uuid.uuid4().hex[:12]}"
    broker, backend = f"{redis_url}/13", f"pgbg+{dsn}"
    host = Celery(
        "cluster", broker="redis://of-the-host:1", backend="pgbg+postgresql://of-the-host", set_as_current=False
    )
    for name, content in Worker.initial_content(worker_tasks={docker_tasks}, worker_app=host).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    config = {"celery_broker_cluster_config": {"urls": [broker]}, "celery_backend_cluster_config": {"urls": [backend]}}
    environment = {**os.environ, **Worker.initial_env(config), "PYTHONPATH": str(tmp_path)}
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *Worker.command("-c", "2")],
            env=environment,
            cwd=tmp_path,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    client = Celery("client", broker=broker, backend=backend, set_as_current=False)
    client.conf.task_default_queue = queue
    try:
        eventually("it is ready", lambda: process.poll() is not None or " ready." in log.read_text())
        assert process.poll() is None, log.read_text()
        assert client.send_task("docker.worker_kind").get(timeout=60) == "pg_background"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with Redis.from_url(broker) as redis:
            for key in redis.scan_iter(f"*{queue}*"):
                redis.delete(key)
        client.close()
        close_stores()


def test_its_fixtures_replace_those_of_pytest_celery(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ("celery_pgbg.testing.docker",)')
    pytester.makepyfile("def test_it(celery_setup, default_worker_container):\n    pass\n")
    result = pytester.runpytest_subprocess("--setup-plan", "-p", "no:cacheprovider")
    plan = result.stdout.str()
    for name in (
        "default_pgbg_backend_image",
        "default_pgbg_backend",
        "celery_pgbg_backend",
        "default_pgbg_worker_image",
    ):
        assert re.search(rf"SETUP +[SF] {name}\b", plan), plan
    assert "default_redis_backend" not in plan
    assert "celery_base_worker_image" not in plan


def test_the_images_are_of_what_is_tested() -> None:
    text = (FOLDER / "postgres.Dockerfile").read_text()
    version = PACKAGE.split("-")[1]
    assert f"FROM postgres:{version}\n" in text
    assert f" {PACKAGE} " in text
    worker = (FOLDER / "worker.Dockerfile").read_text()
    assert {name: f'ARG {name}="{value}"' in worker for name, value in PgbgWorkerContainer.buildargs().items()} == {
        "CELERY_PGBG_PKG": True, "PYTEST_CELERY_PKG": True,
    }  # fmt: skip


def test_compose_builds_that_image_and_says_its_dsn() -> None:
    text = COMPOSE_FILE.read_text()
    outer = yaml.safe_load((PROJECT / "compose.yaml").read_text())
    assert [PROJECT / path for path in outer["include"]] == [COMPOSE_FILE]
    service: dict[str, Any] = yaml.safe_load(text)["services"]["postgres"]
    build = service["build"]
    assert (COMPOSE_FILE.parent / build["context"] / build["dockerfile"]).is_file()
    [dsn] = re.findall(r"export PGBG_DSN=(\S+)", text)
    host, port, inside = service["ports"][0].split(":")
    environment = service["environment"]
    parts = {
        "host": host,
        "port": port,
        "password": environment["POSTGRES_PASSWORD"],
        "dbname": environment["POSTGRES_DB"],
    }
    assert (dsn, inside) == (as_url("user=postgres", **parts), "5432")
    assert dsn in (PROJECT / "celery_pgbg" / "devserver" / "errors.py").read_text()
