"""What the measurements run on: a server of their own, Redis, and Celery workers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import redis
from celery import Celery

from celery_pgbg.database import schema
from celery_pgbg.devserver import DevServer
from celery_pgbg.devserver.brokers import RabbitServer, RedisServer

PROJECT = Path(__file__).parent.parent


@contextlib.contextmanager
def database() -> Iterator[str]:
    """A database with our schema, on a server with slots for 300 statements and the usual durability."""
    given = os.environ.get("PGBG_DSN")
    server = None if given else DevServer("bench")
    dsn = given or (server.start(max_worker_processes=330) if server else "")
    name = f"bench_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}".encode())
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    password = f":{parts['password']}" if parts.get("password") else ""
    url = f"postgresql://{parts.get('user')}{password}@{parts.get('host')}:{parts.get('port', 5432)}/{name}"
    try:
        with psycopg.connect(url, autocommit=True) as session:
            schema.install(session)
        yield url
    finally:
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        if server is not None:
            server.stop()


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """A Redis, without a database number; the databases that are used are emptied at the end."""
    server = RedisServer("bench")
    url = server.find_or_start()
    yield url
    for number in (13, 14):
        redis.Redis.from_url(f"{url}/{number}").flushdb()
    server.stop()


@contextlib.contextmanager
def rabbitmq() -> Iterator[str]:
    """A RabbitMQ."""
    server = RabbitServer("bench")
    yield server.find_or_start()
    server.stop()


class Worker:
    """A Celery worker of the measured app, and an app that talks to it."""

    def __init__(
        self,
        dsn: str,
        redis_url: str,
        pool: str,
        concurrency: int,
        launchers: int = 2,
        backend: str = "",
        broker: str = "",
    ) -> None:
        queue = f"bench-{uuid.uuid4().hex[:8]}"
        self.environment = {
            "BENCH_DSN": dsn,
            "BENCH_BROKER": broker or f"{redis_url}/13",
            "BENCH_BACKEND": backend or f"{redis_url}/14",
            "BENCH_QUEUE": queue,
            "BENCH_LAUNCHERS": str(launchers),
            "CELERY_CUSTOM_WORKER_POOL": "celery_pgbg.pool:TaskPool",
        }
        self._log = Path(tempfile.gettempdir()) / f"{queue}.log"
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.bench_app", "worker", "-P", pool]
        command += [
            "-c",
            str(concurrency),
            "-l",
            "INFO",
            "-n",
            f"{queue}@bench",
            "--without-gossip",
            "--without-mingle",
        ]
        with self._log.open("w") as file:
            self.process = subprocess.Popen(
                command, env={**os.environ, **self.environment}, cwd=PROJECT, stdout=file, stderr=file
            )
        self.app = self._client()

    def _client(self) -> Celery:
        """The same app in this process."""
        import importlib

        os.environ.update(self.environment)
        from benchmarks import bench_app

        return importlib.reload(bench_app).app

    def consume(self, on: bool) -> None:
        """Let the Celery worker take messages, or none."""
        queue = self.environment["BENCH_QUEUE"]
        if on:
            self.app.control.add_consumer(queue)
        else:
            self.app.control.cancel_consumer(queue, reply=True, timeout=1)

    def __enter__(self) -> Worker:
        deadline = time.monotonic() + 60
        while " ready." not in self._log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the Celery worker did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.process.kill()
        self.process.wait()
        self._log.unlink(missing_ok=True)
