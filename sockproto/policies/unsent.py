"""
Back-pressure around protocols that have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from sockproto.checks import whole_number
from sockproto.transports import (
    ProducerLayer,
    go_on_closing,
    has_to_read,
    innermost,
    pause_until_sent,
    unsent,
)
from sockproto.wrapping import FactoryWrapper, ReadingHolder, accountable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IProtocol, IProtocolFactory

__all__ = ["UnsentLimit"]

LOWEST = 65_536
"""Bytes: as many as a transport takes before it pauses a producer by itself."""

HIGHEST = 1 << 40


@implementer(IPushProducer)
class _Tap(ProducerLayer):
    """
    What the transport knows as the producer: it hears first when all is taken.

    Args:
        connection: what is told of it.
        producer: the inner protocol's own, if it has one: it is asked as ever.
        pulls: whether that is a pull producer.
    """

    def __init__(
        self,
        connection: _BoundedConnection,
        producer: Any = None,
        *,
        pulls: bool = False,
    ) -> None:
        self.producer = producer
        self.comes = False
        """It comes while much is unsent: it is not paused before it writes itself."""
        self.paused = False
        self._connection = connection
        self._pulls = pulls

    def pauseProducing(self) -> None:
        if self.producer is not None and not (self.comes or self.paused):
            self.paused = True
            self.producer.pauseProducing()

    def resumeProducing(self) -> None:
        connection = self._connection
        still_full = connection.look_what_is_taken()
        # TLS resumes once its handshake is over, whatever is unsent below it.
        if self._pulls or (self._is_to_be_told() and not still_full):
            self.paused = False
            self.producer.resumeProducing()
        elif not still_full:
            go_on_closing(connection.transport)

    def _is_to_be_told(self) -> bool:
        """
        Tell whether it waits for that: we paused it, or it is another limit's.

        That waits also if TLS, which asks only once, has paused us as it came.
        """
        producer = self.producer
        while isinstance(producer, ProducerLayer) and not isinstance(producer, _Tap):
            producer = producer.producer
        return self.paused or isinstance(producer, _Tap)

    def stopProducing(self) -> None:
        if self.producer is not None:
            self.producer.stopProducing()


class _BoundedConnection(ReadingHolder):
    """
    Looks at what is unsent with each write.

    The transport's producer is a tap: of the inner protocol's producer, or, while
    reading is held up, of none.
    """

    factory: UnsentLimit

    _tap: _Tap | None = None
    _closing = False
    _aborted = False

    def write(self, data: bytes) -> None:
        if not self._aborted:  # a transport takes what comes until its next turn
            self.transport.write(data)
            self._look()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        if not self._aborted:
            self.transport.writeSequence(data)
            self._look()

    def _look(self) -> None:
        size = unsent(self.transport)
        factory = self.factory
        if size > factory.abort_above:
            self._aborted = True
            factory.aborted += 1
            self.abort(
                f"{size} bytes are unsent, where {factory.abort_above} are allowed"
            )
        elif size > factory.pause_above and not self._closing:
            if self._may_hold():
                self._wait()
                self.hold_reading()
            else:
                self._release()

    def _may_hold(self) -> bool:
        """Somebody outside may be closing it; and TLS may have to read to send."""
        low: Any = innermost(self.transport)
        return not (getattr(low, "disconnecting", False) or has_to_read(self.transport))

    def look_what_is_taken(self) -> bool:
        """
        Read again, if all is taken; tell whether it is not, and we are not reading.
        """
        if self._holding:
            if unsent(self.transport) and self._may_hold():
                self._wait()
            else:
                self._release()
        return self._holding

    def _wait(self) -> None:
        """
        Have the transport tell when all is taken.

        With TLS that may be in two parts, neither of which is much for a transport.
        """
        if self._tap is None:
            tap = _Tap(self)
            self.transport.registerProducer(tap, True)
            self._tap = tap
        pause_until_sent(self.transport)

    def _release(self) -> None:
        # A transport has one producer, and waits for it with its close.
        if self._tap is not None and self._tap.producer is None:
            self._unregister()
        self.release_reading()

    def _unregister(self) -> None:
        self._tap = None
        self.transport.unregisterProducer()
        go_on_closing(self.transport)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._tap is not None:
            if self._tap.producer is not None:
                self.transport.registerProducer(producer, streaming)  # it raises
                return
            self.transport.unregisterProducer()
        self._tap = tap = _Tap(self, producer, pulls=not streaming)
        # The close is to wait for one that comes after it, until that is asked.
        tap.paused = self._closing and unsent(self.transport) > 0
        try:
            self.transport.registerProducer(tap, streaming)
        except RuntimeError:  # there is one, of somebody else's
            self._tap = None
            raise
        tap.comes = True
        self.look_what_is_taken()
        tap.comes = False

    def unregisterProducer(self) -> None:
        self._unregister()
        if self._closing:
            self._release()
        else:
            self.look_what_is_taken()

    def startTLS(self, *args: Any, **kwargs: Any) -> Any:
        self._release()  # it reads, to shake hands
        started = super().startTLS(*args, **kwargs)
        if self._tap is not None and self._tap.paused:
            # What Twisted has put in between does not know of it.
            pause_until_sent(self.transport)
        return started

    def loseConnection(self) -> None:
        self._step_aside()
        self.transport.loseConnection()

    def loseWriteConnection(self) -> None:
        self._step_aside()
        self.transport.loseWriteConnection()

    def stopProducing(self) -> None:
        self._step_aside()
        self.transport.stopProducing()

    def _step_aside(self) -> None:
        self._closing = True
        if self._tap is None or self._tap.producer is None:
            self._release()


class UnsentLimit(FactoryWrapper[_BoundedConnection]):
    """
    Bounds what a connection has written and its peer has not taken.

    Above `pause_above` it is not read from, until all is taken; above
    `abort_above` it is aborted. It is for protocols that answer what they read and
    register no producer; those of this package do. As long as TLS has to read before
    it can send, to shake hands, it is read from.

    Args:
        inner: builds the protocols to guard.
        pause_above: in bytes, from 65,536.
        abort_above: in bytes, not below `pause_above`.

    Attributes:
        aborted: how many connections it has aborted.

    Raises:
        SettingError: a bound is no such number.
    """

    def __init__(
        self,
        inner: IProtocolFactory,
        *,
        pause_above: int = LOWEST,
        abort_above: int = 1 << 20,
    ) -> None:
        super().__init__(inner)
        self.pause_above = whole_number("pause_above", pause_above, LOWEST, HIGHEST)
        self.abort_above = whole_number(
            "abort_above", abort_above, self.pause_above, HIGHEST
        )
        self.aborted = 0

    def wrap(self, inner: IProtocol) -> _BoundedConnection:
        return _BoundedConnection(self, accountable(inner))
