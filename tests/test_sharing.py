"""
Places that one process holds, and others serve at.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.protocols.wire import Echo
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from sockproto.sharing import HoldingReactor, ServingReactor
from tests.contracts import directory

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
ECHO = Factory.forProtocol(Echo)


class SharingTests(TestCase):
    """A parent, and two workers of it, all in this process."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.holding = HoldingReactor(reactor, 2)

    def hold(self, port: Any) -> Any:
        self.addCleanup(port.stopListening)
        return port

    def workers(self) -> Iterator[ServingReactor]:
        """Each with descriptors of its own."""
        places, descriptors = self.holding.passing()
        for slot in range(2):
            theirs = [
                (call, [os.dup(descriptors[n]) for n in ns]) for call, ns in places
            ]
            yield ServingReactor(self.reactor, slot, theirs)

    def test_is_a_reactor(self) -> None:
        """It is the reactor, but for how it listens."""
        self.assertTrue(IReactorTime.providedBy(self.holding))
        self.assertEqual(self.holding.running, self.reactor.running)

    def test_tcp(self) -> None:
        """All sockets have one address; each worker listens at its own."""
        held = self.hold(self.holding.listenTCP(0, ECHO, 5, LOOPBACK))
        verifyObject(IListeningPort, held)
        held.startListening()
        self.assertEqual(len(held.sockets), 2)
        (name,) = {each.getsockname() for each in held.sockets}
        self.assertEqual(held.getHost().port, name[1])
        self.assertFalse(any(each.get_inheritable() for each in held.sockets))
        for worker in self.workers():
            port = self.hold(worker.listenTCP(0, ECHO, 5, LOOPBACK))
            verifyObject(IListeningPort, port)
            self.assertEqual(port.getHost(), held.getHost())

    def test_in_use(self) -> None:
        """Where somebody listens, were it another parent, nothing is opened."""
        held = self.hold(self.holding.listenTCP(0, ECHO, 5, LOOPBACK))
        number = held.getHost().port
        for another in (HoldingReactor(self.reactor, 2), self.reactor):
            self.assertRaises(
                CannotListenError, another.listenTCP, number, ECHO, 5, LOOPBACK
            )
        udp = self.hold(self.holding.listenUDP(0, DatagramProtocol(), LOOPBACK))
        self.assertRaises(
            CannotListenError,
            HoldingReactor(self.reactor, 2).listenUDP,
            udp.getHost().port,
            DatagramProtocol(),
            LOOPBACK,
        )

    def test_files(self) -> None:
        """Where there is no file for another socket, none is left open."""

        def full(*_: object) -> None:
            raise OSError(24, "Too many open files")

        self.patch(socket, "socket", full)
        before = len(list(Path("/dev/fd").iterdir()))
        holding = HoldingReactor(FakeReactor(), 3)
        self.assertRaises(CannotListenError, holding.listenTCP, 0, ECHO)
        self.assertEqual(holding.held, [])
        self.assertEqual(len(list(Path("/dev/fd").iterdir())), before)

    def test_missing(self) -> None:
        """Who takes another's place listens there until it is told otherwise."""
        self.hold(self.holding.listenTCP(0, ECHO, 5, LOOPBACK))
        worker, _ = self.workers()
        port = worker.listenTCP(0, ECHO, 5, LOOPBACK)
        reading = {each.fileno(): each for each in self._reading()}
        worker.serve({1})
        self.assertEqual(len(self._reading()), len(reading) + 1)
        worker.serve(())
        self.assertEqual(len(self._reading()), len(reading))
        stopping = port.stopListening()
        self.addCleanup(lambda: stopping)
        worker.serve({1})

    def _reading(self) -> list[Any]:
        return list(self.reactor.getReaders())

    def test_order(self) -> None:
        """Places that are asked for alike are told apart by their order."""
        held = [
            self.hold(self.holding.listenTCP(0, ECHO, 5, LOOPBACK)) for _ in range(2)
        ]
        for worker in self.workers():
            for each in held:
                port = self.hold(worker.listenTCP(0, ECHO, 5, LOOPBACK))
                self.assertEqual(port.getHost(), each.getHost())

    def test_unknown(self) -> None:
        """What the parent has not opened cannot be listened on."""
        worker, _ = self.workers()
        error = self.assertRaises(CannotListenError, worker.listenTCP, 1, ECHO)
        self.assertIn("the parent has not opened tcp 1 ''", str(error))

    def test_udp(self) -> None:
        """Buffers are alike; who has another's datagrams answers from its own."""
        kept = DatagramProtocol()
        held = self.hold(self.holding.listenUDP(0, kept, LOOPBACK))
        sizes = {
            each.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            for each in held.sockets
        }
        self.assertEqual(len(sizes), 1)
        worker, _ = self.workers()
        came: Deferred[bytes] = Deferred()
        protocol = DatagramProtocol()
        protocol.datagramReceived = lambda data, _: came.callback(data)  # type: ignore[assignment,method-assign]
        port = self.hold(worker.listenUDP(0, protocol, LOOPBACK))
        own: Any = protocol.transport
        self.assertEqual(own.getHost(), held.getHost())
        worker.serve({1})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"there?", (LOOPBACK, port.getHost().port))
        return came.addCallback(self.assertEqual, b"there?")  # type: ignore[return-value]

    def test_unix(self) -> None:
        """There is one socket; its file and mode are the parent's."""
        path = str(directory(self) / "socket")
        held = self.hold(self.holding.listenUNIX(path, ECHO, 5, 0o600))
        self.assertEqual(len(held.sockets), 1)
        ports = [worker.listenUNIX(path, ECHO, 5) for worker in self.workers()]
        stopping = gatherResults([port.stopListening() for port in ports])

        def stopped(_: object) -> None:
            self.assertEqual(Path(path).stat().st_mode & 0o777, 0o600)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)

        return stopping.addCallback(stopped)  # type: ignore[return-value]

    def test_passed(self) -> None:
        """A socket of systemd's keeps its number, and others stay clear of it."""
        with socket.create_server((LOOPBACK, 0)) as passed:
            passed.setblocking(False)
            number = passed.fileno()
            self.hold(self.holding.adoptStreamPort(number, socket.AF_INET, ECHO))
            self.hold(self.holding.listenTCP(0, ECHO, 5, LOOPBACK))
            places, descriptors = self.holding.passing()
            self.assertIn(number, descriptors)
            ((_, numbers),) = places
            self.assertEqual(len({number, *numbers} & set(descriptors)), 3)
            self.assertGreater(min(numbers), max(descriptors.values()))
            worker, _ = self.workers()
            port = self.hold(worker.adoptStreamPort(number, socket.AF_INET, ECHO))
            self.assertEqual(port.getHost().port, passed.getsockname()[1])


class FakePort:
    """A port on a socket that there is not."""

    socket: Any = None

    def stopReading(self) -> None:  # noqa: N802 - Twisted's
        self.socket = self

    family = type = 0

    def setsockopt(self, *_: object) -> None:
        pass

    def stopListening(self) -> None:
        pass


class FakeReactor:
    """Has such ports."""

    def listenTCP(self, *_: object) -> FakePort:
        port = FakePort()
        port.socket = port
        return port
