"""
Who takes too little slows down who sends.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone

from sockproto.testing.clauses import PIECE, Clauses
from sockproto.testing.inner import Inner, Producer

__all__ = ["BackPressure"]


class BackPressure(Clauses):
    """
    Producers and paused reading work in both directions.
    """

    def test_push_producer(self) -> None:
        """A push producer is paused while much is unsent, and stopped at the end."""
        inner = Inner()
        producer = Producer()
        transport = self._connect(inner)
        inner.transport.registerProducer(producer, True)
        written = 0
        while not producer.events and written < 8 * PIECE:
            inner.transport.write(b"x" * 1000)
            written += 1000
        self._pass_time(lambda: producer.events)
        self.assertEqual(producer.events, ["pauseProducing"])
        self.assertEqual(len(self._take(transport, written)), written)
        self._pass_time(lambda: len(producer.events) > 1)
        self.assertEqual(producer.events, ["pauseProducing", "resumeProducing"])
        transport.lose()
        self._pass_time(lambda: inner.reasons)
        self.assertEqual(producer.events[2:], ["stopProducing"])

    def test_pull_producer(self) -> None:
        """A pull producer is asked for more whenever all is taken, and only then."""
        inner = Inner()
        producer = Producer()
        producer.then["resumeProducing"] = lambda: inner.transport.write(b"x" * 1000)
        transport = self._connect(inner)
        inner.transport.registerProducer(producer, False)
        self._pass_time()
        self.assertEqual(producer.events, ["resumeProducing"])
        self.assertGreaterEqual(len(self._take(transport, 20_000)), 20_000)
        self.assertGreaterEqual(len(producer.events), 20)
        self.assertEqual(set(producer.events), {"resumeProducing"})
        transport.lose()
        self._pass_time(lambda: inner.reasons)
        self.assertEqual(producer.events[-1], "stopProducing")

    def test_unregister_producer(self) -> None:
        """A producer that was unregistered is asked nothing; another may come."""
        inner = Inner()
        first, second = Producer(), Producer()
        transport = self._connect(inner)
        inner.transport.registerProducer(first, True)
        with self.assertRaises(RuntimeError):
            inner.transport.registerProducer(second, True)
        inner.transport.unregisterProducer()
        inner.transport.write(b"x" * 2 * PIECE)
        self._take(transport, 2 * PIECE)
        inner.transport.registerProducer(second, True)
        inner.transport.write(b"x" * 2 * PIECE)
        self._pass_time(lambda: second.events)
        transport.lose()
        self._pass_time(lambda: inner.reasons)
        self.assertEqual(first.events, [])
        self.assertEqual(second.events, ["pauseProducing", "stopProducing"])

    def test_close_waits_for_producer(self) -> None:
        """A closing transport sends what its producer still has, till it is done."""
        inner = Inner()
        producer = Producer()
        transport = self._connect(inner)
        inner.transport.registerProducer(producer, True)
        inner.transport.write(b"1" * 2 * PIECE)
        inner.transport.loseConnection()
        self._take(transport, 2 * PIECE)
        self._pass_time()
        self.assertEqual(inner.reasons, [])
        inner.transport.write(b"2")
        inner.transport.unregisterProducer()
        self.assertEqual(self._lost_after(transport, inner), ConnectionDone)
        self.assertEqual(transport.taken, b"1" * 2 * PIECE + b"2")

    def test_echo(self) -> None:
        """A transport that is its own producer reads no more than its peer takes."""
        inner = Inner()

        def begin() -> None:
            inner.transport.registerProducer(inner.transport, True)

        def echo() -> None:
            inner.transport.write(bytes(inner.received[len(echoed) :]))
            echoed.extend(inner.received[len(echoed) :])

        echoed = bytearray()
        inner.then.update(connectionMade=begin, dataReceived=echo)
        transport = self._connect(inner)
        sent = b"".join(b"%07d\n" % number for number in range(2**17))
        transport.deliver(sent)
        self._pass_time(lambda: len(inner.received) > 8 * PIECE)
        self.assertLessEqual(len(inner.received), 8 * PIECE)
        self.assertEqual(self._take(transport, len(sent)), sent)

    def test_resumed_once(self) -> None:
        """Reading goes on after one `resumeProducing`, however often it was paused."""
        inner = Inner()
        transport = self._connect(inner)
        inner.transport.pauseProducing()
        inner.transport.pauseProducing()
        transport.deliver(b"data")
        self._pass_time()
        self.assertEqual(inner.received, b"")
        inner.transport.resumeProducing()
        self._pass_time(lambda: inner.received)
        self.assertEqual(inner.received, b"data")

    def test_paused_within_events(self) -> None:
        """Who pauses reading, from the start or at any read, is told nothing more."""
        inner = Inner()

        def pause() -> None:
            inner.transport.pauseProducing()

        inner.then.update(connectionMade=pause, dataReceived=pause)
        transport = self._connect(inner)
        sent = b"".join(b"%07d\n" % number for number in range(2**15))
        transport.deliver(sent)
        self._pass_time()
        self.assertEqual(inner.events[-1], "connectionMade")

        def told() -> int:
            return inner.events.count("dataReceived")

        while inner.received != sent:
            before = told()
            inner.transport.resumeProducing()
            self._pass_time(lambda: told() > before)  # noqa: B023 - called at once
            self._pass_time()
            self.assertEqual(told(), before + 1)
