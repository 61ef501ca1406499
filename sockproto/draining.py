"""
How a service's connections come to their end when it stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from sockproto.interfaces import Debt, IOwing
from sockproto.reporting import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IReactorTime

__all__ = ["drain"]

QUIET_SECONDS = 0.5
"""A client that is owed nothing and was silent for so long has what it wanted."""

LOOK_SECONDS = 0.1

SHORTEST_SECONDS = 0.001
"""What is left of the drain below this is nothing: floats do not add up exactly."""


def drain(
    clock: IReactorTime,
    connections: Callable[[], Iterable[IOwing]],
    seconds: float,
) -> Deferred[None]:
    """
    Let connections end by themselves; fires when none is left.

    One that is owed nothing and has sent nothing for half a second is finished:
    it gets end of file. After `seconds` the rest is aborted, and one line of the
    log says how many they were and what they were owed.

    Args:
        clock: measures; the reactor, outside tests.
        connections: tells those that are there now.
        seconds: how long this may take.
    """
    done: Deferred[None] = Deferred()
    quiet_since: dict[IOwing, tuple[int, float]] = {}
    deadline = clock.seconds() + seconds

    def look() -> None:
        now = clock.seconds()
        left = list(connections())
        if not left:
            done.callback(None)
            return
        if deadline - now < SHORTEST_SECONDS:
            _abort(left, seconds)
            done.callback(None)
            return
        for connection in left:
            received = connection.bytes_received
            before = quiet_since.get(connection)
            # What is owed may hold up reading: silence counts from its end.
            if before is None or before[0] != received or connection.owed():
                quiet_since[connection] = (received, now)
            elif now - before[1] >= QUIET_SECONDS:
                connection.finish("the service stops")
        clock.callLater(min(LOOK_SECONDS, deadline - now), look)

    look()
    return done


def _abort(left: list[IOwing], seconds: float) -> None:
    owed = sum((connection.owed() for connection in left), Debt())
    log.warn(
        "Aborting {count} connections after {seconds:g} s of drain;"
        " they were owed {owed}.",
        count=len(left),
        seconds=seconds,
        owed=owed,
    )
    for connection in left:
        connection.abort("aborted after the drain")
