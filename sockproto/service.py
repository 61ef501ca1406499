"""
Settings become services.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred

from sockproto.datagram import (
    EchoDatagramProtocol,
    HelloDatagramProtocol,
    OwnPlaces,
    ServiceDatagramProtocol,
)
from sockproto.echo import EchoFactory
from sockproto.errors import PlaceError
from sockproto.guarding import Guard
from sockproto.hello import HelloFactory
from sockproto.places import (
    StreamPlace,
    UdpPlace,
    listening_problem,
    stream_place,
    udp_place,
)
from sockproto.policies.draining import State, Watched
from sockproto.reporting import Log, describe_address, log
from sockproto.wire.datagram import LARGEST_DATAGRAM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.interfaces import IListeningPort
    from twisted.python.failure import Failure

    from sockproto.interfaces import IOwing
    from sockproto.settings import Settings
    from sockproto.stream import StreamFactory

__all__ = ["SockprotoService", "make_service"]


@dataclass(frozen=True, slots=True)
class _Opening:
    """One place to open: whose it is, how it was written, how it is done."""

    service: str
    place: str
    listen: Callable[[], Deferred[IListeningPort]]


class SockprotoService(Watched, Service):
    """
    All services of one `Settings`, started together or not at all.

    Places are opened with `privilegedStartService`, as far as it is called
    (`twist` does not), else with `startService`. Stopping closes the places and
    drains the connections; no signal is touched. It is serving once all places
    listen, draining when it begins to stop, and stopped when no connection is left.

    Args:
        settings: what runs, where, and how.
        reactor: listens, and measures the time.

    Attributes:
        state: how far it is.

    Raises:
        PlaceError: a place cannot be understood. One that cannot be listened on
            is raised when the service starts.
    """

    name = "sockproto"

    def __init__(self, settings: Settings, reactor: Any) -> None:
        super().__init__(State.STOPPED)
        self._settings = settings
        self._reactor = reactor
        self._guard = Guard(settings, reactor)
        self._guard.drain.watch(self._drains)
        self._openings = list(self._parse())
        self._ports: list[IListeningPort] = []
        self._pending: list[Deferred[None]] = []
        self._closing: list[Deferred[Any]] = []
        self._opened = False

    def _drains(self, state: State) -> None:
        if state is not State.SERVING and state is not self.state:
            self._enter(state)

    @property
    def ports(self) -> tuple[IListeningPort, ...]:
        """What listens now; `getHost()` of each tells where."""
        return tuple(self._ports)

    @property
    def connections(self) -> tuple[IOwing, ...]:
        """The connections that are there now."""
        return tuple(self._guard.drain.connections)

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._open()

    def startService(self) -> None:
        if not self._opened:
            self._open()
        super().startService()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        stopped: Deferred[Any] = self._close()
        stopped.addCallback(lambda _: self._guard.drain.begin(self._settings.drain))
        return stopped

    def place_failed(self, error: PlaceError) -> None:
        """
        Called when a place failed after the start, all others being closed.

        Only an endpoint of a plugin takes its time with listening.
        """
        log.critical("{error}", error=error)

    # What the settings say

    def _parse(self) -> Iterator[_Opening]:
        settings = self._settings
        hello = HelloFactory(
            self._reactor,
            framing=settings.framing,
            delay=settings.delay,
            greeting=settings.greeting,
            answer=settings.answer,
            max_name=settings.max_name,
            log=settings.log,
        )
        echo = EchoFactory(self._reactor, log=settings.log)
        for factory, name, places in (
            (hello, "hello", settings.hello),
            (echo, "echo", settings.echo),
        ):
            for place in places:
                where = stream_place(self._reactor, name, place, settings.backlog)
                yield self._stream_opening(name, place, where, factory)
        own = OwnPlaces()
        for place in settings.udp:
            names = HelloDatagramProtocol(
                answer=settings.answer,
                any_port=settings.udp_any_port,
                own_places=own,
                log=settings.log,
            )
            yield self._udp_opening("udp", place, names)
        for place in settings.udp_echo:
            echoes = EchoDatagramProtocol(
                any_port=settings.udp_any_port, own_places=own, log=settings.log
            )
            yield self._udp_opening("udp-echo", place, echoes)

    def _stream_opening(
        self,
        service: str,
        place: str,
        where: StreamPlace,
        factory: StreamFactory,
    ) -> _Opening:
        guarded = self._guard.around(factory, where)
        return _Opening(service, place, lambda: where.endpoint.listen(guarded))

    def _udp_opening(
        self, service: str, place: str, protocol: ServiceDatagramProtocol
    ) -> _Opening:
        where: UdpPlace = udp_place(service, place)
        guarded = self._guard.around_datagrams(protocol, where)
        return _Opening(
            service,
            place,
            lambda: maybeDeferred(
                self._reactor.listenUDP,
                where.port,
                guarded,
                interface=where.interface,
                maxPacketSize=LARGEST_DATAGRAM,
            ),
        )

    # Opening and closing

    def _open(self) -> None:
        self._opened = True
        self._guard.count_files()
        self._guard.drain.reopen()
        for opening in self._openings:
            failed: list[PlaceError] = []
            self._watch(opening, maybeDeferred(opening.listen), failed)
            if failed:
                self._close()
                raise failed[0]

    def _watch(
        self,
        opening: _Opening,
        listening: Deferred[IListeningPort],
        failed: list[PlaceError],
    ) -> None:
        starting = True

        def listens(port: IListeningPort) -> None:
            self._ports.append(port)
            if self._settings.log is not Log.NONE:
                log.info(
                    "{service} listens on {where}.",
                    service=opening.service,
                    where=describe_address(port.getHost()),
                )
            if len(self._ports) == len(self._openings):
                self._enter(State.SERVING)

        def fails(failure: Failure) -> None:
            if failure.check(CancelledError):
                return  # by ourselves: the service stops, or another place failed
            error = PlaceError(
                opening.service, opening.place, listening_problem(failure.value)
            )
            error.__cause__ = failure.value
            failed.append(error)
            if not starting:
                self._close()
                self.place_failed(error)

        watched = listening.addCallbacks(listens, fails)
        starting = False
        if not watched.called:
            self._pending.append(watched)

    def _close(self) -> Deferred[Any]:
        ports, self._ports = self._ports, []
        pending, self._pending = self._pending, []
        self._opened = False
        for listening in pending:
            listening.cancel()
        # Those of a start that failed may be on their way still.
        self._closing = [closing for closing in self._closing if not closing.called]
        self._closing += [maybeDeferred(port.stopListening) for port in ports]
        return DeferredList(self._closing)


def make_service(settings: Settings, reactor: Any) -> SockprotoService:
    """
    Make the service that a `Settings` describes, for an `Application`, a `.tac`
    file, or to start and stop by hand. It never touches signals.

    Raises:
        PlaceError: a place cannot be understood. One that cannot be listened on
            is raised by `startService` or `privilegedStartService`, and nothing
            is left listening then.
    """
    return SockprotoService(settings, reactor)
