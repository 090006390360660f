"""A Redis or RabbitMQ as broker: a running server, else one started from an installed package."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from celery_pgbg.devserver.errors import DevServerError
from celery_pgbg.devserver.folder import checked_name, folder_of, locked
from celery_pgbg.devserver.ports import LOOPBACK, answers, free_port
from celery_pgbg.devserver.processes import command_line, send

#: How long a start or stop may take, in seconds: RabbitMQ takes ten on an idle machine, and minutes on a busy one.
_DEADLINE = 180.0


class Broker(ABC):
    """A broker of our own, on the loopback only, not for valuable messages.

    Args:
        name: several have several names.
        directory: where its files live; ``PGBG_DEVSERVER_DIR``, else ``.devserver`` here.
    """

    kind: str
    usual_port: int
    programs: tuple[str, ...]

    def __init__(self, name: str = "default", directory: Path | None = None) -> None:
        self._name = checked_name(name)
        self._directory = folder_of(directory)
        self._folder = self._directory / self.kind / name

    @abstractmethod
    def _url(self, port: int) -> str:
        """Where clients find it."""

    @abstractmethod
    def _answers(self, port: int) -> bool:
        """Check whether such a broker, open to us, is on that port."""

    @abstractmethod
    def _mark(self, port: int) -> str:
        """A text that only our own process has in its command line."""

    @abstractmethod
    def _spawn(self, program: str, port: int) -> None:
        """Start it in the background; it writes its PID to the file ``pid``, its log to ``log``."""

    def find_or_start(self) -> str:
        """Find a running one on the usual port, else start our own.

        Returns:
            Its URL, for Redis without a database number.

        Raises:
            DevServerError: none answers, and none is installed.
        """
        return self._url(self.usual_port) if self._answers(self.usual_port) else self.start()

    def start(self) -> str:
        """Start our own unless it runs, on the port it had before if that is free. Returns its URL.

        Raises:
            DevServerError: none is installed, or it does not start.
        """
        with locked(self._directory):
            port = self._port()
            if port is None or self._pid() is None or not self._answers(port):
                self._end(signal.SIGKILL)
                port = self._launch(free_port(port or 0))
            return self._url(port)

    def stop(self) -> None:
        """Stop our own, if it runs."""
        self._end(signal.SIGTERM)

    def crash(self) -> None:
        """Kill our own with SIGKILL; ``start`` brings it back at the same URL, without its messages."""
        self._end(signal.SIGKILL)

    def purge(self) -> None:
        """Stop our own and delete its files."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _launch(self, port: int) -> int:
        program = next(filter(None, map(shutil.which, self.programs)), None)
        if program is None:
            raise DevServerError(
                f"no {self.kind} answers on {LOOPBACK}:{self.usual_port} and no {self.programs[0]} is installed: "
                f"install it (Debian's package has that name), or name one by PGBG_{self.kind.upper()}_URL"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "port").write_text(str(port))
        try:
            self._spawn(program, port)
            self._await_answer(port)
        except BaseException:
            self._end(signal.SIGKILL)
            raise
        return port

    def _await_answer(self, port: int) -> None:
        deadline = time.monotonic() + _DEADLINE
        has_lived = False
        while not ((lives := self._pid() is not None) and self._answers(port)):
            has_ended = has_lived and not lives
            has_lived |= lives
            if has_ended or time.monotonic() > deadline:
                log = self._folder / "log"
                output = log.read_text(errors="replace")[-1000:] if log.exists() else ""
                raise DevServerError(f"{self.kind} does not start:\n{output}")
            time.sleep(0.05)

    def _port(self) -> int | None:
        try:
            return int((self._folder / "port").read_text())
        except (OSError, ValueError):
            return None

    def _pid(self) -> int | None:
        """PID of our live process, or None."""
        try:
            pid = int((self._folder / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if self._is_ours(pid) else None

    def _is_ours(self, pid: int) -> bool:
        """Check whether the process is ours: another process may have its PID by now."""
        return self._mark(self._port() or 0) in command_line(pid)

    def _end(self, signum: signal.Signals) -> None:
        pid, port = self._pid(), self._port()
        if pid is None or port is None:
            return
        send(pid, signum)
        deadline = time.monotonic() + _DEADLINE
        # A dying process loses its command line before its port.
        while self._is_ours(pid) or self._answers(port):
            if time.monotonic() > deadline:
                raise DevServerError(f"{self.kind} with PID {pid} does not end")
            time.sleep(0.02)


class RedisServer(Broker):
    """A Redis (or Valkey) of our own, which keeps nothing on disk."""

    kind = "redis"
    usual_port = 6379
    programs = ("redis-server", "valkey-server")

    def _url(self, port: int) -> str:
        return f"redis://{LOOPBACK}:{port}"

    def _answers(self, port: int) -> bool:
        return answers(port, b"PING\r\n", b"+PONG")

    def _mark(self, port: int) -> str:
        return f"{LOOPBACK}:{port} "

    def _spawn(self, program: str, port: int) -> None:
        options = {
            "bind": LOOPBACK,
            "port": port,
            "save": "",
            "appendonly": "no",
            "daemonize": "yes",
            "dir": self._folder,
            "pidfile": self._folder / "pid",
            "logfile": self._folder / "log",
        }
        command = [program, *(word for key, value in options.items() for word in (f"--{key}", str(value)))]
        subprocess.run(command, check=True, capture_output=True)


class RabbitServer(Broker):
    """A RabbitMQ of our own: a node with its own name, ports and database.

    Args:
        settings: of the application ``rabbit``, such as ``consumer_timeout``, in Erlang's syntax.
    """

    kind = "rabbitmq"
    usual_port = 5672
    programs = ("rabbitmq-server",)

    def __init__(
        self, name: str = "default", directory: Path | None = None, settings: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(name, directory)
        self._settings = "".join(f"-rabbit {key} {value} " for key, value in (settings or {}).items())

    def _url(self, port: int) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{port}//"

    def _answers(self, port: int) -> bool:
        # The header of AMQP 0-9-1; the answer is a method frame on channel 0, Connection.Start.
        return answers(port, b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00")

    def _mark(self, port: int) -> str:
        return f"-pgbg_port {port} "

    def _spawn(self, program: str, port: int) -> None:
        if os.geteuid() == 0:
            # The package's program changes to this user.
            shutil.chown(self._folder, "rabbitmq", "rabbitmq")
        subprocess.run([program, "-detached"], check=True, capture_output=True, cwd="/", env=self._environment(port))

    def _environment(self, port: int) -> dict[str, str]:
        arguments = f"-kernel inet_dist_use_interface {{127,0,0,1}} {self._settings}-pgbg_port {port} "
        ours = {
            "HOME": self._folder,
            "NODENAME": f"pgbg-{self._name}-{port}@localhost",
            "NODE_PORT": port,
            "NODE_IP_ADDRESS": LOOPBACK,
            "DIST_PORT": free_port(),
            "MNESIA_BASE": self._folder / "mnesia",
            "LOG_BASE": self._folder,
            "LOGS": self._folder / "log",
            "PID_FILE": self._folder / "pid",
            "CONFIG_FILE": self._folder / "none",
            "CONF_ENV_FILE": self._folder / "none",
            "ENABLED_PLUGINS_FILE": self._folder / "plugins",
            "SERVER_ADDITIONAL_ERL_ARGS": arguments,
        }
        prefixed = {key if key == "HOME" else f"RABBITMQ_{key}": str(value) for key, value in ours.items()}
        return {**os.environ, **prefixed}
