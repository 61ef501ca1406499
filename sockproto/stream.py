"""
What the stream services share: half-close, back-pressure, an orderly close.

Theory of operation. The peer may end its input long before it has read what
it is owed; so its end of file is an event like others, and the connection goes
on until all is sent. Who answers what it reads can be made to buffer without
bound by a peer that does not read; so each protocol registers a producer with
its transport, and stops reading while that is paused. The last words reach the
peer, as `sockproto.closing` has it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from zope.interface import implementer

from sockproto.checks import choice
from sockproto.closing import OrderlyClose, close_at_once
from sockproto.interfaces import Debt, IOwing, ISteadyReceiver
from sockproto.reporting import Log, describe_address, describe_loss, log
from sockproto.transports import StreamTransport, unsent

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorTime
    from twisted.python.failure import Failure

    from sockproto.interfaces import Attendant, Writer
    from sockproto.rolls import Roll

__all__ = ["StreamFactory", "StreamProtocol"]


@implementer(IHalfCloseableProtocol, IOwing, ISteadyReceiver)
class StreamProtocol(Protocol):
    """
    One connection of a stream service; the service's own part is in a subclass.

    Subclasses override `_begin`, `_receive` and `_lost`, write with `_send`, and end
    with `finish`.
    """

    # Each message looks at these, and an instance's dictionary is further away.
    __slots__ = ("_finishing", "_received", "_sent", "_writer")

    transport: StreamTransport  # type: ignore[assignment]
    factory: StreamFactory

    attendants: tuple[Attendant, ...] = ()
    rolls: tuple[Roll, ...] = ()
    """As `IAttended` has them, of those that keep to that."""

    _finishing: bool
    _received: int
    _sent: int
    _writer: Writer
    _input_ended = False
    _close: OrderlyClose | None = None
    _reason: str | None = None
    _began = 0.0

    @property
    def bytes_received(self) -> int:
        """Bytes received in all."""
        return getattr(self, "_received", 0)  # it may not be connected yet

    @bytes_received.setter
    def bytes_received(self, size: int) -> None:
        self._received = size

    @property
    def bytes_sent(self) -> int:
        """Bytes written in all."""
        return getattr(self, "_sent", 0)

    @bytes_sent.setter
    def bytes_sent(self, size: int) -> None:
        self._sent = size

    def connectionMade(self) -> None:
        self._finishing = False
        self._received = self._sent = 0
        self._writer = self.transport
        self._close = None  # the instance's own are found faster than the class's
        for each in self.attendants:
            each.made(self)
        for roll in self.rolls:
            roll.add(self)
        factory = self.factory
        factory.connections.add(self)
        if factory.logs_connections:
            self._began = factory.clock.seconds()
            log.info("Accept new connection from {peer}...", peer=self.peer)
        if not getattr(self.transport, "no_delay", False):
            self._send_at_once()
        self._begin()

    def _send_at_once(self) -> None:
        # An answer is small and final: Nagle's delay would only hold it up.
        if ITCPTransport.providedBy(self.transport):
            with suppress(OSError):  # a unix socket, or the peer has gone
                self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if self._close is not None:
            self._close.data_received(len(data))
        elif not self._finishing:
            self._receive(data)

    def write_to(self, writer: Writer) -> None:
        self._writer = writer

    def readConnectionLost(self) -> None:
        self._input_ended = True
        if self._close is not None:
            self._close.read_connection_lost()
        else:
            self.finish("the client closed")

    def writeConnectionLost(self) -> None:
        if self._close is not None:
            self._close.write_connection_lost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        for each in self.attendants:
            each.lost(self)
        try:
            if self._close is not None:
                self._close.connection_lost()
            self._finishing = True
            self._writer = _NOBODY
            self._lost()
            factory = self.factory
            factory.connections.discard(self)
            if factory.logs_connections:
                self._log_end(reason)
        finally:
            for roll in self.rolls:
                roll.discard(self)
            for each in self.attendants:
                each.gone(self)

    def _log_end(self, reason: Failure) -> None:
        log.info(
            "Connection from {peer} closed."
            " ({received} bytes in, {sent} out, {seconds:.3f} s: {reason})",
            peer=self.peer,
            received=self.bytes_received,
            sent=self.bytes_sent,
            seconds=self.factory.clock.seconds() - self._began,
            reason=self._reason or describe_loss(reason),
        )

    @property
    def peer(self) -> str:
        """The other end's address, for people."""
        return describe_address(self.transport.getPeer())

    # IOwing

    def owed(self) -> Debt:
        return Debt(unsent=unsent(self.transport))

    def finish(self, reason: str) -> None:
        if self._finishing:
            return
        self._finishing = True
        self._reason = reason
        if self._input_ended:
            close_at_once(self.transport)
        else:
            self._close = OrderlyClose(self.transport, self.factory.clock)
            self._close.begin(input_ended=False)

    def abort(self, reason: str) -> None:
        self._reason = reason
        self._finishing = True
        self.transport.abortConnection()

    # For subclasses

    def _begin(self) -> None:
        """The connection is there: register a producer, say the first word."""
        raise NotImplementedError

    def _receive(self, data: bytes) -> None:
        """Bytes have come."""
        raise NotImplementedError

    def _lost(self) -> None:
        """The connection is gone: stop what was waiting for it."""

    def _send(self, data: bytes) -> None:
        self._sent += len(data)
        self._writer.write(data)


class _Nobody:
    """
    Stands where a transport was.
    """

    __slots__ = ()

    def write(self, data: bytes, /) -> None:
        """Drop it."""


_NOBODY = _Nobody()


class StreamFactory(Factory):
    """
    Builds the connections of one stream service, and knows those that live.

    Args:
        clock: measures delays and deadlines; the reactor, outside tests.
        log: what is logged of a connection.

    Attributes:
        connections: those that are there now; each provides `IOwing`.
    """

    protocol: type[StreamProtocol]  # type: ignore[assignment]
    noisy = False

    def __init__(
        self, clock: IReactorTime, *, log: Log | str = Log.CONNECTIONS
    ) -> None:
        self.clock = clock
        self.log = choice("log", Log, log)
        self.logs_connections = self.log is not Log.NONE
        self.connections: set[StreamProtocol] = set()

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> StreamProtocol:
        protocol = self.protocol()
        protocol.factory = self
        return protocol
