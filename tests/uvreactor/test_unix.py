"""
UNIX sockets, which keep Twisted's transports: what is written at the end of the turn.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

from twisted.internet.error import ConnectionDone

from tests.reactors import Contract, Notes, Peer, Server, in_reactor, on_both
from tests.uvreactor.test_ending import BIG


class UnixContract(Contract):
    async def served(self, protocol: Notes) -> Peer:
        """Have a client of the reactor's server on a UNIX socket."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = str(Path(folder.name, "s"))
        port = self.reactor.listenUNIX(path, Server(lambda: protocol))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        peer = Peer(self, sock)
        await self.until(lambda: protocol.happened)
        await port.stopListening()
        return peer

    @in_reactor
    async def test_written_and_closed(self) -> None:
        """All arrives that was written before the close, and what is more than fits."""
        for written in (b"x", BIG):
            protocol = Notes()
            peer = await self.served(protocol)
            protocol.transport.write(written[:1])
            protocol.transport.write(written[1:])
            protocol.transport.loseConnection()
            self.assertEqual(await peer.end(), "closed")
            self.assertEqual(peer.received, written)
            self.assertEqual(await self.lost(protocol), ConnectionDone)

    @in_reactor
    async def test_not_at_once(self) -> None:
        """What is written in a turn is sent at its end, in one piece."""
        protocol = Notes(dataReceived=lambda p, _: p.transport.write(b"c"))
        peer = await self.served(protocol)
        protocol.transport.write(b"a")
        protocol.transport.writeSequence([b"b"])
        with self.assertRaises(BlockingIOError):
            peer.socket.recv(9)
        self.assertIn(protocol.transport, self.reactor.getWriters())
        await self.turns()
        self.assertEqual(peer.socket.recv(9), b"ab")
        self.assertNotIn(protocol.transport, self.reactor.getWriters())
        peer.send(b"x")
        await self.turns()
        self.assertEqual(peer.socket.recv(9), b"c")
        protocol.transport.abortConnection()
        await self.lost(protocol)

    @in_reactor
    async def test_aborted_in_the_same_turn(self) -> None:
        """What was written before an abort need not arrive, and nobody is harmed."""
        protocol = Notes()
        peer = await self.served(protocol)
        protocol.transport.write(b"a")
        protocol.transport.abortConnection()
        await self.lost(protocol)
        self.assertIn(await peer.end(), ("closed", "reset"))
        self.assertNotIn(protocol.transport, self.reactor.getWriters())

    @in_reactor
    async def test_reactor_ends(self) -> None:
        """Who is about to write when the reactor ends is told of it, once."""
        protocol = Notes()
        await self.served(protocol)
        protocol.transport.write(b"a")
        self.reactor.disconnectAll()
        await self.turns()
        self.assertEqual(protocol.happened, ["connectionMade", "connectionLost"])

    @in_reactor
    async def test_pull_producer(self) -> None:
        """One that always has more keeps nobody from their turn."""
        protocol = Notes()
        peer = await self.served(protocol)
        asked: list[int] = []

        class Endless:
            def resumeProducing(self) -> None:
                asked.append(1)
                protocol.transport.write(b"x")

            def stopProducing(self) -> None:
                pass

        protocol.transport.registerProducer(Endless(), False)
        await self.turns()
        self.assertGreater(len(asked), 3)
        protocol.transport.unregisterProducer()
        protocol.transport.loseConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(len(peer.received), len(asked))


globals().update(on_both(UnixContract))
