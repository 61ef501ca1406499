"""
Echo over a stream (RFC 862): every byte back, in order. The service and its client.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import implementer

from sockproto.connecting import ClientStream, connect, fail_all, fire
from sockproto.errors import MisuseError, PeerError, PeerLeftOwing, SockprotoError
from sockproto.interfaces import IAttended
from sockproto.stream import StreamFactory, StreamProtocol

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

    from sockproto.connecting import Observer

__all__ = ["EchoClient", "EchoFactory", "EchoProtocol", "connect_echo"]


@implementer(IAttended)
class EchoProtocol(StreamProtocol):
    """
    Sends back what it reads, and reads no faster than the peer does.
    """

    attendants = rolls = ()  # it hands its transport to nobody

    def _begin(self) -> None:
        # The transport is its own producer: full of what it has to send, it
        # stops reading, and the peer's writes come to a halt.
        self.transport.registerProducer(self.transport, True)

    @property
    def bytes_sent(self) -> int:
        """Bytes written in all: one count a message is enough, of what differs."""
        return self.bytes_received + super().bytes_sent

    @bytes_sent.setter
    def bytes_sent(self, size: int) -> None:
        self._sent = size - self.bytes_received

    def dataReceived(self, data: bytes) -> None:
        if self._finishing:
            self._sent -= len(data)
            super().dataReceived(data)
        else:
            self._received += len(data)
            self._writer.write(data)


class EchoFactory(StreamFactory):
    """
    Builds `EchoProtocol`s.
    """

    protocol = EchoProtocol


class EchoClient(ClientStream):
    """
    The client of an echo service.

    Bytes that come while none are owed are dropped.
    """

    def __init__(self, observer: Observer | None = None) -> None:
        super().__init__(observer)
        self._awaited: deque[tuple[int, Deferred[bytes]]] = deque()
        self._came = bytearray()
        self._leaving = False

    def echo(self, data: bytes) -> Deferred[bytes]:
        """
        Send bytes; fires with as many bytes of what comes back.

        Calls may overlap; their answers come in order. Cancelling one aborts
        the connection: what comes back could not be told apart any more.

        Raises:
            MisuseError: `close` was called before.

        Errors:
            PeerLeftOwing: the peer closed before it sent all back.
            ConnectionWasReset: the connection broke.
        """
        if self._leaving:
            raise MisuseError("close() was called before echo()")
        answer: Deferred[bytes] = Deferred(self._cancelled)
        if self.ended is not None:
            answer.errback(self.ended)
        elif not data:
            answer.callback(b"")
        else:
            self._awaited.append((len(data), answer))
            self.send(data)
        return answer

    def close(self) -> Deferred[None]:
        """
        End our side; fires when the peer has ended its own.

        What is still owed to us is awaited. Errors: those of `echo`.
        """
        self._leaving = True
        if self.ended is None:
            self.end_input()
        return self.closed()

    def _received(self, data: bytes) -> None:
        self._came += data
        while self._awaited and len(self._came) >= self._awaited[0][0]:
            size, answer = self._awaited.popleft()
            echoed = bytes(self._came[:size])
            del self._came[:size]
            fire(answer, echoed)
        if not self._awaited:
            self._came.clear()  # nobody asked for it: it must not pile up

    def _shortfall(self) -> PeerError | None:
        owed = sum(size for size, _ in self._awaited) - len(self._came)
        return PeerLeftOwing(f"{owed} bytes") if self._awaited else None

    def _over(self, error: SockprotoError) -> None:
        awaited = [answer for _, answer in self._awaited]
        self._awaited.clear()
        fail_all(awaited, error)


def connect_echo(
    endpoint: IStreamClientEndpoint, *, observer: Observer | None = None
) -> Deferred[EchoClient]:
    """
    Connect an `EchoClient`; cancelling gives up the attempt.

    Errors:
        NameNotResolved, NotConnected, TimedOut: as `connect` says.
    """
    return connect(endpoint, lambda: EchoClient(observer))
