"""
Who may connect, and how many at once.
"""

from __future__ import annotations

import gc
from errno import ECONNRESET
from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sockproto.echo import EchoFactory
from sockproto.errors import SettingError
from sockproto.peers import Networks
from sockproto.policies.admission import PARTING_SECONDS, Admission, Gate
from sockproto.reporting import Occasional
from sockproto.rolls import Roll
from sockproto.testing import MemoryTransport, WrapperContract, connect
from sockproto.wrapping import FactoryWrapper, enrolled
from tests.contracts import (
    LogLines,
    Peer,
    directory,
    forgive_twisted_certificates,
    join,
    serve_tcp,
    turns_until,
)
from tests.policies.certificates import certificate_for_localhost

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.python.failure import Failure

LAST_WORDS = "Zu viele.\n"

PEERS = ["1", "2", "::1", "::2:0:0:0:0", "u"]
"""Short names for two IPv4 peers, two IPv6 ones and those on unix sockets."""


def address(host: str) -> Any:
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("TCP", host, 50123)


def come(gate: Gate, peer: Any) -> None:
    for each in gate.attendants(peer):
        each.made(None)


def go(gate: Gate, peer: Any) -> None:
    for each in gate.attendants(peer):
        each.lost(None)


class Told(Protocol):
    """
    Remembers that it was there.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.made = False
        self.lost = False

    def connectionMade(self) -> None:
        self.made = True

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class AdmissionContractTests(WrapperContract, SynchronousTestCase):
    """Who is admitted finds all as without it."""

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        gate = Gate(
            self.clock, most=10, most_per_peer=10, allow="192.0.0.0/8", deny="::/0"
        )
        return Admission(inner, gate, clock=self.clock, last_words=LAST_WORDS)


class _GateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LogLines(self)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])


class GateTests(_GateTests):
    """What one gate says."""

    def test_most(self) -> None:
        """So many may be there at once, in all; who goes makes room."""
        gate = Gate(self.clock, most=2)
        for number in range(2):
            self.assertIsNone(gate.refusal(address(f"192.0.2.{number}")))
            come(gate, address(f"192.0.2.{number}"))
        self.assertEqual(gate.refusal(address("192.0.2.9")), "most")
        self.assertEqual(gate.refusal(UNIXAddress(None)), "most")
        go(gate, address("192.0.2.0"))
        self.assertIsNone(gate.refusal(UNIXAddress(None)))
        self.assertEqual(gate.connected, 1)
        self.assertEqual(gate.refused, {"most": 2})

    def test_most_per_peer(self) -> None:
        """So many of one peer may be there at once, and as many of another."""
        gate = Gate(self.clock, most_per_peer=2)
        for host in ("192.0.2.1", "192.0.2.2"):
            for _ in range(2):
                self.assertIsNone(gate.refusal(address(host)))
                come(gate, address(host))
            self.assertEqual(gate.refusal(address(host)), "most per peer")
        go(gate, address("192.0.2.1"))
        self.assertIsNone(gate.refusal(address("192.0.2.1")))
        self.assertEqual(gate.refusal(address("192.0.2.2")), "most per peer")
        self.assertEqual(gate.connected, 3)

    def test_peers_of_ipv6(self) -> None:
        """The addresses of an IPv6 /64 are one peer; mapped ones are IPv4's."""
        gate = Gate(self.clock, most_per_peer=1)
        come(gate, address("2001:db8::1"))
        come(gate, address("::ffff:192.0.2.1"))
        for host, expected in (
            ("2001:db8::1", "most per peer"),
            ("2001:db8::ffff:1:2", "most per peer"),
            ("2001:db8:0:1::1", None),
            ("192.0.2.1", "most per peer"),
            ("::ffff:192.0.2.1", "most per peer"),
            ("192.0.2.2", None),
            ("::ffff:192.0.2.2", None),
        ):
            self.assertEqual(gate.refusal(address(host)), expected, host)

    def test_without_an_address(self) -> None:
        """Peers on unix sockets, and those without an address, count in all alone."""
        gate = Gate(self.clock, most=10, most_per_peer=1)
        for unix in (UNIXAddress(None), UNIXAddress("/tmp/socket"), None):
            for _ in range(3):
                self.assertIsNone(gate.refusal(unix))
                come(gate, unix)
        self.assertEqual(gate.connected, 9)
        for unix in (UNIXAddress(None), UNIXAddress("/tmp/socket"), None):
            for _ in range(3):
                go(gate, unix)
        self.assertEqual(gate.connected, 0)

    def test_networks(self) -> None:
        """Who is denied may not come, even if allowed; who is not allowed, neither."""
        for allow, deny, expected in (
            ((), (), (None, None, None, None)),
            ("192.0.2.0/24", (), (None, None, "not allowed", "not allowed")),
            ((), "192.0.2.1", ("denied", None, None, None)),
            (
                ["192.0.2.0/24", "unix"],
                "192.0.2.1",
                ("denied", None, "not allowed", None),
            ),
            ("0.0.0.0/0,::/0", "unix", (None, None, None, "denied")),
            (
                Networks("allow", "2001:db8::/32"),
                Networks("deny", ()),
                ("not allowed", "not allowed", None, "not allowed"),
            ),
        ):
            gate = Gate(self.clock, allow=allow, deny=deny)
            peers = [
                address("192.0.2.1"),
                address("::ffff:192.0.2.2"),
                address("2001:db8::1"),
                UNIXAddress("/run/client"),
            ]
            seen = tuple(gate.refusal(peer) for peer in peers)
            self.assertEqual(seen, expected, (allow, deny))

    def test_networks_set_later(self) -> None:
        """A gate that had no networks minds those that it is given."""
        for name, seen in (("deny", "denied"), ("allow", "not allowed")):
            gate = Gate(self.clock)
            self.assertIsNone(gate.refusal(address("10.0.0.1")))
            network = "10.0.0.0/8" if name == "deny" else "192.0.2.0/24"
            setattr(gate, name, Networks(name, network))
            self.assertEqual(gate.refusal(address("10.0.0.1")), seen)

    def test_reasons_in_order(self) -> None:
        """Networks are asked before numbers, and denied ones first."""
        peer = address("192.0.2.1")
        gate = Gate(
            self.clock, most=1, most_per_peer=1, allow="::/0", deny="192.0.2.0/24"
        )
        come(gate, peer)
        self.assertEqual(gate.refusal(peer), "denied")
        gate.deny = Networks("deny")
        self.assertEqual(gate.refusal(peer), "not allowed")
        gate.allow = Networks("allow")
        self.assertEqual(gate.refusal(peer), "most")
        gate.most = None
        self.assertEqual(gate.refusal(peer), "most per peer")
        self.assertEqual(
            gate.refused,
            {"denied": 1, "not allowed": 1, "most": 1, "most per peer": 1},
        )

    def test_wrong_settings(self) -> None:
        """What is no number from 1 up, or no network, is refused by its name."""
        for name, wrong in (
            ("most", 0),
            ("most", -1),
            ("most", 1.5),
            ("most", True),
            ("most", ""),
            ("most_per_peer", 0),
            ("most_per_peer", False),
            ("most_per_peer", "2"),
            ("allow", "everybody"),
            ("deny", "192.0.2.1/24"),
        ):
            settings: Any = {name: wrong}
            with self.assertRaises(SettingError) as raised:
                Gate(self.clock, **settings)
            self.assertIn(name, str(raised.exception))

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(PEERS))))
    def test_counts(self, steps: list[tuple[bool, str]]) -> None:
        """It counts as a list of who is there would, and forgets who is not."""
        clock = Clock()
        gate = Gate(clock, most=6, most_per_peer=3)
        there: list[str] = []
        for comes, who in steps:
            known = {"u": UNIXAddress(None), "1": address("192.0.2.1")}
            peer = known.get(who) or address(who if ":" in who else "192.0.2.2")
            if not comes:
                if who in there:
                    there.remove(who)
                    go(gate, peer)
                continue
            if len(there) >= 6:
                expected = "most"
            elif who != "u" and there.count(who) >= 3:
                expected = "most per peer"
            else:
                expected = None
            self.assertEqual(gate.refusal(peer), expected)
            if expected is None:
                come(gate, peer)
                there.append(who)
            self.assertEqual(gate.connected, len(there))
        groups = {each for each in there if each != "u"}
        self.assertEqual(len(gate.of_peer), len(groups))


class LogTests(_GateTests):
    """What is logged of refusals."""

    def refuse(self, gate: Gate, times: int, host: str = "192.0.2.1") -> None:
        for _ in range(times):
            gate.refusal(address(host))

    def test_at_once_and_then_now_and_then(self) -> None:
        """The first refusal is told at once, then how many, at most every 10 s."""
        gate = Gate(self.clock, most=1)
        come(gate, address("192.0.2.1"))
        self.refuse(gate, 1000)
        words = "above 1 in all (--max-connections)."
        self.assertEqual(self.log.lines, [f"Refused 1 connection {words}"])
        self.clock.advance(9.9)
        self.refuse(gate, 1)
        self.assertEqual(len(self.log.lines), 1)
        self.clock.advance(0.1)
        self.refuse(gate, 1)
        self.assertEqual(self.log.lines[1:], [f"Refused 1001 connections {words}"])

    def test_reasons(self) -> None:
        """Each reason is told, with its number and its option."""
        gate = Gate(self.clock, most_per_peer=2, allow="192.0.2.0/24", deny="192.0.2.9")
        for _ in range(2):
            come(gate, address("192.0.2.1"))
        self.refuse(gate, 1, "192.0.2.9")
        self.refuse(gate, 2, "192.0.2.9")
        self.refuse(gate, 3, "::1")
        self.refuse(gate, 4)
        gate.open()
        gate.close()
        self.assertEqual(
            self.log.lines[1],
            "Refused 2 connections from networks that are denied (--deny),"
            " 3 connections from networks that are not allowed (--allow),"
            " 4 connections above 2 of one peer (--max-per-peer).",
        )

    def test_last_place(self) -> None:
        """What was not told yet is told with the last place, once."""
        gate = Gate(self.clock, deny="192.0.2.1")
        gate.open()
        gate.open()
        self.refuse(gate, 3)
        gate.close()
        self.assertEqual(len(self.log.lines), 1)
        gate.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.log.lines), 2)
        self.assertIn("Refused 2 ", self.log.lines[1])
        self.assertEqual(gate.refused["denied"], 3)

    def test_what_is_left(self) -> None:
        """While a place listens, what is left is told ten seconds later."""
        gate = Gate(self.clock, deny="192.0.2.1")
        admission = Admission(Factory(), gate, clock=self.clock)
        admission.doStart()
        self.refuse(gate, 3)
        self.assertEqual(len(self.log.lines), 1)
        self.clock.advance(10)
        self.assertEqual(len(self.log.lines), 2)
        self.assertIn("Refused 2 ", self.log.lines[1])
        self.clock.advance(100)
        self.assertEqual(len(self.log.lines), 2)
        admission.doStop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silent(self) -> None:
        """Who wants no log has the numbers alone."""
        gate = Gate(self.clock, deny="192.0.2.1", log="none")
        self.refuse(gate, 3)
        self.assertEqual(gate.refused["denied"], 3)
        self.assertEqual(self.log.lines, [])

    def test_flood(self) -> None:
        """A flood of a minute is a few lines."""
        gate = Gate(self.clock, deny="192.0.2.1")
        for _ in range(60 * 64):
            self.clock.advance(1 / 64)
            self.refuse(gate, 10)
        self.assertLessEqual(len(self.log.lines), 60 / Occasional.SECONDS + 1)


class AdmissionTests(_GateTests):
    """A factory with gates before it."""

    def setUp(self) -> None:
        super().setUp()
        self.made: list[Told] = []

    def build(self) -> Told:
        self.made.append(Told())
        return self.made[-1]

    def admission(self, *gates: Gate, **settings: Any) -> Admission:
        return self.around(Factory.forProtocol(self.build), *gates, **settings)

    def around(
        self, factory: IProtocolFactory, *gates: Gate, **settings: Any
    ) -> Admission:
        return Admission(factory, *gates, clock=self.clock, **settings)

    def test_admitted_and_refused(self) -> None:
        """Who may come meets the inner protocol; of others it never hears."""
        gate = Gate(self.clock, most=1)
        admission = self.admission(gate)
        _, first = connect(admission, self.clock)
        _, second = connect(admission, self.clock)
        second.deliver(b"data")
        self.clock.advance(0)
        self.assertEqual(len(self.made), 1)
        self.assertTrue(second.aborted)
        self.assertEqual(second.taken, b"")
        first.deliver(b"data")
        self.assertEqual(self.made[0].received, b"data")
        self.assertEqual((gate.connected, gate.refused), (1, {"most": 1}))
        first.lose()
        self.assertEqual(gate.connected, 0)
        _, third = connect(admission, self.clock)
        self.assertTrue(self.made[1].made)
        third.lose()

    def test_without_gates(self) -> None:
        """Without gates everybody may come."""
        _, transport = connect(self.admission(), self.clock)
        self.assertTrue(self.made[0].made)
        transport.lose()

    def test_each_gate_has_to_admit(self) -> None:
        """Each gate has to admit; who is refused by one is counted by none as there."""
        gates = [
            Gate(self.clock, most=5),
            Gate(self.clock, most_per_peer=1),
            Gate(self.clock, deny="::/0"),
        ]
        admission = self.admission(*gates)
        outer: Any = admission.buildProtocol(address("192.0.2.1"))
        transport = MemoryTransport(self.clock)
        transport.connect(outer)
        for host, refused in (
            ("192.0.2.1", [{}, {"most per peer": 1}, {}]),
            ("2001:db8::1", [{}, {"most per peer": 1}, {"denied": 1}]),
        ):
            refusing: Any = admission.buildProtocol(address(host))
            other = MemoryTransport(self.clock)
            other.connect(refusing)
            self.clock.advance(0)
            self.assertTrue(other.aborted)
            self.assertEqual([gate.refused for gate in gates], refused)
            self.assertEqual([gate.connected for gate in gates], [1, 1, 1])
        transport.lose()
        self.assertEqual([gate.connected for gate in gates], [0, 0, 0])

    def test_shared_gate(self) -> None:
        """Factories that share a gate are counted together."""
        gate = Gate(self.clock, most=2)
        ends = [connect(self.admission(gate), self.clock)[1] for _ in range(3)]
        self.clock.advance(0)
        self.assertEqual([end.aborted for end in ends], [False, False, True])
        for end in ends:
            end.lose()
        self.assertEqual(gate.connected, 0)

    def test_refused_by_the_inner_factory(self) -> None:
        """Who is refused by the inner factory is refused, and not there."""
        gate = Gate(self.clock, most=1, most_per_peer=1)

        class Unwilling(Factory):
            def buildProtocol(self, addr: object) -> None:
                return None

        admission = self.around(Unwilling(), gate)
        for _ in range(3):
            self.assertIsNone(admission.buildProtocol(address("192.0.2.1")))
        self.assertEqual((gate.connected, gate.refused), (0, {}))

    def test_lost_as_it_is_made(self) -> None:
        """Who closes or aborts in its first moment is no longer there."""
        gate = Gate(self.clock, most=1, most_per_peer=1)

        class Unwilling(Protocol):
            transport: Any
            ending = "abortConnection"

            def connectionMade(self) -> None:
                getattr(self.transport, self.ending)()

        admission = self.around(Factory.forProtocol(Unwilling), gate)
        for ending in ("abortConnection", "loseConnection"):
            Unwilling.ending = ending
            _, transport = connect(admission, self.clock)
            self.clock.advance(0)
            self.assertEqual((transport.connected, gate.connected), (0, 0))
        self.assertEqual(gate.refused, {})

    def test_lost_within_being_made(self) -> None:
        """So it does where the loss is told before `connectionMade` returns."""
        gate = Gate(self.clock, most=1, most_per_peer=1)
        transport = MemoryTransport(self.clock)
        told = Told()
        told.connectionMade = transport.lose  # type: ignore[method-assign]
        factory = Factory.forProtocol(lambda: told)
        admission = self.around(factory, gate)
        outer: Any = admission.buildProtocol(transport.getPeer())
        transport.connect(outer)
        self.assertTrue(told.lost)
        self.assertEqual(gate.connected, 0)
        self.assertIsNone(gate.refusal(transport.getPeer()))

    free_when_told = True

    def test_room_is_there_when_the_loss_is_told(self) -> None:
        """When a protocol is told that it is lost, its place is free; or just after."""
        gate = Gate(self.clock, most=1)
        admission = self.admission(gate)
        _, transport = connect(admission, self.clock)
        seen: list[int] = []
        self.made[0].connectionLost = (  # type: ignore[method-assign]
            lambda reason=connectionDone: seen.append(gate.connected)
        )
        transport.lose()
        self.assertEqual(seen, [0 if self.free_when_told else 1])
        self.assertEqual(gate.connected, 0)

    def test_one_that_raises(self) -> None:
        """A protocol that raises when it is lost takes no place for ever."""
        gate = Gate(self.clock, most=1)
        admission = self.admission(gate)
        _, transport = connect(admission, self.clock)

        def fail(reason: object) -> None:
            raise ZeroDivisionError

        self.made[0].connectionLost = fail  # type: ignore[assignment]
        with self.assertRaises(ZeroDivisionError):
            transport.lose()
        self.assertEqual(gate.connected, 0)

    def test_last_words(self) -> None:
        """Who is refused hears why, then end of file; its input is not its loss."""
        admission = self.admission(
            Gate(self.clock, deny="0.0.0.0/0"), last_words="No\n"
        )
        _, transport = connect(admission, self.clock)
        transport.deliver(b"x" * 10_000)
        self.assertEqual(transport.take(), b"No\n")
        self.clock.advance(0)
        self.assertTrue(transport.output_ended)
        self.assertFalse(transport.aborted)
        self.assertEqual(transport.connected, 1)
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual(transport.connected, 0)
        self.assertEqual(self.made, [])

    def test_last_words_to_one_that_closes(self) -> None:
        """Who has heard enough, or has gone, is not listened to any longer."""
        gate = Gate(self.clock, deny="0.0.0.0/0")
        admission = self.admission(gate, last_words=b"No\n")
        for before in (True, False):
            _, transport = connect(admission, self.clock)
            if before:
                transport.end_input()
            self.assertEqual(transport.take(), b"No\n")
            self.clock.advance(0)
            if not before:
                transport.end_input()
                self.clock.advance(0)
            self.assertEqual(transport.connected, 0)
            self.assertEqual(self.clock.getDelayedCalls(), [])
        _, transport = connect(admission, self.clock)
        transport.lose()

    def test_last_words_to_one_that_talks(self) -> None:
        """Who talks on and on is cut off after 65,536 bytes and the last words."""
        gate = Gate(self.clock, deny="0.0.0.0/0")
        _, transport = connect(self.admission(gate, last_words="No\n"), self.clock)
        transport.take()
        self.clock.advance(0)
        transport.deliver(b"x" * 200_000)
        self.clock.advance(0)
        self.assertEqual(transport.connected, 0)

    def test_last_words_unheard(self) -> None:
        """Who does not take them is reset after some seconds."""
        admission = self.admission(
            Gate(self.clock, deny="0.0.0.0/0"), last_words="No\n"
        )
        _, transport = connect(admission, self.clock)
        self.assertEqual(admission.parting, 1)
        self.clock.advance(PARTING_SECONDS - 0.1)
        self.assertFalse(transport.aborted)
        self.clock.advance(0.1)
        self.clock.advance(0)
        self.assertTrue(transport.aborted)
        self.assertEqual(admission.parting, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_last_words_as_text(self) -> None:
        """Last words may be bytes or a text, which is sent as UTF-8; nothing else."""
        for words, expected in (("Grüße", "Grüße".encode()), (b"\xff", b"\xff")):
            self.assertEqual(self.admission(last_words=words).last_words, expected)
        for wrong in (None, 5):
            with self.assertRaises(SettingError):
                self.admission(last_words=wrong)

    def test_refusals_leave_nothing(self) -> None:
        """A thousand refusals leave no call, no count and no protocol behind."""
        gate = Gate(self.clock, most=1, most_per_peer=1)
        admission = self.admission(gate, last_words="No\n")
        _, there = connect(admission, self.clock)
        for _ in range(1000):
            _, transport = connect(admission, self.clock)
            transport.lose()
        self.assertEqual(len(self.made), 1)
        self.assertEqual((gate.connected, gate.refused.total()), (1, 1000))
        self.assertEqual(len(self.log.lines), 1)
        there.lose()


class Enrolling(FactoryWrapper[Any]):
    """
    Enters all that it builds in a roll.
    """

    def __init__(self, inner: IProtocolFactory) -> None:
        super().__init__(inner)
        self.roll = Roll()

    def wrap(self, inner: IProtocol) -> Any:
        return enrolled(inner, self.roll)


class OnRollTests(AdmissionTests):
    """The same, of one that counts who is on a roll."""

    free_when_told = False

    def around(
        self, factory: IProtocolFactory, *gates: Gate, **settings: Any
    ) -> Admission:
        enrolling = Enrolling(factory)
        self.roll = enrolling.roll
        return Admission(
            enrolling, *gates, clock=self.clock, roll=self.roll, **settings
        )

    def test_told_of_none(self) -> None:
        """It is told of a connection only where those of a peer are counted."""
        gate = Gate(self.clock, most=10)
        admission = self.admission(gate)
        _, first = connect(admission, self.clock)
        gate.most_per_peer = 5
        _, second = connect(admission, self.clock)
        told = sorted(len(each.attendants) for each in self.roll)
        self.assertEqual(told, [0, 1])
        self.assertEqual((gate.connected, gate.of_peer.total()), (2, 1))
        first.lose()
        second.lose()
        self.assertEqual((gate.connected, gate.of_peer.total()), (0, 0))

    def test_counted_once(self) -> None:
        """Two that share a gate and what is in them count a connection once."""
        gate = Gate(self.clock, most=2)
        enrolling = Enrolling(Factory.forProtocol(self.build))
        roll = enrolling.roll
        two = [
            Admission(enrolling, gate, clock=self.clock, roll=roll) for _ in range(2)
        ]
        there = [connect(each, self.clock)[1] for each in two]
        self.assertFalse(any(each.aborted for each in there))
        self.assertEqual(gate.connected, 2)
        for transport in there:
            transport.lose()

    def test_forgotten(self) -> None:
        """A roll that nobody has any more is not asked."""
        gate = Gate(self.clock)
        for _ in range(5):
            self.admission(gate)
        gc.collect()
        self.assertEqual(len(list(gate._rolls)), 1)
        del self.roll
        gc.collect()
        self.assertEqual(len(list(gate._rolls)), 0)

    def test_wrong_roll(self) -> None:
        """What is no roll is refused."""
        with self.assertRaises(SettingError):
            Admission(Factory(), clock=self.clock, roll=set())  # type: ignore[arg-type]

    def test_beside_others(self) -> None:
        """Who is on a roll and who is on none count together."""
        gate = Gate(self.clock, most=3)
        factory = Factory.forProtocol(self.build)
        told = Admission(factory, gate, clock=self.clock)
        mine = [self.admission(gate) for _ in range(2)]
        there = [connect(each, self.clock)[1] for each in (told, *mine)]
        self.assertEqual(gate.connected, 3)
        for each in (told, *mine):
            _, refused = connect(each, self.clock)
            self.clock.advance(0)
            self.assertTrue(refused.aborted)
        for transport in there:
            transport.lose()
        self.assertEqual((gate.connected, gate.refused), (0, {"most": 3}))


class OverSocketsTests(TestCase):
    """Refusals over real sockets."""

    timeout = 20

    async def serve(self, kind: str = "tcp", **settings: Any) -> Any:
        """Listen with room for one; return where to connect."""
        from twisted.internet import reactor
        from twisted.internet.ssl import CertificateOptions

        clock: Any = reactor
        self.gate = Gate(clock, most=1)
        echo = EchoFactory(clock, log="none")
        admission = Admission(echo, self.gate, clock=clock, **settings)
        if kind == "unix":
            path = str(directory(self) / "socket")
            port: Any = await UNIXServerEndpoint(reactor, path).listen(admission)
            self.addCleanup(port.stopListening)
            return UNIXClientEndpoint(reactor, path)
        if kind == "tls":
            forgive_twisted_certificates(self)
            server = SSL4ServerEndpoint(
                reactor, 0, certificate_for_localhost(), interface="127.0.0.1"
            )
            port = await server.listen(admission)
            self.addCleanup(port.stopListening)
            number = port.getHost().port
            return SSL4ClientEndpoint(
                reactor, "127.0.0.1", number, CertificateOptions()
            )
        port = await serve_tcp(self, admission)
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)

    async def join(self, endpoint: Any) -> Peer:
        peer = await join(endpoint)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.leave(peer)))
        return peer

    async def leave(self, peer: Peer) -> None:
        if peer.lost is None:
            peer.transport.abortConnection()
        await peer.gone()

    async def fill(self, endpoint: Any) -> Peer:
        """Connect the one for whom there is room."""
        peer = await self.join(endpoint)
        peer.send(b"echo")
        self.assertEqual(await peer.take(4), b"echo")
        return peer

    async def make_room(self, peer: Peer, endpoint: Any) -> None:
        """Check that another is served when the one there has gone."""
        await self.leave(peer)
        await turns_until(lambda: self.gate.connected == 0)
        await self.leave(await self.fill(endpoint))
        await turns_until(lambda: self.gate.connected == 0)

    async def test_reset(self) -> None:
        """A refused peer gets a reset."""
        endpoint = await self.serve()
        there = await self.fill(endpoint)
        for data in (b"", b"data"):
            refused = await self.join(endpoint)
            refused.send(data)
            reason = await refused.gone()
            self.assertTrue(reason.check(ConnectionLost), reason)
            self.assertEqual(getattr(reason.value, "osError", ECONNRESET), ECONNRESET)
            self.assertEqual(refused.received, b"")
        self.assertEqual(self.gate.refused, {"most": 2})
        await self.make_room(there, endpoint)

    async def test_refused_elsewhere(self) -> None:
        """On unix sockets and over TLS a refused peer is cut off, too."""
        for kind in ("unix", "tls"):
            endpoint = await self.serve(kind)
            there = await self.fill(endpoint)
            refused = await self.join(endpoint)
            refused.send(b"data")
            await refused.gone()
            self.assertEqual(refused.received, b"")
            self.assertEqual(self.gate.refused, {"most": 1})
            await self.make_room(there, endpoint)

    async def test_last_words(self) -> None:
        """Or it hears why, and then comes end of file; wherever it is."""
        for kind in ("tcp", "unix", "tls"):
            endpoint = await self.serve(kind, last_words=LAST_WORDS)
            there = await self.fill(endpoint)
            refused = await self.join(endpoint)
            self.assertEqual(await refused.take_all(), LAST_WORDS.encode())
            refused.transport.loseConnection()
            self.assertTrue((await refused.gone()).check(ConnectionDone), kind)
            self.assertEqual(self.gate.refused, {"most": 1})
            await self.make_room(there, endpoint)

    async def test_last_words_are_not_lost(self) -> None:
        """They reach also one that has sent something that nobody reads."""
        for kind in ("tcp", "unix", "tls"):
            endpoint = await self.serve(kind, last_words=LAST_WORDS)
            there = await self.fill(endpoint)
            refused = await self.join(endpoint)
            refused.transport.pauseProducing()
            refused.send(b"x" * 50_000)
            await turns_until(lambda: self.gate.refused)
            for _ in range(100):
                await turns_until(lambda: True)
            refused.transport.resumeProducing()
            self.assertEqual(await refused.take_all(), LAST_WORDS.encode(), kind)
            await self.leave(refused)
            await self.make_room(there, endpoint)
