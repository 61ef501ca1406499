"""
A bound on how many datagrams a service answers, a source and in all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hypothesis import given, strategies as st
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sockproto.datagram import HelloDatagramProtocol
from sockproto.errors import SettingError
from sockproto.policies.datagrams import DatagramRateLimit
from sockproto.reporting import Log
from tests.contracts import LogLines, turns_until

TICK = Fraction(1, 8)
"""Seconds; floats add it up exactly, so a model in fractions agrees to the datagram."""


class Recorder(DatagramProtocol):
    """
    A service that answers with what it got, and remembers all it was told.
    """

    noisy = False

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.received: list[tuple[bytes, Any]] = []

    def startProtocol(self) -> None:
        self.calls.append("start")

    def stopProtocol(self) -> None:
        self.calls.append("stop")

    def connectionRefused(self) -> None:
        self.calls.append("refused")

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received.append((datagram, addr))
        assert self.transport is not None
        self.transport.write(datagram, addr)


class MovableClock(Clock):
    """
    A clock that somebody sets, also back.
    """

    def set(self, seconds: float) -> None:
        self.rightNow = seconds


def host(number: int) -> str:
    return f"192.0.2.{number}" if number < 256 else f"2001:db8:{number:x}::1"


class Limited:
    """
    A limited service in memory, and the clock it goes by.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = MovableClock()
        self.inner = Recorder()
        self.limit = DatagramRateLimit(
            self.inner, self.clock, **{"per_source": None, "total": None, **settings}
        )
        self.limit.makeConnection(FakeDatagramTransport())

    def send(self, source: int, times: int = 1) -> int:
        """Send so many datagrams; return how many reached the service."""
        before = len(self.inner.received)
        for _ in range(times):
            self.limit.datagramReceived(b"Eva", (host(source), 4711))
        return len(self.inner.received) - before

    @property
    def kept(self) -> int:
        """How many sources are kept apart."""
        return len(self.limit._buckets.full_at)


@dataclass
class Bucket:
    """
    A token bucket by the book: tokens, and a moment to count from.
    """

    rate: Fraction
    size: Fraction
    tokens: Fraction
    since: Fraction = Fraction(0)

    @classmethod
    def full(cls, rate: Fraction, burst_seconds: Fraction) -> Bucket:
        size = max(Fraction(1), rate * burst_seconds)
        return cls(rate, size, size)

    def has_token(self, now: Fraction) -> bool:
        self.tokens = min(self.size, self.tokens + self.rate * (now - self.since))
        self.since = now
        return self.tokens >= 1


# Ticks to the next datagram, often none, and where that is from.
ARRIVALS = st.lists(
    st.tuples(st.one_of(st.just(0), st.integers(0, 60)), st.integers(0, 3)),
    max_size=80,
)
# So that a token takes a whole number of ticks.
RATES = st.sampled_from([Fraction(8, n) for n in (1, 2, 3, 5, 16, 40)])
MAYBE_RATES = st.one_of(st.none(), RATES)
BURSTS = st.integers(0, 30).map(lambda ticks: ticks * TICK)


class RateTests(SynchronousTestCase):
    @given(arrivals=ARRIVALS, per_source=MAYBE_RATES, total=MAYBE_RATES, burst=BURSTS)
    def test_by_the_book(
        self,
        arrivals: list[tuple[int, int]],
        per_source: Fraction | None,
        total: Fraction | None,
        burst: Fraction,
    ) -> None:
        """What passes is what a bucket a source, and one for all, let through."""
        service = Limited(
            per_source=None if per_source is None else float(per_source),
            total=None if total is None else float(total),
            burst_seconds=float(burst),
        )
        buckets: dict[int, Bucket] = {}
        common = Bucket.full(total or Fraction(10**6), burst)
        now = Fraction(0)
        dropped: Counter[str] = Counter()
        for ticks, source in arrivals:
            now += ticks * TICK
            service.clock.set(float(now))
            rate = per_source or Fraction(10**6)
            own = buckets.setdefault(source, Bucket.full(rate, burst))
            source_may = per_source is None or own.has_token(now)
            all_may = total is None or common.has_token(now)
            if source_may and all_may:
                own.tokens -= 1
                common.tokens -= 1
            else:
                dropped["total rate" if source_may else "source rate"] += 1
            self.assertEqual(service.send(source), int(source_may and all_may))
        self.assertEqual(service.limit.dropped, dropped)

    @given(
        arrivals=st.lists(
            st.tuples(
                st.one_of(st.just(0.0), st.floats(0, 5), st.floats(0, 1e-3)),
                st.integers(0, 2),
            ),
            max_size=60,
        ),
        per_source=st.floats(0.1, 1000),
        total=st.floats(0.1, 1000),
        burst=st.floats(0, 5),
    )
    def test_any_window(
        self,
        arrivals: list[tuple[float, int]],
        per_source: float,
        total: float,
        burst: float,
    ) -> None:
        """In no stretch of time passes more than the rate allows, and one burst."""
        service = Limited(per_source=per_source, total=total, burst_seconds=burst)
        passed: list[tuple[float, int]] = []
        for gap, source in arrivals:
            service.clock.advance(gap)
            if service.send(source):
                passed.append((service.clock.seconds(), source))
        self.check_windows([when for when, _ in passed], total, burst)
        for each in range(3):
            times = [when for when, source in passed if source == each]
            self.check_windows(times, per_source, burst)

    def check_windows(self, times: list[float], rate: float, burst: float) -> None:
        for first, begin in enumerate(times):
            for last, end in enumerate(times[first:], first):
                allowed = rate * (end - begin) + max(1, rate * burst) + 1
                self.assertLessEqual(last - first + 1, allowed)

    @given(
        floods=st.lists(st.integers(0, 5), min_size=1, max_size=40),
        rate=st.floats(0.01, 1e4),
        burst=st.floats(0, 5),
        begin=st.floats(0, 1e5),  # beyond, the clock's own rounding adds up
    )
    def test_below_the_rate(
        self, floods: list[int], rate: float, burst: float, begin: float
    ) -> None:
        """A source that keeps to its rate is never dropped, whatever others do."""
        service = Limited(per_source=rate, total=None, burst_seconds=burst)
        service.clock.set(begin)
        for flood in floods:
            service.clock.advance(1 / rate)
            service.send(0, flood)
            self.assertEqual(service.send(1), 1)

    def test_flood_takes_nothing_from_others(self) -> None:
        """What one source sends above its rate uses up nothing of the total."""
        service = Limited(per_source=10, total=40, burst_seconds=1)
        self.assertEqual(service.send(0, 1000), 10)
        self.assertEqual([service.send(source, 10) for source in (1, 2, 3)], [10] * 3)
        self.assertEqual(service.limit.dropped, {"source rate": 990})

    def test_total_is_nobodys_fault(self) -> None:
        """What the total refuses uses up nothing of its source's rate."""
        service = Limited(per_source=10, total=10, burst_seconds=1)
        self.assertEqual(service.send(0, 10), 10)
        self.assertEqual(service.send(1, 100), 0)
        service.clock.advance(1)
        self.assertEqual(service.send(1, 100), 10)
        self.assertEqual(service.limit.dropped["total rate"], 100)

    def test_one_network_one_source(self) -> None:
        """The addresses of one IPv6 /64 share one rate, and so do a host's ports."""
        service = Limited(per_source=1, total=None, burst_seconds=1)
        for address in (
            ("2001:db8::1", 5000),
            ("2001:db8::2", 5000),
            ("192.0.2.1", 5000),
            ("192.0.2.1", 5001),
            ("::ffff:192.0.2.1", 5000),
        ):
            service.limit.datagramReceived(b"Eva", address)
        self.assertEqual(
            [address for _, address in service.inner.received],
            [("2001:db8::1", 5000), ("192.0.2.1", 5000)],
        )

    def test_senders_without_an_address(self) -> None:
        """Senders on unix sockets have no rate of their own, but the total counts."""
        service = Limited(per_source=1, total=3, burst_seconds=1)
        for sender in ("/run/sender", None, ("nobody", 0), "/run/sender", None):
            service.limit.datagramReceived(b"Eva", sender)  # type: ignore[arg-type]
        self.assertEqual(len(service.inner.received), 3)
        self.assertEqual(service.limit.dropped, {"total rate": 2})

    def test_no_limit(self) -> None:
        """Without rates nothing is dropped."""
        self.assertEqual(Limited().send(0, 1000), 1000)

    def test_refused(self) -> None:
        """A rate that is none is refused by its name."""
        for name in ("per_source", "total"):
            for rate in (0, -1, True, "7", float("inf"), float("nan"), 1e-300):
                with self.assertRaises(SettingError) as caught:
                    Limited(**{name: rate})
                self.assertEqual(caught.exception.name, name)
        with self.assertRaises(SettingError) as caught:
            Limited(total=0)
        self.assertEqual(
            str(caught.exception),
            "total is 0, where a number from 0.000001 to 1000000000000, or None, is"
            " allowed",
        )
        self.assertRaises(SettingError, Limited, burst_seconds=-1)
        self.assertRaises(SettingError, Limited, max_sources=0)
        self.assertRaises(SettingError, Limited, log="loud")


class ClockTests(SynchronousTestCase):
    def test_set_back(self) -> None:
        """A clock that is set back locks nobody out."""
        service = Limited(per_source=2, total=4, burst_seconds=1)
        service.clock.set(1e9)
        service.send(0, 10)
        service.clock.set(1e9 - 3600)
        for _ in range(10):
            self.assertEqual(service.send(0), 0)
            service.clock.advance(0.5)
            self.assertEqual(service.send(0), 1)
            self.assertEqual(service.send(1), 1)

    def test_set_ahead(self) -> None:
        """A clock that is set ahead gives each source one burst, not more."""
        service = Limited(per_source=2, total=4, burst_seconds=1)
        service.send(0, 10)
        service.clock.set(1e9)
        self.assertEqual(service.send(0, 10), 2)
        self.assertEqual(service.send(1, 10), 2)
        self.assertEqual(service.send(2, 10), 0)


class TableTests(SynchronousTestCase):
    @given(arrivals=ARRIVALS, max_sources=st.integers(1, 3))
    def test_bounded(self, arrivals: list[tuple[int, int]], max_sources: int) -> None:
        """No more sources are kept than was said, and no source is lost for that."""
        service = Limited(per_source=8, total=None, max_sources=max_sources)
        sent: set[int] = set()
        for ticks, source in arrivals:
            service.clock.advance(float(ticks * TICK))
            passed = service.send(source)
            self.assertLessEqual(service.kept, max_sources)
            self.assertTrue(passed or source in sent)
            sent.add(source)

    def test_throttled_is_kept(self) -> None:
        """A flood from forged sources does not get a throttled one a new burst."""
        service = Limited(per_source=2, total=None, burst_seconds=5, max_sources=200)
        self.assertEqual(service.send(0, 100), 10)
        for forged in range(1, 20_000):
            service.send(forged)
            self.assertLessEqual(service.kept, 200)
        self.assertEqual(service.send(0, 100), 0)

    def test_full_are_forgotten(self) -> None:
        """Sources that come and go do not add up, beside one that stays."""
        service = Limited(per_source=8, total=None, burst_seconds=1)
        service.send(0, 100)
        for passing in range(1, 5_000):
            service.clock.advance(float(TICK))
            service.send(passing)
            self.assertEqual(service.send(0, 2), 1)
            self.assertLess(service.kept, 10)

    def test_forgotten_after_a_flood(self) -> None:
        """What a flood has left in the table is gone after as many sources again."""
        service = Limited(per_source=8, total=None)
        for forged in range(3_000):
            service.send(forged)
        self.assertEqual(service.kept, 3_000)
        for later in range(3_000, 6_000):
            service.clock.advance(float(TICK))
            service.send(later)
        self.assertLess(service.kept, 10)

    def test_total_spares_the_table(self) -> None:
        """What the total refuses takes no place, however many sources are forged."""
        service = Limited(per_source=8, total=100, burst_seconds=1)
        for forged in range(5_000):
            service.send(forged)
        self.assertEqual(service.kept, 100)
        self.assertEqual(service.limit.dropped, {"total rate": 4_900})


class WrappingTests(SynchronousTestCase):
    """Any protocol may be inside, and does not notice."""

    def test_life(self) -> None:
        """The protocol is started once, with the port itself, and stopped once."""
        inner = Recorder()
        limit = DatagramRateLimit(inner, Clock(), per_source=1, total=1)
        for _ in range(2):
            port: Any = FakeDatagramTransport()
            limit.makeConnection(port)
            self.assertIs(inner.transport, port)
            limit.connectionRefused()
            limit.doStop()
            self.assertIsNone(inner.transport)
        self.assertEqual(inner.calls, ["start", "refused", "stop"] * 2)
        self.assertEqual((limit.numPorts, inner.numPorts), (0, 0))

    def test_several_ports(self) -> None:
        """A protocol on two ports is started with the first, stopped with the last."""
        inner = Recorder()
        limit = DatagramRateLimit(inner, Clock(), per_source=1, total=1)
        limit.doStart()
        limit.doStart()
        limit.doStop()
        self.assertEqual(inner.calls, ["start"])
        limit.doStop()
        self.assertEqual(inner.calls, ["start", "stop"])

    def test_named_as_inside(self) -> None:
        """In Twisted's log a port is called what it is called without a limit."""
        limit = DatagramRateLimit(Recorder(), Clock(), per_source=1, total=1)
        self.assertEqual(limit.logPrefix(), "Recorder")
        self.assertFalse(limit.noisy)

    def test_stop_that_fails(self) -> None:
        """A protocol that cannot stop leaves nothing on the clock either."""
        service = Limited(total=1, burst_seconds=1)
        service.send(0, 2)
        self.patch(service.inner, "stopProtocol", lambda: 1 // 0)
        self.assertRaises(ZeroDivisionError, service.limit.doStop)
        self.assertEqual(service.clock.getDelayedCalls(), [])


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = LogLines(self)

    def test_lines(self) -> None:
        """The first drop is told at once, then what came since, every ten seconds."""
        service = Limited(per_source=4, total=8, burst_seconds=1)
        service.send(0, 5)
        first = "Dropped 1 datagram of 1 source: 1 above 4 a second of one source."
        self.assertEqual(self.log.lines, [first])
        service.send(0, 2)
        service.send(1, 4)
        service.send(2, 3)
        service.clock.advance(9.9)
        self.assertEqual(self.log.lines, [first])
        service.clock.advance(0.1)
        second = (
            "Dropped 5 datagrams of 2 sources: 2 above 4 a second of one source,"
            " 3 above 8 a second in all."
        )
        self.assertEqual(self.log.lines, [first, second])
        service.clock.advance(10)
        self.assertEqual(len(self.log.lines), 2)
        self.assertEqual(service.clock.getDelayedCalls(), [])
        service.send(0, 5)
        self.assertEqual(self.log.lines, [first, second, first])

    def test_one_line_in_ten_seconds(self) -> None:
        """However long a flood lasts, it is a line every ten seconds."""
        service = Limited(total=1, burst_seconds=1)
        for _ in range(300):
            service.send(0, 2)
            service.clock.advance(0.25)
        self.assertEqual(len(self.log.lines), 8)

    def test_many_sources(self) -> None:
        """Of very many sources it is told that they are many."""
        service = Limited(total=1, burst_seconds=1)
        for source in range(3_000):
            service.send(source)
        service.clock.advance(10)
        self.assertIn(
            "Dropped 2998 datagrams of 1000 sources or more: ", self.log.lines[1]
        )

    def test_stop(self) -> None:
        """A stop tells what is left to tell, and leaves nothing on the clock."""
        service = Limited(total=1, burst_seconds=1)
        service.send(0, 4)
        service.limit.doStop()
        self.assertEqual(
            self.log.lines[1:],
            ["Dropped 2 datagrams of 1 source: 2 above 1 a second in all."],
        )
        self.assertEqual(service.clock.getDelayedCalls(), [])

    def test_stop_without_drops(self) -> None:
        """Where nothing was dropped, nothing is told."""
        service = Limited(total=1, burst_seconds=1)
        service.send(0)
        service.limit.doStop()
        self.assertEqual(self.log.lines, [])

    def test_none(self) -> None:
        """With no log drops are counted, not told, and cost no timer."""
        service = Limited(total=1, burst_seconds=1, log=Log.NONE)
        service.send(0, 3)
        self.assertEqual(service.clock.getDelayedCalls(), [])
        service.limit.doStop()
        self.assertEqual(self.log.lines, [])
        self.assertEqual(service.limit.dropped, {"total rate": 2})


class Asker(DatagramProtocol):
    """
    Counts the answers.
    """

    noisy = False

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.answers.append(datagram)


class Connecting(Recorder):
    """
    Connects its socket to a port, as a UDP client may.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def startProtocol(self) -> None:
        super().startProtocol()
        assert self.transport is not None
        self.transport.connect("127.0.0.1", self.port)


class ServingTests(TestCase):
    """Over real sockets."""

    timeout = 30

    def listen(self, protocol: Any, interface: str = "127.0.0.1") -> Any:
        from twisted.internet import reactor

        port = reactor.listenUDP(  # type: ignore[attr-defined]
            0, protocol, interface=interface
        )
        self.addCleanup(port.stopListening)
        return port

    async def test_many_sources(self) -> None:
        """Each of many clients gets its burst, and no more; the rest is counted."""
        from twisted.internet import reactor

        lines = LogLines(self)
        inner = HelloDatagramProtocol()
        limit = DatagramRateLimit(
            inner,
            reactor,
            per_source=0.001,
            total=None,
            burst_seconds=2_000,
        )
        port = self.listen(limit)
        there = ("127.0.0.1", port.getHost().port)
        askers = [Asker() for _ in range(40)]
        for number, asker in enumerate(askers):
            client = self.listen(asker, f"127.{number}.7.{number + 1}")
            for _ in range(5):
                client.write(b"Eva", there)
        await turns_until(lambda: limit.dropped["source rate"] == 3 * len(askers))
        await turns_until(lambda: all(len(asker.answers) == 2 for asker in askers))
        self.assertEqual(inner.dropped, {})
        self.assertIn(
            f"Dropped 1 datagram of 1 source at 127.0.0.1:{there[1]}: 1 above 0.001 a"
            " second of one source.",
            lines.lines,
        )

    async def test_total(self) -> None:
        """Many clients together get no more than the total allows."""
        from twisted.internet import reactor

        limit = DatagramRateLimit(
            HelloDatagramProtocol(),
            reactor,
            per_source=None,
            total=0.001,
            burst_seconds=7_000,
        )
        port = self.listen(limit)
        askers = [Asker() for _ in range(20)]
        for number, asker in enumerate(askers):
            client = self.listen(asker, f"127.{number}.8.{number + 1}")
            client.write(b"Eva", ("127.0.0.1", port.getHost().port))
        await turns_until(lambda: limit.dropped["total rate"] == 13)
        await turns_until(lambda: sum(len(each.answers) for each in askers) == 7)

    async def test_connected(self) -> None:
        """On a connected socket a refusal reaches the protocol."""
        from twisted.internet import reactor

        gone = self.listen(Asker())
        number = gone.getHost().port
        await gone.stopListening()
        inner = Connecting(number)
        limit = DatagramRateLimit(
            inner,
            reactor,
            per_source=1,
            total=1,
        )
        port = self.listen(limit)
        port.write(b"Eva")
        port.write(b"Eva")  # the kernel tells with this one of the one before
        self.assertEqual(inner.calls, ["start", "refused"])
        self.assertIs(inner.transport, port)
