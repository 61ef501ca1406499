"""
UNIX ports: connections are uvloop's where their protocols pass no descriptors.

Theory of operation. uvloop's UNIX transport passes none, and whether a protocol does
nobody knows before it does; but an `ISteadyReceiver` says that it does not. So uvloop
accepts for a port until a protocol is none: that one gets Twisted's transport, and the
port accepts as Twisted's from then on, since a factory's protocols are of a kind.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import unix
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.python import log

from sockproto.interfaces import ISteadyReceiver
from sockproto.uvreactor.accepting import AcceptingPort
from sockproto.uvreactor.tcp import ServerConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IProtocol

    from sockproto.uvreactor.connection import Connection

__all__ = ["Port"]


class UNIXConnection(ServerConnection):
    """
    One that a UNIX port has accepted.
    """

    __slots__ = ()

    server: Port

    def _build(self) -> IProtocol | None:
        port = self.server
        self.sessionno = port.sessionno
        if not port.has_accepted():
            return None
        name = self._peer_name()
        protocol: Any = port.factory.buildProtocol(UNIXAddress(name))
        if protocol is None:
            return None
        port.sessionno += 1
        if port.passes_no_descriptors(protocol):
            return cast("IProtocol", protocol)
        port.accept_by_descriptor()
        try:
            own = os.dup(self._uv.get_extra_info("socket").fileno())
        except OSError as error:
            log.msg(f"{self} cannot pass descriptors: {error}")
            return cast("IProtocol", protocol)
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, own)
        taken.setblocking(False)
        protocol.makeConnection(
            unix.Server(taken, protocol, name, port, self.sessionno, self.reactor)
        )
        return None

    @property
    def hostname(self) -> str:
        """The peer's path; it has none, as a rule."""
        name: str = self._peer_name()
        return name

    def getHost(self) -> UNIXAddress:  # type: ignore[override]
        return self.server.address

    def getPeer(self) -> UNIXAddress:  # type: ignore[override]
        return UNIXAddress(self.hostname or None)

    def getTcpNoDelay(self) -> bool:
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is nothing to set."""

    def __repr__(self) -> str:
        return f"<{self._prefix()} #{self.sessionno} on {self.getHost().name!r}>"


class Port(AcceptingPort, unix.Port):
    """
    Twisted's port, whose connections are accepted by uvloop as long as they can be.
    """

    address: UNIXAddress
    """Its own, which its connections have, too."""

    def _accept(self, listening: socket.socket) -> Coroutine[Any, Any, Any]:
        self.address = self.getHost()
        loop: Any = self.reactor.loop
        accepting: Coroutine[Any, Any, Any] = loop.create_unix_server(
            self._making(),
            sock=listening,
            backlog=self.backlog,
            cleanup_socket=False,  # it is not uvloop's
        )
        return accepting

    def _making(self) -> Callable[[], Connection]:
        return partial(UNIXConnection, self.reactor, self)

    def passes_no_descriptors(self, protocol: object) -> bool:
        """Ask whether a protocol takes and sends none, as far as it says so."""
        return bool(
            ISteadyReceiver.providedBy(protocol)
            and not IFileDescriptorReceiver.providedBy(protocol)
        )

    def accept_by_descriptor(self) -> None:
        """Go on as Twisted's."""
        if self.by_descriptor:
            return
        reading = self.reads or self._is_about_to_read
        self.by_descriptor = True
        super().stopReading()
        if reading:
            self.startReading()

    def startReading(self) -> None:
        if self.by_descriptor:
            unix.Port.startReading(self)
        else:
            super().startReading()

    def stopReading(self) -> None:
        if self.by_descriptor:
            unix.Port.stopReading(self)
        else:
            super().stopReading()
