"""
What `WrapperContract` does not ask of the wrappers' base, as it concerns us alone.
"""

# ruff: noqa: N802 - Twisted's interfaces have these names

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import (
    Interface,
    alsoProvides,
    directlyProvides,
    implementer,
    providedBy,
)
from zope.interface.verify import verifyObject

from sockproto.echo import EchoFactory, EchoProtocol
from sockproto.interfaces import Debt, IAttended, IOwing, ISteadyReceiver
from sockproto.policies.idle import IdleTimeout
from sockproto.rolls import Roll
from sockproto.testing import MemoryTransport, WrapperContract, connect
from sockproto.transports import Layer
from sockproto.wrapping import (
    ConnectionWrapper,
    FactoryWrapper,
    ReadingHolder,
    accountable,
    attended,
    enrolled,
)
from tests.contracts import LogLines, join, lose, serve_tcp, turns_until

if TYPE_CHECKING:
    from collections.abc import Iterable

PEER = "192.0.2.2:50123"
"""Who is at the other end of a `MemoryTransport`."""


class Plain(Protocol):
    """
    Notes what it is told.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.reasons: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason.type)


@implementer(IHalfCloseableProtocol)
class Patient(Plain):
    """
    Knows half-close.
    """

    ends = 0

    def readConnectionLost(self) -> None:
        self.ends += 1

    def writeConnectionLost(self) -> None:
        pass


@implementer(IOwing)
class Debtor(Plain):
    """
    Counts by itself, and notes how it is ended.
    """

    bytes_received = 3
    bytes_sent = 4

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[tuple[str, str]] = []

    def owed(self) -> Debt:
        return Debt(unanswered=5)

    def finish(self, reason: str) -> None:
        self.ended.append(("finish", reason))

    def abort(self, reason: str) -> None:
        self.ended.append(("abort", reason))


class Wrapping(FactoryWrapper[Any]):
    """
    Wraps protocols in this kind of wrapper.
    """

    def __init__(self, inner: Any, kind: type[ConnectionWrapper]) -> None:
        super().__init__(inner)
        self.kind = kind

    def wrap(self, inner: IProtocol) -> Any:
        return self.kind(self, inner)


class Accounts(FactoryWrapper[Any]):
    """
    Has somebody count for each protocol.
    """

    def wrap(self, inner: IProtocol) -> Any:
        return accountable(inner)


class Marks(ConnectionWrapper):
    """
    Marks what passes, both ways.
    """

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data.upper())

    def write(self, data: bytes) -> None:
        super().write(b"<" + data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        super().writeSequence([b"<", *data])


class IMark(Interface):
    """What an object of the test's own provides."""


def wrapped(inner: Any, *kinds: type[ConnectionWrapper]) -> Any:
    """Wrap a protocol in wrappers of these kinds, the first of them outermost."""
    for kind in reversed(kinds):
        inner = kind(None, inner)
    return inner


def connected(outer: Any, clock: Clock | None = None) -> MemoryTransport:
    """Connect a protocol in memory; return its transport."""
    transport = MemoryTransport(clock)
    transport.connect(outer)
    return transport


def layers(protocol: Any) -> list[Any]:
    """The wrappers around a protocol, the innermost first."""
    found = []
    transport = protocol.transport
    while isinstance(transport, Layer):
        found.append(transport)
        transport = transport.transport
    return found


PLAIN = ConnectionWrapper


# The contract, on each kind of wrapper that is here


class PlainContractTests(WrapperContract, SynchronousTestCase):
    """What changes nothing."""

    def wrap(self, inner: Any) -> Any:
        return FactoryWrapper(inner)


class StackContractTests(WrapperContract, SynchronousTestCase):
    """Three of them, of which the middle one takes part in all that passes."""

    class Taking(ConnectionWrapper):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)

        def write(self, data: bytes) -> None:
            super().write(data)

        def writeSequence(self, data: Iterable[bytes]) -> None:
            super().writeSequence(data)

    def wrap(self, inner: Any) -> Any:
        return FactoryWrapper(Wrapping(FactoryWrapper(inner), self.Taking))


class AccountContractTests(WrapperContract, SynchronousTestCase):
    """What counts for a protocol."""

    def wrap(self, inner: Any) -> Any:
        return Accounts(inner)


class ReadingHolderContractTests(WrapperContract, SynchronousTestCase):
    """What may hold up reading, and does so after each read."""

    class Breather(ReadingHolder):
        call: Any = None

        def dataReceived(self, data: bytes) -> None:
            self.hold_reading()
            if self.call is None:
                self.call = self.factory.clock.callLater(0.01, self.breathe)
            super().dataReceived(data)

        def breathe(self) -> None:
            self.call = None
            self.release_reading()

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            if self.call is not None:
                self.call.cancel()
            super().connectionLost(reason)

    def wrap(self, inner: Any) -> Any:
        factory: Any = Wrapping(inner, self.Breather)
        factory.clock = self.clock
        return factory


# What counts for protocols


class AccountableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = LogLines(self)
        self.inner = Plain()
        self.account: Any = accountable(self.inner)
        self.transport = connected(self.account)
        self.near: Any = self.inner.transport

    def test_itself(self) -> None:
        """Who provides `IOwing` needs nobody who counts for it."""
        debtor = Debtor()
        self.assertIs(accountable(debtor), debtor)
        self.assertIs(accountable(self.account), self.account)

    def test_provides(self) -> None:
        """What counts for a protocol has all of `IOwing`."""
        self.assertTrue(verifyObject(IOwing, self.account))

    def test_received(self) -> None:
        """What was received counts, once each byte."""
        self.assertEqual(self.account.bytes_received, 0)
        self.transport.deliver(b"x" * 100_000)
        self.transport.deliver(b"yz")
        self.assertEqual(self.account.bytes_received, 100_002)
        self.assertEqual(len(self.inner.received), 100_002)

    def test_sent(self) -> None:
        """What was written counts, by whichever method, taken or not."""
        self.near.write(b"12345")
        self.near.writeSequence(piece for piece in (b"67", b"", b"8"))
        self.assertEqual(self.account.bytes_sent, 8)
        self.assertEqual(self.transport.take(), b"12345678")
        self.assertEqual(self.account.bytes_sent, 8)

    def test_owed(self) -> None:
        """What was written and not taken is owed; what was received is nobody's."""
        self.transport.deliver(b"question")
        self.assertFalse(self.account.owed())
        self.near.write(b"answer")
        self.assertEqual(self.account.owed(), Debt(unsent=6))
        self.transport.take(4)
        self.assertEqual(self.account.owed(), Debt(unsent=2))
        self.transport.take()
        self.assertFalse(self.account.owed())

    def test_finish(self) -> None:
        """Who is finished gets what is unsent, then end of file; the log says why."""
        self.near.write(b"answer")
        self.account.finish("the service stops")
        self.assertEqual(
            self.log.lines,
            [f"Closing the connection from {PEER}: the service stops."],
        )
        self.transport.clock.advance(0)
        self.assertEqual(self.inner.reasons, [])
        self.assertEqual(self.transport.take(), b"answer")
        self.assertTrue(self.transport.output_ended)
        self.assertEqual(self.inner.reasons, [ConnectionDone])

    def test_finish_with_producer(self) -> None:
        """Who is finished is not kept open by a producer that was not asked."""
        self.near.registerProducer(self.near, True)
        self.near.write(b"x" * 100_000)
        self.assertFalse(self.transport.reading)
        self.account.finish("the service stops")
        self.assertEqual(len(self.transport.take()), 100_000)
        self.assertEqual(self.inner.reasons, [ConnectionDone])

    def test_finish_without_producer(self) -> None:
        """Nor does it matter if a transport complains that there was none."""
        transport = StringTransport()
        account: Any = accountable(Plain())
        account.makeConnection(transport)
        account.finish("the service stops")
        self.assertTrue(transport.disconnecting)

    def test_abort(self) -> None:
        """Who is aborted gets a reset; the log says why."""
        self.near.write(b"answer")
        self.account.abort("idle for 5 s")
        self.assertEqual(
            self.log.lines, [f"Closing the connection from {PEER}: idle for 5 s."]
        )
        self.transport.clock.advance(0)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.transport.taken, b"")
        self.assertEqual(self.inner.reasons, [ConnectionAborted])

    def test_another_protocol(self) -> None:
        """It goes on counting when another protocol takes over."""
        self.transport.deliver(b"upgrade")
        other = Plain()
        self.near.protocol = other
        other.makeConnection(self.near)
        self.transport.deliver(b"data")
        other.transport.write(b"answer")
        self.assertEqual(other.received, b"data")
        self.assertEqual(self.account.bytes_received, 11)
        self.assertEqual(self.account.bytes_sent, 6)


class OwingTests(SynchronousTestCase):
    def test_passed_on(self) -> None:
        """A wrapper says and does of `IOwing` what its protocol does."""
        inner = Debtor()
        outer = wrapped(inner, PLAIN, PLAIN)
        connected(outer)
        self.assertTrue(IOwing.providedBy(outer))
        self.assertEqual((outer.bytes_received, outer.bytes_sent), (3, 4))
        self.assertEqual(outer.owed(), Debt(unanswered=5))
        outer.finish("one")
        outer.abort("two")
        self.assertEqual(inner.ended, [("finish", "one"), ("abort", "two")])

    def test_goes_on(self) -> None:
        """If who takes over says nothing of what it owes, somebody counts for it."""
        inner, other = Debtor(), Plain()
        outer = wrapped(inner, PLAIN, PLAIN)
        transport = connected(outer)
        inner.transport.protocol = other
        other.makeConnection(inner.transport)
        transport.deliver(b"data")
        self.assertEqual((other.received, outer.bytes_received), (b"data", 4))
        self.assertFalse(outer.owed())
        other.transport.write(b"answer")
        self.assertEqual(outer.owed(), Debt(unsent=6))
        outer.finish("the service stops")
        self.assertEqual(transport.take(), b"answer")
        self.assertEqual(other.reasons, [ConnectionDone])
        self.assertEqual((inner.ended, inner.reasons), ([], []))

    def test_not_offered(self) -> None:
        """A wrapper offers no `IOwing` around a protocol that has none."""
        self.assertFalse(IOwing.providedBy(wrapped(Plain(), PLAIN)))

    def test_after_the_loss(self) -> None:
        """A connection that is gone owes nothing, and can be ended once more."""
        for inner in (Debtor(), accountable(Plain())):
            outer = wrapped(inner, PLAIN, PLAIN)
            transport = connected(outer)
            transport.write(b"unsent")
            transport.lose()
            self.assertTrue(outer.lost)
            self.assertEqual(outer.owed(), Debt())
            outer.finish("one")
            outer.abort("two")
            self.assertEqual((outer.bytes_received, outer.bytes_sent), (0, 0))

    def test_late_events(self) -> None:
        """What comes after the loss reaches nobody."""
        inner = Plain()
        outer = wrapped(inner, PLAIN, Marks, PLAIN)
        transport = connected(outer)
        transport.lose()
        outer.dataReceived(b"late")
        outer.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(inner.received, b"")
        self.assertEqual(len(inner.reasons), 1)


# What may hold up reading


HOLDER_STEPS = st.sampled_from(["hold", "release", "pause", "resume"])


class ReadingHolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin(Patient())

    def begin(self, inner: Plain) -> None:
        self.clock = Clock()
        self.inner = inner
        self.holder = ReadingHolder(None, inner)
        self.transport = connected(self.holder, self.clock)

    def step(self, what: str) -> None:
        {
            "hold": self.holder.hold_reading,
            "release": self.holder.release_reading,
            "pause": self.inner.transport.pauseProducing,
            "resume": self.inner.transport.resumeProducing,
        }[what]()

    @given(steps=st.lists(HOLDER_STEPS))
    def test_two_parties(self, steps: list[str]) -> None:
        """Reading goes on when neither holds it up, however often each has said so."""
        self.begin(Patient())
        held = paused = False
        for step in steps:
            held = step == "hold" or (held and step != "release")
            paused = step == "pause" or (paused and step != "resume")
            self.step(step)
            self.assertEqual(self.transport.reading, not (held or paused))

    def test_bytes_wait(self) -> None:
        """What comes meanwhile is read afterwards, end of file included."""
        self.step("hold")
        self.step("pause")
        self.transport.deliver(b"data")
        self.transport.end_input()
        self.step("release")
        self.clock.advance(1)
        self.assertEqual(self.inner.received, b"")
        self.step("resume")
        self.clock.advance(1)
        self.assertEqual(self.inner.received, b"data")
        self.assertEqual(self.inner.ends, 1)  # type: ignore[attr-defined]

    def test_after_the_end_of_input(self) -> None:
        """After its end of file, a transport is not made to read it again."""
        for steps in (["hold", "release"], ["hold", "hold", "release"]):
            inner = Patient()
            self.begin(inner)
            self.transport.end_input()
            self.assertEqual(inner.ends, 1)
            for step in steps:
                self.step(step)
                self.assertFalse(self.transport.reading)
            self.clock.advance(1)
            self.assertEqual(inner.ends, 1)

    def test_after_the_loss(self) -> None:
        """Holding and releasing a connection that is gone does no harm."""
        self.step("hold")
        self.transport.lose()
        self.step("release")
        self.step("hold")
        self.assertFalse(self.transport.reading)
        self.assertEqual(len(self.inner.reasons), 1)

    def test_stack(self) -> None:
        """Of several, each may hold up reading for itself."""
        self.inner = Plain()
        outer = wrapped(self.inner, ReadingHolder, PLAIN, ReadingHolder)
        transport = connected(outer)
        inmost, _, outmost = layers(self.inner)
        outmost.hold_reading()
        inmost.hold_reading()
        self.inner.transport.pauseProducing()
        inmost.release_reading()
        self.inner.transport.resumeProducing()
        self.assertFalse(transport.reading)
        outmost.release_reading()
        self.assertTrue(transport.reading)

    def test_owed_in_memory(self) -> None:
        """Where there is no telling what is unread, that adds nothing."""
        self.begin(Debtor())
        self.step("hold")
        self.assertEqual(self.holder.owed(), Debt(unanswered=5))


class ReadingHolderSocketTests(TestCase):
    timeout = 30

    async def test_owed(self) -> None:
        """While we hold up reading, what the kernel holds for us is owed."""
        from twisted.internet import reactor

        connections: list[Any] = []

        class Noted(ReadingHolder):
            def makeConnection(self, transport: Any) -> None:
                connections.append(self)
                super().makeConnection(transport)

        factory = Wrapping(Accounts(Factory.forProtocol(Plain)), Noted)
        port: Any = await serve_tcp(self, factory)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        peer = await join(endpoint)
        await turns_until(lambda: connections)
        (holder,) = connections
        holder.hold_reading()
        peer.send(b"x" * 1000)
        await turns_until(lambda: holder.owed().unread == 1000)
        self.assertEqual(holder.owed(), Debt(unread=1000))
        self.assertEqual(holder.bytes_received, 0)
        holder.release_reading()
        self.assertEqual(holder.owed(), Debt())
        await turns_until(lambda: holder.bytes_received == 1000)
        peer.transport.loseConnection()
        await turns_until(lambda: holder.lost)
        holder.hold_reading()
        self.assertEqual(holder.owed(), Debt())


# The shortcuts


class ShortcutTests(SynchronousTestCase):
    def test_output(self) -> None:
        """Who writes through plain wrappers calls the transport itself."""
        inner = Plain()
        transport = connected(wrapped(inner, PLAIN, PLAIN, PLAIN))
        for layer in layers(inner):
            self.assertEqual(layer.write, transport.write)
            self.assertEqual(layer.writeSequence, transport.writeSequence)

    def test_input(self) -> None:
        """Through a stack of plain wrappers it is one hop to the innermost."""
        inner = Plain()
        connected(wrapped(inner, PLAIN, PLAIN, PLAIN))
        inmost, *others = layers(inner)
        for layer in others:
            self.assertEqual(layer.dataReceived, inmost.dataReceived)
        self.assertNotIn("dataReceived", vars(inmost))

    def test_others_take_part(self) -> None:
        """Nobody is passed by who changes what passes, wherever it stands."""
        for kinds in (
            (Marks, PLAIN, PLAIN),
            (PLAIN, Marks, PLAIN),
            (PLAIN, PLAIN, Marks),
        ):
            inner = Plain()
            transport = connected(wrapped(inner, *kinds))
            transport.deliver(b"data")
            self.assertEqual(inner.received, b"DATA", kinds)
            inner.transport.write(b"one")
            inner.transport.writeSequence([b"two", b"three"])
            self.assertEqual(transport.take(), b"<one<twothree", kinds)

    def test_another_protocol(self) -> None:
        """Where another protocol takes over, wrappers inside are told no more."""
        old, new = Plain(), Plain()
        transport = connected(wrapped(old, PLAIN, PLAIN, PLAIN))
        transport.deliver(b"1")
        *_, middle, outer = layers(old)
        middle.protocol = new
        new.makeConnection(middle)
        transport.deliver(b"2")
        self.assertEqual((old.received, new.received), (b"1", b"2"))
        self.assertEqual(outer.dataReceived, middle.dataReceived)
        outer.protocol = new
        new.makeConnection(outer)
        self.assertNotIn("dataReceived", vars(outer))
        transport.deliver(b"3")
        self.assertEqual((old.received, new.received), (b"1", b"23"))

    def test_another_wrapper(self) -> None:
        """It may be a wrapped one itself, and is told by one hop again."""
        old, new = Plain(), Plain()
        transport = connected(wrapped(old, PLAIN, PLAIN))
        (near, outer) = layers(old)
        inmost = wrapped(new, PLAIN)
        near.protocol = inmost
        inmost.makeConnection(near)
        for layer in (near, outer):
            self.assertEqual(layer.dataReceived, inmost.dataReceived)
        transport.deliver(b"data")
        self.assertEqual((old.received, new.received), (b"", b"data"))

    def test_end(self) -> None:
        """After the loss a wrapper holds its protocol no longer, nor a way around."""
        inner = Plain()
        transport = connected(wrapped(inner, PLAIN, PLAIN))
        stack = layers(inner)
        transport.lose()
        for layer in stack:
            self.assertEqual(
                {"dataReceived", "write", "writeSequence"} & vars(layer).keys(), set()
            )
            self.assertIsNot(layer.inner, inner)

    def test_transport_that_changes(self) -> None:
        """After the loss a write goes where the transport has it go by then."""

        class Changing(StringTransport):
            """Ends as the TLS of Twisted 26.10 does."""

            def lose(self, protocol: Any) -> None:
                self.write = self.writeSequence = late.append  # type: ignore[method-assign]
                lose(protocol)

        late: list[Any] = []
        inner = Plain()
        outer = wrapped(inner, PLAIN, PLAIN)
        transport = Changing()
        outer.makeConnection(transport)
        transport.lose(outer)
        for layer in layers(inner):
            late.clear()
            layer.write(b"one")
            layer.writeSequence([b"two"])
            self.assertEqual(late, [b"one", [b"two"]])
        self.assertEqual(transport.value(), b"")


# What is provided


class DeclarationTests(SynchronousTestCase):
    def test_start_tls(self) -> None:
        """When TLS starts, each wrapper of a stack says so."""

        class StartsTLS(MemoryTransport):
            def startTLS(self, *args: Any, **kwargs: Any) -> None:
                directlyProvides(self, ISSLTransport)

        inner = Plain()
        outer = wrapped(inner, PLAIN, Marks, PLAIN)
        StartsTLS().connect(outer)
        stack = layers(inner)

        def of_tls() -> list[bool]:
            return [ISSLTransport.providedBy(each) for each in stack]

        self.assertEqual(of_tls(), [False] * 3)
        inner.transport.startTLS(None)
        self.assertEqual(of_tls(), [True] * 3)

    def test_another_protocol(self) -> None:
        """When another protocol takes over, each wrapper offers what that one has."""
        inner = Plain()
        connected(wrapped(inner, PLAIN, Marks, PLAIN))
        stack = layers(inner)
        for protocol, offered in (
            (Patient(), (IHalfCloseableProtocol,)),
            (Plain(), ()),
            (Debtor(), (IOwing,)),
            # Who has asked what is owed goes on asking.
            (Patient(), (IHalfCloseableProtocol, IOwing)),
            (Plain(), (IOwing,)),
        ):
            inner.transport.protocol = protocol
            self.assertIs(inner.transport.protocol, protocol)
            for each in (IHalfCloseableProtocol, IOwing):
                self.assertEqual(
                    [each.providedBy(layer) for layer in stack],
                    [each in offered] * 3,
                    (each, protocol),
                )

    def test_asked_of_protocols(self) -> None:
        """By what a transport asks its protocol, only the protocol's word counts."""
        transport = MemoryTransport()
        alsoProvides(transport, IHandshakeListener, IFileDescriptorReceiver, IMark)
        outer = wrapped(Plain(), PLAIN)
        transport.connect(outer)
        for each, expected in (
            (IHandshakeListener, False),
            (IFileDescriptorReceiver, False),
            (IMark, True),
        ):
            self.assertEqual(each.providedBy(outer), expected, each)

    def test_one_for_all(self) -> None:
        """Connections that are alike share what says which interfaces they provide."""
        one, other = (wrapped(Plain(), PLAIN) for _ in range(2))
        connected(one)
        connected(other)
        self.assertIs(providedBy(one), providedBy(other))


class FactoryTests(SynchronousTestCase):
    def test_subclasses(self) -> None:
        """A subclass provides what its base does, whatever the inner one has."""

        class Inner(Factory):
            noisy = False

        class Least:
            def buildProtocol(self, addr: Any) -> None:
                return None

        class Wrapper(FactoryWrapper[Any]):
            pass

        class OfWrapper(Wrapper):
            pass

        marked = Inner()
        alsoProvides(marked, IMark)
        for kind in (OfWrapper, Wrapper):
            for inner in (marked, Inner(), Least(), kind(marked)):
                outer: Any = kind(inner)  # type: ignore[arg-type]
                self.assertTrue(ILoggingContext.providedBy(outer), inner)
                self.assertTrue(IProtocolFactory.providedBy(outer), inner)
                self.assertFalse(IMark.providedBy(outer), inner)
                self.assertFalse(IProtocolNegotiationFactory.providedBy(outer), inner)

    def test_negotiating(self) -> None:
        """One that negotiates makes its wrapper one, and no other of its class."""

        @implementer(IProtocolNegotiationFactory)
        class Inner(Factory):
            def acceptableProtocols(self) -> list[bytes]:
                return [b"h2"]

        class Wrapper(FactoryWrapper[Any]):
            pass

        first = Wrapper(Wrapper(Inner()))
        self.assertTrue(IProtocolNegotiationFactory.providedBy(first))
        self.assertEqual(first.acceptableProtocols(), [b"h2"])
        self.assertTrue(ILoggingContext.providedBy(first))
        self.assertFalse(IProtocolNegotiationFactory.providedBy(Wrapper(Factory())))

    def test_rest_is_of_the_inner_one(self) -> None:
        """What else the inner factory has is found on its wrapper, and no more."""
        inner = Factory.forProtocol(Plain)
        outer = FactoryWrapper[Any](FactoryWrapper[Any](inner))
        self.assertIs(outer.protocol, Plain)
        self.assertFalse(hasattr(outer, "no_factory_has_this"))

    def test_copies(self) -> None:
        """A wrapped factory can be copied and pickled, if the inner one can."""
        inner = Factory.forProtocol(Plain)
        outer = Accounts(FactoryWrapper(inner))
        for each in (
            copy.copy(outer),
            copy.deepcopy(outer),
            pickle.loads(pickle.dumps(outer)),
        ):
            protocol, transport = connect(each)
            transport.deliver(b"data")
            self.assertEqual(protocol.bytes_received, 4)

    def test_without_inner(self) -> None:
        """A factory that is not made yet has no attributes, and looks for none."""
        empty = FactoryWrapper.__new__(FactoryWrapper)
        for name in ("inner", "protocol", "__deepcopy__"):
            self.assertFalse(hasattr(empty, name), name)


class CopiedConnectionTests(SynchronousTestCase):
    def test_copies(self) -> None:
        """A wrapped protocol can be copied and pickled, and then connected."""
        for each in (
            copy.copy(wrapped(Patient(), PLAIN)),
            copy.deepcopy(wrapped(Patient(), Marks, PLAIN)),
            pickle.loads(pickle.dumps(wrapped(Patient(), PLAIN, Marks))),
        ):
            self.assertTrue(IHalfCloseableProtocol.providedBy(each))
            transport = connected(each)
            transport.deliver(b"data")
            transport.end_input()
            inner = each.inner
            while isinstance(inner, ConnectionWrapper):
                inner = inner.inner
            self.assertEqual(inner.received.lower(), b"data")
            self.assertEqual(inner.ends, 1)

    def test_own_copies(self) -> None:
        """How Python has a wrapper copied is not what its transport says."""

        class Copied(StringTransport):
            def __copy__(self) -> None:
                raise NotImplementedError

        outer = wrapped(Plain(), PLAIN)
        outer.makeConnection(Copied())
        self.assertIs(copy.copy(outer).inner, outer.inner)
        self.assertFalse(hasattr(outer, "__copy__"))

    def test_before_connection(self) -> None:
        """A wrapper that is not connected has nothing of a transport's."""
        outer = wrapped(Plain(), PLAIN)
        for name in ("getPeer", "loseWriteConnection", "__deepcopy__"):
            self.assertFalse(hasattr(outer, name), name)


class Attending:
    """
    Notes when it is told what.
    """

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def made(self, connection: Any) -> None:
        self.told.append("made")

    def lost(self, connection: Any) -> None:
        self.told.append("lost")

    def gone(self, connection: Any) -> None:
        self.told.append("gone")


class Telling(Patient):
    """
    Notes when it is told itself.
    """

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self.told = told

    def connectionMade(self) -> None:
        self.told.append("connectionMade")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append("connectionLost")
        raise ZeroDivisionError


class UnsureEcho(EchoProtocol):
    """
    The same, of our services' protocols; it may leave its transport to another.
    """

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.told.append("connectionMade")  # type: ignore[attr-defined]

    def _lost(self) -> None:
        self.factory.told.append("connectionLost")  # type: ignore[attr-defined]


class TellingEcho(UnsureEcho):
    """
    One that will not.
    """

    attendants = ()


class AttendedTests(SynchronousTestCase):
    """Who attends a connection is told before its protocol, and when it is gone."""

    IN_ORDER = ("made", "connectionMade", "lost", "connectionLost", "gone")

    def test_wrapped(self) -> None:
        """Also if the protocol raises at its end."""
        told: list[str] = []
        connection = attended(Telling(told), Attending(told))
        self.assertIsInstance(connection, ConnectionWrapper)
        connection.makeConnection(StringTransport())
        with self.assertRaises(ZeroDivisionError):
            connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(tuple(told), self.IN_ORDER)

    def test_as_it_is(self) -> None:
        """Who tells it by itself is not wrapped."""
        told: list[str] = []
        factory = EchoFactory(Clock())
        factory.protocol = TellingEcho
        factory.told = told  # type: ignore[attr-defined]
        protocol = factory.buildProtocol(None)
        self.assertIs(attended(protocol, Attending(told)), protocol)
        protocol.makeConnection(StringTransport())
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(tuple(told), self.IN_ORDER)

    def test_subclass(self) -> None:
        """One of whom that is not known is wrapped: it may hand its transport over."""
        told: list[str] = []
        factory = EchoFactory(Clock())
        factory.protocol = UnsureEcho
        factory.told = told  # type: ignore[attr-defined]
        connection: Any = attended(factory.buildProtocol(None), Attending(told))
        transport = connected(connection)
        other = Plain()
        connection.inner.transport.protocol = other
        other.makeConnection(connection)
        transport.deliver(b"data")
        transport.end_input()
        self.assertEqual(other.received, b"data")
        self.assertEqual(told, ["made", "connectionMade", "lost", "gone"])

    def test_raises_at_the_end(self) -> None:
        """A service's protocol that raises is gone all the same."""
        told: list[str] = []
        protocol = EchoFactory(Clock()).buildProtocol(None)
        attended(protocol, Attending(told))
        protocol.makeConnection(StringTransport())

        def raises() -> None:
            raise ZeroDivisionError

        protocol._lost = raises  # type: ignore[method-assign]
        with self.assertRaises(ZeroDivisionError):
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(told, ["made", "lost", "gone"])

    def test_several(self) -> None:
        """Each is told."""
        told: list[str] = []
        inner = wrapped(Plain(), PLAIN)
        connection = attended(attended(inner, Attending(told)), Attending(told))
        self.assertIs(connection, inner)
        connection.makeConnection(StringTransport())
        self.assertEqual(told, ["made"] * 2)


class EnrolledTests(SynchronousTestCase):
    """Who is on a roll is there from its first moment until its protocol was told."""

    def setUp(self) -> None:
        self.roll = Roll()

    def live(self, connection: Any) -> None:
        """Have it made and lost, and see that it was on the roll meanwhile."""
        self.assertEqual(self.roll, set())
        connection.makeConnection(StringTransport())
        self.assertEqual(self.roll, {connection})
        connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.roll, set())

    def test_as_it_is(self) -> None:
        """A service's protocol is there itself."""
        seen: list[int] = []
        protocol = EchoFactory(Clock()).buildProtocol(None)
        protocol._begin = lambda: seen.append(len(self.roll))  # type: ignore[method-assign]
        protocol._lost = lambda: seen.append(len(self.roll))  # type: ignore[method-assign]
        self.assertIs(enrolled(protocol, self.roll), protocol)
        self.live(protocol)
        self.assertEqual(seen, [1, 1])

    def test_wrapper(self) -> None:
        """So is a wrapper, if what is in it can say what it owes."""
        echo = EchoFactory(Clock()).buildProtocol(None)
        connection = wrapped(echo, ConnectionWrapper)
        self.assertIs(enrolled(connection, self.roll), connection)
        self.live(connection)

    def test_wrapped(self) -> None:
        """Others are there by one that counts for them, and can attend."""
        unsure = EchoFactory(Clock())
        unsure.protocol = UnsureEcho
        unsure.told = []  # type: ignore[attr-defined]
        for inner in (Plain(), Debtor(), unsure.buildProtocol(None)):
            connection: Any = enrolled(inner, self.roll)
            self.assertIsInstance(connection, ConnectionWrapper)
            self.assertTrue(IOwing.providedBy(connection))
            told: list[str] = []
            self.assertIs(attended(connection, Attending(told)), connection)
            self.live(connection)
            self.assertEqual(told, ["made", "lost", "gone"])

    def test_attended_without_roll(self) -> None:
        """So is one that tells others but is on no roll by itself."""

        @implementer(IAttended)
        class Rollless(Debtor):  # type: ignore[misc]
            attendants = ()

        class TellingStream(EchoProtocol):
            attendants = ()

            def connectionMade(self) -> None:
                self.factory.connections.add(self)

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                pass

        factory = EchoFactory(Clock())
        factory.protocol = TellingStream
        self.live(enrolled(Rollless(), self.roll))
        self.live(enrolled(factory.buildProtocol(None), self.roll))

    def test_two_rolls(self) -> None:
        """Who is on a roll can be on another, or on the same once more."""
        for build in (lambda: EchoFactory(Clock()).buildProtocol(None), Plain):
            first = Roll()
            connection: Any = enrolled(build(), first)
            for _ in range(2):
                self.assertIs(enrolled(connection, self.roll), connection)
            connection.makeConnection(StringTransport())
            self.assertEqual((first, self.roll), ({connection}, {connection}))
            connection.connectionLost(Failure(ConnectionDone()))
            self.assertEqual((first, self.roll), (set(), set()))

    def test_raises_at_the_end(self) -> None:
        """One whose protocol raises as it is told of the loss is gone all the same."""
        echo = EchoFactory(Clock()).buildProtocol(None)

        def raises(*_: object) -> None:
            raise ZeroDivisionError

        echo._lost = raises  # type: ignore[method-assign]
        for inner in (echo, Telling([])):
            connection = enrolled(inner, self.roll)
            connection.makeConnection(StringTransport())
            with self.assertRaises(ZeroDivisionError):
                connection.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.roll, set())


class SteadyTests(SynchronousTestCase):
    """A protocol is told what to write with, and what stands between stays there."""

    def echo(self, *kinds: type[ConnectionWrapper]) -> tuple[Any, StringTransport]:
        transport = StringTransport()
        outer = wrapped(EchoFactory(Clock()).buildProtocol(None), *kinds)
        outer.makeConnection(transport)
        return outer, transport

    def test_passed_on(self) -> None:
        """Through wrappers that change nothing it is the transport's own."""
        outer, transport = self.echo(PLAIN, PLAIN)
        self.assertTrue(ISteadyReceiver.providedBy(outer))
        other = StringTransport()
        outer.write_to(other)
        outer.dataReceived(b"hello")
        self.assertEqual((other.value(), transport.value()), (b"hello", b""))

    def test_changed(self) -> None:
        """One that changes what is written goes on to do so."""
        outer, _ = self.echo(PLAIN, Marks, PLAIN)
        other = StringTransport()
        outer.write_to(other)
        outer.dataReceived(b"hello")
        self.assertEqual(other.value(), b"<HELLO")

    def test_before_connection(self) -> None:
        """It may come before the protocol is connected, through each policy too."""
        other = StringTransport()
        inner = EchoFactory(Clock())
        guarded = IdleTimeout(inner, seconds=1, clock=Clock()).buildProtocol(None)
        assert guarded is not None
        guarded.write_to(other)
        guarded.makeConnection(StringTransport())
        guarded.write_to(other)
        guarded.dataReceived(b"hello")
        self.assertEqual(other.value(), b"hello")

    def test_handed_over(self) -> None:
        """What was told is forgotten when another protocol takes over."""
        outer, transport = self.echo(PLAIN, PLAIN)
        other = StringTransport()
        outer.write_to(other)
        innermost = outer.inner
        innermost.protocol = successor = Plain()
        successor.makeConnection(innermost)
        successor.transport.write(b"hello")
        self.assertEqual((other.value(), transport.value()), (b"", b"hello"))

    def test_handed_over_outside(self) -> None:
        """Who was within goes on through all who stand there, as they are by then."""
        for kinds in ((PLAIN, PLAIN), (PLAIN, Marks), (PLAIN, PLAIN, PLAIN)):
            outer, transport = self.echo(*kinds)
            before = StringTransport()
            outer.write_to(before)
            echo = outer.protocol
            while isinstance(echo, ConnectionWrapper):
                echo = echo.protocol
            outer.protocol = Plain()
            echo.dataReceived(b"late")
            echo.transport.write(b"later")
            self.assertEqual(before.value(), b"")
            self.assertIn(b"late", transport.value().lower())

    def test_of_others(self) -> None:
        """Who did not ask for it is not told."""
        outer = wrapped(Patient(), PLAIN)
        outer.makeConnection(StringTransport())
        self.assertFalse(ISteadyReceiver.providedBy(outer))
