"""
A deadline for those who take nothing of what they are owed.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sockproto.echo import EchoFactory
from sockproto.errors import SettingError
from sockproto.policies.stalled import LOOKS, StalledTimeout
from sockproto.testing import MemoryTransport, WrapperContract, connect
from sockproto.transports import innermost, taken_so_far, unsent
from tests.contracts import (
    KERNEL_BUFFER,
    LogLines,
    Peer,
    directory,
    forgive_twisted_certificates,
    join,
    turns_until,
)
from tests.policies.certificates import over_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
    from twisted.python.failure import Failure

PERIOD = 32.0
LOOK = PERIOD / LOOKS
TICK = 1 / 8
"""Seconds; floats add it up exactly."""

MUCH = 1 << 20


class Talker(Protocol):
    """
    Writes what the test says, whether or not it is taken.
    """

    transport: Any

    def __init__(self, begin: Callable[[Talker], object] | None = None) -> None:
        self.begin = begin
        self.reasons: list[Failure] = []

    def connectionMade(self) -> None:
        if self.begin is not None:
            self.begin(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason)


class StalledTimeoutContractTests(WrapperContract, SynchronousTestCase):
    """It passes on all that it does not change."""

    def wrap(self, inner: IProtocolFactory) -> StalledTimeout:
        return StalledTimeout(inner, seconds=PERIOD, clock=self.clock)


class StalledTimeoutTests(SynchronousTestCase):
    """Peers that take little, or nothing."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(
        self, inner: Protocol | Factory
    ) -> tuple[StalledTimeout, MemoryTransport]:
        made = inner
        factory: Any = (
            Factory.forProtocol(lambda: made) if isinstance(made, Protocol) else made
        )
        policy = StalledTimeout(factory, seconds=PERIOD, clock=self.clock)
        _, transport = connect(policy, self.clock)
        return policy, transport

    def pass_time(
        self, seconds: float, each_tick: Callable[[], object] = bool
    ) -> float:
        """Let time pass in small steps; return when it was over, if it was."""
        before = self.clock.seconds()
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)
            self.clock.advance(0)
            each_tick()
            if not self.clock.getDelayedCalls():
                break
        return self.clock.seconds() - before

    def assert_over(self, *talkers: Talker) -> None:
        """Each was told once that it is lost, and no delayed call is left."""
        for talker in talkers:
            self.assertEqual(len(talker.reasons), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_takes_nothing(self) -> None:
        """Who takes nothing is reset, and that is one line in the log."""
        lines = LogLines(self)
        talker = Talker(lambda talker: talker.transport.write(b"x" * MUCH))
        policy, transport = self.connect(talker)
        self.pass_time(PERIOD - TICK)
        self.assertFalse(transport.aborted)
        self.pass_time(LOOK + TICK)
        self.assertTrue(transport.aborted)
        self.assertEqual(talker.reasons[0].type, ConnectionAborted)
        self.assertEqual(policy.ended, 1)
        self.assertEqual(
            lines.lines,
            ["Closing the connection from 192.0.2.2:50123: it took nothing for 32 s."],
        )
        self.assert_over(talker)

    @given(
        gaps=st.lists(st.integers(1, int(PERIOD / TICK) - 1), max_size=8),
        size=st.sampled_from([1, 1000, 70_000]),
        keeps_writing=st.booleans(),
    )
    def test_last_taken(
        self, gaps: list[int], size: int, *, keeps_writing: bool
    ) -> None:
        """
        It is reset between one and 1.25 periods after it last took something, and
        no writing of ours changes that.
        """
        self.clock = Clock()
        talker = Talker(lambda talker: talker.transport.write(b"x" * MUCH))
        _, transport = self.connect(talker)

        def write() -> None:
            if keeps_writing:
                talker.transport.write(b"more")
                talker.transport.writeSequence([b"and", b"more"])

        for gap in gaps:
            self.pass_time(gap * TICK, write)
            self.assertEqual(transport.take(size), b"x" * size)
        took = self.pass_time(2 * PERIOD, write)
        self.assertGreaterEqual(took, PERIOD)
        self.assertLessEqual(took, PERIOD + LOOK)
        self.assertTrue(transport.aborted)
        self.assert_over(talker)

    def test_takes_a_little(self) -> None:
        """Who takes a byte now and then is never reset."""
        talker = Talker(lambda talker: talker.transport.write(b"x" * MUCH))
        policy, transport = self.connect(talker)
        for _ in range(50):
            self.pass_time(PERIOD - TICK)
            self.assertEqual(len(transport.take(1)), 1)
        self.assertEqual((policy.ended, talker.reasons), (0, []))
        transport.lose()
        self.assert_over(talker)

    def test_same_bytes(self) -> None:
        """Who takes as much as is written meanwhile is taking, all the same."""
        talker = Talker(lambda talker: talker.transport.write(b"x" * 1000))
        policy, transport = self.connect(talker)
        for _ in range(50):
            self.pass_time(LOOK)
            talker.transport.write(b"x" * 100)
            transport.take(100)
            self.assertEqual(transport.unsent, 1000)
        self.assertEqual((policy.ended, talker.reasons), (0, []))
        transport.lose()
        self.assert_over(talker)

    def test_is_owed_nothing(self) -> None:
        """Who is owed nothing may be silent for as long as it likes."""
        talker = Talker(lambda talker: talker.transport.write(b"hello"))
        policy, transport = self.connect(talker)
        transport.take()
        self.pass_time(10 * PERIOD)
        self.assertEqual((policy.ended, talker.reasons), (0, []))
        transport.lose()
        self.assert_over(talker)

    def test_each_debt_has_its_period(self) -> None:
        """What was owed and taken before does not shorten the next period."""
        talker = Talker()
        _, transport = self.connect(talker)
        for _ in range(3):
            talker.transport.write(b"hello")
            self.pass_time(PERIOD - TICK)
            self.assertEqual(transport.take(), b"hello")
            self.pass_time(LOOK)
        talker.transport.write(b"hello")
        self.assertGreaterEqual(self.pass_time(2 * PERIOD), PERIOD)
        self.assert_over(talker)

    def test_takes_all_each_time(self) -> None:
        """Who takes all, and is owed something new whenever we look, is taking."""
        talker = Talker()
        policy, transport = self.connect(talker)
        for _ in range(50):
            talker.transport.write(b"hello")
            self.pass_time(LOOK)
            self.assertEqual(transport.take(), b"hello")
        self.assertEqual((policy.ended, talker.reasons), (0, []))
        transport.lose()
        self.assert_over(talker)

    def test_after_our_close(self) -> None:
        """After our own end, too: who takes nothing does not stay for ever."""
        lines = LogLines(self)
        policy, transport = self.connect(EchoFactory(self.clock))
        transport.deliver(b"x" * 50_000)
        outer: Any = transport.protocol
        outer.finish("the service stops")
        self.pass_time(PERIOD + LOOK)
        self.assertTrue(transport.aborted)
        self.assertEqual(policy.ended, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("it took nothing for 32 s)", lines.lines[-1])

    def test_after_their_end(self) -> None:
        """After the peer's end, too, which does not read what it asked for."""
        _, transport = self.connect(EchoFactory(self.clock))
        transport.deliver(b"x" * 50_000)
        transport.end_input()
        self.pass_time(PERIOD + LOOK)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_close_of_a_plain_protocol(self) -> None:
        """After any protocol's `loseConnection` or `loseWriteConnection`, too."""
        for end in ("loseConnection", "loseWriteConnection"):
            talker = Talker(lambda talker: talker.transport.write(b"x" * MUCH))
            _, transport = self.connect(talker)
            getattr(talker.transport, end)()
            self.pass_time(PERIOD + LOOK)
            self.assertTrue(transport.aborted)
            self.assert_over(talker)

    def test_slow_end(self) -> None:
        """Who takes the last words slowly gets all of them, and end of file."""
        talker = Talker(lambda talker: talker.transport.write(b"x" * 1000))
        _, transport = self.connect(talker)
        talker.transport.loseConnection()
        for _ in range(10):
            self.pass_time(PERIOD - TICK)
            transport.take(100)
        self.pass_time(TICK)
        self.assertEqual(talker.reasons[0].type, ConnectionDone)
        self.assertEqual(len(transport.taken), 1000)
        self.assert_over(talker)

    # The clock

    def test_clock_set_forward(self) -> None:
        """A clock that jumps, as after a machine's sleep, is not the peer's fault."""
        talker = Talker(lambda talker: talker.transport.write(b"x" * MUCH))
        _, transport = self.connect(talker)
        self.pass_time(LOOK)
        self.clock.advance(100 * PERIOD)
        self.assertFalse(transport.aborted)
        self.pass_time(PERIOD)
        self.assert_over(talker)

    def test_clock_set_back(self) -> None:
        """A clock that is set back resets nobody early, and nobody stays for ever."""
        self.clock.advance(1000)
        talker = Talker(lambda talker: talker.transport.write(b"x" * MUCH))
        _, transport = self.connect(talker)
        self.pass_time(PERIOD / 2)
        self.clock.rightNow -= 100
        self.pass_time(100 + PERIOD / 2 - TICK)
        self.assertFalse(transport.aborted)
        self.pass_time(LOOK + TICK)
        self.assert_over(talker)

    # Nothing is left on the clock

    def test_lost(self) -> None:
        """A connection that is lost is watched no more."""
        talker = Talker(lambda talker: talker.transport.write(b"x" * MUCH))
        policy, transport = self.connect(talker)
        self.pass_time(PERIOD / 2)
        transport.lose(ConnectionLost())
        self.assert_over(talker)
        self.assertEqual(policy.ended, 0)

    def test_lost_in_the_beginning(self) -> None:
        """A protocol that does not want its connection is watched no more."""
        for end in ("loseConnection", "abortConnection"):
            talker = Talker(lambda talker: getattr(talker.transport, end)())  # noqa: B023
            self.connect(talker)
            self.clock.advance(0)
            self.assert_over(talker)

    def test_other_transports(self) -> None:
        """A transport that does not tell what it holds is taken to hold nothing."""
        talker = Talker(lambda talker: talker.transport.write(b"x" * MUCH))
        policy = StalledTimeout(
            Factory.forProtocol(lambda: talker), seconds=PERIOD, clock=self.clock
        )
        transport = StringTransport()
        outer: Any = policy.buildProtocol(None)
        outer.makeConnection(transport)
        self.pass_time(2 * PERIOD)
        self.assertEqual((policy.ended, transport.disconnecting), (0, False))
        outer.connectionLost()
        self.assert_over(talker)

    def test_settings(self) -> None:
        """A period that is none is refused by name."""
        for seen in (0, -1, float("nan"), float("inf"), "30", None, True):
            with self.assertRaises(SettingError) as caught:
                StalledTimeout(
                    Factory(),
                    seconds=seen,  # type: ignore[arg-type]
                    clock=self.clock,
                )
            self.assertEqual(caught.exception.name, "seconds")


class SocketTests(TestCase):
    """Over sockets, with a clock of the test's own."""

    timeout = 30

    async def start(
        self,
        server: IStreamServerEndpoint,
        client: Callable[[Any], Any],
        *,
        closes: bool,
    ) -> Peer:
        """Connect a peer that reads a first byte, and then nothing."""
        self.clock = Clock()
        self.talker = Talker()

        def begin(data: bytes) -> None:
            self.talker.transport.write(b"x" * 8 * MUCH)
            if closes:
                self.talker.transport.loseConnection()

        self.talker.dataReceived = begin  # type: ignore[method-assign]
        self.policy = StalledTimeout(
            Factory.forProtocol(lambda: self.talker), seconds=PERIOD, clock=self.clock
        )
        port: Any = await server.listen(self.policy)
        peer = await join(client(port.getHost()))
        await turns_until(lambda: self.talker.transport)
        await maybeDeferred(port.stopListening)
        self.low: Any = innermost(self.talker.transport)
        for end, option in ((self.low, socket.SO_SNDBUF), (peer, socket.SO_RCVBUF)):
            low: Any = end if end is self.low else innermost(peer.transport)
            low.socket.setsockopt(socket.SOL_SOCKET, option, KERNEL_BUFFER)
        peer.send(b"go")
        await peer.until(lambda: peer.received)
        peer.transport.pauseProducing()
        await turns_until(self.stuck)
        return peer

    def stuck(self) -> bool:
        """Tell whether the kernel takes no more."""
        return bool(unsent(self.low)) and not select.select([], [self.low], [], 0)[1]

    async def read_a_little(self, peer: Peer) -> None:
        """Read until the kernel takes something again, and then until it does not."""
        before = taken_so_far(self.low, 0)
        peer.transport.resumeProducing()
        await turns_until(lambda: taken_so_far(self.low, 0) != before)
        peer.transport.pauseProducing()
        await turns_until(self.stuck)

    async def check(
        self, server: IStreamServerEndpoint, client: Callable[[Any], Any]
    ) -> None:
        for closes in (False, True):
            peer = await self.start(server, client, closes=closes)
            for _ in range(5):
                self.clock.pump([LOOK] * (LOOKS - 1))
                await self.read_a_little(peer)
            self.assertEqual(self.policy.ended, 0)
            self.clock.pump([LOOK] * LOOKS)
            self.assertEqual(self.policy.ended, 0)
            self.clock.advance(LOOK)
            self.assertEqual(self.policy.ended, 1)
            await turns_until(lambda: self.talker.reasons)
            self.assertTrue(
                # Twisted's TLS complains first of the farewell that is missing.
                self.talker.reasons[0].check(ConnectionAborted, ConnectionLost)
            )
            self.assertEqual(self.clock.getDelayedCalls(), [])
            peer.transport.resumeProducing()
            self.assertLess(len(await peer.take_all()), 8 * MUCH)
            peer.transport.loseConnection()  # a unix socket knows no reset
            await peer.gone()

    async def test_tcp(self) -> None:
        """Over TCP, who takes nothing is reset, and who takes a little is not."""
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
        """Over TLS, too, where other bytes are sent than were written."""
        forgive_twisted_certificates(self)
        await self.check(*over_tls())
