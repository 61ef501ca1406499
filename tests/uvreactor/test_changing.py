"""
Protocols that are changed as they run, wrapped, or put under TLS.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import trustme
from twisted.internet import _producer_helpers
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.task import Cooperator
from twisted.protocols.basic import FileSender
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from sockproto.echo import EchoFactory, EchoProtocol
from sockproto.policies.idle import IdleTimeout
from sockproto.policies.rate import RateLimit
from sockproto.transports import unsent
from sockproto.wrapping import FactoryWrapper
from tests.contracts import forgive_twisted_certificates
from tests.reactors import (
    Client,
    Contract,
    HalfCloseable,
    Notes,
    Server,
    SideContract,
    in_reactor,
    on_both,
    on_both_sides,
)
from tests.uvreactor.test_raising import Steady

BIG = b"0123456789abcdef" * 65_536 * 4


class ChangingContract(SideContract):
    @in_reactor
    async def test_while_receiving(self) -> None:
        """Who is put in its place in `dataReceived` has all that comes after."""
        for kinds in ((Notes, Notes), (Notes, Steady), (Steady, Notes)):
            after = kinds[1]()

            def change(protocol: Notes, data: bytes, after: Any = after) -> None:
                protocol.transport.protocol = after
                after.transport = protocol.transport

            before = kinds[0](dataReceived=change)
            peer = await self.connection(before)
            peer.send(b"first")
            await self.until(lambda before=before: before.received)
            peer.send(b"second" * 100_000)
            await self.until(lambda after=after: len(after.received) == 600_000)
            peer.close()
            self.assertEqual(await self.lost(after), ConnectionDone)
            self.assertEqual(before.received, b"first")
            self.assertIsNone(before.reason)

    @in_reactor
    async def test_when_made(self) -> None:
        """It may be done in `connectionMade`."""
        after = Notes()

        def change(protocol: Notes) -> None:
            protocol.transport.protocol = after
            after.makeConnection(protocol.transport)

        before = Notes(connectionMade=change)
        peer = await self.connection(before)
        peer.send(b"x")
        await self.until(lambda: after.received)
        peer.close()
        await self.lost(after)
        self.assertEqual(before.happened, ["connectionMade"])

    @in_reactor
    async def test_method_replaced(self) -> None:
        """A `dataReceived` set on the protocol itself is the one that is called."""
        protocol = Notes()
        peer = await self.connection(protocol)
        seen: list[bytes] = []
        peer.send(b"1")
        await self.until(lambda: protocol.received)
        protocol.dataReceived = seen.append  # type: ignore[assignment,method-assign]
        peer.send(b"2")
        await self.until(lambda: seen)
        del protocol.dataReceived
        peer.send(b"3")
        await self.until(lambda: protocol.received == b"13")
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_half_closeable_then(self) -> None:
        """Who is there when the peer ends is asked whether it minds."""
        before, after = Notes(), HalfCloseable()
        peer = await self.connection(before)
        before.transport.protocol = after
        after.makeConnection(before.transport)
        peer.shut()
        await self.until(lambda: "readConnectionLost" in after.happened)
        after.transport.write(b"answer")
        after.transport.loseConnection()
        await peer.end()
        self.assertEqual(peer.received, b"answer")
        await self.lost(after)

    @in_reactor
    async def test_read_back(self) -> None:
        """The transport tells whose it is."""
        protocol = Notes()
        peer = await self.connection(protocol)
        self.assertIs(protocol.transport.protocol, protocol)
        peer.close()
        await self.lost(protocol)


@lru_cache
def certificates() -> tuple[Any, Any]:
    """A server's context factory, and a client's that trusts it."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    own: Any = PrivateCertificate.loadPEM(leaf.private_key_and_cert_chain_pem.bytes())
    root: Any = Certificate.loadPEM(authority.cert_pem.bytes())
    trust = trustRootFromCertificates([root])
    return own.options(), optionsForClientTLS("localhost", trustRoot=trust)


class UnderTlsContract(Contract):
    def setUp(self) -> None:
        super().setUp()
        forgive_twisted_certificates(self)
        # What is pulled under TLS is pulled by the reactor that is installed.
        cooperator = Cooperator(scheduler=lambda go: self.reactor.callLater(0, go))
        self.patch(_producer_helpers, "cooperate", cooperator.cooperate)

    async def pair(self, server: Notes, client: Notes) -> None:
        """Connect the two, both of this reactor."""
        port = self.listen(lambda: server)
        address = port.getHost()
        self.reactor.connectTCP(address.host, address.port, Client(lambda: client))
        await self.until(lambda: server.happened and client.happened)
        await port.stopListening()

    async def secured(self, server: Notes, client: Notes) -> None:
        """Connect the two, and start TLS on both when one has said so."""
        of_server, of_client = certificates()
        await self.pair(server, client)
        client.transport.write(b"STARTTLS")
        await self.until(lambda: server.received == b"STARTTLS")
        server.transport.write(b"go")
        server.transport.startTLS(of_server)
        await self.until(lambda: client.received == b"go")
        client.transport.startTLS(of_client)
        server.received.clear()
        client.received.clear()

    @in_reactor
    async def test_both_ways(self) -> None:
        """Much is sent both ways, and the end is in order."""
        server, client = Notes(), Notes()
        await self.secured(server, client)
        server.transport.write(BIG)
        client.transport.writeSequence([BIG, b"and more"])
        await self.until(lambda: len(client.received) == len(BIG))
        await self.until(lambda: len(server.received) == len(BIG) + 8)
        self.assertEqual(server.received, BIG + b"and more")
        self.assertEqual(client.received, BIG)
        for protocol in (server, client):
            self.assertTrue(ISSLTransport.providedBy(protocol.transport))
            self.assertTrue(protocol.transport.TLS)
        self.assertIsNotNone(client.transport.getPeerCertificate())
        client.transport.write(b"last")
        client.transport.loseConnection()
        client.transport.write(b"not sent: it is TLS that closes")
        self.assertEqual(await self.lost(server), ConnectionDone)
        self.assertEqual(await self.lost(client), ConnectionDone)
        self.assertTrue(server.received.endswith(b"last"))
        for protocol in (server, client):
            protocol.transport.write(b"late")
            protocol.transport.loseConnection()

    @in_reactor
    async def test_aborted(self) -> None:
        """A connection under TLS can be aborted."""
        server, client = Notes(), Notes()
        await self.secured(server, client)
        client.transport.write(b"x")
        await self.until(lambda: server.received)
        client.transport.abortConnection()
        await self.lost(client)
        self.assertEqual(await self.lost(server), ConnectionLost)

    @in_reactor
    async def test_producers(self) -> None:
        """A file is sent under TLS, also by one who was registered before it."""
        for early in (True, False):
            server, client = Notes(), Notes()
            of_server, of_client = certificates()
            await self.pair(server, client)
            sender = FileSender()
            if not early:
                server.transport.startTLS(of_server)
            else:
                # Nothing of it may be sent in the clear.
                sender.resumeProducing = lambda: None  # type: ignore[method-assign]
            done = sender.beginFileTransfer(io.BytesIO(BIG), server.transport)
            if early:
                del sender.resumeProducing
                server.transport.startTLS(of_server)
            client.transport.startTLS(of_client)
            client.transport.write(b"handshake")
            await done
            server.transport.loseConnection()
            self.assertEqual(await self.lost(client), ConnectionDone)
            self.assertEqual(client.received, BIG)
            await self.lost(server)

    @in_reactor
    async def test_pushing(self) -> None:
        """A producer under TLS is paused by a peer who does not read."""
        from tests.uvreactor.test_sending import PIECE, Pushing

        server, client = Notes(), Notes()
        await self.secured(server, client)
        client.transport.write(b"x")
        await self.until(lambda: server.received)
        client.transport.pauseProducing()
        producer = Pushing(self, server.transport, 2_000)
        server.transport.registerProducer(producer, True)
        producer.go()
        await self.until(lambda: "pause" in producer.happened)
        await self.turns(20)
        self.assertTrue(producer.left)
        client.transport.resumeProducing()
        await self.until(lambda: len(client.received) == 2_000 * len(PIECE))
        server.transport.unregisterProducer()
        server.transport.loseConnection()
        await self.lost(client)
        await self.lost(server)

    @in_reactor
    async def test_pulling_late(self) -> None:
        """A file may be sent when more is unsent already than the kernel takes."""
        server, client = Notes(), Notes()
        await self.secured(server, client)
        client.transport.write(b"x")
        await self.until(lambda: server.received)
        client.transport.pauseProducing()
        server.transport.write(BIG * 3)
        await self.turns()
        self.assertGreater(unsent(server.transport), 65_536)
        done = FileSender().beginFileTransfer(io.BytesIO(BIG), server.transport)
        client.transport.resumeProducing()
        await done
        server.transport.loseConnection()
        self.assertEqual(await self.lost(client), ConnectionDone)
        self.assertEqual(client.received, BIG * 4)
        await self.lost(server)

    @in_reactor
    async def test_raised(self) -> None:
        """What is raised above TLS ends the connection below, and is logged once."""

        def fail(*_: object) -> None:
            raise error

        error = BrokenPipeError("a test's")
        server, client = Notes(), Notes()
        await self.secured(server, client)
        server.does["dataReceived"] = fail
        client.transport.write(b"x")
        await self.lost(server)
        await self.lost(client)
        self.assertEqual(self.logged(OSError), [BrokenPipeError])

    @in_reactor
    async def test_listening_under_tls(self) -> None:
        """`listenSSL` and `connectSSL` serve as ever."""
        of_server, of_client = certificates()
        server, client = Notes(), Notes()
        port = self.reactor.listenSSL(
            0, Server(lambda: server), of_server, interface="127.0.0.1"
        )
        address = port.getHost()
        self.reactor.connectSSL(
            "127.0.0.1", address.port, Client(lambda: client), of_client
        )
        await self.until(lambda: server.happened and client.happened)
        client.transport.write(BIG)
        await self.until(lambda: len(server.received) == len(BIG))
        server.transport.loseConnection()
        self.assertEqual(await self.lost(client), ConnectionDone)
        await self.lost(server)
        await port.stopListening()

    @in_reactor
    async def test_wrapped_in_tls(self) -> None:
        """So does a factory under TLS by itself."""
        of_server, of_client = certificates()
        server, client = Notes(), Notes()
        port = self.reactor.listenTCP(
            0,
            TLSMemoryBIOFactory(of_server, False, Server(lambda: server)),
            interface="127.0.0.1",
        )
        self.reactor.connectTCP(
            "127.0.0.1",
            port.getHost().port,
            TLSMemoryBIOFactory(of_client, True, Client(lambda: client)),
        )
        await self.until(lambda: server.happened and client.happened)
        client.transport.write(BIG)
        await self.until(lambda: len(server.received) == len(BIG))
        client.transport.loseConnection()
        self.assertEqual(await self.lost(server), ConnectionDone)
        await self.lost(client)
        await port.stopListening()


class WrappedContract(Contract):
    async def check_wrapped(self, wrap: Any) -> None:
        """A protocol behind this echoes, half-closes and ends."""
        protocol = HalfCloseable(
            dataReceived=lambda p, data: p.transport.write(data),
            readConnectionLost=lambda p: p.transport.loseConnection(),
        )
        factory = wrap(Server(lambda: protocol))
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        peer = self.peer_of(port)
        peer.send(b"x" * 100_000)
        peer.shut()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(len(peer.received), 100_000)
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        await port.stopListening()

    @in_reactor
    async def test_ours(self) -> None:
        """A policy of ours stands in between."""
        await self.check_wrapped(
            lambda inner: IdleTimeout(inner, seconds=30, clock=self.reactor)
        )

    @in_reactor
    async def test_many_of_ours(self) -> None:
        """And several do."""

        def wrap(inner: Any) -> Any:
            for _ in range(4):
                inner = IdleTimeout(inner, seconds=30, clock=self.reactor)
            return inner

        await self.check_wrapped(wrap)

    @in_reactor
    async def test_handed_over_then_tls(self) -> None:
        """Who takes over from a service of ours, and starts TLS, leaks nothing."""
        wraps: tuple[Any, ...] = (
            lambda factory: factory,
            lambda factory: FactoryWrapper(FactoryWrapper(factory)),
            lambda factory: IdleTimeout(factory, seconds=9, clock=self.reactor),
        )
        for wrap in wraps:
            await self.check_hand_over(wrap)

    async def check_hand_over(self, wrap: Any) -> None:
        """The taker starts TLS, and both write then: nothing of it is plain."""
        forgive_twisted_certificates(self)
        of_server, _ = certificates()

        def answer(protocol: Notes, data: bytes) -> None:
            protocol.transport.write(b"go")
            protocol.transport.startTLS(of_server)
            protocol.transport.write(b"SECRET")

        taker = Notes(dataReceived=answer)

        late: list[Any] = []

        class Handing(EchoProtocol):
            def dataReceived(self, data: bytes) -> None:
                late.append(self._send)
                self.transport.unregisterProducer()
                transport: Any = self.transport
                transport.protocol = taker
                taker.makeConnection(transport)

        factory = EchoFactory(self.reactor, log="none")
        factory.protocol = Handing
        stack: Any = wrap(factory)
        port = self.reactor.listenTCP(0, stack, interface="127.0.0.1")
        peer = self.peer_of(port)
        peer.send(b"over")
        await self.until(lambda: "connectionMade" in taker.happened)
        peer.send(b"STARTTLS")
        await peer.has(2)
        late[0](b"SECRET")  # by who is in charge no longer
        await self.turns()
        self.assertEqual(peer.received, b"go")
        peer.close()
        await self.lost(taker)
        await port.stopListening()

    @in_reactor
    async def test_reads_little(self) -> None:
        """A rate has a connection read little at a time."""
        factory = RateLimit(EchoFactory(self.reactor, log="none"), self.reactor, rate=1)
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        peer = self.peer_of(port)
        peer.send(b"x" * 20_000)
        await peer.has(1)
        await self.turns()
        self.assertLess(len(peer.received), 10_000)
        peer.close()
        await port.stopListening()

    @in_reactor
    async def test_twisted(self) -> None:
        """Twisted's own wrapper does as well."""
        protocol = Notes(dataReceived=lambda p, data: p.transport.write(data))
        factory = WrappingFactory(Server(lambda: protocol))
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        peer = self.peer_of(port)
        peer.send(b"x" * 100_000)
        await peer.has(100_000)
        protocol.transport.loseConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        await port.stopListening()


globals().update(on_both_sides(ChangingContract))
globals().update(on_both(UnderTlsContract, WrappedContract))
