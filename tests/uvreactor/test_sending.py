"""
What is sent, in which order, and who is asked to wait: producers both ways.
"""

from __future__ import annotations

import io
import socket
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.protocols.basic import FileSender
from zope.interface import implementer

from sockproto.transports import pause_until_sent, unsent
from tests.reactors import (
    HalfCloseable,
    Notes,
    SideContract,
    in_reactor,
    on_both_sides,
)

PIECE = b"p" * 16_384

MOST_UNSENT = 65_536 + len(PIECE)
"""What a producer that stops when it is asked to can have piled up."""


@implementer(IPushProducer)
class Pushing:
    """
    Writes a piece each turn, as long as it is not paused.
    """

    def __init__(self, case: Any, consumer: Any, count: int = 1_000_000) -> None:
        self.case, self.consumer, self.left = case, consumer, count
        self.paused = False
        self.happened: list[str] = []
        self.written = 0

    def go(self) -> None:
        """Write all that may be written now."""
        while not self.paused and self.left:
            self.left -= 1
            self.written += len(PIECE)
            self.consumer.write(PIECE)

    def pauseProducing(self) -> None:
        self.happened.append("pause")
        self.paused = True

    def resumeProducing(self) -> None:
        self.happened.append("resume")
        self.paused = False
        self.case.reactor.callLater(0, self.go)

    def stopProducing(self) -> None:
        self.happened.append("stop")
        self.paused = True


@implementer(IPullProducer)
class Pulled:
    """
    Writes a piece whenever it is asked to; unregisters when it has no more.
    """

    def __init__(self, consumer: Any, count: int, piece: bytes = PIECE) -> None:
        self.consumer, self.left, self.piece = consumer, count, piece
        self.asked = 0
        self.stopped = False

    def resumeProducing(self) -> None:
        self.asked += 1
        if self.left:
            self.left -= 1
            self.consumer.write(self.piece)
        else:
            self.consumer.unregisterProducer()

    def stopProducing(self) -> None:
        self.stopped = True


def narrow(transport: Any) -> None:
    """Have the kernel hold little, so that what is unsent is ours."""
    transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)


class WritingContract(SideContract):
    @in_reactor
    async def test_order(self) -> None:
        """All arrives in the order in which it was written, by whatever means."""
        protocol = Notes()
        peer = await self.connection(protocol)
        expected = b""
        for number in range(2_000):
            piece = b"%d," % number * (number % 300)
            expected += piece + b";;"
            protocol.transport.write(piece)
            protocol.transport.writeSequence([b";", b"", b";"])
        self.assertEqual(await peer.has(len(expected)), expected)
        protocol.transport.loseConnection()
        await self.lost(protocol)

    @in_reactor
    async def test_what_is_no_bytes(self) -> None:
        """Text is refused, and the connection goes on."""
        protocol = Notes()
        peer = await self.connection(protocol)
        self.assertRaises(TypeError, protocol.transport.write, "text")
        self.assertRaises(TypeError, protocol.transport.writeSequence, ["text"])
        self.assertRaises(TypeError, protocol.transport.write, 5)
        protocol.transport.write(b"")
        protocol.transport.writeSequence([])
        protocol.transport.writeSequence(iter([b"by", b"tes"]))
        protocol.transport.loseConnection()
        await peer.end()
        self.assertEqual(peer.received[:5], b"bytes"[: len(peer.received)])
        await self.lost(protocol)

    @in_reactor
    async def test_what_changes(self) -> None:
        """A buffer that may change later is refused, or sent as it was."""
        protocol = Notes()
        peer = await self.connection(protocol)
        narrow(protocol.transport)
        expected = b"x" * 500_000
        protocol.transport.write(expected)
        for kind in (bytearray, lambda data: memoryview(bytearray(data))):
            changing: Any = kind(b"a" * 1_000)
            try:
                protocol.transport.write(changing)
            except TypeError:
                continue
            expected += b"a" * 1_000
            changing[:] = b"b" * 1_000
        protocol.transport.loseConnection()
        await peer.end()
        self.assertEqual(peer.received[500_000:], expected[500_000:])
        await self.lost(protocol)

    @in_reactor
    async def test_sent_when_made(self) -> None:
        """What is written in `connectionMade` is the first that is sent."""
        protocol = Notes(connectionMade=lambda p: p.transport.write(b"welcome"))
        peer = await self.connection(protocol)
        self.assertEqual(await peer.has(7), b"welcome")
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_echo(self) -> None:
        """Writes from within `dataReceived` are answers, complete and in order."""
        protocol = Notes(dataReceived=lambda p, data: p.transport.write(data))
        peer = await self.connection(protocol)
        sent = b""
        for size in (1, 70_000, 3, 200_000, 1):
            sent += bytes([size % 256]) * size
            peer.send(bytes([size % 256]) * size)
            await peer.has(len(sent))
        self.assertEqual(peer.received, sent)
        peer.close()
        await self.lost(protocol)


class PushContract(SideContract):
    async def pushing(self, count: int = 1_000_000) -> tuple[Notes, Any, Pushing]:
        protocol = Notes()
        peer = await self.connection(protocol)
        narrow(protocol.transport)
        return protocol, peer, Pushing(self, protocol.transport, count)

    @in_reactor
    async def test_bounded(self) -> None:
        """A producer is paused when a peer does not read, and goes on later."""
        protocol, peer, producer = await self.pushing()
        protocol.transport.registerProducer(producer, True)
        producer.go()
        await self.turns()
        self.assertEqual(producer.happened, ["pause"])
        self.assertGreater(unsent(protocol.transport), 0)
        self.assertLessEqual(unsent(protocol.transport), MOST_UNSENT)
        size = producer.written
        await peer.has(size)
        await self.until(lambda: producer.written > size)
        await self.turns()
        self.assertLessEqual(unsent(protocol.transport), MOST_UNSENT)
        self.assertEqual(producer.happened[:3], ["pause", "resume", "pause"])
        protocol.transport.abortConnection()
        await self.lost(protocol)
        self.assertEqual(producer.happened.count("stop"), 1)

    @in_reactor
    async def test_registered_late(self) -> None:
        """One that is registered when too much is unsent waits at its next write."""
        protocol, peer, producer = await self.pushing()
        protocol.transport.write(PIECE * 64)
        protocol.transport.registerProducer(producer, True)
        producer.go()
        self.assertEqual(producer.happened, ["pause"])
        self.assertLessEqual(producer.written, len(PIECE))
        await peer.has(len(PIECE) * 64 + producer.written)
        await self.until(lambda: "resume" in producer.happened)
        protocol.transport.abortConnection()
        await self.lost(protocol)

    @in_reactor
    async def test_not_full(self) -> None:
        """One that does not write too much is never asked for anything."""
        protocol, peer, producer = await self.pushing(2)
        protocol.transport.registerProducer(producer, True)
        producer.go()
        await peer.has(2 * len(PIECE))
        self.assertEqual(producer.happened, [])
        protocol.transport.unregisterProducer()
        protocol.transport.loseConnection()
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        self.assertEqual(producer.happened, [])

    @in_reactor
    async def test_paused_until_sent(self) -> None:
        """One may be paused until all is sent, though it is not much, or nothing."""
        protocol, peer, producer = await self.pushing(0)
        protocol.transport.registerProducer(producer, True)
        size = 0
        for full, after in ((True, 0), (True, 1), (False, 1)):
            producer.happened.clear()
            while full and not unsent(protocol.transport):
                protocol.transport.write(PIECE)
                size += len(PIECE)
                await self.turn()
            self.assertEqual(producer.happened, [])
            pause_until_sent(protocol.transport)
            protocol.transport.write(PIECE * after)
            size += len(PIECE) * after
            self.assertEqual(producer.happened, ["pause"])
            await peer.has(size)
            await self.until(lambda: producer.happened[1:])
            self.assertEqual(producer.happened, ["pause", "resume"])
        # Whoever closes it meanwhile waits for it; and it is asked to go on.
        pause_until_sent(protocol.transport)
        protocol.transport.loseConnection()
        await self.until(lambda: producer.happened[3:])
        protocol.transport.unregisterProducer()
        pause_until_sent(protocol.transport)
        self.assertEqual(await peer.end(), "closed")
        await self.lost(protocol)
        self.assertEqual(producer.happened, ["pause", "resume"] * 2)

    @in_reactor
    async def test_close_waits(self) -> None:
        """`loseConnection` waits for a producer that it has paused."""
        protocol, peer, producer = await self.pushing(100)
        protocol.transport.registerProducer(producer, True)
        producer.go()
        protocol.transport.loseConnection()
        await peer.has(100 * len(PIECE))
        protocol.transport.unregisterProducer()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(len(peer.received), 100 * len(PIECE))
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        self.assertIn("pause", producer.happened)

    @in_reactor
    async def test_close_with_idle_producer(self) -> None:
        """It waits for none that could write, and does not, whatever is said of it."""
        protocol, peer, producer = await self.pushing(1)
        protocol.transport.registerProducer(producer, True)
        producer.go()
        await peer.has(len(PIECE))
        protocol.transport.loseConnection()
        protocol.transport.write(b"last")
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, PIECE + b"last")
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        self.assertEqual(producer.happened, ["stop"])

    @in_reactor
    async def test_half_close_with_idle_producer(self) -> None:
        """Nor does `loseWriteConnection`."""
        protocol = HalfCloseable()
        peer = await self.connection(protocol)
        producer = Pushing(self, protocol.transport, 1)
        protocol.transport.registerProducer(producer, True)
        producer.go()
        protocol.transport.loseWriteConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, PIECE)
        await self.until(lambda: "writeConnectionLost" in protocol.happened)
        protocol.transport.loseConnection()
        await self.lost(protocol)

    @in_reactor
    async def test_half_close_with_idle_producer_and_a_little(self) -> None:
        """Nor when something is unsent."""
        protocol = HalfCloseable()
        peer = await self.connection(protocol)
        narrow(protocol.transport)
        producer = Pushing(self, protocol.transport, 0)
        protocol.transport.registerProducer(producer, True)
        size = 0
        while not unsent(protocol.transport):
            protocol.transport.write(PIECE)
            size += len(PIECE)
            await self.turn()
        protocol.transport.loseWriteConnection()
        await self.turns()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual((len(peer.received), producer.happened), (size, []))
        protocol.transport.loseConnection()
        await self.lost(protocol)

    @in_reactor
    async def test_forwarding(self) -> None:
        """Two that produce for each other, and never say that they are done, end."""

        def end_other(protocol: Notes, *_: object) -> None:
            other[protocol].transport.loseConnection()

        def pass_on(protocol: Notes, data: bytes) -> None:
            other[protocol].transport.write(data)

        first = Notes(connectionLost=end_other, dataReceived=pass_on)
        second = Notes(connectionLost=end_other, dataReceived=pass_on)
        other = {first: second, second: first}
        ends = [await self.connection(first), await self.connection(second)]
        first.transport.registerProducer(second.transport, True)
        second.transport.registerProducer(first.transport, True)
        ends[0].send(b"x" * 300_000)
        await ends[1].has(300_000)
        ends[0].close()
        self.assertEqual(await ends[1].end(), "closed")
        self.assertEqual(await self.lost(first), ConnectionDone)
        self.assertEqual(await self.lost(second), ConnectionDone)

    @in_reactor
    async def test_half_close_waits(self) -> None:
        """So does `loseWriteConnection`."""
        protocol = HalfCloseable()
        peer = await self.connection(protocol)
        narrow(protocol.transport)
        producer = Pushing(self, protocol.transport, 50)
        protocol.transport.registerProducer(producer, True)
        producer.go()
        await peer.has(50 * len(PIECE))
        protocol.transport.loseWriteConnection()
        protocol.transport.unregisterProducer()
        self.assertEqual(await peer.end(), "closed")
        await self.until(lambda: "writeConnectionLost" in protocol.happened)
        protocol.transport.loseConnection()
        await self.lost(protocol)
        self.assertEqual(peer.received, PIECE * 50)

    @in_reactor
    async def test_stopped_by_loss(self) -> None:
        """A producer is stopped once when the connection is lost, however it is."""
        for how, reason in (
            ("close", ConnectionDone),
            ("reset", self.of_reset),
        ):
            protocol, peer, producer = await self.pushing()
            protocol.transport.registerProducer(producer, True)
            getattr(peer, how)()
            self.assertEqual(await self.lost(protocol), reason)
            await self.turns()
            self.assertEqual(producer.happened, ["stop"])

    @in_reactor
    async def test_registered_after_loss(self) -> None:
        """One that is registered when all is over is stopped at once."""
        protocol, peer, producer = await self.pushing()
        peer.close()
        await self.lost(protocol)
        protocol.transport.registerProducer(producer, True)
        self.assertEqual(producer.happened, ["stop"])
        protocol.transport.unregisterProducer()

    @in_reactor
    async def test_two(self) -> None:
        """There is one at a time."""
        protocol, peer, producer = await self.pushing()
        protocol.transport.registerProducer(producer, True)
        self.assertRaises(
            RuntimeError, protocol.transport.registerProducer, producer, True
        )
        protocol.transport.unregisterProducer()
        protocol.transport.unregisterProducer()
        protocol.transport.registerProducer(producer, False)
        protocol.transport.unregisterProducer()
        peer.close()
        await self.lost(protocol)


class PullContract(SideContract):
    @in_reactor
    async def test_pulled(self) -> None:
        """All that is pulled arrives; little of it is unsent at any time."""
        protocol = Notes()
        peer = await self.connection(protocol)
        narrow(protocol.transport)
        producer = Pulled(protocol.transport, 200)
        protocol.transport.registerProducer(producer, False)
        await self.turns(20)
        self.assertLessEqual(unsent(protocol.transport), 2 * len(PIECE))
        protocol.transport.loseConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, PIECE * 200)
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        self.assertFalse(producer.stopped)

    @in_reactor
    async def test_registered_late(self) -> None:
        """What was written before comes before what is pulled."""
        protocol = Notes()
        peer = await self.connection(protocol)
        narrow(protocol.transport)
        protocol.transport.write(b"f" * 300_000)
        producer = Pulled(protocol.transport, 3, b"then")
        protocol.transport.registerProducer(producer, False)
        await self.turns()
        self.assertLessEqual(producer.asked, 2)
        await peer.has(300_012)
        await self.turns()
        protocol.transport.loseConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, b"f" * 300_000 + b"then" * 3)
        await self.lost(protocol)

    @in_reactor
    async def test_writes_later(self) -> None:
        """One that has to fetch what it is asked for is asked once until it has."""
        protocol = Notes()
        peer = await self.connection(protocol)
        asked: list[int] = []

        @implementer(IPullProducer)
        class Slow:
            def resumeProducing(self) -> None:
                asked.append(1)

            def stopProducing(self) -> None:
                pass

        protocol.transport.registerProducer(Slow(), False)
        await self.turns()
        self.assertEqual(len(asked), 1)
        protocol.transport.write(b"fetched")
        await peer.has(7)
        await self.turns()
        self.assertEqual(len(asked), 2)
        protocol.transport.unregisterProducer()
        protocol.transport.write(b"more")
        await peer.has(11)
        await self.turns()
        self.assertEqual(len(asked), 2)
        peer.close()
        await self.lost(protocol)

    @in_reactor
    async def test_closed_when_made(self) -> None:
        """A close waits for one registered in `connectionMade`, and reads nothing."""

        @implementer(IPullProducer)
        class Idle:
            def resumeProducing(self) -> None:
                pass

            def stopProducing(self) -> None:
                pass

        def begin(protocol: Notes) -> None:
            protocol.transport.registerProducer(Idle(), False)
            protocol.transport.loseConnection()

        protocol = Notes(connectionMade=begin)
        peer = await self.connection(protocol)
        peer.send(b"unwanted")
        await self.turns()
        self.assertEqual(protocol.happened, ["connectionMade"])
        protocol.transport.unregisterProducer()
        self.assertIn(await peer.end(), ("closed", "reset"))
        await self.lost(protocol)
        self.assertEqual(protocol.received, b"")

    @in_reactor
    async def test_file(self) -> None:
        """`FileSender` sends a big file to one who reads slowly, and closes."""
        content = bytes(range(256)) * 8_192
        protocol = Notes()
        peer = await self.connection(protocol)
        narrow(protocol.transport)
        sender = FileSender()
        done = sender.beginFileTransfer(io.BytesIO(content), protocol.transport)
        done.addCallback(lambda _: protocol.transport.loseConnection())
        await self.turns()
        self.assertLessEqual(unsent(protocol.transport), 2 * sender.CHUNK_SIZE)
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, content)
        self.assertEqual(await self.lost(protocol), ConnectionDone)

    @in_reactor
    async def test_file_cut_short(self) -> None:
        """A file's sender is told that the connection is lost."""
        protocol = Notes()
        peer = await self.connection(protocol)
        narrow(protocol.transport)
        failed: list[object] = []
        done = FileSender().beginFileTransfer(
            io.BytesIO(b"x" * 5_000_000), protocol.transport
        )
        done.addErrback(failed.append)
        await self.turns()
        peer.reset()
        self.assertEqual(await self.lost(protocol), ConnectionLost)
        self.assertEqual(len(failed), 1)

    @in_reactor
    async def test_fairness(self) -> None:
        """One that always has more does not keep timers from their turn."""
        protocol = Notes(connectionMade=lambda p: None)
        peer = await self.connection(protocol)
        producer = Pulled(protocol.transport, 1_000_000, b"x")
        protocol.transport.registerProducer(producer, False)
        await self.turns(10)
        peer.take()
        protocol.transport.abortConnection()
        await self.lost(protocol)
        self.assertTrue(producer.stopped)


globals().update(on_both_sides(WritingContract, PushContract, PullContract))
