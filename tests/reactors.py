"""
Test cases with a reactor of their own each; the connections and the peers in them.
"""

from __future__ import annotations

import contextlib  # trial has a use of its own for a module's `suppress`
import socket
import struct
import tempfile
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

try:
    from sockproto.uvreactor import UvloopReactor, unix
except ImportError:  # pragma: no cover
    UvloopReactor = None  # type: ignore[assignment,misc]

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from twisted.python.failure import Failure

__all__ = [
    "LONGEST",
    "Client",
    "Contract",
    "HalfCloseable",
    "Notes",
    "OnOurs",
    "OnStock",
    "Peer",
    "ReactorCase",
    "Server",
    "SideContract",
    "UvloopReactor",
    "close_reactor",
    "in_reactor",
    "on_both",
    "on_both_sides",
    "without_uvloop",
]

LONGEST = 30.0
"""Seconds that a test may take before it has failed: much more than it needs."""

SOON = 0.001
"""Seconds until a peer looks again whether the kernel takes more."""

RESET = struct.pack("ii", 1, 0)

without_uvloop = (
    "uvloop is not installed: it is the extra sockproto[uvloop]"
    if UvloopReactor is None
    else None
)


class Notes(Protocol):
    """
    Notes what it is told; `does` has what else it does then, by method.

    Attributes:
        happened: names of the methods that were called, repeated `dataReceived` once.
        received: all bytes.
        reason: why the connection was lost.
    """

    transport: Any

    def __init__(self, **does: Callable[..., object]) -> None:
        self.happened: list[str] = []
        self.received = bytearray()
        self.reason: Failure | None = None
        self.does = does

    def note(self, name: str, *args: object) -> None:
        if self.happened[-1:] != [name] or name != "dataReceived":
            self.happened.append(name)
        if name in self.does:
            self.does[name](self, *args)

    def connectionMade(self) -> None:
        self.note("connectionMade")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.note("dataReceived", data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.note("connectionLost", reason)

    @property
    def lost(self) -> type[BaseException] | None:
        """Of what class the reason was."""
        return None if self.reason is None else self.reason.type


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Notes):
    """
    One that is told of each direction.
    """

    def readConnectionLost(self) -> None:
        self.note("readConnectionLost")

    def writeConnectionLost(self) -> None:
        self.note("writeConnectionLost")


class Peer:
    """
    The other end: a socket, which does only what the test says.
    """

    def __init__(self, case: ReactorCase, sock: socket.socket) -> None:
        self._case = case
        self.socket = sock
        sock.setblocking(False)
        case.addCleanup(sock.close)
        self.received = bytearray()
        self.ended: str | None = None

    def send(self, data: bytes) -> None:
        """Send it all, in this turn or when the other end has taken some."""
        unsent = memoryview(data)
        with contextlib.suppress(BlockingIOError):
            unsent = unsent[self.socket.send(unsent) :]
        if unsent:
            self._case.reactor.callLater(SOON, self._go_on_sending, bytes(unsent))

    def _go_on_sending(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it was ended by either
            self.send(data)

    def take(self, most: int = 1 << 20) -> None:
        """Read once, if there is something."""
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.ended = "reset"
            return
        self.received += data
        if not data:
            self.ended = "closed"

    async def has(self, size: int) -> bytearray:
        """Read until there are so many bytes in all."""

        def enough() -> bool:
            self.take()
            return len(self.received) >= size or self.ended is not None

        await self._case.until(enough)
        return self.received

    async def end(self) -> str:
        """Read to the end; was it `closed`, or `reset`?"""

        def at_end() -> bool:
            self.take()
            return self.ended is not None

        await self._case.until(at_end)
        return str(self.ended)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()

    def shut(self) -> None:
        with contextlib.suppress(OSError):  # it was ended by the other end
            self.socket.shutdown(socket.SHUT_WR)


class Server(Factory):
    """
    Builds what it is given, and keeps it.
    """

    noisy = False

    def __init__(self, builds: Callable[..., Any]) -> None:
        self.builds = builds
        self.built: list[Any] = []

    def buildProtocol(self, addr: object) -> Any:
        protocol = self.builds()
        if protocol is not None:
            self.built.append(protocol)
        return protocol


class Client(ClientFactory):
    """
    Builds what it is given, and notes what its connector tells it.
    """

    noisy = False

    def __init__(self, builds: Callable[..., Any]) -> None:
        self.builds = builds
        self.happened: list[str] = []
        self.reason: Failure | None = None
        self.done: Deferred[Any] = Deferred()

    def startedConnecting(self, connector: object) -> None:  # noqa: N802 - Twisted's
        self.happened.append("startedConnecting")

    def buildProtocol(self, addr: object) -> Any:
        return self.builds()

    def clientConnectionFailed(  # noqa: N802 - Twisted's
        self, connector: object, reason: Failure
    ) -> None:
        self._ended("clientConnectionFailed", reason)

    def clientConnectionLost(  # noqa: N802 - Twisted's
        self, connector: object, reason: Failure
    ) -> None:
        self._ended("clientConnectionLost", reason)

    def _ended(self, how: str, reason: Failure) -> None:
        self.happened.append(how)
        self.reason = reason
        if not self.done.called:
            self.done.callback(None)


def close_reactor(reactor: Any) -> None:
    """Close what a reactor that has ended still holds open."""
    for call in reactor.getDelayedCalls():
        call.cancel()
    for reader in list(reactor._internalReaders):
        reactor.removeReader(reader)
        reader.connectionLost(None)
    reactor._internalReaders.clear()
    if isinstance(reactor, EPollReactor):
        reactor._poller.close()
    else:
        reactor._asyncioEventloop.close()


class ReactorCase(SynchronousTestCase):
    """
    A test in a reactor of its own; `OnStock` or `OnOurs` says of which kind.
    """

    ours = False
    over_tcp = True
    reactor: Any

    def make_reactor(self) -> Any:
        raise NotImplementedError

    def setUp(self) -> None:
        self.reactor = self.make_reactor()
        self.addCleanup(close_reactor, self.reactor)
        # TLS puts small writes off by the clock of the reactor that is installed.
        self.patch(_tls(), "_get_default_clock", lambda: self.reactor)

    def turn(self, seconds: float = 0.0) -> Deferred[None]:
        """Let the reactor go round once."""
        return deferLater(self.reactor, seconds, lambda: None)

    async def turns(self, count: int = 5) -> None:
        for _ in range(count):
            await self.turn(0.001)

    def iterate(self) -> None:
        """Let a reactor that is not running go round a few times."""
        for _ in range(10):
            self.reactor.iterate(0.001)

    async def until(self, condition: Callable[..., object]) -> None:
        while not condition():
            await self.turn(0.0005)

    def run_in_reactor(self, test: Coroutine[Any, Any, None]) -> None:
        """Run it to its end, and no longer than `LONGEST`."""
        results: list[Any] = []
        reactor = self.reactor

        def begin() -> None:
            done = ensureDeferred(test)
            late = reactor.callLater(LONGEST, done.cancel)

            def ended(result: Any) -> None:
                results.append(result)
                if late.active():
                    late.cancel()
                reactor.stop()

            done.addBoth(ended)

        reactor.callWhenRunning(begin)
        reactor.run(installSignalHandlers=False)
        if results and results[0] is not None:
            results[0].raiseException()
        self.assertEqual(results, [None])

    # What is connected to what

    def listen(self, builds: Callable[..., Any], **how: Any) -> Any:
        """A port of the reactor's, with a factory that builds these."""
        how.setdefault("interface", "127.0.0.1")
        return self.reactor.listenTCP(0, Server(builds), **how)

    def peer_of(self, port: Any) -> Peer:
        """One who is connected to that port, as far as the kernel knows."""
        address = port.getHost()
        return Peer(self, socket.create_connection((address.host, address.port)))

    def raw_listener(self, host: str = "127.0.0.1", backlog: int = 5) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.bind((host, 0))
        listener.listen(backlog)
        listener.setblocking(False)
        self.addCleanup(listener.close)
        return listener

    async def accept_from(self, listener: socket.socket) -> Peer:
        taken: list[socket.socket] = []

        def accepted() -> bool:
            with contextlib.suppress(BlockingIOError):
                taken.append(listener.accept()[0])
            return bool(taken)

        await self.until(accepted)
        return Peer(self, taken[0])

    async def accepted(self, protocol: Any) -> Peer:
        """Have a client of the reactor's server, which is this protocol."""
        port = self.listen(lambda: protocol)
        peer = self.peer_of(port)
        await self.until(lambda: protocol.happened)
        await port.stopListening()
        return peer

    def unix_path(self) -> str:
        """Where a UNIX socket can be, for the length of the test."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return str(Path(folder.name, "s"))

    def unix_peer(self, path: str) -> Peer:
        """One who is connected to what listens there."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return Peer(self, sock)

    async def accepted_on_unix(self, protocol: Any) -> Peer:
        """As `accepted`, on a UNIX socket."""
        path = self.unix_path()
        port = self.reactor.listenUNIX(path, Server(lambda: protocol))
        peer = self.unix_peer(path)
        await self.until(lambda: protocol.happened)
        await port.stopListening()
        return peer

    async def connected(self, protocol: Any) -> Peer:
        """Have a server of the reactor's client, which is this protocol."""
        listener = self.raw_listener()
        self.reactor.connectTCP(*listener.getsockname(), Client(lambda: protocol))
        peer = await self.accept_from(listener)
        await self.until(lambda: protocol.happened)
        return peer

    @property
    def of_reset(self) -> type[BaseException]:
        """Why a connection is lost whose peer resets it: UNIX sockets know none."""
        return ConnectionLost if self.over_tcp else ConnectionDone

    async def lost(self, protocol: Notes) -> type[BaseException] | None:
        await self.until(lambda: protocol.reason)
        return protocol.lost

    def logged(self, *kinds: type[BaseException]) -> list[type[BaseException]]:
        """Of which classes the errors logged were; they are forgiven."""
        return [each.type for each in self.flushLoggedErrors(*kinds)]


class _SideCase(ReactorCase):
    async def connection(self, protocol: Any) -> Peer:
        """Connect that protocol, to a server or a client; have the other end."""
        raise NotImplementedError


if TYPE_CHECKING:
    # What is to be no test case by itself: `on_both` makes cases of it.
    Contract = ReactorCase
    SideContract = _SideCase
else:
    Contract = SideContract = object


class _AsServer:
    accepted: Any

    async def connection(self, protocol: Any) -> Peer:
        peer: Peer = await self.accepted(protocol)
        return peer


class _AsClient:
    connected: Any

    async def connection(self, protocol: Any) -> Peer:
        peer: Peer = await self.connected(protocol)
        return peer


class _AsUnixServer:
    """
    On a UNIX socket; with our reactor as if no protocol passed descriptors.
    """

    over_tcp = False
    reactor: Any
    accepted_on_unix: Any

    async def connection(self, protocol: Any) -> Peer:
        if isinstance(self.reactor, UvloopReactor):

            class ForAny(unix.Port):
                def passes_no_descriptors(self, protocol: object) -> bool:
                    return True

            self.reactor.unix_port = ForAny
        peer: Peer = await self.accepted_on_unix(protocol)
        return peer


class OnStock:
    """
    With Twisted's own reactor.
    """

    def make_reactor(self) -> Any:
        return EPollReactor()


class OnOurs:
    """
    With ours.
    """

    ours = True
    if without_uvloop:  # pragma: no cover
        skip = without_uvloop

    def make_reactor(self) -> Any:
        return UvloopReactor()


def in_reactor(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Make a test of a coroutine: it runs in the case's reactor."""

    @wraps(test)
    def run(self: ReactorCase, *args: Any, **kwargs: Any) -> None:
        self.run_in_reactor(test(self, *args, **kwargs))

    return run


def _made(
    contracts: Iterable[type], kinds: dict[str, tuple[type, ...]]
) -> dict[str, type]:
    made = {}
    for contract in contracts:
        for suffix, mixins in kinds.items():
            name = contract.__name__.removesuffix("Contract") + suffix + "Tests"
            made[name] = type(
                name,
                (*mixins, contract, ReactorCase),
                {"__module__": contract.__module__, "__doc__": contract.__doc__},
            )
    return made


def on_both(*contracts: type) -> dict[str, type]:
    """Make test cases of these, for Twisted's reactor and for ours."""
    return _made(contracts, {"OnStock": (OnStock,), "OnOurs": (OnOurs,)})


def on_both_sides(*contracts: type) -> dict[str, type]:
    """As `on_both`, for a server and for a client each."""
    return _made(
        contracts,
        {
            "OfServerOnStock": (OnStock, _AsServer),
            "OfClientOnStock": (OnStock, _AsClient),
            "OfServerOnOurs": (OnOurs, _AsServer),
            "OfClientOnOurs": (OnOurs, _AsClient),
            "OfUnixServerOnStock": (OnStock, _AsUnixServer),
            "OfUnixServerOnOurs": (OnOurs, _AsUnixServer),
        },
    )


def _tls() -> Any:
    from twisted.protocols import tls

    return tls
