"""``python -m celery_pgbg.devserver start|stop|status|dsn|redis|rabbitmq|compose``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import psycopg

from celery_pgbg.devserver.brokers import RabbitServer, RedisServer
from celery_pgbg.devserver.errors import COMPOSE_FILE, DevServerError
from celery_pgbg.devserver.server import DevServer, status_of

_WHAT = "A real PostgreSQL with the real pg_background, for development, tests and the demo."

#: The exit code that init scripts give for a program that is not running.
_NOT_RUNNING = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; standard output has only the answer, everything else goes to standard error."""
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
    parser = argparse.ArgumentParser(prog="python -m celery_pgbg.devserver", description=_WHAT)
    _add_name(parser, "default")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(command, help=text, description=text)
        # Without a default, the command's parser does not overwrite the option given before the command.
        _add_name(added, argparse.SUPPRESS)
        added.set_defaults(run=run, command=command)
        return added

    start = add("start", _start, "start PostgreSQL unless it runs, and print its DSN")
    start.add_argument("--max-worker-processes", type=int, metavar="N", help="100 for a new server; kept until changed")
    durable = start.add_mutually_exclusive_group()
    durable.add_argument("--no-fsync", dest="fsync", action="store_false", default=None, help="faster, not durable")
    durable.add_argument("--fsync", dest="fsync", action="store_true", default=None, help="durable, as a new server is")
    start.add_argument("--lc-messages", metavar="LOCALE", help="language of the server's messages, such as de_DE.UTF-8")
    stop = add("stop", _stop, "stop the server")
    stop.add_argument(
        "--purge", action="store_true", help="also delete the server's data and brokers, and the private root"
    )
    add("status", _status, "show the running server; exit code 3 if it does not run")
    add("dsn", _dsn, "print the DSN; exit code 1 if the server does not run")
    add("compose", _compose, "print the path of the compose.yaml that starts the same in Docker")
    for broker, kind in (("redis", RedisServer), ("rabbitmq", RabbitServer)):
        added = add(broker, _broker, f"print the URL of {broker}; start one if none answers on the usual port")
        added.add_argument("--stop", action="store_true", help="stop the started one")
        added.set_defaults(kind=kind)
    return parser


def _add_name(parser: argparse.ArgumentParser, default: str) -> None:
    """Take ``--name`` before or after the command; parsers that share one such option share its default."""
    parser.add_argument(
        "--name", default=default, help="the server's name, if several run side by side (default: default)"
    )


def _start(options: argparse.Namespace) -> int:
    given = _another_server(options)
    if given:
        print("PGBG_DSN names the server: nothing is started, and `stop` will stop nothing", file=sys.stderr)
        _verify(given)
        print(given)
        return 0
    dsn = DevServer(options.name).start(options.max_worker_processes, options.fsync, options.lc_messages)
    # Our own server, but perhaps another database.
    print(os.environ.get("PGBG_DSN") or dsn)
    return 0


def _another_server(options: argparse.Namespace) -> str | None:
    """The server of PGBG_DSN, unless that is our own: the first steps export the DSN of our own server."""
    given = os.environ.get("PGBG_DSN")
    return None if given is None or DevServer(options.name).is_named_by(given) else given


def _verify(dsn: str) -> None:
    try:
        with psycopg.connect(dsn, connect_timeout=10) as session:
            found = session.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_background'").fetchone()
    except psycopg.OperationalError as exc:
        raise DevServerError(f"PGBG_DSN: {exc}") from exc
    if found is None:
        raise DevServerError("the server that PGBG_DSN names has no pg_background: install its package there")


def _stop(options: argparse.Namespace) -> int:
    if _another_server(options):
        print(
            "PGBG_DSN names a server that this command did not start: nothing is stopped or deleted. "
            f"Unset PGBG_DSN to stop the development server {options.name!r}.",
            file=sys.stderr,
        )
        return 0
    server = DevServer(options.name)
    ran = server.stop(purge=options.purge)
    did = "stopped" if ran else "was not running"
    print(f"server {options.name!r} in {server.directory}: {did}", file=sys.stderr)
    if options.purge:
        print(f"deleted the data of server {options.name!r}", file=sys.stderr)
        for kind in (RedisServer, RabbitServer):
            kind(options.name).purge()
        if not server.remove_root():
            print("the private root stays: other servers have their data in it", file=sys.stderr)
    return 0


def _status(options: argparse.Namespace) -> int:
    given = _another_server(options)
    if given:
        print(f"PGBG_DSN names the server; the development server {options.name!r} is ignored", file=sys.stderr)
    status = status_of(given, "not ours") if given else DevServer(options.name).status()
    if status is None:
        print("not running")
        return _NOT_RUNNING
    print(f"running      {status.dsn}")
    print(f"PostgreSQL   {status.postgresql}, pg_background {status.pg_background}")
    print(f"data         {status.data}")
    print(f"up for       {status.uptime_seconds:.0f} s")
    return 0


def _dsn(options: argparse.Namespace) -> int:
    dsn = DevServer(options.name).dsn if _another_server(options) is None else ""
    if dsn is None:
        print("not running: python -m celery_pgbg.devserver start", file=sys.stderr)
        return 1
    print(os.environ.get("PGBG_DSN") or dsn)
    return 0


def _broker(options: argparse.Namespace) -> int:
    broker = options.kind(options.name)
    if options.stop:
        broker.stop()
    else:
        print(os.environ.get(f"PGBG_{options.command.upper()}_URL") or broker.find_or_start())
    return 0


def _compose(options: argparse.Namespace) -> int:
    print(COMPOSE_FILE)
    return 0


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
