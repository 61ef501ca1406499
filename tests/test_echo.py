"""
Echo over a stream: the service and its client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sockproto.connecting import Observer
from sockproto.echo import EchoClient, EchoFactory, EchoProtocol, connect_echo
from sockproto.errors import (
    ConnectionWasReset,
    MisuseError,
    NotConnected,
    NothingCame,
    PeerLeftOwing,
)
from sockproto.interfaces import Debt
from tests.contracts import (
    MemoryTransport,
    StreamServiceContract,
    connect_in_memory,
    lose,
    serve_tcp,
)

if TYPE_CHECKING:
    from sockproto.stream import StreamFactory


class Echo(StreamServiceContract):
    """Echo, as a stream service."""

    ask = bytes(range(256)) * 16

    def make_factory(self, clock: Any) -> StreamFactory:
        return EchoFactory(clock)

    def said_back(self, output: bytes) -> bytes:
        return output


globals().update(Echo.on_each_transport())


class EchoProtocolTests(SynchronousTestCase):
    """The service, in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = EchoFactory(self.clock, log="none")

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_more_than_an_echo(self) -> None:
        """A subclass that says more than it heard has that counted, too."""

        class Greeting(EchoProtocol):
            def _begin(self) -> None:
                super()._begin()
                self._send(b"hi")

        self.factory.protocol = Greeting
        protocol, transport = connect_in_memory(self.factory)
        protocol.dataReceived(b"Bob")
        self.assertEqual(transport.value(), b"hiBob")
        self.assertEqual((protocol.bytes_received, protocol.bytes_sent), (3, 5))

    def test_each_byte_comes_back(self) -> None:
        """What is sent comes back as it is: NULs, line ends and all."""
        protocol, transport = connect_in_memory(self.factory)
        protocol.dataReceived(b"a\0\xff\r\n")
        protocol.dataReceived(b"b")
        self.assertEqual(transport.value(), b"a\0\xff\r\nb")
        self.assertEqual((protocol.bytes_received, protocol.bytes_sent), (6, 6))

    def test_works_with_a_plain_string_transport(self) -> None:
        """A unit test of a user's needs no more than Twisted's StringTransport."""
        protocol, transport = connect_in_memory(self.factory, StringTransport())
        protocol.dataReceived(b"hello")
        self.assertEqual(transport.value(), b"hello")
        protocol.readConnectionLost()
        self.assertTrue(transport.disconnecting)

    def test_reads_no_faster_than_the_peer(self) -> None:
        """A transport that is full pauses the reading, as its own producer."""
        _, transport = connect_in_memory(self.factory)
        self.assertIs(transport.producer, transport)
        self.assertTrue(transport.streaming)

    def test_owes_what_is_unsent(self) -> None:
        """Bytes that the kernel has not taken are owed."""
        protocol, transport = connect_in_memory(self.factory)
        self.assertFalse(protocol.owed())
        transport.dataBuffer = b"12345"
        self.assertEqual(protocol.owed(), Debt(unsent=5))

    def test_embedded_in_any_factory(self) -> None:
        """Each connection has a protocol of its own."""
        first, _ = connect_in_memory(self.factory)
        second, _ = connect_in_memory(self.factory)
        self.assertIsInstance(first, EchoProtocol)
        self.assertEqual(self.factory.connections, {first, second})
        lose(first)
        self.assertEqual(self.factory.connections, {second})

    @given(
        st.lists(
            st.one_of(st.binary(max_size=40), st.sampled_from(["pause", "resume"]))
        )
    )
    def test_chopping_and_pausing_change_nothing(
        self, happenings: list[bytes | str]
    ) -> None:
        """However it is chopped, paused and resumed, the same bytes come back."""
        protocol, transport = connect_in_memory(EchoFactory(Clock(), log="none"))
        held = bytearray()  # by the kernel, while we do not read
        for happening in happenings:
            if isinstance(happening, bytes):
                held += happening
            elif happening == "pause":
                transport.producer.pauseProducing()
            else:
                transport.producer.resumeProducing()
            if transport.producerState == "producing" and held:
                protocol.dataReceived(bytes(held))
                held.clear()
        transport.producer.resumeProducing()
        if held:
            protocol.dataReceived(bytes(held))
        protocol.readConnectionLost()
        self.assertEqual(
            transport.value(),
            b"".join(each for each in happenings if isinstance(each, bytes)),
        )
        self.assertTrue(transport.disconnecting)


class EchoClientTests(SynchronousTestCase):
    """The client, in memory."""

    def setUp(self) -> None:
        self.client = EchoClient()
        self.transport = MemoryTransport()
        self.client.makeConnection(self.transport)

    def test_as_many_bytes_as_were_sent(self) -> None:
        """An answer is as long as what was sent, however it comes back."""
        echoed = self.client.echo(b"hello")
        self.assertEqual(self.transport.value(), b"hello")
        self.client.dataReceived(b"he")
        self.assertNoResult(echoed)
        self.client.dataReceived(b"llo")
        self.assertEqual(self.successResultOf(echoed), b"hello")

    def test_calls_overlap(self) -> None:
        """Answers come in the order of the calls."""
        first, second = self.client.echo(b"12"), self.client.echo(b"345")
        self.client.dataReceived(b"12345")
        self.assertEqual(self.successResultOf(first), b"12")
        self.assertEqual(self.successResultOf(second), b"345")

    def test_after_close(self) -> None:
        """Who sends after `close` is told so, and nothing goes out."""
        closed = self.client.close()
        with self.assertRaises(MisuseError):
            self.client.echo(b"late")
        self.assertEqual(self.transport.value(), b"")
        lose(self.client)
        self.successResultOf(closed)

    def test_nothing(self) -> None:
        """Nothing comes back of nothing, at once."""
        self.assertEqual(self.successResultOf(self.client.echo(b"")), b"")
        self.assertEqual(self.transport.value(), b"")

    def test_close(self) -> None:
        """Closing ends our side, awaits what is owed, and fires with the end."""
        echoed = self.client.echo(b"hello")
        closed = self.client.close()
        self.assertTrue(self.transport.half_closed)
        self.client.dataReceived(b"hello")
        self.client.readConnectionLost()
        self.assertTrue(self.transport.disconnecting)
        self.assertNoResult(closed)
        lose(self.client)
        self.assertEqual(self.successResultOf(echoed), b"hello")
        self.assertIsNone(self.successResultOf(closed))
        self.assertIsNone(self.successResultOf(self.client.closed()))

    def test_peer_leaves_owing(self) -> None:
        """A peer that closes too early fails each call that is owed."""
        first, second = self.client.echo(b"12"), self.client.echo(b"345")
        closed = self.client.closed()
        self.client.dataReceived(b"1")
        lose(self.client)
        for failed in (first, second, closed, self.client.closed()):
            error = self.failureResultOf(failed, PeerLeftOwing).value
            self.assertEqual(error.owed, "4 bytes")
        self.failureResultOf(self.client.echo(b"late"), PeerLeftOwing)

    def test_nothing_came(self) -> None:
        """A peer that closes without a byte says so."""
        echoed = self.client.echo(b"12")
        lose(self.client)
        self.failureResultOf(echoed, NothingCame)

    def test_reset(self) -> None:
        """A connection that breaks fails what is awaited, and what is asked later."""
        echoed = self.client.echo(b"12")
        lose(self.client, ConnectionLost())
        self.failureResultOf(echoed, ConnectionWasReset)
        self.failureResultOf(self.client.echo(b"3"), ConnectionWasReset)

    def test_after_an_orderly_end(self) -> None:
        """Who asks after the end is told that the connection is closed."""
        lose(self.client)
        self.failureResultOf(self.client.echo(b"3"), NotConnected)

    def test_cancelling_aborts(self) -> None:
        """Cancelling one call aborts the connection, and fails the others."""
        first, second = self.client.echo(b"12"), self.client.echo(b"345")
        closed = self.client.closed()
        first.cancel()
        self.assertTrue(self.transport.disconnected)
        self.client.dataReceived(b"12345")
        lose(self.client, ConnectionAborted())
        self.failureResultOf(first, CancelledError, ConnectionWasReset)
        self.failureResultOf(second, ConnectionWasReset)
        self.failureResultOf(closed, ConnectionWasReset)

    def test_cancelling_while_answers_come(self) -> None:
        """A call can be cancelled by what another one's answer sets off."""
        first, second = self.client.echo(b"12"), self.client.echo(b"345")
        first.addCallback(lambda _: second.cancel())
        self.client.dataReceived(b"12345")
        self.assertIsNone(self.successResultOf(first))
        lose(self.client, ConnectionAborted())
        self.failureResultOf(second, CancelledError, ConnectionWasReset)

    def test_closing_where_no_direction_closes_alone(self) -> None:
        """Over TLS it closes when nothing is owed any more, not before."""
        client, transport = EchoClient(), StringTransport()
        client.makeConnection(transport)
        echoed = client.echo(b"12")
        client.close().addErrback(lambda _: None)
        self.assertFalse(transport.disconnecting)
        client.dataReceived(b"12")
        self.assertEqual(self.successResultOf(echoed), b"12")
        self.assertTrue(transport.disconnecting)

    def test_closing_there_with_nothing_owed(self) -> None:
        """Over TLS it closes at once if nothing is owed."""
        client, transport = EchoClient(), StringTransport()
        client.makeConnection(transport)
        closed = client.close()
        self.assertTrue(transport.disconnecting)
        lose(client)
        self.assertIsNone(self.successResultOf(closed))

    def test_nothing_piles_up(self) -> None:
        """Bytes that nobody asked for are dropped, and no answer to what is asked."""
        self.client.dataReceived(b"x" * 65_536)
        self.assertEqual(len(self.client._came), 0)
        first = self.client.echo(b"12")
        self.client.dataReceived(b"12" + b"x" * 65_536)
        self.assertEqual(len(self.client._came), 0)
        second = self.client.echo(b"34")
        self.client.dataReceived(b"34")
        self.assertEqual(self.successResultOf(first), b"12")
        self.assertEqual(self.successResultOf(second), b"34")

    def test_bytes_beyond_what_was_asked(self) -> None:
        """Bytes that nobody asked for harm nobody."""
        self.client.dataReceived(b"?")
        closed = self.client.close()
        lose(self.client)
        self.assertIsNone(self.successResultOf(closed))


class ConnectEchoTests(TestCase):
    """The client and the service, over a socket."""

    timeout = 30

    async def test_conversation(self) -> None:
        """What is sent comes back, until it is closed; the observer sees all."""
        from twisted.internet import reactor

        happened: list[object] = []

        class Noting(Observer):
            def connected(self, here: str, there: str) -> None:
                happened.append(there)

            def sent(self, data: bytes) -> None:
                happened.append(("sent", data))

            def received(self, data: bytes) -> None:
                happened.append(("received", data))

            def closed(self, why: str) -> None:
                happened.append(why)

        port: Any = await serve_tcp(self, EchoFactory(reactor))
        where = port.getHost()
        client = await connect_echo(
            TCP4ClientEndpoint(reactor, "127.0.0.1", where.port), observer=Noting()
        )
        self.assertEqual(await client.echo(b"hello"), b"hello")
        await client.close()
        self.assertEqual(
            happened,
            [
                f"127.0.0.1:{where.port}",
                ("sent", b"hello"),
                ("received", b"hello"),
                "the peer closed",
            ],
        )

    async def test_cancelling(self) -> None:
        """A cancelled call ends the connection, and `closed` tells of it."""
        from twisted.internet import reactor

        left: Deferred[None] = Deferred()

        class Silent(Protocol):
            def connectionLost(self, reason: object = None) -> None:
                left.callback(None)

        port: Any = await serve_tcp(self, Factory.forProtocol(Silent))
        client = await connect_echo(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        )
        closed = client.closed()
        self.addCleanup(lambda: left)
        echoed = client.echo(b"hello")
        echoed.cancel()
        echoed.addErrback(
            lambda failure: failure.trap(CancelledError, ConnectionWasReset)
        )
        await left
        self.failureResultOf(closed, ConnectionWasReset)
