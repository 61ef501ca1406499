"""
Back-pressure around protocols that have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, LoopingCall
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from sockproto.errors import SettingError
from sockproto.policies.unsent import LOWEST, UnsentLimit
from sockproto.testing import MemoryTransport, WrapperContract, connect
from sockproto.transports import innermost, unsent
from tests.contracts import (
    LogLines,
    directory,
    forgive_twisted_certificates,
    join,
    turns_until,
)
from tests.policies.certificates import TrustedCertificate, over_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
    from twisted.python.failure import Failure

READ = 65_536
"""Bytes that a transport of Twisted's reads at once."""

MUCH = 1 << 18


class Plain(Protocol):
    """
    Has no back-pressure, and does what the test says.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.reasons: list[Failure] = []
        self.begin: Callable[[], object] = bool

    def connectionMade(self) -> None:
        self.begin()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason)


class NaiveEcho(Plain):
    """
    Sends back what it reads.
    """

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)


@implementer(IHalfCloseableProtocol)
class HalfCloseableEcho(NaiveEcho):
    """
    Sends back what it reads, and closes after the peer's end.
    """

    ended = False

    def readConnectionLost(self) -> None:
        self.ended = True
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


@implementer(IPushProducer)
class Producer:
    """
    Notes what it is asked, and does what the test says when it is resumed.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.resumed: Callable[[], object] = bool

    def pauseProducing(self) -> None:
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        self.asked.append("resume")
        self.resumed()

    def stopProducing(self) -> None:
        self.asked.append("stop")


def numbers(size: int) -> bytes:
    """Bytes of which none can be lost or moved without notice."""
    return b"".join(b"%07d\n" % number for number in range(size // 8))


class UnsentLimitContractTests(WrapperContract, SynchronousTestCase):
    """It passes on all that it does not change."""

    def wrap(self, inner: IProtocolFactory) -> UnsentLimit:
        return UnsentLimit(inner)


class HighLimitContractTests(WrapperContract, SynchronousTestCase):
    """Whatever the bounds are."""

    def wrap(self, inner: IProtocolFactory) -> UnsentLimit:
        return UnsentLimit(inner, pause_above=1 << 19, abort_above=1 << 19)


class UnsentLimitTests(SynchronousTestCase):
    """Protocols that write more than their peers take."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(
        self, inner: Protocol, **bounds: int
    ) -> tuple[UnsentLimit, MemoryTransport]:
        policy = UnsentLimit(Factory.forProtocol(lambda: inner), **bounds)
        _, transport = connect(policy, self.clock)
        return policy, transport

    def take_all(self, transport: MemoryTransport) -> None:
        """Let the peer take as it comes, until nothing more comes."""
        while transport.take():
            self.clock.advance(0)
        self.clock.advance(0)

    # Reading

    def test_naive_echo(self) -> None:
        """Who does not take its answers is not read from, and loses none of them."""
        inner = NaiveEcho()
        policy, transport = self.connect(inner)
        sent = numbers(1 << 20)
        transport.deliver(sent)
        self.clock.advance(0)
        self.assertFalse(transport.reading)
        self.assertLessEqual(transport.unsent, LOWEST + READ)
        self.take_all(transport)
        self.assertEqual(transport.taken, sent)
        self.assertTrue(transport.reading)
        self.assertEqual(policy.aborted, 0)

    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from(["deliver", "take", "turn", "pause", "resume"]),
                st.integers(1, 200_000),
            ),
            max_size=30,
        ),
        pause_above=st.sampled_from([LOWEST, 100_000]),
    )
    def test_whatever_the_order(
        self, steps: list[tuple[str, int]], pause_above: int
    ) -> None:
        """However reading, writing and pausing meet, the bounds hold, and all comes."""
        self.clock = Clock()
        inner = NaiveEcho()
        _, transport = self.connect(
            inner, pause_above=pause_above, abort_above=pause_above + READ
        )
        sent = b""
        for step, size in steps:
            if step == "deliver":
                sent += numbers(size)
                transport.deliver(numbers(size))
            elif step == "take":
                transport.take(size)
            elif step == "turn":
                self.clock.advance(0)
            else:
                getattr(inner.transport, f"{step}Producing")()
            self.assertLessEqual(transport.unsent, pause_above + READ)
        inner.transport.resumeProducing()
        self.clock.advance(0)
        self.take_all(transport)
        self.assertEqual(transport.taken, sent)
        transport.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_until_all_is_taken(self) -> None:
        """Reading is held up above the bound, not at it, and until all is taken."""
        inner = Plain()
        _, transport = self.connect(inner, pause_above=100_000)
        inner.transport.write(b"x" * 100_000)
        self.assertTrue(transport.reading)
        inner.transport.writeSequence([b"x"])
        self.assertFalse(transport.reading)
        transport.take(100_000)
        self.assertFalse(transport.reading)
        transport.take(1)
        self.assertTrue(transport.reading)

    def test_inner_pause_is_kept(self) -> None:
        """A protocol that has paused reading itself stays paused when all is taken."""
        inner = Plain()
        _, transport = self.connect(inner)
        inner.transport.pauseProducing()
        inner.transport.write(b"x" * 2 * LOWEST)
        transport.take()
        self.assertFalse(transport.reading)
        inner.transport.write(b"x" * 2 * LOWEST)
        inner.transport.resumeProducing()
        self.assertFalse(transport.reading)
        transport.take()
        self.assertTrue(transport.reading)

    def test_owed(self) -> None:
        """What we do not read is owed an answer, as far as it can be told."""
        inner = NaiveEcho()
        _, transport = self.connect(inner)
        outer: Any = transport.protocol
        transport.deliver(b"x" * 100_000)
        self.assertEqual(outer.owed().unsent, 100_000)
        self.assertEqual(outer.bytes_received, 100_000)
        self.take_all(transport)
        self.assertFalse(outer.owed())

    # Aborting

    def test_chargen(self) -> None:
        """Who takes nothing of what comes by itself is reset at the bound."""
        lines = LogLines(self)
        inner = Plain()
        policy, transport = self.connect(inner, abort_above=200_000)
        most = 0

        def say() -> None:
            nonlocal most
            inner.transport.write(b"x" * 1000)
            inner.transport.writeSequence([b"x" * 500, b"x" * 500])
            most = max(most, transport.unsent)

        loop = LoopingCall(say)
        loop.clock = self.clock
        loop.start(1)
        self.clock.pump([1] * 99)
        self.assertFalse(transport.aborted)
        self.clock.pump([1] * 99)
        loop.stop()
        self.assertTrue(transport.aborted)
        self.assertEqual(most, 201_000)
        self.assertEqual(policy.aborted, 1)
        self.assertEqual([each.type for each in inner.reasons], [ConnectionAborted])
        (line,) = lines.lines
        self.assertIn(": 201000 bytes are unsent, where 200000 are allowed.", line)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_writes_in_one_turn(self) -> None:
        """A protocol that writes on after the abort piles up nothing more."""
        lines = LogLines(self)
        inner = Plain()
        policy, transport = self.connect(inner, abort_above=LOWEST)
        for _ in range(1000):
            inner.transport.write(b"x" * 1000)
            inner.transport.writeSequence([b"x" * 1000])
        self.assertLessEqual(transport.unsent, LOWEST + 1000)
        self.assertEqual((policy.aborted, len(lines.lines)), (1, 1))
        self.clock.advance(0)
        self.assertEqual(len(inner.reasons), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_abort_in_the_beginning(self) -> None:
        """The bound holds from the first moment on."""
        inner = Plain()
        inner.begin = lambda: inner.transport.write(b"x" * (LOWEST + 1))
        policy, transport = self.connect(inner, abort_above=LOWEST)
        transport.deliver(b"late")
        self.clock.advance(0)
        self.assertEqual((policy.aborted, bytes(inner.received)), (1, b""))
        self.assertTrue(transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_abort_while_reading(self) -> None:
        """A protocol that is reset while it answers hears of nothing more."""
        inner = NaiveEcho()
        policy, transport = self.connect(inner, abort_above=LOWEST)
        transport.deliver(b"x" * 10 * READ)
        self.clock.advance(0)
        self.assertEqual(len(inner.received), 2 * READ)
        self.assertEqual((policy.aborted, len(inner.reasons)), (1, 1))

    def test_abort_after_close(self) -> None:
        """The bound holds after `loseConnection`, too, for who writes on."""
        inner = Plain()
        policy, transport = self.connect(inner, abort_above=LOWEST)
        inner.transport.write(b"x")
        inner.transport.loseConnection()
        inner.transport.write(b"x" * LOWEST)
        self.clock.advance(0)
        self.assertTrue(transport.aborted)
        self.assertEqual(policy.aborted, 1)

    # The inner protocol's own producers

    def test_late_push_producer(self) -> None:
        """A producer may come while reading is held up, and reading goes on after."""
        inner, producer = Plain(), Producer()
        _, transport = self.connect(inner)
        inner.transport.write(b"x" * 2 * LOWEST)
        inner.transport.registerProducer(producer, True)
        transport.take(LOWEST)
        self.assertFalse(transport.reading)
        transport.take()
        self.assertTrue(transport.reading)
        self.assertEqual(producer.asked[-1], "resume")

    def test_push_producer_leaves(self) -> None:
        """A producer may go while reading is held up, and reading goes on after."""
        inner, producer = Plain(), Producer()
        _, transport = self.connect(inner)
        inner.transport.registerProducer(producer, True)
        inner.transport.write(b"x" * 2 * LOWEST)
        self.assertFalse(transport.reading)
        inner.transport.unregisterProducer()
        self.assertFalse(transport.reading)
        transport.take(LOWEST + 1)
        self.assertFalse(transport.reading)
        transport.take()
        self.assertTrue(transport.reading)
        self.assertEqual(producer.asked, ["pause"])

    def test_pull_producer_leaves(self) -> None:
        """A producer that is pulled may say its last and go, and reading goes on."""
        inner, producer = Plain(), Producer()
        _, transport = self.connect(inner)

        def say_last() -> None:
            inner.transport.write(b"x" * 2 * LOWEST)
            inner.transport.unregisterProducer()

        producer.resumed = say_last
        inner.transport.registerProducer(producer, False)
        self.assertFalse(transport.reading)
        transport.take(LOWEST + 1)
        self.assertFalse(transport.reading)
        transport.take()
        self.assertTrue(transport.reading)
        self.assertEqual(producer.asked, ["resume"])

    def test_late_pull_producer(self) -> None:
        """One that is pulled is asked at once; reading waits until all is taken."""
        inner, producer = Plain(), Producer()
        _, transport = self.connect(inner)
        inner.transport.write(b"x" * 2 * LOWEST)
        inner.transport.registerProducer(producer, False)
        self.assertEqual(producer.asked, ["resume"])
        self.assertFalse(transport.reading)
        transport.take()
        self.assertTrue(transport.reading)
        self.assertEqual(producer.asked, ["resume", "resume"])

    def test_one_after_the_other(self) -> None:
        """One producer may follow the other while reading is held up."""
        inner = Plain()
        _, transport = self.connect(inner)
        inner.transport.write(b"x" * 2 * LOWEST)
        for streaming in (False, True, False, True):
            inner.transport.registerProducer(Producer(), streaming)
            with self.assertRaises(RuntimeError):
                inner.transport.registerProducer(Producer(), streaming)
            inner.transport.unregisterProducer()
        self.assertFalse(transport.reading)
        transport.take()
        self.assertTrue(transport.reading)

    def test_producer_after_close(self) -> None:
        """A producer may still come after the close, which waits for it then."""
        inner, producer = Plain(), Producer()
        _, transport = self.connect(inner)
        inner.transport.write(b"x" * 2 * LOWEST)
        inner.transport.loseConnection()
        inner.transport.registerProducer(producer, True)
        transport.take()
        self.clock.advance(0)
        self.assertEqual(inner.reasons, [])
        inner.transport.write(b"last words")
        inner.transport.unregisterProducer()
        self.take_all(transport)
        self.assertEqual(transport.taken[-10:], b"last words")
        self.assertEqual([each.type for each in inner.reasons], [ConnectionDone])

    # Closing

    def test_close_after_much(self) -> None:
        """Each way to close sends first what is unsent, all of it."""
        sent = numbers(MUCH)
        for end in ("loseConnection", "loseWriteConnection", "stopProducing"):
            inner = HalfCloseableEcho()
            _, transport = self.connect(inner)
            inner.transport.write(sent)
            for _ in range(2):
                getattr(inner.transport, end)()
                self.clock.advance(0)
            self.assertFalse(transport.output_ended)
            self.take_all(transport)
            self.assertEqual(transport.taken, sent)
            self.assertTrue(transport.output_ended, end)
            transport.end_input()
            self.clock.advance(0)
            self.assertEqual([each.type for each in inner.reasons], [ConnectionDone])
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_by_an_outer_wrapper(self) -> None:
        """Who closes the transport itself closes it, too, when all is taken."""
        inner = Plain()
        _, transport = self.connect(inner)
        inner.transport.write(b"x" * MUCH)
        transport.loseConnection()
        self.take_all(transport)
        self.assertEqual(len(transport.taken), MUCH)
        self.assertEqual([each.type for each in inner.reasons], [ConnectionDone])

    def test_close_by_an_outer_wrapper_waits_for_producer(self) -> None:
        """Then, too, the inner protocol's own producer has its time."""
        inner, producer = Plain(), Producer()
        _, transport = self.connect(inner)
        inner.transport.registerProducer(producer, True)
        inner.transport.write(b"x" * MUCH)
        transport.loseConnection()
        self.take_all(transport)
        self.assertEqual((producer.asked, inner.reasons), (["pause", "resume"], []))
        inner.transport.unregisterProducer()
        self.take_all(transport)
        self.assertEqual([each.type for each in inner.reasons], [ConnectionDone])

    def test_reading_after_half_close(self) -> None:
        """After `loseWriteConnection` the peer is heard until its end."""
        inner = HalfCloseableEcho()
        _, transport = self.connect(inner)
        inner.transport.write(b"x" * MUCH)
        inner.transport.loseWriteConnection()
        inner.transport.write(b"x" * MUCH)  # as a transport takes it
        transport.deliver(b"late")
        self.clock.advance(0)
        self.assertEqual(bytes(inner.received), b"late")
        transport.end_input()
        self.assertTrue(inner.ended)
        self.take_all(transport)
        self.assertEqual([each.type for each in inner.reasons], [ConnectionDone])

    def test_reading_after_half_close_with_producer(self) -> None:
        """So it is once a producer is done that was there before."""
        inner = HalfCloseableEcho()
        _, transport = self.connect(inner)
        inner.transport.registerProducer(Producer(), True)
        inner.transport.write(b"x" * MUCH)
        inner.transport.loseWriteConnection()
        self.assertFalse(transport.reading)
        inner.transport.unregisterProducer()
        self.assertTrue(transport.reading)
        self.take_all(transport)
        self.assertTrue(transport.output_ended)

    def test_half_close(self) -> None:
        """Who ends its input gets all its answers, also those that were held up."""
        inner = HalfCloseableEcho()
        _, transport = self.connect(inner)
        sent = numbers(1 << 20)
        transport.deliver(sent)
        transport.end_input()
        self.clock.advance(0)
        self.assertFalse(inner.ended)
        self.take_all(transport)
        self.assertEqual(transport.taken, sent)
        self.assertEqual([each.type for each in inner.reasons], [ConnectionDone])
        self.assertFalse(transport.aborted)

    def test_lost_while_held(self) -> None:
        """A connection that breaks while reading is held up is told of, once."""
        inner = NaiveEcho()
        _, transport = self.connect(inner)
        transport.deliver(b"x" * MUCH)
        transport.lose()
        self.assertEqual(len(inner.reasons), 1)
        inner.transport.unregisterProducer()
        inner.transport.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_transports(self) -> None:
        """A transport that does not tell what it holds is taken to hold nothing."""
        inner = NaiveEcho()
        policy = UnsentLimit(Factory.forProtocol(lambda: inner), abort_above=LOWEST)
        transport = StringTransport()
        outer: Any = policy.buildProtocol(None)
        outer.makeConnection(transport)
        outer.dataReceived(b"x" * MUCH)
        self.assertEqual(len(transport.value()), MUCH)
        inner.transport.loseConnection()
        inner.transport.loseConnection()
        self.assertTrue(transport.disconnecting)
        inner.transport.registerProducer(Producer(), True)
        inner.transport.unregisterProducer()

    def test_settings(self) -> None:
        """A bound that is none, or that is below the other, is refused by name."""
        refused: list[tuple[str, dict[str, Any]]] = [
            ("pause_above", {"pause_above": LOWEST - 1}),
            ("pause_above", {"pause_above": 1e6}),
            ("abort_above", {"abort_above": LOWEST - 1}),
            ("abort_above", {"pause_above": 100_000, "abort_above": 99_999}),
            ("abort_above", {"abort_above": None}),
        ]
        for name, bounds in refused:
            with self.assertRaises(SettingError) as caught:
                UnsentLimit(Factory(), **bounds)
            self.assertEqual(caught.exception.name, name)


class TLSTests(SynchronousTestCase):
    """In TLS, of which there is one more buffer, and one more who pauses."""

    def setUp(self) -> None:
        forgive_twisted_certificates(self)
        self.clock = Clock()
        self.trust = TrustedCertificate()

    def connect(self, inner: Protocol, **bounds: int) -> UnsentLimit:
        """Connect both ends, and shake hands."""
        policy = UnsentLimit(Factory.forProtocol(lambda: inner), **bounds)
        self.peer = Plain()
        self.near, self.far = MemoryTransport(self.clock), MemoryTransport(self.clock)
        for end, options, factory in (
            (self.near, self.trust.server, policy),
            (
                self.far,
                self.trust.client,
                Factory.forProtocol(lambda: self.peer),
            ),
        ):
            tls = TLSMemoryBIOFactory(options, end is self.far, factory, self.clock)
            protocol: Any = tls.buildProtocol(end.getPeer())
            end.connect(protocol)
        return policy

    def exchange(self) -> None:
        """Carry bytes both ways until none are left."""
        moved = True
        while moved:
            self.clock.advance(0)
            moved = False
            for one, other in ((self.far, self.near), (self.near, self.far)):
                data = one.take()
                if data:
                    moved = True
                    other.deliver(data)
                if one.output_ended:
                    other.end_input()
        self.clock.advance(0)

    def test_naive_echo(self) -> None:
        """Who does not take its answers is not read from, and loses none of them."""
        inner = NaiveEcho()
        policy = self.connect(inner)
        self.exchange()
        sent = numbers(1 << 20)
        self.peer.transport.write(sent)
        self.clock.advance(0)
        self.near.deliver(self.far.take())
        self.clock.advance(0)
        self.assertFalse(self.near.reading)
        self.assertLessEqual(self.near.unsent, 4 * READ)
        self.exchange()
        self.assertEqual(bytes(self.peer.received), sent)
        self.assertEqual(policy.aborted, 0)

    def test_late_producers(self) -> None:
        """Producers may come and go while reading is held up, and it goes on after."""
        for leaves in (False, True):
            inner, producer = Plain(), Producer()
            self.connect(inner)
            self.exchange()
            inner.transport.write(b"x" * 2 * LOWEST)
            self.clock.advance(0)
            self.assertFalse(self.near.reading)
            inner.transport.registerProducer(producer, True)
            if leaves:
                inner.transport.unregisterProducer()
            self.assertFalse(self.near.reading)
            self.exchange()
            self.assertTrue(self.near.reading)

    def test_no_handshake(self) -> None:
        """The bounds hold for a peer that never shakes hands, and for small writes."""
        inner = Plain()
        policy = self.connect(inner, abort_above=100_000)
        for _ in range(100):
            inner.transport.write(b"x" * 1000)
        self.assertEqual(policy.aborted, 0)
        for _ in range(10):
            inner.transport.write(b"x" * 1000)
        self.assertEqual(policy.aborted, 1)
        self.clock.advance(0)
        self.assertEqual(len(inner.reasons), 1)

    def test_farewell_of_the_peer(self) -> None:
        """A peer that says farewell first gets what is unsent, and then the end."""
        inner = Plain()
        self.connect(inner)
        self.exchange()
        inner.transport.write(numbers(MUCH))
        self.clock.advance(0)
        self.near.resumeProducing()  # it came before we had written
        self.peer.transport.loseConnection()
        self.near.deliver(self.far.take())
        self.assertEqual(inner.reasons, [])
        self.exchange()
        self.assertEqual(bytes(self.peer.received), numbers(MUCH))
        self.assertEqual([each.type for each in inner.reasons], [ConnectionDone])

    def test_close_after_much(self) -> None:
        """What is unsent is sent before the farewell."""
        inner = Plain()
        self.connect(inner)
        self.exchange()
        inner.transport.write(numbers(MUCH))
        inner.transport.loseConnection()
        self.exchange()
        self.assertEqual(bytes(self.peer.received), numbers(MUCH))
        for end in (inner, self.peer):
            self.assertEqual([each.type for each in end.reasons], [ConnectionDone])


class SocketTests(TestCase):
    """Over sockets."""

    timeout = 30

    async def check(
        self, server: IStreamServerEndpoint, client: Callable[[Any], Any]
    ) -> None:
        inner = NaiveEcho()
        policy = UnsentLimit(Factory.forProtocol(lambda: inner))
        port: Any = await server.listen(policy)
        peer = await join(client(port.getHost()))
        await turns_until(lambda: inner.transport)
        await maybeDeferred(port.stopListening)
        low: Any = innermost(inner.transport)
        most = 0
        peer.send(b"first")
        self.assertEqual(await peer.take(5), b"first")
        peer.transport.pauseProducing()
        sent = numbers(16 << 20)
        peer.send(sent)

        def held() -> bool:
            nonlocal most
            most = max(most, unsent(low))
            # The kernel may have taken some of it since.
            return low.producerPaused and unsent(low) > 0

        await turns_until(held)
        peer.transport.resumeProducing()

        def all_back() -> bool:
            held()
            return len(peer.received) >= len(sent)

        await turns_until(all_back)
        self.assertEqual(peer.received, sent)
        self.assertLessEqual(most, LOWEST + 2 * READ)
        self.assertEqual(policy.aborted, 0)
        peer.transport.loseConnection()
        await peer.gone()
        await turns_until(lambda: inner.reasons)

    async def test_tcp(self) -> None:
        """Over TCP, a naive echo of much holds little, and all comes back."""
        from twisted.internet import reactor

        await self.check(
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            lambda host: TCP4ClientEndpoint(reactor, "127.0.0.1", host.port),
        )

    async def test_unix(self) -> None:
        """Over unix sockets, too."""
        from twisted.internet import reactor

        path = str(directory(self) / "socket")
        client = UNIXClientEndpoint(reactor, path)
        await self.check(UNIXServerEndpoint(reactor, path), lambda _: client)

    async def test_tls(self) -> None:
        """Over TLS, too."""
        forgive_twisted_certificates(self)
        await self.check(*over_tls())
