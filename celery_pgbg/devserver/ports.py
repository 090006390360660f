"""Loopback ports: finds a free port, and checks which server answers on a port."""

from __future__ import annotations

import secrets
import socket

#: Where to look for a free port: below the range out of which Linux gives ports to clients, one of which
#: could take it before the server that it is meant for.
PORTS = range(20_000, 32_768)

LOOPBACK = "127.0.0.1"


def free_port(preferred: int = 0) -> int:
    """Find a free port: the preferred port, if it is free."""
    port = preferred or secrets.choice(PORTS)  # tests seed the module random
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return free_port()
    return port


def answers(port: int, question: bytes = b"", beginning: bytes = b"") -> bool:
    """Check whether something accepts connections, and begins its answer to the question as expected."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as session:
            session.sendall(question)
            return not beginning or session.recv(len(beginning)) == beginning
    except OSError:
        return False
