"""
TCP ports and clients whose connections are uvloop's.
"""

from __future__ import annotations

import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import tcp
from twisted.internet.error import ConnectError, UserError
from twisted.internet.protocol import Protocol
from twisted.python import log
from twisted.python.failure import Failure

from sockproto.uvreactor.accepting import AcceptingPort
from sockproto.uvreactor.connection import NOBODY, Connection
from sockproto.uvreactor.naming import address_of

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IProtocol

    from sockproto.uvreactor.reactor import UvloopReactor

__all__ = ["Connector", "Port", "ServerConnection"]

_MOST_QUEUED = struct.Struct("=I")
"""`tcpi_sacked` of a listening socket: the greatest length of its queue."""


class ServerConnection(Connection):
    """
    One that a port has accepted.
    """

    __slots__ = ("sessionno",)

    _client_of_tls = False

    server: AcceptingPort

    def _peer_name(self) -> Any:
        return self._uv.get_extra_info("peername")

    def _build(self) -> IProtocol | None:
        name = self._uv.get_extra_info("peername")
        port = self.server
        self.sessionno = port.sessionno
        if not port.has_accepted():
            return None
        if name is None:  # it was reset before we saw it
            return None
        protocol: IProtocol | None = port.factory.buildProtocol(address_of(name))
        if protocol is not None:
            port.sessionno += 1
        return protocol

    @property
    def hostname(self) -> str:
        """The peer's address."""
        return self.getPeer().host

    def logPrefix(self) -> str:
        return f"{self._prefix()},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        name = (self._was if self.disconnected else type(self._protocol)).__name__
        return f"<{name} #{self.sessionno} on {self.getHost().port}>"


class ClientConnection(Connection):
    """
    One that a connector has made.

    Args:
        attempt: its socket is connected; we take it over.
    """

    __slots__ = ("_handing_over", "_taken", "addr", "connector", "realAddress")

    _client_of_tls = True

    _given_up = False

    def __init__(self, attempt: _Attempt) -> None:
        super().__init__(cast("UvloopReactor", attempt.reactor))
        self.connector = attempt.connector
        self.addr = attempt.addr
        self.realAddress = attempt.realAddress
        self._handing_over: Task[None] = self.reactor.loop.create_task(
            self._take(attempt.socket)
        )
        self.reactor.kept.add(self)

    async def _take(self, taken: socket.socket) -> None:
        self._taken = taken
        try:
            await self.reactor.loop.create_connection(lambda: self, sock=taken)
        except OSError as error:
            taken.close()
            self.failIfNotConnected(ConnectError(error.errno, error.strerror))

    def connection_made(self, uv: Any) -> None:
        # uvloop closes the descriptor, but lets go of this only after a while.
        self._taken.detach()
        if self._given_up:
            uv.abort()
        else:
            super().connection_made(uv)

    def _peer_name(self) -> Any:
        return self.realAddress

    def _build(self) -> IProtocol | None:
        peer = address_of(self.realAddress)
        return cast("IProtocol | None", self.connector.buildProtocol(peer))

    def _could_not_make(self, reason: Failure) -> None:
        if self._protocol is not NOBODY:
            super()._could_not_make(reason)
            return
        log.err(reason)
        self.connected = 0
        self._uv.abort()
        self.failIfNotConnected(ConnectError(string=reason))

    def failIfNotConnected(self, reason: Any) -> None:
        """Give up, as long as it is not known to be connected."""
        if not self.connected and not self._given_up:
            self._given_up = True
            self.disconnected = True
            self.reactor.kept.discard(self)
            self.connector.connectionFailed(Failure(reason))

    @property
    def reads(self) -> bool:
        """Whether it is listened to, or about to be."""
        handing_over = not (self.connected or self._given_up)
        return handing_over or Connection.reads.fget(self)  # type: ignore[attr-defined]

    def stopConnecting(self) -> None:
        self.failIfNotConnected(UserError())

    def connectionLost(self, reason: Failure) -> None:
        if self.disconnected:
            return
        if not self.connected:
            self.failIfNotConnected(ConnectError(string=reason))
        else:
            super().connectionLost(reason)
            self.connector.connectionLost(reason)

    def logPrefix(self) -> str:
        if self._protocol is NOBODY and self._was is Protocol:
            return "Uninitialized"
        return f"{self._prefix()},client"

    def __repr__(self) -> str:
        return f"<{type(self)} to {self.addr} at {id(self):x}>"


def _backlog_of(listening: socket.socket) -> int:
    """Ask how many the kernel queues (tcp(7), TCP_INFO), so as to leave it so."""
    try:
        told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    except (AttributeError, OSError):
        return socket.SOMAXCONN
    return cast("int", _MOST_QUEUED.unpack_from(told, 28)[0])


class _Attempt(tcp.Client):
    """
    Connects, as Twisted's client does, and hands the socket over.
    """

    def _connectDone(self) -> None:
        self.connector.transport = ClientConnection(self)
        del self.connector


class Connector(tcp.Connector):
    """
    Makes connections of ours.
    """

    def _makeTransport(self) -> Any:
        return _Attempt(self.host, self.port, self.bindAddress, self, self.reactor)


class Port(AcceptingPort, tcp.Port):
    """
    Twisted's port, whose connections are accepted by uvloop.
    """

    transport: Any = ServerConnection

    def _accept(self, listening: socket.socket) -> Coroutine[Any, Any, Any]:
        backlog = _backlog_of(self.socket) if self.backlog is None else self.backlog
        loop: Any = self.reactor.loop
        accepting: Coroutine[Any, Any, Any] = loop.create_server(
            self._making(), sock=listening, backlog=backlog
        )
        return accepting

    def _making(self) -> Callable[[], Connection]:
        return partial(self.transport, self.reactor, self)
