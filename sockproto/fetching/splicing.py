"""
A body's bytes from the socket to a file within the kernel (splice(2)), where that is.

Theory of operation. As long as the rest of a body is nothing but its bytes, there
is nothing in them for us to read. So the transport is paused, and another reader of
the same socket moves what comes through a pipe, in which the kernel keeps pages and
copies none. Over TLS, behind wrappers, or in somebody's unit test there is no such
socket, and the bytes go the usual way.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from zope.interface import implementer

from sockproto.errors import ConnectionWasReset
from sockproto.transports import innermost, passes_half_close

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

__all__ = ["SMALLEST", "Splicing", "Told", "splicing_from", "take_out"]

SMALLEST = 1 << 20
"""Bytes of a rest from which it pays: with less, most of it was read already."""

_NOT_BY_SPLICE = (
    errno.EACCES,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
)
"""
A file that cannot be spliced to (splice(2)), as a terminal or one that is appended to;
or a kernel, or a filter of system calls (seccomp(2)), that has no such thing.
"""

PIPE_SIZE = 1 << 20
"""Bytes; an unprivileged process may ask for no more (pipe(7))."""


@dataclass(frozen=True, slots=True)
class Told:
    """
    Who is told of a splicing.

    Attributes:
        wanted: tells how many bytes more there are to move.
        moved: takes so many bytes out of that pipe.
        ended: is told that the peer has ended its output, or why it is lost.
        refused: is told that this kernel does not do it; nothing was taken.
        lost: is told why the reactor lets go of it.
    """

    wanted: Callable[[], int]
    moved: Callable[[int, int], None]
    ended: Callable[[ConnectionWasReset | None], None]
    refused: Callable[[], None]
    lost: Callable[[Failure], None]


@implementer(IReadDescriptor)
class Splicing:
    """
    Moves what a socket receives into a pipe, and has each piece taken out of it.

    It is begun with `resume`, and is to be closed.

    Args:
        reactor: tells when there is something.
        handle: the socket; it is read by nobody else meanwhile.
        told: is told of it.
    """

    def __init__(self, reactor: Any, handle: socket.socket, told: Told) -> None:
        self._reactor = reactor
        self._told = told
        self._out, self._in = os.pipe()
        self._socket = -1
        try:
            # A number of its own: the transport's is known to the reactor.
            self._socket = os.dup(handle.fileno())
            _enlarge(self._in)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._socket

    def logPrefix(self) -> str:
        return type(self).__name__

    def doRead(self) -> None:
        try:
            size = os.splice(
                self._socket, self._in, min(self._told.wanted(), PIPE_SIZE)
            )
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in _NOT_BY_SPLICE:
                self._told.refused()
                return
            words = (error.strerror or str(error)).lower()
            self._told.ended(ConnectionWasReset(words))
            return
        if size:
            self._told.moved(self._out, size)
        else:
            self._told.ended(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, for one; it does not know that the transport is ours."""
        if self._socket >= 0:
            self.close()
            self._told.lost(reason)

    def pause(self) -> None:
        """Move nothing, for now."""
        self._reactor.removeReader(self)

    def resume(self) -> None:
        """Move what comes."""
        self._reactor.addReader(self)

    def close(self) -> None:
        """Move nothing any more."""
        if self._socket >= 0:
            self._reactor.removeReader(self)
            os.close(self._socket)
            self._socket = -1
        if self._in >= 0:
            os.close(self._in)
            os.close(self._out)
            self._in = -1


def _enlarge(pipe: int) -> None:
    import fcntl

    with suppress(OSError, AttributeError):  # a bound of the system's, or not Linux
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)


def splicing_from(transport: Any, told: Told) -> Splicing | None:
    """
    Have what splices from this transport's socket; None where that cannot be.

    Pause the transport before it is begun.
    """
    reactor = getattr(transport, "reactor", None)
    handle = getattr(transport, "getHandle", lambda: None)()
    if not (
        hasattr(os, "splice")
        and IReactorFDSet.providedBy(reactor)
        and isinstance(handle, socket.socket)
        and innermost(transport) is transport
        and passes_half_close(transport)
    ):
        return None
    try:
        return Splicing(reactor, handle, told)
    except OSError:  # no descriptors are left
        return None


def take_out(pipe: int, size: int, file: Any) -> None:
    """
    Move bytes out of a pipe into a file, unbuffered, of any kind.

    Raises:
        OSError: the disk is full, for one.
    """
    while size:
        try:
            size -= os.splice(pipe, file.fileno(), size)
        except OSError as error:
            if error.errno not in _NOT_BY_SPLICE:
                raise
            view = memoryview(os.read(pipe, size))
            size -= len(view)
            while view:
                view = view[file.write(view) or 0 :]
