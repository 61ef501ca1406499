"""
What every stream service keeps, written once; and the peers that try it.
"""

from __future__ import annotations

import select
import socket
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from sockproto.transports import unsent

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import (
        IListeningPort,
        IProtocol,
        IStreamClientEndpoint,
        IStreamServerEndpoint,
    )
    from twisted.logger import LogEvent

    from sockproto.stream import StreamFactory, StreamProtocol

    _Case = TestCase
else:
    _Case = object

__all__ = [
    "LogLines",
    "MemoryTransport",
    "OverTcp",
    "OverUnix",
    "Peer",
    "StreamServiceContract",
    "connect_in_memory",
    "directory",
    "forgive_twisted_certificates",
    "join",
    "lose",
    "serve_tcp",
    "turns_until",
]

MOST_HELD = 256 * 1024
"""Bytes that a connection may cost, whatever its client does."""

FLOOD_PIECE = 16_384
"""Bytes, about, that a flood has at a time."""

KERNEL_BUFFER = 65_536
"""Bytes that the kernel is asked to hold of the answers, so that little fills it."""


def forgive_twisted_certificates(case: SynchronousTestCase) -> None:
    """
    Drop one warning: Twisted hands pyOpenSSL the objects that it always has.

    `suppress` of trial's ends before a coroutine begins.
    """

    def drop() -> None:
        for warning in case.flushWarnings():
            if not str(warning["message"]).startswith("Passing pyOpenSSL"):
                warnings.warn_explicit(**warning)

    case.addCleanup(drop)


# In memory


@implementer(IHalfCloseableDescriptor)
class MemoryTransport(StringTransport):
    """
    A `StringTransport` one direction of which can be closed alone.

    Attributes:
        half_closed: whether `loseWriteConnection` was called.
        dataBuffer: what the transport claims not to have sent yet.
    """

    half_closed = False
    dataBuffer = b""  # noqa: N815 - as Twisted's transports

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def readConnectionLost(self, reason: Failure) -> None:
        raise NotImplementedError

    def writeConnectionLost(self, reason: Failure) -> None:
        raise NotImplementedError


def connect_in_memory(
    factory: StreamFactory, transport: StringTransport | None = None
) -> tuple[Any, Any]:
    """Make a protocol and connect it; return both ends."""
    protocol = factory.buildProtocol(None)
    if transport is None:
        transport = MemoryTransport()
    protocol.makeConnection(transport)
    return protocol, transport


def lose(protocol: IProtocol, error: Exception | None = None) -> None:
    """Tell a protocol that its connection is gone; by itself, in order."""
    protocol.connectionLost(Failure(error or ConnectionDone()))


@implementer(ILogObserver)
class LogLines:
    """
    What sockproto logs during a test, as people see it.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self.events: list[LogEvent] = []
        self._waiters: list[tuple[str, Deferred[str]]] = []
        globalLogPublisher.addObserver(self)
        case.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") != "sockproto":
            return
        self.events.append(event)
        line = formatEvent(event)
        for waiter in [each for each in self._waiters if each[0] in line]:
            self._waiters.remove(waiter)
            waiter[1].callback(line)

    @property
    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def having(self, words: str) -> list[str]:
        """The lines so far that hold these words."""
        return [line for line in self.lines if words in line]

    def until(self, words: str) -> Deferred[str]:
        """Fires with a line that holds these words, now or later."""
        waiter: Deferred[str] = Deferred()
        found = self.having(words)
        if found:
            waiter.callback(found[0])
        else:
            self._waiters.append((words, waiter))
        return waiter


def directory(case: SynchronousTestCase) -> Path:
    """
    Make a directory that goes with the test.

    `mktemp` would leave it behind under pytest, and its path is too long for a
    unix socket.
    """
    made = tempfile.TemporaryDirectory()
    case.addCleanup(made.cleanup)
    return Path(made.name)


# Over sockets


async def turns_until(condition: Callable[[], object]) -> None:
    """Turn the reactor until a condition holds; trial bounds how long."""
    from twisted.internet import reactor

    while not condition():
        await deferLater(reactor, 0)


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """
    The other end, which does as the test says.

    Attributes:
        received: bytes that came and were not taken.
        ended: whether the service has ended its output.
        lost: why the connection is gone, once it is.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False
        self.lost: Failure | None = None
        self._waiters: list[tuple[Callable[[], object], Deferred[None]]] = []
        self._flood = b""
        self._flooded = 0

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def readConnectionLost(self) -> None:
        self.ended = True
        self._look()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self.ended = True
        self._look()

    def _look(self) -> None:
        for waiter in [each for each in self._waiters if each[0]()]:
            self._waiters.remove(waiter)
            waiter[1].callback(None)

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        """Fires when something has happened here after which this holds."""
        waiter: Deferred[None] = Deferred()
        self._waiters.append((condition, waiter))
        self._look()
        return waiter

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def end(self) -> None:
        """Send end of file; go on reading."""
        self.transport.loseWriteConnection()

    async def take(self, size: int) -> bytes:
        """Wait for so many bytes, or the end, and take them."""
        await self.until(lambda: len(self.received) >= size or self.ended)
        taken = bytes(self.received[:size])
        del self.received[:size]
        return taken

    async def take_all(self) -> bytes:
        """Wait for the end of what the service sends, and take it all."""
        await self.until(lambda: self.ended)
        taken = bytes(self.received)
        self.received.clear()
        return taken

    async def gone(self) -> Failure:
        """Wait until the connection is lost; return why."""
        await self.until(lambda: self.lost is not None)
        assert self.lost is not None
        return self.lost

    # A flood: as much as the transport takes. We are its pull producer.

    def flood(self, unit: bytes) -> None:
        self._flood = unit
        self._flooded = 0
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self._flooded += 1
        self.transport.write(self._flood)

    def stopProducing(self) -> None:
        pass

    def stop_flood(self) -> bytes:
        """Stop, and return what was sent."""
        self.transport.unregisterProducer()
        return self._flood * self._flooded


async def join(endpoint: IStreamClientEndpoint) -> Peer:
    """Connect a peer."""
    peer: Any = await endpoint.connect(Factory.forProtocol(Peer))
    assert isinstance(peer, Peer)
    return peer


async def serve_tcp(case: TestCase, factory: Any) -> IListeningPort:
    """Listen on a free port until the test ends."""
    from twisted.internet import reactor

    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port: IListeningPort = await endpoint.listen(factory)
    case.addCleanup(port.stopListening)
    return port


class OverTcp:
    """
    Puts a contract on loopback TCP.
    """

    def server_endpoint(self) -> IStreamServerEndpoint:
        from twisted.internet import reactor

        endpoint: IStreamServerEndpoint = TCP4ServerEndpoint(
            reactor, 0, interface="127.0.0.1"
        )
        return endpoint

    def client_endpoint(self, port: Any) -> IStreamClientEndpoint:
        from twisted.internet import reactor

        endpoint: IStreamClientEndpoint = TCP4ClientEndpoint(
            reactor, "127.0.0.1", port.getHost().port
        )
        return endpoint


class OverUnix(_Case):
    """
    Puts a contract on unix sockets.
    """

    def server_endpoint(self) -> IStreamServerEndpoint:
        from twisted.internet import reactor

        endpoint: IStreamServerEndpoint = UNIXServerEndpoint(
            reactor, str(directory(self) / "socket")
        )
        return endpoint

    def client_endpoint(self, port: Any) -> IStreamClientEndpoint:
        from twisted.internet import reactor

        endpoint: IStreamClientEndpoint = UNIXClientEndpoint(
            reactor, port.getHost().name
        )
        return endpoint


class StreamServiceContract(_Case):
    """
    What a stream service keeps, whatever it says; `on_each_transport` makes the
    cases.

    Attributes:
        greeting: what comes before anything was asked.
        ask: what the contract sends, again and again.
    """

    timeout = 30

    greeting: ClassVar[bytes] = b""
    ask: ClassVar[bytes]

    factory: StreamFactory
    port: IListeningPort

    def make_factory(self, clock: Any) -> StreamFactory:
        raise NotImplementedError

    def said_back(self, output: bytes) -> bytes:
        """Turn what the service said, its greeting apart, into what was asked."""
        raise NotImplementedError

    # A transport's part

    def server_endpoint(self) -> IStreamServerEndpoint:
        raise NotImplementedError

    def client_endpoint(self, port: Any) -> IStreamClientEndpoint:
        raise NotImplementedError

    @classmethod
    def on_each_transport(cls) -> dict[str, type[TestCase]]:
        """Make a `TestCase` for each transport, to be put into the module."""
        made: dict[str, type[TestCase]] = {}
        for transport in (OverTcp, OverUnix):
            name = f"{cls.__name__}{transport.__name__}Tests"
            made[name] = type(
                name,
                (transport, cls, TestCase),
                {"__module__": cls.__module__, "__qualname__": name},
            )
        return made

    # What tests do

    async def start(self) -> None:
        from twisted.internet import reactor

        self.peers: list[Peer] = []
        self.factory = self.make_factory(reactor)
        self.port = await self.server_endpoint().listen(self.factory)
        self.addCleanup(lambda: Deferred.fromCoroutine(self._stop()))

    async def _stop(self) -> None:
        await maybeDeferred(self.port.stopListening)
        for peer in self.peers:
            if peer.lost is None:
                peer.transport.abortConnection()
                await peer.gone()
        for connection in list(self.factory.connections):
            connection.transport.abortConnection()
        await turns_until(lambda: not self.factory.connections)

    async def join(self) -> tuple[Peer, StreamProtocol]:
        """Connect a peer; return it, and the service's end of the connection."""
        before = set(self.factory.connections)
        peer = await join(self.client_endpoint(self.port))
        self.peers.append(peer)
        await turns_until(lambda: self.factory.connections - before)
        (connection,) = self.factory.connections - before
        return peer, connection

    async def converse(self) -> None:
        """Check that a new client is served."""
        peer, _ = await self.join()
        self.assertEqual(await peer.take(len(self.greeting)), self.greeting)
        peer.send(self.ask)
        peer.end()
        self.assertEqual(self.said_back(await peer.take_all()), self.ask)

    async def clog(self) -> tuple[Peer, StreamProtocol]:
        """Connect a peer that asks and does not read; wait until all is stuck."""
        from twisted.internet import reactor

        peer, connection = await self.join()
        peer.transport.pauseProducing()
        transport: Any = connection.transport
        for end, option in (
            (transport, socket.SO_SNDBUF),
            (peer.transport, socket.SO_RCVBUF),
        ):
            end.getHandle().setsockopt(socket.SOL_SOCKET, option, KERNEL_BUFFER)
        # In small pieces, each an answer, it would be the kernel's overhead for
        # them that fills its buffers: it loses what comes then, and waits long.
        peer.flood(self.ask * (FLOOD_PIECE // len(self.ask) + 1))

        def stuck() -> bool:
            """Tell whether nothing can move any more, whoever waits."""
            readers: Any = reactor.getReaders()
            return (
                transport not in readers
                and unsent(transport) > 0
                and not select.select([], [transport], [], 0)[1]
            )

        await turns_until(stuck)
        return peer, connection

    # The contract

    async def test_half_close(self) -> None:
        """Who ends its input gets each byte it is owed, and then end of file."""
        await self.start()
        await self.converse()

    async def test_half_close_without_a_word(self) -> None:
        """Who asks nothing gets the greeting, and end of file."""
        await self.start()
        peer, _ = await self.join()
        peer.end()
        self.assertEqual(await peer.take_all(), self.greeting)
        peer.transport.loseConnection()
        await turns_until(lambda: not self.factory.connections)

    async def test_slow_reader(self) -> None:
        """
        Who does not read is not read from, costs a bounded amount of memory,
        holds up nobody, and gets each byte when it reads after all.
        """
        await self.start()
        peer, connection = await self.clog()
        owed = connection.owed()
        self.assertLessEqual(owed.unanswered + owed.unsent, MOST_HELD)
        await self.converse()
        asked = peer.stop_flood()
        peer.end()
        peer.transport.resumeProducing()
        self.assertEqual(await peer.take(len(self.greeting)), self.greeting)
        self.assertEqual(self.said_back(await peer.take_all()), asked)

    async def test_reset(self) -> None:
        """A reset in mid-answer is one line of the log, and nobody else's trouble."""
        lines = LogLines(self)
        await self.start()
        peer, connection = await self.clog()
        peer.stop_flood()
        peer.transport.abortConnection()
        line = await lines.until(" closed. ")
        self.assertIn("broken off", line)
        self.assertEqual(len(lines.lines), 2, lines.lines)  # accepted, closed
        self.assertNotIn(connection, self.factory.connections)
        await self.converse()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_reset_of_an_idle_connection(self) -> None:
        """A reset while nothing is owed is one line of the log, too."""
        lines = LogLines(self)
        await self.start()
        peer, connection = await self.join()
        peer.transport.abortConnection()
        await lines.until(" closed. ")
        self.assertEqual(len(lines.lines), 2, lines.lines)
        self.assertNotIn(connection, self.factory.connections)
        self.assertEqual(self.flushLoggedErrors(), [])
