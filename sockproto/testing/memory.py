"""
A connection in memory: the test is its peer, its kernel and its reactor.
"""

# ruff: noqa: N802 - Twisted's interfaces have these names

from __future__ import annotations

from errno import EWOULDBLOCK
from socket import SO_LINGER
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockproto.transports import buffered

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory

__all__ = ["MemoryTransport", "connect"]

ENDS_TOLD = 100
"""How often end of file is told before we take it for a busy loop."""

_log = Logger(namespace="sockproto.testing")


class _Kernel:
    """
    The socket of a `MemoryTransport`: what the one side has not read yet, and what
    the other has.
    """

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.incoming_ended = False
        self.room = 0
        self.taken = bytearray()
        self.ended = False
        self.aborted = False
        self._options: dict[tuple[int, int], object] = {}

    def setblocking(self, flag: bool) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def recv(self, size: int) -> bytes:
        if not self.incoming and not self.incoming_ended:
            raise BlockingIOError(EWOULDBLOCK, "nothing to read")
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data

    def send(self, data: bytes | memoryview) -> int:
        size = min(self.room, len(data))
        self.taken += data[:size]
        self.room -= size
        return size

    def getsockopt(self, level: int, option: int) -> object:
        return self._options.get((level, option), 0)

    def setsockopt(self, level: int, option: int, value: object) -> None:
        if option == SO_LINGER:
            self.aborted = True
        self._options[level, option] = value

    def shutdown(self, how: int) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True


class MemoryTransport(Connection):
    """
    A TCP connection in memory: the test is its peer, its kernel and its reactor.

    It is Twisted's own `Connection`, with another socket under it. So producers,
    half-close, abort, `startTLS` and what happens when calls meet are Twisted's.
    What the reactor would do in its next turn, it does with the clock's
    (`clock.advance(0)`): read again once reading was resumed, close once all is
    taken, tell of an abort. An exception of the protocol's is logged, as by the
    reactor, and ends the connection.

    Args:
        clock: its turns are the reactor's.
        client: whether it is the client in a TLS handshake.

    Attributes:
        protocol: whom it tells; gone, as with Twisted, once the connection is.
        reading: whether the protocol lets it read.
    """

    reading = False

    _look: IDelayedCall | None = None
    _writing = False
    _aborting: bool
    _ends_told = 0

    def __init__(self, clock: Clock | None = None, *, client: bool = False) -> None:
        self.clock = Clock() if clock is None else clock
        self._kernel = _Kernel()
        self._tlsClientDefault = client
        super().__init__(
            cast("socket.socket", self._kernel), Protocol(), cast("Any", self.clock)
        )
        self.connected = 1
        self.startReading()

    def connect(self, protocol: IProtocol) -> None:
        """Connect a protocol, as a port does with a new connection."""
        self.protocol = protocol
        protocol.makeConnection(self)

    # For the test: what the peer does and sees

    def deliver(self, data: bytes) -> None:
        """The peer sends; what is not read now is read later, and told in order."""
        self._kernel.incoming += data
        self._read()

    def end_input(self) -> None:
        """The peer sends end of file, after what it has sent."""
        self._kernel.incoming_ended = True
        self._read()

    def take(self, size: int | None = None) -> bytes:
        """Let the peer take so many bytes, or what is unsent now; return them."""
        kernel = self._kernel
        before = len(kernel.taken)
        kernel.room = self.unsent if size is None else size
        while kernel.room and self.unsent and self._alive:
            self._do(self.doWrite)
        kernel.room = 0
        return bytes(kernel.taken[before:])

    def lose(self, error: Exception | None = None) -> None:
        """Break the connection, with `ConnectionLost` as after a reset."""
        if self.connected:
            self._disconnect(error or ConnectionLost(), read=False)

    @property
    def taken(self) -> bytes:
        """All that the peer has taken."""
        return bytes(self._kernel.taken)

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the peer has not taken."""
        return buffered(self)

    @property
    def output_ended(self) -> bool:
        """Whether the peer has been told end of file."""
        return self._kernel.ended and not self._kernel.aborted

    @property
    def aborted(self) -> bool:
        """Whether the peer has been sent a reset."""
        return self._kernel.aborted

    # For the protocol, where Twisted's has a real socket

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 9999)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.2", 50123)

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        from twisted.protocols import tls

        # Else small writes would wait for a turn of the global reactor.
        with patch.object(tls, "_get_default_clock", lambda: self.clock):
            super().startTLS(ctx, normal)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self._look is not None:
            self._look.cancel()
            self._look = None

    # The reactor

    def startReading(self) -> None:
        self.reading = True
        self._look_soon()

    def stopReading(self) -> None:
        self.reading = False

    def startWriting(self) -> None:
        self._writing = True
        self._look_soon()

    def stopWriting(self) -> None:
        self._writing = False

    @property
    def _alive(self) -> bool:
        return bool(self.connected) and not self._aborting

    @property
    def _readable(self) -> bool:
        kernel = self._kernel
        return self.reading and bool(kernel.incoming or kernel.incoming_ended)

    def _look_soon(self) -> None:
        due = self._readable or (self._writing and not self.unsent)
        if due and self._alive and self._look is None:
            self._look = self.clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._look = None
        self._read()
        if self._writing and not self.unsent and self._alive:
            self._do(self.doWrite)

    def _read(self) -> None:
        while self._readable and self._kernel.incoming and self._alive:
            self._do(self.doRead, read=True)
        if self._readable and not self._kernel.incoming and self._alive:
            self._ends_told += 1
            if self._ends_told > ENDS_TOLD:
                raise RuntimeError("end of file is told, and reading resumed, for ever")
            self._do(self.doRead, read=True)

    def _do(self, step: Callable[[], Any], *, read: bool = False) -> None:
        try:
            why = step()
        except Exception as error:  # noqa: BLE001 - as the reactor does
            _log.failure("the protocol raised")
            why = error
        if why is not None:
            self._disconnect(why, read=read)

    def _disconnect(self, why: Exception, *, read: bool) -> None:
        self.stopReading()
        if read and isinstance(why, ConnectionDone):
            self.readConnectionLost(Failure(why))
        else:
            self.stopWriting()
            self.connectionLost(Failure(why))


def connect(
    factory: IProtocolFactory, clock: Clock | None = None
) -> tuple[Any, MemoryTransport]:
    """
    Connect a new protocol of a factory's, which must not refuse; return both ends.
    """
    transport = MemoryTransport(clock)
    protocol = factory.buildProtocol(transport.getPeer())
    assert protocol is not None, "the connection is refused"
    transport.connect(protocol)
    return protocol, transport
