"""
What the stream services share: half-close, an orderly close, the log.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from sockproto.closing import LINGER_SECONDS
from sockproto.errors import SettingError
from sockproto.interfaces import Debt, IOwing
from sockproto.stream import StreamFactory, StreamProtocol
from tests.contracts import (
    LogLines,
    MemoryTransport,
    connect_in_memory,
    lose,
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

    def test_peer_ends_while_we_listen(self) -> None:
        """A client that ends its input after our last word is closed at once."""
        self.protocol.finish("over")
        self.protocol.writeConnectionLost()
        self.protocol.readConnectionLost()
        self.assertTrue(self.transport.disconnecting)

    def test_input_is_discarded(self) -> None:
        """What comes after our last word is not answered, and is counted."""
        self.protocol.dataReceived(b"bye")
        self.protocol.dataReceived(b"more")
        self.assertEqual(self.transport.value(), b"bye")
        self.assertEqual(self.protocol.bytes_received, 7)
        self.assertFalse(self.transport.disconnecting)

    def test_abort(self) -> None:
        """An abort closes at once, and the log says why."""
        self.protocol.abort("enough")
        self.assertTrue(self.transport.disconnected)
        lose(self.protocol, ConnectionAborted())
        self.assertIn("enough)", self.log.lines[-1])

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
