"""``python -m celery_pgbg.devserver start|stop|status|dsn|redis|rabbitmq``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import psycopg

from celery_pgbg.devserver.brokers import RabbitServer, RedisServer
from celery_pgbg.devserver.errors import DevServerError
from celery_pgbg.devserver.server import DevServer

_WHAT = "A real PostgreSQL with the real pg_background, for development, tests and the demo."

#: The exit code that init scripts give for a program that is not running.
_NOT_RUNNING = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; standard output carries the answer alone, all else goes to standard error."""
    signal.signal(signal.SIGTERM, _interrupt)
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except DevServerError as exc:
        print(exc, file=sys.stderr)
        return 1
    except PermissionError as exc:
        remedy = "run it as the user who started the server, or set PGBG_DEVSERVER_DIR to a folder of your own"
        print(f"{exc}: {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing half-made is left behind", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument(
        "--name", default=argparse.SUPPRESS, help="which server, where several run side by side (default: default)"
    )
    parser = argparse.ArgumentParser(prog="python -m celery_pgbg.devserver", description=_WHAT, parents=[named])
    parser.set_defaults(name="default")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(command, help=text, description=text, parents=[named])
        added.set_defaults(run=run)
        return added

    start = add("start", _start, "start PostgreSQL unless it runs, and print its DSN")
    start.add_argument("--max-worker-processes", type=int, metavar="N", help="at first 100; then kept until changed")
    durable = start.add_mutually_exclusive_group()
    durable.add_argument("--no-fsync", dest="fsync", action="store_false", default=None, help="faster, not durable")
    durable.add_argument("--fsync", dest="fsync", action="store_true", default=None, help="durable, as at first")
    stop = add("stop", _stop, "stop it")
    stop.add_argument("--purge", action="store_true", help="delete its data and its brokers, and the private root too")
    add("status", _status, "tell what runs; exit code 3 if nothing does")
    add("dsn", _dsn, "print the DSN; exit code 1 if it does not run")
    for broker, kind in (("redis", RedisServer), ("rabbitmq", RabbitServer)):
        added = add(broker, _broker, f"print the URL of a {broker}, started if none answers on its usual port")
        added.add_argument("--stop", action="store_true", help="stop the one that was started")
        added.set_defaults(kind=kind)
    return parser


def _start(options: argparse.Namespace) -> int:
    given = os.environ.get("PGBG_DSN")
    if given:
        print("PGBG_DSN names the server; nothing is started", file=sys.stderr)
        _verify(given)
        print(given)
        return 0
    print(DevServer(options.name).start(options.max_worker_processes, options.fsync))
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
    server = DevServer(options.name)
    ran = server.stop(purge=options.purge)
    print("stopped" if ran else "it was not running", file=sys.stderr)
    if options.purge:
        for kind in (RedisServer, RabbitServer):
            kind(options.name).purge()
        if not server.remove_root():
            print("the private root stays: other servers have their data in it", file=sys.stderr)
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


def _broker(options: argparse.Namespace) -> int:
    broker = options.kind(options.name)
    if options.stop:
        broker.stop()
    else:
        print(broker.find_or_start())
    return 0


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
