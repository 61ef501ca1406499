"""
Bytes a second, of each connection and of all together.

Theory of operation. Nothing is ever held back: what was read is handed on, and
what is written is sent. What was more than the rate allows is a debt, and until
it is paid we do not read, or pause the producer; so the network's own flow control
does the rest, and nothing piles up. A transport is told to read little at a time
where the rate is low, so that the debts are small.

Connections that share a rate pay by turns, a quantum each at most (after Shreedhar
and Varghese, "Efficient fair queuing using deficit round robin", 1995). Each may
owe that much before it has to wait, so who moves small pieces gets as many bytes a
second as who moves large ones; and nobody pays for more than has passed, so those
who say little cost the others little, however many they are.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.protocol import connectionDone
from zope.interface import implementer

from sockproto.checks import above_zero, clock as checked_clock, instance
from sockproto.interfaces import Debt
from sockproto.transports import ProducerLayer, innermost, is_being_started, unread
from sockproto.wrapping import (
    ConnectionWrapper,
    FactoryWrapper,
    ReadingHolder,
    accountable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import (
        IDelayedCall,
        IProtocol,
        IProtocolFactory,
        IReactorTime,
    )
    from twisted.python.failure import Failure

__all__ = ["RateLimit", "TotalRate"]

SMOOTH_SECONDS = 0.05
"""What may pass at once is what the rate allows in this time."""

SHORTEST_SECONDS = 0.001
"""No wait is shorter: by the least of floats a clock would not even move."""

SMALLEST_PIECE = 256
"""Bytes of the smallest read that we ask for, however low the rate."""

LARGEST_PIECE = 65_536
"""Bytes that Twisted's transports read at most, and that are paid in one turn."""


TURN_SECONDS = 0.01
"""A turn's worth of a shared rate: of 20 that share, each has to wait for 19 turns."""


def _piece(rate: float, seconds: float = SMOOTH_SECONDS) -> int:
    return int(min(max(rate * seconds, SMALLEST_PIECE), LARGEST_PIECE))


class _Purse:
    """
    Fills at a rate, up to what may be spent at once; and may be overdrawn.
    """

    __slots__ = ("_bytes", "_full", "_now", "_rate", "_then")

    def __init__(self, rate: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._full = self._bytes = rate * SMOOTH_SECONDS
        self._now = now
        self._then = now()

    def spend(self, size: int) -> float:
        """Take so much out; return the seconds until nothing is owed, or 0."""
        self._fill()
        self._bytes -= size
        if self._bytes >= 0:
            return 0.0
        return max(-self._bytes / self._rate, SHORTEST_SECONDS)

    def pays(self, size: int) -> bool:
        """Take so much out, unless something is owed already."""
        self._fill()
        if self._bytes < 0:
            return False
        self._bytes -= size
        return True

    def debt(self) -> float:
        """Bytes that are owed now, or 0."""
        self._fill()
        return max(0.0, -self._bytes)

    def _fill(self) -> None:
        now = self._now()
        passed = now - self._then
        self._then = now
        # A clock that was set back gives nothing, and one set forward its fill.
        if passed > 0:
            self._bytes = min(self._full, self._bytes + passed * self._rate)


class _Flow:
    """
    One direction of one connection; `held` while it has spent too much.
    """

    __slots__ = ("_changed", "_clock", "_purse", "_timer", "_total", "held", "owed")

    def __init__(
        self, limit: RateLimit, total: _Turns | None, changed: Callable[[], None]
    ) -> None:
        clock = limit.clock
        self._clock = clock
        self._purse = _Purse(limit.rate, clock.seconds) if limit.rate else None
        self._total = total
        self._changed = changed
        self._timer: IDelayedCall | None = None
        self.owed = 0
        self.held = False

    def spend(self, size: int) -> None:
        """So many bytes have passed."""
        if self._purse is not None:
            wait = self._purse.spend(size)
            if wait and self._timer is None:
                self._timer = self._clock.callLater(wait, self._recovered)
        if self._total is not None:
            self._total.spend(self, size)
        if (self._timer is not None or self.owed) and not self.held:
            self._hold_if_too_much()

    def _hold_if_too_much(self) -> None:
        if self._owes_too_much():
            self.held = True
            self._changed()

    def _owes_too_much(self) -> bool:
        total = self._total
        return self._timer is not None or (
            total is not None
            and self.owed >= (1 if total.is_behind() else total.quantum)
        )

    def _recovered(self) -> None:
        assert self._purse is not None
        wait = self._purse.spend(0)
        # What was written in spite of it has to be paid too.
        self._timer = self._clock.callLater(wait, self._recovered) if wait else None
        self.settle()

    def settle(self) -> None:
        """Let bytes pass again, if enough is paid."""
        if self.held and not self._owes_too_much():
            self.held = False
            self._changed()

    def close(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._total is not None:
            self._total.forget(self)
        # What is still written to a connection that is gone costs nothing.
        self._purse = self._total = None
        self._changed = _nothing


def _nothing() -> None:
    pass


class _Turns:
    """
    One direction of a rate that many share.
    """

    def __init__(self, rate: float, clock: IReactorTime) -> None:
        self._clock = clock
        self._purse = _Purse(rate, clock.seconds)
        self.quantum = _piece(rate, TURN_SECONDS)
        self._most_left = _piece(rate)
        # In the order of their turns; the values say nothing.
        self._waiting: OrderedDict[_Flow, None] = OrderedDict()
        self._taking = False
        self._timer: IDelayedCall | None = None

    def spend(self, flow: _Flow, size: int) -> None:
        """So many bytes of one's have passed; it waits for its turn to pay them."""
        if (
            size <= self.quantum
            and not self._waiting
            and not self._taking
            and self._purse.pays(size)
        ):
            return  # no more than a turn's worth, and nobody's turn before
        owed_before = flow.owed
        flow.owed += size
        if flow.owed and not owed_before:
            self._waiting[flow] = None
            if self._timer is None and not self._taking:
                self._take_turns()

    def forget(self, flow: _Flow) -> None:
        """
        It has gone; what it owes all others pay, up to what may pass at once. Who
        left a Mebibyte behind must not hold them up for an hour.
        """
        self._waiting.pop(flow, None)
        self._purse.spend(min(flow.owed, self._most_left))
        flow.owed = 0
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def is_behind(self) -> bool:
        """
        Tell whether those who have gone left more than a turn's debt.

        Nobody may owe anything then: who comes, owes and goes, again and again,
        would have more than the rate.
        """
        return self._purse.debt() > self.quantum

    def _take_turns(self) -> None:
        self._timer = None
        self._taking = True
        wait = self._purse.spend(0)
        try:
            while self._waiting and not wait:
                flow, _ = self._waiting.popitem(last=False)
                paid = min(flow.owed, self.quantum)
                flow.owed -= paid
                wait = self._purse.spend(paid)
                if flow.owed:
                    self._waiting[flow] = None
                flow.settle()
        finally:
            # One whose producer raises must not stop the others.
            self._taking = False
            if self._waiting:
                self._timer = self._clock.callLater(wait, self._take_turns)


class TotalRate:
    """
    Bytes a second of all connections together, each direction by itself.

    It is shared by the wrappers whose connections count together. Those that want
    more than there is get the same number of bytes each.

    Args:
        rate: bytes a second, above 0.
        clock: measures; the reactor, outside tests.

    Raises:
        SettingError: `rate` is no number above 0.
    """

    def __init__(self, rate: float, clock: IReactorTime) -> None:
        self.rate = above_zero("rate", rate)
        checked_clock("clock", clock)
        self.inwards = _Turns(rate, clock)
        self.outwards = _Turns(rate, clock)


@implementer(IPushProducer, IPullProducer)
class _PacedProducer(ProducerLayer):
    """
    The inner protocol's producer, asked for more when both the transport takes it
    and the rate allows it.
    """

    def __init__(self, producer: Any, *, streaming: bool) -> None:
        self.producer = producer
        self._streaming = streaming
        self._held = False
        self._unaware = False  # it is held, and was not told yet
        self._full = not streaming  # the transport has not asked for more

    def pauseProducing(self) -> None:
        self._full = True
        if not self._held or self._unaware:
            self._unaware = False
            self.producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._full = False
        if not self._held:
            self._produce()

    def stopProducing(self) -> None:
        self.producer.stopProducing()

    def hold(self, *, from_next_write: bool = False) -> None:
        """
        Ask for no more until `release`.

        Args:
            from_next_write: it cannot be paused yet.
        """
        if self._held and not self._unaware:
            return
        self._held = True
        self._unaware = from_next_write
        if self._streaming and not (self._full or self._unaware):
            self.producer.pauseProducing()

    def release(self) -> None:
        if self._held:
            self._held = False
            if self._unaware:
                self._unaware = False
            elif not self._full:
                self._produce()

    def _produce(self) -> None:
        if not self._streaming:
            self._full = True  # it is asked for one piece at a time
        self.producer.resumeProducing()


class _PacedConnection(ReadingHolder):
    """
    Counts what passes, and stops reading or the producer for what was too much.
    """

    factory: RateLimit

    _producer: _PacedProducer | None = None
    _inwards: _Flow
    _outwards: _Flow

    def makeConnection(self, transport: Any) -> None:
        limit = self.factory
        total = limit.total
        inwards, outwards = (total.inwards, total.outwards) if total else (None, None)
        self._inwards = _Flow(limit, inwards, self._read_or_not)
        self._outwards = _Flow(limit, outwards, self._write_or_not)
        low: Any = innermost(transport)
        if getattr(low, "bufferSize", 0) > limit.piece:
            low.bufferSize = limit.piece
        super().makeConnection(transport)
        if total and not self.lost and total.outwards.is_behind():
            self._outwards.spend(1)  # its first word waits for its turn

    def dataReceived(self, data: bytes) -> None:
        self._inwards.spend(len(data))
        self.inner.dataReceived(data)

    def write(self, data: bytes) -> None:
        self.transport.write(data)
        self._spend(len(data))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        pieces = list(data)
        self.transport.writeSequence(pieces)
        self._spend(sum(map(len, pieces)))

    def _spend(self, size: int) -> None:
        self._outwards.spend(size)
        if self._producer is not None and self._outwards.held:
            self._producer.hold()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._inwards.close()
        self._outwards.close()
        super().connectionLost(reason)
        self._producer = None

    def owed(self) -> Debt:
        debt = ConnectionWrapper.owed(self)
        if self.lost or not (self._inwards.held or self._outwards.held):
            return debt
        # Also if we have stopped the producer alone: it may have stopped reading
        # in its turn.
        return debt + Debt(
            unread=unread(self.transport),
            held_up=self._producer is not None and self._outwards.held,
        )

    def _read_or_not(self) -> None:
        # Who has no producer answers what it reads: there is no other way to stop it.
        answers = self._producer is None and self._outwards.held
        if self._inwards.held or answers:
            self.hold_reading()
        else:
            self.release_reading()

    def _write_or_not(self) -> None:
        if self._producer is None:
            self._read_or_not()
        elif self._outwards.held:
            self._producer.hold()
        else:
            self._producer.release()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        before = self._producer
        paced = _PacedProducer(producer, streaming=streaming)
        self._producer = paced
        if self._outwards.held and not streaming:
            paced.hold()  # it would be asked for a piece at once
        try:
            self.transport.registerProducer(paced, streaming)
        except RuntimeError:  # there is one
            self._producer = before
            raise
        if self._outwards.held and streaming:
            paced.hold(from_next_write=is_being_started(producer))
        self._read_or_not()

    def unregisterProducer(self) -> None:
        self.transport.unregisterProducer()
        self._producer = None
        self._read_or_not()


class RateLimit(FactoryWrapper[_PacedConnection]):
    """
    Limits the bytes a second of each connection, and of all together.

    Each direction counts by itself. What passes at once is what the rate allows
    in 0.05 s, and one read or write more; of a total, so much of each connection.
    It is built on pausing: a protocol that registers no producer is not read from
    while it has written too much.

    Args:
        inner: builds the protocols to slow down.
        clock: measures; the reactor, outside tests.
        rate: bytes a second of one connection, above 0; None for no limit.
        total: what all connections share; None for no limit.

    Raises:
        SettingError: `rate` is no number above 0.
    """

    def __init__(
        self,
        inner: IProtocolFactory,
        clock: IReactorTime,
        *,
        rate: float | None = None,
        total: TotalRate | None = None,
    ) -> None:
        super().__init__(inner)
        self.clock = checked_clock("clock", clock)
        self.rate = None if rate is None else above_zero("rate", rate)
        self.total = None if total is None else instance("total", total, TotalRate)
        self.piece = LARGEST_PIECE if self.rate is None else _piece(self.rate)
        if self.total is not None:
            self.piece = min(self.piece, self.total.inwards.quantum)

    def wrap(self, inner: IProtocol) -> _PacedConnection:
        return _PacedConnection(self, accountable(inner))
