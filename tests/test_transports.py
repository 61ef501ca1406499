"""
What a stream's transport can do and what it holds, whichever it is.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from typing import Any

from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sockproto import testing
from sockproto.transports import (
    Layer,
    innermost,
    passes_half_close,
    pending_error,
    taken_so_far,
    under_layers,
    unread,
    unsent,
)
from tests.contracts import MemoryTransport, directory, join, serve_tcp, turns_until


def wrapped(transport: Any) -> ProtocolWrapper:
    wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
    wrapper.makeConnection(transport)
    return wrapper


def layered(transport: Any) -> Layer:
    layer = Layer()
    layer.transport = transport
    return layer


class TransportTests(SynchronousTestCase):
    """Transports in memory."""

    def test_half_close(self) -> None:
        """Only a transport that says so passes half-close, and no stock wrapper."""
        self.assertTrue(passes_half_close(MemoryTransport()))
        self.assertFalse(passes_half_close(StringTransport()))
        self.assertFalse(passes_half_close(wrapped(MemoryTransport())))

    def test_half_close_after_starttls(self) -> None:
        """A TCP transport that has started TLS does not, either."""
        transport: Any = MemoryTransport()
        transport.TLS = True
        self.assertFalse(passes_half_close(transport))

    def test_unsent(self) -> None:
        """What waits in each of Twisted's buffers counts; what is sent does not."""
        transport: Any = MemoryTransport()
        self.assertEqual(unsent(transport), 0)
        transport.dataBuffer = b"12345"
        transport.offset = 2
        transport._tempDataLen = 10
        self.assertEqual(unsent(transport), 13)
        self.assertEqual(unsent(wrapped(transport)), 13)
        self.assertEqual(unsent(object()), 0)

    def test_innermost(self) -> None:
        """Under all wrappers is the transport with the socket."""
        transport = MemoryTransport()
        self.assertIs(innermost(transport), transport)
        self.assertIs(innermost(wrapped(wrapped(transport))), transport)
        self.assertIs(innermost(layered(wrapped(layered(transport)))), transport)

    def test_under_layers(self) -> None:
        """Our own layers hide nothing of the transport; a stock wrapper does."""
        transport = MemoryTransport()
        self.assertIs(under_layers(transport), transport)
        self.assertIs(under_layers(layered(layered(transport))), transport)
        wrapper = wrapped(layered(transport))
        self.assertIs(under_layers(layered(wrapper)), wrapper)
        self.assertIsNone(under_layers(Layer()))

    def test_half_close_in_layers(self) -> None:
        """A layer of ours passes half-close as what is under it does."""
        self.assertTrue(passes_half_close(layered(layered(MemoryTransport()))))
        self.assertFalse(passes_half_close(layered(StringTransport())))
        self.assertFalse(passes_half_close(layered(wrapped(MemoryTransport()))))
        self.assertFalse(passes_half_close(wrapped(layered(MemoryTransport()))))
        transport: Any = MemoryTransport()
        transport.TLS = True
        self.assertFalse(passes_half_close(layered(transport)))


class TakenSoFarTests(SynchronousTestCase):
    """What tells whether the kernel has taken something since."""

    def setUp(self) -> None:
        self.transport = testing.MemoryTransport()
        self.transport.write(b"x" * 300_000)

    def taken(self) -> object:
        return taken_so_far(layered(wrapped(self.transport)), 0)

    def test_each_byte(self) -> None:
        """It is another after each byte that was taken."""
        before = self.taken()
        for size in (1, 1, 128 * 1024, 1000, 130_000):
            self.transport.take(size)
            self.assertNotEqual(self.taken(), before)
            before = self.taken()

    def test_writing(self) -> None:
        """It is the same while nothing is taken, however much is written."""
        for taken in (0, 1000):
            self.transport.take(taken)
            before = self.taken()
            self.assertEqual(self.taken(), before)
            for _ in range(10):
                self.transport.write(b"more")
                self.transport.writeSequence([b"and", b"more"])
                self.assertEqual(self.taken(), before)

    def test_as_much_written_as_taken(self) -> None:
        """It is another, too, if as much was written as was taken meanwhile."""
        for _ in range(5):
            before = self.taken()
            self.transport.write(b"x" * 300_000)
            self.transport.take(300_000)
            self.assertEqual(self.transport.unsent, 300_000)
            self.assertNotEqual(self.taken(), before)

    def test_all_taken(self) -> None:
        """It is another, too, if all was taken, and more was written since."""
        self.transport.take()
        for _ in range(5):
            self.transport.write(b"hello")
            before = self.taken()
            self.assertEqual(self.taken(), before)
            self.assertEqual(self.transport.take(), b"hello")
            self.transport.write(b"hello")
            self.assertNotEqual(self.taken(), before)
            self.transport.take()

    def test_other_transports(self) -> None:
        """Of a transport without Twisted's buffers, all that was written is taken."""
        self.assertEqual(taken_so_far(StringTransport(), 5), 5)
        self.assertNotEqual(self.taken(), 5)


class UnreadTests(SynchronousTestCase):
    """What the kernel holds for us."""

    def test_each_byte(self) -> None:
        """Each byte that has come counts, until it is read."""
        for ours, theirs in (socket.socketpair(), _over_tcp()):
            self.addCleanup(ours.close)
            self.addCleanup(theirs.close)
            self.assertEqual(unread(_Handled(ours)), 0)
            theirs.sendall(b"12345")
            select.select([ours], [], [])
            self.assertEqual(unread(_Handled(ours)), 5)
            ours.recv(2)
            self.assertEqual(unread(_Handled(ours)), 3)

    def test_end_of_file(self) -> None:
        """An end of file is no byte."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        theirs.close()
        select.select([ours], [], [])
        self.assertEqual(unread(_Handled(ours)), 0)

    def test_no_telling(self) -> None:
        """Without a socket, with one that is closed or that cannot tell, it is 0."""
        self.assertEqual(unread(StringTransport()), 0)
        self.assertEqual(unread(testing.MemoryTransport()), 0)
        closed = socket.socket()
        closed.close()
        self.assertEqual(unread(_Handled(closed)), 0)
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        self.assertEqual(unread(_Handled(listening)), 0)


def _over_tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


class SocketTests(TestCase):
    """Twisted's own transports."""

    timeout = 30

    async def test_tcp(self) -> None:
        """TCP passes half-close, and tells what it holds."""
        from twisted.internet import reactor

        end: Any = Protocol()
        port: Any = await serve_tcp(self, Factory.forProtocol(lambda: end))
        peer = await join(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))
        self.assertTrue(passes_half_close(peer.transport))
        peer.send(bytes(32 << 20))
        self.assertGreater(unsent(peer.transport), 0)
        await turns_until(lambda: not unsent(peer.transport))
        peer.transport.loseConnection()
        await turns_until(lambda: not end.transport.connected)
        await peer.gone()

    async def test_slow_peer(self) -> None:
        """
        What a slow peer takes is seen, long before our kernel takes more of us.
        """

        flooding: Any = Protocol()
        port: Any = await serve_tcp(self, Factory.forProtocol(lambda: flooding))
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", port.getHost().port))
            await turns_until(lambda: flooding.transport)
            transport = flooding.transport
            flooding.transport.write(bytes(32 << 20))
            full = [transport.socket]
            await turns_until(lambda: not select.select([], full, [], 0)[1])
            before = taken_so_far(transport, 0)
            held = unsent(transport)

            def takes_some() -> bool:
                if select.select([slow], [], [], 0)[0]:
                    slow.recv(4096)
                return taken_so_far(transport, 0) != before

            await turns_until(takes_some)
            self.assertEqual(unsent(transport), held)
            transport.abortConnection()
            await turns_until(lambda: not transport.connected)

    async def test_unread(self) -> None:
        """What has come to a TCP transport that does not read is told."""
        from twisted.internet import reactor

        class Deaf(Protocol):
            transport: Any

            def connectionMade(self) -> None:
                self.transport.pauseProducing()

        served = Deaf()
        port: Any = await serve_tcp(self, Factory.forProtocol(lambda: served))
        peer = await join(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))
        peer.send(b"12345")
        await turns_until(lambda: unread(served.transport))
        self.assertEqual(unread(served.transport), 5)
        served.transport.abortConnection()
        await peer.gone()

    async def test_unix(self) -> None:
        """Unix sockets do, too."""
        from twisted.internet import reactor

        path = str(directory(self) / "socket")
        port: Any = await UNIXServerEndpoint(reactor, path).listen(
            Factory.forProtocol(Protocol)
        )
        self.addCleanup(port.stopListening)
        peer = await join(UNIXClientEndpoint(reactor, path))
        self.assertTrue(passes_half_close(peer.transport))
        peer.send(b"12345")
        self.assertEqual(unsent(peer.transport), 5)
        peer.transport.loseConnection()
        await peer.gone()


class PendingErrorTests(SynchronousTestCase):
    """What waits on a socket."""

    def test_reset(self) -> None:
        """A reset is found, once; and no error where there is none."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        client = socket.create_connection(listener.getsockname())
        self.addCleanup(client.close)
        served, _ = listener.accept()
        transport = _Handled(client)
        self.assertEqual(pending_error(transport), 0)
        reset = struct.pack("ii", 1, 0)
        served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        served.close()
        select.select([client], [], [])
        self.assertEqual(pending_error(transport), errno.ECONNRESET)
        self.assertEqual(pending_error(transport), 0)

    def test_no_socket(self) -> None:
        """A transport without a socket, or with a closed one, has no error."""
        self.assertEqual(pending_error(StringTransport()), 0)
        closed = socket.socket()
        closed.close()
        self.assertEqual(pending_error(_Handled(closed)), 0)


class _Handled:
    def __init__(self, handle: socket.socket) -> None:
        self._handle = handle

    def getHandle(self) -> socket.socket:
        return self._handle
