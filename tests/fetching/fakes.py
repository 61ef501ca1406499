"""
Responses, sinks and connections in memory that the tests of fetching share.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
)
from twisted.internet.interfaces import (
    IConsumer,
    INegotiated,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

import sockproto.tls  # noqa: F401 - what a lost connection is told depends on it
from sockproto.fetching import FetchObserver, FetchProtocol, Url
from sockproto.version import __version__
from sockproto.wire.exchange import Exchange
from tests.contracts import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sockproto.wire.response import HeadCame, InterimCame, ResponseEnded


HEAD = b"HTTP/1.1 200 OK\r\n"


FIVE = HEAD + b"Content-Length: 5\r\n\r\n"


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


TO_CLOSE = HEAD + b"\r\n"


LAST = b"0\r\n\r\n"


GZIP = b"Content-Encoding: gzip\r\n"


USUAL = b"User-Agent: sockproto/%b\r\nAccept: */*\r\nConnection: close\r\n" % (
    __version__.encode()
)


REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def sized(body: bytes, *fields: bytes) -> bytes:
    """A response with this body and its length."""
    return HEAD + b"".join(fields) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def redirect(location: str | bytes, status: int = 302, body: bytes = b"") -> bytes:
    """A response that leads elsewhere."""
    if isinstance(location, str):
        location = location.encode()
    return b"HTTP/1.1 %d Elsewhere\r\nLocation: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        location,
        len(body),
        body,
    )


def basic(user: bytes) -> bytes:
    """The field that says who we are."""
    return b"Authorization: Basic %b\r\n" % b64encode(user)


class Basket:
    """
    A sink that keeps what it is given, or raises instead.
    """

    def __init__(
        self, begin: BaseException | None = None, write: BaseException | None = None
    ) -> None:
        self._begin = begin
        self._write = write
        self.heads: list[HeadCame] = []
        self.body = b""

    def begin(self, head: HeadCame) -> None:
        if self._begin is not None:
            raise self._begin
        self.heads.append(head)

    def write(self, data: bytes) -> None:
        if self._write is not None:
            raise self._write
        self.body += data


@implementer(IConsumer)
class Bucket:
    """
    A consumer that says that it is full.

    Attributes:
        fills: whether each write fills it.
        on_write: is called when it has been written to.
    """

    def __init__(self, *, fills: bool = False) -> None:
        self.fills = fills
        self.on_write: Callable[[], object] = lambda: None
        self.on_register: Callable[[], object] = lambda: None
        self.producer: Any = None
        self.registered = 0
        self.body = b""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None
        assert streaming
        self.producer = producer
        self.registered += 1
        self.on_register()

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def pause(self) -> None:
        """Say that it is full."""
        self.producer.pauseProducing()

    def resume(self) -> None:
        """Say that it is not."""
        self.producer.resumeProducing()

    def stop(self) -> None:
        """Say that it wants no more."""
        self.producer.stopProducing()

    def write(self, data: bytes) -> None:
        assert self.producer is not None
        self.body += data
        if self.fills:
            self.producer.pauseProducing()
        self.on_write()


class Noting(FetchObserver):
    """
    Keeps what it is told.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def names(self) -> list[str]:
        """What happened, without what."""
        return [name for name, _ in self.told]

    def of(self, name: str) -> list[Any]:
        """What was told under this name."""
        return [what for seen, what in self.told if seen == name]

    def resolved(self, host: str, addresses: Sequence[str]) -> None:
        self.told.append(("resolved", (host, list(addresses))))

    def connected(self, here: str, there: str) -> None:
        self.told.append(("connected", (here, there)))

    def secured(self, session: dict[str, Any]) -> None:
        self.told.append(("secured", session))

    def sent(self, data: bytes) -> None:
        self.told.append(("sent", data))

    def received(self, data: bytes) -> None:
        self.told.append(("received", data))

    def closed(self, why: str) -> None:
        self.told.append(("closed", why))

    def asked(self, url: Url, request: bytes) -> None:
        self.told.append(("asked", (str(url), request)))

    def interim_came(self, interim: InterimCame) -> None:
        self.told.append(("interim_came", interim.status))

    def head_came(self, head: HeadCame) -> None:
        self.told.append(("head_came", head.status))

    def redirected(self, url: Url) -> None:
        self.told.append(("redirected", str(url)))

    def ended(self, end: ResponseEnded, behind: bytes) -> None:
        self.told.append(("ended", (end.trailers, behind)))


class Conversation:
    """
    A `FetchProtocol` on a `StringTransport`, with what came of it.
    """

    def __init__(  # noqa: PLR0913
        self,
        *,
        request: bytes = REQUEST,
        method: str = "GET",
        basket: Basket | None = None,
        wanted: bool = True,
        tls: bool = False,
        transport: StringTransport | None = None,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.basket = basket or Basket()
        self.transport = transport or StringTransport()
        if tls:
            directlyProvides(self.transport, INegotiated)

        def begin(head: HeadCame) -> Basket | None:
            self.basket.begin(head)
            return self.basket if wanted else None

        options.setdefault("clock", self.clock)
        self.protocol = FetchProtocol(Exchange(request, method), begin, **options)
        self.outcomes: list[HeadCame | BaseException] = []
        self.protocol.done.addCallbacks(
            self.outcomes.append, lambda failure: self.outcomes.append(failure.value)
        )
        self.protocol.makeConnection(self.transport)

    def lose(self, *, why: BaseException, half_close: bool = False) -> None:
        """End the connection, the peer's side of it first if it can be so."""
        if half_close:
            self.protocol.readConnectionLost()
        if self.transport.disconnected:
            why = ConnectionAborted()
        self.protocol.connectionLost(Failure(why))

    @property
    def outcome(self) -> HeadCame | BaseException:
        """The one thing that `done` fired with."""
        (outcome,) = self.outcomes
        return outcome


class Line(MemoryTransport):
    """
    A connection in memory, and what its peer does to it.

    Who closes it is told in the reactor's next turn that it is closed.
    """

    def __init__(self, clock: Any, address: tuple[str, int]) -> None:
        kind = IPv6Address if ":" in address[0] else IPv4Address
        super().__init__(peerAddress=kind("TCP", *address))
        self.clock = clock
        self.address = address
        self.protocol: Any = None
        self.lost = False

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.clock.callLater(0, self.break_off, ConnectionDone())
        super().loseConnection()

    def abortConnection(self) -> None:
        self.disconnected = True
        if not self.disconnecting:
            self.clock.callLater(0, self.break_off, ConnectionAborted())
        self.disconnecting = True

    def say(self, *said: bytes) -> None:
        """Have the peer send this."""
        for data in said:
            if not self.disconnecting:
                self.protocol.dataReceived(data)
        self.clock.advance(0)

    def end(self) -> None:
        """Have the peer end its side."""
        if not self.disconnecting:
            self.protocol.readConnectionLost()
        self.clock.advance(0)

    def break_off(self, why: BaseException) -> None:
        """Lose the connection."""
        if not self.lost:
            self.lost = self.disconnecting = True
            self.protocol.connectionLost(Failure(why))

    @property
    def request(self) -> bytes:
        """What was sent."""
        value: bytes = self.value()
        return value
