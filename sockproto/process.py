"""
What a process of ours does beside serving: its clock, its files, its supervisor.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sockproto.policies.draining import State
from sockproto.systemd import notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from sockproto.settings import Settings

__all__ = ["announcer", "room_for_connections", "use_steady_clock"]

SPARE_SECONDS = 5
"""What systemd waits for us longer than the drain may take."""

RESERVED_FILES = 64
"""Files that are none of our connections: logs, pipes, a `fetch` beside us."""


def use_steady_clock(reactor: Any) -> None:
    """
    Have a reactor measure by a clock that nobody sets.

    Twisted's go by the time of day. When that is set back, what is to come in a
    second comes an hour later, and when it is set forward, all deadlines are over.
    Where something waits already, by the other clock, nothing is done.
    """
    if not reactor.running and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def room_for_connections(waiting: int) -> tuple[int, int]:
    """
    Read the limit of open files, and how many connections fit below it.

    What is refused is open for a moment, too; Twisted accepts as many as wait
    before it lets go of the first. So as many as may wait stay free, as far as
    that leaves half of the limit.

    Args:
        waiting: how many may wait, at all places together.

    Returns:
        The limit, and the connections; at least one.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        limit = 1 << 30
    try:
        used = len(list(Path("/dev/fd").iterdir()))
    except OSError:
        used = RESERVED_FILES
    spare = limit - used
    return limit, max(1, spare - min(RESERVED_FILES + waiting, spare // 2))


def announcer(settings: Settings, reactor: Any) -> Callable[[State], None]:
    """
    Make what tells systemd, if it started us (sd_notify(3)), how far the service is.

    It is for `SockprotoService.watch`.
    """

    def ready() -> None:
        notify("READY=1", "STATUS=Serving.")

    def announce(state: State) -> None:
        if state is State.SERVING:
            # Not before it runs, and has its signal handlers: what is ready can be
            # stopped in order.
            reactor.callWhenRunning(reactor.callLater, 0, ready)
        elif state is State.DRAINING:
            # The unit's TimeoutStopSec= need not be raised for a longer drain.
            patience = int((settings.drain + SPARE_SECONDS) * 1_000_000)
            notify(
                "STOPPING=1",
                "STATUS=Ending connections.",
                f"EXTEND_TIMEOUT_USEC={patience}",
            )

    return announce
