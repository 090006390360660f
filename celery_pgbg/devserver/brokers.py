"""A Redis to use as broker: one that answers, else one started from an installed ``redis-server``."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from celery_pgbg.devserver.errors import DevServerError
from celery_pgbg.devserver.server import free_port


class RedisServer:
    """A Redis of our own, which keeps nothing on disk.

    Args:
        name: several have several names.
        directory: where its PID is kept; ``PGBG_DEVSERVER_DIR``, else ``.devserver`` here.
    """

    def __init__(self, name: str = "default", directory: Path | None = None) -> None:
        base = (directory or Path(os.environ.get("PGBG_DEVSERVER_DIR", ".devserver"))).absolute()
        self._folder = base / "redis" / name

    def find_or_start(self) -> str:
        """Find the usual one, else start our own.

        Returns:
            Its URL, without a database number.

        Raises:
            DevServerError: none answers, and none is installed.
        """
        return "redis://127.0.0.1:6379" if answers(6379) else self.start()

    def start(self) -> str:
        """Start our own unless it runs. Returns its URL."""
        state = self._folder / "state"
        if state.exists():
            pid, port = map(int, state.read_text().split())
            if answers(port):
                return f"redis://127.0.0.1:{port}"
            self._kill(pid)
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise DevServerError("no Redis answers on 127.0.0.1:6379 and no redis-server is installed")
        self._folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        pidfile, log = self._folder / "pid", self._folder / "log"
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        command += ["--daemonize", "yes", "--pidfile", str(pidfile), "--logfile", str(log), "--dir", str(self._folder)]
        subprocess.run(command, check=True, capture_output=True)
        deadline = time.monotonic() + 20
        while not (answers(port) and pidfile.exists()):
            if time.monotonic() > deadline:
                raise DevServerError(f"redis-server does not start:\n{log.read_text()[-1000:]}")
            time.sleep(0.05)
        state.write_text(f"{int(pidfile.read_text())} {port}")
        return f"redis://127.0.0.1:{port}"

    def stop(self) -> None:
        """Stop our own, if it runs."""
        state = self._folder / "state"
        if state.exists():
            self._kill(int(state.read_text().split()[0]))
            state.unlink()

    def _kill(self, pid: int) -> None:
        try:
            if b"redis" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
        except (FileNotFoundError, ProcessLookupError):
            pass


def answers(port: int) -> bool:
    """Tell whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
