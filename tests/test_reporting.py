"""
What services write into the log.
"""

from __future__ import annotations

from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from sockproto.reporting import Log, describe_address, describe_loss, log
from tests.contracts import LogLines


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
