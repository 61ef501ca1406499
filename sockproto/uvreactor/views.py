"""
A connection as others see it: uvloop, when it reads little; its TLS; a socket's user.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sockproto.uvreactor.connection import Connection

__all__ = ["BorrowedSocket", "InPieces", "UnderTLS", "joined"]


def joined(pieces: Iterable[bytes]) -> bytes:
    """
    Join what is to be written, as Twisted's transports do.

    Raises:
        TypeError: one is not like bytes.
    """
    try:
        return b"".join(pieces)
    except TypeError:
        raise TypeError("Data must be bytes") from None


class InPieces:
    """
    A connection as uvloop sees it that is to read little at a time.

    As `asyncio.BufferedProtocol` has it; all else is the connection's. The reactor's
    connections share a buffer: from `get_buffer` to `buffer_updated` it has one user.
    """

    def __init__(self, connection: Connection, size: int) -> None:
        self._connection = connection
        self._buffer = connection.reactor.buffer[:size]
        self.eof_received = connection.eof_received
        self.connection_lost = connection.connection_lost
        self.pause_writing = connection.pause_writing
        self.resume_writing = connection.resume_writing

    @property
    def connection(self) -> Connection:
        """Whose pieces they are."""
        return self._connection

    def get_buffer(self, wanted: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        self._connection.data_received(bytes(self._buffer[:size]))


class UnderTLS:
    """
    A connection as its TLS sees it: what `startTLS` has changed is what it was.
    """

    def __init__(self, connection: Connection, write: Any) -> None:
        self._connection = connection
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        self.write(joined(pieces))

    # These the connection has as its class's, and over them those of its TLS.

    def loseConnection(self) -> None:
        connection = self._connection
        type(connection).loseConnection(connection)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        connection = self._connection
        type(connection).registerProducer(connection, producer, streaming)

    def unregisterProducer(self) -> None:
        connection = self._connection
        type(connection).unregisterProducer(connection)


class BorrowedSocket(socket.socket):
    """
    A connection's socket, whose descriptor is uvloop's: that closes it.
    """

    connection: Connection

    def close(self) -> None:
        self.connection.let_go()

    def __del__(self) -> None:
        self.detach()
