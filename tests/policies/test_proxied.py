"""
Connections behind a proxy are served as if there were none.
"""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given, strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from sockproto.echo import EchoFactory
from sockproto.errors import SettingError
from sockproto.hello import HelloFactory
from sockproto.interfaces import IOwing
from sockproto.policies.proxied import BehindProxy, _ProxiedConnection
from sockproto.testing import WrapperContract
from tests.contracts import LogLines, join, lose, serve_tcp

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 11 22\r\n"
PROXY = IPv4Address("TCP", "127.0.0.1", 1)


class Hearing(Protocol):
    """Keeps what it hears."""

    heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data


@implementer(IHalfCloseableProtocol)
class Patient(Hearing):
    """Goes on when the peer has ended its side."""

    ended = False

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass


class Hall(Factory):
    """Keeps what it has built, and for whom; refuses those it does not want."""

    def __init__(self, protocol: type[Protocol] = Hearing) -> None:
        self.protocol = protocol
        self.built: list[Any] = []
        self.addresses: list[Any] = []
        self.wants = True

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        if not self.wants:
            return None
        self.built.append(super().buildProtocol(addr))
        return self.built[-1]


class _Known(_ProxiedConnection):
    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        self._stop_waiting()
        self._reader = None


class HeaderKnown(BehindProxy):
    """Has been told who is there, for a contract that knows of no header."""

    def buildProtocol(self, addr: Any) -> Any:
        inner: Any = self.inner.buildProtocol(addr)
        return None if inner is None else _Known(self, inner)


class BehindProxyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.hall = Hall()
        self.log = LogLines(self)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def connect(self) -> tuple[Any, StringTransport]:
        """Be connected to by the proxy."""
        self.factory = BehindProxy(self.hall, self.clock)
        connection = self.factory.buildProtocol(PROXY)
        transport = StringTransport(peerAddress=PROXY)
        connection.makeConnection(transport)
        return connection, transport

    def test_header(self) -> None:
        """The peer is who the header says, and what follows is the peer's."""
        connection, _ = self.connect()
        self.assertEqual(self.hall.built, [])
        connection.dataReceived(HEADER + b"hel")
        connection.dataReceived(b"lo")
        (inner,) = self.hall.built
        peer = IPv4Address("TCP", "192.0.2.1", 11)
        self.assertEqual(self.hall.addresses, [peer])
        self.assertEqual(inner.transport.getPeer(), peer)
        self.assertEqual(inner.transport.getHost(), IPv4Address("TCP", "192.0.2.2", 22))
        self.assertEqual(inner.heard, b"hello")

    @given(sizes=st.lists(st.integers(1, 20)))
    def test_pieces(self, sizes: list[int]) -> None:
        """A header may come in any pieces, also of less than 8 bytes."""
        hall = Hall()
        connection = BehindProxy(hall, self.clock).buildProtocol(PROXY)
        connection.makeConnection(StringTransport())
        rest = HEADER + b"hello"
        for size in [*sizes, len(rest)]:
            piece, rest = rest[:size], rest[size:]
            if piece:
                connection.dataReceived(piece)
        self.assertEqual(hall.built[0].heard, b"hello")
        lose(connection)

    def test_second_version(self) -> None:
        """So do headers of version 2, over IPv6 and unix sockets too."""
        start = b"\r\n\r\n\0\r\nQUIT\n"
        six = bytes(15) + b"\x01"
        path = b"/run/x".ljust(108, b"\0")
        for family, addresses, peer in (
            (0x21, six + six + struct.pack("!HH", 5, 6), IPv6Address("TCP", "::1", 5)),
            (0x31, path + bytes(108), UNIXAddress(b"/run/x")),
        ):
            connection, _ = self.connect()
            head = struct.pack("!12sBBH", start, 0x21, family, len(addresses))
            connection.dataReceived(head + addresses + b"hi")
            self.assertEqual(self.hall.addresses[-1], peer)
            self.assertEqual(self.hall.built[-1].heard, b"hi")
            lose(connection)

    def test_of_the_proxy(self) -> None:
        """Who the proxy does not name, or is itself, has the connection's address."""
        connection, _ = self.connect()
        connection.dataReceived(b"PROXY UNKNOWN\r\n")
        self.assertEqual(self.hall.addresses, [PROXY])
        self.assertEqual(self.hall.built[0].transport.getPeer(), PROXY)

    def test_broken_header(self) -> None:
        """What is no header is a reset and one line of the log; nobody is built."""
        for header in (
            b"PROXY TCP4 1.2.3.4 5.6.7.8 xx yy\r\n",
            b"PROXY TCP4 \xff 5.6.7.8 11 22\r\n",
            b"PROXY TCP5 1.2.3.4 5.6.7.8 11 22\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            connection, transport = self.connect()
            connection.dataReceived(header + b"hello")
            self.assertTrue(transport.disconnected)
            self.assertEqual(self.hall.built, [])
            self.assertEqual(self.factory.refused, 1)
            self.assertIn("Closing the connection from 127.0.0.1:1", self.log.lines[-1])
            lose(connection)

    def test_no_header(self) -> None:
        """Who does not say in time whom it stands for is reset."""
        connection, transport = self.connect()
        connection.dataReceived(HEADER[:20])
        self.clock.advance(9.9)
        self.assertFalse(transport.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(transport.disconnected)
        self.assertIn("no header of the PROXY protocol in 10 s", self.log.lines[-1])
        lose(connection)

    def test_silent(self) -> None:
        """Who wants no log has the number alone."""
        factory = BehindProxy(self.hall, self.clock, log="none")
        connection = factory.buildProtocol(PROXY)
        connection.makeConnection(StringTransport(peerAddress=PROXY))
        connection.dataReceived(b"GET")
        self.assertEqual(factory.refused, 1)
        self.assertEqual(self.log.lines, [])
        lose(connection)

    def test_after_refusal(self) -> None:
        """What comes after a broken header is not looked at."""
        connection, transport = self.connect()
        connection.dataReceived(b"GET")
        connection.dataReceived(HEADER)
        self.assertTrue(transport.disconnected)
        self.assertEqual(self.hall.built, [])
        self.assertEqual(self.factory.refused, 1)
        lose(connection)

    def test_refused(self) -> None:
        """Whom the inner factory refuses is not served."""
        connection, transport = self.connect()
        self.hall.wants = False
        connection.dataReceived(HEADER + b"hello")
        self.assertTrue(transport.disconnecting)
        lose(connection)

    def test_bugs_of_others(self) -> None:
        """What a protocol behind the header raises is not taken for the header's."""

        def fail(data: bytes) -> None:
            raise ValueError(data)

        connection, _ = self.connect()
        connection.dataReceived(HEADER)
        self.hall.built[0].dataReceived = fail
        with self.assertRaises(ValueError):
            connection.dataReceived(b"hello")

    def test_half_close(self) -> None:
        """It is half-closeable if who is behind the header is, and from then on."""
        for kind, can in ((Hearing, False), (Patient, True)):
            self.hall = Hall(kind)
            connection, _ = self.connect()
            self.assertFalse(IHalfCloseableProtocol.providedBy(connection))
            connection.dataReceived(HEADER)
            self.assertIs(IHalfCloseableProtocol.providedBy(connection), can)
            lose(connection)
        connection, _ = self.connect()
        connection.dataReceived(HEADER)
        connection.readConnectionLost()
        self.assertTrue(self.hall.built[-1].ended)

    def test_owing(self) -> None:
        """Before its header a connection is owed nothing, and can be ended."""
        for end, ended in (("finish", "disconnecting"), ("abort", "disconnected")):
            connection, transport = self.connect()
            self.assertTrue(IOwing.providedBy(connection))
            self.assertFalse(connection.owed())
            self.assertEqual(connection.bytes_received, 0)
            getattr(connection, end)("the service stops")
            self.assertTrue(getattr(transport, ended))
            self.assertEqual(
                self.log.lines[-1],
                "Closing the connection from 127.0.0.1:1: the service stops,"
                " without a header.",
            )
            lose(connection)

    def test_lost_before_the_header(self) -> None:
        """One that goes without a word leaves nothing behind."""
        connection, _ = self.connect()
        lose(connection)
        self.assertEqual(self.hall.built, [])

    def test_bad_deadline(self) -> None:
        """The time for a header is a number of seconds."""
        with self.assertRaises(SettingError):
            BehindProxy(self.hall, self.clock, seconds=0)


class BehindProxyContractTests(WrapperContract, SynchronousTestCase):
    """Once the header has come, it is a wrapper like others."""

    def wrap(self, inner: Any) -> Any:
        return HeaderKnown(inner, self.clock)


class RealProxyTests(TestCase):
    """The same over sockets."""

    timeout = 30

    async def test_half_close_over_tcp(self) -> None:
        """Who ends its input behind a proxy gets every byte it is owed."""
        from twisted.internet import reactor

        for factory, said, back in (
            (EchoFactory(reactor), b"x" * 300_000, b"x" * 300_000),
            (HelloFactory(reactor), b"Eva\n", b"Welcome!\nHello, Eva!\n"),
        ):
            port: Any = await serve_tcp(self, BehindProxy(factory, reactor))
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
            peer = await join(endpoint)
            peer.send(HEADER + said)
            peer.end()
            self.assertEqual(await peer.take_all(), back)
            peer.transport.loseConnection()
            await peer.gone()
