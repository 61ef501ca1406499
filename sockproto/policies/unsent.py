"""
Back-pressure around protocols that have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from sockproto.checks import whole_number
from sockproto.transports import innermost, unsent
from sockproto.wrapping import FactoryWrapper, ReadingHolder, accountable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IProtocol, IProtocolFactory

__all__ = ["UnsentLimit"]

LOWEST = 65_536
"""Bytes. With fewer unsent, Twisted's transports do not tell when all is taken."""

HIGHEST = 1 << 40


@implementer(IPushProducer)
class _Tap:
    """
    What the transport knows as the producer: it hears first when all is taken.
    """

    def __init__(
        self,
        connection: _BoundedConnection,
        producer: Any = None,
        *,
        pulls: bool = False,
    ) -> None:
        self._connection = connection
        self._producer = producer
        self._pulls = pulls

    def pauseProducing(self) -> None:
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        still_full = self._connection.look_what_is_taken()
        # TLS resumes once its handshake is over, whatever is unsent below it.
        if self._producer is not None and (self._pulls or not still_full):
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        if self._producer is not None:
            self._producer.stopProducing()


class _BoundedConnection(ReadingHolder):
    """
    Looks at what is unsent with each write.
    """

    factory: UnsentLimit

    _produces = False  # the inner protocol has a producer of its own
    _closing = False
    _aborted = False

    def makeConnection(self, transport: Any) -> None:
        transport.registerProducer(_Tap(self), True)
        super().makeConnection(transport)

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
            self.hold_reading()

    def look_what_is_taken(self) -> bool:
        """
        Read again, if all is taken; tell whether it is not, and we are not reading.
        """
        if not unsent(self.transport):
            self.release_reading()
            low: Any = innermost(self.transport)
            if not self._produces and getattr(low, "disconnecting", False):
                # Somebody outside closes it: it waits for its producer, which is us.
                self._step_aside()
        elif self._holding:
            self._ask_to_be_told()
        return self._holding

    def _ask_to_be_told(self) -> None:
        """
        Have the transport tell when all is taken.

        It tells only those whom it has paused, and forgets that with the producer.
        """
        low: Any = innermost(self.transport)
        producer = getattr(low, "producer", None)
        if producer is not None and low.streamingProducer:
            low.producerPaused = True
            producer.pauseProducing()

    # A transport has one producer, and waits for it with its close.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if not self._produces:
            self._produces = True
            if not self._closing:
                self.transport.unregisterProducer()
            producer = _Tap(self, producer, pulls=not streaming)
        self.transport.registerProducer(producer, streaming)
        self.look_what_is_taken()

    def unregisterProducer(self) -> None:
        self.transport.unregisterProducer()
        self._produces = False
        if self._closing:
            self.release_reading()
        else:
            self.transport.registerProducer(_Tap(self), True)
            self.look_what_is_taken()

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
        if not self._closing:
            self._closing = True
            if not self._produces:
                self.transport.unregisterProducer()
                self.release_reading()


class UnsentLimit(FactoryWrapper[_BoundedConnection]):
    """
    Bounds what a connection has written and its peer has not taken.

    Above `pause_above` it is not read from, until all is taken; above
    `abort_above` it is aborted. It is for protocols that answer what they read and
    register no producer; those of this package do.

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
