"""
What the clients share: how a connection comes about, and how its end is told.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError as DeferredTimeout,
)
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    DNSLookupError,
    TimeoutError as ConnectTimeout,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IHostnameResolver,
    IHostResolution,
    INegotiated,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from zope.interface import alsoProvides, directlyProvides, implementer, providedBy

from sockproto.errors import (
    ConnectionWasReset,
    HandshakeFailed,
    NameNotResolved,
    NotConnected,
    NothingCame,
    PeerError,
    SockprotoError,
    TimedOut,
)
from sockproto.reporting import describe_address, describe_loss
from sockproto.spelling import host_and_port
from sockproto.transports import StreamTransport, passes_half_close, pending_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import (
        IAddress,
        IProtocolFactory,
    )
    from twisted.python.failure import Failure

__all__ = [
    "ClientStream",
    "Host",
    "Observer",
    "connect",
    "ended_without_notice",
    "fail_all",
    "fire",
    "first_address",
    "within",
]

_log = Logger()

CONNECT_SECONDS = 30.0
"""How long one attempt to connect may take; a host may have several addresses."""


class Observer:
    """
    Is told what happens on the socket; each method does nothing, override some.
    """

    def resolved(self, host: str, addresses: Sequence[str]) -> None:
        """The addresses of a host name, in the order in which they are tried."""

    def connected(self, here: str, there: str) -> None:
        """A connection was made between these addresses."""

    def secured(self, session: dict[str, Any]) -> None:
        """TLS was agreed on; `sockproto.tls.session_of` says what is told."""

    def sent(self, data: bytes) -> None:
        """These bytes, or this datagram, were handed to the transport."""

    def received(self, data: bytes) -> None:
        """These bytes, or this datagram, came in one read."""

    def closed(self, why: str) -> None:
        """The connection is over."""


_P = TypeVar("_P", bound=Protocol)
_T = TypeVar("_T")


class _Builder(Factory, Generic[_P]):
    noisy = False

    def __init__(self, build: Callable[[], _P]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> _P:
        return self._build()


def connect(endpoint: IStreamClientEndpoint, build: Callable[[], _P]) -> Deferred[_P]:
    """
    Connect a protocol over an endpoint; cancelling gives up the attempt.

    Errors:
        NameNotResolved: the host has no address.
        NotConnected: refused, unreachable, no such socket.
        TimedOut: none of its addresses answered.
    """

    def failed(failure: Failure) -> Failure:
        raise connect_error(failure, _where(endpoint)) from failure.value

    connecting: Deferred[Any] = endpoint.connect(_Builder(build))
    return connecting.addErrback(failed)


def fire(waiter: Deferred[_T], value: _T) -> None:
    """
    Fire a Deferred whose owner may have cancelled it.
    """
    if not waiter.called:
        waiter.callback(value)


def fail_all(waiters: Iterable[Deferred[Any]], error: Exception) -> None:
    """
    Fail Deferreds whose owners may have cancelled them.
    """
    for waiter in waiters:
        if not waiter.called:
            waiter.errback(error)


def _tls_problem(reason: Failure) -> HandshakeFailed | None:
    # A connection without TLS has no use for its modules.
    if "sockproto.tls" not in sys.modules:
        return None
    from sockproto.tls import handshake_problem

    return handshake_problem(reason)


def ended_without_notice(reason: Failure) -> bool:
    """
    Tell whether a TLS connection ended under TLS, without its close_notify.
    """
    # Twisted tells the same of a reset; it keeps no more of it.
    return _tls_problem(reason) is not None or reason.value is CONNECTION_LOST


def _where(endpoint: object) -> str:
    """Say where an endpoint leads; Twisted's have no public word for it."""
    endpoint = getattr(endpoint, "under_tls", endpoint)
    host, port = getattr(endpoint, "_host", None), getattr(endpoint, "_port", None)
    if isinstance(host, str) and isinstance(port, int):
        return host_and_port(host, port)
    path = getattr(endpoint, "_path", None)
    return path if isinstance(path, str) else str(endpoint)


def within(
    clock: Any, awaited: Deferred[_T], seconds: float, what: str
) -> Deferred[_T]:
    """
    Bound how long something is awaited; it is cancelled then.

    Errors:
        TimedOut: it did not come in time.
    """

    def timed_out(failure: Any, seconds: float) -> Any:
        raise TimedOut(what, seconds)

    return awaited.addTimeout(seconds, clock, onTimeoutCancel=timed_out)


def connect_error(
    failure: Failure, where: str, seconds: float = CONNECT_SECONDS
) -> BaseException:
    """
    Turn what a failed attempt to connect is told into our error.
    """
    error = failure.value
    assert error is not None, "Twisted's types say that it could be"
    if isinstance(error, ConnectingCancelledError):
        return CancelledError()
    if isinstance(error, SockprotoError | CancelledError | DeferredTimeout):
        return error
    if isinstance(error, DNSLookupError | ValueError):
        # HostnameEndpoint has ValueError for a name that IDNA refuses.
        return NameNotResolved(where)
    if isinstance(error, ConnectTimeout):
        return TimedOut(f"a connection to {where}", seconds)
    if isinstance(error, ConnectError):
        return NotConnected(where, _words_of(error))
    return error


def _words_of(error: ConnectError) -> str:
    number = error.osError
    if isinstance(number, int):
        return os.strerror(number).lower()
    return " ".join(str(error).split()).rstrip(".").lower()


@implementer(IStreamClientEndpoint)
class Host:
    """
    A client endpoint for a host name or address and a TCP port.

    All addresses of the name are tried, IPv6 and IPv4 in turn, the next one
    when the one before is slow (RFC 8305).

    Args:
        reactor: connects and resolves.
        family: 4 or 6 to try only addresses of that family.
        addresses: what the name resolves to, in place of asking for it.
        observer: is told what the name resolved to.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        *,
        family: int | None = None,
        addresses: Sequence[str] | None = None,
        timeout_seconds: float = CONNECT_SECONDS,
        observer: Observer | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._timeout = timeout_seconds
        if addresses is None:
            addresses = _known_without_asking(host)
        # HostnameEndpoint knows no name that is none in the DNS, as `my_service`,
        # though the resolver may: it gets a stand-in, and the resolver the name.
        stands_in = host and host.isascii()
        name, stand_in = (host, "host") if stands_in else (None, host)
        resolver = _FamilyResolver(reactor, family, observer, addresses, name)
        self._endpoint = HostnameEndpoint(
            _ReactorWithResolver(reactor, resolver),
            stand_in,
            port,
            timeout_seconds,
        )

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        def failed(failure: Failure) -> Failure:
            if given_up:
                raise CancelledError from failure.value
            error = connect_error(failure, str(self), self._timeout)
            if isinstance(error, NameNotResolved):
                error = NameNotResolved(self.host)
            raise error from failure.value

        def give_up(_: Deferred[Any]) -> None:
            # HostnameEndpoint that is cancelled says that the name was not found.
            given_up.append(True)
            connecting.cancel()

        given_up: list[bool] = []
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        connected: Deferred[Any] = Deferred(give_up)
        connecting.addErrback(failed).chainDeferred(connected)
        return connected


class _ReactorWithResolver:
    """A reactor whose names are resolved by someone else."""

    def __init__(self, reactor: Any, resolver: IHostnameResolver) -> None:
        self._reactor = reactor
        self.nameResolver = resolver
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


_FAMILIES: dict[int, type[IPv4Address | IPv6Address]] = {
    4: IPv4Address,
    6: IPv6Address,
}


@implementer(IHostnameResolver)
class _FamilyResolver:
    """Resolves one name, to addresses of one family, and tells an observer."""

    def __init__(
        self,
        reactor: Any,
        family: int | None,
        observer: Observer | None,
        addresses: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        self._name = name
        self._inner: IHostnameResolver = (
            reactor.nameResolver if addresses is None else _Known(addresses)
        )
        self._types = None if family is None else [_FAMILIES[family]]
        self._observer = observer

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        receiver = resolutionReceiver
        if self._name is not None:
            hostName = self._name
        if self._observer is not None:
            receiver = _ObservedReceiver(receiver, hostName, self._observer)
        return self._inner.resolveHostName(
            receiver,
            hostName,
            portNumber,
            addressTypes if self._types is None else self._types,
            transportSemantics,
        )


@implementer(IHostnameResolver)
class _Known:
    """Knows the addresses already; Twisted's resolver would ask a thread."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        for address in self._addresses:
            kind = IPv6Address if ":" in address else IPv4Address
            if addressTypes is None or kind in addressTypes:
                resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


def _known_without_asking(host: str) -> list[str] | None:
    """A literal is its own address, what is no name has none; else None."""
    try:
        if isIPAddress(host) or isIPv6Address(host):
            if "%" in host:  # is there such an interface?
                socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
            return [host]
        # getaddrinfo does it too, in a thread of Twisted's resolver, which never
        # says that it is done if that fails.
        host.encode("idna")
    except (OSError, UnicodeError):
        return []
    return None


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """It is over already."""


@implementer(IResolutionReceiver)
class _FirstAddress:
    """Fires with the first address of a name, all of them having come."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._resolution: IHostResolution | None = None
        self._first: Any = None
        self.found: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, found: Deferred[Any]) -> None:
        # A thread that resolves a name cannot be stopped; its result is dropped.
        if self._resolution is not None:
            with suppress(NotImplementedError):
                self._resolution.cancel()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._resolution = resolutionInProgress

    def addressResolved(self, address: IAddress) -> None:
        if self._first is None:
            self._first = address

    def resolutionComplete(self) -> None:
        if self._first is None:
            fail_all([self.found], NameNotResolved(self._host))
        else:
            fire(self.found, self._first)


def first_address(
    reactor: Any,
    host: str,
    port: int,
    family: int | None = None,
    observer: Observer | None = None,
) -> Deferred[Any]:
    """
    Resolve a host name or a literal address for UDP, which tries no second one.

    Errors:
        NameNotResolved: it has no address (of that family, 4 or 6).
    """
    receiver = _FirstAddress(host)
    known = _known_without_asking(host)
    resolver = _FamilyResolver(reactor, family, observer, known)
    resolver.resolveHostName(receiver, host, port, transportSemantics="UDP")
    return receiver.found


@implementer(IResolutionReceiver)
class _ObservedReceiver:
    def __init__(
        self, inner: IResolutionReceiver, host: str, observer: Observer
    ) -> None:
        self._inner = inner
        self._host = host
        self._observer = observer
        self._addresses: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._inner.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        self._addresses.append(getattr(address, "host", str(address)))
        self._inner.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._observer.resolved(self._host, self._addresses)
        self._inner.resolutionComplete()


@implementer(IHalfCloseableProtocol)
class ClientStream(Protocol):
    """
    One connection of a client; what it says is in a subclass.

    Subclasses override `_received`, `_shortfall` and `_over`, and where they
    need it `_made` and `_peer_ended`.

    Attributes:
        bytes_received: in all.
        ended: what later calls fail with, once the connection is over.
    """

    transport: StreamTransport  # type: ignore[assignment]

    bytes_received = 0
    ended: SockprotoError | None = None

    _input_ended = False

    def __init__(self, observer: Observer | None = None) -> None:
        self._observer = observer
        self._failure: SockprotoError | None = None
        self._closed_waiters: list[Deferred[None]] = []
        self._closes_when_idle = False
        self._in_handshake = False

    # Twisted's side

    def connectionMade(self) -> None:
        if self._observer is not None:
            transport: Any = self.transport
            self._tell(
                self._observer.connected,
                describe_address(transport.getHost()),
                describe_address(transport.getPeer()),
            )
        if INegotiated.providedBy(self.transport):
            # Only over TLS: of several such interfaces, Twisted's endpoints pass on
            # the last alone, and half-close would be lost.
            alsoProvides(self, IHandshakeListener)
            # SSL4ClientEndpoint has looked already, and put a wrapper between.
            between: Any = getattr(self.transport, "wrappedProtocol", self)
            if between is not self and hasattr(between, "handshakeCompleted"):
                alsoProvides(between, IHandshakeListener)
            self._in_handshake = True
        self._made()

    def dataReceived(self, data: bytes) -> None:
        self.bytes_received += len(data)
        if self._observer is not None:
            self._tell(self._observer.received, data)
        if self._failure is None:
            self._received(data)
            if self._closes_when_idle and self._shortfall() is None:
                self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        self._input_ended = True
        number = pending_error(self.transport)
        if number:
            self.abort(ConnectionWasReset(os.strerror(number).lower()))
        else:
            self._peer_ended()

    def writeConnectionLost(self) -> None:
        pass

    def handshakeCompleted(self) -> None:
        self._in_handshake = False
        if self._observer is not None:
            from sockproto.tls import session_of

            self._tell(self._observer.secured, session_of(self.transport))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._observer is not None:
            self._tell(self._observer.closed, describe_loss(reason))
        error = self._failure or self._loss_error(reason)
        self.ended = error or NotConnected("the peer", "the connection is closed")
        if error is not None:
            self._over(error)
        waiters, self._closed_waiters = self._closed_waiters, []
        if error is not None:
            fail_all(waiters, error)
        else:
            for waiter in waiters:
                fire(waiter, None)

    # For callers and subclasses

    def send(self, data: bytes) -> None:
        """Write bytes to the peer."""
        if self._observer is not None:
            self._tell(self._observer.sent, data)
        self.transport.write(data)

    def _tell(self, tell: Callable[..., None], *what: object) -> None:
        """Tell an observer, whose failure is its own: it is logged."""
        try:
            tell(*what)
        except Exception:  # noqa: BLE001 - an observer is anybody's code
            _log.failure("an observer failed")

    def end_input(self) -> None:
        """
        Tell the peer that we shall send no more, and go on reading.

        Where a direction cannot be closed alone (TLS), close instead when
        nothing is owed to us any more.
        """
        if passes_half_close(self.transport):
            self.transport.loseWriteConnection()
        elif self._shortfall() is None:
            self.transport.loseConnection()
        else:
            self._closes_when_idle = True

    def closed(self) -> Deferred[None]:
        """
        Fires when the connection is over, with an error if that was too early.

        Cancelling it aborts the connection.
        """
        waiter: Deferred[None] = Deferred(self._cancelled)
        if self.ended is None:
            self._closed_waiters.append(waiter)
        elif not isinstance(self.ended, NotConnected):
            waiter.errback(self.ended)
        else:
            waiter.callback(None)
        return waiter

    def abort(self, error: SockprotoError | None = None) -> None:
        """
        Close at once. What is awaited fails with `error`.
        """
        if self._failure is None:
            self._failure = error or ConnectionWasReset("aborted at this end")
        self.transport.abortConnection()

    def _cancelled(self, deferred: Deferred[Any]) -> None:
        self.abort()

    def _loss_error(self, reason: Failure) -> SockprotoError | None:
        if self._in_handshake and not isinstance(reason.value, PeerError):
            return _tls_problem(reason) or HandshakeFailed("the peer broke it off")
        shortfall = self._shortfall()
        if reason.check(ConnectionDone):
            if shortfall is not None and not self.bytes_received:
                return NothingCame()
            return shortfall
        if isinstance(reason.value, PeerError):
            return reason.value
        problem = _tls_problem(reason)
        if problem is None:
            return ConnectionWasReset(describe_loss(reason))
        return ConnectionWasReset(f"TLS: {problem.problem}")

    def _made(self) -> None:
        """The connection is there."""

    def _received(self, data: bytes) -> None:
        """Bytes have come."""
        raise NotImplementedError

    def _peer_ended(self) -> None:
        """The peer has ended its output; end our own."""
        self.transport.loseConnection()

    def _shortfall(self) -> PeerError | None:
        """What the peer owes us at this moment, as an error."""
        raise NotImplementedError

    def _over(self, error: SockprotoError) -> None:
        """The connection is over while something was awaited: fail it."""
