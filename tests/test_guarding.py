"""
Settings become policies: those that were asked for, and no others.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sockproto.echo import EchoFactory, EchoProtocol
from sockproto.guarding import Guard
from sockproto.places import StreamPlace, UdpPlace, stream_place
from sockproto.policies.datagrams import DatagramRateLimit
from sockproto.settings import Settings
from sockproto.wrapping import FactoryWrapper
from tests.contracts import LogLines, MemoryTransport, lose

LOCAL = StreamPlace(None, behind_proxy=False, faces_network=False)  # type: ignore[arg-type]
FACING = StreamPlace(None, behind_proxy=False, faces_network=True)  # type: ignore[arg-type]
PROXIED = StreamPlace(None, behind_proxy=True, faces_network=True)  # type: ignore[arg-type]

HERE = IPv4Address("TCP", "192.0.2.1", 5)


def names(factory: Any) -> list[str]:
    """The wrappers around a factory, from the outermost in."""
    found = []
    while isinstance(factory, FactoryWrapper):
        found.append(type(factory).__name__)
        factory = factory.inner
    return found


class StackTests(SynchronousTestCase):
    """Which policies there are."""

    def around(self, place: StreamPlace, **settings: Any) -> list[str]:
        guard = Guard(Settings(**settings), Clock())
        return names(guard.around(Factory.forProtocol(Protocol), place))

    def test_local(self) -> None:
        """On loopback nothing is there that touches a byte."""
        self.assertEqual(self.around(LOCAL), ["Admission", "Draining"])

    def test_facing(self) -> None:
        """Where a place faces a network it has deadlines."""
        self.assertEqual(
            self.around(FACING),
            ["Admission", "Draining", "StalledTimeout", "IdleTimeout"],
        )

    def test_off(self) -> None:
        """There too a limit of 0 is none."""
        self.assertEqual(
            self.around(FACING, idle=0, stalled=0), ["Admission", "Draining"]
        )

    def test_all(self) -> None:
        """What is asked for is there, also on loopback."""
        self.assertEqual(
            self.around(LOCAL, idle=1, stalled=1, rate=5),
            ["Admission", "Draining", "StalledTimeout", "IdleTimeout", "RateLimit"],
        )
        self.assertIn("RateLimit", self.around(LOCAL, total_rate=5))

    def test_behind_proxy(self) -> None:
        """Behind a proxy, peers are counted once it is known who they are."""
        self.assertEqual(
            self.around(PROXIED),
            [
                "Admission",
                "Draining",
                "StalledTimeout",
                "IdleTimeout",
                "BehindProxy",
                "Admission",
            ],
        )

    def test_datagrams(self) -> None:
        """UDP has rates where it faces a network, or where they are set."""
        for place, settings, limited in (
            (UdpPlace(1, "127.0.0.1"), {}, False),
            (UdpPlace(1, "::1"), {}, False),
            (UdpPlace(1), {}, True),
            (UdpPlace(1), {"udp_rate": 0}, True),
            (UdpPlace(1), {"udp_rate": 0, "udp_total_rate": 0}, False),
            (UdpPlace(1, "127.0.0.1"), {"udp_rate": 5}, True),
        ):
            guard = Guard(Settings(**settings), Clock())  # type: ignore[arg-type]
            protocol = guard.around_datagrams(DatagramProtocol(), place)
            self.assertIs(isinstance(protocol, DatagramRateLimit), limited)


class SharedTests(SynchronousTestCase):
    """What places have in common."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LogLines(self)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def guard(self, **settings: Any) -> Guard:
        guard = Guard(Settings(**settings), self.clock)
        guard.count_files()
        return guard

    def join(self, factory: Any, host: str = "192.0.2.1") -> tuple[Any, Any]:
        """Connect; return both ends."""
        transport = MemoryTransport()
        protocol = factory.buildProtocol(IPv4Address("TCP", host, 5))
        protocol.makeConnection(transport)
        return protocol, transport

    def test_connections_in_all(self) -> None:
        """Connections of all places count together, those behind proxies too."""
        guard = self.guard(max_connections=2, max_per_peer=0, idle=0, stalled=0)
        factories = [
            guard.around(Factory.forProtocol(Protocol), place)
            for place in (LOCAL, FACING, PROXIED)
        ]
        for each in factories:
            each.doStart()
        joined = [self.join(each) for each in factories]
        self.assertEqual([t.disconnected for _, t in joined], [False, False, True])
        lose(joined[0][0])
        again, transport = self.join(factories[2])
        self.assertFalse(transport.disconnected)
        lose(again)
        lose(joined[1][0])
        for each in factories:
            each.doStop()
        self.assertIn(
            "Refused 1 connection above 2 in all (--max-connections).", self.log.lines
        )

    def test_a_service_itself(self) -> None:
        """A service's connection on loopback is nobody's but its own, and counted."""
        guard = self.guard(max_connections=1)
        factory = guard.around(EchoFactory(self.clock, log="none"), LOCAL)
        protocol, _ = self.join(factory)
        self.assertIs(type(protocol), EchoProtocol)
        self.assertEqual(protocol.attendants, ())
        self.assertEqual(guard.drain.connections, {protocol})
        _, refused = self.join(factory)
        self.assertTrue(refused.disconnected)
        lose(protocol)
        self.assertEqual(guard.drain.connections, set())

    def test_quarter(self) -> None:
        """Unless told otherwise, one peer gets a quarter of a place on a network."""
        guard = self.guard(max_connections=8, idle=0, stalled=0)
        local, facing = (
            guard.around(Factory.forProtocol(Protocol), place)
            for place in (LOCAL, FACING)
        )
        joined = [self.join(facing) for _ in range(3)]
        self.assertEqual([t.disconnected for _, t in joined], [False, False, True])
        joined += [self.join(facing, "192.0.2.2")]
        joined += [self.join(local) for _ in range(3)]
        self.assertFalse(any(t.disconnected for _, t in joined[3:]))
        for protocol, _ in joined:
            lose(protocol)

    def test_behind_proxy(self) -> None:
        """Behind a proxy it is the real peer that is counted and listed."""
        guard = self.guard(max_per_peer=1, deny="198.51.100.0/24", idle=0, stalled=0)
        factory = guard.around(Factory.forProtocol(Protocol), PROXIED)
        joined = []
        for source in ("203.0.113.1", "203.0.113.1", "203.0.113.2", "198.51.100.7"):
            protocol, transport = self.join(factory)
            header = f"PROXY TCP4 {source} 192.0.2.1 1 2\r\n"
            protocol.dataReceived(header.encode())
            joined.append((protocol, transport))
        self.assertEqual(
            [t.disconnected for _, t in joined], [False, True, False, True]
        )
        for protocol, _ in joined:
            lose(protocol)

    def test_refusal(self) -> None:
        """Who is refused hears what was set, and then end of file."""
        guard = self.guard(deny="192.0.2.0/24", refusal=b"busy\r\n", idle=0, stalled=0)
        factory = guard.around(Factory.forProtocol(Protocol), FACING)
        protocol, transport = self.join(factory)
        self.assertEqual(transport.value(), b"busy\r\n")
        self.assertTrue(transport.half_closed)
        lose(protocol)

    def test_datagrams(self) -> None:
        """Networks may not send datagrams either."""

        class Hearing(DatagramProtocol):
            heard: list[bytes] = []  # noqa: RUF012

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                self.heard.append(datagram)

        guard = self.guard(deny="192.0.2.0/24", allow="127.0.0.1")
        place = UdpPlace(1, "127.0.0.1")
        protocol: Any = guard.around_datagrams(Hearing(), place)
        for host in ("192.0.2.1", "127.0.0.1", "198.51.100.1"):
            protocol.datagramReceived(host.encode(), (host, 5))
        self.assertEqual(Hearing.heard, [b"127.0.0.1"])

    def test_files(self) -> None:
        """The log says what open files allow; more than that is not to be had."""
        self.guard()
        self.assertEqual(len(self.log.having("The limit of open files is")), 1)
        guard = self.guard(max_connections=1 << 31)
        self.assertEqual(len(self.log.having("where --max-connections asks for")), 1)
        self.assertLess(guard._all.most or 0, 1 << 31)
        self.guard(log="none")
        self.assertEqual(len(self.log.lines), 2)


class FacingTests(SynchronousTestCase):
    def test_places(self) -> None:
        """Loopback and unix sockets face no network; of others it is assumed."""
        for place, faces in (
            ("tcp:1", True),
            ("tcp:1:interface=0.0.0.0", True),
            ("tcp:1:interface=127.0.0.1", False),
            ("tcp:1:127.0.0.2", False),
            ("tcp:1:interface=[::1]", False),
            ("tcp:1:interface=192.0.2.1", True),
            ("tcp6:1", True),
            ("tcp6:1:5:\\:\\:1", False),
            ("tcp6:1:interface=[::1]", False),
            ("unix:/nowhere/socket", False),
            ("haproxy:tcp:1:interface=127.0.0.1", True),
            ("haproxy:unix:/nowhere/socket", True),
            ("haproxy:tcp:1", True),
        ):
            where = stream_place(Clock(), "hello", place, backlog=5)
            self.assertIs(where.faces_network, faces, place)
            self.assertIs(where.behind_proxy, place.startswith("haproxy:"))
