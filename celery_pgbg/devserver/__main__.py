"""``python -m celery_pgbg.devserver start|stop|status|dsn|redis``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import NoReturn

import psycopg

from celery_pgbg.devserver.brokers import RedisServer
from celery_pgbg.devserver.errors import DevServerError
from celery_pgbg.devserver.server import DevServer

_NOT_RUNNING = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; standard output carries the answer alone, all else goes to standard error."""
    signal.signal(signal.SIGTERM, _interrupt)
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except DevServerError as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing half-made is left behind", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m celery_pgbg.devserver", description=__doc__)
    parser.add_argument("--name", default="default", help="which server, where several run side by side")
    commands = parser.add_subparsers(required=True, metavar="start|stop|status|dsn|redis")
    start = commands.add_parser("start", help="start it unless it runs, and print its DSN")
    start.add_argument("--max-worker-processes", type=int, default=100, metavar="N")
    start.add_argument("--no-fsync", action="store_true", help="faster, and not durable")
    start.set_defaults(command=_start)
    stop = commands.add_parser("stop", help="stop it")
    stop.add_argument("--purge", action="store_true", help="delete its data and the private root too")
    stop.set_defaults(command=_stop)
    commands.add_parser("status", help="tell what runs; exit code 3 if nothing does").set_defaults(command=_status)
    commands.add_parser("dsn", help="print the DSN; exit code 1 if it does not run").set_defaults(command=_dsn)
    redis = commands.add_parser("redis", help="print the URL of a Redis, started if none answers")
    redis.add_argument("--stop", action="store_true", help="stop the one that was started")
    redis.set_defaults(command=_redis)
    return parser


def _start(options: argparse.Namespace) -> int:
    given = os.environ.get("PGBG_DSN")
    if given:
        print("PGBG_DSN names the server; nothing is started", file=sys.stderr)
        _verify(given)
        print(given)
        return 0
    print(DevServer(options.name).start(options.max_worker_processes, fsync=not options.no_fsync))
    return 0


def _verify(dsn: str) -> None:
    try:
        with psycopg.connect(dsn, connect_timeout=10) as session:
            found = session.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_background'").fetchone()
    except psycopg.OperationalError as exc:
        raise DevServerError(f"PGBG_DSN: {exc}") from exc
    if found is None:
        raise DevServerError("the server that PGBG_DSN names has no pg_background: install its package there")


def _stop(options: argparse.Namespace) -> int:
    ran = DevServer(options.name).stop(purge=options.purge)
    print("stopped" if ran else "it was not running", file=sys.stderr)
    return 0


def _status(options: argparse.Namespace) -> int:
    status = DevServer(options.name).status()
    if status is None:
        print("not running")
        return _NOT_RUNNING
    print(f"running      {status.dsn}")
    print(f"PostgreSQL   {status.postgresql}, pg_background {status.pg_background}")
    print(f"data         {status.data}")
    print(f"up for       {status.uptime_seconds:.0f} s")
    return 0


def _dsn(options: argparse.Namespace) -> int:
    dsn = os.environ.get("PGBG_DSN") or DevServer(options.name).dsn
    if dsn is None:
        print("not running: python -m celery_pgbg.devserver start", file=sys.stderr)
        return 1
    print(dsn)
    return 0


def _redis(options: argparse.Namespace) -> int:
    server = RedisServer(options.name)
    if options.stop:
        server.stop()
    else:
        print(server.find_or_start())
    return 0


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
