"""
What else transports and protocols can do for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import interfaces
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHandshakeListener,
    ISSLTransport,
)
from twisted.internet.testing import StringTransport
from zope.interface import Interface, alsoProvides

from sockproto.testing.clauses import Clauses
from sockproto.testing.inner import (
    AllEars,
    AnonymousTLS,
    HalfCloseable,
    Inner,
    InnerFactory,
    Listener,
    NotedTLS,
    Receiver,
    Wire,
)
from sockproto.testing.memory import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Abilities"]


class _IMark(Interface):
    """What a transport of the test's own provides."""


_OF_TRANSPORTS = [
    interfaces.ITransport,
    interfaces.IConsumer,
    interfaces.IPushProducer,
    interfaces.IHalfCloseableDescriptor,
    interfaces.ITCPTransport,
    interfaces.IUNIXTransport,
    interfaces.ITLSTransport,
    interfaces.ISSLTransport,
    interfaces.INegotiated,
    interfaces.ISystemHandle,
    _IMark,
]


class Abilities(Clauses):
    """
    TLS, interfaces, attributes, and another protocol.
    """

    def test_start_tls(self) -> None:
        """`startTLS` gets what it was given, and then the transport is one of TLS."""
        for args, kwargs in (((1, False), {}), ((2,), {"normal": False}), ((3,), {})):
            inner = Inner()
            transport = self._connect(inner, NotedTLS(self.clock))
            self.assertFalse(ISSLTransport.providedBy(inner.transport))
            inner.transport.startTLS(*args, **kwargs)
            self.assertEqual(transport.tls_arguments, (args, kwargs))
            self.assertTrue(ISSLTransport.providedBy(inner.transport))

    def test_tls(self) -> None:
        """In the middle of a conversation both ends may start TLS, and it goes on."""
        inner, peer = Inner(), Inner()
        near = self._connect(inner)
        far = MemoryTransport(self.clock, client=True)
        far.connect(peer)
        wire = Wire(near, far)
        peer.transport.write(b"STARTTLS")
        self._pass_time(wire.until(lambda: inner.received == b"STARTTLS"))
        inner.transport.startTLS(AnonymousTLS(), True)
        peer.transport.startTLS(AnonymousTLS(), True)
        peer.transport.write(b"a secret")
        self._pass_time(wire.until(lambda: b"secret" in inner.received))
        self.assertEqual(inner.received, b"STARTTLSa secret")
        inner.transport.write(b"another ")
        inner.transport.writeSequence([b"secret", b"secret" * 20_000])
        inner.transport.loseConnection()
        self._pass_time(wire.until(lambda: inner.reasons and peer.reasons))
        self.assertEqual(peer.received, b"another " + b"secret" * 20_001)
        self.assertNotIn(b"secret", wire.passed)
        for end in (inner, peer):
            self.assertEqual([each.type for each in end.reasons], [ConnectionDone])

    def test_inside_tls(self) -> None:
        """Inside TLS it is as on a plain connection, and the handshake is told."""
        inner, peer = AllEars(), Inner()
        near = self._connect_tls(self._wrap(InnerFactory(lambda: inner)))
        far = self._connect_tls(InnerFactory(lambda: peer), client=True)
        wire = Wire(near, far)
        self.assertTrue(ISSLTransport.providedBy(inner.transport))
        peer.transport.write(b"question")
        self._pass_time(wire.until(lambda: inner.received))
        self.assertIn("handshakeCompleted", inner.events)
        self.assertIsNone(inner.transport.negotiatedProtocol)
        inner.transport.write(b"answer")
        self._pass_time(wire.until(lambda: peer.received))
        self.assertEqual((inner.received, peer.received), (b"question", b"answer"))
        inner.transport.loseConnection()
        self._pass_time(wire.until(lambda: inner.reasons and peer.reasons))
        self.assertEqual(len(inner.reasons), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_output_inside_tls(self) -> None:
        """Output after the end leaves no more behind than it does without a wrapper."""

        def left(wrap: Callable[[Any], Any]) -> int:
            inner = Inner()
            transport = self._connect_tls(wrap(InnerFactory(lambda: inner)))
            transport.lose()
            self._pass_time(lambda: inner.reasons)
            inner.transport.write(b"late")
            inner.transport.writeSequence([b"late"])
            calls = len(self.clock.getDelayedCalls())
            self.clock.advance(0)
            return calls

        without = left(lambda inner: inner)  # Twisted 26.4 itself leaves a call
        self.assertLessEqual(left(self._wrap), without)

    def _connect_tls(self, factory: Any, *, client: bool = False) -> MemoryTransport:
        """Connect a new protocol inside TLS; return the transport outside."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        outside = TLSMemoryBIOFactory(AnonymousTLS(), client, factory, self.clock)
        transport = MemoryTransport(self.clock)
        outer = outside.buildProtocol(transport.getPeer())
        transport.connect(outer)
        return transport

    def test_handshake_is_told(self) -> None:
        """Who listens for the end of a handshake is told; nobody else is offered."""
        for kind, expected in ((Inner, False), (Listener, True), (AllEars, True)):
            inner = kind()
            outer = self._connect(inner).protocol
            self.assertEqual(IHandshakeListener.providedBy(outer), expected, kind)
            if expected:
                outer.handshakeCompleted()
                self.assertEqual(inner.events[-1], "handshakeCompleted")

    def test_file_descriptors_are_told(self) -> None:
        """Who takes file descriptors gets them; nobody else is offered."""
        for kind, expected in ((Inner, False), (Receiver, True), (AllEars, True)):
            inner = kind()
            outer = self._connect(inner).protocol
            self.assertEqual(IFileDescriptorReceiver.providedBy(outer), expected, kind)
            if expected:
                outer.fileDescriptorReceived(7)
                self.assertEqual(inner.events[-1], "fileDescriptorReceived 7")

    def test_transport_interfaces(self) -> None:
        """The inner protocol's transport provides what the real one does, no more."""
        marked = MemoryTransport(self.clock)
        alsoProvides(marked, _IMark)
        for transport in (MemoryTransport(self.clock), marked, StringTransport()):
            inner = AllEars()
            self._connect(inner, transport)
            for each in _OF_TRANSPORTS:
                self.assertEqual(
                    each.providedBy(inner.transport),
                    each.providedBy(transport),
                    f"{each} on {transport}",
                )

    def test_transport_attributes(self) -> None:
        """What else the transport has, the inner protocol finds there, and no more."""
        inner = Inner()
        transport = self._connect(inner)
        transport.negotiatedProtocol = b"h2"
        transport.getPeerCertificate = lambda: "a certificate"
        descriptors: list[int] = []
        transport.sendFileDescriptor = descriptors.append
        near = inner.transport
        near.setTcpNoDelay(True)
        near.setTcpKeepAlive(True)
        near.sendFileDescriptor(7)
        self.assertTrue(transport.getTcpNoDelay() and near.getTcpNoDelay())
        self.assertTrue(transport.getTcpKeepAlive() and near.getTcpKeepAlive())
        self.assertEqual(descriptors, [7])
        self.assertEqual(near.getPeerCertificate(), "a certificate")
        self.assertEqual(near.negotiatedProtocol, b"h2")
        self.assertEqual(near.getPeer(), transport.getPeer())
        self.assertEqual(near.getHost(), transport.getHost())
        self.assertIs(near.getHandle(), transport.getHandle())
        self.assertFalse(hasattr(near, "no_transport_has_this"))

    def test_other_transports(self) -> None:
        """A transport that can do only the least will do, too."""
        inner = Inner()
        transport = self._connect(inner, StringTransport())
        inner.transport.write(b"data")
        self._pass_time(transport.value)
        self.assertEqual(transport.value(), b"data")
        inner.transport.loseConnection()
        self._pass_time(lambda: transport.disconnecting)
        self.assertTrue(transport.disconnecting)
        self.assertTrue(inner.transport.disconnecting)

    def test_another_protocol_takes_over(self) -> None:
        """A protocol may set another on its transport, which is told from then on."""
        inner, other = Inner(), Inner()

        def switch() -> None:
            inner.transport.protocol = other
            other.makeConnection(inner.transport)

        inner.then["dataReceived"] = switch
        transport = self._connect(inner)
        transport.deliver(b"upgrade")
        self._pass_time(lambda: inner.received)
        transport.deliver(b"data")
        self._pass_time(lambda: other.received)
        self.assertIs(other.transport.protocol, other)
        self.assertEqual((inner.received, other.received), (b"upgrade", b"data"))
        transport.lose()
        self._pass_time(lambda: other.reasons)
        self.assertEqual((len(inner.reasons), len(other.reasons)), (0, 1))

    def test_half_close_goes_with_protocol(self) -> None:
        """What the end of the input is goes by the protocol that is there by then."""
        for first, other, told in (
            (Inner(), HalfCloseable(), "readConnectionLost"),
            (HalfCloseable(), Inner(), "connectionLost"),
        ):
            transport = self._connect(first)
            first.transport.protocol = other
            other.makeConnection(first.transport)
            transport.end_input()
            self._pass_time()
            self.assertEqual(other.events[2:], [told])
