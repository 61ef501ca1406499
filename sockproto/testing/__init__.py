"""
What others test with: a connection in memory, and what every wrapper keeps.

`WrapperContract` is for any factory that wraps factories, ours or not:

    class IdleTimeoutTests(WrapperContract, SynchronousTestCase):
        def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
            return IdleTimeout(inner, seconds=30, clock=self.clock)

It asks of the wrapper no more than of no wrapper at all: a `wrap` that returns
`inner` passes.

`connect` connects a protocol of a factory's to a `MemoryTransport`, whose other end
the test is:

    _, transport = connect(IdleTimeout(inner, seconds=30, clock=clock), clock)
    transport.deliver(b"Michael\n")
    clock.advance(30)
    transport.take()

It needs neither a reactor nor a library of tests, but the TestCase that it is mixed
into.
"""

from sockproto.testing.contract import WrapperContract
from sockproto.testing.memory import MemoryTransport, connect

__all__ = ["MemoryTransport", "WrapperContract", "connect"]
