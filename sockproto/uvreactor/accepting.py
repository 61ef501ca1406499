"""
Ports whose connections are accepted by uvloop.

Theory of operation. uvloop listens on a copy of the descriptor; so it can be stopped,
as a port can be paused, and the kernel goes on to queue those who come. It accepts one
connection in a turn, and when turns are long, as others have much to do in them, the
queue would be long, too: who comes after a while finds all accepted that wait.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.python import log

from sockproto.uvreactor.naming import Logged

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sockproto.uvreactor.connection import Connection
    from sockproto.uvreactor.reactor import UvloopReactor

__all__ = ["AcceptingPort"]

LONG_TURN = 0.005
"""Seconds after which it is looked whether more than one waits."""

MOST_AT_ONCE = 100
"""Those who are accepted then, so that others have their turn."""

RETRY_SECONDS = 1.0
"""Until a port looks again for a descriptor, when there is none left."""


class AcceptingPort(Logged, tcp.Port):
    """
    One of Twisted's ports, by what is beside it among a class's bases.
    """

    reactor: UvloopReactor
    factory: Any

    by_descriptor = False
    """Whether it accepts as Twisted does."""

    _accepted_at = 0.0
    _accepting: Any = None
    _copy: socket.socket | None = None
    _later: Any = None

    def _accept(self, listening: socket.socket) -> Coroutine[Any, Any, Any]:
        """Have uvloop accept from this, which is its own to close."""
        raise NotImplementedError

    def _making(self) -> Callable[[], Connection]:
        """Have what makes a connection that is to be one."""
        raise NotImplementedError

    def has_accepted(self) -> None:
        """One has come; if it is long after the last, look whether more wait."""
        now = self.reactor.loop.time()
        if now - self._accepted_at > LONG_TURN and self.reads:
            self._accept_more()
        self._accepted_at = now

    def _accept_more(self) -> None:
        making = self._making()
        for _ in range(MOST_AT_ONCE):
            try:
                taken, _ = self.socket.accept()
            except OSError:  # nobody waits, or uvloop will see what is wrong
                break
            taken.setblocking(False)
            self.reactor.loop.create_task(self._hand_over(taken, making()))

    async def _hand_over(self, taken: socket.socket, connection: Any) -> None:
        def made(uv: Any) -> None:
            taken.detach()  # uvloop closes the descriptor, and keeps this for longer
            del connection.connection_made
            connection.connection_made(uv)

        connection.connection_made = made
        try:
            await self.reactor.loop.connect_accepted_socket(lambda: connection, taken)
        except OSError:
            taken.close()

    def logPrefix(self) -> str:
        prefix: str = tcp.Port.logPrefix(self)
        return prefix

    def startReading(self) -> None:
        if self.reads or self._is_about_to_read:
            return
        copy, self._copy = self._copy or self._copied(), None
        if copy is None:
            self._later = self.reactor.callLater(RETRY_SECONDS, self.startReading)
            return
        # With a socket, this coroutine ends without having waited.
        accepting = self._accept(copy)
        try:
            accepting.send(None)
        except StopIteration as done:
            self._accepting = done.value
        self.reactor.kept.add(self)

    @property
    def reads(self) -> bool:
        """Whether it accepts."""
        return self._accepting is not None

    @property
    def _is_about_to_read(self) -> bool:
        return self._later is not None and self._later.active()

    def get_write_buffer_size(self) -> int:
        return 0

    def stopReading(self) -> None:
        over = self.by_descriptor or self.disconnecting or not self.connected
        if self._accepting is not None:
            accepting, self._accepting = self._accepting, None
            accepting.close()
            self.reactor.kept.discard(self)
            if not over:
                # For the next time, when there may be no descriptor left.
                self._copy = self._copied()
        elif self._is_about_to_read:
            self._later.cancel()
        if over and self._copy is not None:
            self._copy.close()
            self._copy = None

    def _copied(self) -> socket.socket | None:
        try:
            copy = os.dup(self.socket.fileno())
        except OSError as error:
            log.msg(f"{self} cannot accept now: {error}")
            return None
        # Not `socket.dup`: that has it block, and with it all others of its copies.
        return socket.socket(self.socket.family, self.socketType, 0, copy)
