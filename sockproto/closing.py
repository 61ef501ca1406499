"""
An orderly close: our side first, and then a little patience.

A `close()` on a socket with unread input sends a reset, and a reset takes the
last words from the peer. So we end our side first, and go on reading, and
discarding, for a little while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.protocols.policies import ProtocolWrapper

from sockproto.transports import innermost, passes_half_close, under_layers, unsent

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from sockproto.transports import StreamTransport

__all__ = ["LONGEST_LAST_WORDS", "OrderlyClose", "close_at_once"]

LINGER_SECONDS = 1.0
"""How long we listen to a peer to whom we have said our last word."""

LINGER_SIZE = 65_536
"""Bytes of a peer's that we discard meanwhile."""


LONGEST_LAST_WORDS = 4_096
"""Bytes that any kernel takes at once, whether or not the peer reads them."""


class OrderlyClose:
    """
    Ends one connection. Its protocol hands on what the transport tells it.

    Args:
        transport: the connection's; what was written to it is still sent.
        clock: measures the patience; the reactor, outside tests.
    """

    __slots__ = ("_clock", "_discarded", "_said_last_word", "_timer", "_transport")

    def __init__(self, transport: StreamTransport, clock: IReactorTime) -> None:
        self._transport = transport
        self._clock = clock
        self._discarded = 0
        self._said_last_word = False
        self._timer: IDelayedCall | None = None

    def begin(self, *, input_ended: bool) -> None:
        """
        Close our side.

        Args:
            input_ended: whether the peer has ended its side already.
        """
        transport = self._transport
        if input_ended:
            close_at_once(transport)
            return
        _release_producer(transport)
        if passes_half_close(transport):
            transport.loseWriteConnection()
            transport.resumeProducing()
        else:
            transport.loseConnection()
            if _has_layers(transport):
                self._linger_behind_layers()

    def data_received(self, size: int) -> None:
        """The peer sent so many bytes more, which nobody will read."""
        self._discarded += size
        if self._discarded <= LINGER_SIZE:
            return
        if self._said_last_word:
            self._transport.loseConnection()
        else:
            self._transport.pauseProducing()

    def read_connection_lost(self) -> None:
        """The peer has ended its side."""
        self._transport.loseConnection()

    def write_connection_lost(self) -> None:
        """All is sent, our end of file too."""
        self._said_last_word = True
        if self._discarded > LINGER_SIZE:
            self._transport.loseConnection()
        elif self._timer is None:
            self._timer = self._clock.callLater(LINGER_SECONDS, self._end)

    def connection_lost(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        self._transport.loseConnection()

    def _linger_behind_layers(self) -> None:
        """
        Bound how long TLS waits for the peer's close_notify.

        No callback tells when its last bytes have left; so look each second.
        """

        def look() -> None:
            self._timer = None
            if unsent(self._transport):
                self._linger_behind_layers()
                return
            _under_tls(innermost(self._transport)).loseConnection()

        self._timer = self._clock.callLater(LINGER_SECONDS, look)


def close_at_once(transport: StreamTransport) -> None:
    """
    Close a connection whose input has ended: there is nothing to be patient for.
    """
    _release_producer(transport)
    transport.loseConnection()


def _release_producer(transport: StreamTransport) -> None:
    # A transport waits with its close until its producer is done. Some complain
    # if there was none; Twisted's own for unit tests does.
    try:  # noqa: SIM105 - each connection comes here, and pays
        transport.unregisterProducer()
    except RuntimeError:
        pass


def _has_layers(transport: object) -> bool:
    """Tell whether another's wrapper, or TLS, may wait for the peer with its close."""
    under = under_layers(transport)
    return isinstance(under, ProtocolWrapper) or getattr(under, "TLS", False)


def _under_tls(low: Any) -> StreamTransport:
    """After `startTLS`, a transport's own methods are those of its TLS."""
    if getattr(low, "TLS", False):
        low = low.protocol.transport
    return cast("StreamTransport", low)
