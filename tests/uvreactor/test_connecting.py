"""
Clients: how they connect, fail to, and give up.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import (
    ConnectBindError,
    ConnectionDone,
    ConnectionRefusedError as Refused,
    DNSLookupError,
    TimeoutError as TookTooLong,
    UserError,
)
from twisted.internet.interfaces import IHostnameResolver, IResolverSimple
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.reactors import (
    Client,
    Contract,
    Notes,
    SideContract,
    in_reactor,
    on_both,
    on_both_sides,
)


def link_local() -> tuple[str, int] | None:
    """An address of a link's own, if this machine has one."""
    for line in _lines("/proc/net/if_inet6"):
        digits, index, _, scope, _, name = line.split()
        if scope == "20":
            parts = [digits[i : i + 4] for i in range(0, 32, 4)]
            plain = socket.inet_ntop(
                socket.AF_INET6, socket.inet_pton(socket.AF_INET6, ":".join(parts))
            )
            return f"{plain}%{name}", int(index, 16)
    return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


class FailingContract(Contract):
    async def failure(self, client: Client) -> type[BaseException] | None:
        """Wait until it has failed; have the class of the reason."""
        await client.done
        await self.turns()
        self.assertEqual(
            client.happened, ["startedConnecting", "clientConnectionFailed"]
        )
        assert client.reason is not None
        return client.reason.type

    def client(self) -> Client:
        return Client(Notes)

    def unused_port(self) -> int:
        sock = self.raw_listener()
        port: int = sock.getsockname()[1]
        sock.close()
        return port

    @in_reactor
    async def test_refused(self) -> None:
        """Nobody listens there."""
        client = self.client()
        connector = self.reactor.connectTCP("127.0.0.1", self.unused_port(), client)
        self.assertEqual(await self.failure(client), Refused)
        self.assertEqual(connector.state, "disconnected")

    @in_reactor
    async def test_timeout(self) -> None:
        """Whoever does not answer in time is given up."""
        listener = self.raw_listener(backlog=0)
        for _ in range(2):  # the queue is full then
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            self.addCleanup(filler.close)
        await self.turns()
        client = self.client()
        self.reactor.connectTCP(*listener.getsockname(), client, timeout=0.05)
        self.assertEqual(await self.failure(client), TookTooLong)

    @in_reactor
    async def test_stopped_at_once(self) -> None:
        """`stopConnecting` in the turn of `connectTCP` is a `UserError`."""
        listener = self.raw_listener()
        client = self.client()
        connector = self.reactor.connectTCP(*listener.getsockname(), client)
        connector.stopConnecting()
        self.assertEqual(await self.failure(client), UserError)

    @in_reactor
    async def test_stopped_in_any_turn(self) -> None:
        """So it is in each turn after that, as long as it is not connected."""
        listener = self.raw_listener(backlog=100)
        stopped = 0
        for count in range(8):
            client = Client(Notes)
            connector = self.reactor.connectTCP(*listener.getsockname(), client)
            for _ in range(count):
                if connector.state == "connecting":
                    await self.turn()
            if connector.state == "connecting":
                connector.stopConnecting()
                stopped += 1
                self.assertEqual(await self.failure(client), UserError)
            else:
                connector.disconnect()
                await client.done
                self.assertEqual(client.happened[-1], "clientConnectionLost")
            peer = await self.accept_from(listener) if count else None
            if peer is not None:
                self.assertIn(await peer.end(), ("closed", "reset"))
            self.assertEqual(connector.state, "disconnected")
        self.assertGreaterEqual(stopped, 1)

    @in_reactor
    async def test_known_in_any_turn(self) -> None:
        """The reactor knows it in each turn: it is told when that ends."""
        listener = self.raw_listener(backlog=100)
        known = 0
        for count in range(1, 8):
            client = Client(Notes)
            connector = self.reactor.connectTCP(*listener.getsockname(), client)
            for _ in range(count):
                await self.turn()
            if connector.state == "connecting":
                known += 1
            attempt = connector.transport
            self.assertIn(
                attempt, self.reactor.getReaders() + self.reactor.getWriters(), count
            )
            connector.disconnect()
            await client.done
        self.assertGreaterEqual(known, 1)

    @in_reactor
    async def test_bind_address_in_use(self) -> None:
        """What cannot be bound is told as a failure to connect."""
        taken = self.raw_listener()
        listener = self.raw_listener()
        client = self.client()
        self.reactor.connectTCP(
            *listener.getsockname(), client, bindAddress=taken.getsockname()
        )
        self.assertEqual(await self.failure(client), ConnectBindError)

    @in_reactor
    async def test_name_not_found(self) -> None:
        """A name that does not resolve is told as such."""

        @implementer(IResolverSimple)
        class NoNames:
            def getHostByName(  # noqa: N802 - Twisted's
                self, name: str, timeout: object = ()
            ) -> Deferred[str]:
                failed: Deferred[str] = Deferred()
                failed.errback(Failure(DNSLookupError(name)))
                return failed

        self.reactor.installResolver(NoNames())
        client = self.client()
        self.reactor.connectTCP("no.such.name.invalid", 1, client)
        self.assertEqual(await self.failure(client), DNSLookupError)

    @in_reactor
    async def test_stopped_with_the_reactor(self) -> None:
        """An attempt that is under way when the reactor stops is told so."""
        listener = self.raw_listener()
        client = self.client()
        self.reactor.connectTCP(*listener.getsockname(), client)
        told = client.happened
        self.reactor.addSystemEventTrigger(
            "after", "shutdown", lambda: told.append("after shutdown")
        )
        self.addCleanup(
            lambda: self.assertIn(
                told,
                (
                    ["startedConnecting", "clientConnectionFailed", "after shutdown"],
                    ["startedConnecting", "after shutdown"],
                    ["startedConnecting", "after shutdown", "clientConnectionFailed"],
                ),
            )
        )


class ConnectingContract(Contract):
    @in_reactor
    async def test_addresses(self) -> None:
        """Both ends know both names, from where it was bound and to where."""
        server, client = Notes(), Notes()
        port = self.listen(lambda: server)
        listening = port.getHost()
        self.reactor.connectTCP(
            "127.0.0.1",
            listening.port,
            Client(lambda: client),
            bindAddress=("127.0.0.2", 0),
        )
        await self.until(lambda: server.happened and client.happened)
        self.assertEqual(client.transport.getPeer(), listening)
        self.assertEqual(server.transport.getHost(), listening)
        self.assertEqual(client.transport.getHost().host, "127.0.0.2")
        self.assertEqual(server.transport.getPeer(), client.transport.getHost())
        self.assertEqual(
            server.transport.client[0] if not self.ours else "127.0.0.2", "127.0.0.2"
        )
        peer = server.transport.getPeer()
        self.assertIsInstance(peer, IPv4Address)
        client.transport.loseConnection()
        await self.lost(server)
        await self.lost(client)
        self.assertEqual(server.transport.getPeer(), peer)
        self.assertEqual(client.transport.getPeer(), listening)
        if self.ours:  # Twisted's has forgotten it
            self.assertEqual(server.transport.getHost(), listening)
        await port.stopListening()

    async def check_ipv6(self, host: str) -> None:
        server, client = Notes(), Notes()
        port = self.listen(lambda: server, interface=host)
        listening = port.getHost()
        self.assertIsInstance(listening, IPv6Address)
        self.reactor.connectTCP(host, listening.port, Client(lambda: client))
        await self.until(lambda: server.happened and client.happened)
        self.assertEqual(client.transport.getPeer().host, host)
        self.assertEqual(client.transport.getPeer().port, listening.port)
        self.assertEqual(client.transport.getHost().host, host)
        self.assertEqual(server.transport.getPeer(), client.transport.getHost())
        self.assertEqual(server.transport.getHost().host, host)
        server.transport.loseConnection()
        await self.lost(client)
        await port.stopListening()

    @in_reactor
    async def test_ipv6(self) -> None:
        """IPv6 has addresses of its own kind."""
        await self.check_ipv6("::1")

    @in_reactor
    async def test_link_local(self) -> None:
        """A link's own address names its link, at both ends."""
        own = link_local()
        if own is not None:
            await self.check_ipv6(own[0])

    @in_reactor
    async def test_disconnect_and_connect_again(self) -> None:
        """A connector ends its connection, and makes another."""
        listener = self.raw_listener()
        built: list[Notes] = []

        def build() -> Notes:
            built.append(Notes())
            return built[-1]

        client = Client(build)
        connector = self.reactor.connectTCP(*listener.getsockname(), client)
        for count in (1, 2, 3):
            peer = await self.accept_from(listener)
            await self.until(lambda count=count: len(built) == count)
            self.assertEqual(connector.state, "connected")
            self.assertEqual(connector.getDestination().port, listener.getsockname()[1])
            connector.disconnect()
            self.assertEqual(await self.lost(built[-1]), ConnectionDone)
            self.assertEqual(await peer.end(), "closed")
            self.assertEqual(connector.state, "disconnected")
            if count < 3:
                connector.connect()
        self.assertEqual(
            client.happened, ["startedConnecting", "clientConnectionLost"] * 3
        )

    @in_reactor
    async def test_connect_again_when_lost(self) -> None:
        """A factory may call `connect` when it is told of the loss."""
        listener = self.raw_listener()
        protocols = [Notes(), Notes()]
        builds = iter(protocols)

        class Again(Client):
            def clientConnectionLost(  # noqa: N802 - Twisted's
                self, connector: Any, reason: Failure
            ) -> None:
                super().clientConnectionLost(connector, reason)
                if self.happened.count("clientConnectionLost") == 1:
                    connector.connect()

        self.reactor.connectTCP(*listener.getsockname(), Again(lambda: next(builds)))
        (await self.accept_from(listener)).close()
        await self.lost(protocols[0])
        peer = await self.accept_from(listener)
        await self.until(lambda: protocols[1].happened)
        peer.close()
        await self.lost(protocols[1])

    @in_reactor
    async def test_refused_by_factory(self) -> None:
        """A factory that builds nothing is told that the connection was lost."""
        listener = self.raw_listener()
        client = Client(lambda: None)
        self.reactor.connectTCP(*listener.getsockname(), client)
        peer = await self.accept_from(listener)
        self.assertIn(await peer.end(), ("closed", "reset"))
        await client.done
        self.assertEqual(client.happened, ["startedConnecting", "clientConnectionLost"])

    @in_reactor
    async def test_peer_gone_at_once(self) -> None:
        """Whoever resets as soon as it has accepted has been connected to."""
        listener = self.raw_listener()
        protocol = Notes()
        client = Client(lambda: protocol)
        self.reactor.connectTCP(*listener.getsockname(), client)
        (await self.accept_from(listener)).reset()
        await client.done
        self.assertIn(
            client.happened[-1], ("clientConnectionLost", "clientConnectionFailed")
        )
        self.assertIn(len(protocol.happened), (0, 2))

    @in_reactor
    async def test_endpoint(self) -> None:
        """An endpoint resolves a name, and cancels the attempts that lose."""
        server = Notes()
        port = self.listen(lambda: server)
        endpoint = HostnameEndpoint(self.reactor, "localhost", port.getHost().port)
        self.assertTrue(IHostnameResolver.providedBy(self.reactor.nameResolver))
        client: Any = await connectProtocol(endpoint, Notes())
        await self.until(lambda: server.happened)
        client.transport.loseConnection()
        await self.lost(server)
        await port.stopListening()

    @in_reactor
    async def test_many(self) -> None:
        """Many connections at once are each their own."""
        port = self.listen(lambda: Notes(dataReceived=_echo), backlog=200)
        clients = [Notes() for _ in range(150)]
        for client in clients:
            self.reactor.connectTCP(
                "127.0.0.1", port.getHost().port, Client(lambda client=client: client)
            )
        await self.until(lambda: all(each.happened for each in clients))
        for number, client in enumerate(clients):
            client.transport.write(b"%d;" % number)
        await self.until(lambda: all(each.received for each in clients))
        self.assertEqual(
            [bytes(each.received) for each in clients],
            [b"%d;" % number for number in range(150)],
        )
        for client in clients:
            client.transport.loseConnection()
        await self.until(lambda: all(each.reason for each in clients))
        await self.until(lambda: all(each.reason for each in port.factory.built))
        await port.stopListening()


def _echo(protocol: Notes, data: bytes) -> None:
    protocol.transport.write(data)


class OptionsContract(SideContract):
    @in_reactor
    async def test_no_delay(self) -> None:
        """
        Nagle's algorithm is on in Twisted's and off in ours; both can change it.

        On UNIX sockets there is none to turn off.
        """
        protocol = Notes()
        peer = await self.connection(protocol)
        transport = protocol.transport
        self.assertIs(transport.getTcpNoDelay(), self.ours and self.over_tcp)
        for value in (True, False, True, True, False):
            transport.setTcpNoDelay(value)
            self.assertIs(transport.getTcpNoDelay(), value and self.over_tcp)
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_keep_alive(self) -> None:
        """Keep-alive is off, and can be set."""
        protocol = Notes()
        peer = await self.connection(protocol)
        transport = protocol.transport
        for value in (False, True, False):
            transport.setTcpKeepAlive(value)
            self.assertIs(transport.getTcpKeepAlive(), value)
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_handle(self) -> None:
        """The socket can be asked and set, and is gone when the connection is."""
        protocol = Notes()
        peer = await self.connection(protocol)
        sock = protocol.transport.getHandle()
        self.assertEqual(sock.getpeername(), peer.socket.getsockname())
        self.assertEqual(sock.fileno(), protocol.transport.fileno())
        peer.close()
        await self.lost(protocol)
        self.assertEqual(sock.fileno(), -1)


globals().update(on_both(FailingContract, ConnectingContract))
globals().update(on_both_sides(OptionsContract))
