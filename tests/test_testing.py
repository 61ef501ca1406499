"""
The contract holds for no wrapper at all, and bites whatever breaks a wrapper.
"""

# ruff: noqa: N802 - Twisted's interfaces have these names

from __future__ import annotations

import struct
import subprocess
import sys
import unittest
from io import StringIO
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.policies import (
    LimitTotalConnectionsFactory,
    SpewingFactory,
    ThrottlingFactory,
    TimeoutFactory,
    TrafficLoggingFactory,
    WrappingFactory,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer

from sockproto.testing import MemoryTransport, WrapperContract, connect
from sockproto.transports import unsent
from sockproto.wrapping import ConnectionWrapper, FactoryWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory

EVERY_TEST = frozenset(name for name in dir(WrapperContract) if name.startswith("test"))


def failed_by(
    make: Callable[[Any, Clock], Any], names: Iterable[str] = EVERY_TEST
) -> set[str]:
    """Those of the contract's tests, by name, that this wrapper does not pass."""

    class Tests(WrapperContract, SynchronousTestCase):
        def wrap(self, inner: IProtocolFactory) -> Any:
            return make(inner, self.clock)

    result = unittest.TestResult()
    for name in sorted(names):
        Tests(name).run(result)
    return {
        test.id().rpartition(".")[2] for test, _ in (*result.failures, *result.errors)
    }


# Twisted's own


def wrapping(inner: Any, clock: Clock) -> Any:
    return WrappingFactory(inner)


def spewing(inner: Any, clock: Clock) -> Any:
    return SpewingFactory(inner)


def throttling(inner: Any, clock: Clock) -> Any:
    factory: Any = ThrottlingFactory(inner, 1000, 1 << 40, 1 << 40)
    factory.callLater = clock.callLater
    return factory


def timing_out(inner: Any, clock: Clock) -> Any:
    factory: Any = TimeoutFactory(inner, 300)
    factory.callLater = clock.callLater
    return factory


def traffic_logging(inner: Any, clock: Clock) -> Any:
    factory: Any = TrafficLoggingFactory(inner, "log")
    factory.open = lambda name: StringIO()
    return factory


def limiting(inner: Any, clock: Clock) -> Any:
    factory: Any = LimitTotalConnectionsFactory()
    factory.noisy = False
    factory.connectionLimit = 1000
    factory.protocol = lambda: inner.buildProtocol(None)
    return factory


FAILED_BY_ALL_OF_TWISTEDS = {
    "test_another_protocol_takes_over": "sets an attribute that nobody reads",
    "test_file_descriptors_are_told": "the interface is not passed on",
    "test_half_close_goes_with_protocol": "as both of its parts",
    "test_half_close_is_as_inner_has_it": "the interface is not passed on",
    "test_handshake_is_told": "the interface is not passed on",
    "test_inside_tls": "the handshake is not told",
    "test_input_ends": "the peer's end of file ends the connection",
    "test_input_ends_while_paused": "the peer's end of file ends the connection",
    "test_negotiation": "the interface is not passed on",
    "test_output_ends": "writeConnectionLost is not told",
    "test_end_within_events": "readConnectionLost is not told",
    "test_end_within_producer": "writeConnectionLost is not told",
    "test_refused": "wraps the None of a refused connection, and calls it",
    "test_start_tls": "declares the transport's interfaces once, at the start",
    "test_least_factory": "passes a client's events to a factory that has none",
}


class StockWrappersTests(SynchronousTestCase):
    maxDiff = None

    def check(
        self,
        make: Callable[[Any, Clock], Any],
        more: dict[str, str] | None = None,
    ) -> None:
        expected = {*FAILED_BY_ALL_OF_TWISTEDS, *(more or {})}
        self.assertEqual(sorted(failed_by(make)), sorted(expected))

    def test_wrapping(self) -> None:
        """Of the contract, `WrappingFactory` breaks these clauses, and no others."""
        self.check(wrapping)

    def test_spewing(self) -> None:
        """Of the contract, `SpewingFactory` breaks these clauses, and no others."""
        self.check(spewing)

    def test_throttling(self) -> None:
        """Of the contract, `ThrottlingFactory` breaks these clauses, and no others."""
        self.check(
            throttling,
            {"test_late_calls": "unregisterProducer raises where there is none"},
        )

    def test_timing_out(self) -> None:
        """Of the contract, `TimeoutFactory` breaks these clauses, and no others."""
        self.check(timing_out)

    def test_traffic_logging(self) -> None:
        """Of the contract, `TrafficLoggingFactory` breaks these, and no others."""
        self.check(traffic_logging)

    def test_limiting(self) -> None:
        """Of the contract, `LimitTotalConnectionsFactory` breaks these, no others."""
        self.check(
            limiting,
            {
                "test_address": "it wraps protocols, and has no factory inside",
                "test_client_events": "it wraps protocols, and has no factory inside",
                "test_log_prefix": "it wraps protocols, and has no factory inside",
                "test_started_and_stopped": "it wraps protocols alone",
            },
        )


# Broken ones, each in one way


class LosesBytes(ConnectionWrapper):
    def dataReceived(self, data: bytes) -> None:
        self.inner.dataReceived(data[:1000])


class SwapsWrites(ConnectionWrapper):
    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.transport.write(b"".join(reversed(list(data))))


class EndsOnNothing(ConnectionWrapper):
    def write(self, data: bytes) -> None:
        if data:
            self.transport.write(data)
        else:
            self.transport.loseConnection()


class MixesUp(ConnectionWrapper):
    def dataReceived(self, data: bytes) -> None:
        self.factory.latest.dataReceived(data)


class TellsTwice(ConnectionWrapper):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.inner.connectionLost(reason)
        super().connectionLost(reason)


class TellsAnotherReason(ConnectionWrapper):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(Failure(ConnectionLost()))


class TellsLate(ConnectionWrapper):
    """Reads on while paused, and hands it all on at the end."""

    held = b""
    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def dataReceived(self, data: bytes) -> None:
        if self.paused:
            self.held += data
        else:
            self.inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.held:
            self.inner.dataReceived(self.held)
        super().connectionLost(reason)


class Remembers(ConnectionWrapper):
    def makeConnection(self, transport: Any) -> None:
        self.factory.connections.append(self.inner)
        super().makeConnection(transport)


class LeavesTimer(ConnectionWrapper):
    def dataReceived(self, data: bytes) -> None:
        self.factory.clock.callLater(1000, list)
        self.inner.dataReceived(data)


class LeavesTimerWhenLostAtOnce(ConnectionWrapper):
    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        if transport.disconnecting or transport._aborting:
            self.factory.clock.callLater(1000, list)


class ForgetsTransport(ConnectionWrapper):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.transport = None
        vars(self).pop("write", None)
        super().connectionLost(reason)


class SwallowsErrors(ConnectionWrapper):
    def dataReceived(self, data: bytes) -> None:
        try:
            self.inner.dataReceived(data)
        except ZeroDivisionError:
            self.transport.loseConnection()


class SwallowsErrorsAtStart(ConnectionWrapper):
    def makeConnection(self, transport: Any) -> None:
        try:
            super().makeConnection(transport)
        except ZeroDivisionError:
            transport.loseConnection()


class ClaimsHalfClose(ConnectionWrapper):
    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        alsoProvides(self, IHalfCloseableProtocol)

    def readConnectionLost(self) -> None:
        pass


class EndsWithInput(ConnectionWrapper):
    def readConnectionLost(self) -> None:
        self.transport.loseConnection()


class ClosesWithOutput(ConnectionWrapper):
    def loseWriteConnection(self) -> None:
        self.transport.loseConnection()


class AbortsOrderly(ConnectionWrapper):
    def abortConnection(self) -> None:
        self.transport.loseConnection()


class ClosesByAbort(ConnectionWrapper):
    def loseConnection(self) -> None:
        self.transport.abortConnection()


class IgnoresStop(ConnectionWrapper):
    def stopProducing(self) -> None:
        pass


class DropsProducers(ConnectionWrapper):
    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass


class TakesAllForPush(ConnectionWrapper):
    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.transport.registerProducer(producer, True)


class KeepsProducers(ConnectionWrapper):
    def unregisterProducer(self) -> None:
        pass


class ClosesOverProducer(ConnectionWrapper):
    def loseConnection(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()


class CountsPauses(ConnectionWrapper):
    pauses = 0

    def pauseProducing(self) -> None:
        self.pauses += 1
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.pauses -= 1
        if not self.pauses:
            self.transport.resumeProducing()


class ChopsOn(ConnectionWrapper):
    """Hands on what it has, paused or not."""

    def dataReceived(self, data: bytes) -> None:
        for start in range(0, len(data), 1000):
            self.inner.dataReceived(data[start : start + 1000])


class ForgetsArguments(ConnectionWrapper):
    def startTLS(self, *args: Any, **kwargs: Any) -> Any:
        return super().startTLS(args[0])


class WritesPastTLS(ConnectionWrapper):
    def write(self, data: bytes) -> None:
        FileDescriptor.write(self.transport, data)


class WritesLate(ConnectionWrapper):
    def write(self, data: bytes) -> None:
        if self.lost:
            self.factory.clock.callLater(1000, list)
        else:
            self.transport.write(data)


class KeepsSecrets(ConnectionWrapper):
    """Tells neither of handshakes nor of file descriptors."""

    def handshakeCompleted(self) -> None:
        pass

    def fileDescriptorReceived(self, descriptor: int) -> None:
        pass


class ClaimsTCP(ConnectionWrapper):
    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        alsoProvides(self, ITCPTransport)


class HidesRest(ConnectionWrapper):
    def __getattr__(self, name: str) -> Any:
        if name == "negotiatedProtocol":
            raise AttributeError(name)
        return super().__getattr__(name)


class NeedsTCP(ConnectionWrapper):
    def makeConnection(self, transport: Any) -> None:
        transport.setTcpNoDelay(True)
        super().makeConnection(transport)


class KeepsProtocol(ConnectionWrapper):
    @property
    def protocol(self) -> IProtocol:
        return self.inner

    @protocol.setter
    def protocol(self, protocol: IProtocol) -> None:
        pass


class KeepsDeclaration(ConnectionWrapper):
    def inner_changed(self) -> None:
        self._take_shortcuts()


class NamesItself(ConnectionWrapper):
    def logPrefix(self) -> str:
        return type(self).__name__


class Wrapper(FactoryWrapper[ConnectionWrapper]):
    """Has what the broken ones above need."""

    def __init__(self, inner: Any, clock: Clock, kind: type[ConnectionWrapper]) -> None:
        super().__init__(inner)
        self.clock = clock
        self.kind = kind
        self.connections: list[Any] = []
        self.latest: Any = None

    def wrap(self, inner: IProtocol) -> ConnectionWrapper:
        self.latest = inner
        return self.kind(self, inner)


class RefusesByError(FactoryWrapper[ConnectionWrapper]):
    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self.wrap(self.inner.buildProtocol(addr))  # type: ignore[arg-type]


class CountsRefused(FactoryWrapper[ConnectionWrapper]):
    left = 10

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self.left -= 1
        return super().buildProtocol(addr) if self.left >= 0 else None


class StopsAtOnce(FactoryWrapper[ConnectionWrapper]):
    def doStart(self) -> None:
        self.inner.doStart()
        self.inner.doStop()

    def doStop(self) -> None:
        pass


class ForgetsAddress(FactoryWrapper[ConnectionWrapper]):
    def buildProtocol(self, addr: IAddress | None) -> Any:
        return super().buildProtocol(None)


class IgnoresClients(FactoryWrapper[ConnectionWrapper]):
    def startedConnecting(self, connector: Any) -> None:
        pass


class TakesAllForClients(FactoryWrapper[ConnectionWrapper]):
    def startedConnecting(self, connector: Any) -> None:
        inner: Any = self.inner
        inner.startedConnecting(connector)


class IgnoresNegotiation(FactoryWrapper[ConnectionWrapper]):
    def acceptableProtocols(self) -> None:
        pass


CONNECTIONS_BITTEN: dict[type[ConnectionWrapper], set[str]] = {
    LosesBytes: {"test_input", "test_input_ends_for_others"},
    SwapsWrites: {"test_output"},
    EndsOnNothing: {"test_empty_output"},
    MixesUp: {"test_connections_apart"},
    TellsTwice: {"test_life", "test_close", "test_freed"},
    TellsAnotherReason: {"test_life", "test_input_ends_for_others", "test_error"},
    TellsLate: {
        "test_unread_input_is_not_told_late",
        "test_paused_within_events",
        "test_resumed_once",
        "test_echo",
        "test_input_ends_while_paused",
    },
    Remembers: {"test_freed"},
    LeavesTimer: {"test_nothing_pending"},
    LeavesTimerWhenLostAtOnce: {"test_nothing_pending_when_lost_at_once"},
    ForgetsTransport: {"test_late_calls"},
    SwallowsErrors: {"test_error"},
    SwallowsErrorsAtStart: {"test_error_at_start"},
    ClaimsHalfClose: {
        "test_half_close_is_as_inner_has_it",
        "test_input_ends_for_others",
    },
    EndsWithInput: {"test_input_ends", "test_input_ends_while_paused"},
    ClosesWithOutput: {
        "test_output_ends",
        "test_end_within_events",
        "test_end_within_producer",
    },
    AbortsOrderly: {"test_abort", "test_end_within_events", "test_end_within_producer"},
    ClosesByAbort: {"test_close", "test_close_waits_for_producer", "test_tls"},
    IgnoresStop: {"test_stop_producing"},
    DropsProducers: {
        "test_push_producer",
        "test_pull_producer",
        "test_unregister_producer",
        "test_close_waits_for_producer",
        "test_echo",
    },
    TakesAllForPush: {"test_pull_producer"},
    KeepsProducers: {"test_unregister_producer"},
    ClosesOverProducer: {"test_close_waits_for_producer"},
    CountsPauses: {"test_resumed_once"},
    ChopsOn: {"test_paused_within_events"},
    ForgetsArguments: {"test_start_tls"},
    WritesPastTLS: {"test_tls"},
    WritesLate: {"test_late_calls", "test_late_output_inside_tls"},
    KeepsSecrets: {
        "test_handshake_is_told",
        "test_file_descriptors_are_told",
        "test_inside_tls",
    },
    ClaimsTCP: {"test_transport_interfaces"},
    HidesRest: {"test_transport_attributes"},
    NeedsTCP: {"test_other_transports"},
    KeepsProtocol: {
        "test_another_protocol_takes_over",
        "test_half_close_goes_with_protocol",
    },
    KeepsDeclaration: {"test_half_close_goes_with_protocol"},
    NamesItself: {"test_log_prefix"},
}

FACTORIES_BITTEN: dict[type[FactoryWrapper[Any]], set[str]] = {
    RefusesByError: {"test_refused"},
    CountsRefused: {"test_refused"},
    StopsAtOnce: {"test_started_and_stopped"},
    ForgetsAddress: {"test_address"},
    IgnoresClients: {"test_client_events"},
    TakesAllForClients: {"test_least_factory"},
    IgnoresNegotiation: {"test_negotiation"},
}


class BrokenWrappersTests(SynchronousTestCase):
    def test_connections(self) -> None:
        """A wrapper of connections that breaks a clause fails the tests of it."""
        unbitten = {}
        for kind, bitten in CONNECTIONS_BITTEN.items():

            def make(
                inner: Any, clock: Clock, kind: type[ConnectionWrapper] = kind
            ) -> Wrapper:
                return Wrapper(inner, clock, kind)

            unbitten[kind.__name__] = bitten - failed_by(make, bitten)
        self.assertEqual({name: left for name, left in unbitten.items() if left}, {})

    def test_factories(self) -> None:
        """A wrapper of factories that breaks a clause fails the tests of it."""
        unbitten = {}
        for kind, bitten in FACTORIES_BITTEN.items():

            def make(
                inner: Any, clock: Clock, kind: type[FactoryWrapper[Any]] = kind
            ) -> Any:
                return kind(inner)

            unbitten[kind.__name__] = bitten - failed_by(make, bitten)
        self.assertEqual({name: left for name, left in unbitten.items() if left}, {})

    def test_every_clause(self) -> None:
        """There is no test in the contract that no broken wrapper fails."""
        bitten = set[str]().union(
            *CONNECTIONS_BITTEN.values(), *FACTORIES_BITTEN.values()
        )
        self.assertEqual(bitten, EVERY_TEST)


class NoWrapperTests(WrapperContract, SynchronousTestCase):
    """
    The contract asks no more than what there is without a wrapper.
    """

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        return inner


class ImportTests(SynchronousTestCase):
    def test_light(self) -> None:
        """It is imported without a reactor, and needs no library of tests."""
        code = "import sys, sockproto.testing; print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, timeout=60
        )
        loaded = set(done.stdout.decode().split())
        self.assertIn("sockproto.testing", loaded)
        unwanted = {"hypothesis", "pytest", "twisted.internet.reactor"}
        self.assertEqual(loaded & unwanted, set())


# The connection in memory


@implementer(IHalfCloseableProtocol)
class Ears(Protocol):
    """
    Notes what it hears.
    """

    transport: Any

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def readConnectionLost(self) -> None:
        self.heard.append("readConnectionLost")

    def writeConnectionLost(self) -> None:
        self.heard.append("writeConnectionLost")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.heard.append(reason.type)


class Deaf(Ears):
    """
    Reads on after the end of its input, as it never should.
    """

    def readConnectionLost(self) -> None:
        self.transport.resumeProducing()


class MemoryTransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        factory = Factory.forProtocol(Ears)
        factory.noisy = False
        self.ears, self.transport = connect(factory, self.clock)

    def test_paused(self) -> None:
        """What comes while reading is paused is read in the turn after it resumes."""
        self.ears.transport.pauseProducing()
        self.assertFalse(self.transport.reading)
        self.transport.deliver(b"data")
        self.transport.end_input()
        self.ears.transport.resumeProducing()
        self.assertEqual(self.ears.heard, [])
        self.clock.advance(0)
        self.assertEqual(self.ears.heard, [b"data", "readConnectionLost"])

    def test_reads_in_pieces(self) -> None:
        """No more than 64 KiB are read at once, as from a socket."""
        self.transport.deliver(b"x" * 100_000)
        self.assertEqual([len(each) for each in self.ears.heard], [65_536, 34_464])

    def test_taken(self) -> None:
        """The peer takes as much as the test says, of what is unsent."""
        self.ears.transport.write(b"one two")
        self.assertEqual(self.transport.take(3), b"one")
        self.assertEqual((self.transport.unsent, unsent(self.transport)), (4, 4))
        self.ears.transport.write(b" three")
        self.assertEqual(self.transport.take(), b" two three")
        self.assertEqual(self.transport.taken, b"one two three")
        self.assertEqual(self.transport.take(), b"")

    def test_closed(self) -> None:
        """It is closed once all is taken, and hears no more of its peer."""
        self.ears.transport.write(b"last words")
        self.ears.transport.loseConnection()
        self.clock.advance(1)
        self.assertEqual(self.ears.heard, [])
        self.assertEqual(self.transport.take(), b"last words")
        self.assertEqual(self.ears.heard, [ConnectionDone])
        self.assertTrue(self.transport.output_ended)
        self.assertFalse(self.transport.connected)
        self.transport.deliver(b"late")
        self.transport.end_input()
        self.transport.lose()
        self.clock.advance(1)
        self.assertEqual(self.ears.heard, [ConnectionDone])

    def test_aborted(self) -> None:
        """An abort is told with the next turn; the peer gets a reset."""
        self.ears.transport.write(b"last words")
        self.ears.transport.abortConnection()
        self.transport.deliver(b"late")
        self.assertEqual(self.transport.take(), b"")
        self.assertEqual(self.ears.heard, [])
        self.clock.advance(0)
        self.assertEqual(len(self.ears.heard), 1)
        self.assertTrue(self.transport.aborted)
        self.assertFalse(self.transport.output_ended)

    def test_half_closed(self) -> None:
        """Each direction ends alone."""
        self.ears.transport.loseWriteConnection()
        self.clock.advance(0)
        self.assertTrue(self.transport.output_ended)
        self.transport.deliver(b"data")
        self.transport.end_input()
        self.assertEqual(
            self.ears.heard, ["writeConnectionLost", b"data", "readConnectionLost"]
        )
        self.ears.transport.write(b"late")
        self.assertEqual(self.transport.unsent, 0)
        self.ears.transport.loseConnection()
        self.assertEqual(self.ears.heard[-1], ConnectionDone)

    def test_socket_options(self) -> None:
        """Socket options are kept, one apart from the other."""
        near = self.ears.transport
        near.setTcpKeepAlive(True)
        self.assertEqual((near.getTcpKeepAlive(), near.getTcpNoDelay()), (True, False))
        handle = near.getHandle()
        handle.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.assertTrue(self.transport.aborted)

    def test_busy_loop(self) -> None:
        """A protocol that reads on for ever after the end of its input is found out."""
        transport = MemoryTransport(self.clock)
        transport.connect(Deaf())
        transport.end_input()
        with self.assertRaises(RuntimeError):
            self.clock.advance(0)
