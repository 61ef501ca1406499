"""
What all the clauses of the contract have in common.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from twisted.internet.task import Clock

from sockproto.testing.inner import InnerFactory
from sockproto.testing.memory import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory
    from twisted.trial.unittest import SynchronousTestCase

    from sockproto.testing.inner import Inner

    _Case = SynchronousTestCase
else:
    _Case = object

__all__ = ["PIECE", "Clauses"]

PIECE = 65_536
"""Bytes that a transport of Twisted's reads at once, and holds before it pauses."""


class Clauses(_Case):
    """
    Tests of the contract on one theme; what they need is here.
    """

    patience: ClassVar[float] = 5.0

    @cached_property
    def clock(self) -> Clock:
        return Clock()

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        """Wrap a factory; it is for you to write."""
        raise NotImplementedError

    def _wrap(self, inner: Any) -> Any:
        wrapped = self.wrap(inner)
        wrapped.doStart()
        return wrapped

    def _connect(self, inner: Any, transport: Any = None) -> Any:
        """Connect a protocol whose factory is wrapped; return the transport."""
        factory = self._wrap(InnerFactory(lambda: inner))
        if transport is None:
            transport = MemoryTransport(self.clock)
        outer = factory.buildProtocol(transport.getPeer())
        self.assertIsNotNone(outer, "wrap() has to admit connections")
        if isinstance(transport, MemoryTransport):
            transport.connect(outer)
        else:
            outer.makeConnection(transport)
        return transport

    def _pass_time(self, until: Callable[[], object] = bool) -> None:
        """Let time pass until this holds; the patience, if it does not."""
        steps = 100
        self.clock.advance(0)
        for _ in range(steps):
            if until():
                return
            self.clock.advance(self.patience / steps)

    def _take(self, transport: MemoryTransport, size: int) -> bytes:
        """Let the peer take as it comes, until it has so much or it is over."""

        def done() -> bool:
            transport.take()
            return len(transport.taken) >= size

        self._pass_time(done)
        return transport.taken

    def _lost_after(self, transport: MemoryTransport, inner: Inner) -> type[Exception]:
        """Let the peer take all until the inner protocol is told why it is lost."""

        def done() -> bool:
            transport.take()
            return bool(inner.reasons)

        self._pass_time(done)
        self.assertEqual(len(inner.reasons), 1, "how often connectionLost is told")
        self.assertEqual(inner.events[-1], "connectionLost")
        return cast("type[Exception]", inner.reasons[0].type)
