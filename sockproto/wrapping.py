"""
The base of all wrappers: what stands between a transport and a protocol.

Theory of operation. A factory is wrapped by a `FactoryWrapper`, and each of its
protocols by a `ConnectionWrapper`, which is a protocol to the transport and a
transport to the protocol. Whatever either side has, the other finds there:
half-close, abort, producers, TLS, socket options; and no more than what is there.
So it says at run time which interfaces it provides: those of its transport, and
of the interfaces by which a transport asks its protocol those that the inner one
has. They are told anew when TLS starts and when the protocol is changed.

A wrapper that changes nothing of what passes through costs the bytes that pass
nothing: `write` is the transport's own, and of a stack of wrappers only the
innermost looks its protocol up.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import DatagramProtocol, Protocol, connectionDone
from zope.interface import alsoProvides, implementer, providedBy
from zope.interface.declarations import Provides

from sockproto.checks import clock as checked_clock, seconds as checked_seconds
from sockproto.interfaces import Debt, IAttended, IOwing, ISteadyReceiver
from sockproto.reporting import describe_address, log
from sockproto.transports import Layer, unread, unsent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from sockproto.interfaces import Attendant, Writer
    from sockproto.rolls import Roll

__all__ = [
    "ConnectionWrapper",
    "DatagramWrapper",
    "Deadline",
    "FactoryWrapper",
    "ReadingHolder",
    "WatchedConnection",
    "accountable",
    "attended",
    "enrolled",
]

_ASKED_OF_PROTOCOLS = (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IFileDescriptorReceiver,
    IOwing,
    ISteadyReceiver,
)
"""By these a transport, or a policy, finds out what a protocol can be told."""


@lru_cache(maxsize=256)
def _declaration(kind: Any, transport: Any, inner: Any) -> Any:
    """What a wrapper of this kind provides: one declaration for all its likes."""
    asked = [each for each in _ASKED_OF_PROTOCOLS if inner.isOrExtends(each)]
    passed = [each for each in transport if each not in _ASKED_OF_PROTOCOLS]
    return Provides(kind, *asked, *passed)


@implementer(IProtocol, ILoggingContext, IAttended)
class ConnectionWrapper(Layer):
    """
    One connection of a wrapped factory; as it is, it changes nothing.

    A subclass overrides what it changes, of `IProtocol` and of what its transport
    provides, and calls `super()`; it is made by `FactoryWrapper.wrap`. After the
    connection is lost it holds its inner protocol no longer.

    Args:
        factory: what made it.
        inner: the protocol to wrap.
    """

    inner: IProtocol
    lost = False
    """Whether the connection is gone."""

    attendants: tuple[Attendant, ...] = ()
    rolls: tuple[Roll, ...] = ()
    """These as `IAttended` has them."""

    def __init__(self, factory: Any, inner: IProtocol) -> None:
        self.factory = factory
        self.inner = inner
        self._declare()

    def _declare(self) -> None:
        kind: Any = type(self)
        self.__provides__ = _declaration(
            kind, providedBy(self.transport), providedBy(self.inner)
        )

    def _take_shortcuts(self) -> None:
        """Step out of the way of bytes that we would only hand on."""
        inner = self.inner
        if (
            isinstance(inner, ConnectionWrapper)
            and type(self).dataReceived is ConnectionWrapper.dataReceived
        ):
            self.dataReceived = inner.dataReceived  # type: ignore[method-assign]
        else:
            vars(self).pop("dataReceived", None)

    def _drop_shortcuts(self, *names: str) -> None:
        own = vars(self)
        for name in names:
            own.pop(name, None)

    # To the transport we are the protocol

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        for each in self.attendants:
            each.made(self)
        for roll in self.rolls:
            roll.add(self)
        self._declare()
        kind = type(self)
        if kind.write is ConnectionWrapper.write:
            self.write = transport.write  # type: ignore[method-assign]
        if kind.writeSequence is ConnectionWrapper.writeSequence:
            self.writeSequence = (  # type: ignore[method-assign]
                transport.writeSequence
            )
        self.inner.makeConnection(self)  # type: ignore[arg-type]
        self._take_shortcuts()

    def connectionMade(self) -> None:
        """As `IProtocol` has it; the inner protocol is told by `makeConnection`."""

    def dataReceived(self, data: bytes) -> None:
        self.inner.dataReceived(data)

    def write_to(self, writer: Writer) -> None:
        """As `ISteadyReceiver` has it, if the inner protocol provides that."""
        below: Writer = self
        if type(self).write is ConnectionWrapper.write:
            self.write = writer.write  # type: ignore[assignment, method-assign]
            below = writer
        inner: Any = self.inner
        if ISteadyReceiver.providedBy(inner):
            inner.write_to(below)

    def readConnectionLost(self) -> None:
        self.inner.readConnectionLost()  # type: ignore[attr-defined]

    def writeConnectionLost(self) -> None:
        self.inner.writeConnectionLost()  # type: ignore[attr-defined]

    def handshakeCompleted(self) -> None:
        self.inner.handshakeCompleted()  # type: ignore[attr-defined]

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.inner.fileDescriptorReceived(  # type: ignore[attr-defined]
            descriptor
        )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        # Twisted's TLS has another `write` from here on, and so has uvloop's transport.
        self._drop_shortcuts("write", "writeSequence", "dataReceived")
        inner, self.inner = self.inner, _NOBODY
        for each in self.attendants:
            each.lost(self)
        try:
            inner.connectionLost(reason)
        finally:
            for roll in self.rolls:
                roll.discard(self)
            for each in self.attendants:
                each.gone(self)

    def logPrefix(self) -> str:
        return _log_prefix(self, self.inner)

    # To the protocol we are the transport; what is not here is the transport's

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.transport.writeSequence(data)

    # These would be found in the transport, too, but not as fast.

    def loseConnection(self) -> None:
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        self.transport.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def startTLS(self, *args: Any, **kwargs: Any) -> Any:
        started = self.transport.startTLS(*args, **kwargs)
        self._declare()
        return started

    @property
    def protocol(self) -> IProtocol:
        """
        Who is told what the transport hears; another may take over.

        It is set by the protocol in charge, as on a transport of Twisted's. The
        new one is not connected by that: call its `makeConnection`, if it has
        not a transport yet.
        """
        inner = self.inner
        return inner.inner if isinstance(inner, _Account) else inner

    @protocol.setter
    def protocol(self, protocol: IProtocol) -> None:
        if IOwing.providedBy(self.inner) and not IOwing.providedBy(protocol):
            # Those around us go on asking.
            account = _Account(None, protocol)
            account.transport = self
            protocol = account
        before: Any = self.inner
        if before is not protocol and ISteadyReceiver.providedBy(before):
            # Nobody tells it any more when that changes: not to us, but through us.
            self._drop_shortcuts("write", "writeSequence")
            before.write_to(self)
        self.inner = protocol
        self.inner_changed()

    def inner_changed(self) -> None:
        """Say anew what is provided; so do the wrappers around us."""
        self._declare()
        if not ISteadyReceiver.providedBy(self.inner):
            # Nobody tells it, nor us, when what we were told to write with changes.
            self._drop_shortcuts("write", "writeSequence")
        self._take_shortcuts()
        outer = self.transport
        if isinstance(outer, ConnectionWrapper):
            outer.inner_changed()
        elif (
            getattr(type(outer), "protocol", None)
            and getattr(outer, "protocol", None) is self
        ):
            outer.protocol = self  # it may have kept what we were before

    # IOwing, of those that have it

    @property
    def bytes_received(self) -> int:
        """Bytes received in all, if the inner protocol provides `IOwing`."""
        return self.inner.bytes_received  # type: ignore[attr-defined,no-any-return]

    @property
    def bytes_sent(self) -> int:
        """Bytes written in all, if the inner protocol provides `IOwing`."""
        return self.inner.bytes_sent  # type: ignore[attr-defined,no-any-return]

    def owed(self) -> Debt:
        return self.inner.owed()  # type: ignore[attr-defined,no-any-return]

    def finish(self, reason: str) -> None:
        self.inner.finish(reason)  # type: ignore[attr-defined]

    def abort(self, reason: str) -> None:
        self.inner.abort(reason)  # type: ignore[attr-defined]


@implementer(IOwing)
class _Nobody(Protocol):
    """
    Stands where a protocol was: what comes too late for it does no harm.
    """

    bytes_received = 0
    bytes_sent = 0

    def owed(self) -> Debt:
        return Debt()

    def finish(self, reason: str) -> None:
        pass

    def abort(self, reason: str) -> None:
        pass


_NOBODY = _Nobody()


class ReadingHolder(ConnectionWrapper):
    """
    One that may hold up reading for a reason of its own.

    Reading goes on when neither it nor the inner protocol has it paused.
    """

    _paused = False  # by the inner protocol
    _holding = False
    _input_ended = False

    def hold_reading(self) -> None:
        """Read no more, until `release_reading`."""
        if not self._holding:
            self._holding = True
            if not self._paused and not self._input_ended:
                self.transport.pauseProducing()

    def release_reading(self) -> None:
        """Read again, unless the inner protocol has paused."""
        if self._holding:
            self._holding = False
            # After its end of file, a transport that is resumed reads it again.
            if not self._paused and not self._input_ended:
                self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._holding:
            self.transport.resumeProducing()

    def readConnectionLost(self) -> None:
        self._input_ended = True
        super().readConnectionLost()

    def owed(self) -> Debt:
        debt = super().owed()
        return debt + Debt(unread=unread(self.transport)) if self._holding else debt


@implementer(IOwing)
class _Account(ConnectionWrapper):
    """
    Counts for a protocol that provides no `IOwing`, and ends it.
    """

    bytes_received = 0
    bytes_sent = 0

    def dataReceived(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self.inner.dataReceived(data)

    def write(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self.transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        pieces = list(data)
        self.bytes_sent += sum(map(len, pieces))
        self.transport.writeSequence(pieces)

    def owed(self) -> Debt:
        return Debt(unsent=unsent(self.transport))

    def finish(self, reason: str) -> None:
        log.info("Closing the connection from {peer}: {reason}.", **self._words(reason))
        # A transport waits with its close until its producer is done; and this
        # one was not asked. Some complain if there was none.
        with suppress(RuntimeError):
            self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self, reason: str) -> None:
        log.info("Closing the connection from {peer}: {reason}.", **self._words(reason))
        self.transport.abortConnection()

    def _words(self, reason: str) -> dict[str, str]:
        return {"peer": describe_address(self.transport.getPeer()), "reason": reason}


def accountable(protocol: IProtocol) -> IProtocol:
    """
    Have a protocol that provides `IOwing`: itself, or one that counts for it.

    What counts for it takes it for settled when all that it wrote is sent, and
    ends it with the transport's `loseConnection`, whatever its producer has left.
    """
    if IOwing.providedBy(protocol):
        return protocol
    return _Account(None, protocol)


def attended(protocol: IProtocol, *attendants: Attendant) -> IProtocol:
    """
    Have a protocol that tells attendants: itself, or one that tells for it.
    """
    if not _tells(type(protocol)):
        protocol = ConnectionWrapper(None, protocol)
    protocol.attendants += attendants  # type: ignore[attr-defined]
    return protocol


def enrolled(protocol: IProtocol, roll: Roll) -> IProtocol:
    """
    Have an accountable protocol that is on a roll as long as it is connected: itself,
    or one that is there for it. It can have attendants, too.
    """
    if not _enrolls(type(protocol)):
        protocol = accountable(protocol)
        if not isinstance(protocol, ConnectionWrapper):
            protocol = ConnectionWrapper(None, protocol)
    protocol.rolls += (roll,)  # type: ignore[attr-defined]
    return protocol


@lru_cache(maxsize=256)
def _tells(kind: type) -> bool:
    return issubclass(kind, ConnectionWrapper) or (
        IAttended.implementedBy(kind) and "attendants" in vars(kind)
    )


@lru_cache(maxsize=256)
def _enrolls(kind: type) -> bool:
    return IOwing.implementedBy(kind) and _tells(kind) and "rolls" in vars(kind)


_C = TypeVar("_C", bound=IProtocol)


@implementer(IProtocolFactory, ILoggingContext)
class FactoryWrapper(Generic[_C]):
    """
    Wraps a factory, whichever it is; as it is, its protocols too, in nothing.

    A subclass overrides `wrap`, or `buildProtocol` if it may refuse. A connection
    that the inner factory refuses is refused. What is not here is the inner's.

    Args:
        inner: builds the protocols to wrap.
    """

    def __init__(self, inner: IProtocolFactory) -> None:
        self.inner = inner
        if IProtocolNegotiationFactory.providedBy(inner):
            alsoProvides(self, IProtocolNegotiationFactory)

    def wrap(self, inner: IProtocol) -> _C:
        """Wrap one protocol, which is not connected yet."""
        return ConnectionWrapper(self, inner)  # type: ignore[return-value]

    def buildProtocol(self, addr: IAddress | None) -> _C | None:
        inner: IProtocol | None
        inner = self.inner.buildProtocol(addr)  # type: ignore[arg-type]
        return None if inner is None else self.wrap(inner)

    def doStart(self) -> None:
        self.inner.doStart()

    def doStop(self) -> None:
        self.inner.doStop()

    def logPrefix(self) -> str:
        return _log_prefix(self, self.inner)

    def __getattr__(self, name: str) -> Any:
        # `__provides__` would be the inner's; `inner` is not there yet in a copy.
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


class WatchedConnection(ConnectionWrapper):
    """
    One that is looked at, again and again, as long as it is there.

    A subclass overrides `_look`, and calls `_look_in` from `makeConnection` on.
    """

    factory: Deadline[Any]

    _next_look: IDelayedCall | None = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        super().connectionLost(reason)

    def _look_in(self, seconds: float) -> None:
        self._next_look = self.factory.clock.callLater(seconds, self._look_now)

    def _look_now(self) -> None:
        self._next_look = None
        self._look()

    def _look(self) -> None:
        raise NotImplementedError


class Deadline(FactoryWrapper[_C]):
    """
    Ends the connections that are too long without something.

    A subclass makes its `WatchedConnection` in `wrap`.

    Args:
        inner: builds the protocols to watch.
        seconds: how long is not too long, above 0.
        clock: measures it; the reactor, outside tests.

    Attributes:
        ended: how many connections it has ended.

    Raises:
        SettingError: `seconds` is no number above 0, or `clock` no clock.
    """

    def __init__(
        self, inner: IProtocolFactory, *, seconds: float, clock: IReactorTime
    ) -> None:
        super().__init__(inner)
        self.seconds = checked_seconds("seconds", seconds, above_zero=True)
        self.clock = checked_clock("clock", clock)
        self.ended = 0


class DatagramWrapper(DatagramProtocol):
    """
    Stands before a protocol of datagrams; as it is, it changes nothing.

    A subclass overrides `datagramReceived`. The inner protocol gets the port itself
    as its transport: what it sends passes nothing here.

    Args:
        inner: what the datagrams are for.
    """

    noisy = False  # the inner protocol speaks for itself

    def __init__(self, inner: DatagramProtocol) -> None:
        self.inner = inner
        self.where = ""

    # The base class counts the ports, here and in the inner protocol, so each start
    # and stop reaches that once.

    def startProtocol(self) -> None:
        port: Any = self.transport
        if hasattr(port, "getHost"):
            self.where = f" at {describe_address(port.getHost())}"
        self.inner.makeConnection(port)

    def stopProtocol(self) -> None:
        self.inner.doStop()

    def connectionRefused(self) -> None:
        self.inner.connectionRefused()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.inner.datagramReceived(datagram, addr)

    def logPrefix(self) -> str:
        prefix: str = self.inner.logPrefix()
        return prefix


def _log_prefix(wrapper: object, inner: object) -> str:
    if ILoggingContext.providedBy(inner):
        prefix = inner.logPrefix()
    else:
        prefix = type(inner).__name__
    return f"{prefix} ({type(wrapper).__name__})"
