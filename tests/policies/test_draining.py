"""
How a factory's connections come to their end when it stops.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sockproto.echo import EchoFactory
from sockproto.errors import SettingError
from sockproto.hello import HelloFactory
from sockproto.interfaces import Debt, IOwing
from sockproto.policies.draining import Drain, Draining, State
from sockproto.testing import MemoryTransport, WrapperContract, connect
from tests.contracts import LogLines, Peer, join, serve_tcp, turns_until

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocolFactory
    from twisted.python.failure import Failure


@implementer(IOwing)
class Owing(Protocol):
    """
    Owes what the test says, and ends when it is told to, if it `obeys`.
    """

    transport: Any
    factory: Any

    bytes_received = 0
    bytes_sent = 0
    obeys = True

    def __init__(self) -> None:
        self.debt = Debt()
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


class Recorder(Protocol):
    """
    A plain protocol, which knows nothing of what it owes.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.reasons: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason.type)


class ClosedTooLate(StringTransport):
    """
    A transport that never tells that it is lost.
    """

    def abortConnection(self) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass


class MovableClock(Clock):
    """
    A clock that somebody sets back; what waits for it does so no longer than before.
    """

    def set_back(self, seconds: float) -> None:
        self.rightNow -= seconds
        for call in self.calls:
            call.time -= seconds


class DrainingContractTests(WrapperContract, SynchronousTestCase):
    """It changes nothing as long as nobody stops it."""

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        return Draining(inner, Drain(self.clock))


class _DrainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = MovableClock()
        self.log = LogLines(self)
        self.drain = Drain(self.clock)
        self.states: list[State] = []
        self.drain.watch(self.states.append)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def join(self, protocol: Any = None) -> tuple[Any, MemoryTransport]:
        """Connect a protocol, an `Owing` unless told otherwise."""
        protocol = Owing() if protocol is None else protocol
        factory = Factory.forProtocol(lambda: protocol)
        _, transport = connect(Draining(factory, self.drain), self.clock)
        return protocol, transport

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([1 / 64] * round(seconds * 64))  # exact in binary


class DrainTests(_DrainTests):
    """Connections that end by themselves, and others."""

    def test_our_fake(self) -> None:
        """The connections of these tests are what a drain asks for."""
        self.assertTrue(verifyObject(IOwing, Owing()))

    def test_nobody_there(self) -> None:
        """Without connections it is over at once, and nothing is logged."""
        self.assertIsNone(self.successResultOf(self.drain.begin(10)))
        self.assertEqual(self.log.lines, [])
        self.assertEqual(self.states, [State.DRAINING, State.STOPPED])

    def test_quiet(self) -> None:
        """One that is owed nothing and is silent for 0.5 s is finished, no earlier."""
        connection, _ = self.join()
        done = self.drain.begin(10)
        self.pass_time(0.4)
        self.assertEqual(connection.ends, [])
        self.pass_time(0.25)
        self.assertEqual(connection.ends, ["finished: the service stops"])
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.log.lines, [])

    def test_one_that_raises(self) -> None:
        """A connection that raises when it is asked, or ended, spares no other."""
        made = [self.join() for _ in range(3)]

        def fail(*_: object) -> Any:
            raise ZeroDivisionError

        self.patch(type(made[0][0]), "owed", fail)
        self.patch(type(made[0][0]), "abort", fail)
        done = self.drain.begin(1)
        self.pass_time(2.5)
        self.assertIsNone(self.successResultOf(done))
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.assertEqual(len(self.log.having("Aborting 3 connections")), 1)

    def test_watcher_that_raises(self) -> None:
        """A watcher that raises keeps nothing from its end, nor others from it."""
        states: list[State] = []

        def fail(state: State) -> None:
            raise ZeroDivisionError

        drain = Drain(self.clock)
        drain.watch(fail)
        drain.watch(states.append)
        self.assertIsNone(self.successResultOf(drain.begin(1)))
        self.assertEqual(states, [State.DRAINING, State.STOPPED])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_over_as_soon_as_the_last_is_gone(self) -> None:
        """When the last connection is gone it is over at that moment."""
        made = [self.join() for _ in range(2)]
        done = self.drain.begin(10)
        for _, transport in made:
            self.assertNoResult(done)
            self.assertIs(self.drain.state, State.DRAINING)
            transport.lose()
        self.assertIsNone(self.successResultOf(done))
        self.assertIs(self.drain.state, State.STOPPED)

    def test_sending(self) -> None:
        """One that goes on sending goes on being served."""
        connection, _ = self.join()
        done = self.drain.begin(10)
        for _ in range(10):
            self.pass_time(0.4)
            connection.bytes_received += 1
        self.assertEqual(connection.ends, [])
        self.pass_time(0.8)
        self.assertEqual(len(connection.ends), 1)
        self.successResultOf(done)

    def test_owed(self) -> None:
        """What is owed holds up the end; silence counts from when it is paid."""
        connection, _ = self.join()
        connection.debt = Debt(unanswered=1)
        done = self.drain.begin(10)
        self.pass_time(3)
        self.assertEqual(connection.ends, [])
        connection.debt = Debt()
        self.pass_time(0.4)
        self.assertEqual(connection.ends, [])
        self.pass_time(0.4)
        self.assertEqual(len(connection.ends), 1)
        self.successResultOf(done)

    def test_unread(self) -> None:
        """What a policy has left unread is owed as well."""
        connection, _ = self.join()
        connection.debt = Debt(unread=1)
        done = self.drain.begin(2)
        self.pass_time(1.9)
        self.assertEqual(connection.ends, [])
        self.pass_time(0.2)
        self.successResultOf(done)
        self.assertIn("owed the answers to 1 bytes.", self.log.lines[-1])

    def test_each_for_itself(self) -> None:
        """One that is quiet does not wait for one that is not."""
        (quiet, gone), (busy, transport) = self.join(), self.join()
        busy.debt = Debt(unsent=1)
        done = self.drain.begin(10)
        self.pass_time(0.8)
        self.assertEqual(gone.connected, 0)
        self.assertEqual((len(quiet.ends), busy.ends), (1, []))
        transport.lose()
        self.successResultOf(done)

    def test_one_that_leaves(self) -> None:
        """One that leaves by itself is not told to."""
        connection, transport = self.join()
        done = self.drain.begin(10)
        self.pass_time(0.2)
        transport.end_input()
        self.successResultOf(done)
        self.assertEqual(connection.ends, [])

    def test_deadline(self) -> None:
        """At the deadline the rest is aborted, with one line that says what it was."""
        stuck = [self.join(), self.join()]
        stuck[0][0].debt = Debt(unanswered=3, unsent=10)
        stuck[1][0].debt = Debt(unsent=5)
        done = self.drain.begin(2)
        self.pass_time(1.9)
        self.assertNoResult(done)
        self.pass_time(0.15)
        self.successResultOf(done)
        for connection, transport in stuck:
            self.assertEqual(connection.ends, ["aborted: aborted after the drain"])
            self.assertTrue(transport.aborted)
        self.assertEqual(
            self.log.lines,
            [
                (
                    "Aborting 2 connections after 2 s of drain; they were owed"
                    " the answers to 3 bytes and 15 bytes not yet sent."
                )
            ],
        )

    def test_one_that_does_not_leave(self) -> None:
        """One that was finished and stays is told once, and aborted with the rest."""
        connection, _ = self.join()
        connection.obeys = False
        done = self.drain.begin(2)
        self.pass_time(2.05)
        self.successResultOf(done)
        self.assertEqual(
            connection.ends,
            ["finished: the service stops", "aborted: aborted after the drain"],
        )
        self.assertIn("owed nothing", self.log.lines[-1])

    def test_no_time_at_all(self) -> None:
        """A drain of 0 seconds aborts at once."""
        connection, _ = self.join()
        done = self.drain.begin(0)
        self.assertEqual(len(connection.ends), 1)
        self.clock.advance(0)
        self.successResultOf(done)

    def test_transport_that_never_tells(self) -> None:
        """A transport that does not tell it is lost holds up the end for a second."""
        factory = Draining(Factory.forProtocol(Owing), self.drain)
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(ClosedTooLate())
        done = self.drain.begin(1)
        self.pass_time(1.9)
        self.assertNoResult(done)
        self.pass_time(0.2)
        self.successResultOf(done)
        self.assertEqual(len(self.log.having("Aborting")), 1)
        self.assertEqual(self.states, [State.DRAINING, State.STOPPED])
        # Once more, with such a one from before.
        self.drain.reopen()
        ends = protocol.inner.ends
        self.assertEqual(len(ends), 2)
        self.drain.begin(1)
        self.pass_time(0.4)
        self.assertEqual(len(ends), 2)
        self.pass_time(0.3)
        self.assertEqual(ends[2:], ["finished: the service stops"])
        protocol.connectionLost(connectionDone)
        self.assertEqual(self.drain.connections, set())
        self.assertIs(self.drain.state, State.STOPPED)

    @given(
        st.floats(0, 2e9, allow_nan=False),
        st.floats(0.01, 20, allow_nan=False),
        st.integers(1, 30),
    )
    def test_deadline_is_kept(self, began: float, seconds: float, steps: int) -> None:
        """It ends at the deadline, whenever it began."""
        clock = _BoundedClock()
        clock.advance(began)
        drain = Drain(clock)
        owing = Owing()
        owing.debt = Debt(unsent=1)
        factory = Factory.forProtocol(lambda: owing)
        connect(Draining(factory, drain), clock)
        done = drain.begin(seconds)
        clock.pump([seconds / steps] * steps)  # which does not add up exactly
        clock.advance(0.001)
        clock.advance(0)
        self.successResultOf(done)

    def test_clock_set_back(self) -> None:
        """Nobody waits longer than was said on a clock that is set back."""
        connection, _ = self.join()
        connection.debt = Debt(unsent=1)
        done = self.drain.begin(2)
        self.pass_time(1)
        self.clock.set_back(1000)
        self.pass_time(2.2)
        self.successResultOf(done)

    def test_quiet_when_the_clock_is_set_back(self) -> None:
        """Who is quiet is finished on such a clock, too, and not aborted."""
        connection, _ = self.join()
        done = self.drain.begin(10)
        self.pass_time(0.3)
        self.clock.set_back(1000)
        self.pass_time(0.8)
        self.successResultOf(done)
        self.assertEqual(connection.ends, ["finished: the service stops"])

    def test_wrong_seconds(self) -> None:
        """Seconds that are none are refused, and change nothing."""
        for wrong in (-1, float("nan"), "10"):
            seconds: Any = wrong
            with self.assertRaises(SettingError):
                self.drain.begin(seconds)
        self.assertIs(self.drain.state, State.SERVING)
        self.assertEqual(self.states, [])


class _BoundedClock(Clock):
    """A clock that minds being asked for no time at all, again and again."""

    asked = 0

    def callLater(  # type: ignore[override]  # noqa: N802 - Twisted's
        self, delay: float, *args: object, **kwargs: object
    ) -> object:
        self.asked += 1
        assert self.asked < 1_000, "it asks for a call at once, for ever"
        return super().callLater(delay, *args, **kwargs)  # type: ignore[arg-type]


class StateTests(_DrainTests):
    """What is told of how far it is."""

    def test_states(self) -> None:
        """Each state is told once, in its order, to each who watches."""
        others: list[State] = []
        self.drain.watch(others.append)
        _, transport = self.join()
        self.assertIs(self.drain.state, State.SERVING)
        self.drain.begin(10)
        self.assertEqual(self.states, [State.DRAINING])
        transport.lose()
        self.drain.reopen()
        expected = [State.DRAINING, State.STOPPED, State.SERVING]
        self.assertEqual([self.states, others], [expected, expected])

    def test_second_begin(self) -> None:
        """Who begins a second time waits for the same, also after the end."""
        _, transport = self.join()
        first, second = self.drain.begin(10), self.drain.begin(0)
        self.pass_time(0.1)
        self.assertNoResult(second)
        transport.lose()
        for each in (first, second, self.drain.begin(10)):
            self.assertIsNone(self.successResultOf(each))
        self.assertEqual(self.states, [State.DRAINING, State.STOPPED])

    def test_new_connections(self) -> None:
        """New connections are refused from the beginning until it is reopened."""
        built: list[Protocol] = []

        class Counted(Protocol):
            def __init__(self) -> None:
                built.append(self)

        factory = Draining(Factory.forProtocol(Counted), self.drain)
        _, transport = connect(factory, self.clock)
        self.drain.begin(10)
        self.assertIsNone(factory.buildProtocol(None))
        transport.lose()
        self.assertIsNone(factory.buildProtocol(None))
        self.assertEqual(len(built), 1)
        self.drain.reopen()
        _, transport = connect(factory, self.clock)
        transport.lose()

    def test_again(self) -> None:
        """After it was reopened it drains again, as the first time."""
        for _ in range(3):
            connection, _ = self.join()
            done = self.drain.begin(5)
            self.pass_time(0.4)
            self.assertEqual(connection.ends, [])
            self.pass_time(0.3)
            self.successResultOf(done)
            self.drain.reopen()
            self.drain.reopen()  # which is no news
        expected = [State.DRAINING, State.STOPPED, State.SERVING]
        self.assertEqual(self.states, expected * 3)

    def test_several_factories(self) -> None:
        """Factories that stop together are waited for together."""
        (_, first), (_, second) = self.join(), self.join(Recorder())
        self.assertEqual(len(self.drain.connections), 2)
        done = self.drain.begin(10)
        first.lose()
        self.assertNoResult(done)
        second.lose()
        self.successResultOf(done)

    def test_made_late(self) -> None:
        """One built before it stops and made after that is waited for, too."""
        _, first = self.join()
        factory = Draining(Factory.forProtocol(Owing), self.drain)
        late: Any = factory.buildProtocol(None)
        done = self.drain.begin(10)
        transport = MemoryTransport(self.clock)
        transport.connect(late)
        first.lose()
        self.assertNoResult(done)
        owing = late.inner
        self.pass_time(0.7)
        self.assertEqual(owing.ends, ["finished: the service stops"])
        self.successResultOf(done)

    def test_asked_of_none_before(self) -> None:
        """As long as it serves, nobody has to tell it of anything."""
        factory = Draining(EchoFactory(self.clock, log="none"), self.drain)
        connection: Any
        connection, transport = connect(factory, self.clock)
        self.assertEqual(connection.attendants, ())
        self.assertEqual(self.drain.connections, factory.roll)
        self.assertEqual(factory.roll, {connection})
        done = self.drain.begin(10)
        transport.lose()
        self.successResultOf(done)
        self.assertEqual(factory.roll, set())

    def test_twice_around(self) -> None:
        """One that is drained by two factories is one connection."""
        echo = EchoFactory(self.clock, log="none")
        factory = Draining(Draining(echo, self.drain), self.drain)
        connection, transport = connect(factory, self.clock)
        self.assertEqual(self.drain.connections, {connection})
        transport.lose()

    def test_forgotten_factory(self) -> None:
        """The connections of a factory that nobody has any more are known still."""
        connection, transport = self.join()
        gc.collect()
        self.assertEqual(len(self.drain.connections), 1)
        self.assertEqual(len(list(self.drain._rolls)), 1)
        transport.lose()
        del connection, transport
        gc.collect()
        self.assertEqual(list(self.drain._rolls), [])

    def test_watcher_ends_all(self) -> None:
        """A watcher may end connections as it is told: the end is told once."""
        _, transport = self.join()
        self.drain.watch(lambda state: transport.lose())
        self.successResultOf(self.drain.begin(10))
        self.assertEqual(self.states, [State.DRAINING, State.STOPPED])

    def test_watcher_goes_on(self) -> None:
        """A watcher may reopen at the stop; who begins then waits for the next."""
        waiters: list[Deferred[None]] = []
        new: list[MemoryTransport] = []

        def again(state: State) -> None:
            if state is State.STOPPED and not new:
                self.drain.reopen()
                new.append(self.join()[1])
                waiters.append(self.drain.begin(10))

        self.drain.watch(again)
        _, transport = self.join()
        first = self.drain.begin(10)
        transport.lose()
        self.successResultOf(first)
        self.assertNoResult(waiters[0])
        new[0].lose()
        self.successResultOf(waiters[0])

    def test_lost_as_it_is_made(self) -> None:
        """A connection that its protocol does not want leaves nothing behind."""

        class Unwilling(Protocol):
            transport: Any

            def connectionMade(self) -> None:
                self.transport.abortConnection()

        self.join(Unwilling())
        self.clock.advance(0)
        self.assertEqual(self.drain.connections, set())
        self.successResultOf(self.drain.begin(10))

    def test_one_takes_another_along(self) -> None:
        """A connection whose end ends others ends those that wait behind it, too."""
        pairs = [self.join() for _ in range(5)]

        def lose_all() -> None:
            for _, transport in pairs:
                transport.lose()

        for protocol, _ in pairs:
            protocol.finish = lambda reason: lose_all()
        done = self.drain.begin(10)
        self.pass_time(0.7)
        self.successResultOf(done)
        self.assertEqual(self.drain._quiet_since, {})
        self.assertEqual(self.states, [State.DRAINING, State.STOPPED])

    def test_aborts_that_are_told_at_once(self) -> None:
        """Transports that tell of an abort at once end it at once."""
        pairs = [self.join() for _ in range(3)]
        for protocol, transport in pairs:
            protocol.debt = Debt(unsent=1)
            protocol.abort = lambda reason, t=transport: t.lose()
        done = self.drain.begin(1)
        self.pass_time(1)
        self.successResultOf(done)
        self.assertEqual(self.states, [State.DRAINING, State.STOPPED])
        self.assertEqual(len(self.log.having("Aborting 3 connections")), 1)

    def test_one_that_raises(self) -> None:
        """A protocol that raises when it is lost is gone all the same."""
        protocol, transport = self.join()

        def fail(reason: object) -> None:
            raise ZeroDivisionError

        protocol.connectionLost = fail
        done = self.drain.begin(10)
        with self.assertRaises(ZeroDivisionError):
            transport.lose()
        self.successResultOf(done)


class PlainProtocolTests(_DrainTests):
    """A protocol that knows nothing of what it owes."""

    def test_quiet(self) -> None:
        """It is closed, in order, when it was silent for 0.5 s; that is one line."""
        protocol, transport = self.join(Recorder())
        done = self.drain.begin(10)
        self.pass_time(0.3)
        transport.deliver(b"data")
        self.pass_time(0.45)
        self.assertEqual(protocol.reasons, [])
        self.pass_time(0.3)
        self.successResultOf(done)
        self.assertEqual(protocol.received, b"data")
        self.assertEqual(protocol.reasons, [ConnectionDone])
        self.assertTrue(transport.output_ended)
        self.assertEqual(len(self.log.having("the service stops")), 1)

    def test_unsent(self) -> None:
        """What it wrote is waited for, and aborted with the rest at the deadline."""
        protocol, transport = self.join(Recorder())
        stuck, other = self.join(Recorder())
        for each in (protocol, stuck):
            each.transport.write(b"x" * 1000)
        done = self.drain.begin(3)
        self.pass_time(2)
        self.assertEqual(protocol.reasons, [])
        transport.take()
        self.pass_time(0.8)
        self.assertEqual(protocol.reasons, [ConnectionDone])
        self.pass_time(0.3)
        self.assertEqual(stuck.reasons, [ConnectionAborted])
        self.assertTrue(other.aborted)
        self.successResultOf(done)
        self.assertIn("1 connection after 3 s", self.log.having("Aborting")[0])
        self.assertIn("owed 1000 bytes not yet sent", self.log.having("Aborting")[0])

    def test_told_once(self) -> None:
        """One whose transport takes its time to close is told, and logged, once."""
        factory = Draining(Factory.forProtocol(Recorder), self.drain)
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(ClosedTooLate())
        self.drain.begin(3)
        self.pass_time(2.5)
        self.assertEqual(len(self.log.having("the service stops")), 1)
        protocol.connectionLost(connectionDone)


class DrainingHelloTests(_DrainTests):
    """Draining connections of a service with a delay."""

    def hello(self, delay: float) -> MemoryTransport:
        factory = HelloFactory(
            self.clock, framing="line", greeting="", delay=delay, log="none"
        )
        return connect(Draining(factory, self.drain), self.clock)[1]

    def test_answers_are_waited_for(self) -> None:
        """A name that waits for its delay is answered before the end."""
        transport = self.hello(3)
        transport.deliver(b"Eva\n")
        done = self.drain.begin(10)
        self.clock.pump([0.1] * 29)
        self.assertFalse(transport.output_ended)
        self.clock.pump([0.1] * 3)
        self.assertEqual(transport.take(), b"Hello, Eva!\n")
        self.assertFalse(transport.output_ended)
        self.clock.pump([0.1] * 7)
        self.assertTrue(transport.output_ended)
        transport.end_input()
        self.clock.advance(0)
        self.successResultOf(done)

    def test_an_unfinished_name_is_not_owed_anything(self) -> None:
        """Half a line holds up nobody."""
        transport = self.hello(0)
        transport.deliver(b"Ev")
        done = self.drain.begin(10)
        self.clock.pump([0.1] * 7)
        self.assertTrue(transport.output_ended)
        transport.end_input()
        self.clock.advance(0)
        self.successResultOf(done)


class OverSocketsTests(TestCase):
    """Real sockets, and peers that are slow."""

    timeout = 20

    async def join(self, factory: Any) -> tuple[Peer, Drain]:
        from twisted.internet import reactor

        drain = Drain(reactor)
        port: Any = await serve_tcp(self, Draining(factory, drain))
        number = port.getHost().port
        peer = await join(TCP4ClientEndpoint(reactor, "127.0.0.1", number))
        await turns_until(lambda: drain.connections)
        return peer, drain

    async def leave(self, peer: Peer) -> None:
        peer.transport.loseConnection()
        await peer.gone()

    async def test_half_close(self) -> None:
        """Who ends its input as the service stops gets every byte it is owed."""
        from twisted.internet import reactor

        peer, drain = await self.join(EchoFactory(reactor, log="none"))
        sent = b"".join(b"%07d;" % number for number in range(2**17))
        peer.send(sent)
        peer.end()
        stopped = drain.begin(30)
        self.assertEqual(await peer.take_all(), sent)
        await self.leave(peer)
        await stopped

    async def test_slow_reader(self) -> None:
        """Who reads late gets every byte, and then end of file."""
        from twisted.internet import reactor

        peer, drain = await self.join(EchoFactory(reactor, log="none"))
        [connection] = drain.connections
        peer.transport.pauseProducing()
        unit = b"".join(b"%07d;" % number for number in range(2**13))
        peer.flood(unit)
        await turns_until(lambda: connection.owed().unsent)
        sent = peer.stop_flood()
        stopped = drain.begin(30)
        await turns_until(lambda: drain.state is State.DRAINING)
        peer.transport.resumeProducing()
        self.assertEqual(await peer.take_all(), sent)
        await self.leave(peer)
        await stopped

    async def test_plain_protocol(self) -> None:
        """A plain protocol's peer gets all that was written, too, when it reads."""

        class Talker(Protocol):
            transport: Any

            def connectionMade(self) -> None:
                self.transport.write(b"0123456" * 2**20)

        peer, drain = await self.join(Factory.forProtocol(Talker))
        stopped = drain.begin(30)
        received = await peer.take_all()
        self.assertEqual(received, b"0123456" * 2**20)
        await self.leave(peer)
        await stopped

    async def test_abort(self) -> None:
        """Who does not read until the end gets a reset, and is told of in the log."""
        from twisted.internet import reactor

        log = LogLines(self)
        peer, drain = await self.join(EchoFactory(reactor, log="none"))
        [connection] = drain.connections
        peer.transport.pauseProducing()
        peer.flood(b"x" * 65_536)
        await turns_until(lambda: connection.owed().unsent)
        await drain.begin(0)
        self.assertIs(drain.state, State.STOPPED)
        self.assertEqual(len(log.having("Aborting 1 connection after 0 s")), 1)
        peer.stop_flood()
        peer.transport.resumeProducing()
        await peer.gone()
