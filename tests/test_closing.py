"""
An orderly close: our side first, and then a little patience.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from sockproto.closing import LINGER_SECONDS, LINGER_SIZE, OrderlyClose
from sockproto.testing import connect
from sockproto.wrapping import ConnectionWrapper
from tests.contracts import (
    directory,
    forgive_twisted_certificates,
    join,
    turns_until,
)
from tests.policies.certificates import TrustedCertificate, over_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint
    from twisted.python.failure import Failure

LAST_WORDS = b"last words" * 10_000


@implementer(IHalfCloseableProtocol)
class Leaver(Protocol):
    """
    Says its last words when it is told to, or when it hears anything.
    """

    transport: Any

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.close: OrderlyClose | None = None
        self.input_ended = False
        self.reasons: list[Failure] = []

    def leave(self, words: bytes = LAST_WORDS) -> None:
        self.transport.write(words)
        self.close = OrderlyClose(self.transport, self.clock)
        self.close.begin(input_ended=self.input_ended)

    def dataReceived(self, data: bytes) -> None:
        if self.close is not None:
            self.close.data_received(len(data))
        else:
            self.leave()

    def readConnectionLost(self) -> None:
        self.input_ended = True
        if self.close is not None:
            self.close.read_connection_lost()

    def writeConnectionLost(self) -> None:
        if self.close is not None:
            self.close.write_connection_lost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason)
        if self.close is not None:
            self.close.connection_lost()


class OrderlyCloseTests(SynchronousTestCase):
    """Where each direction closes alone, in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.leaver = Leaver(self.clock)
        _, self.transport = connect(self.factory(), self.clock)

    def factory(self) -> Any:
        return Factory.forProtocol(lambda: self.leaver)

    def take(self) -> None:
        """Let the peer take all, and the transport look again."""
        self.transport.take()
        self.clock.advance(0)

    def assert_closed(self) -> None:
        """It closed in order, all was sent, and no delayed call is left."""
        self.clock.advance(0)
        self.assertEqual([each.type for each in self.leaver.reasons], [ConnectionDone])
        self.assertEqual(self.transport.taken, LAST_WORDS)
        self.assertFalse(self.transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_our_side_first(self) -> None:
        """The peer gets all, then end of file; then it has a second to end its side."""
        self.leaver.leave()
        self.take()
        self.assertEqual(self.transport.taken, LAST_WORDS)
        self.assertTrue(self.transport.output_ended)
        self.clock.advance(LINGER_SECONDS - 1 / 8)
        self.assertEqual(self.leaver.reasons, [])
        self.clock.advance(1 / 8)
        self.assert_closed()

    def test_the_clock_starts_when_all_is_sent(self) -> None:
        """A slow reader gets its last words, however long they take."""
        self.leaver.leave()
        for _ in range(100):
            self.clock.advance(LINGER_SECONDS)
            self.transport.take(len(LAST_WORDS) // 100)
        self.assertEqual(self.leaver.reasons, [])
        self.take()
        self.clock.advance(LINGER_SECONDS)
        self.assert_closed()

    def test_peer_ends_while_we_listen(self) -> None:
        """A peer that ends its side after our last word is closed at once."""
        self.leaver.leave()
        self.take()
        self.transport.end_input()
        self.assert_closed()

    def test_peer_ends_before_all_is_sent(self) -> None:
        """A peer that ends its side earlier gets what is unsent first."""
        self.leaver.leave()
        self.transport.end_input()
        self.clock.advance(LINGER_SECONDS)
        self.assertEqual(self.leaver.reasons, [])
        self.take()
        self.assert_closed()

    def test_peer_had_ended(self) -> None:
        """To a peer that had ended its side we do not listen."""
        self.transport.end_input()
        self.leaver.leave()
        self.clock.advance(LINGER_SECONDS)
        self.assertEqual(self.leaver.reasons, [])
        self.take()
        self.assert_closed()

    def test_producer(self) -> None:
        """A producer is asked no more: a transport would wait for it."""
        self.leaver.transport.registerProducer(self.leaver.transport, True)
        self.leaver.leave()
        self.assertFalse(self.leaver.transport.producer)
        self.take()
        self.transport.end_input()
        self.assert_closed()

    def test_reading_goes_on(self) -> None:
        """Who had paused reading reads again, else there would be a reset."""
        self.leaver.transport.pauseProducing()
        self.leaver.leave()
        self.assertTrue(self.transport.reading)
        self.transport.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_much_to_discard(self) -> None:
        """Above 64 KiB we do not listen for the rest of the second."""
        self.leaver.leave()
        self.take()
        self.transport.deliver(b"x" * LINGER_SIZE)
        self.clock.advance(0)
        self.assertEqual(self.leaver.reasons, [])
        self.transport.deliver(b"x")
        self.assert_closed()

    def test_too_much_to_discard_before_all_is_sent(self) -> None:
        """What is unsent is sent first, and no more is read meanwhile."""
        self.leaver.leave()
        self.transport.deliver(b"x" * LINGER_SIZE)
        self.assertTrue(self.transport.reading)
        self.transport.deliver(b"x")
        self.assertFalse(self.transport.reading)
        self.clock.advance(LINGER_SECONDS)
        self.assertEqual(self.leaver.reasons, [])
        self.take()
        self.assert_closed()

    def test_lost(self) -> None:
        """A connection that breaks at any moment leaves nothing behind."""
        self.leaver.leave()
        self.take()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.transport.lose()
        self.assertEqual(len(self.leaver.reasons), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class InLayersTests(OrderlyCloseTests):
    """Our own wrappers change nothing of it."""

    def factory(self) -> Any:
        return Factory.forProtocol(
            lambda: ConnectionWrapper(None, ConnectionWrapper(None, self.leaver))
        )


class NoHalfCloseTests(SynchronousTestCase):
    """Where only both directions close."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.leaver = Leaver(self.clock)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_another_transport(self) -> None:
        """A transport without half-close closes after what is unsent."""
        transport = StringTransport()
        self.leaver.makeConnection(transport)
        transport.registerProducer(transport, True)
        self.leaver.leave()
        self.assertTrue(transport.disconnecting)

    def test_stock_wrapper(self) -> None:
        """A wrapper of Twisted's is asked: it may still hold what is unsent."""
        wrapping = WrappingFactory(Factory.forProtocol(lambda: self.leaver))
        _, transport = connect(wrapping, self.clock)
        self.leaver.leave()
        transport.take()
        self.clock.advance(0)
        self.assertEqual(transport.taken, LAST_WORDS)
        self.assertEqual([each.type for each in self.leaver.reasons], [ConnectionDone])


class TLSTests(SynchronousTestCase):
    """In TLS, which waits for its peer's farewell."""

    def setUp(self) -> None:
        forgive_twisted_certificates(self)
        self.clock = Clock()
        self.leaver = Leaver(self.clock)
        self.heard: list[bytes] = []
        self.trust = TrustedCertificate()

    def connect(self, *, later: bool) -> None:
        """Connect both ends and shake hands; by `startTLS`, if later."""
        peer: Any = Protocol()
        peer.dataReceived = self.heard.append
        client = TLSMemoryBIOFactory(
            self.trust.client, True, Factory.forProtocol(lambda: peer), self.clock
        )
        served: Any = Factory.forProtocol(lambda: self.leaver)
        if not later:
            served = TLSMemoryBIOFactory(self.trust.server, False, served, self.clock)
        _, self.transport = connect(served, self.clock)
        if later:
            self.leaver.transport.startTLS(self.trust.server)
        _, self.far = connect(client, self.clock)
        self.peer = peer
        for _ in range(4):
            self.carry()

    def carry(self) -> None:
        """Carry both ends' bytes once."""
        for one, other in ((self.far, self.transport), (self.transport, self.far)):
            self.clock.advance(0)
            other.deliver(one.take())

    def check_silent_peer(self, *, later: bool) -> None:
        self.connect(later=later)
        self.leaver.leave()
        for _ in range(5):
            self.clock.advance(LINGER_SECONDS)
        self.assertEqual(self.leaver.reasons, [])
        self.far.deliver(self.transport.take())
        self.assertEqual(b"".join(self.heard), LAST_WORDS)
        self.assertEqual(self.leaver.reasons, [])
        self.clock.advance(LINGER_SECONDS)
        self.clock.advance(0)
        self.assertEqual(len(self.leaver.reasons), 1)
        self.assertFalse(self.transport.aborted)
        self.assertTrue(self.transport.output_ended)
        self.far.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silent_peer(self) -> None:
        """A peer without a farewell is waited for a second, once all is sent."""
        self.check_silent_peer(later=False)

    def test_silent_peer_after_starttls(self) -> None:
        """The same where TLS began in the middle of the conversation."""
        self.check_silent_peer(later=True)

    def check_talking_peer(self, *, later: bool) -> None:
        self.connect(later=later)
        self.leaver.leave()
        self.clock.advance(0)
        self.peer.transport.write(b"x" * (LINGER_SIZE + 1))
        self.clock.advance(0)
        self.transport.deliver(self.far.take())
        self.assertFalse(self.transport.reading)
        self.transport.take()
        self.clock.advance(LINGER_SECONDS)
        self.clock.advance(0)
        self.assertEqual(len(self.leaver.reasons), 1)
        self.far.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_talking_peer(self) -> None:
        """Nor does a peer stay that talks on instead."""
        self.check_talking_peer(later=False)

    def test_talking_peer_after_starttls(self) -> None:
        """The same where TLS began in the middle of the conversation."""
        self.check_talking_peer(later=True)

    def test_farewell(self) -> None:
        """A peer that says farewell is closed at once."""
        for later in (False, True):
            self.leaver = Leaver(self.clock)
            self.heard.clear()
            self.connect(later=later)
            self.leaver.leave()
            for _ in range(3):
                self.carry()
            self.assertEqual(b"".join(self.heard), LAST_WORDS)
            self.assertEqual(len(self.leaver.reasons), 1)
            self.far.lose()
            self.assertEqual(self.clock.getDelayedCalls(), [])


class SocketTests(TestCase):
    """Over sockets, where a reset would take the last words."""

    timeout = 30

    async def talk(
        self,
        server: IStreamServerEndpoint,
        client: Callable[[Any], Any],
        unread: int = 0,
    ) -> None:
        """Make the service close while it has unread input; all it said must come."""
        from twisted.internet import reactor

        clock: Any = reactor
        leaver = Leaver(clock)
        port: Any = await server.listen(Factory.forProtocol(lambda: leaver))
        self.addCleanup(port.stopListening)
        peer = await join(client(port.getHost()))
        peer.send(b"bye")
        peer.send(b"x" * unread)
        self.assertEqual(await peer.take_all(), LAST_WORDS)
        self.assertTrue(peer.lost is None or peer.lost.check(ConnectionDone))
        peer.transport.loseConnection()
        await turns_until(lambda: leaver.reasons)

    def tcp(self) -> tuple[IStreamServerEndpoint, Callable[[Any], Any]]:
        from twisted.internet import reactor

        return (
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            lambda host: TCP4ClientEndpoint(reactor, "127.0.0.1", host.port),
        )

    async def test_nothing_unread(self) -> None:
        """Who is closed gets end of file."""
        await self.talk(*self.tcp())

    async def test_some_unread(self) -> None:
        """Who talks on meanwhile gets end of file, too, and no reset."""
        await self.talk(*self.tcp(), unread=LINGER_SIZE // 2)

    async def test_unix(self) -> None:
        """So it is over unix sockets."""
        from twisted.internet import reactor

        path = str(directory(self) / "socket")
        client = UNIXClientEndpoint(reactor, path)
        await self.talk(
            UNIXServerEndpoint(reactor, path), lambda _: client, LINGER_SIZE // 2
        )

    async def test_tls(self) -> None:
        """So it is over TLS."""
        forgive_twisted_certificates(self)
        await self.talk(*over_tls(), LINGER_SIZE // 2)

    async def test_a_client_that_stays(self) -> None:
        """Who stays is closed after a second."""
        clock = Clock()
        leaver = Leaver(clock)
        server, client = self.tcp()
        port: Any = await server.listen(Factory.forProtocol(lambda: leaver))
        self.addCleanup(port.stopListening)
        peer = await join(client(port.getHost()))
        peer.send(b"bye")
        self.assertEqual(await peer.take_all(), LAST_WORDS)
        await turns_until(clock.getDelayedCalls)
        self.assertEqual(leaver.reasons, [])
        clock.advance(LINGER_SECONDS)
        await turns_until(lambda: leaver.reasons)
        peer.transport.loseConnection()
        await peer.gone()
