"""
What a stream's transport can do and what it holds, whichever it is.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol as Structure, cast

from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.protocols.policies import ProtocolWrapper

if TYPE_CHECKING:
    from twisted.internet.address import IPv4Address, IPv6Address
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress

__all__ = [
    "DatagramTransport",
    "StreamTransport",
    "innermost",
    "passes_half_close",
    "pending_error",
    "unsent",
]


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


def passes_half_close(transport: object) -> bool:
    """
    Tell whether one direction of this transport can be closed alone.

    Stock wrappers, Twisted's TLS among them, claim each interface of the
    transport that they wrap, but end the connection with the peer's input, and
    would let `loseWriteConnection` overtake what they still hold.
    """
    return (
        IHalfCloseableDescriptor.providedBy(transport)
        and not isinstance(transport, ProtocolWrapper)
        and not getattr(transport, "TLS", False)
    )


def unsent(transport: object) -> int:
    """
    Bytes that were written and that the kernel has not taken yet.

    Twisted has no public word for it; a transport that has not these
    attributes counts as one that holds nothing.
    """
    held = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    return held + cast("int", getattr(transport, "_tempDataLen", 0))


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
    Find the transport under stock wrappers, the one with the socket.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return cast("StreamTransport", transport)
