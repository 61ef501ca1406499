"""
Bytes a second, of each connection and of all together.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
from twisted.internet import _producer_helpers
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, Cooperator, deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sockproto.echo import EchoFactory
from sockproto.errors import SettingError
from sockproto.hello import HelloFactory
from sockproto.interfaces import Debt
from sockproto.policies.draining import Drain, Draining, State
from sockproto.policies.idle import IdleTimeout
from sockproto.policies.rate import SMOOTH_SECONDS, RateLimit, TotalRate
from sockproto.policies.unsent import UnsentLimit
from sockproto.testing import MemoryTransport, WrapperContract, connect
from tests.contracts import (
    LogLines,
    Peer,
    forgive_twisted_certificates,
    join,
    serve_tcp,
)
from tests.policies.certificates import TrustedCertificate, certificate_for_localhost

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory
    from twisted.python.failure import Failure


class BoundedClock(Clock):
    """
    A clock that minds being asked for no time at all, again and again.
    """

    asked = 0

    def callLater(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - Twisted's
        self.asked += 1
        assert self.asked < 20_000, "it asks for a call at once, for ever"
        return super().callLater(*args, **kwargs)


class Meter:
    """
    What has passed, and when.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.total = 0
        self._passed: list[tuple[float, int]] = []

    def passed(self, size: int) -> None:
        self.total += size
        self._passed.append((self.clock.seconds(), size))

    def most_at_once(self, rate: float) -> float:
        """How much more than the rate allows has passed, in the worst window."""
        worst = excess = 0.0
        then = 0.0
        for now, size in self._passed:
            excess = max(0.0, excess - rate * (now - then)) + size
            worst, then = max(worst, excess), now
        return worst


class Sink(Protocol):
    """
    Takes what comes, and answers with so many bytes for each read.
    """

    transport: Any

    def __init__(self, clock: Clock, answer: int = 0) -> None:
        self.meter = Meter(clock)
        self.answer = answer

    def dataReceived(self, data: bytes) -> None:
        self.meter.passed(len(data))
        self.transport.write(b"x" * self.answer)


class PushSource(Protocol):
    """
    Writes pieces of a size whenever it is not paused; `go_on` is its event loop.
    """

    transport: Any

    def __init__(self, clock: Clock, size: int) -> None:
        self.meter = Meter(clock)
        self.input = Meter(clock)
        self.size = size
        self.paused = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self.input.passed(len(data))

    def go_on(self) -> None:
        while not self.paused:
            self.write()

    def write(self) -> None:
        self.meter.passed(self.size)
        self.transport.write(b"x" * self.size)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.paused = True


class PullSource(PushSource):
    """
    Writes a piece of a size each time it is asked.
    """

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, False)

    def go_on(self) -> None:
        pass

    def resumeProducing(self) -> None:
        self.write()


def factory_of(protocol: Protocol) -> IProtocolFactory:
    return Factory.forProtocol(lambda: protocol)


class RateLimitContractTests(WrapperContract, SynchronousTestCase):
    """A limit that holds up now and then keeps what every wrapper keeps."""

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        return RateLimit(inner, self.clock, rate=500_000)


class TotalRateContractTests(WrapperContract, SynchronousTestCase):
    """So does one that all share, and one of both kinds."""

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        total = TotalRate(600_000, self.clock)
        return RateLimit(inner, self.clock, rate=900_000, total=total)


class NoLimitContractTests(WrapperContract, SynchronousTestCase):
    """So does one without any limit."""

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        return RateLimit(inner, self.clock)


class _RateTests(SynchronousTestCase):
    clock: Clock

    def setUp(self) -> None:
        self.clock = BoundedClock()
        self.transports: list[MemoryTransport] = []

    def tearDown(self) -> None:
        """Nothing is pending once all connections are gone."""
        for transport in self.transports:
            transport.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def join(self, protocol: Any, **limits: Any) -> tuple[Any, MemoryTransport]:
        limit = RateLimit(factory_of(protocol), self.clock, **limits)
        return protocol, self.connect_factory(limit)

    def connect_factory(self, factory: IProtocolFactory) -> MemoryTransport:
        _, transport = connect(factory, self.clock)
        self.transports.append(transport)
        return transport

    def pass_time(
        self, seconds: float, each: Callable[[], object] = bool, step: float = 1 / 64
    ) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            each()

    def assert_about(self, seen: float, expected: float) -> None:
        """Check that it is right within 10 %."""
        self.assertLessEqual(abs(seen - expected), 0.1 * expected, (seen, expected))


rates = st.floats(300, 1e7)
steps = st.lists(
    st.tuples(st.integers(0, 150_000), st.floats(0, 1)), min_size=1, max_size=12
)


class ConnectionRateTests(_RateTests):
    """The rate of one connection."""

    @given(rates, st.integers(1, 70_000), steps, st.floats(0, 2e9))
    def test_input(
        self, rate: float, read: int, came: list[tuple[int, float]], began: float
    ) -> None:
        """In no time more is read than the rate allows, and what passes at once."""
        clock = Clock()
        clock.advance(began)
        sink = Sink(clock)
        factory = Factory.forProtocol(lambda: sink)
        _, transport = connect(RateLimit(factory, clock, rate=rate), clock)
        transport.bufferSize = read = max(read, int(rate / 100))
        for size, seconds in came:
            transport.deliver(b"x" * size)
            clock.advance(seconds)
        allowed = rate * SMOOTH_SECONDS + read
        self.assertLessEqual(sink.meter.most_at_once(rate), allowed * 1.001)
        transport.lose()
        self.assertEqual(clock.getDelayedCalls(), [])

    @given(
        st.floats(300, 1e6), st.integers(1, 70_000), st.booleans(), st.floats(0, 2e9)
    )
    def test_output(self, rate: float, size: int, push: bool, began: float) -> None:
        """Of what a producer has, no more is sent either, however large its pieces."""
        clock = Clock()
        clock.advance(began)
        size = max(size, int(rate / 100))
        source = (PushSource if push else PullSource)(clock, size)
        factory = Factory.forProtocol(lambda: source)
        _, transport = connect(RateLimit(factory, clock, rate=rate), clock)
        for _ in range(50):
            source.go_on()
            transport.take()
            clock.advance(0.03)
        allowed = rate * SMOOTH_SECONDS + size
        self.assertLessEqual(source.meter.most_at_once(rate), allowed * 1.001)
        # A pull producer is asked once each time all is taken.
        wanted = rate * 1.5 if push else min(rate * 1.5, 50 * size)
        self.assertGreaterEqual(source.meter.total + 2 * allowed, wanted * 0.9)
        transport.lose()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_used_up(self) -> None:
        """Who wants all of its rate gets all of it, whichever the rate."""
        for rate in (256, 1000, 33_333, 200_000, 1_000_000):
            sink, transport = self.join(Sink(self.clock), rate=rate)
            transport.deliver(b"x" * rate * 12)
            self.pass_time(10)
            self.assert_about(sink.meter.total, rate * 10)
            transport.lose()

    def test_reads_are_small_where_the_rate_is_low(self) -> None:
        """A low rate is no stop and go: it is 20 reads a second, or of 256 bytes."""
        for rate, size in ((100_000, 5000), (1000, 256), (1e9, 65_536)):
            _, transport = self.join(Sink(self.clock), rate=rate)
            self.assertEqual(transport.bufferSize, size)
        _, transport = self.join(Sink(self.clock))
        self.assertEqual(transport.bufferSize, 65_536)

    def test_directions_apart(self) -> None:
        """What comes in takes nothing from what goes out, nor the reverse."""
        source, transport = self.join(PushSource(self.clock, 1000), rate=50_000)
        transport.deliver(b"x" * 600_000)

        def go_on() -> None:
            source.go_on()
            transport.take()

        self.pass_time(10, go_on)
        self.assert_about(source.input.total, 500_000)
        self.assert_about(source.meter.total, 500_000)

    def test_one_direction_does_not_stop_the_other(self) -> None:
        """A producer that has to wait goes on being read from, and the reverse."""
        source, transport = self.join(PushSource(self.clock, 1000), rate=1000)
        for _ in range(10):
            source.write()
        self.assertTrue(source.paused)
        self.assertTrue(transport.reading)
        source, transport = self.join(PushSource(self.clock, 1000), rate=1000)
        transport.deliver(b"x" * 10_000)
        self.assertFalse(transport.reading)
        self.assertFalse(source.paused)

    def test_without_a_producer(self) -> None:
        """Who registers no producer is stopped by reading: it answers what it reads."""
        sink, transport = self.join(Sink(self.clock, answer=10_000), rate=10_000)
        transport.deliver(b"question")
        self.assertFalse(transport.reading)
        transport.deliver(b"question")
        self.pass_time(0.9)
        self.assertEqual(sink.meter.total, 8)
        self.pass_time(0.2)
        self.assertEqual(sink.meter.total, 16)

    def test_producer_comes_and_goes(self) -> None:
        """Who must not write is stopped the one way or the other, as it registers."""
        sink, transport = self.join(Sink(self.clock), rate=1000)
        sink.transport.write(b"x" * 2000)
        self.assertFalse(transport.reading)
        source = PushSource(self.clock, 1)
        source.transport = sink.transport
        source.connectionMade()
        self.assertTrue(source.paused)
        self.assertTrue(transport.reading)
        sink.transport.unregisterProducer()
        self.assertFalse(transport.reading)
        transport.take()
        self.pass_time(2)
        self.assertTrue(transport.reading)
        self.assertTrue(source.paused)  # nobody asks it any more

    def test_transport_as_its_own_producer(self) -> None:
        """One that stops reading when it cannot write may say so during a debt."""
        sink, transport = self.join(Sink(self.clock), rate=1000)
        sink.transport.write(b"x" * 2000)
        sink.transport.registerProducer(sink.transport, True)
        self.assertFalse(transport.reading)
        transport.take()
        self.pass_time(2)
        self.assertTrue(transport.reading)

    def test_pull_producer_that_comes_late(self) -> None:
        """A pull producer that is registered during a debt waits for its end."""
        sink, transport = self.join(Sink(self.clock), rate=1000)
        sink.transport.write(b"x" * 2000)
        source = PullSource(self.clock, 500)
        source.transport = sink.transport
        source.connectionMade()
        transport.take()
        self.pass_time(1.9)
        self.assertEqual(source.meter.total, 0)
        self.pass_time(0.2)
        self.assertEqual(source.meter.total, 500)

    def test_pull_producer_above_tls(self) -> None:
        """TLS in it registers one before it can be paused; it waits all the same."""
        cooperator = Cooperator(scheduler=lambda go: self.clock.callLater(0, go))
        self.patch(_producer_helpers, "cooperate", cooperator.cooperate)
        sink, source = Sink(self.clock), PullSource(self.clock, 500)
        tls = TLSMemoryBIOFactory(
            TrustedCertificate().client, True, factory_of(sink), self.clock
        )
        transport = self.connect_factory(RateLimit(tls, self.clock, rate=100))
        self.assertGreater(len(transport.take()), 100)  # its first word, and a debt
        source.transport = sink.transport
        source.connectionMade()
        self.pass_time(1)
        self.assertLessEqual(source.meter.total, 65_000)  # what TLS itself has taken

    def test_around_a_limit_of_what_is_unsent(self) -> None:
        """Who answers more than it reads is not read from, also with that within."""
        sink = Sink(self.clock, answer=5_000)
        limit = UnsentLimit(factory_of(sink))
        transport = self.connect_factory(RateLimit(limit, self.clock, rate=10_000))
        transport.deliver(b"q" * 100_000)
        self.pass_time(10, transport.take)
        self.assert_about(len(transport.taken), 10 * 10_000)

    def test_pull_producer_and_a_full_transport(self) -> None:
        """A pull producer is asked for no second piece before the first is taken."""
        source, transport = self.join(PullSource(self.clock, 500), rate=1000)
        self.pass_time(5)
        self.assertEqual(source.meter.total, 500)
        transport.take()
        self.assertEqual(source.meter.total, 1000)

    def test_full_transport(self) -> None:
        """A producer goes on when the rate and the transport both let it."""
        for paid_first in (True, False):
            source, transport = self.join(PushSource(self.clock, 100_000), rate=50_000)
            source.write()
            self.assertTrue(source.paused)
            for pay in (paid_first, not paid_first):
                self.assertTrue(source.paused)
                if pay:
                    self.pass_time(2.1)
                else:
                    transport.take()
            self.assertFalse(source.paused)

    def test_second_producer(self) -> None:
        """A second producer is refused, and the first goes on being paced."""
        source, transport = self.join(PushSource(self.clock, 1000), rate=1000)
        with self.assertRaises(RuntimeError):
            source.transport.registerProducer(PushSource(self.clock, 1), True)
        source.go_on()
        transport.take()
        self.assertTrue(source.paused)
        self.pass_time(3)
        self.assertFalse(source.paused)

    def test_written_in_spite_of_it(self) -> None:
        """What is written in spite of a debt is sent, and has to be paid, too."""
        sink, transport = self.join(Sink(self.clock), rate=1000)
        for _ in range(5):
            sink.transport.writeSequence([b"x" * 500, b"x" * 500])
            self.clock.advance(0.1)
        self.assertEqual(len(transport.take()), 5000)
        self.pass_time(4.4)
        self.assertFalse(transport.reading)
        self.pass_time(0.2)
        self.assertTrue(transport.reading)

    def test_inner_pause_is_kept(self) -> None:
        """Who has paused reading is not resumed because its rate would allow it."""
        sink, transport = self.join(Sink(self.clock), rate=1000)
        transport.deliver(b"x" * 1000)
        sink.transport.pauseProducing()
        self.pass_time(5)
        self.assertFalse(transport.reading)
        sink.transport.resumeProducing()
        self.assertTrue(transport.reading)
        self.pass_time(5)
        self.assertEqual(sink.meter.total, 1000)

    def test_clock_set_back(self) -> None:
        """A clock that is set back gives nobody more, and one set forward little."""
        sink, transport = self.join(Sink(self.clock), rate=10_000)
        transport.deliver(b"x" * 400)
        self.clock.rightNow -= 1000
        transport.deliver(b"x" * 5000)
        self.assertLessEqual(sink.meter.total, 1400)
        self.pass_time(1)
        self.assertEqual(sink.meter.total, 5400)
        before = sink.meter.total
        self.clock.rightNow += 1_000_000
        transport.deliver(b"x" * 5000)
        self.assertLessEqual(sink.meter.total - before, 1500)

    def test_late_writes(self) -> None:
        """Of what is written to a connection that is gone, nothing is left to wait."""

        class Late(Protocol):
            transport: Any

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                self.transport.write(b"x" * 100_000)
                self.transport.writeSequence([b"x" * 100_000])

        total = TotalRate(1000, self.clock)
        late, transport = self.join(Late(), rate=1000, total=total)
        transport.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        late.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_asked_while_it_is_lost(self) -> None:
        """Who asks what is owed when the connection is lost is told, held or not."""
        owed: list[Debt] = []

        class Asking(Sink):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                owed.append(outer.owed())

        for size in (1, 10_000):
            asking = Asking(self.clock)
            factory = Factory.forProtocol(lambda: asking)  # noqa: B023
            limit = RateLimit(factory, self.clock, rate=1000)
            outer, transport = connect(limit, self.clock)
            transport.deliver(b"x" * size)
            transport.lose()
            owed.append(outer.owed())
        self.assertEqual(owed, [Debt()] * 4)

    def test_producer_is_freed(self) -> None:
        """A producer that was never unregistered is not held after the connection."""
        sources = [PushSource(self.clock, 1000)]
        known = weakref.ref(sources[0])
        factory = RateLimit(Factory.forProtocol(sources.pop), self.clock, rate=1000)
        outer, transport = connect(factory, self.clock)
        known().go_on()  # type: ignore[union-attr]
        transport.lose()
        self.assertTrue(outer.lost)
        gc.collect()
        self.assertIsNone(known())

    def test_half_close(self) -> None:
        """Input that ends while it is held arrives whole, and then its end."""
        echo = EchoFactory(self.clock, log="none")
        _, transport = connect(RateLimit(echo, self.clock, rate=1000), self.clock)
        sent = b"".join(b"%05d;" % number for number in range(1000))
        transport.deliver(sent)
        transport.end_input()
        self.clock.advance(0)
        self.assertLess(transport.unsent, 1000)
        self.pass_time(10, transport.take)
        self.assertEqual(transport.taken, sent)
        self.assertTrue(transport.output_ended)
        self.assertEqual(echo.connections, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wrong_rates(self) -> None:
        """A rate that is none is refused by its name."""
        factory = Factory.forProtocol(Protocol)
        for rate in (0, -1, float("nan"), float("inf"), True, "fast"):
            wrong: Any = rate
            with self.assertRaises(SettingError):
                RateLimit(factory, self.clock, rate=wrong)
            with self.assertRaises(SettingError):
                TotalRate(wrong, self.clock)
        with self.assertRaises(SettingError):
            TotalRate(None, self.clock)  # type: ignore[arg-type]


class HeldUpTests(_RateTests):
    """What a rate holds up is owed."""

    def held(self, *, idle: float | None = None) -> tuple[Any, Any, Drain]:
        """Connect a source that has more than its rate lets it send."""
        drain = Drain(self.clock)
        source = PushSource(self.clock, 5000)
        factory: Any = Factory.forProtocol(lambda: source)
        factory = RateLimit(factory, self.clock, rate=1000)
        if idle is not None:
            factory = IdleTimeout(factory, seconds=idle, clock=self.clock)
        outer, transport = connect(Draining(factory, drain), self.clock)
        self.transports.append(transport)
        source.write()
        transport.take()
        return outer, transport, drain

    def test_owed(self) -> None:
        """A producer that is held up may have more, which its peer waits for."""
        outer, _, _ = self.held()
        self.assertEqual(outer.owed(), Debt(held_up=True))
        self.pass_time(6)
        self.assertEqual(outer.owed(), Debt())

    def test_drain(self) -> None:
        """A drain waits for it."""
        _, transport, drain = self.held()
        drain.begin(30)
        self.pass_time(4)
        self.assertFalse(transport.output_ended or transport.disconnecting)
        self.assertIs(drain.state, State.DRAINING)
        self.pass_time(3)
        self.clock.advance(0)
        self.assertIs(drain.state, State.STOPPED)

    def test_idle(self) -> None:
        """Who waits for it is not idle."""
        _, transport, _ = self.held(idle=1)
        self.pass_time(4)
        self.assertEqual(transport.connected, 1)
        self.assertFalse(transport.disconnecting)


class TotalRateTests(_RateTests):
    """The rate of all connections together."""

    def flood(self, total: TotalRate, read: int, **limits: Any) -> Sink:
        """Connect one that gets as much as it can, in reads of a size."""
        sink: Sink
        sink, transport = self.join(Sink(self.clock), total=total, **limits)
        transport.bufferSize = read
        transport.deliver(b"x" * 2_000_000)
        return sink

    def test_many_that_say_little(self) -> None:
        """A thousand that each say a word cost the total their words, and no more."""
        total = TotalRate(100_000, self.clock)
        sinks = []
        for _ in range(1000):
            sink, transport = self.join(Sink(self.clock), total=total)
            transport.deliver(b"hello")
            transport.deliver(b"hello")
            sinks.append(sink)
        flooding = self.flood(total, 5000)
        self.pass_time(1)
        self.assertEqual({sink.meter.total for sink in sinks}, {10})
        self.assert_about(flooding.meter.total, 100_000)

    def test_shared_evenly(self) -> None:
        """Who moves small pieces gets as much as who moves large ones."""
        total = TotalRate(200_000, self.clock)
        sinks = [self.flood(total, size) for size in (10, 100, 5000, 10_000, 65_536)]
        self.pass_time(20)
        for sink in sinks:
            self.assert_about(sink.meter.total, 200_000 * 20 / 5)

    def test_output_shared_evenly(self) -> None:
        """So it is with what goes out, of push and of pull producers."""
        total = TotalRate(200_000, self.clock)
        made = [
            self.join(kind(self.clock, size), total=total)
            for kind in (PushSource, PullSource)
            for size in (500, 8000, 60_000)
        ]

        def go_on() -> None:
            for source, transport in made:
                source.go_on()
                transport.take()

        self.pass_time(30, go_on, 1 / 512)
        for source, _ in made:
            self.assert_about(source.meter.total, 200_000 * 30 / 6)

    def test_kept(self) -> None:
        """Together they never get more, but for a read of each to begin with."""
        total = TotalRate(100_000, self.clock)
        meter = Meter(self.clock)
        sizes = (10, 100, 5000, 10_000)
        for size in sizes:
            self.flood(total, size).meter = meter
        self.pass_time(10)
        at_once = 5000 * (2 + len(sizes)) + sum(sizes)
        self.assertLessEqual(meter.most_at_once(100_000), at_once)
        self.assert_about(meter.total, 1_000_000)

    def test_used_up_by_one(self) -> None:
        """One that alone wants something gets it all, among however many idle ones."""
        total = TotalRate(100_000, self.clock)
        for _ in range(100):
            _, transport = self.join(Sink(self.clock), total=total)
            transport.deliver(b"hello")
        sink = self.flood(total, 5000)
        self.pass_time(10)
        self.assert_about(sink.meter.total, 1_000_000)

    def test_what_one_leaves_others_get(self) -> None:
        """Who may not have its share by its own rate leaves it to the others."""
        total = TotalRate(100_000, self.clock)
        slow = self.flood(total, 1000, rate=10_000)
        fast = self.flood(total, 1000)
        self.pass_time(10)
        self.assert_about(slow.meter.total, 100_000)
        self.assert_about(fast.meter.total, 900_000)

    def test_short_connections_take_what_they_use(self) -> None:
        """Connections that come, say a few bytes and go leave the rest to others."""
        total = TotalRate(100_000, self.clock)
        sink = self.flood(total, 5000)
        before = sink.meter.total

        def come_and_go() -> None:
            for _ in range(3):
                _, transport = self.join(Sink(self.clock), total=total)
                transport.deliver(b"hello")
                transport.lose()
            del self.transports[1:]

        self.pass_time(10, come_and_go)
        self.assert_about(sink.meter.total - before, 1_000_000)

    def test_who_comes_and_goes(self) -> None:
        """Who comes, takes nearly a turn's worth and goes has no more than the rate."""
        total = TotalRate(100_000, self.clock)
        meter = Meter(self.clock)

        def come_and_go() -> None:
            for _ in range(3):
                source = PushSource(self.clock, 4000)
                _, transport = self.join(source, total=total)
                if not source.paused:
                    source.write()
                    meter.passed(4000)
                transport.take()
                transport.lose()
            del self.transports[:]

        self.pass_time(10, come_and_go)
        self.assertLess(meter.total, 1_200_000)

    def test_one_that_goes(self) -> None:
        """Who goes leaves its turn and its debt behind, and holds up nobody."""
        total = TotalRate(1000, self.clock)
        debtor, gone = self.join(Sink(self.clock), total=total)
        debtor.transport.write(b"x" * 1_000_000)
        other, transport = self.join(Sink(self.clock), total=total)
        other.transport.write(b"x" * 1000)
        self.assertFalse(transport.reading)
        gone.lose()
        self.pass_time(2)
        self.assertTrue(transport.reading)

    def test_one_that_goes_when_it_may_go_on(self) -> None:
        """Who closes the moment it is its turn harms nobody else's."""
        total = TotalRate(10_000, self.clock)
        closing, gone = self.join(PushSource(self.clock, 5000), total=total)
        closing.resumeProducing = gone.lose
        others = [self.flood(total, 500) for _ in range(2)]
        closing.go_on()
        gone.take()
        self.pass_time(10)
        self.assertEqual(gone.connected, 0)
        for sink in others:
            self.assert_about(sink.meter.total, 50_000)

    def test_one_that_raises(self) -> None:
        """A producer that raises when it is its turn does not end that of others."""
        total = TotalRate(10_000, self.clock)
        raising, transport = self.join(PushSource(self.clock, 5000), total=total)

        def fail() -> None:
            raise ZeroDivisionError

        raising.resumeProducing = fail
        other, taking = self.join(PushSource(self.clock, 500), total=total)
        raising.go_on()
        transport.take()

        def go_on() -> None:
            other.go_on()
            taking.take()

        with self.assertRaises(ZeroDivisionError):
            self.pass_time(10, go_on)
        before = other.meter.total
        self.pass_time(10, go_on)
        self.assert_about(other.meter.total - before, 100_000)

    def test_directions_apart(self) -> None:
        """What comes in and what goes out have the whole rate each."""
        total = TotalRate(50_000, self.clock)
        source, transport = self.join(PushSource(self.clock, 1000), total=total)
        sink = self.flood(total, 1000)

        def go_on() -> None:
            source.go_on()
            transport.take()

        self.pass_time(10, go_on)
        self.assert_about(source.meter.total, 500_000)
        self.assert_about(sink.meter.total, 500_000)

    def test_several_factories(self) -> None:
        """Factories that share a total share it, whatever their own rates."""
        total = TotalRate(90_000, self.clock)
        sinks = [self.flood(total, 1000, rate=rate) for rate in (None, 40_000, 1e6)]
        self.pass_time(10)
        for sink in sinks:
            self.assert_about(sink.meter.total, 300_000)


class OverSocketsTests(TestCase):
    """Real sockets, and a clock that stands still until they are done."""

    timeout = 30

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LogLines(self)

    async def settle(self, *peers: Peer) -> None:
        """Turn the reactor until nothing more moves."""
        from twisted.internet import reactor

        def seen() -> list[tuple[int, bool]]:
            return [(len(each.received), each.ended) for each in peers]

        still = 0
        while still < 10:
            before = seen()
            await deferLater(reactor, 0)
            still = still + 1 if seen() == before else 0

    async def pass_time_until(
        self, condition: Callable[[], object], *peers: Peer, step: float = 0.02
    ) -> float:
        """Let the clock go on with the sockets; return how long it took."""
        began = self.clock.seconds()
        await self.settle(*peers)
        while not condition():
            self.assertLess(self.clock.seconds() - began, 100, "it takes too long")
            self.clock.advance(step)
            await self.settle(*peers)
        return self.clock.seconds() - began

    async def serve(self, factory: Any, count: int = 1, *, tls: bool = False) -> Any:
        """Listen, and connect so many peers."""
        from twisted.internet import reactor
        from twisted.internet.ssl import CertificateOptions

        endpoint: Any
        if tls:
            forgive_twisted_certificates(self)
            server = SSL4ServerEndpoint(
                reactor, 0, certificate_for_localhost(), interface="127.0.0.1"
            )
            port: Any = await server.listen(factory)
            self.addCleanup(port.stopListening)
            number = port.getHost().port
            endpoint = SSL4ClientEndpoint(
                reactor, "127.0.0.1", number, CertificateOptions()
            )
        else:
            port = await serve_tcp(self, factory)
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        peers = [await join(endpoint) for _ in range(count)]
        for peer in peers:
            self.addCleanup(self.cut_later, peer)
        return peers

    def cut_later(self, peer: Peer) -> Deferred[None]:
        return Deferred.fromCoroutine(self.cut(peer))

    async def cut(self, peer: Peer) -> None:
        if peer.lost is None:
            peer.transport.abortConnection()
        await peer.gone()

    async def leave(self, peers: list[Peer], connections: Any) -> None:
        """Check that nothing is left when all peers are gone."""
        for peer in peers:
            await self.cut(peer)
        await self.pass_time_until(lambda: not connections)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_echo(self) -> None:
        """An echo at 200,000 bytes a second: the right bytes, in the right time."""
        echo = EchoFactory(self.clock, log="none")
        [peer] = await self.serve(RateLimit(echo, self.clock, rate=200_000))
        sent = b"".join(b"%07d;" % number for number in range(25_000))
        peer.send(sent)
        seconds = await self.pass_time_until(
            lambda: len(peer.received) >= len(sent), peer
        )
        self.assertEqual(peer.received, sent)
        self.assertLess(abs(seconds - 1), 0.25)
        await self.leave([peer], echo.connections)

    async def test_shared_total(self) -> None:
        """Ten connections share a total, and each gets its tenth of it."""
        echo = EchoFactory(self.clock, log="none")
        total = TotalRate(200_000, self.clock)
        peers = await self.serve(RateLimit(echo, self.clock, total=total), 10)
        for peer in peers:
            peer.send(b"x" * 80_000)
        await self.pass_time_until(lambda: self.clock.seconds() >= 1, *peers)
        before = [len(peer.received) for peer in peers]
        await self.pass_time_until(lambda: self.clock.seconds() >= 3, *peers)
        for peer, received in zip(peers, before, strict=True):
            self.assertLessEqual(abs(len(peer.received) - received - 40_000), 10_000)
        await self.leave(peers, echo.connections)

    async def test_half_close(self) -> None:
        """Who ends its input gets every byte back, and then end of file."""
        echo = EchoFactory(self.clock, log="none")
        [peer] = await self.serve(RateLimit(echo, self.clock, rate=20_000))
        sent = b"".join(b"%07d;" % number for number in range(2500))
        peer.send(sent)
        peer.end()
        await self.pass_time_until(lambda: peer.ended, peer)
        self.assertEqual(peer.received, sent)
        await self.leave([peer], echo.connections)

    async def drain(self, factory: Any, sent: bytes, *, tls: bool) -> tuple[Any, Peer]:
        """Stop a service that still holds up what it is sent."""
        drain = Drain(self.clock)
        limited = RateLimit(factory, self.clock, rate=256)
        [peer] = await self.serve(Draining(limited, drain), tls=tls)
        peer.send(sent)
        await self.settle(peer)
        await self.pass_time_until(lambda: drain.connections, peer)
        [connection] = drain.connections
        stopped = drain.begin(90)
        await self.pass_time_until(lambda: peer.ended, peer, step=0.1)
        received = connection.bytes_received
        await self.leave([peer], factory.connections)
        self.successResultOf(stopped)
        self.assertIs(drain.state, State.STOPPED)
        self.assertEqual(self.log.having("Aborting"), [])
        return received, peer

    async def test_drain_over_tcp(self) -> None:
        """A service that stops cuts nothing of what waits unread because of it."""
        sent = b"".join(b"%07d;" % number for number in range(400))
        echo = EchoFactory(self.clock, log="none")
        _, peer = await self.drain(echo, sent, tls=False)
        self.assertEqual(peer.received, sent)

    async def test_drain_over_tls(self) -> None:
        """Nor does it under TLS."""
        sent = b"".join(b"%07d;" % number for number in range(5000))
        echo = EchoFactory(self.clock, log="none")
        limit = 20_000
        drain = Drain(self.clock)
        limited = RateLimit(echo, self.clock, rate=limit)
        [peer] = await self.serve(Draining(limited, drain), tls=True)
        peer.send(sent)
        await self.settle(peer)
        await self.pass_time_until(lambda: drain.connections, peer)
        stopped = drain.begin(90)
        await self.pass_time_until(lambda: peer.ended, peer, step=0.1)
        self.assertEqual(peer.received, sent)
        await self.leave([peer], echo.connections)
        self.successResultOf(stopped)

    async def test_drain_of_what_was_written(self) -> None:
        """Nor where it is not what is read that is too much, but the answers."""
        hello = HelloFactory(self.clock, framing="line", greeting="", log="none")
        _, peer = await self.drain(hello, b"a\n" * 200, tls=False)
        self.assertEqual(peer.received, b"Hello, a!\n" * 200)

    async def test_owed(self) -> None:
        """What waits unread is owed, as long as it has to wait."""
        echo = EchoFactory(self.clock, log="none")
        drain = Drain(self.clock)
        limited = RateLimit(echo, self.clock, rate=1000)
        [peer] = await self.serve(Draining(limited, drain))
        peer.send(b"x" * 2000)
        await self.settle(peer)
        [connection] = drain.connections
        self.assertEqual(
            (connection.owed().unread, connection.bytes_received),
            (2000 - connection.bytes_received, connection.bytes_received),
        )
        self.assertLess(connection.bytes_received, 1000)
        await self.pass_time_until(lambda: len(peer.received) == 2000, peer)
        await self.pass_time_until(lambda: self.clock.seconds() > 4, peer)
        self.assertFalse(connection.owed())
        await self.leave([peer], echo.connections)
