"""
What the stream services share: half-close, an orderly close, the log.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from sockproto.errors import SettingError
from sockproto.interfaces import Debt, IOwing
from sockproto.stream import (
    LINGER_SECONDS,
    LINGER_SIZE,
    StreamFactory,
    StreamProtocol,
)
from tests.contracts import (
    LogLines,
    MemoryTransport,
    connect_in_memory,
    join,
    lose,
    serve_tcp,
    turns_until,
)


class Parrot(StreamProtocol):
    """Says what it hears, until it hears `bye`."""

    def _begin(self) -> None:
        self.transport.registerProducer(self.transport, True)

    def _receive(self, data: bytes) -> None:
        self._send(data)
        if data.startswith(b"bye"):
            self.finish("it said bye")


class ParrotFactory(StreamFactory):
    protocol = Parrot


class StreamProtocolTests(SynchronousTestCase):
    """One connection, in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LogLines(self)
        self.protocol, self.transport = connect_in_memory(ParrotFactory(self.clock))

    def tearDown(self) -> None:
        if self.protocol in self.protocol.factory.connections:
            lose(self.protocol)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.protocol.factory.connections, set())

    def test_provides_what_draining_needs(self) -> None:
        """A connection can say what it owes."""
        self.assertTrue(verifyObject(IOwing, self.protocol))
        self.assertEqual(self.protocol.owed(), Debt())
        self.transport.dataBuffer = b"12"
        self.assertEqual(self.protocol.owed(), Debt(unsent=2))

    def test_log(self) -> None:
        """The log has a line as it comes and one as it goes, in the known words."""
        self.protocol.dataReceived(b"hello")
        self.clock.advance(1.5)
        lose(self.protocol)
        self.assertEqual(
            self.log.lines,
            [
                "Accept new connection from 192.168.1.1:54321...",
                (
                    "Connection from 192.168.1.1:54321 closed."
                    " (5 bytes in, 5 out, 1.500 s: the peer closed)"
                ),
            ],
        )

    def test_log_of_a_break(self) -> None:
        """A connection that breaks off is one line that says so."""
        lose(self.protocol, ConnectionLost("reset"))
        self.assertEqual(len(self.log.lines), 2)
        self.assertIn("broken off: ", self.log.lines[1])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_log_none(self) -> None:
        """With `none`, connections are not logged."""
        self.log.events.clear()
        protocol, _ = connect_in_memory(ParrotFactory(self.clock, log="none"))
        lose(protocol, ConnectionLost())
        self.assertEqual(self.log.lines, [])

    def test_end_of_input(self) -> None:
        """A client that ends its input is closed once all is sent."""
        self.protocol.dataReceived(b"hello")
        self.protocol.readConnectionLost()
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.assertEqual(self.transport.value(), b"hello")
        lose(self.protocol)
        self.assertIn("the client closed)", self.log.lines[-1])

    def test_close_by_us(self) -> None:
        """Our side ends first, so that no reset takes the last words."""
        self.transport.pauseProducing()
        self.protocol.dataReceived(b"bye")
        self.assertTrue(self.transport.half_closed)
        self.assertFalse(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.assertEqual(self.transport.producerState, "producing")
        self.protocol.writeConnectionLost()
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(LINGER_SECONDS)
        self.assertTrue(self.transport.disconnecting)
        lose(self.protocol)
        self.assertIn("it said bye)", self.log.lines[-1])

    def test_the_first_reason_is_told(self) -> None:
        """Finishing twice is finishing once; the log has the first reason."""
        self.protocol.finish("the first")
        self.protocol.finish("the second")
        lose(self.protocol)
        self.assertIn("the first)", self.log.lines[-1])

    def test_the_clock_starts_when_all_is_sent(self) -> None:
        """A slow reader gets its last words, however long they take."""
        self.protocol.finish("over")
        self.clock.advance(100)
        self.assertFalse(self.transport.disconnecting)

    def test_input_is_discarded(self) -> None:
        """What comes after our last word is not answered, and is counted."""
        self.protocol.dataReceived(b"bye")
        self.protocol.dataReceived(b"more")
        self.assertEqual(self.transport.value(), b"bye")
        self.assertEqual(self.protocol.bytes_received, 7)
        self.assertFalse(self.transport.disconnecting)

    def test_peer_ends_while_we_listen(self) -> None:
        """A client that ends its input after our last word is closed at once."""
        self.protocol.finish("over")
        self.protocol.writeConnectionLost()
        self.protocol.readConnectionLost()
        self.assertTrue(self.transport.disconnecting)

    def test_peer_ends_before_all_is_sent(self) -> None:
        """The transport closes after what is unsent, if the client has ended."""
        self.protocol.finish("over")
        self.protocol.readConnectionLost()
        self.assertTrue(self.transport.disconnecting)

    def test_too_much_to_discard(self) -> None:
        """Above 64 KiB we do not listen for the rest of the second."""
        self.protocol.finish("over")
        self.protocol.writeConnectionLost()
        self.protocol.dataReceived(b"x" * LINGER_SIZE)
        self.assertFalse(self.transport.disconnecting)
        self.protocol.dataReceived(b"x")
        self.assertTrue(self.transport.disconnecting)

    def test_too_much_to_discard_before_all_is_sent(self) -> None:
        """What is unsent is sent first, and no more is read meanwhile."""
        self.protocol.finish("over")
        self.protocol.dataReceived(b"x" * (LINGER_SIZE + 1))
        self.assertFalse(self.transport.disconnecting)
        self.assertEqual(self.transport.producerState, "paused")
        self.protocol.writeConnectionLost()
        self.assertTrue(self.transport.disconnecting)

    def test_abort(self) -> None:
        """An abort closes at once, and the log says why."""
        self.protocol.abort("enough")
        self.assertTrue(self.transport.disconnected)
        lose(self.protocol, ConnectionAborted())
        self.assertIn("enough)", self.log.lines[-1])

    def test_where_no_direction_closes_alone(self) -> None:
        """Without half-close, finishing is closing after what is unsent."""
        protocol, transport = connect_in_memory(
            ParrotFactory(self.clock), StringTransport()
        )
        protocol.finish("over")
        self.assertTrue(transport.disconnecting)
        lose(protocol)

    def test_a_subclass_says_what_it_does(self) -> None:
        """The base says nothing by itself."""
        bare = StreamProtocol()
        with self.assertRaises(NotImplementedError):
            bare._begin()
        with self.assertRaises(NotImplementedError):
            bare._receive(b"")

    def test_no_delay_of_nagles(self) -> None:
        """On TCP, small answers leave at once; a socket that cannot is taken too."""
        asked: list[bool] = []

        class Tcp(MemoryTransport):
            def setTcpNoDelay(self, enabled: bool) -> None:
                asked.append(enabled)
                raise OSError(95, "Operation not supported")

        transport = Tcp()
        directlyProvides(transport, ITCPTransport)
        protocol, _ = connect_in_memory(ParrotFactory(self.clock), transport)
        self.assertEqual(asked, [True])
        lose(protocol)


class BehindWrapperTests(SynchronousTestCase):
    """A connection inside somebody else's wrapper."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = ParrotFactory(self.clock, log="none")
        wrapping = WrappingFactory(self.factory)
        self.wrapper: Any = wrapping.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.transport = MemoryTransport()
        self.wrapper.makeConnection(self.transport)
        (self.protocol,) = self.factory.connections

    def tearDown(self) -> None:
        lose(self.wrapper)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers(self) -> None:
        """A stock wrapper of Twisted's is passed through, both ways."""
        self.wrapper.dataReceived(b"hello")
        self.assertEqual(self.transport.value(), b"hello")

    def test_close_by_us(self) -> None:
        """The wrapper is asked to close: it may still hold what is unsent."""
        self.wrapper.dataReceived(b"bye")
        self.assertFalse(self.transport.half_closed)
        self.assertTrue(self.transport.disconnecting)

    def test_a_wrapper_that_waits(self) -> None:
        """A wrapper that waits for its peer's farewell waits a second, once sent."""
        self.wrapper.loseConnection = lambda: None  # as TLS, without close_notify
        self.transport.dataBuffer = b"unsent"
        self.protocol.finish("over")
        self.clock.advance(LINGER_SECONDS)
        self.assertFalse(self.transport.disconnecting)
        self.transport.dataBuffer = b""
        self.clock.advance(LINGER_SECONDS)
        self.assertTrue(self.transport.disconnecting)


class StreamFactoryTests(SynchronousTestCase):
    """The factory's arguments."""

    def test_log(self) -> None:
        """A wrong log is refused by name, when the factory is made."""
        with self.assertRaises(SettingError) as caught:
            ParrotFactory(Clock(), log="loud")
        self.assertEqual(caught.exception.name, "log")

    def test_embeds(self) -> None:
        """It is a Twisted factory, and it logs no starting of its own."""
        factory = ParrotFactory(Clock())
        self.assertIsInstance(factory, Factory)
        self.assertFalse(factory.noisy)


class LastWordsTests(TestCase):
    """An orderly close, over a socket."""

    timeout = 30

    async def talk(self, unread: int) -> None:
        """Make the service close while it has unread input; all it said must come."""
        from twisted.internet import reactor

        factory = ParrotFactory(reactor)
        port: Any = await serve_tcp(self, factory)
        peer = await join(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))
        peer.send(b"bye")
        self.assertEqual(await peer.take(3), b"bye")
        peer.send(b"x" * unread)
        self.assertEqual(await peer.take_all(), b"")
        self.assertIsNone(peer.lost)  # end of file, and no reset
        peer.transport.loseConnection()
        await turns_until(lambda: not factory.connections)

    async def test_nothing_unread(self) -> None:
        """A client that is closed gets end of file."""
        await self.talk(0)

    async def test_some_unread(self) -> None:
        """A client that talks on meanwhile gets end of file, too, and no reset."""
        await self.talk(LINGER_SIZE // 2)

    async def test_a_client_that_stays(self) -> None:
        """A client that stays is closed after a second."""
        from twisted.internet import reactor

        clock = Clock()
        factory = ParrotFactory(clock)
        port: Any = await serve_tcp(self, factory)
        peer = await join(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))
        peer.send(b"bye")
        self.assertEqual(await peer.take_all(), b"bye")
        self.assertEqual(len(factory.connections), 1)
        await turns_until(clock.getDelayedCalls)
        clock.advance(LINGER_SECONDS)
        self.assertEqual(factory.connections, set())
        peer.transport.loseConnection()
        await peer.gone()
