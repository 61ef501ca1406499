"""
A deadline for those who say nothing and are told nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
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
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from sockproto.closing import LINGER_SECONDS
from sockproto.echo import EchoFactory
from sockproto.errors import SettingError
from sockproto.hello import HelloFactory
from sockproto.interfaces import Debt, IOwing
from sockproto.policies.idle import IdleTimeout
from sockproto.testing import MemoryTransport, WrapperContract, connect
from tests.contracts import (
    LogLines,
    directory,
    forgive_twisted_certificates,
    join,
    turns_until,
)
from tests.policies.certificates import over_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint

PERIOD = 30.0


class Talker(Protocol):
    """
    Says and does what the test says, and notes what it is told.
    """

    transport: Any

    def __init__(self, begin: Callable[[Talker], object] | None = None) -> None:
        self.begin = begin
        self.received = b""
        self.reasons: list[Failure] = []

    def connectionMade(self) -> None:
        if self.begin is not None:
            self.begin(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason)


@implementer(IOwing)
class Debtor(Talker):
    """
    Owes what the test says; ends when it is told to, if it `obeys`.
    """

    bytes_received = 0
    bytes_sent = 0

    def __init__(self, *, obeys: bool = True) -> None:
        super().__init__()
        self.debt = Debt()
        self.obeys = obeys
        self.ends: list[str] = []

    def owed(self) -> Debt:
        return self.debt

    def finish(self, reason: str) -> None:
        self.ends.append(f"finished: {reason}")
        if self.obeys:
            self.transport.loseConnection()

    def abort(self, reason: str) -> None:
        self.ends.append(f"aborted: {reason}")
        self.transport.abortConnection()


class SuddenTransport(StringTransport):
    """
    A transport that tells of the loss while it is asked for it.
    """

    outer: Any

    def loseConnection(self) -> None:
        self.outer.connectionLost(Failure(ConnectionDone()))

    abortConnection = loseConnection


class SteppedClock:
    """
    A clock that somebody sets, of a reactor whose timers do not go by it.
    """

    def __init__(self, timers: Clock) -> None:
        self.callLater = timers.callLater
        self.timers = timers
        self.step = 0.0

    def seconds(self) -> float:
        return self.timers.seconds() + self.step


def factory_of(protocol: Protocol) -> Factory:
    return Factory.forProtocol(lambda: protocol)


class IdleTimeoutContractTests(WrapperContract, SynchronousTestCase):
    """It passes on all that it does not change."""

    def wrap(self, inner: IProtocolFactory) -> IdleTimeout:
        return IdleTimeout(inner, seconds=PERIOD, clock=self.clock)


class IdleTimeoutTests(SynchronousTestCase):
    """Connections that are silent, and others."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(
        self, inner: Protocol | Factory, clock: Any = None
    ) -> tuple[IdleTimeout, MemoryTransport]:
        factory = inner if isinstance(inner, Factory) else factory_of(inner)
        clock = clock or self.clock
        policy = IdleTimeout(factory, seconds=PERIOD, clock=clock)
        _, transport = connect(policy, self.clock)
        return policy, transport

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.clock.advance(0)  # the transport closes in the next turn

    def assert_over(self, *talkers: Talker) -> None:
        """Each was told once that it is lost, and no delayed call is left."""
        for talker in talkers:
            self.assertEqual(len(talker.reasons), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silence(self) -> None:
        """Who is silent for the whole period gets end of file, and no earlier."""
        talker = Talker()
        policy, transport = self.connect(talker)
        self.pass_time(PERIOD - 1 / 64)
        self.assertFalse(transport.output_ended)
        self.assertEqual(policy.ended, 0)
        self.pass_time(1 / 64)
        self.assertTrue(transport.output_ended)
        self.assertEqual(talker.reasons[0].type, ConnectionDone)
        self.assertEqual(policy.ended, 1)
        self.assert_over(talker)

    @given(
        events=st.lists(
            st.tuples(
                st.integers(1, int(PERIOD * 8) - 1),
                st.sampled_from(["dataReceived", "write", "writeSequence"]),
            ),
            max_size=10,
        )
    )
    def test_each_byte_starts_it_again(self, events: list[tuple[int, str]]) -> None:
        """It is cut a period after the last byte, whichever way that one went."""
        self.clock = Clock()
        talker = Talker()
        _, transport = self.connect(talker)
        for eighths, event in events:
            self.pass_time(eighths / 8)
            if event == "dataReceived":
                transport.deliver(b"x")
            else:
                data = b"x" if event == "write" else [b"x"]
                getattr(talker.transport, event)(data)
                transport.take()
        self.pass_time(PERIOD - 1 / 8)
        self.assertEqual(talker.reasons, [])
        self.pass_time(1 / 8)
        self.assert_over(talker)

    def test_seconds_that_add_up_badly(self) -> None:
        """Steps of the clock that floats cannot add up exactly make no difference."""
        talker = Talker()
        policy = IdleTimeout(factory_of(talker), seconds=0.7, clock=self.clock)
        self.clock.advance(1e9 + 0.1)
        _, transport = connect(policy, self.clock)
        self.clock.pump([0.1] * 3)
        transport.deliver(b"x")
        self.clock.pump([0.1] * 6)
        self.assertEqual(talker.reasons, [])
        self.clock.pump([0.1] * 2)
        self.assert_over(talker)

    def test_delayed_answer(self) -> None:
        """Who waits for an answer that we delay is not idle, until it has it."""
        policy, transport = self.connect(HelloFactory(self.clock, delay=100))
        transport.take()
        transport.deliver(b"Michael\n")
        for _ in range(100):
            transport.take()
            self.pass_time(1)
        transport.take()
        self.assertIn(b"Hello, Michael!\n", transport.taken)
        self.pass_time(PERIOD - 0.5)
        self.assertEqual(policy.ended, 0)
        self.pass_time(0.5)
        self.assertEqual(policy.ended, 1)
        self.assertTrue(transport.output_ended)
        self.assertFalse(transport.aborted)
        self.pass_time(LINGER_SECONDS)
        self.assertEqual(transport.connected, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reason(self) -> None:
        """The service's own line in the log says that it was idle."""
        lines = LogLines(self)
        _, transport = self.connect(HelloFactory(self.clock))
        transport.take()
        self.pass_time(PERIOD)
        transport.end_input()
        self.pass_time(0)
        self.assertEqual(len(lines.lines), 2, lines.lines)  # accepted, closed
        self.assertIn("idle for 30 s)", lines.lines[-1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_untaken(self) -> None:
        """Who does not take what it is owed is reset: it would not take the end."""
        talker = Talker()
        policy, transport = self.connect(talker)
        talker.transport.write(b"x")
        self.pass_time(PERIOD)
        self.assertTrue(transport.aborted)
        self.assertEqual(talker.reasons[0].type, ConnectionAborted)
        self.assertEqual(policy.ended, 1)
        self.assert_over(talker)

    def test_untaken_answer(self) -> None:
        """Who does not take its answers is not waiting for us, whatever we owe."""
        debtor = Debtor()
        debtor.debt = Debt(unanswered=5, unsent=1)
        _, transport = self.connect(debtor)
        debtor.transport.pauseProducing()
        debtor.transport.write(b"x")
        self.pass_time(PERIOD)
        self.assertEqual(debtor.ends, ["aborted: idle for 30 s"])
        self.assertTrue(transport.aborted)
        self.assert_over(debtor)

    def test_still_there(self) -> None:
        """Who is still there a period after the end of file is reset, once."""
        debtor = Debtor(obeys=False)
        policy, transport = self.connect(debtor)
        self.pass_time(PERIOD)
        self.assertEqual(debtor.ends, ["finished: idle for 30 s"])
        self.pass_time(PERIOD - 1 / 64)
        self.assertFalse(transport.aborted)
        self.pass_time(1 / 64)
        self.assertEqual(debtor.ends[1:], ["aborted: idle for 30 s"])
        self.assertEqual(policy.ended, 1)
        self.assert_over(debtor)

    def test_talks_on(self) -> None:
        """Who talks on after the end of file, or is paused, gets no second period."""
        debtor = Debtor(obeys=False)
        _, transport = self.connect(debtor)
        self.pass_time(PERIOD)
        self.pass_time(PERIOD - 1)
        transport.deliver(b"late")
        debtor.transport.write(b"late, too")
        debtor.debt = Debt(unanswered=1)
        transport.take()
        debtor.transport.pauseProducing()
        self.pass_time(1)
        self.assertTrue(transport.aborted)
        self.assert_over(debtor)

    def test_paused(self) -> None:
        """Who is not read from could not be heard; its period begins after that."""
        talker = Talker()
        _, transport = self.connect(talker)
        talker.transport.pauseProducing()
        for _ in range(round(10 * PERIOD) + 1):
            self.pass_time(1)
        self.assertEqual(talker.reasons, [])
        talker.transport.resumeProducing()
        self.pass_time(PERIOD - 0.5)
        self.assertFalse(transport.output_ended)
        self.pass_time(0.5)
        self.assert_over(talker)

    def test_paused_and_untaken(self) -> None:
        """Who is not read from because it does not take its answers is reset."""
        _, transport = self.connect(EchoFactory(self.clock))
        transport.deliver(b"x" * 200_000)
        self.assertFalse(transport.reading)
        self.pass_time(PERIOD)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_taker(self) -> None:
        """Who is not read from while it takes its answers slowly gets all of them."""
        _, transport = self.connect(EchoFactory(self.clock))
        transport.deliver(b"x" * 200_000)
        self.pass_time(PERIOD - 1)
        transport.take()
        self.pass_time(PERIOD - 1)
        while len(transport.taken) < 200_000:
            transport.take()
            self.pass_time(1)
        self.assertFalse(transport.output_ended)
        self.pass_time(PERIOD)
        self.assertTrue(transport.output_ended)
        self.assertFalse(transport.aborted)
        transport.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    # The clock

    def test_clock_set_back(self) -> None:
        """A clock that is set back cuts nobody early, and nobody stays for ever."""
        self.clock.advance(1000)
        talker = Talker()
        _, transport = self.connect(talker)
        self.clock.rightNow = 10.0
        self.pass_time(1000)
        transport.deliver(b"x")  # at 1010; the timer was made for 1030
        self.pass_time(PERIOD - 0.5)
        self.assertEqual(talker.reasons, [])
        self.pass_time(0.5)
        self.assert_over(talker)

    def test_clock_set_back_alone(self) -> None:
        """Where timers do not go by the clock, it costs at most one more period."""
        clock = SteppedClock(self.clock)
        talker = Talker()
        _, transport = self.connect(talker, clock)
        self.pass_time(20)
        transport.deliver(b"x")
        clock.step = -1000.0
        self.pass_time(PERIOD)  # at 50
        self.assertEqual(talker.reasons, [])
        self.pass_time(PERIOD)
        self.assert_over(talker)

    def test_clock_set_forward(self) -> None:
        """A clock that is set forward ends the silent, and those who speak stay."""
        silent, talker = Talker(), Talker()
        self.connect(silent)
        clock = SteppedClock(self.clock)
        _, transport = self.connect(talker, clock)
        clock.step = 1000.0
        transport.deliver(b"x")
        self.pass_time(PERIOD - 1)
        transport.deliver(b"x")
        self.pass_time(PERIOD - 1)
        self.assertEqual(len(silent.reasons), 1)
        self.assertEqual(talker.reasons, [])
        self.pass_time(1)
        self.assert_over(silent, talker)

    # What is wrapped

    def test_plain_protocol(self) -> None:
        """Any protocol can be watched; its end is one line in the log."""
        lines = LogLines(self)
        talker = Talker()
        self.connect(talker)
        self.pass_time(PERIOD)
        self.assertEqual(
            lines.lines,
            ["Closing the connection from 192.0.2.2:50123: idle for 30 s."],
        )
        self.assert_over(talker)

    def test_plain_protocol_with_producer(self) -> None:
        """A producer that says nothing does not hold up the end."""
        talker = Talker(
            lambda talker: talker.transport.registerProducer(talker.transport, True)
        )
        _, transport = self.connect(talker)
        self.pass_time(PERIOD)
        self.assertTrue(transport.output_ended)
        self.assert_over(talker)

    # Nothing is left on the clock

    def test_lost(self) -> None:
        """A connection that is lost earlier is watched no more."""
        talker = Talker()
        policy, transport = self.connect(talker)
        transport.lose(ConnectionLost())
        self.assert_over(talker)
        self.assertEqual(policy.ended, 0)

    def test_lost_in_the_beginning(self) -> None:
        """A protocol that does not want its connection is watched no more."""
        for end in ("loseConnection", "abortConnection"):
            talker = Talker(lambda talker: getattr(talker.transport, end)())  # noqa: B023
            policy, _ = self.connect(talker)
            self.pass_time(0)
            self.assert_over(talker)
            self.assertEqual(policy.ended, 0)

    def test_lost_suddenly(self) -> None:
        """A transport may tell of the loss while it is asked for the end."""

        def lose(talker: Talker) -> None:
            talker.transport.loseConnection()

        for begin in (None, lose):
            debtor = Debtor()
            debtor.begin = begin
            policy = IdleTimeout(factory_of(debtor), seconds=PERIOD, clock=self.clock)
            transport = SuddenTransport()
            transport.outer = policy.buildProtocol(None)
            transport.outer.makeConnection(transport)
            self.pass_time(PERIOD)
            self.assertEqual(policy.ended, 0 if begin else 1)
            self.assert_over(debtor)

    def test_lost_while_ending(self) -> None:
        """A connection that is lost before its second period is over is forgotten."""
        debtor = Debtor(obeys=False)
        _, transport = self.connect(debtor)
        self.pass_time(PERIOD)
        transport.lose()
        self.assert_over(debtor)

    def test_many(self) -> None:
        """Those that were ended are counted."""
        policy = IdleTimeout(
            Factory.forProtocol(Talker), seconds=PERIOD, clock=self.clock
        )
        transports = [connect(policy, self.clock)[1] for _ in range(3)]
        self.pass_time(1)
        transports[1].deliver(b"x")
        self.pass_time(PERIOD - 1)
        self.assertEqual(policy.ended, 2)
        transports[1].lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_settings(self) -> None:
        """A period that is none is refused by name."""
        for seen in (0, -1, float("nan"), float("inf"), "30", None, True):
            with self.assertRaises(SettingError) as caught:
                IdleTimeout(
                    Factory(),
                    seconds=seen,  # type: ignore[arg-type]
                    clock=self.clock,
                )
            self.assertEqual(caught.exception.name, "seconds")


class SocketTests(TestCase):
    """Over sockets, with a clock of the test's own."""

    timeout = 30

    async def check(
        self, server: IStreamServerEndpoint, client: Callable[[Any], Any]
    ) -> None:
        clock = Clock()
        policy = IdleTimeout(EchoFactory(clock), seconds=PERIOD, clock=clock)
        port: Any = await server.listen(policy)
        self.addCleanup(port.stopListening)
        peer = await join(client(port.getHost()))
        peer.send(b"hello")
        self.assertEqual(await peer.take(5), b"hello")
        clock.advance(PERIOD / 2)
        peer.send(b"again")
        self.assertEqual(await peer.take(5), b"again")
        clock.advance(PERIOD / 2)
        self.assertEqual(policy.ended, 0)
        clock.advance(PERIOD / 2)
        self.assertEqual(policy.ended, 1)
        self.assertEqual(await peer.take_all(), b"")
        peer.transport.loseConnection()
        self.assertEqual((await peer.gone()).type, ConnectionDone)
        await turns_until(lambda: not clock.getDelayedCalls())

    async def test_tcp(self) -> None:
        """Over TCP, who is silent gets end of file, and no reset."""
        from twisted.internet import reactor

        await self.check(
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            lambda host: TCP4ClientEndpoint(reactor, "127.0.0.1", host.port),
        )

    async def test_unix(self) -> None:
        """Over unix sockets, too."""
        from twisted.internet import reactor

        path = str(directory(self) / "socket")
        await self.check(
            UNIXServerEndpoint(reactor, path),
            lambda _: UNIXClientEndpoint(reactor, path),
        )

    async def test_tls(self) -> None:
        """Over TLS, too, with its own farewell."""
        forgive_twisted_certificates(self)
        await self.check(*over_tls())
