"""
A deadline for those who take nothing of what they are owed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone

from sockproto.transports import taken_so_far, unsent
from sockproto.wrapping import Deadline, WatchedConnection, accountable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol
    from twisted.python.failure import Failure

__all__ = ["StalledTimeout"]

LOOKS = 4
"""How often a period we look: nothing on the byte path tells us when to begin."""


class _WatchedConnection(WatchedConnection):
    """
    Looks now and then whether the peer takes what is unsent.
    """

    factory: StalledTimeout

    _taken: object = None  # when we last looked; None if nothing was unsent
    _looks_in_vain = 0

    def makeConnection(self, transport: Any) -> None:
        self._look_later()
        super().makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._taken = None
        super().connectionLost(reason)

    def _look_later(self) -> None:
        self._look_in(self.factory.seconds / LOOKS)

    def _look(self) -> None:
        factory = self.factory
        if not unsent(self.transport):
            self._taken = None
        else:
            taken = taken_so_far(self.transport, self.bytes_sent)
            if taken != self._taken:
                self._taken = taken
                self._looks_in_vain = 0
            else:
                # Looks are counted, not seconds: a clock that is set forward, or a
                # machine that sleeps, is nobody's fault.
                self._looks_in_vain += 1
                if self._looks_in_vain == LOOKS:
                    factory.ended += 1
                    self.abort(f"it took nothing for {factory.seconds:g} s")
                    return
        self._look_later()


class StalledTimeout(Deadline[_WatchedConnection]):
    """
    Aborts a connection whose peer takes nothing of what it is owed.

    A peer that does not read is seen once the kernel's buffers are full. What it
    takes is what its kernel has acknowledged, on Linux, and else what ours takes.
    It is looked for four times a period, so it is aborted between one period and a
    quarter more after it last took something.

    Args:
        inner: builds the protocols to watch.
        seconds: how long a peer may take nothing while something is unsent.
        clock: measures it; the reactor, outside tests.

    Attributes:
        ended: how many connections it has aborted.

    Raises:
        SettingError: `seconds` is no number above 0.
    """

    def wrap(self, inner: IProtocol) -> _WatchedConnection:
        return _WatchedConnection(self, accountable(inner))
