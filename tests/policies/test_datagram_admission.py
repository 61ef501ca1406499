"""
Datagrams of networks that may not send any are dropped.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import SettingError
from sockproto.policies.datagram_admission import DatagramAdmission
from tests.contracts import LogLines


class Hearing(DatagramProtocol):
    """Keeps whom it hears, and answers."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.stopped = 0

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard.append(addr)
        self.transport.write(datagram, addr)  # type: ignore[union-attr]

    def stopProtocol(self) -> None:
        self.stopped += 1


class DatagramAdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LogLines(self)
        self.inner = Hearing()
        self.transport = FakeDatagramTransport()

    def listen(self, **settings: Any) -> DatagramAdmission:
        protocol = DatagramAdmission(self.inner, self.clock, **settings)
        protocol.makeConnection(self.transport)
        return protocol

    def stop(self, protocol: DatagramAdmission) -> None:
        protocol.doStop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.inner.stopped, 1)

    def test_lists(self) -> None:
        """What is denied is so, also if it is allowed; the others are answered."""
        protocol = self.listen(allow="192.0.2.0/24, 2001:db8::/32", deny="192.0.2.7")
        came = [
            ("192.0.2.1", 5),
            ("192.0.2.7", 5),
            ("198.51.100.1", 5),
            ("::ffff:192.0.2.2", 5),
            ("2001:db8::1", 5),
            b"/run/socket",
        ]
        for each in came:
            protocol.datagramReceived(b"x", each)  # type: ignore[arg-type]
        passed = [came[0], came[3], came[4]]
        self.assertEqual(self.inner.heard, passed)
        self.assertEqual([addr for _, addr in self.transport.written], passed)
        self.assertEqual(protocol.dropped, {"denied": 1, "not allowed": 2})
        self.stop(protocol)

    def test_unix(self) -> None:
        """Peers on unix sockets have a word in the lists."""
        protocol = self.listen(allow="unix")
        protocol.datagramReceived(b"x", b"/run/socket")  # type: ignore[arg-type]
        self.assertEqual(len(self.inner.heard), 1)
        self.stop(protocol)

    def test_log(self) -> None:
        """Drops are told at once, then every ten seconds, and at the stop."""
        protocol = self.listen(deny="192.0.2.0/24")
        for _ in range(3):
            protocol.datagramReceived(b"x", ("192.0.2.1", 5))
        words = "from networks that are denied (--deny)."
        self.assertEqual(self.log.lines, [f"Dropped 1 datagram {words}"])
        self.clock.advance(10)
        self.assertEqual(self.log.lines[1:], [f"Dropped 2 datagrams {words}"])
        protocol.datagramReceived(b"x", ("192.0.2.1", 5))
        self.stop(protocol)
        self.assertEqual(self.log.lines[2:], [f"Dropped 1 datagram {words}"])

    def test_silent(self) -> None:
        """Who wants no log has the numbers alone."""
        protocol = self.listen(deny="192.0.2.0/24", log="none")
        protocol.datagramReceived(b"x", ("192.0.2.1", 5))
        self.assertEqual(protocol.dropped["denied"], 1)
        self.stop(protocol)
        self.assertEqual(self.log.lines, [])

    def test_wrong_networks(self) -> None:
        """What is no network is refused by its name."""
        with self.assertRaises(SettingError) as caught:
            DatagramAdmission(self.inner, self.clock, deny="all")
        self.assertEqual(caught.exception.name, "deny")
