"""
How a service's connections come to their end when it stops.
"""

from __future__ import annotations

from hypothesis import given, strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sockproto.draining import drain
from sockproto.hello import HelloFactory
from sockproto.interfaces import Debt, IOwing
from tests.contracts import LogLines, connect_in_memory, lose


@implementer(IOwing)
class Connection:
    """A connection that ends when it is told to, if it `obeys`."""

    def __init__(self, room: set[Connection], *, obeys: bool = True) -> None:
        self.bytes_received = 0
        self.debt = Debt()
        self.room = room
        self.obeys = obeys
        self.ends: list[str] = []
        room.add(self)

    def owed(self) -> Debt:
        return self.debt

    def finish(self, reason: str) -> None:
        self.ends.append(f"finished: {reason}")
        if self.obeys:
            self.room.discard(self)

    def abort(self, reason: str) -> None:
        self.ends.append(f"aborted: {reason}")
        self.room.discard(self)


class DrainTests(SynchronousTestCase):
    """Connections that end by themselves, and others."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.room: set[Connection] = set()
        self.log = LogLines(self)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([1 / 64] * round(seconds * 64))  # exact in binary

    def test_our_fake(self) -> None:
        """The connections of these tests are what `drain` asks for."""
        self.assertTrue(verifyObject(IOwing, Connection(self.room)))

    def test_nobody_there(self) -> None:
        """Without connections it is over at once, and nothing is logged."""
        done = drain(self.clock, lambda: self.room, 10)
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.log.lines, [])

    def test_quiet(self) -> None:
        """One that is owed nothing and is silent for 0.5 s is finished, no earlier."""
        connection = Connection(self.room)
        done = drain(self.clock, lambda: self.room, 10)
        self.pass_time(0.4)
        self.assertEqual(connection.ends, [])
        self.pass_time(0.25)
        self.assertEqual(connection.ends, ["finished: the service stops"])
        self.pass_time(0.1)
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.log.lines, [])

    def test_sending(self) -> None:
        """One that goes on sending goes on being served."""
        connection = Connection(self.room)
        done = drain(self.clock, lambda: self.room, 10)
        for _ in range(10):
            self.pass_time(0.4)
            connection.bytes_received += 1
        self.assertEqual(connection.ends, [])
        self.pass_time(0.8)
        self.assertEqual(len(connection.ends), 1)
        self.successResultOf(done)

    def test_owed(self) -> None:
        """What is owed holds up the end; silence counts from when it is paid."""
        connection = Connection(self.room)
        connection.debt = Debt(unanswered=1)
        done = drain(self.clock, lambda: self.room, 10)
        self.pass_time(3)
        self.assertEqual(connection.ends, [])
        connection.debt = Debt()
        self.pass_time(0.4)
        self.assertEqual(connection.ends, [])
        self.pass_time(0.4)
        self.assertEqual(len(connection.ends), 1)
        self.successResultOf(done)

    def test_each_for_itself(self) -> None:
        """One that is quiet does not wait for one that is not."""
        _, busy = Connection(self.room), Connection(self.room)
        busy.debt = Debt(unsent=1)
        done = drain(self.clock, lambda: self.room, 10)
        self.pass_time(0.8)
        self.assertEqual(self.room, {busy})
        self.room.discard(busy)
        self.pass_time(0.1)
        self.successResultOf(done)

    def test_one_that_leaves(self) -> None:
        """One that leaves by itself is not told to."""
        connection = Connection(self.room)
        done = drain(self.clock, lambda: self.room, 10)
        self.pass_time(0.2)
        self.room.clear()
        self.pass_time(0.1)
        self.successResultOf(done)
        self.assertEqual(connection.ends, [])

    def test_deadline(self) -> None:
        """At the deadline the rest is aborted, with one line that says what it was."""
        stuck = [Connection(self.room), Connection(self.room)]
        stuck[0].debt = Debt(unanswered=3, unsent=10)
        stuck[1].debt = Debt(unsent=5)
        done = drain(self.clock, lambda: self.room, 2)
        self.pass_time(1.9)
        self.assertNoResult(done)
        self.pass_time(0.15)
        self.successResultOf(done)
        for connection in stuck:
            self.assertEqual(connection.ends, ["aborted: aborted after the drain"])
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
        """One that was finished and stays is aborted with the rest."""
        connection = Connection(self.room, obeys=False)
        done = drain(self.clock, lambda: self.room, 2)
        self.pass_time(2.05)
        self.successResultOf(done)
        self.assertEqual(connection.ends[-1], "aborted: aborted after the drain")
        self.assertIn("owed nothing", self.log.lines[-1])

    def test_no_time_at_all(self) -> None:
        """A drain of 0 seconds aborts at once."""
        connection = Connection(self.room)
        self.successResultOf(drain(self.clock, lambda: self.room, 0))
        self.assertEqual(len(connection.ends), 1)

    @given(
        st.floats(0, 2e9, allow_nan=False),
        st.floats(0.01, 20, allow_nan=False),
    )
    def test_deadline_is_kept(self, began: float, seconds: float) -> None:
        """It ends at the deadline, whenever it began."""
        clock = _BoundedClock()
        clock.advance(began)
        room: set[Connection] = set()
        Connection(room).debt = Debt(unsent=1)
        done = drain(clock, lambda: room, seconds)
        clock.advance(seconds)  # exactly, and in one go
        clock.advance(0.001)
        self.successResultOf(done)


class _BoundedClock(Clock):
    """A clock that minds being asked for no time at all, again and again."""

    asked = 0

    def callLater(  # type: ignore[override]  # noqa: N802 - Twisted's
        self, delay: float, *args: object, **kwargs: object
    ) -> object:
        self.asked += 1
        assert self.asked < 1_000, "it asks for a call at once, for ever"
        return super().callLater(delay, *args, **kwargs)  # type: ignore[arg-type]


class DrainingHelloTests(SynchronousTestCase):
    """Draining connections of a service with a delay."""

    def test_answers_are_waited_for(self) -> None:
        """A name that waits for its delay is answered before the end."""
        clock = Clock()
        factory = HelloFactory(clock, framing="line", greeting="", delay=3, log="none")
        protocol, transport = connect_in_memory(factory)
        protocol.dataReceived(b"Eva\n")
        done = drain(clock, lambda: factory.connections, 10)
        clock.pump([0.1] * 29)
        self.assertFalse(transport.half_closed)
        clock.pump([0.1] * 3)
        self.assertEqual(transport.value(), b"Hello, Eva!\n")
        self.assertFalse(transport.half_closed)
        clock.pump([0.1] * 6)
        self.assertTrue(transport.half_closed)
        lose(protocol)
        clock.advance(0.1)
        self.successResultOf(done)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_an_unfinished_name_is_not_owed_anything(self) -> None:
        """Half a line holds up nobody."""
        clock = Clock()
        factory = HelloFactory(clock, framing="line", greeting="", log="none")
        protocol, transport = connect_in_memory(factory)
        protocol.dataReceived(b"Ev")
        drain(clock, lambda: factory.connections, 10)
        clock.pump([0.1] * 7)
        self.assertTrue(transport.half_closed)
        lose(protocol)
        clock.advance(0.1)
