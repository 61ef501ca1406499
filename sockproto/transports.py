"""
What a stream's transport can do, what it holds and what it asks its producer for,
whichever it is.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol as Structure, cast

from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.protocols.policies import ProtocolWrapper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.address import IPv4Address, IPv6Address
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress

__all__ = [
    "DatagramTransport",
    "Layer",
    "ProducerLayer",
    "StreamTransport",
    "buffered",
    "go_on_closing",
    "has_to_read",
    "innermost",
    "is_being_started",
    "passes_half_close",
    "pause_until_sent",
    "pending_error",
    "taken_so_far",
    "under_layers",
    "unread",
    "unsent",
]


class Layer:
    """
    Stands between a transport and a protocol, and hands on what either can do.
    """

    transport: Any = None


class ProducerLayer:
    """
    Stands between a transport and a producer.
    """

    producer: Any


class StreamTransport(Structure):
    """
    What we call on the transport of a stream.
    """

    def write(self, data: bytes, /) -> None: ...
    def loseConnection(self) -> None: ...
    def loseWriteConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def registerProducer(self, producer: object, streaming: bool, /) -> None: ...
    def unregisterProducer(self) -> None: ...
    def getPeer(self) -> IAddress: ...
    def setTcpNoDelay(self, enabled: bool, /) -> None: ...


class DatagramTransport(Structure):
    """
    What we call on a UDP socket; connected, it wants no address.
    """

    def write(
        self, datagram: bytes, addr: tuple[str, int] | None = None, /
    ) -> None: ...
    def getHost(self) -> IPv4Address | IPv6Address: ...
    def stopListening(self) -> Deferred[None] | None: ...


def under_layers(transport: object) -> object:
    """
    Find the transport under those layers that hide nothing of it.
    """
    while isinstance(transport, Layer):
        transport = transport.transport
    return transport


def passes_half_close(transport: object) -> bool:
    """
    Tell whether one direction of this transport can be closed alone.

    Stock wrappers, Twisted's TLS among them, claim each interface of the
    transport that they wrap, but end the connection with the peer's input, and
    would let `loseWriteConnection` overtake what they still hold.
    """
    transport = under_layers(transport)
    return (
        IHalfCloseableDescriptor.providedBy(transport)
        and not isinstance(transport, ProtocolWrapper)
        and not getattr(transport, "TLS", False)
    )


def buffered(transport: object) -> int:
    """
    Bytes that the transport with the socket itself has, and that are on their way.

    Over TLS, that is what has been encrypted; otherwise it is what is `unsent`.
    """
    low: Any = innermost(transport)
    if hasattr(low, "get_write_buffer_size"):
        return cast("int", low.get_write_buffer_size())
    sending = len(getattr(low, "dataBuffer", b"")) - getattr(low, "offset", 0)
    return sending + cast("int", getattr(low, "_tempDataLen", 0))


def unsent(transport: object) -> int:
    """
    Bytes that were written and that the kernel has not taken yet.

    Twisted has no public word for it, asyncio has; a transport that has neither that
    method, as those of `sockproto.uvreactor` have, nor Twisted's attributes counts as
    one that holds nothing.
    """
    held = buffered(transport)
    for layer in _tls_above(transport):
        held += _waiting_for_hands(layer)
        small: Any = layer.get("_aggregator")
        if hasattr(small, "_bufferLeft"):
            held += small.MAX_BUFFER_SIZE - small._bufferLeft  # noqa: SLF001
    return held


def has_to_read(transport: object) -> bool:
    """
    Tell whether TLS has to hear of the peer before it can send what was written.
    """
    return any(map(_waiting_for_hands, _tls_above(transport)))


def _tls_above(transport: Any) -> Iterator[dict[str, Any]]:
    """What the layers of Twisted's TLS have as their own, of a connection."""
    while isinstance(transport, ProtocolWrapper | Layer):
        if isinstance(transport, ProtocolWrapper):
            yield vars(transport)  # a wrapper has its transport's attributes, too
        transport = transport.transport
    protocol = getattr(transport, "protocol", None)
    if protocol is not None and getattr(transport, "TLS", False):
        yield vars(protocol)  # it was started, and the transport writes to it


def _waiting_for_hands(layer: dict[str, Any]) -> int:
    """Bytes that wait for the end of a handshake."""
    return sum(map(len, layer.get("_appSendBuffer", ())))


def pause_until_sent(transport: object) -> None:
    """
    Pause the push producer of a transport until all is sent, however little it is.

    Twisted's resume only whom they have paused, which they do above 64 KiB.
    """
    low: Any = innermost(transport)
    if hasattr(low, "pause_producer_until_sent"):
        low.pause_producer_until_sent()
        return
    producer = getattr(low, "producer", None)
    if producer is not None and getattr(low, "streamingProducer", False):
        low.producerPaused = True
        producer.pauseProducing()


def is_being_started(producer: object) -> bool:
    """
    Tell whether it is TLS's for a pull producer, and cannot be paused yet.

    It registers that, and starts it afterwards.
    """
    while isinstance(producer, ProducerLayer):
        producer = producer.producer
    pulling = getattr(producer, "_producer", None)
    return isinstance(pulling, _PullToPush) and not hasattr(pulling, "_coopTask")


def go_on_closing(transport: object) -> None:
    """
    Have a close, of the connection or of its output, wait no longer for a producer.

    Twisted's transports go on by themselves with one that was unregistered, but not
    with `loseWriteConnection`; nor with one that they were to resume and that makes
    no use of it.
    """
    low: Any = innermost(transport)
    if hasattr(low, "go_on_closing"):
        low.go_on_closing()
        return
    ending = getattr(low, "disconnecting", False) or (
        getattr(low, "_writeDisconnecting", False) and not low._writeDisconnected  # noqa: SLF001
    )
    if ending and low.connected and hasattr(low, "startWriting"):
        low.startWriting()


def taken_so_far(transport: object, written: int) -> object:
    """
    Have something that is another each time the peer has taken bytes of ours.

    A kernel takes more of us only when a third of its buffer is free again: to a
    slow peer, that may be a minute's work. So what it still holds counts too, where
    it tells; that shrinks with what the peer's kernel has acknowledged.

    Args:
        transport: the connection's, with something unsent.
        written: bytes that were written to it in all.
    """
    low = innermost(transport)
    sending = getattr(low, "dataBuffer", None)
    if sending is None:
        taken = written - unsent(transport)
        if hasattr(low, "get_write_buffer_size"):
            return taken, _queued(low, termios.TIOCOUTQ)
        return taken
    # Twisted's own: only what was written since grows meanwhile, in another place,
    # a list that is another after each time the socket could be written to; by
    # it alone we know of what was taken if all was, and more was written since.
    # Over TLS, what is unsent and what was written are not of the same bytes.
    return _Sending(
        sending,
        getattr(low, "offset", 0),
        getattr(low, "_tempDataBuffer", None),
        _queued(low, termios.TIOCOUTQ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Sending:
    """A buffer that is being sent, how far it is, and what is before and after."""

    buffer: bytes
    offset: int
    later: object
    before: int

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Sending)
            and other.buffer is self.buffer
            and other.offset == self.offset
            and other.later is self.later
            and other.before == self.before
        )

    __hash__ = None  # type: ignore[assignment]


def unread(transport: object) -> int:
    """
    Bytes that the kernel holds for us; 0 where there is no telling.

    Over TLS they are of ciphertext.
    """
    return _queued(transport, termios.FIONREAD)


def _queued(transport: object, queue: int) -> int:
    """Ask for the length of one of a socket's queues (tty_ioctl(4), tcp(7))."""
    low: Any = innermost(transport)
    try:
        # After `startTLS`, `getHandle` has OpenSSL's.
        handle = low.socket if hasattr(low, "socket") else low.getHandle()
    except AttributeError:  # it has none, or has none any more
        return 0
    if not isinstance(handle, socket.socket) or handle.fileno() < 0:
        return 0
    length = array("i", [0])
    try:
        fcntl.ioctl(handle, queue, length)
    except OSError:
        return 0
    return length[0]


def pending_error(transport: object) -> int:
    """
    Take the error number that waits on the transport's socket; 0 for none.

    With epoll, Twisted takes a reset for an end of file when the kernel reports
    the error a moment before the hang-up. The error is still there then.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, socket.socket) or handle.fileno() < 0:
        return 0
    return handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def innermost(transport: object) -> StreamTransport:
    """
    Find the transport under all wrappers, the one with the socket.
    """
    while isinstance(transport, ProtocolWrapper | Layer):
        transport = transport.transport
    return cast("StreamTransport", transport)
