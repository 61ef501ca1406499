"""
What services write into the log, in the words of the tutorials' servers.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.logger import Logger

from sockproto.spelling import host_and_port, spell

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

__all__ = ["Log", "Occasional", "describe_address", "describe_loss", "log"]

log = Logger(namespace="sockproto")


class Log(Enum):
    """
    How much a service logs; the values are the option's words.

    Failures of the service itself are logged in each. `CONNECTIONS` adds a line
    when a connection comes and one when it goes, `MESSAGES` one for each name
    and datagram. A line costs tens of microseconds.
    """

    NONE = "none"
    CONNECTIONS = "connections"
    MESSAGES = "messages"


class Occasional:
    """
    Tells at once that something happened, and then now and then how often.

    What comes by the thousand, a flood's refusals, must not cost a line each.
    Between `begin` and `end` what is left is told when it is time; otherwise when
    something happens again, or by `tell`. As often as it was begun it has to end.

    Args:
        clock: measures; the reactor, outside tests.
        say: is called with how often what has happened since it was last called.
    """

    SECONDS = 10.0
    """The least time between two calls, but for `tell`."""

    def __init__(
        self, clock: IReactorTime, say: Callable[[Counter[str]], None]
    ) -> None:
        self._clock = clock
        self._say = say
        self._counts: Counter[str] = Counter()
        self._last = float("-inf")
        self._begun = 0
        self._later: IDelayedCall | None = None

    def begin(self) -> None:
        """From now on, use the clock."""
        self._begun += 1

    def end(self) -> None:
        """Tell what is left, and leave the clock alone."""
        self._begun -= 1
        if not self._begun:
            if self._later is not None:
                self._later.cancel()
                self._later = None
            self.tell()

    def happened(self, what: str) -> None:
        """Count one, and say so if it is time."""
        self._counts[what] += 1
        if self._later is not None:
            return
        now = self._clock.seconds()
        # Also when the clock was set back.
        if not 0 <= now - self._last < self.SECONDS:
            self._last = now
            self.tell()
        if self._begun:
            left = self._last + self.SECONDS - now
            self._later = self._clock.callLater(left, self._is_time)

    def _is_time(self) -> None:
        self._later = None
        if self._counts:
            self._last = self._clock.seconds()
            self.tell()

    def tell(self) -> None:
        """Say what was not said yet, if there is anything."""
        if self._counts:
            counts, self._counts = self._counts, Counter()
            self._say(counts)


def describe_address(address: object) -> str:
    """
    Spell an address of Twisted's in one line: `127.0.0.1:9999`, `[::1]:9999`, a path.

    What is not printable is escaped: behind `haproxy:`, a host is what the peer says.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in _spelled(address)
    )


def _spelled(address: object) -> str:
    if isinstance(address, IPv4Address | IPv6Address):
        return host_and_port(address.host, address.port)
    if isinstance(address, UNIXAddress):
        # A client of a unix socket has no name unless it bound one.
        name: bytes | str | None = address.name
        if not name:
            return "a unix socket"
        return name if isinstance(name, str) else spell(name)[2:-1]
    return str(address)


def describe_loss(reason: Failure) -> str:
    """
    Say in a word or two why a connection ended, seen from this end.
    """
    if reason.check(ConnectionDone):
        return "the peer closed"
    if reason.check(ConnectionAborted):
        return "aborted"
    message = " ".join(str(reason.value).split()).rstrip(".")
    return f"broken off: {message or type(reason.value).__name__}"
