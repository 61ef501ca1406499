"""
Places of several processes: a parent opens and holds them, its workers serve there.

Theory of operation. Both parse the same settings and call the same endpoints, with a
reactor of this module in place of the real one. The parent's opens each place as
Twisted does, accepts nothing, and opens the same address once more for each other
worker (SO_REUSEPORT), so that the kernel spreads connections, and datagrams by their
source, evenly: of 64 connections, the busier one of two workers got 35 (median of 20
trials; 40 at most), where with one socket for both it got 57 (64 at most).

Each worker inherits all of these sockets. It accepts from its own, and as long as a
worker is missing all others accept from the missing one's too: since the parent holds
them open, what is in their queues is not lost.

UNIX sockets and those of systemd there is only one of; all workers accept from it.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol
from zope.interface import directlyProvides, implementer, providedBy

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from twisted.python.failure import Failure

__all__ = ["HeldPort", "HoldingReactor", "ServingReactor", "inherited"]

FIRST_PASSED = 3
"""Where systemd begins with the sockets it passes (sd_listen_fds(3))."""


class _ListeningReactor:
    """
    A reactor that is another, but for how it listens.
    """

    def __init__(self, reactor: Any) -> None:
        self._real = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def listenTCP(
        self, port: Any, factory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        raise NotImplementedError

    def listenSSL(
        self,
        port: int,
        factory: Any,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> Any:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        secured = TLSMemoryBIOFactory(contextFactory, False, factory)
        return self.listenTCP(port, secured, backlog, interface)


def _call(kind: str, *where: object) -> str:
    return " ".join([kind, *map(repr, where)])


# The parent's


@implementer(IListeningPort)
class HeldPort:
    """
    A place that is open, and from which this process takes nothing.

    Attributes:
        call: how the reactor was asked for it.
        sockets: one for each slot, or one for all.
    """

    def __init__(self, call: str, port: Any) -> None:
        port.stopReading()
        # When it is closed, workers that do not know yet must find nothing broken.
        port._shouldShutdown = False  # noqa: SLF001
        self.call = call
        self.sockets: list[socket.socket] = [port.socket]
        self._port = port

    def spread(self, slots: int, backlog: int | None = None) -> None:
        """
        Open the same address for the other slots.

        It was opened without SO_REUSEPORT: so it is refused where anybody else
        listens, were it another parent of workers.
        """
        if sys.platform != "linux":
            return  # elsewhere the last socket gets all, or bind refuses it
        first = self.sockets[0]
        try:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            while len(self.sockets) < slots:
                self.sockets.append(_socket_like(first))
                self.sockets[-1].bind(first.getsockname())
                if backlog is not None:
                    self.sockets[-1].listen(backlog)
        except OSError as error:
            self.stopListening()
            raise CannotListenError(None, None, error) from error

    def getHost(self) -> Any:
        return self._port.getHost()

    def startListening(self) -> None:
        """It does so already."""

    def stopListening(self) -> Any:
        for each in self.sockets[1:]:
            each.close()
        return self._port.stopListening()


def _socket_like(first: socket.socket) -> socket.socket:
    made = socket.socket(first.family, first.type)
    made.setblocking(False)
    options = [(socket.SOL_SOCKET, socket.SO_REUSEPORT)]
    if first.type == socket.SOCK_STREAM:
        options.append((socket.SOL_SOCKET, socket.SO_REUSEADDR))
    if first.family == socket.AF_INET6:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    for option in options:
        made.setsockopt(*option, first.getsockopt(*option))
    if first.type == socket.SOCK_DGRAM:
        # Linux tells twice what it was asked for.
        size = first.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return made


class HoldingReactor(_ListeningReactor):
    """
    Opens places for workers.

    Args:
        reactor: does all else.
        slots: how many workers there will be.

    Attributes:
        held: the ports that are open, in their order.
    """

    def __init__(self, reactor: Any, slots: int) -> None:
        super().__init__(reactor)
        self._slots = slots
        self._passed: dict[int, HeldPort] = {}
        self.held: list[HeldPort] = []

    def listenTCP(
        self, port: Any, factory: Any, backlog: int = 50, interface: str = ""
    ) -> HeldPort:
        opened = self._real.listenTCP(port, factory, backlog, interface)
        held = HeldPort(_call("tcp", port, interface), opened)
        held.spread(self._slots, backlog)
        self.held.append(held)
        return held

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> HeldPort:
        opened = self._real.listenUDP(port, protocol, interface, maxPacketSize)
        held = HeldPort(_call("udp", port, interface), opened)
        held.spread(self._slots)
        self.held.append(held)
        return held

    def listenUNIX(
        self,
        address: Any,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: Any = 0,
    ) -> HeldPort:
        opened = self._real.listenUNIX(address, factory, backlog, mode, wantPID)
        self.held.append(HeldPort(_call("unix", address), opened))
        return self.held[-1]

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> HeldPort:
        opened = self._real.adoptStreamPort(fileDescriptor, addressFamily, factory)
        # A worker will be asked to adopt the same number.
        held = HeldPort(_call("passed", fileDescriptor), opened)
        self._passed[fileDescriptor] = held
        return held

    def passing(
        self, above: int = 0
    ) -> tuple[list[tuple[str, list[int]]], dict[int, int]]:
        """
        Say what a worker is to inherit.

        Args:
            above: its descriptors up to this one are taken.

        Returns:
            The places of its `Handover`, and its descriptors with ours for each.
        """
        descriptors = {n: held.sockets[0].fileno() for n, held in self._passed.items()}
        ours = [each.fileno() for held in self.held for each in held.sockets]
        # Above all of ours: none has to make way for another.
        following = max(above, FIRST_PASSED, *ours, *descriptors, *descriptors.values())
        places: list[tuple[str, list[int]]] = []
        for held in self.held:
            numbers = []
            for each in held.sockets:
                following += 1
                descriptors[following] = each.fileno()
                numbers.append(following)
            places.append((held.call, numbers))
        return places, descriptors


# A worker's


class _Inherited:
    """
    The part of a UNIX port whose file, with its mode, is the parent's.
    """

    _shouldShutdown = False

    def connectionLost(self, reason: Failure) -> None:
        # Not as the port's own, which removes the file.
        port: Any = self
        tcp.Port.connectionLost(port, reason)


@cache
def inherited(kind: type[unix.Port]) -> type[unix.Port]:
    """Have the kind of UNIX port whose file is not its own, of this kind."""
    return type(f"Inherited{kind.__name__}", (_Inherited, kind), {})


@implementer(IListeningPort)
class _ServedPort:
    """
    The ports of all slots of a place, as one.
    """

    def __init__(self, own: Any, others: dict[int, Any]) -> None:
        self._own = own
        self._others = others
        self._listens = True
        self.serve(())

    def serve(self, missing: Container[int]) -> None:
        """Accept from these slots, too, and from no other."""
        if self._listens:
            for slot, port in self._others.items():
                if slot in missing:
                    port.startReading()
                else:
                    port.stopReading()

    def getHost(self) -> Any:
        return self._own.getHost()

    def startListening(self) -> None:
        """It does so already."""

    def stopListening(self) -> Deferred[Any]:
        self._listens = False
        ports = [self._own, *self._others.values()]
        return DeferredList([maybeDeferred(each.stopListening) for each in ports])


class _ForAnother(DatagramProtocol):
    """
    Hands the datagrams of another slot on.
    """

    noisy = False

    def __init__(self, protocol: DatagramProtocol) -> None:
        self.datagramReceived = protocol.datagramReceived  # type: ignore[method-assign]


class ServingReactor(_ListeningReactor):
    """
    Listens on what was inherited.

    Args:
        reactor: does all else.
        slot: which of the sockets is ours.
        places: as of a `Handover`.
    """

    def __init__(
        self, reactor: Any, slot: int, places: Iterable[tuple[str, Sequence[int]]]
    ) -> None:
        super().__init__(reactor)
        self._slot = slot
        self._places = list(places)
        self._ports: list[_ServedPort] = []

    def serve(self, missing: Container[int]) -> None:
        """Accept for these slots too, whose workers are missing, and for no other."""
        for port in self._ports:
            port.serve(missing)

    def _inherited(self, call: str) -> list[tuple[int, socket.socket]]:
        """Take the sockets of the next place that was asked for so, ours first."""
        for number, (asked, descriptors) in enumerate(self._places):
            if asked == call:
                del self._places[number]
                sockets = enumerate(socket.socket(fileno=fd) for fd in descriptors)
                return sorted(sockets, key=lambda each: each[0] != self._slot)
        raise CannotListenError(None, None, f"the parent has not opened {call}")

    def _served(self, ports: list[tuple[int, Any]]) -> _ServedPort:
        (_, own), *others = ports
        self._ports.append(_ServedPort(own, dict(others)))
        return self._ports[-1]

    def listenTCP(
        self, port: Any, factory: Any, backlog: int = 50, interface: str = ""
    ) -> _ServedPort:
        ports = []
        for slot, inherited in self._inherited(_call("tcp", port, interface)):
            with inherited:
                each = self._real.adoptStreamPort(
                    inherited.fileno(), inherited.family, factory
                )
            ports.append((slot, each))
        return self._served(ports)

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> _ServedPort:
        ports: list[tuple[int, Any]] = []
        for slot, inherited in self._inherited(_call("udp", port, interface)):
            # It has one transport: ours. All have the same address.
            theirs = _ForAnother(protocol) if ports else protocol
            with inherited:
                each = self._real.adoptDatagramPort(
                    inherited.fileno(), inherited.family, theirs, maxPacketSize
                )
            ports.append((slot, each))
        return self._served(ports)

    def listenUNIX(
        self,
        address: Any,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: Any = 0,
    ) -> _ServedPort:
        (slot, inherited), *_ = self._inherited(_call("unix", address))
        with inherited:
            port = self._adopt_unix(inherited.fileno(), factory)
        return self._served([(slot, port)])

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> Any:
        if addressFamily == socket.AF_UNIX:
            return self._adopt_unix(fileDescriptor, factory)
        return self._real.adoptStreamPort(fileDescriptor, addressFamily, factory)

    def _adopt_unix(self, descriptor: int, factory: Any) -> Any:
        # The reactor may have a kind of its own, as that of `sockproto.uvreactor` has.
        kind = inherited(getattr(self._real, "unix_port", unix.Port))
        port = kind._fromListeningDescriptor(  # noqa: SLF001
            self._real, descriptor, factory
        )
        with socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM) as copy:
            name = os.fsencode(copy.getsockname())
        if not name.startswith(b"\0"):
            port.mode = stat.S_IMODE(os.stat(name).st_mode)  # noqa: PTH116 - bytes
        port.startListening()
        return port
