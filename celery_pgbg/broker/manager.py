"""What kombu's management interface can show."""

from __future__ import annotations

from typing import Any

from kombu.transport import base


class Management(base.Management):
    """Lists bindings, for ``celery inspect`` and Flower."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self._channel = transport.client.channel()

    def get_bindings(self) -> list[dict[str, str]]:
        """All bindings of queues to exchanges."""
        return [
            {"destination": queue, "source": exchange, "routing_key": key}
            for queue, exchange, key in self._channel.list_bindings()
        ]

    def close(self) -> None:
        """Close its channel."""
        self._channel.close()
