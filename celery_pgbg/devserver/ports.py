"""Loopback ports: which is free, and who answers on one."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


def free_port(preferred: int = 0) -> int:
    """Find a port that nobody uses now: the preferred one if that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, preferred))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


def answers(port: int, question: bytes = b"", beginning: bytes = b"") -> bool:
    """Tell whether something accepts connections, and begins its answer to the question as expected."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as session:
            session.sendall(question)
            return not beginning or session.recv(len(beginning)) == beginning
    except OSError:
        return False
