"""
What a wrapped factory is told and asked.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ILoggingContext, IProtocolNegotiationFactory
from twisted.python.failure import Failure

from sockproto.testing.clauses import Clauses
from sockproto.testing.inner import (
    Inner,
    InnerFactory,
    LeastFactory,
    NegotiatingFactory,
)
from sockproto.testing.memory import MemoryTransport, connect

__all__ = ["Factories"]


class Factories(Clauses):
    """
    A factory is started, asked for protocols, and named in the log.
    """

    def test_refused(self) -> None:
        """What the inner factory refuses is refused, and takes no place."""
        inner = Inner()
        answers = [None] * 100 + [inner]
        factory = self._wrap(InnerFactory(lambda: answers.pop(0)))
        for _ in range(100):
            transport = MemoryTransport(self.clock)
            outer = factory.buildProtocol(transport.getPeer())
            if outer is not None:
                # It may close it itself.
                transport.connect(outer)
                self._pass_time(lambda: not transport.connected)  # noqa: B023
                self.assertEqual(transport.connected, 0)
        _, transport = connect(factory, self.clock)
        transport.deliver(b"data")
        self._pass_time(lambda: inner.received)
        self.assertEqual(inner.received, b"data")

    def test_started_and_stopped(self) -> None:
        """The inner factory starts with its first port and stops with its last."""
        inner = InnerFactory(Inner)
        factory = self.wrap(inner)
        for _ in range(2):
            factory.doStart()
            factory.doStart()
            self.assertEqual(inner.events, ["startFactory"])
            factory.doStop()
            self.assertEqual(inner.events, ["startFactory"])
            factory.doStop()
            self.assertEqual(inner.events, ["startFactory", "stopFactory"])
            inner.events.clear()

    def test_address(self) -> None:
        """The inner factory is told the address, whatever it is."""
        inner = InnerFactory(Inner)
        factory = self._wrap(inner)
        address = IPv4Address("TCP", "192.0.2.77", 77)
        factory.buildProtocol(address)
        self.assertIs(inner.events[-1], address)

    def test_client_events(self) -> None:
        """A factory of clients is told how its connections fare."""
        inner = InnerFactory(Inner)
        factory = self._wrap(inner)
        del inner.events[:]
        reason = Failure(ConnectionLost())
        factory.startedConnecting("connector")
        factory.clientConnectionFailed("connector", reason)
        factory.clientConnectionLost("connector", reason)
        self.assertEqual(
            inner.events,
            [
                ("startedConnecting", "connector"),
                ("clientConnectionFailed", "connector", reason),
                ("clientConnectionLost", "connector", reason),
            ],
        )

    def test_least_factory(self) -> None:
        """A factory that has only what the interface asks for will do."""
        inner = Inner()
        factory = self._wrap(LeastFactory(inner))
        lost = Failure(ConnectionLost())
        if hasattr(factory, "startedConnecting"):
            factory.startedConnecting("connector")
            factory.clientConnectionFailed("connector", lost)
            factory.clientConnectionLost("connector", lost)
        _, transport = connect(factory, self.clock)
        transport.deliver(b"data")
        self._pass_time(lambda: inner.received)
        self.assertEqual(inner.received, b"data")
        self.assertIn("LeastFactory", _log_prefix(factory))
        factory.doStop()

    def test_negotiation(self) -> None:
        """A factory that has its say in ALPN is asked; nobody else is offered."""
        plain = self._wrap(InnerFactory(Inner))
        self.assertFalse(IProtocolNegotiationFactory.providedBy(plain))
        factory = self._wrap(NegotiatingFactory())
        self.assertTrue(IProtocolNegotiationFactory.providedBy(factory))
        self.assertEqual(factory.acceptableProtocols(), [b"h2"])

    def test_log_prefix(self) -> None:
        """In the log the inner protocol and its factory are named."""
        inner = Inner()
        factory = self._wrap(InnerFactory(lambda: inner))
        self.assertIn("InnerFactory", _log_prefix(factory))
        outer, _ = connect(factory, self.clock)
        self.assertIn("Inner", _log_prefix(outer))
        vars(inner)["logPrefix"] = lambda: "a name of its own"
        self.assertIn("a name of its own", _log_prefix(outer))


def _log_prefix(logged: object) -> str:
    """What a transport would put before what it logs of this, as Twisted does."""
    if ILoggingContext.providedBy(logged):
        return str(logged.logPrefix())
    return type(logged).__name__
