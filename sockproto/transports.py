"""
What a stream's transport can do and what it holds, whichever it is.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol as Structure, cast

from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.protocols.policies import ProtocolWrapper

if TYPE_CHECKING:
    from twisted.internet.address import IPv4Address, IPv6Address
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress

__all__ = [
    "DatagramTransport",
    "Layer",
    "StreamTransport",
    "innermost",
    "passes_half_close",
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


def unsent(transport: object) -> int:
    """
    Bytes that were written and that the kernel has not taken yet.

    Twisted has no public word for it, asyncio has; a transport that has neither that
    method, as those of `sockproto.uvreactor` have, nor Twisted's attributes counts as
    one that holds nothing.
    """
    held = _held_by_transport(innermost(transport))
    while isinstance(transport, ProtocolWrapper | Layer):
        if isinstance(transport, ProtocolWrapper):
            held += _held_by_tls(transport)
        transport = transport.transport
    return held


def _held_by_transport(low: Any) -> int:
    if hasattr(low, "get_write_buffer_size"):
        return cast("int", low.get_write_buffer_size())
    sending = len(getattr(low, "dataBuffer", b"")) - getattr(low, "offset", 0)
    return sending + cast("int", getattr(low, "_tempDataLen", 0))


def _held_by_tls(wrapper: object) -> int:
    """Bytes that wait for the end of a handshake, or for the reactor's next turn."""
    held = vars(wrapper)  # a wrapper has its transport's attributes, too
    size = sum(map(len, held.get("_appSendBuffer", ())))
    small: Any = held.get("_aggregator")
    if hasattr(small, "_bufferLeft"):
        size += small.MAX_BUFFER_SIZE - small._bufferLeft  # noqa: SLF001
    return size


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
