"""
What the clients share: how a connection comes about, and how its end is told.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError as RefusedError,
    DNSLookupError,
    TimeoutError as ConnectTimeout,
)
from twisted.internet.interfaces import (
    IHostnameResolver,
    INegotiated,
    IStreamClientEndpoint,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from sockproto.connecting import (
    CONNECT_SECONDS,
    ClientStream,
    Host,
    Observer,
    connect,
    connect_error,
    ended_without_notice,
    first_address,
    within,
)
from sockproto.echo import EchoClient, EchoFactory
from sockproto.errors import (
    ConnectionWasReset,
    HandshakeFailed,
    NameNotResolved,
    NotConnected,
    NothingCame,
    PeerError,
    PeerLeftOwing,
    TimedOut,
)
from tests.contracts import MemoryTransport, directory, lose, serve_tcp, turns_until

if TYPE_CHECKING:
    from collections.abc import Sequence


class Noting(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.happened: list[tuple[str, object]] = []

    def resolved(self, host: str, addresses: Sequence[str]) -> None:
        self.happened.append((host, list(addresses)))

    def connected(self, here: str, there: str) -> None:
        self.happened.append(("connected", (here, there)))

    def secured(self, session: dict[str, Any]) -> None:
        self.happened.append(("secured", session))

    def sent(self, data: bytes) -> None:
        self.happened.append(("sent", data))

    def received(self, data: bytes) -> None:
        self.happened.append(("received", data))

    def closed(self, why: str) -> None:
        self.happened.append(("closed", why))


class Resolution:
    """One that is under way, and may be given up."""

    def __init__(self, name: str, *, cancellable: bool = True) -> None:
        self.name = name
        self.cancelled = False
        self._cancellable = cancellable

    def cancel(self) -> None:
        if not self._cancellable:
            raise NotImplementedError
        self.cancelled = True


@implementer(IHostnameResolver)
class Resolver:
    """Knows some names; those of a `slow` one are told later."""

    def __init__(self, known: dict[str, list[Any]], *, slow: bool = False) -> None:
        self.known = known
        self.slow = slow
        self.asked: list[tuple[str, object, str]] = []
        self.receiver: Any = None
        self.cancellable = True
        self.resolution: Resolution | None = None

    def resolveHostName(  # type: ignore[override]
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Resolution:
        self.asked.append((hostName, addressTypes, transportSemantics))
        self.resolution = Resolution(hostName, cancellable=self.cancellable)
        self.receiver = resolutionReceiver
        resolutionReceiver.resolutionBegan(self.resolution)
        if not self.slow:
            self.tell(portNumber, addressTypes)
        return self.resolution

    def tell(self, port: int, types: Any = None) -> None:
        assert self.resolution is not None
        for address in self.known.get(self.resolution.name, []):
            if types is None or type(address) in types:
                self.receiver.addressResolved(address)
        self.receiver.resolutionComplete()


def reactor_that_knows(**known: list[Any]) -> Any:
    reactor: Any = MemoryReactorClock()
    reactor.nameResolver = Resolver(known)
    return reactor


FOUR = IPv4Address("TCP", "192.0.2.1", 9999)
SIX = IPv6Address("TCP", "2001:db8::1", 9999)


class HostTests(SynchronousTestCase):
    """The endpoint for a host and a port."""

    def test_is_an_endpoint(self) -> None:
        """It goes wherever an endpoint goes."""
        host = Host(reactor_that_knows(), "example", 9999)
        self.assertTrue(verifyObject(IStreamClientEndpoint, host))

    def test_spelling(self) -> None:
        """It is spelled as it is typed."""
        reactor = reactor_that_knows()
        self.assertEqual(str(Host(reactor, "example", 9999)), "example:9999")
        self.assertEqual(str(Host(reactor, "::1", 9999)), "[::1]:9999")

    def test_addresses_in_turn(self) -> None:
        """The next address is tried when the one before is slow."""
        reactor = reactor_that_knows(example=[SIX, FOUR])
        connecting = Host(reactor, "example", 9999).connect(Factory())
        self.assertEqual([each[0] for each in reactor.tcpClients], ["2001:db8::1"])
        reactor.advance(1)
        self.assertEqual(reactor.tcpClients[-1][:2], ("192.0.2.1", 9999))
        connecting.addErrback(lambda _: None)
        connecting.cancel()

    def test_family(self) -> None:
        """Only addresses of the family that is asked for are tried."""
        for family, expected in ((4, "192.0.2.1"), (6, "2001:db8::1")):
            reactor = reactor_that_knows(example=[SIX, FOUR])
            host = Host(reactor, "example", 9999, family=family)
            connecting = host.connect(Factory())
            reactor.advance(1)
            self.assertEqual([each[0] for each in reactor.tcpClients], [expected])
            connecting.addErrback(lambda _: None)
            connecting.cancel()

    def test_observer(self) -> None:
        """An observer is told what the name resolved to."""
        reactor = reactor_that_knows(example=[SIX, FOUR])
        observer = Noting()
        connecting = Host(reactor, "example", 9999, observer=observer).connect(
            Factory()
        )
        self.assertEqual(observer.happened, [("example", ["2001:db8::1", "192.0.2.1"])])
        connecting.addErrback(lambda _: None)
        connecting.cancel()

    def test_not_resolved(self) -> None:
        """A name without an address is named in the error."""
        reactor = reactor_that_knows()
        failed = connect(Host(reactor, "example", 9999), Protocol)
        error = self.failureResultOf(failed, NameNotResolved).value
        self.assertEqual(error.host, "example")

    def test_no_name_at_all(self) -> None:
        """A name that cannot be one is not resolved, rather than a traceback."""
        for name in ("a..b", "x" * 64 + ".example", "bü..cher"):
            failed = connect(Host(reactor_that_knows(), name, 9999), Protocol)
            error = self.failureResultOf(failed, NameNotResolved).value
            self.assertEqual(error.host, name)

    def test_name_that_the_resolver_would_die_of(self) -> None:
        """What getaddrinfo cannot spell is never asked for: nobody would answer."""
        reactor = reactor_that_knows()
        for name in ("a..b", "x" * 70, "\udcff", "fe80::1%nowhere"):
            failed = connect(Host(reactor, name, 9999), Protocol)
            self.failureResultOf(failed, NameNotResolved)
        self.assertEqual(reactor.nameResolver.asked, [])

    def test_name_with_underscore(self) -> None:
        """A name that is none in the DNS may be one of the machine's."""
        reactor = reactor_that_knows(my_service=[FOUR])
        connecting = Host(reactor, "my_service", 9999).connect(Factory())
        self.assertEqual([each[0] for each in reactor.tcpClients], [FOUR.host])
        connecting.addErrback(lambda _: None)
        connecting.cancel()

    def test_name_beyond_ascii(self) -> None:
        """A name beyond ASCII is resolved like any other."""
        reactor = reactor_that_knows(**{"b\xfccher.example": [FOUR]})
        connecting = Host(reactor, "b\xfccher.example", 9999).connect(Factory())
        self.assertEqual([each[0] for each in reactor.tcpClients], [FOUR.host])
        connecting.addErrback(lambda _: None)
        connecting.cancel()

    def test_timeout(self) -> None:
        """An address that does not answer is given up after its time."""
        reactor = reactor_that_knows(example=[FOUR])
        failed = connect(Host(reactor, "example", 9999, timeout_seconds=5), Protocol)
        _, _, factory, timeout, _ = reactor.tcpClients[0]
        self.assertEqual(timeout, 5)
        factory.clientConnectionFailed(None, Failure(ConnectTimeout()))
        reactor.advance(1)
        error = self.failureResultOf(failed, TimedOut).value
        self.assertIn("example:9999", str(error))

    def test_timeout_says_how_long(self) -> None:
        """The error says for how long it was waited."""
        reactor = reactor_that_knows(example=[FOUR])
        failed = connect(Host(reactor, "example", 9999, timeout_seconds=5), Protocol)
        factory = reactor.tcpClients[0][2]
        factory.clientConnectionFailed(None, Failure(ConnectTimeout()))
        reactor.advance(1)
        error = self.failureResultOf(failed, TimedOut).value
        self.assertEqual(error.seconds, 5)

    def test_refused(self) -> None:
        """A refusal is told with the address."""
        reactor = reactor_that_knows(example=[FOUR])
        failed = connect(Host(reactor, "example", 9999), Protocol)
        factory = reactor.tcpClients[0][2]
        factory.clientConnectionFailed(None, Failure(RefusedError(errno.ECONNREFUSED)))
        reactor.advance(1)
        error = self.failureResultOf(failed, NotConnected).value
        self.assertEqual(
            (error.where, error.problem), ("example:9999", "connection refused")
        )

    def test_cancelling(self) -> None:
        """Giving up an attempt is a cancellation, and no failure to connect."""
        reactor = reactor_that_knows(example=[FOUR])
        connecting = connect(Host(reactor, "example", 9999), Protocol)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)


class KnownAddressTests(SynchronousTestCase):
    """Hosts whose addresses nobody is asked for."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        # A reactor that is asked for a resolver has none.
        del self.reactor.nameResolver
        self.observer = Noting()

    def tried(self, host: str, **options: Any) -> list[str]:
        """The addresses that are tried in turn, none of which answers."""
        before = len(self.reactor.tcpClients)
        endpoint = Host(self.reactor, host, 9999, observer=self.observer, **options)
        connecting = endpoint.connect(Factory())
        self.reactor.advance(1)
        connecting.addErrback(lambda _: None)
        connecting.cancel()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        tried = self.reactor.tcpClients[before:]
        self.assertEqual({each[1] for each in tried} - {9999}, set())
        return [each[0] for each in tried]

    def test_literal(self) -> None:
        """An address is connected to as it is, zone and all."""
        for host in ("192.0.2.1", "::1", "2001:DB8::1", "fe80::1%eth0"):
            self.assertEqual(self.tried(host), [host])
            self.assertEqual(self.observer.happened.pop(), (host, [host]))

    def test_literal_of_the_other_family(self) -> None:
        """An address of the other family is none."""
        for host, family in (("192.0.2.1", 4), ("::1", 6)):
            self.assertEqual(self.tried(host, family=family), [host])
            endpoint = Host(self.reactor, host, 9999, family=10 - family)
            failed = connect(endpoint, Protocol)
            error = self.failureResultOf(failed, NameNotResolved).value
            self.assertEqual(error.host, host)

    def test_given(self) -> None:
        """Addresses that are given are tried, in turn, for the name."""
        given = ["2001:db8::1", "192.0.2.1"]
        self.assertEqual(self.tried("example", addresses=given), given)
        self.assertEqual(self.observer.happened, [("example", given)])
        self.assertEqual(self.tried("example", addresses=given, family=4), given[1:])
        self.assertEqual(self.tried("example", addresses=given, family=6), given[:1])

    def test_given_for_a_literal(self) -> None:
        """They take the place of an address as well."""
        self.assertEqual(self.tried("192.0.2.1", addresses=["::1"]), ["::1"])

    def test_none_given(self) -> None:
        """No address at all is a name that has none."""
        failed = connect(Host(self.reactor, "example", 9999, addresses=[]), Protocol)
        self.failureResultOf(failed, NameNotResolved)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_looks_like_an_address(self) -> None:
        """What only looks like an address is a name, which a resolver knows."""
        for host in ("192.0.2", "192.0.2.1.example", "1"):
            reactor = reactor_that_knows(**{host: [FOUR]})
            connecting = Host(reactor, host, 9999).connect(Factory())
            self.assertEqual([each[0] for each in reactor.tcpClients], [FOUR.host])
            self.assertEqual(reactor.nameResolver.asked[0][0], host)
            connecting.addErrback(lambda _: None)
            connecting.cancel()

    def test_where(self) -> None:
        """Errors name the host that was meant."""
        failed = connect(
            Host(self.reactor, "example", 9999, addresses=["192.0.2.1"]), Protocol
        )
        factory = self.reactor.tcpClients[0][2]
        factory.clientConnectionFailed(None, Failure(RefusedError(errno.ECONNREFUSED)))
        self.reactor.advance(1)
        error = self.failureResultOf(failed, NotConnected).value
        self.assertEqual(error.where, "example:9999")


class FirstAddressTests(SynchronousTestCase):
    """Names for UDP."""

    def test_first(self) -> None:
        """The first address is taken, of the family that is asked for."""
        reactor = reactor_that_knows(example=[SIX, FOUR])
        found = first_address(reactor, "example", 9999)
        self.assertIs(self.successResultOf(found), SIX)
        found = first_address(reactor, "example", 9999, family=4)
        self.assertIs(self.successResultOf(found), FOUR)
        self.assertEqual(reactor.nameResolver.asked[0], ("example", None, "UDP"))

    def test_none(self) -> None:
        """A name without an address is named in the error."""
        found = first_address(reactor_that_knows(), "example", 9999)
        self.failureResultOf(found, NameNotResolved)

    def test_literal(self) -> None:
        """An address is taken as it is, with the scope that IPv6 may need."""
        reactor = reactor_that_knows()
        for literal in ("192.0.2.1", "2001:db8::1", "fe80::1%lo"):
            found = first_address(reactor, literal, 9999)
            self.assertEqual(self.successResultOf(found).host, literal)
        found = first_address(reactor, "192.0.2.1", 9999, family=6)
        self.failureResultOf(found, NameNotResolved)
        self.assertEqual(reactor.nameResolver.asked, [])

    def test_no_name_at_all(self) -> None:
        """What cannot be a name is not asked for: the resolver would never answer."""
        reactor = reactor_that_knows()
        reactor.nameResolver.slow = True
        for name in ("a..b", "x" * 70, "\udcff", "fe80::1%nowhere", "::1%\udcff"):
            found = first_address(reactor, name, 9999)
            error = self.failureResultOf(found, NameNotResolved).value
            self.assertEqual(error.host, name)

    def test_observer(self) -> None:
        """An observer is told all addresses."""
        observer = Noting()
        reactor = reactor_that_knows(example=[FOUR, SIX])
        first_address(reactor, "example", 9999, observer=observer)
        self.assertEqual(observer.happened, [("example", ["192.0.2.1", "2001:db8::1"])])

    def test_cancelling(self) -> None:
        """Who gives up is told so; the resolution is given up where it can be."""
        for cancellable in (True, False):
            reactor = reactor_that_knows(example=[FOUR])
            resolver = reactor.nameResolver
            resolver.slow, resolver.cancellable = True, cancellable
            found = first_address(reactor, "example", 9999)
            found.cancel()
            self.failureResultOf(found, CancelledError)
            self.assertEqual(resolver.resolution.cancelled, cancellable)

    def test_an_answer_after_cancelling(self) -> None:
        """What a thread finds out after that harms nobody."""
        for known in ([FOUR], []):
            reactor = reactor_that_knows(example=known)
            reactor.nameResolver.slow = True
            reactor.nameResolver.cancellable = False
            found = first_address(reactor, "example", 9999)
            found.cancel()
            self.failureResultOf(found, CancelledError)
            reactor.nameResolver.tell(9999)


class ConnectErrorTests(SynchronousTestCase):
    """What a failed attempt is told, as our error."""

    def test_each(self) -> None:
        """Each of Twisted's errors has its own of ours."""
        for error, expected, words in (
            (DNSLookupError(), NameNotResolved, "somewhere"),
            (ValueError("no name"), NameNotResolved, "somewhere"),
            (ConnectTimeout(), TimedOut, "a connection to somewhere"),
            (RefusedError(errno.ECONNREFUSED), NotConnected, "refused"),
            (ConnectError(string="No such thing."), NotConnected, "no such thing"),
            (ConnectingCancelledError(FOUR), CancelledError, ""),
            (CancelledError(), CancelledError, ""),
            (NotConnected("x", "y"), NotConnected, "y"),
            (RuntimeError("bug"), RuntimeError, "bug"),
        ):
            ours = connect_error(Failure(error), "somewhere")
            self.assertIsInstance(ours, expected)
            self.assertIn(words, str(ours))

    def test_timeout(self) -> None:
        """The time is that of an attempt."""
        error: Any = connect_error(Failure(ConnectTimeout()), "somewhere")
        self.assertEqual(error.seconds, CONNECT_SECONDS)


class WithinTests(SynchronousTestCase):
    """A bound on waiting."""

    def test_in_time(self) -> None:
        """What comes in time is handed on, and nothing stays on the clock."""
        clock, awaited = Clock(), Deferred[str]()
        bounded = within(clock, awaited, 5, "an answer")
        awaited.callback("hello")
        self.assertEqual(self.successResultOf(bounded), "hello")
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        """What does not is cancelled, and the error says what and how long."""
        clock = Clock()
        cancelled: list[object] = []
        bounded: Deferred[str] = within(
            clock, Deferred(cancelled.append), 5, "an answer"
        )
        clock.advance(5)
        error = self.failureResultOf(bounded, TimedOut).value
        self.assertEqual((error.awaited, error.seconds), ("an answer", 5))
        self.assertEqual(len(cancelled), 1)

    def test_failure(self) -> None:
        """Another failure stays what it is."""
        clock, awaited = Clock(), Deferred[str]()
        bounded = within(clock, awaited, 5, "an answer")
        awaited.errback(ConnectionLost())
        self.failureResultOf(bounded, ConnectionLost)


class Lazy(ClientStream):
    """Waits for one answer, of any size."""

    awaited = True

    def _received(self, data: bytes) -> None:
        self.awaited = False

    def _shortfall(self) -> PeerError | None:
        return PeerLeftOwing("an answer") if self.awaited else None


class ClientStreamTests(SynchronousTestCase):
    """One connection of a client, in memory."""

    def setUp(self) -> None:
        self.observer = Noting()
        self.client = Lazy(self.observer)
        self.transport = MemoryTransport()
        self.client.makeConnection(self.transport)

    def end(self, error: Exception | None = None) -> BaseException | None:
        """Lose the connection; return what `closed` says of it."""
        closed = self.client.closed()
        lose(self.client, error)
        told: list[Any] = []
        closed.addBoth(told.append)
        return told[0].value if isinstance(told[0], Failure) else None

    def test_observer(self) -> None:
        """An observer is told all that happens, in order."""
        self.client.send(b"hello")
        self.client.dataReceived(b"world")
        self.end()
        self.assertEqual(
            self.observer.happened,
            [
                ("connected", ("10.0.0.1:12345", "192.168.1.1:54321")),
                ("sent", b"hello"),
                ("received", b"world"),
                ("closed", "the peer closed"),
            ],
        )

    def test_an_observer_need_not_care(self) -> None:
        """An observer's methods do nothing by themselves."""
        observer = Observer()
        observer.resolved("example", [])
        observer.connected("here", "there")
        observer.secured({})
        observer.sent(b"")
        observer.received(b"")
        observer.closed("")

    def test_orderly(self) -> None:
        """A connection that owes nothing ends without an error."""
        self.client.dataReceived(b"answer")
        self.assertIsNone(self.end())
        self.assertEqual(self.client.bytes_received, 6)
        self.assertIsInstance(self.client.ended, NotConnected)
        self.assertIsNone(self.successResultOf(self.client.closed()))

    def test_left_owing(self) -> None:
        """One that owes says what; without a byte, that nothing came."""
        self.assertIsInstance(self.end(), NothingCame)
        self.failureResultOf(self.client.closed(), NothingCame)

    def test_left_owing_after_some(self) -> None:
        """After some bytes, it is what is owed that is told."""
        self.client.dataReceived(b"part")
        self.client.awaited = True
        self.assertIsInstance(self.end(), PeerLeftOwing)

    def test_reset(self) -> None:
        """A reset is a reset, whatever was owed."""
        self.client.dataReceived(b"answer")
        self.assertIsInstance(self.end(ConnectionLost()), ConnectionWasReset)

    def test_abort(self) -> None:
        """What is aborted here fails with the error that was given."""
        self.client.abort(TimedOut("an answer", 5))
        self.assertTrue(self.transport.disconnected)
        self.client.abort()  # the first error counts
        self.client.dataReceived(b"late")
        self.assertTrue(self.client.awaited)
        self.assertIsInstance(self.end(ConnectionAborted()), TimedOut)

    def test_abort_without_an_error(self) -> None:
        """Without one, it says that it was aborted."""
        self.client.abort()
        self.assertIn("aborted at this end", str(self.end(ConnectionAborted())))

    def test_a_failure_of_ours(self) -> None:
        """An error of ours that ended the connection is told as it is."""
        error = HandshakeFailed("no")
        self.assertIs(self.end(error), error)

    def test_the_peer_ends(self) -> None:
        """When the peer has ended its output, we end ours."""
        self.client.readConnectionLost()
        self.client.writeConnectionLost()
        self.assertTrue(self.transport.disconnecting)

    def test_cancelling_closed(self) -> None:
        """Who gives up waiting for the end ends it; others are told."""
        first, second = self.client.closed(), self.client.closed()
        first.cancel()
        self.assertTrue(self.transport.disconnected)
        lose(self.client, ConnectionAborted())
        self.failureResultOf(first, CancelledError, ConnectionWasReset)
        self.failureResultOf(second, ConnectionWasReset)

    def test_ending_our_side(self) -> None:
        """One direction is closed alone where that can be."""
        self.client.end_input()
        self.assertTrue(self.transport.half_closed)
        self.assertFalse(self.transport.disconnecting)

    def test_ending_our_side_over_tls(self) -> None:
        """Else it is closed, when nothing is owed any more."""
        client, transport = Lazy(), StringTransport()
        client.makeConnection(transport)
        client.end_input()
        self.assertFalse(transport.disconnecting)
        client.dataReceived(b"answer")
        self.assertTrue(transport.disconnecting)

    def test_tls_errors(self) -> None:
        """OpenSSL's errors are the handshake's, and a reset once that is over."""
        from OpenSSL import SSL

        import sockproto.tls  # noqa: F401 - only with it are they looked for

        error = SSL.Error([("SSL routines", "", "no shared cipher")])
        directlyProvides(self.transport, INegotiated)
        self.client.makeConnection(self.transport)
        ended = self.end(error)
        self.assertIsInstance(ended, HandshakeFailed)
        self.assertIn("no shared cipher", str(ended))
        self.client, self.transport = Lazy(), MemoryTransport()
        directlyProvides(self.transport, INegotiated)
        self.client.makeConnection(self.transport)
        self.client.handshakeCompleted()
        ended = self.end(error)
        self.assertIsInstance(ended, ConnectionWasReset)
        self.assertIn("no shared cipher", str(ended))

    def test_secured(self) -> None:
        """When TLS is agreed on, an observer is told what was."""
        from OpenSSL import SSL

        transport: Any = self.transport
        transport.getHandle = lambda: SSL.Connection(SSL.Context(SSL.TLS_METHOD))
        directlyProvides(transport, INegotiated)
        self.client.makeConnection(transport)
        self.assertNotIn("secured", dict(self.observer.happened))
        self.client.handshakeCompleted()
        session: Any = dict(self.observer.happened)["secured"]
        self.assertEqual(set(session), {"version", "cipher"})

    def test_secured_without_an_observer(self) -> None:
        """Without one, nothing is looked up."""
        client, transport = Lazy(), MemoryTransport()
        directlyProvides(transport, INegotiated)
        client.makeConnection(transport)
        client.handshakeCompleted()
        lose(client)

    def test_reset_taken_for_an_end(self) -> None:
        """An end of file with an error on the socket is a reset, not an end."""
        broken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(broken.close)
        client = socket.create_connection(broken.getsockname())
        self.addCleanup(client.close)
        served, _ = broken.accept()
        served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        served.close()
        select.select([client], [], [])
        transport: Any = self.transport
        transport.getHandle = lambda: client
        self.client.makeConnection(transport)
        self.client.readConnectionLost()
        self.assertTrue(transport.disconnecting)
        ended = self.end(ConnectionAborted())
        self.assertIsInstance(ended, ConnectionWasReset)
        self.assertIn("reset", str(ended))

    def test_without_notice(self) -> None:
        """An end under TLS, without its farewell, can be told."""
        from OpenSSL import SSL

        import sockproto.tls  # noqa: F401 - as above

        self.assertTrue(
            ended_without_notice(Failure(SSL.SysCallError(-1, "Unexpected EOF")))
        )
        self.assertTrue(ended_without_notice(Failure(CONNECTION_LOST)))
        self.assertFalse(ended_without_notice(Failure(ConnectionDone())))


class ConnectTests(TestCase):
    """Connecting over sockets."""

    timeout = 30

    async def test_host(self) -> None:
        """A host's name leads to a connection."""
        from twisted.internet import reactor

        factory = EchoFactory(reactor)
        port: Any = await serve_tcp(self, factory)
        observer = Noting()
        client = await connect(
            Host(reactor, "127.0.0.1", port.getHost().port, observer=observer),
            EchoClient,
        )
        self.assertEqual(await client.echo(b"hello"), b"hello")
        await client.close()
        self.assertEqual(observer.happened, [("127.0.0.1", ["127.0.0.1"])])
        await turns_until(lambda: not factory.connections)

    async def test_refused(self) -> None:
        """Where nobody listens, the error says so, and where."""
        from twisted.internet import reactor

        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # and does not listen
            port = unused.getsockname()[1]
            for endpoint in (
                Host(reactor, "127.0.0.1", port),
                TCP4ClientEndpoint(reactor, "127.0.0.1", port),
            ):
                error: Any = await self.assertFailure(
                    connect(endpoint, EchoClient), NotConnected
                )
                self.assertEqual(error.problem, "connection refused")
                self.assertEqual(error.where, f"127.0.0.1:{port}")

    async def test_no_such_socket(self) -> None:
        """A unix socket that is not there is one plain error."""
        from twisted.internet import reactor

        path = str(directory(self) / "socket")
        error: Any = await self.assertFailure(
            connect(UNIXClientEndpoint(reactor, path), EchoClient), NotConnected
        )
        self.assertIn(path, error.where)
        self.assertEqual(error.problem, "no such file or directory")
