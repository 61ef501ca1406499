"""
UNIX sockets: Twisted's transports, written to at the end of the turn, and uvloop's.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import unix
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IFileDescriptorReceiver, IUNIXTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from sockproto import Admission, EchoFactory, Gate
from sockproto.echo import EchoProtocol
from sockproto.sharing import inherited
from tests.reactors import Contract, Notes, Peer, Server, in_reactor, on_both
from tests.uvreactor.test_ending import BIG

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class UnixContract(Contract):
    @in_reactor
    async def test_written_and_closed(self) -> None:
        """All arrives that was written before the close, and what is more than fits."""
        for written in (b"x", BIG):
            protocol = Notes()
            peer = await self.accepted_on_unix(protocol)
            protocol.transport.write(written[:1])
            protocol.transport.write(written[1:])
            protocol.transport.loseConnection()
            self.assertEqual(await peer.end(), "closed")
            self.assertEqual(peer.received, written)
            self.assertEqual(await self.lost(protocol), ConnectionDone)

    @in_reactor
    async def test_not_at_once(self) -> None:
        """What is written in a turn is sent at its end, in one piece."""
        protocol = Notes(dataReceived=lambda p, _: p.transport.write(b"c"))
        peer = await self.accepted_on_unix(protocol)
        protocol.transport.write(b"a")
        protocol.transport.writeSequence([b"b"])
        with self.assertRaises(BlockingIOError):
            peer.socket.recv(9)
        self.assertIn(protocol.transport, self.reactor.getWriters())
        await self.turns()
        self.assertEqual(peer.socket.recv(9), b"ab")
        self.assertNotIn(protocol.transport, self.reactor.getWriters())
        peer.send(b"x")
        await self.turns()
        self.assertEqual(peer.socket.recv(9), b"c")
        protocol.transport.abortConnection()
        await self.lost(protocol)

    @in_reactor
    async def test_aborted_in_the_same_turn(self) -> None:
        """What was written before an abort need not arrive, and nobody is harmed."""
        protocol = Notes()
        peer = await self.accepted_on_unix(protocol)
        protocol.transport.write(b"a")
        protocol.transport.abortConnection()
        await self.lost(protocol)
        self.assertIn(await peer.end(), ("closed", "reset"))
        self.assertNotIn(protocol.transport, self.reactor.getWriters())

    @in_reactor
    async def test_reactor_ends(self) -> None:
        """Who is about to write when the reactor ends is told of it, once."""
        protocol = Notes()
        await self.accepted_on_unix(protocol)
        protocol.transport.write(b"a")
        self.reactor.disconnectAll()
        await self.turns()
        self.assertEqual(protocol.happened, ["connectionMade", "connectionLost"])

    @in_reactor
    async def test_pull_producer(self) -> None:
        """One that always has more keeps nobody from their turn."""
        protocol = Notes()
        peer = await self.accepted_on_unix(protocol)
        asked: list[int] = []

        class Endless:
            def resumeProducing(self) -> None:
                asked.append(1)
                protocol.transport.write(b"x")

            def stopProducing(self) -> None:
                pass

        protocol.transport.registerProducer(Endless(), False)
        await self.turns()
        self.assertGreater(len(asked), 3)
        protocol.transport.unregisterProducer()
        protocol.transport.loseConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(len(peer.received), len(asked))


class Passing(Notes):
    """
    Takes and sends descriptors.
    """

    def connectionMade(self) -> None:
        super().connectionMade()
        read, write = os.pipe()
        os.write(write, b"in the pipe")
        self.transport.sendFileDescriptor(read)
        self.transport.write(b"a pipe")
        self.ends = read, write

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        for each in self.ends:
            os.close(each)


class UnixPortContract(Contract):
    """
    What is accepted, whoever accepts.
    """

    def echo(self) -> EchoFactory:
        return EchoFactory(Clock(), log="none")

    async def check_echoed(self, peer: Peer, data: bytes) -> None:
        peer.send(data)
        self.assertEqual(await peer.has(len(data)), data)
        peer.shut()
        self.assertEqual(await peer.end(), "closed")

    def is_by_uvloop(self, protocol: Any) -> bool:
        return not IUNIXTransport.providedBy(protocol.transport)

    @in_reactor
    async def test_steady(self) -> None:
        """A service's connections are uvloop's; its file goes with the port."""
        factory, path = self.echo(), self.unix_path()
        port = self.reactor.listenUNIX(path, factory)
        self.assertIn(port, self.reactor.getReaders())
        for _ in range(3):
            peer = self.unix_peer(path)
            await self.until(lambda: factory.connections)
            (protocol,) = factory.connections
            transport = protocol.transport
            self.assertEqual(self.is_by_uvloop(protocol), self.ours)
            self.assertEqual(transport.getHost(), UNIXAddress(path))  # type: ignore[attr-defined]
            self.assertEqual(transport.getPeer(), UNIXAddress(None))
            await self.check_echoed(peer, BIG)
            await self.until(lambda: not factory.connections)
        await port.stopListening()
        self.assertFalse(there(path))
        self.assertNotIn(port, self.reactor.getReaders())

    @in_reactor
    async def test_named(self) -> None:
        """A client that is bound has an address, and what is logged has it."""
        factory, path, own = self.echo(), self.unix_path(), self.unix_path()
        port = self.reactor.listenUNIX(path, factory)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(own)
            sock.connect(path)
            await self.until(lambda: factory.connections)
            (protocol,) = factory.connections
            self.assertEqual(protocol.transport.getPeer(), UNIXAddress(own))
            prefix = protocol.transport.logPrefix()  # type: ignore[attr-defined]
            self.assertIn("EchoProtocol", prefix)
        await self.until(lambda: not factory.connections)
        await port.stopListening()

    @in_reactor
    async def test_abstract(self) -> None:
        """A name that is no file's serves as well."""
        factory, path = self.echo(), f"\0{self.unix_path()}"
        port = self.reactor.listenUNIX(path, factory)
        await self.check_echoed(self.unix_peer(path), b"hello")
        await port.stopListening()

    @in_reactor
    async def test_passing(self) -> None:
        """Who may pass descriptors can, those that wait when that is found out too."""
        path = self.unix_path()
        port = self.reactor.listenUNIX(path, Server(Passing))
        peers = [self.unix_peer(path) for _ in range(3)]
        built = port.factory.built
        await self.until(lambda: len(built) == len(peers))
        self.assertTrue(all(map(IUNIXTransport.providedBy, map(_transport, built))))
        for peer in [*peers, self.unix_peer(path)]:
            taken: list[int] = []

            def came(peer: Peer = peer, taken: list[int] = taken) -> list[int]:
                with contextlib.suppress(BlockingIOError):
                    data, taken[:], *_ = socket.recv_fds(peer.socket, 100, 1)
                    self.assertLessEqual(b"a pipe".find(data), 0)
                return taken

            await self.until(came)
            self.assertEqual(os.read(taken[0], 100), b"in the pipe")
            os.close(taken[0])
            peer.close()
        await self.until(lambda: len(built) == len(peers) + 1)
        await self.until(lambda: all(each.reason for each in built))
        await port.stopListening()
        self.assertFalse(there(path))

    @in_reactor
    async def test_of_several_kinds(self) -> None:
        """Of one port each is served, whichever came first."""
        services = self.echo()
        for order in itertools.permutations(["service", "other", "service"]):
            kinds = {"service": services, "other": Server(echoing)}
            path = self.unix_path()
            port = self.reactor.listenUNIX(path, InTurn([kinds[k] for k in order]))
            for _ in order:
                await self.check_echoed(self.unix_peer(path), b"hello")
            await port.stopListening()

    @in_reactor
    async def test_refused(self) -> None:
        """A factory that wants none has them closed, and goes on."""
        path = self.unix_path()
        port = self.reactor.listenUNIX(path, Server(lambda: None))
        for _ in range(2):
            self.assertIn(await self.unix_peer(path).end(), ("closed", "reset"))
        await port.stopListening()

    @in_reactor
    async def test_not_admitted(self) -> None:
        """Who is refused by a policy changes nothing for the others."""
        factory, path = self.echo(), self.unix_path()
        gate = Gate(Clock(), most=1)
        for last_words in (b"", b"full"):
            guarded = Admission(factory, gate, clock=Clock(), last_words=last_words)
            port = self.reactor.listenUNIX(path, guarded)
            first = self.unix_peer(path)
            await self.until(lambda: factory.connections)
            refused = self.unix_peer(path)
            if last_words:
                self.assertEqual(await refused.has(len(last_words)), last_words)
            else:
                self.assertEqual(await refused.end(), "closed")
            refused.close()
            await self.check_echoed(first, b"hello")
            await self.until(lambda: not gate.connected)
            second = self.unix_peer(path)
            await self.until(lambda: factory.connections)
            (protocol,) = factory.connections
            self.assertEqual(self.is_by_uvloop(protocol), self.ours)
            await self.check_echoed(second, b"hello")
            await port.stopListening()

    @in_reactor
    async def test_stopped_by_its_first(self) -> None:
        """A protocol may stop the port in `connectionMade`; nobody else is accepted."""
        stopped: list[Any] = []

        def stop(protocol: Notes) -> None:
            stopped.append(port.stopListening())

        path = self.unix_path()
        port = self.reactor.listenUNIX(path, Server(lambda: Notes(connectionMade=stop)))
        peers = [self.unix_peer(path)]
        await self.until(lambda: stopped)
        await stopped[0]
        self.assertNotIn(port, self.reactor.getReaders())
        port.factory.built[0].transport.loseConnection()
        self.assertEqual(await peers[0].end(), "closed")

    @in_reactor
    async def test_paused(self) -> None:
        """A port that is not read keeps those who come until it is."""
        for build in (lambda: self.echo().buildProtocol(None), Notes):
            path = self.unix_path()
            port = self.reactor.listenUNIX(path, Server(build))
            built = port.factory.built
            first = self.unix_peer(path)
            await self.until(partial(has, built, 1))
            self.reactor.removeReader(port)
            self.assertNotIn(port, self.reactor.getReaders())
            self.assertTrue(there(path))
            second = self.unix_peer(path)
            await self.turns()
            self.assertEqual(len(built), 1)
            self.reactor.addReader(port)
            await self.until(partial(has, built, 2))
            first.close()
            second.close()
            await port.stopListening()
            await self.turns()

    @in_reactor
    async def test_adopted(self) -> None:
        """A socket that listens already is adopted."""
        factory, path = self.echo(), self.unix_path()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            listening.setblocking(False)
            port = self.reactor.adoptStreamPort(
                listening.fileno(), socket.AF_UNIX, factory
            )
        peer = self.unix_peer(path)
        await self.until(lambda: factory.connections)
        (protocol,) = factory.connections
        self.assertEqual(self.is_by_uvloop(protocol), self.ours)
        await self.check_echoed(peer, b"hello")
        await port.stopListening()

    @in_reactor
    async def test_receiver(self) -> None:
        """A service's protocol that takes descriptors gets them, too."""
        taken: list[int] = []

        @implementer(IFileDescriptorReceiver)
        class Receiving(EchoProtocol):
            def fileDescriptorReceived(self, descriptor: int) -> None:
                taken.append(descriptor)

        factory, path = self.echo(), self.unix_path()
        factory.protocol = Receiving
        port = self.reactor.listenUNIX(path, factory)
        peer = self.unix_peer(path)
        socket.send_fds(peer.socket, [b"x"], [peer.socket.fileno()])
        self.assertEqual(await peer.has(1), b"x")
        self.assertEqual(len(taken), 1)
        os.close(taken[0])
        peer.close()
        await self.until(lambda: not factory.connections)
        await port.stopListening()

    @in_reactor
    async def test_put_off(self) -> None:
        """What `connectionMade` puts off comes before any data, for the first, too."""
        path = self.unix_path()
        happened: list[str] = []

        def made(protocol: Notes) -> None:
            self.reactor.callLater(0, happened.append, "later")

        def received(protocol: Notes, data: bytes) -> None:
            happened.append("data")

        def build() -> Notes:
            return Notes(connectionMade=made, dataReceived=received)

        port = self.reactor.listenUNIX(path, Server(build))
        for _ in range(2):
            peer = self.unix_peer(path)
            peer.send(b"x")
            await self.until(lambda: "data" in happened)
            self.assertEqual(happened, ["later", "data"])
            happened.clear()
            peer.close()
        await self.until(lambda: all(each.reason for each in port.factory.built))
        await port.stopListening()

    @in_reactor
    async def test_no_descriptor_left(self) -> None:
        """Without one for the first that may pass some, it passes none."""
        path = self.unix_path()
        port = self.reactor.listenUNIX(path, Server(echoing))
        self.patch(os, "dup", no_descriptor)
        for _ in range(2):
            await self.check_echoed(self.unix_peer(path), b"hello")
        built = port.factory.built
        await self.until(lambda: all(each.reason for each in built))
        self.assertEqual(len(built), 2)
        await port.stopListening()

    @in_reactor
    async def test_no_descriptor_to_start(self) -> None:
        """A port that waits for one looks again once, and not when it has stopped."""
        path = self.unix_path()
        port = self.reactor.listenUNIX(path, Server(Notes))
        before = len(self.reactor.getDelayedCalls())
        with self.without_descriptors():
            for _ in range(2):
                port.stopReading()
                port.startReading()
                port.startReading()
        port.stopReading()
        self.assertEqual(len(self.reactor.getDelayedCalls()), before)
        if self.ours:
            with self.without_descriptors():
                port.startReading()
                port.accept_by_descriptor()
            self.assertIn(port, self.reactor.getReaders())
        await port.stopListening()

    @contextlib.contextmanager
    def without_descriptors(self) -> Iterator[None]:
        dup, os.dup = os.dup, no_descriptor
        try:
            yield
        finally:
            os.dup = dup

    @in_reactor
    async def test_ended_by_the_reactor(self) -> None:
        """Nothing of a port is left open, whichever way it ends, and however it was."""
        reason = Failure(ConnectionDone())
        kinds: list[Any] = [unix.Port, self.reactor_port()]
        await self.turns()  # the reactor opens some for itself
        for kind in [*kinds, *map(inherited, kinds)]:
            for paused in (False, True):
                path = self.unix_path()
                before = open_files()
                name = os.fsencode(path)
                port = kind(name, Server(Notes), reactor=self.reactor)
                port.startListening()
                await self.turns(1)
                if paused:
                    port.stopReading()
                self.reactor.removeReader(port)
                port.connectionLost(reason)
                await self.turns()
                self.assertEqual(open_files(), before, (kind, paused))

    def reactor_port(self) -> type[unix.Port]:
        kind: type[unix.Port] = getattr(self.reactor, "unix_port", unix.Port)
        return kind

    @in_reactor
    async def test_described_afterwards(self) -> None:
        """A transport can be named when it is over, or was never wanted."""
        factory, path = self.echo(), self.unix_path()
        seen: list[str] = []

        def build() -> Any:
            if seen:
                return factory.buildProtocol(None)
            seen.append(f"{getattr(self.reactor, 'kept', '')}")
            return None

        port = self.reactor.listenUNIX(path, Server(build))
        peer = self.unix_peer(path)
        self.assertEqual(await peer.end(), "closed")
        peer = self.unix_peer(path)
        await self.until(lambda: factory.connections)
        (protocol,) = factory.connections
        transport: Any = protocol.transport
        peer.close()
        await self.until(lambda: not factory.connections)
        self.assertIn("EchoProtocol", repr(transport))
        if self.ours:
            self.assertEqual(transport.getHost(), UNIXAddress(path))
        await port.stopListening()


def open_files() -> set[str]:
    """All but the descriptor that Twisted keeps for when there is none."""
    with os.scandir("/proc/self/fd") as found:
        files = {f"{each.name} {Path(each.path).readlink()}" for each in found}
    return {each for each in files if not each.endswith(os.devnull)}


def no_descriptor(descriptor: int) -> int:
    raise OSError(errno.EMFILE, "a test's")


class InTurn(Factory):
    """
    Has each protocol built by the next of some factories.
    """

    noisy = False

    def __init__(self, factories: Iterable[Any]) -> None:
        self._factories = iter(factories)

    def buildProtocol(self, addr: Any) -> Any:
        return next(self._factories).buildProtocol(addr)


def echoing() -> Notes:
    return Notes(dataReceived=lambda p, data: p.transport.write(data))


def there(path: str) -> bool:
    return Path(path).exists()


def has(things: list[Any], count: int) -> bool:
    return len(things) == count


def _transport(protocol: Any) -> Any:
    return protocol.transport


globals().update(on_both(UnixContract, UnixPortContract))
