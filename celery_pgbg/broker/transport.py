"""The transport ``pgbg``, for kombu."""

from __future__ import annotations

from typing import Any

import psycopg
from amqp.exceptions import ChannelError as AmqpChannelError
from kombu.exceptions import ChannelError
from kombu.transport import base

from celery_pgbg.broker.channel import Channel
from celery_pgbg.broker.connection import BrokerConnection
from celery_pgbg.broker.declarations import EXCHANGE_TYPES
from celery_pgbg.broker.manager import Management
from celery_pgbg.broker.station import station_of
from celery_pgbg.broker.urls import address_of, describe
from celery_pgbg.celery_patches.transports import admit
from celery_pgbg.errors import SessionLost

#: Celery decides by this name whether a transport supports mingle and gossip.
DRIVER_TYPE = "pgbg"


class Transport(base.Transport):
    """Queues in the schema ``celery_pgbg``.

    ``pgbg://`` is the database of ``pgbg_dsn``; ``pgbg+postgresql://user@host/db`` names another.
    """

    Management = Management

    can_parse_url = True
    driver_type = DRIVER_TYPE
    driver_name = "psycopg"

    connection_errors = (SessionLost, psycopg.OperationalError, psycopg.InterfaceError)
    recoverable_connection_errors = connection_errors
    channel_errors = (ChannelError, AmqpChannelError)
    recoverable_channel_errors = ()

    implements = base.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(EXCHANGE_TYPES), heartbeats=False
    )

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        admit(DRIVER_TYPE)

    def driver_version(self) -> str:
        """The version of psycopg."""
        return psycopg.__version__

    def establish_connection(self) -> BrokerConnection:
        """Check that the server answers; all connections of the process share the sessions.

        Raises:
            SessionLost: it does not answer.
            ConfigurationError: it will never answer, or our schema is missing.
        """
        station = station_of(address_of(self.client))
        station.outlet.check()
        return BrokerConnection(station, self.client)

    def close_connection(self, connection: BrokerConnection) -> None:
        """Close its channels."""
        connection.close()

    def _collect(self, connection: BrokerConnection | None) -> None:
        """Called after a fork, and after an error."""
        if connection is not None:
            connection.abandon()

    def create_channel(self, connection: BrokerConnection) -> Channel:
        """Make a channel."""
        return connection.channel()

    def close_channel(self, channel: Channel) -> None:
        """Close a channel."""
        channel.close()

    def verify_connection(self, connection: BrokerConnection) -> bool:
        """Whether the connection is open, as far as known."""
        return connection.connected

    def drain_events(self, connection: BrokerConnection, timeout: float | None = None, **options: Any) -> None:
        """Wait for one message and deliver it."""
        connection.drain_events(timeout)

    def register_with_event_loop(self, connection: BrokerConnection, loop: Any) -> None:
        """Let the loop read."""
        connection.read_by(loop)

    def unregister_from_event_loop(self, connection: BrokerConnection, loop: Any) -> None:
        """Do not let the loop read any more."""
        connection.read_by(None)

    def heartbeat_check(self, connection: BrokerConnection, rate: int = 2) -> None:
        """Called by our pool while it waits in a warm shutdown, when no event loop runs."""
        connection.keep()

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """The URL, for people to read."""
        return describe(self.client, include_password, mask)

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """None: ``pgbg_dsn`` has the parameters."""
        return {}
