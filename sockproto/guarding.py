"""
Settings become the policies around what serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sockproto.policies.admission import MOST_PARTING, Admission, Gate
from sockproto.policies.datagram_admission import DatagramAdmission
from sockproto.policies.datagrams import DatagramRateLimit
from sockproto.policies.draining import Drain, Draining
from sockproto.policies.idle import IdleTimeout
from sockproto.policies.proxied import BehindProxy
from sockproto.policies.rate import RateLimit, TotalRate
from sockproto.policies.stalled import StalledTimeout
from sockproto.process import room_for_connections
from sockproto.reporting import Log, log
from sockproto.settings import FACING_NETWORK

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory, IReactorTime
    from twisted.internet.protocol import DatagramProtocol

    from sockproto.places import StreamPlace, UdpPlace
    from sockproto.rolls import Roll
    from sockproto.settings import Settings

__all__ = ["Guard"]


class Guard:
    """
    The limits of one `Settings`, which all of its places share.

    A policy that nobody asked for is not there.

    Attributes:
        drain: knows the connections of all places, and ends them.
    """

    def __init__(self, settings: Settings, clock: IReactorTime) -> None:
        self._settings = settings
        self._clock = clock
        self.drain = Drain(clock)
        self._all = Gate(clock, most=settings.max_connections or None, log=settings.log)
        self._of_peer = Gate(
            clock, most_per_peer=settings.max_per_peer or None, log=settings.log
        )
        self._listed = Gate(
            clock, allow=settings.allow, deny=settings.deny, log=settings.log
        )
        self._places = 0
        total = settings.total_rate
        self._total = TotalRate(total, clock) if total else None

    def count_files(self) -> None:
        """Bound the connections by the limit of open files, as it is now."""
        settings = self._settings
        # Refused ones with their last words are there for a moment, too.
        waiting = (settings.backlog + MOST_PARTING) * max(1, self._places)
        limit, room = room_for_connections(waiting)
        wanted = settings.max_connections or None
        self._all.most = room if wanted is None else min(wanted, room)
        if self._all.most != wanted and wanted is not None:
            log.warn(
                "The limit of open files is {limit}: {room} connections are served at"
                " once, where --max-connections asks for {wanted}; raise it (ulimit -n,"
                " LimitNOFILE=).",
                limit=limit,
                room=room,
                wanted=wanted,
            )
        elif settings.log is not Log.NONE:
            log.info(
                "The limit of open files is {limit}: {most} connections are served at"
                " once.",
                limit=limit,
                most=self._all.most,
            )
        if settings.max_per_peer is None:
            share = max(1, int(self._all.most * FACING_NETWORK.share))
            self._of_peer.most_per_peer = share

    def around(self, factory: IProtocolFactory, place: StreamPlace) -> IProtocolFactory:
        """Put the policies of a place around the factory that serves there."""
        self._places += 1
        settings, clock = self._settings, self._clock
        facing = place.faces_network
        idle = _unless_set(settings.idle, FACING_NETWORK.idle, facing=facing)
        stalled = _unless_set(settings.stalled, FACING_NETWORK.stalled, facing=facing)
        gates = list(self._gates(facing=facing))
        guarded = factory
        if place.behind_proxy:
            # Whom it counts and lists is who is behind the proxy.
            if gates:
                guarded = self._admission(guarded, *gates)
            guarded = BehindProxy(guarded, clock, log=settings.log)
            gates = []
        if settings.rate or self._total:
            rate = settings.rate or None
            guarded = RateLimit(guarded, clock, rate=rate, total=self._total)
        if idle:
            guarded = IdleTimeout(guarded, seconds=idle, clock=clock)
        if stalled:
            guarded = StalledTimeout(guarded, seconds=stalled, clock=clock)
        drained = Draining(guarded, self.drain)
        return self._admission(drained, *gates, self._all, roll=drained.roll)

    def _gates(self, *, facing: bool) -> list[Gate]:
        gates = []
        if self._listed.allow or self._listed.deny:
            gates.append(self._listed)
        if _unless_set(self._settings.max_per_peer, 1, facing=facing):
            gates.append(self._of_peer)
        return gates

    def _admission(
        self, factory: IProtocolFactory, *gates: Gate, roll: Roll | None = None
    ) -> Admission:
        refusal = self._settings.refusal
        return Admission(
            factory, *gates, clock=self._clock, last_words=refusal, roll=roll
        )

    def around_datagrams(
        self, protocol: DatagramProtocol, place: UdpPlace
    ) -> DatagramProtocol:
        """Put the policies of a UDP place around the protocol that serves there."""
        facing = place.faces_network
        source = _unless_set(
            self._settings.udp_rate, FACING_NETWORK.udp_rate, facing=facing
        )
        total = _unless_set(
            self._settings.udp_total_rate, FACING_NETWORK.udp_total_rate, facing=facing
        )
        guarded = protocol
        if self._settings.allow or self._settings.deny:
            guarded = DatagramAdmission(
                guarded,
                self._clock,
                allow=self._settings.allow,
                deny=self._settings.deny,
                log=self._settings.log,
            )
        if not source and not total:
            return guarded
        return DatagramRateLimit(
            guarded,
            self._clock,
            per_source=source or None,
            total=total or None,
            log=self._settings.log,
        )


def _unless_set(setting: float | None, default: float, *, facing: bool) -> float:
    if setting is not None:
        return setting
    return default if facing else 0
