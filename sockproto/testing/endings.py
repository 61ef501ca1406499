"""
How a connection ends, and each of its directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol

from sockproto.testing.clauses import PIECE, Clauses
from sockproto.testing.inner import HalfCloseable, Inner, Producer

if TYPE_CHECKING:
    from sockproto.testing.memory import MemoryTransport

__all__ = ["Endings"]


class Endings(Clauses):
    """
    Half-close, close and abort are what they are without a wrapper.
    """

    # Half-close

    def test_half_close_is_as_inner_has_it(self) -> None:
        """Half-close is offered where the inner protocol has it, and only there."""
        for kind, expected in ((Inner, False), (HalfCloseable, True)):
            transport = self._connect(kind())
            found = IHalfCloseableProtocol(transport.protocol, None)
            self.assertEqual(found is not None, expected, kind)

    def test_input_ends(self) -> None:
        """Who knows half-close is told the end of the input, and goes on writing."""
        inner = HalfCloseable()
        transport = self._connect(inner)
        transport.deliver(b"question")
        transport.end_input()
        self._pass_time(lambda: "readConnectionLost" in inner.events)
        self.assertEqual(inner.received, b"question")
        self.assertEqual(inner.events[-1], "readConnectionLost")
        self._pass_time()
        self.assertEqual(inner.events.count("readConnectionLost"), 1)
        self.assertEqual(inner.reasons, [])
        answer = b"answer" * 50_000
        inner.transport.write(answer)
        self.assertEqual(self._take(transport, len(answer)), answer)
        inner.transport.loseConnection()
        self.assertEqual(self._lost_after(transport, inner), ConnectionDone)
        self.assertTrue(transport.output_ended)

    def test_input_ends_for_others(self) -> None:
        """To who knows no half-close the end of the input is that of the connection."""
        inner = Inner()
        transport = self._connect(inner)
        transport.deliver(b"question" * 20_000)
        transport.end_input()
        self.assertEqual(self._lost_after(transport, inner), ConnectionDone)
        self.assertEqual(inner.received, b"question" * 20_000)
        self.assertFalse(transport.aborted)

    def test_input_ends_while_paused(self) -> None:
        """The end of the input is told after the input, however late that is read."""
        inner = HalfCloseable()
        transport = self._connect(inner)
        inner.transport.pauseProducing()
        transport.deliver(b"question")
        transport.end_input()
        self._pass_time()
        self.assertEqual(inner.events[-1], "connectionMade")
        inner.transport.resumeProducing()
        self._pass_time(lambda: "readConnectionLost" in inner.events)
        self.assertEqual(inner.events[-2:], ["dataReceived", "readConnectionLost"])

    def test_output_ends(self) -> None:
        """`loseWriteConnection` sends the unsent, then end of file; input goes on."""
        inner = HalfCloseable()
        transport = self._connect(inner)
        answer = b"answer" * 50_000
        inner.transport.write(answer)
        inner.transport.loseWriteConnection()
        self.clock.advance(0)
        self.assertFalse(transport.output_ended)
        self.assertNotIn("writeConnectionLost", inner.events)
        self.assertEqual(self._take(transport, len(answer)), answer)
        self._pass_time(lambda: "writeConnectionLost" in inner.events)
        self.assertEqual(inner.events.count("writeConnectionLost"), 1)
        self.assertTrue(transport.output_ended)
        transport.deliver(b"more")
        self._pass_time(lambda: inner.received)
        self.assertEqual(inner.received, b"more")
        self.assertEqual(inner.reasons, [])
        inner.transport.loseConnection()
        self.assertEqual(self._lost_after(transport, inner), ConnectionDone)

    # Closing

    def test_close(self) -> None:
        """`loseConnection` sends what is unsent, then closes; no more is read."""
        inner = Inner()
        transport = self._connect(inner)
        answer = b"answer" * 50_000
        self.assertFalse(inner.transport.disconnecting)
        inner.transport.write(answer)
        inner.transport.loseConnection()
        self.assertTrue(inner.transport.disconnecting)
        transport.deliver(b"late")
        self.clock.advance(0)
        self.assertEqual(inner.reasons, [])
        self.assertEqual(self._lost_after(transport, inner), ConnectionDone)
        self.assertEqual(transport.taken, answer)
        self.assertTrue(transport.output_ended)
        self.assertEqual(inner.received, b"")

    def test_abort(self) -> None:
        """`abortConnection` sends a reset, whatever is unsent, and no byte is told."""
        inner = Inner()
        transport = self._connect(inner)
        inner.transport.write(b"answer" * 50_000)
        inner.transport.abortConnection()
        transport.deliver(b"late")
        self._pass_time(lambda: inner.reasons)
        self.assertEqual([each.type for each in inner.reasons], [ConnectionAborted])
        self.assertTrue(transport.aborted)
        self.assertEqual(inner.received, b"")

    def test_stop_producing(self) -> None:
        """`stopProducing` of the transport, as a consumer calls it, closes in order."""
        inner = Inner()
        transport = self._connect(inner)
        inner.transport.write(b"last words")
        inner.transport.stopProducing()
        self.assertEqual(self._lost_after(transport, inner), ConnectionDone)
        self.assertEqual(transport.taken, b"last words")

    def test_end_within_events(self) -> None:
        """A protocol may close, abort or end its output at whatever it is told."""
        reasons: dict[str, type[Exception] | None] = {
            "loseConnection": ConnectionDone,
            "abortConnection": ConnectionAborted,
            "loseWriteConnection": None,
        }
        for event in ("connectionMade", "dataReceived", "readConnectionLost"):
            for ending, reason in reasons.items():
                inner = HalfCloseable()

                def end(inner: Inner = inner, ending: str = ending) -> None:
                    inner.transport.write(b"last words")
                    getattr(inner.transport, ending)()

                inner.then[event] = end
                transport = self._connect(inner)
                transport.deliver(b"data")
                transport.end_input()
                self._check_end(inner, transport, reason, f"{ending} in {event}")

    def test_end_within_producer(self) -> None:
        """A producer may close, abort or end the output at whatever it is asked."""
        reasons: dict[str, type[Exception] | None] = {
            "loseConnection": ConnectionDone,
            "abortConnection": ConnectionAborted,
            "loseWriteConnection": None,
        }
        for event in ("pauseProducing", "resumeProducing"):
            for ending, reason in reasons.items():
                inner = HalfCloseable()
                producer = Producer()

                def end(
                    inner: Inner = inner,
                    producer: Producer = producer,
                    ending: str = ending,
                ) -> None:
                    producer.then.clear()
                    inner.transport.unregisterProducer()
                    inner.transport.write(b"last words")
                    getattr(inner.transport, ending)()

                producer.then[event] = end
                transport = self._connect(inner)
                inner.transport.registerProducer(producer, True)
                inner.transport.write(b"x" * 2 * PIECE)
                self._check_end(inner, transport, reason, f"{ending} in {event}")

    def _check_end(
        self,
        inner: Inner,
        transport: MemoryTransport,
        reason: type[Exception] | None,
        message: str,
    ) -> None:
        """Check that it ends as the protocol said."""

        def done() -> bool:
            transport.take()
            return bool(inner.reasons) or "writeConnectionLost" in inner.events

        self._pass_time(done)
        self.assertEqual(
            [each.type for each in inner.reasons], [reason] if reason else [], message
        )
        self.assertEqual(transport.aborted, reason is ConnectionAborted, message)
        if reason is None:
            self.assertIn("writeConnectionLost", inner.events, message)
        if reason is not ConnectionAborted:
            self.assertTrue(transport.output_ended, message)
            self.assertEqual(transport.taken[-10:], b"last words", message)
