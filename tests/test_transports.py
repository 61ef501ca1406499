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

from sockproto.transports import innermost, passes_half_close, pending_error, unsent
from tests.contracts import MemoryTransport, directory, join, serve_tcp


def wrapped(transport: Any) -> ProtocolWrapper:
    wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
    wrapper.makeConnection(transport)
    return wrapper


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


class SocketTests(TestCase):
    """Twisted's own transports."""

    timeout = 30

    async def test_tcp(self) -> None:
        """TCP passes half-close, and tells what it holds."""
        from twisted.internet import reactor

        port: Any = await serve_tcp(self, Factory.forProtocol(Protocol))
        peer = await join(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))
        self.assertTrue(passes_half_close(peer.transport))
        peer.send(b"12345")
        self.assertEqual(unsent(peer.transport), 5)
        peer.transport.loseConnection()
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
