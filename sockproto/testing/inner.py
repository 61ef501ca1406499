"""
What a test wraps, and who else has a part in it.
"""

# ruff: noqa: N802 - Twisted's interfaces have these names

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    ISSLTransport,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from zope.interface import directlyProvides, implementer

from sockproto.testing.memory import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from OpenSSL.SSL import Connection as TLSConnection
    from twisted.internet.interfaces import IAddress
    from twisted.protocols.tls import TLSMemoryBIOProtocol
    from twisted.python.failure import Failure

__all__ = [
    "AllEars",
    "AnonymousTLS",
    "HalfCloseable",
    "Inner",
    "InnerFactory",
    "LeastFactory",
    "Listener",
    "NegotiatingFactory",
    "NotedTLS",
    "Producer",
    "Receiver",
    "Wire",
]


class Inner(Protocol):
    """
    Notes what it is told, and at each event does what the test says.
    """

    transport: Any

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = bytearray()
        self.reasons: list[Failure] = []
        self.then: dict[str, Callable[[], object]] = {}

    def note(self, event: str) -> None:
        self.events.append(event)
        self.then.get(event, bool)()

    def makeConnection(self, transport: Any) -> None:
        self.events.append("makeConnection")
        super().makeConnection(transport)

    def connectionMade(self) -> None:
        self.note("connectionMade")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.note("dataReceived")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason)
        self.note("connectionLost")


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Inner):
    def readConnectionLost(self) -> None:
        self.note("readConnectionLost")

    def writeConnectionLost(self) -> None:
        self.note("writeConnectionLost")


@implementer(IHandshakeListener)
class Listener(Inner):
    def handshakeCompleted(self) -> None:
        self.note("handshakeCompleted")


@implementer(IFileDescriptorReceiver)
class Receiver(Inner):
    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.note(f"fileDescriptorReceived {descriptor}")


class AllEars(HalfCloseable, Listener, Receiver):
    pass


class Producer:
    """
    Notes what its consumer asks, and then does what the test says.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.then: dict[str, Callable[[], object]] = {}

    def note(self, event: str) -> None:
        self.events.append(event)
        self.then.get(event, bool)()

    def pauseProducing(self) -> None:
        self.note("pauseProducing")

    def resumeProducing(self) -> None:
        self.note("resumeProducing")

    def stopProducing(self) -> None:
        self.note("stopProducing")


class InnerFactory(ClientFactory):
    """
    Builds what it is told to, and notes what it is told.
    """

    noisy = False

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.events: list[Any] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self.events.append(addr)
        return self.make()

    def startFactory(self) -> None:
        self.events.append("startFactory")

    def stopFactory(self) -> None:
        self.events.append("stopFactory")

    def startedConnecting(self, connector: Any) -> None:
        self.events.append(("startedConnecting", connector))

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.events.append(("clientConnectionFailed", connector, reason))

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.events.append(("clientConnectionLost", connector, reason))


@implementer(IProtocolFactory)
class LeastFactory:
    """
    A factory that has what the interface asks for, and nothing more.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._protocol

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass


@implementer(IProtocolNegotiationFactory)
class NegotiatingFactory(Factory):
    noisy = False

    def acceptableProtocols(self) -> list[bytes]:
        return [b"h2"]


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class AnonymousTLS:
    """
    TLS in which nobody has a certificate: it hides, and proves nothing.
    """

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> TLSConnection:
        from OpenSSL import SSL

        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(b"AECDH-AES256-SHA:@SECLEVEL=0")
        return SSL.Connection(context, None)

    clientConnectionForTLS = serverConnectionForTLS


class NotedTLS(MemoryTransport):
    """
    Notes the arguments of `startTLS`, and starts nothing.
    """

    def startTLS(self, *args: Any, **kwargs: Any) -> None:
        self.tls_arguments = (args, kwargs)
        directlyProvides(self, ISSLTransport)


class Wire:
    """
    Between two transports: what one of them has sent, the other is delivered.
    """

    def __init__(self, *ends: MemoryTransport) -> None:
        self.passed = bytearray()
        self._ends = ends

    def until(self, condition: Callable[[], object]) -> Callable[[], object]:
        """Make a condition that is looked at after something has passed."""

        def look() -> object:
            for one, other in (self._ends, self._ends[::-1]):
                data = one.take()
                self.passed += data
                other.deliver(data)
                if one.output_ended:
                    other.end_input()
            return condition()

        return look
