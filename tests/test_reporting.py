"""
What services write into the log.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given, strategies as st
from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from sockproto.reporting import Log, Occasional, describe_address, describe_loss, log
from tests.contracts import LogLines

if TYPE_CHECKING:
    from collections import Counter


class DescribeAddressTests(SynchronousTestCase):
    """Addresses, for people."""

    def test_spelling(self) -> None:
        """Each kind of address is spelled as one would type it."""
        for address, expected in (
            (IPv4Address("TCP", "127.0.0.1", 9999), "127.0.0.1:9999"),
            (IPv6Address("TCP", "::1", 9999), "[::1]:9999"),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 9999), "127.0.0.1:9999"),
            (UNIXAddress("/run/hello.sock"), "/run/hello.sock"),
            (UNIXAddress(None), "a unix socket"),
            (UNIXAddress(""), "a unix socket"),
        ):
            self.assertEqual(describe_address(address), expected)

    def test_escapes(self) -> None:
        """A path that is no text does not reach the log as it is."""
        spelled = describe_address(UNIXAddress(b"/tmp/\x1b[2J\xff"))
        self.assertEqual(spelled, r"/tmp/\x1b[2J\xff")

    def test_escapes_text(self) -> None:
        """Nor does one that is text: a peer chooses the path it binds."""
        spelled = describe_address(UNIXAddress("/tmp/\x1b[2J\n"))
        self.assertTrue(spelled.isprintable(), spelled)

    def test_escapes_hosts(self) -> None:
        """A host that somebody made up is no way to forge a line."""
        for host, expected in (
            ("evil\x1b[31m", r"evil\x1b[31m:1"),
            ("a\n12.00 b\r", r"a\n12.00 b\r:1"),
            ("a\t\u202eb\u2028", r"a\t\u202eb\u2028:1"),
            ("b\xfccher", "b\xfccher:1"),
        ):
            spelled = describe_address(IPv4Address("TCP", host, 1))
            self.assertEqual(spelled, expected)

    def test_any_other(self) -> None:
        """What is none of Twisted's addresses is spelled as it spells itself."""
        address = HostnameAddress(b"localhost", 1)
        self.assertEqual(describe_address(address), str(address))


class DescribeLossTests(SynchronousTestCase):
    """Why a connection ended."""

    def test_words(self) -> None:
        """Each end has its words, on one line."""
        for error, expected in (
            (ConnectionDone(), "the peer closed"),
            (ConnectionAborted(), "aborted"),
            (OSError(104, "Connection reset\nby peer."), "broken off: "),
            (ValueError(), "broken off: ValueError"),
        ):
            described = describe_loss(Failure(error))
            self.assertTrue(described.startswith(expected), described)
            self.assertNotIn("\n", described)
        self.assertIn("broken off", describe_loss(Failure(ConnectionLost())))


class LogTests(SynchronousTestCase):
    """The logger, and how much is logged."""

    def test_namespace(self) -> None:
        """All that is logged has the namespace `sockproto`, to be filtered by."""
        lines = LogLines(self)
        log.info("hello")
        self.assertEqual(lines.lines, ["hello"])

    def test_values(self) -> None:
        """The values are the option's words."""
        self.assertEqual(
            [level.value for level in Log], ["none", "connections", "messages"]
        )


class OccasionalTests(SynchronousTestCase):
    """What happens often, and is told now and then."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[dict[str, int]] = []
        self.occasional = Occasional(self.clock, self.said.append)

    def happen(self, *what: str) -> None:
        for each in what:
            self.occasional.happened(each)

    def test_at_once(self) -> None:
        """What happens first is told at once, at whatever time."""
        self.happen("a")
        self.assertEqual(self.said, [{"a": 1}])
        clock = Clock()
        clock.advance(2e9)
        Occasional(clock, self.said.append).happened("b")
        self.assertEqual(self.said[1:], [{"b": 1}])

    def test_then_now_and_then(self) -> None:
        """The rest is told by its number, as the first happens after 10 s."""
        self.happen("a", "a", "b")
        self.clock.advance(9.9)
        self.happen("a")
        self.assertEqual(len(self.said), 1)
        self.clock.advance(0.1)
        self.happen("c")
        self.assertEqual(self.said[1:], [{"a": 2, "b": 1, "c": 1}])

    def test_by_itself_it_waits_for_nothing(self) -> None:
        """It leaves nothing on the clock: what comes no more is for `tell`."""
        self.happen("a", "b")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.occasional.tell()
        self.occasional.tell()
        self.assertEqual(self.said, [{"a": 1}, {"b": 1}])

    def test_clock_set_back(self) -> None:
        """On a clock that was set back it is told again, and not after hours."""
        self.clock.advance(1_000_000)
        self.happen("a", "a")
        self.clock.rightNow -= 500_000
        self.happen("a", "a")
        self.assertEqual(self.said, [{"a": 1}, {"a": 2}])
        self.clock.advance(10)
        self.happen("a")
        self.assertEqual(self.said[2:], [{"a": 2}])

    def test_happens_while_it_is_told(self) -> None:
        """What happens while it is told is told next time."""

        def say(counts: Counter[str]) -> None:
            self.said.append(counts)
            occasional.happened("again")

        occasional = Occasional(self.clock, say)
        occasional.happened("a")
        self.assertEqual(self.said, [{"a": 1}])
        self.clock.advance(10)
        occasional.happened("b")
        self.assertEqual(self.said[1:], [{"again": 1, "b": 1}])

    def test_saying_fails(self) -> None:
        """What could not be said is not said again by the next."""

        def fail(counts: Counter[str]) -> None:
            self.said.append(counts)
            raise ZeroDivisionError

        occasional = Occasional(self.clock, fail)
        with self.assertRaises(ZeroDivisionError):
            occasional.happened("a")
        occasional.happened("b")
        self.assertEqual(self.said, [{"a": 1}])

    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100)), max_size=50)
    )
    def test_all_is_told(self, happened: list[tuple[str, int]]) -> None:
        """Each is told once, and the times it is told lie 10 s apart."""
        clock = Clock()
        told: list[str] = []
        times: list[float] = []

        def say(counts: Counter[str]) -> None:
            told.extend(counts.elements())
            times.append(clock.seconds())

        occasional = Occasional(clock, say)
        for what, eighths in happened:
            clock.advance(eighths / 8)
            occasional.happened(what)
        for before, after in pairwise(times):
            self.assertGreaterEqual(after, before + Occasional.SECONDS)
        occasional.tell()
        self.assertEqual(sorted(told), sorted(what for what, _ in happened))
