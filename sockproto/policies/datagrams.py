"""
A bound on how many datagrams a service answers, a source and in all.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sockproto.checks import (
    HIGHEST_RATE,
    choice,
    clock as checked_clock,
    number,
    seconds,
    whole_number,
)
from sockproto.peers import peer_group
from sockproto.reporting import Log, Occasional, log
from sockproto.spelling import counted
from sockproto.wrapping import DatagramWrapper

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.internet.protocol import DatagramProtocol

__all__ = ["DatagramRateLimit"]

SMALLEST_RATE = 1e-6
"""Datagrams a second: one in eleven days."""

FORGIVEN_SECONDS = 1e-6
"""What may be missing for a datagram: the clock's readings are no more exact."""

LOOKS = 4
"""Buckets that are looked at when a new source comes, to find full ones."""

SOURCES_TOLD = 1_000
"""Sources that are told apart for a line in the log, lest a flood fill the memory."""


class _Rate:
    """
    What a token bucket allows.

    A bucket is a single number, the time at which it will be full: in the past,
    and it is full now. A datagram puts that time off by `cost` seconds, and finds
    no token if it is more than `room` seconds ahead.
    """

    __slots__ = ("cost", "room", "text")

    def __init__(self, per_second: float, burst_seconds: float) -> None:
        self.text = f"{per_second:g} a second"
        self.cost = 1 / per_second
        # A bucket that holds no whole token would let nothing through.
        size = max(burst_seconds, self.cost)
        self.room = size - self.cost + min(FORGIVEN_SECONDS, self.cost / 2)


class _Buckets:
    """
    A bucket for each source that sent of late, and no more of them than `most`.

    What a source costs is bounded, on average over the times at which Python
    resizes a dictionary. Sorting them by the time at which they are full would cost
    more for each datagram, and keeping the order of arrival as much, since a source
    that goes on sending has to move in it.
    """

    __slots__ = ("_hand", "_most", "_ring", "full_at")

    def __init__(self, most: int) -> None:
        self.full_at: dict[bytes, float] = {}
        self._most = most
        # The keys of the dictionary; the hand goes round, and looks at each.
        self._ring: list[bytes] = []
        self._hand = 0

    def add(self, source: bytes, full_at: float, now: float) -> None:
        """
        Make a bucket for a new source; forget those that are full, of a few.
        """
        ring = self._ring
        fullest, soonest = 0, float("inf")
        for _ in range(min(LOOKS, len(ring))):
            place = self._hand = self._hand % len(ring)
            other = self.full_at[ring[place]]
            if other <= now:
                self._forget(place)
                continue
            self._hand += 1
            if other < soonest:
                fullest, soonest = place, other
        if len(ring) >= self._most:
            self._forget(fullest)
        ring.append(source)
        self.full_at[source] = full_at

    def _forget(self, place: int) -> None:
        del self.full_at[self._ring[place]]
        last = self._ring.pop()
        if place < len(self._ring):
            self._ring[place] = last


class DatagramRateLimit(DatagramWrapper):
    """
    Drops the datagrams that are above a rate, before `inner` sees them.

    Each source has a token bucket, and all of them share one: so many datagrams a
    second, and after a silence as many at once as come in `burst_seconds`, one at
    least. A datagram takes a token from both, or from neither when it is dropped:
    a source that floods does not use up what is there for all, and is not punished
    for what others do. A source is what `peer_group` says: an IPv4 address, or the
    /64 of an IPv6 one. Senders without either, those on unix sockets, share the
    total alone.

    UDP sources can be forged. At most `max_sources` buckets are kept, at some 160
    bytes each. Each new source has a few of the others looked at; those whose bucket
    is full are forgotten, for which that changes nothing. Where there is none, and no
    more room, the fullest of the few is forgotten: its source may then send a burst
    early, as any newly forged address may. So no source is dropped because there are
    too many, and it is `total` alone that bounds a flood from forged ones. What it
    refuses makes no bucket, so the table does not fill up where `max_sources` is well
    above `2 * total * burst_seconds`.

    When the clock steps back, time stands still here until its next reading; when
    it leaps ahead, the buckets are full, and no more than full.

    The inner protocol gets the port itself as its transport: what it sends passes
    nothing here. Drops are logged, at once and then no more than every ten seconds
    while they last; what is left to tell is told when the protocol stops.

    Args:
        inner: what the datagrams are for.
        clock: measures the rates; the reactor, outside tests.
        per_source: datagrams a second from one source; None for no limit.
        total: datagrams a second in all; None for no limit.
        burst_seconds: how long a silence is saved up.
        max_sources: sources that are told apart at a time.
        log: with `Log.NONE`, drops are only counted.

    Attributes:
        dropped: how many datagrams were dropped, by reason: `source rate`,
            `total rate`. Where both would do it is the source's.

    Raises:
        SettingError: a value is out of its bounds.
    """

    def __init__(
        self,
        inner: DatagramProtocol,
        clock: IReactorTime,
        *,
        per_source: float | None,
        total: float | None,
        burst_seconds: float = 5.0,
        max_sources: int = 65_536,
        log: Log | str = Log.CONNECTIONS,
    ) -> None:
        super().__init__(inner)
        self.dropped: Counter[str] = Counter()
        self._clock = checked_clock("clock", clock)
        burst_seconds = seconds("burst_seconds", burst_seconds)
        self._per_source = _rate("per_source", per_source, burst_seconds)
        self._total = _rate("total", total, burst_seconds)
        self._buckets = _Buckets(whole_number("max_sources", max_sources, 1, 2**31 - 1))
        self._logs = choice("log", Log, log) is not Log.NONE
        self._read = clock.seconds()
        self._now = 0.0  # our own time, which never goes back
        self._total_full_at = 0.0
        self._untold_sources: set[bytes | None] = set()
        self._told = Occasional(clock, self._tell)

    def startProtocol(self) -> None:
        self._told.begin()
        super().startProtocol()

    def stopProtocol(self) -> None:
        try:
            super().stopProtocol()
        finally:
            self._told.end()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        read = self._clock.seconds()
        if read > self._read:
            self._now += read - self._read
        self._read = read
        now = self._now
        # On a unix socket the sender is a path, or nobody.
        source = peer_group(addr[0]) if isinstance(addr, tuple) else None

        # First both buckets are asked, then both are charged.
        per_source, total = self._per_source, self._total
        buckets = self._buckets.full_at
        full_at = None
        if per_source is not None and source is not None:
            full_at = buckets.get(source)
            if full_at is not None and full_at - now > per_source.room:
                self._drop("source rate", source)
                return
        if total is not None:
            ahead = self._total_full_at - now
            if ahead > total.room:
                self._drop("total rate", source)
                return
            if ahead > 0:
                self._total_full_at += total.cost
            else:
                self._total_full_at = now + total.cost
        if per_source is not None and source is not None:
            if full_at is None:
                self._buckets.add(source, now + per_source.cost, now)
            elif full_at > now:
                buckets[source] = full_at + per_source.cost
            else:
                buckets[source] = now + per_source.cost
        self.inner.datagramReceived(datagram, addr)

    def _drop(self, reason: str, source: bytes | None) -> None:
        self.dropped[reason] += 1
        if self._logs:
            if len(self._untold_sources) < SOURCES_TOLD:
                self._untold_sources.add(source)
            self._told.happened(reason)

    def _tell(self, untold: Counter[str]) -> None:
        sources = counted(len(self._untold_sources), "source")
        if len(self._untold_sources) == SOURCES_TOLD:
            sources += " or more"
        log.warn(
            "Dropped {datagrams} of {sources}{where}: {reasons}.",
            datagrams=counted(untold.total(), "datagram"),
            sources=sources,
            where=self.where,
            reasons=", ".join(
                f"{untold[reason]} above {rate.text} {whose}"
                for reason, rate, whose in (
                    ("source rate", self._per_source, "of one source"),
                    ("total rate", self._total, "in all"),
                )
                if rate is not None and untold[reason]
            ),
        )
        self._untold_sources.clear()


def _rate(name: str, seen: object, burst_seconds: float) -> _Rate | None:
    if seen is None:
        return None
    allowed = f"a number from {SMALLEST_RATE:f} to {HIGHEST_RATE:.0f}, or None,"
    rate = number(name, seen, SMALLEST_RATE, HIGHEST_RATE, allowed)
    return _Rate(rate, burst_seconds)
