"""
Ports whose connections are accepted by uvloop.

Theory of operation. uvloop listens on a copy of the descriptor; so it can be stopped,
as a port can be paused, and the kernel goes on to queue those who come. It accepts one
connection in a turn. A crowd that comes one by one makes each turn a short one, which
costs the kernel's looking round, and each peer's waking up; so where a crowd comes,
uvloop listens on several copies, and accepts from each. Where connections come one by
one, all but one are looked at in vain, and are given up, one after the other; and where
none comes, at once. And when turns are long, as others have much to do in them, who
comes after a while finds all accepted that wait.

Those who are accepted in one turn are made one after the other in the next. When the
port is stopped meanwhile, they are served, unless its factory has been told already.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
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

LOOK_EVERY = 16
"""Connections after which it is looked whether another waits already."""

LOOKS = 8
"""After so many it is decided how many are to accept."""

CROWD = 6
"""Of these looks, those that found somebody, when it is a crowd."""

MOST_ACCEPTING = 4
"""Copies that uvloop accepts from; more bring no more."""

QUIET_SECONDS = 1.0
"""Without a connection for so long, one copy is left."""

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
    _accepting: tuple[Any, ...] = ()
    _came = 0  # since it was decided how many accept
    _copy: socket.socket | None = None
    _found = 0
    _later: Any = None
    _until_quiet: Any = None

    def _accept(self, listening: socket.socket) -> Coroutine[Any, Any, Any]:
        """Have uvloop accept from this, which is its own to close."""
        raise NotImplementedError

    def _making(self) -> Callable[[], Connection]:
        """Have what makes a connection that is to be one."""
        raise NotImplementedError

    def has_accepted(self) -> bool:
        """One has come; tell whether it is to be served, and see to who waits."""
        if not self.connected:
            return False
        now = self.reactor.loop.time()
        if now - self._accepted_at > LONG_TURN and self.reads:
            self._accept_more()
        self._accepted_at = now
        self._came += 1
        if not self._came % LOOK_EVERY:
            self._look()
        return True

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

    def _look(self) -> None:
        if not self.reads:
            return
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        self._found += bool(waiting.poll(0))
        if self._came >= LOOK_EVERY * LOOKS:
            if self._found >= CROWD:
                self._accept_from_one_more()
            elif not self._found:
                self._accept_from_fewer(max(1, len(self._accepting) - 1))
            self._came = self._found = 0

    def _accept_from_one_more(self) -> None:
        if len(self._accepting) < MOST_ACCEPTING:
            with suppress(OSError):  # it does without
                self._accept_from(self._copied())
                if self._until_quiet is None:
                    self._wait_until_quiet()

    def _accept_from_fewer(self, left: int) -> None:
        for each in self._accepting[left:]:
            each.close()
        self._accepting = self._accepting[:left]

    def _wait_until_quiet(self) -> None:
        # Not a call of the reactor's, which a test would find left behind.
        wait = self.reactor.loop.call_later
        self._until_quiet = wait(QUIET_SECONDS, self._look_if_quiet)

    def _look_if_quiet(self) -> None:
        self._until_quiet = None
        if self.reactor.loop.time() - self._accepted_at >= QUIET_SECONDS:
            self._accept_from_fewer(1)
        if len(self._accepting) > 1:
            self._wait_until_quiet()

    def logPrefix(self) -> str:
        prefix: str = tcp.Port.logPrefix(self)
        return prefix

    def startReading(self) -> None:
        if self.reads or self._is_about_to_read:
            return
        copy, self._copy = self._copy or self._copied_if_possible(), None
        if copy is None:
            self._later = self.reactor.callLater(RETRY_SECONDS, self.startReading)
            return
        self._accept_from(copy)
        self._came = self._found = 0
        self.reactor.kept.add(self)

    def _accept_from(self, copy: socket.socket) -> None:
        # With a socket, this coroutine ends without having waited.
        accepting = self._accept(copy)
        try:
            accepting.send(None)
        except StopIteration as done:
            self._accepting = (*self._accepting, done.value)

    @property
    def reads(self) -> bool:
        """Whether it accepts."""
        return bool(self._accepting)

    @property
    def _is_about_to_read(self) -> bool:
        return self._later is not None and self._later.active()

    def get_write_buffer_size(self) -> int:
        return 0

    def stopReading(self) -> None:
        over = self.by_descriptor or self.disconnecting or not self.connected
        if self._until_quiet is not None:
            self._until_quiet.cancel()
            self._until_quiet = None
        if self._accepting:
            self._accept_from_fewer(0)
            self.reactor.kept.discard(self)
            if not over:
                # For the next time, when there may be no descriptor left.
                self._copy = self._copied_if_possible()
        elif self._is_about_to_read:
            self._later.cancel()
        if over and self._copy is not None:
            self._copy.close()
            self._copy = None

    def _copied_if_possible(self) -> socket.socket | None:
        try:
            return self._copied()
        except OSError as error:
            log.msg(f"{self} cannot accept now: {error}")
            return None

    def _copied(self) -> socket.socket:
        copy = os.dup(self.socket.fileno())
        # Not `socket.dup`: that has it block, and with it all others of its copies.
        return socket.socket(self.socket.family, self.socketType, 0, copy)
