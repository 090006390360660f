"""A TCP proxy on the loopback that cuts and stalls connections."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from typing import Any, Literal

#: SO_LINGER with no time: closing sends RST instead of FIN.
_RESET = struct.pack("ii", 1, 0)

#: So much of what a client sends first is kept, to know who it is.
_FIRST_BYTES = 2048


class _Connection:
    """A client's connection, and ours to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.other_end = {client: server, server: client}
        self.said = b""
        self.stalled = False
        #: What is kept back from the client while stalled.
        self.rest = b""


class TcpProxy:
    """Forwards to one server, in a thread of its own. Any thread may call.

    ``said`` chooses connections by bytes that their client sent first, such as an ``application_name``.

    Attributes:
        port: where it listens.
        accepted: how many connections there were, also those that the server refused.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.accepted = 0
        self._connections: list[_Connection] = []
        self._stalls_new = False
        self._stalls_after: bytes | None = None
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self.cut()
        self._listening.close()
        self._selector.close()

    def count(self, said: bytes = b"") -> int:
        """How many connections there are."""
        with self._lock:
            return len(self._chosen(said))

    def cut(self, how: Literal["reset", "close"] = "reset", said: bytes = b"") -> int:
        """End connections on both sides, with RST or with FIN; returns how many."""
        with self._lock:
            chosen = self._chosen(said)
            for connection in chosen:
                self._end(connection, reset=how == "reset")
            return len(chosen)

    def stall(self, said: bytes = b"", new_ones: bool = False) -> int:
        """Forward nothing more on these connections, which stay open; returns how many."""
        with self._lock:
            self._stalls_new = new_ones
            chosen = [connection for connection in self._chosen(said) if not connection.stalled]
            for connection in chosen:
                self._unregister(connection)
                connection.stalled = True
            return len(chosen)

    def stall_after(self, answer: bytes) -> None:
        """Stall the connection on which these bytes go to a client, after the last of them."""
        self._stalls_after = answer

    @property
    def has_stalled(self) -> bool:
        """Whether a connection is stalled."""
        return any(connection.stalled for connection in self._connections)

    def resume(self) -> None:
        """Forward again."""
        with self._lock:
            self._stalls_new, self._stalls_after = False, None
            for connection in self._connections:
                if connection.stalled:
                    connection.stalled = False
                    connection.client.sendall(connection.rest)
                    connection.rest = b""
                    self._register(connection)

    def _chosen(self, said: bytes) -> list[_Connection]:
        return [connection for connection in self._connections if said in connection.said]

    def _register(self, connection: _Connection) -> None:
        for end in connection.other_end:
            self._selector.register(end, selectors.EVENT_READ, connection)

    def _unregister(self, connection: _Connection) -> None:
        for end in connection.other_end:
            self._selector.unregister(end)

    def _end(self, connection: _Connection, reset: bool) -> None:
        if not connection.stalled:
            self._unregister(connection)
        self._connections.remove(connection)
        for end in connection.other_end:
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()

    # --- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    self._serve(key.fileobj, key.data)

    def _serve(self, source: Any, connection: _Connection | None) -> None:
        if connection is None:
            self._accept()
        elif connection in self._connections and not connection.stalled:
            try:
                self._forward(source, connection)
            except OSError:
                self._end(connection, reset=False)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        self.accepted += 1
        try:
            connection = _Connection(client, socket.create_connection(self._target))
        except OSError:
            client.close()
            return
        connection.stalled = self._stalls_new
        self._connections.append(connection)
        if not connection.stalled:
            self._register(connection)

    def _forward(self, source: socket.socket, connection: _Connection) -> None:
        data = source.recv(65536)
        if source is connection.client and len(connection.said) < _FIRST_BYTES:
            connection.said += data
        if self._stalls_after and self._stalls_after in data:
            head, marker, connection.rest = data.partition(self._stalls_after)
            data = head + marker
            self._unregister(connection)
            connection.stalled = True
        if data:
            connection.other_end[source].sendall(data)
        else:
            self._end(connection, reset=False)
