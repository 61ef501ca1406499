"""
Connections whose protocol does not want to read now.
"""

from __future__ import annotations

import socket

from twisted.internet.error import ConnectionDone

from tests.reactors import (
    Contract,
    HalfCloseable,
    Notes,
    SideContract,
    in_reactor,
    on_both,
    on_both_sides,
)
from tests.uvreactor.test_ending import BIG


class PausingContract(SideContract):
    @in_reactor
    async def test_paused_when_made(self) -> None:
        """Who pauses in `connectionMade` receives nothing until it resumes."""
        protocol = Notes(connectionMade=lambda p: p.transport.pauseProducing())
        peer = await self.connection(protocol)
        peer.send(b"early")
        await self.turns()
        self.assertEqual(protocol.received, b"")
        protocol.transport.resumeProducing()
        await self.until(lambda: protocol.received)
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_twice(self) -> None:
        """Pausing twice is pausing once, and so is resuming."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.pauseProducing()
        protocol.transport.pauseProducing()
        peer.send(b"one")
        await self.turns()
        self.assertEqual(protocol.received, b"")
        protocol.transport.resumeProducing()
        protocol.transport.resumeProducing()
        await self.until(lambda: protocol.received)
        peer.send(b" two")
        await self.until(lambda: protocol.received == b"one two")
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_in_the_middle(self) -> None:
        """A pause within `dataReceived` takes effect at once."""
        protocol = Notes(dataReceived=lambda p, _: p.transport.pauseProducing())
        peer = await self.connection(protocol)
        peer.send(b"x" * 1_000_000)
        await self.until(lambda: protocol.received)
        await self.turns()
        once = len(protocol.received)
        self.assertLessEqual(once, 262_144)
        protocol.transport.resumeProducing()
        await self.until(lambda: len(protocol.received) > once)
        protocol.transport.abortConnection()
        await self.lost(protocol)

    @in_reactor
    async def test_end_while_paused(self) -> None:
        """What came before the end is received, then the end, once resumed."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.pauseProducing()
        peer.send(b"last words")
        peer.close()
        await self.turns()
        self.assertEqual(protocol.happened, ["connectionMade"])
        protocol.transport.resumeProducing()
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        self.assertEqual(protocol.received, b"last words")

    @in_reactor
    async def test_lost_while_paused(self) -> None:
        """Who has paused can close, and is told."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.pauseProducing()
        protocol.transport.loseConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        protocol.transport.resumeProducing()
        protocol.transport.pauseProducing()

    @in_reactor
    async def test_resumed_while_closing(self) -> None:
        """A connection that is closing does not read again."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.write(BIG)
        protocol.transport.loseConnection()
        protocol.transport.resumeProducing()
        peer.send(b"unwanted")
        await self.turns()
        self.assertEqual(protocol.received, b"")
        protocol.transport.abortConnection()
        await self.lost(protocol)

    @in_reactor
    async def test_paused_over_a_change_of_protocol(self) -> None:
        """A pause outlives the protocol that has asked for it."""
        first, second = Notes(), Notes()
        peer = await self.connection(first)
        first.transport.pauseProducing()
        first.transport.protocol = second
        peer.send(b"for the second")
        await self.turns()
        self.assertEqual(second.received, b"")
        first.transport.resumeProducing()
        await self.until(lambda: second.received)
        peer.close()
        await self.lost(second)
        self.assertEqual(first.happened, ["connectionMade"])


class EarlyEndContract(Contract):
    @in_reactor
    async def test_ended_before_it_is_made(self) -> None:
        """Who pauses in `connectionMade`, and resumes, can close at the end then."""
        for last_words in (b"", b"last words"):
            protocol = HalfCloseable(
                connectionMade=lambda p: p.transport.pauseProducing(),
                readConnectionLost=lambda p: p.transport.loseConnection(),
            )
            port = self.listen(lambda protocol=protocol: protocol)
            peer = self.peer_of(port)
            peer.send(last_words)
            peer.socket.shutdown(socket.SHUT_WR)
            await self.until(lambda protocol=protocol: protocol.happened)
            await self.turns()
            self.assertEqual(protocol.happened, ["connectionMade"])
            protocol.transport.resumeProducing()
            self.assertEqual(await self.lost(protocol), ConnectionDone)
            self.assertEqual(protocol.received, last_words)
            self.assertEqual(await peer.end(), "closed")
            await port.stopListening()


class PiecesContract(Contract):
    @in_reactor
    async def test_small_reads(self) -> None:
        """Several who read little at a time each have their own bytes."""
        sizes = {b"a": 1_000, b"b": 3, b"c": 65_535}
        built: list[tuple[Notes, list[int]]] = []

        def build() -> Notes:
            size = list(sizes.values())[len(built)]
            reads: list[int] = []
            notes = Notes(
                connectionMade=lambda p: setattr(p.transport, "bufferSize", size),
                dataReceived=lambda _, data: reads.append(len(data)),
            )
            built.append((notes, reads))
            return notes

        port = self.listen(build)
        peers = []
        for _ in sizes:
            peers.append(self.peer_of(port))
            await self.until(lambda: len(built) == len(peers))
        for _ in range(3):
            for peer, letter in zip(peers, sizes, strict=True):
                peer.send(letter * 10_000)
        for (notes, reads), (letter, size) in zip(built, sizes.items(), strict=True):
            await self.until(lambda notes=notes: len(notes.received) == 30_000)
            self.assertEqual(notes.received, letter * 30_000)
            self.assertLessEqual(max(reads), size)
            notes.transport.abortConnection()
        await port.stopListening()


globals().update(on_both_sides(PausingContract))
globals().update(on_both(EarlyEndContract, PiecesContract))
