"""
Ports: accepting, pausing, stopping, and being another's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from errno import EMFILE
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionLost

from tests.reactors import (
    Client,
    Contract,
    Notes,
    Peer,
    Server,
    in_reactor,
    on_both,
)
from tests.uvreactor.test_raising import Steady

if TYPE_CHECKING:
    from collections.abc import Callable

with contextlib.suppress(ImportError):
    from sockproto.uvreactor import accepting
    from sockproto.uvreactor.tcp import ServerConnection

BACKLOG = struct.Struct("8B 6I")
"""The head of tcp_info (linux/tcp.h): of a listener, the last is its backlog."""


def backlog_of(listener: Any) -> int:
    """How many the kernel queues for that socket."""
    told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BACKLOG.size)
    backlog: int = BACKLOG.unpack(told)[-1]
    return backlog


def copies_of(sock: socket.socket) -> int:
    """How many descriptors of this process are that socket."""
    own = os.fstat(sock.fileno())
    count = 0
    for each in Path("/dev/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the folder itself
            count += os.path.samestat(each.stat(), own)
    return count


class PortContract(Contract):
    async def check_serves(self, port: Any) -> None:
        """Somebody who comes now is served."""
        before = len(port.factory.built)
        peer = self.peer_of(port)
        await self.until(lambda: len(port.factory.built) > before)
        protocol = port.factory.built[-1]
        await self.until(lambda: protocol.happened)
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_stopped_and_started(self) -> None:
        """A port that was stopped refuses; it can be started again."""
        port = self.listen(Notes)
        address = port.getHost()
        self.assertIsInstance(address, IPv4Address)
        await self.check_serves(port)
        await port.stopListening()
        self.assertRaises(
            ConnectionRefusedError,
            socket.create_connection,
            (address.host, address.port),
        )
        port.startListening()
        await self.check_serves(port)
        await port.stopListening()
        await self.turns()

    @in_reactor
    async def test_connections_outlive_it(self) -> None:
        """Who is connected stays so when the port is stopped."""
        port = self.listen(Notes)
        peer = self.peer_of(port)
        await self.until(lambda: port.factory.built)
        await port.stopListening()
        protocol = port.factory.built[0]
        peer.send(b"still")
        await self.until(lambda: protocol.received)
        protocol.transport.write(b"here")
        self.assertEqual(await peer.has(4), b"here")
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_paused(self) -> None:
        """Who comes while a port is paused waits in the kernel, and is served then."""
        port = self.listen(Notes)
        await self.check_serves(port)
        for _ in range(2):
            port.stopReading()
            port.stopReading()
            served = len(port.factory.built)
            peers = [self.peer_of(port) for _ in range(3)]
            await self.turns()
            self.assertEqual(len(port.factory.built), served)
            port.startReading()
            port.startReading()
            await self.until(
                lambda served=served: len(port.factory.built) == served + 3
            )
            for peer in peers:
                peer.close()
            for protocol in port.factory.built:
                await self.lost(protocol)
        await port.stopListening()

    @in_reactor
    async def test_paused_from_within(self) -> None:
        """A port may be paused by the connection that is one too many."""
        port = self.listen(lambda: Notes(connectionMade=lambda p: port.stopReading()))
        peers = [self.peer_of(port) for _ in range(3)]
        await self.turns()
        first = len(port.factory.built)
        # Those that were accepted at once with it are served as well.
        self.assertIn(first, (1, 2, 3))
        while len(port.factory.built) < 3:
            port.startReading()
            await self.turns()
        for peer in peers:
            peer.close()
        for protocol in port.factory.built:
            await self.lost(protocol)
        await port.stopListening()

    @in_reactor
    async def test_stopped_while_paused(self) -> None:
        """A paused port can be stopped."""
        port = self.listen(Notes)
        port.stopReading()
        peer = self.peer_of(port)
        await self.turns()
        await port.stopListening()
        self.assertIn(await peer.end(), ("closed", "reset"))

    @in_reactor
    async def test_stopped_from_within(self) -> None:
        """A port may be stopped by a connection of its own."""
        stopped: list[object] = []

        def stop(protocol: Notes) -> None:
            port.stopListening().addCallback(stopped.append)

        port = self.listen(lambda: Notes(connectionMade=stop))
        peer = self.peer_of(port)
        await self.until(lambda: stopped)
        protocol = port.factory.built[0]
        peer.send(b"x")
        await self.until(lambda: protocol.received)
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_stopped_at_once(self) -> None:
        """A port may be stopped in the turn in which it was made."""
        port = self.listen(Notes)
        await port.stopListening()
        await self.turns()

    @in_reactor
    async def test_gone_before_it_was_seen(self) -> None:
        """Who resets before being accepted does not keep others from being served."""
        port = self.listen(Notes)
        for _ in range(10):
            self.peer_of(port).reset()
        await self.turns()
        await self.until(lambda: all(each.reason for each in port.factory.built))
        self.assertLessEqual(
            {each.lost for each in port.factory.built}, {ConnectionLost, ConnectionDone}
        )
        await self.check_serves(port)
        await port.stopListening()

    @in_reactor
    async def test_in_use(self) -> None:
        """A place that is taken cannot be had."""
        taken = self.raw_listener()
        self.assertRaises(
            CannotListenError,
            self.reactor.listenTCP,
            taken.getsockname()[1],
            Server(Notes),
            interface="127.0.0.1",
        )

    @in_reactor
    async def test_backlog(self) -> None:
        """The kernel queues as many as were asked for."""
        for backlog in (0, 1, 7, 200):
            port = self.listen(Notes, backlog=backlog)
            self.assertEqual(backlog_of(port.socket), backlog)
            port.stopReading()
            port.startReading()
            self.assertEqual(backlog_of(port.socket), backlog)
            await port.stopListening()

    @in_reactor
    async def test_adopted(self) -> None:
        """A socket of another's is served as it is, and stays the other's."""
        own = self.raw_listener(backlog=7)
        port = self.reactor.adoptStreamPort(own.fileno(), socket.AF_INET, Server(Notes))
        await self.check_serves(port)
        await port.stopListening()
        peer = Peer(self, socket.create_connection(own.getsockname()))
        accepted = await self.accept_from(own)
        accepted.send(b"mine")
        self.assertEqual(await peer.has(4), b"mine")

    @in_reactor
    async def test_adopted_backlog(self) -> None:
        """How many are queued for it is the other's affair."""
        own = self.raw_listener(backlog=7)
        port = self.reactor.adoptStreamPort(own.fileno(), socket.AF_INET, Server(Notes))
        self.assertEqual(backlog_of(own), 7)
        await port.stopListening()

    @in_reactor
    async def test_adopted_connection(self) -> None:
        """A connection of another's can be served."""
        listener = self.raw_listener()
        peer = Peer(self, socket.create_connection(listener.getsockname()))
        taken = await self.accept_from(listener)
        server = Server(lambda: Notes(dataReceived=lambda p, d: p.transport.write(d)))
        self.reactor.adoptStreamConnection(
            taken.socket.fileno(), socket.AF_INET, server
        )
        taken.close()
        peer.send(b"x" * 300_000)
        self.assertEqual(len(await peer.has(300_000)), 300_000)
        peer.close()
        self.assertEqual(await self.lost(server.built[0]), ConnectionDone)

    @in_reactor
    async def test_representation(self) -> None:
        """Ports and connections can be told apart in a log."""
        protocol = Notes()
        port = self.listen(lambda: protocol)
        self.assertIn(str(port.getHost().port), repr(port))
        peer = self.peer_of(port)
        await self.until(lambda: protocol.happened)
        self.assertEqual(
            repr(protocol.transport), f"<Notes #0 on {port.getHost().port}>"
        )
        self.assertEqual(protocol.transport.logstr, "Notes,0,127.0.0.1")
        self.assertEqual(protocol.transport.hostname, "127.0.0.1")
        peer.close()
        await self.lost(protocol)
        repr(protocol.transport)
        protocol.transport.logPrefix()
        await port.stopListening()


class FairnessContract(Contract):
    @in_reactor
    async def test_flood(self) -> None:
        """One who sends without end keeps neither timers nor others waiting."""

        def more(protocol: Notes, data: bytes) -> None:
            protocol.received.clear()
            protocol.transport.write(data)

        port = self.listen(lambda: Notes(dataReceived=more))
        other = self.listen(lambda: Notes(dataReceived=more))
        # What each of these sends comes back, and is sent again.
        ends = [Notes(dataReceived=more) for _ in range(3)]
        for end in ends:
            self.reactor.connectTCP(
                "127.0.0.1", port.getHost().port, Client(lambda end=end: end)
            )
        await self.until(lambda: all(each.happened for each in ends))
        for end in ends:
            end.transport.write(b"x" * 400_000)
        peer = self.peer_of(other)
        peer.send(b"ping")
        self.assertEqual(await peer.has(4), b"ping")
        await self.turns(20)
        for end in ends:
            end.transport.abortConnection()
        await self.until(lambda: all(each.reason for each in ends))
        await self.until(lambda: all(each.reason for each in port.factory.built))
        peer.close()
        await self.until(lambda: all(each.reason for each in other.factory.built))
        await port.stopListening()
        await other.stopListening()

    async def turns_for(self, connect: Callable[[], Peer], factory: Any) -> int:
        """Count the turns that 30 who have come at once wait to be accepted."""
        counted = 0

        def count() -> None:
            nonlocal counted
            if len(factory.built) < len(peers):
                counted += 1
                self.reactor.callLater(0, count)

        peers = [connect() for _ in range(30)]
        count()
        await self.until(lambda: len(factory.built) == len(peers))
        for peer, protocol in zip(peers, factory.built, strict=True):
            self.assertTrue(protocol.happened)
            peer.close()
            await self.lost(protocol)
        factory.built.clear()
        return counted

    @in_reactor
    async def test_calls_of_others(self) -> None:
        """Who comes does not have made what others have put off."""
        called: list[object] = []

        def again() -> None:
            called.append(self.reactor.callLater(0, again))

        def made(protocol: Notes) -> None:
            before.append(len(called))

        before: list[int] = []
        after: list[int] = []
        port = self.listen(lambda: Notes(connectionMade=made))
        if self.ours:
            made_by_uvloop = ServerConnection.connection_made

            def connection_made(connection: Any, uv: Any) -> None:
                made_by_uvloop(connection, uv)
                after.append(len(called))

            self.patch(ServerConnection, "connection_made", connection_made)
        again()
        peers = [self.peer_of(port) for _ in range(5)]
        await self.until(lambda: len(before) == len(peers))
        if self.ours:
            self.assertEqual(before, after)
        for peer in peers:
            peer.close()
        await self.until(lambda: all(each.reason for each in port.factory.built))
        await port.stopListening()

    def ways(self) -> list[tuple[Any, Callable[[], Peer]]]:
        """Have a port of each kind, and how one connects to it."""
        path = self.unix_path()
        on_tcp = self.listen(Notes)
        on_unix = self.reactor.listenUNIX(path, Server(Steady))
        where = ("127.0.0.1", on_tcp.getHost().port)
        return [
            (on_tcp, lambda: Peer(self, socket.create_connection(where))),
            (on_unix, partial(self.unix_peer, path)),
        ]

    @in_reactor
    async def test_crowd(self) -> None:
        """A crowd is accepted within few turns, if these are long."""
        if self.ours:
            self.patch(accepting, "LONG_TURN", 0)
        for port, connect in self.ways():
            for _ in range(2):
                self.assertLess(await self.turns_for(connect, port.factory), 20)
            await port.stopListening()

    @in_reactor
    async def test_lasting_crowd(self) -> None:
        """Where crowds come again and again, more are accepted in a turn."""
        if self.ours:
            self.patch(accepting, "LONG_TURN", 1000)
            self.patch(accepting, "LOOK_EVERY", 2)
        for port, connect in self.ways():
            turns = [await self.turns_for(connect, port.factory) for _ in range(4)]
            self.assertLess(turns[-1], 15)
            port.stopReading()
            peer = connect()
            await self.turns()
            self.assertFalse(port.factory.built)
            port.startReading()
            await self.until(lambda port=port: port.factory.built)
            peer.close()
            await self.lost(port.factory.built.pop())
            for _ in range(3):
                await self.turns_for(connect, port.factory)
            if self.ours:
                self.assertEqual(len(port._accepting), accepting.MOST_ACCEPTING)
            for _ in range(64):
                peer = connect()
                await self.until(lambda port=port: port.factory.built)
                peer.close()
                await self.lost(port.factory.built.pop())
            if self.ours:
                self.assertEqual(len(port._accepting), 1)
            for _ in range(2):
                await self.turns_for(connect, port.factory)
            await port.stopListening()
            self.assertRaises((ConnectionRefusedError, FileNotFoundError), connect)

    async def crowded(self) -> Any:
        """Have a port where crowds have come."""
        if self.ours:
            self.patch(accepting, "LONG_TURN", 1000)
            self.patch(accepting, "LOOK_EVERY", 2)
        port = self.listen(Notes)
        for _ in range(6):
            await self.turns_for(partial(self.peer_of, port), port.factory)
        return port

    @in_reactor
    async def test_crowd_that_leaves(self) -> None:
        """When nobody comes any more, no descriptor more is left open than before."""
        if self.ours:
            self.patch(accepting, "QUIET_SECONDS", 0.2)
        port = self.listen(Notes)
        at_rest = copies_of(port.socket)
        await port.stopListening()
        port = await self.crowded()
        if self.ours:
            self.assertGreater(copies_of(port.socket), at_rest)
        await self.until(lambda: copies_of(port.socket) == at_rest)
        await self.turns_for(partial(self.peer_of, port), port.factory)
        await port.stopListening()

    @in_reactor
    async def test_few(self) -> None:
        """Two at a time are no crowd."""
        if self.ours:
            self.patch(accepting, "LOOK_EVERY", 1)
        port = self.listen(Notes)
        for _ in range(50):
            peers = [self.peer_of(port) for _ in range(2)]
            await self.until(lambda: len(port.factory.built) == 2)
            for peer in peers:
                peer.close()
            for protocol in port.factory.built:
                await self.lost(protocol)
            port.factory.built.clear()
            if self.ours:
                self.assertEqual(len(port._accepting), 1)
        await port.stopListening()

    @in_reactor
    async def test_stopped_by_the_first(self) -> None:
        """When one of a crowd stops its port, nobody is made after `doStop`."""
        port = await self.crowded()
        factory = port.factory
        stopped: list[Any] = []
        made: list[int] = []

        def stop(protocol: Notes) -> None:
            if not stopped:
                stopped.append(port.stopListening())

        factory.builds = lambda: Notes(connectionMade=stop)
        factory.doStop = lambda: made.append(len(factory.built))
        peers = [self.peer_of(port) for _ in range(12)]
        await self.until(lambda: stopped)
        await stopped[0]
        await self.turns()
        self.assertEqual(made, [len(factory.built)])
        for peer in peers:
            peer.close()
        for protocol in factory.built:
            await self.lost(protocol)

    @in_reactor
    async def test_stopped_meanwhile(self) -> None:
        """Those who are accepted when the port is stopped by others are served."""
        port = await self.crowded()
        peers = [self.peer_of(port) for _ in range(4)]
        if self.ours:
            # Between the accepting, after the calls of this turn, and the making.
            soon = self.reactor.loop.call_soon
            soon(soon, port.stopListening)
        else:
            await self.until(lambda: len(port.factory.built) == 4)
            await port.stopListening()
        await self.turns()
        self.assertEqual(len(port.factory.built), 4)
        for peer, protocol in zip(peers, port.factory.built, strict=True):
            self.assertEqual(protocol.happened, ["connectionMade"])
            peer.close()
            await self.lost(protocol)

    @in_reactor
    async def test_crowd_without_descriptors(self) -> None:
        """Where there is no descriptor left, one accepts them all."""
        if self.ours:
            self.patch(accepting, "LONG_TURN", 1000)
            self.patch(accepting, "LOOK_EVERY", 2)

        def refuse(descriptor: int) -> int:
            raise OSError(EMFILE, "Too many open files")

        for port, connect in self.ways():
            self.patch(os, "dup", refuse)
            for _ in range(3):
                await self.turns_for(connect, port.factory)
            if self.ours:
                self.assertEqual(len(port._accepting), 1)
            await port.stopListening()


globals().update(on_both(PortContract, FairnessContract))
