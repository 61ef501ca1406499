"""
What passes through a wrapper, and what is told of a connection.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.error import ConnectionAborted, ConnectionLost

from sockproto.testing.clauses import PIECE, Clauses
from sockproto.testing.inner import Inner, InnerFactory, Producer
from sockproto.testing.memory import MemoryTransport, connect

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lives"]


class Lives(Clauses):
    """
    Bytes arrive, and a connection begins and is lost once.
    """

    # Bytes

    def test_input(self) -> None:
        """What the peer sends arrives, each byte once and in order."""
        inner = Inner()
        transport = self._connect(inner)
        pieces = [b"%d;" % number for number in range(2000)]
        pieces += [b"x" * 200_000, b"y", b"z" * 70_000]
        for piece in pieces:
            transport.deliver(piece)
        sent = b"".join(pieces)
        self._pass_time(lambda: len(inner.received) >= len(sent))
        self.assertEqual(inner.received, sent)

    def test_output(self) -> None:
        """What is written arrives, by whichever method, each byte once and in order."""
        inner = Inner()
        inner.then["connectionMade"] = lambda: inner.transport.write(b"first;")
        transport = self._connect(inner)
        written = [b"first;"]
        for number in range(2000):
            written += [b"%d," % number, b"", b"a", b"b" * (number % 7)]
            inner.transport.write(written[-4])
            inner.transport.writeSequence(written[-3:])
        written.append(b"z" * 300_000)
        inner.transport.write(written[-1])
        sent = b"".join(written)
        self.assertEqual(self._take(transport, len(sent)), sent)
        self._pass_time()
        self.assertEqual(transport.unsent, 0)

    def test_empty_output(self) -> None:
        """To write nothing is no error, sends nothing and ends nothing."""
        inner = Inner()
        transport = self._connect(inner)
        inner.transport.write(b"")
        inner.transport.writeSequence([])
        inner.transport.writeSequence([b"", b""])
        self._pass_time()
        self.assertEqual((transport.taken, transport.unsent), (b"", 0))
        self.assertEqual(inner.reasons, [])
        inner.transport.write(b"something")
        self.assertEqual(self._take(transport, 9), b"something")

    def test_connections_apart(self) -> None:
        """The connections of one factory know nothing of each other."""
        inners: list[Inner] = []

        def make() -> Inner:
            inners.append(Inner())
            return inners[-1]

        factory = self._wrap(InnerFactory(make))
        ends = [connect(factory, self.clock)[1] for _ in range(3)]
        for number, end in enumerate(ends):
            end.deliver(b"to %d" % number)
            inners[number].transport.write(b"from %d" % number)
        ends[1].lose()
        self._pass_time(lambda: inners[2].received and inners[1].reasons)
        self.assertEqual(
            [bytes(each.received) for each in inners][::2], [b"to 0", b"to 2"]
        )
        self.assertEqual([len(each.reasons) for each in inners], [0, 1, 0])
        self.assertEqual(self._take(ends[0], 6), b"from 0")
        self.assertEqual(self._take(ends[2], 6), b"from 2")

    # A life

    def test_life(self) -> None:
        """A protocol is connected once, then told, then lost once, then left alone."""
        inner = Inner()
        transport = self._connect(inner)
        transport.deliver(b"data")
        self._pass_time(lambda: inner.received)
        reason = ConnectionLost("by the test")
        transport.lose(reason)
        transport.deliver(b"late")
        self._pass_time()
        self.assertEqual(
            inner.events,
            ["makeConnection", "connectionMade", "dataReceived", "connectionLost"],
        )
        self.assertIs(inner.reasons[0].value, reason)

    def test_unread_input_is_not_told_late(self) -> None:
        """Who has paused reading when the connection breaks hears of nothing more."""
        inner = Inner()
        transport = self._connect(inner)
        inner.transport.pauseProducing()
        transport.deliver(b"x" * 3 * PIECE)
        transport.lose()
        self._pass_time()
        self.assertEqual(inner.events[-2:], ["connectionMade", "connectionLost"])

    def test_freed(self) -> None:
        """After a connection nothing is held of it, by the factory or the transport."""
        known: list[weakref.ref[Any]] = []

        def make() -> Inner:
            inner = Inner()
            known.append(weakref.ref(inner))
            return inner

        factory = self._wrap(InnerFactory(make))
        transports = []
        for end in (MemoryTransport.lose, MemoryTransport.end_input):
            outer, transport = connect(factory, self.clock)
            known.append(weakref.ref(outer))
            del outer
            transport.deliver(b"data")
            end(transport)
            transports.append(transport)
        self._pass_time()
        # A whole collection takes 0.1 s of a large run: only where it may be needed.
        for generation in (1, 2):
            if any(each() is not None for each in known):
                gc.collect(generation)
        self.assertEqual([each() for each in known], [None] * 4)

    def test_nothing_pending(self) -> None:
        """When a connection is lost, no delayed call is left of it."""

        def held(inner: Inner, transport: MemoryTransport) -> None:
            inner.transport.pauseProducing()
            transport.deliver(b"x" * 3 * PIECE)
            inner.transport.write(b"x" * 3 * PIECE)
            transport.lose()

        ways: list[Callable[[Inner, MemoryTransport], object]] = [
            held,
            lambda inner, transport: transport.lose(),
            lambda inner, transport: transport.end_input(),
            lambda inner, transport: inner.transport.loseConnection(),
            lambda inner, transport: inner.transport.abortConnection(),
        ]
        for way in ways:
            inner = Inner()
            transport = self._connect(inner)
            transport.deliver(b"data")
            inner.transport.write(b"data")
            way(inner, transport)
            self._lost_after(transport, inner)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_pending_when_lost_at_once(self) -> None:
        """Nothing is left of a connection either that its protocol did not want."""
        inner = Inner()

        def refuse() -> None:
            inner.transport.abortConnection()

        inner.then["connectionMade"] = refuse
        transport = self._connect(inner)
        self.assertEqual(self._lost_after(transport, inner), ConnectionAborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_calls(self) -> None:
        """After a connection, and while it is told, calls on it do no harm."""
        inner = Inner()
        producer = Producer()

        def call() -> None:
            lost = inner.transport
            lost.pauseProducing()
            lost.resumeProducing()
            lost.write(b"late")
            lost.writeSequence([b"late"])
            lost.unregisterProducer()
            lost.registerProducer(producer, True)
            lost.loseConnection()
            lost.abortConnection()

        inner.then["connectionLost"] = call
        transport = self._connect(inner)
        transport.lose()
        self._pass_time(lambda: inner.reasons)
        call()
        self._pass_time()
        self.assertEqual(transport.taken, b"")
        self.assertEqual(producer.events, ["stopProducing"] * 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(inner.reasons), 1)

    def test_error(self) -> None:
        """What the protocol raises ends the connection, logged and told as it is."""
        error = ZeroDivisionError("by the test")

        def fail() -> NoReturn:
            raise error

        inner = Inner()
        inner.then["dataReceived"] = fail
        transport = self._connect(inner)
        transport.deliver(b"data")
        self._pass_time(lambda: inner.reasons)
        logged = self.flushLoggedErrors()
        self.assertEqual([each.value for each in logged], [error])
        self.assertEqual([each.value for each in inner.reasons], [error])
        self.assertEqual(transport.connected, 0)

    def test_error_at_start(self) -> None:
        """What a protocol or its factory raises at its start is raised to the port."""

        def fail() -> NoReturn:
            raise ZeroDivisionError

        inner = Inner()
        inner.then["connectionMade"] = fail
        with self.assertRaises(ZeroDivisionError):
            self._connect(inner)
        with self.assertRaises(ZeroDivisionError):
            connect(self._wrap(InnerFactory(fail)), self.clock)
