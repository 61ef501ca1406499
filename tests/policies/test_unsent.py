"""
Back-pressure around protocols that have none.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, LoopingCall
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sockproto.errors import SettingError
from sockproto.policies.rate import RateLimit
from sockproto.policies.unsent import LOWEST, UnsentLimit
from sockproto.testing import MemoryTransport, WrapperContract, connect
from sockproto.transports import unsent
from tests.contracts import LogLines, forgive_twisted_certificates
from tests.policies.certificates import TrustedCertificate
from tests.reactors import Client, Contract, Notes, Server, in_reactor, on_both

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory
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
    told = 0

    def readConnectionLost(self) -> None:
        self.ended = True
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        self.told += 1


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


def factory_of(protocol: Protocol) -> IProtocolFactory:
    return Factory.forProtocol(lambda: protocol)


def greeting(data: bytes) -> Plain:
    """A protocol that says that when it is connected."""
    made = Plain()
    made.begin = lambda: made.transport.write(data)
    return made


def numbers(size: int) -> bytes:
    """Bytes of which none can be lost or moved without notice."""
    return array("Q", range(size // 8)).tobytes()


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
        policy = UnsentLimit(factory_of(inner), **bounds)
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
        inner = greeting(b"x" * (LOWEST + 1))
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
        self.assertEqual(producer.asked, [])
        inner.transport.write(b"x")
        transport.take(LOWEST)
        self.assertFalse(transport.reading)
        self.assertEqual(producer.asked, ["pause"])
        transport.take()
        self.assertTrue(transport.reading)
        self.assertEqual(producer.asked, ["pause", "resume"])

    def test_push_producer_that_was_not_paused(self) -> None:
        """One that comes while reading is held up, and writes nothing, goes on."""
        inner, producer = Plain(), Producer()
        _, transport = self.connect(inner)
        inner.transport.write(b"x" * MUCH)
        inner.transport.registerProducer(producer, True)
        transport.take()
        self.assertTrue(transport.reading)
        self.assertEqual(producer.asked, [])

    def test_push_producer_comes_and_does_nothing(self) -> None:
        """A close does not wait for one that could write all the time."""
        for end in ("loseConnection", "loseWriteConnection"):
            inner, producer = HalfCloseableEcho(), Producer()
            _, transport = self.connect(inner)
            inner.transport.write(b"x" * MUCH)
            inner.transport.registerProducer(producer, True)
            getattr(inner.transport, end)()
            self.take_all(transport)
            self.assertTrue(transport.output_ended, end)
            self.assertNotIn("pause", producer.asked)

    def test_transport_as_producer(self) -> None:
        """A transport may be a producer, and have one of its own in turn."""
        inner, other = Plain(), Plain()
        _, transport = self.connect(inner)
        _, source = self.connect(other)
        source.registerProducer(source, True)
        inner.transport.registerProducer(source, True)
        inner.transport.write(b"x" * MUCH)
        self.assertFalse(source.reading)
        transport.take()
        self.assertTrue(source.reading)

    def test_producer_of_somebody_else(self) -> None:
        """Where the transport has a producer already, nothing is held up for ever."""
        inner = Plain()
        _, transport = self.connect(inner)
        transport.registerProducer(Producer(), True)
        with self.assertRaises(RuntimeError):
            inner.transport.registerProducer(Producer(), True)
        for _ in range(2):
            with self.assertRaises(RuntimeError):
                inner.transport.write(b"x" * MUCH)
        self.assertTrue(transport.reading)

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

    def test_half_close_by_an_outer_wrapper(self) -> None:
        """Who ends the output itself ends it, too, when all is taken."""
        for produces in (False, True):
            inner = HalfCloseableEcho()
            _, transport = self.connect(inner)
            if produces:
                inner.transport.registerProducer(Producer(), True)
            inner.transport.write(b"x" * MUCH)
            transport.loseWriteConnection()
            self.take_all(transport)
            if produces:
                self.assertFalse(transport.output_ended)
                inner.transport.unregisterProducer()
                self.take_all(transport)
            self.assertEqual(len(transport.taken), MUCH)
            self.assertTrue(transport.output_ended)
            self.assertTrue(transport.reading)

    def test_half_close_is_told_once(self) -> None:
        """Nobody is told again of what is over when a producer leaves."""
        inner = HalfCloseableEcho()
        _, transport = self.connect(inner)
        inner.transport.registerProducer(Producer(), True)
        inner.transport.loseWriteConnection()
        self.take_all(transport)
        inner.transport.unregisterProducer()
        self.take_all(transport)
        self.assertEqual(inner.told, 1)

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
        policy = UnsentLimit(factory_of(inner), abort_above=LOWEST)
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
        policy = UnsentLimit(factory_of(inner), **bounds)
        self.connect_factory(policy)
        return policy

    def connect_factory(self, policy: IProtocolFactory) -> None:
        self.peer = Plain()
        self.near, self.far = MemoryTransport(self.clock), MemoryTransport(self.clock)
        for end, options, factory in (
            (self.near, self.trust.server, policy),
            (
                self.far,
                self.trust.client,
                factory_of(self.peer),
            ),
        ):
            tls = TLSMemoryBIOFactory(options, end is self.far, factory, self.clock)
            protocol: Any = tls.buildProtocol(end.getPeer())
            end.connect(protocol)

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

    def test_in_parts(self) -> None:
        """What TLS holds counts, too, though neither part of it is above the bound."""
        inner, producer = Plain(), Producer()
        self.connect(inner)
        self.exchange()
        inner.transport.registerProducer(producer, True)
        inner.transport.write(b"x" * 64_500)  # TLS hands it on at once,
        inner.transport.write(b"x" * 10_000)  # and this in the next turn
        self.assertFalse(self.near.reading)
        self.assertEqual(producer.asked, ["pause"])
        self.far.deliver(self.near.take())
        self.assertFalse(self.near.reading)
        self.exchange()
        self.assertTrue(self.near.reading)
        self.assertEqual(producer.asked, ["pause", "resume"])
        self.assertEqual(len(self.peer.received), 74_500)

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

    def test_much_before_the_handshake(self) -> None:
        """A peer that has to be read from to shake hands is read from."""
        inner = greeting(numbers(MUCH))
        self.connect(inner)
        self.exchange()
        self.assertEqual(bytes(self.peer.received), numbers(MUCH))
        inner.transport.write(b"x" * MUCH)  # from now on, it holds as ever
        self.assertFalse(self.near.reading)
        self.exchange()
        self.assertTrue(self.near.reading)

    def test_lost_before_the_handshake(self) -> None:
        """So is one that goes instead, or that somebody below TLS gives up."""
        for end in ("end_input", "loseConnection"):
            inner = greeting(b"x" * MUCH)
            self.connect(inner)
            getattr(self.near, end)()
            self.clock.advance(0)
            self.near.take()
            self.clock.advance(0)
            self.assertEqual(len(inner.reasons), 1, end)

    def test_farewell_behind_a_request(self) -> None:
        """A peer that says farewell with its request is done when that is answered."""

        class Answering(Plain):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"x" * 64_500)
                self.transport.write(b"x" * 10_000)

        inner = Answering()
        self.connect(inner)
        self.exchange()
        self.peer.transport.write(b"request")
        self.peer.transport.loseConnection()
        self.near.deliver(self.far.take())
        self.near.take()  # in the same turn: TLS has some of it left
        self.clock.advance(0)
        self.near.take()
        self.clock.advance(0)
        self.assertEqual([each.type for each in inner.reasons], [ConnectionDone])

    def test_close_between_tls_and_us(self) -> None:
        """A wrapper there that closes is not kept waiting by us."""
        for size in (1, MUCH):
            inner = Plain()
            self.connect(inner)
            self.exchange()
            inner.transport.write(b"x" * size)
            tls: Any = self.near.protocol
            tls.loseConnection()
            self.exchange()
            self.assertEqual(len(self.peer.received), size)
            self.assertEqual([each.type for each in inner.reasons], [ConnectionDone])

    def start_tls(self, inner: Protocol, size: int, **bounds: int) -> UnsentLimit:
        """Connect both ends in the open, and write; go on in TLS."""
        policy = UnsentLimit(factory_of(inner), **bounds)
        self.peer = Plain()
        _, self.near = connect(policy, self.clock)
        self.far = MemoryTransport(self.clock, client=True)
        self.far.connect(self.peer)
        inner.transport.write(b"x" * size)  # type: ignore[union-attr]
        inner.transport.startTLS(self.trust.server)  # type: ignore[union-attr]
        return policy

    def shake_hands(self) -> None:
        self.exchange()
        self.peer.transport.startTLS(self.trust.client)
        self.exchange()

    def test_starting_tls(self) -> None:
        """TLS may start while reading is held up, and a producer is paused."""
        producer = Producer()
        inner, producing = Plain(), Plain()
        producing.begin = lambda: producing.transport.registerProducer(producer, True)
        for each in (inner, producing):
            self.start_tls(each, MUCH)
            self.shake_hands()
            self.peer.transport.write(b"heard")
            self.exchange()
            self.assertEqual(bytes(each.received), b"heard")
        self.assertEqual(producer.asked, ["pause", "resume"])

    def test_bounds_after_tls_started(self) -> None:
        """What TLS holds that was started counts."""
        inner = Plain()
        policy = self.start_tls(inner, 1, abort_above=100_000)
        for _ in range(11):
            inner.transport.write(b"x" * 10_000)
            self.clock.advance(0)
        self.assertEqual(policy.aborted, 1)

    def test_around_tls(self) -> None:
        """Around TLS, too, producers of each kind may come while it is held."""
        for streaming in (False, True):
            inner, producer = Plain(), Producer()
            self.peer = Plain()
            tls = TLSMemoryBIOFactory(
                self.trust.server,
                False,
                factory_of(inner),
                self.clock,
            )
            _, self.near = connect(UnsentLimit(tls), self.clock)
            far = TLSMemoryBIOFactory(
                self.trust.client,
                True,
                factory_of(self.peer),
                self.clock,
            )
            _, self.far = connect(far, self.clock)
            self.exchange()
            inner.transport.write(b"x" * MUCH)
            self.clock.advance(0)
            self.assertFalse(self.near.reading)
            inner.transport.registerProducer(producer, streaming)
            inner.transport.unregisterProducer()
            self.exchange()
            self.assertTrue(self.near.reading)
            self.assertEqual(len(self.peer.received), MUCH)

    def test_two(self) -> None:
        """Of two limits, the one in the other reads again, too."""
        for outer, within in ((LOWEST, MUCH), (MUCH, LOWEST), (LOWEST, LOWEST)):
            inner = Plain()
            limit = UnsentLimit(factory_of(inner), pause_above=within)
            slowed = RateLimit(limit, self.clock, rate=1e9)
            self.connect_factory(UnsentLimit(slowed, pause_above=outer))
            self.exchange()
            inner.transport.write(b"x" * 2 * MUCH)
            self.assertFalse(self.near.reading)
            self.exchange()
            self.assertTrue(self.near.reading, (outer, within))

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


class SocketContract(Contract):
    """Over sockets."""

    def setUp(self) -> None:
        super().setUp()
        forgive_twisted_certificates(self)

    async def pair(self, inner: Plain, over: str) -> tuple[UnsentLimit, Notes]:
        """Connect a protocol that is guarded, and its peer; that has sent `first`."""
        policy = UnsentLimit(Server(lambda: inner))
        peer = Notes()
        client = Client(lambda: peer)
        reactor, trust = self.reactor, TrustedCertificate()
        if over == "unix":
            path = self.unix_path()
            port = reactor.listenUNIX(path, policy)
            reactor.connectUNIX(path, client)
        elif over == "tls":
            port = reactor.listenSSL(0, policy, trust.server, interface="127.0.0.1")
            host = port.getHost()
            reactor.connectSSL(host.host, host.port, client, trust.client)
        elif over == "tls over another":
            tls = TLSMemoryBIOFactory(trust.server, False, policy)
            port = reactor.listenTCP(0, UnsentLimit(tls), interface="127.0.0.1")
            host = port.getHost()
            reactor.connectSSL(host.host, host.port, client, trust.client)
        else:
            port = reactor.listenTCP(0, policy, interface="127.0.0.1")
            host = port.getHost()
            reactor.connectTCP(host.host, host.port, client)
        await self.until(lambda: inner.transport and peer.happened)
        await port.stopListening()
        # Until they have shaken hands, all that is written waits above TLS.
        peer.transport.write(b"first")
        await self.until(lambda: inner.received)
        return policy, peer

    async def check_naive_echo(self, over: str) -> None:
        """One who reads nothing at first."""
        inner = NaiveEcho()
        policy, peer = await self.pair(inner, over)
        most = 0

        def look() -> int:
            nonlocal most
            most = max(most, unsent(inner.transport))
            return most

        await self.until(lambda: peer.received == b"first")
        peer.transport.pauseProducing()
        sent = numbers(16 << 20)
        peer.transport.write(sent)
        await self.until(lambda: look() > LOWEST)
        self.assertEqual(peer.received, b"first")
        peer.transport.resumeProducing()
        await self.until(lambda: look() and len(peer.received) >= 5 + len(sent))
        self.assertEqual(peer.received, b"first" + sent)
        # A read, and what TLS may have above that.
        read = 256_000 if self.ours and over != "unix" else READ
        self.assertLessEqual(most, LOWEST + 2 * read)
        self.assertEqual(policy.aborted, 0)
        peer.transport.loseConnection()
        await self.until(lambda: inner.reasons and peer.reason)

    @in_reactor
    async def test_tcp(self) -> None:
        """Over TCP, a naive echo of much holds little, and all comes back."""
        await self.check_naive_echo("tcp")

    @in_reactor
    async def test_unix(self) -> None:
        """Over UNIX sockets, too."""
        await self.check_naive_echo("unix")

    @in_reactor
    async def test_tls(self) -> None:
        """Over TLS, too."""
        await self.check_naive_echo("tls")

    @in_reactor
    async def test_push_producer_comes_and_does_nothing(self) -> None:
        """A close does not wait for one that could write all the time."""
        for end in ("loseConnection", "loseWriteConnection"):
            inner = HalfCloseableEcho()
            _, peer = await self.pair(inner, "tcp")
            peer.transport.pauseProducing()
            while unsent(inner.transport) <= LOWEST:
                inner.transport.write(b"x" * MUCH)
            inner.transport.registerProducer(Producer(), True)
            getattr(inner.transport, end)()
            await self.turn()
            peer.transport.resumeProducing()
            await self.until(lambda peer=peer: peer.reason)

    @in_reactor
    async def test_two(self) -> None:
        """And where what TLS sends is bounded by itself."""
        inner = Plain()
        _, peer = await self.pair(inner, "tls over another")
        peer.transport.pauseProducing()
        while unsent(inner.transport) <= LOWEST:
            inner.transport.write(b"x" * MUCH)
        peer.transport.write(b" and more")
        peer.transport.resumeProducing()
        await self.until(lambda: inner.received == b"first and more")
        peer.transport.loseConnection()
        await self.until(lambda: inner.reasons and peer.reason)

    @in_reactor
    async def test_much_before_the_handshake(self) -> None:
        """A peer that has to be read from to shake hands is read from."""
        inner = greeting(numbers(MUCH))
        _, peer = await self.pair(inner, "tls")
        await self.until(lambda: len(peer.received) >= MUCH)
        self.assertEqual(peer.received, numbers(MUCH))
        peer.transport.loseConnection()
        await self.until(lambda: inner.reasons and peer.reason)

    @in_reactor
    async def test_farewell_behind_a_request(self) -> None:
        """A peer that says farewell with its request is done when that is answered."""
        inner = Plain()
        _, peer = await self.pair(inner, "tls")
        for sizes in ((64_001,), (64_100, 64_000)):

            def answer(data: bytes, sizes: tuple[int, ...] = sizes) -> None:
                for size in sizes:
                    inner.transport.write(b"x" * size)

            inner.dataReceived = answer  # type: ignore[method-assign]
            peer.transport.write(b"request")
            if sizes[1:]:
                peer.transport.loseConnection()
            await self.until(lambda: peer.received)
        await self.until(lambda: inner.reasons and peer.reason)

    @in_reactor
    async def test_in_parts(self) -> None:
        """What TLS holds counts, too, though neither part of it is above the bound."""
        inner, producer = Plain(), Producer()
        _, peer = await self.pair(inner, "tls")
        inner.transport.registerProducer(producer, True)
        peer.transport.pauseProducing()
        written = 0
        while unsent(inner.transport) <= 1536:
            inner.transport.write(b"x" * 64_500)  # TLS hands it on at once,
            written += 64_500
            await self.turn()
        inner.transport.write(b"x" * 64_000)  # and this in the next turn
        self.assertEqual(producer.asked, ["pause"])
        peer.transport.resumeProducing()
        peer.transport.write(b" and more")
        await self.until(lambda: inner.received == b"first and more")
        self.assertEqual(producer.asked, ["pause", "resume"])
        await self.until(lambda: len(peer.received) == written + 64_000)
        inner.transport.unregisterProducer()
        inner.transport.loseConnection()
        await self.until(lambda: inner.reasons and peer.reason)


globals().update(on_both(SocketContract))
