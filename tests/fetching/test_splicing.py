"""
Bodies that go from the socket to a file within the kernel.
"""

from __future__ import annotations

import errno
import gzip
import os
import socket
import tempfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from sockproto.connecting import connect
from sockproto.errors import (
    BodyCutShort,
    CannotWrite,
    ConnectionWasReset,
    PeerError,
    TimedOut,
)
from sockproto.fetching import FetchObserver, FetchProtocol, Response, fetch
from sockproto.fetching.splicing import SMALLEST, take_out
from sockproto.wire.exchange import Exchange
from sockproto.wrapping import ConnectionWrapper
from tests.fetching.fakes import REQUEST
from tests.reactors import Contract, Peer, in_reactor, on_both

if TYPE_CHECKING:
    from collections.abc import Callable

    from sockproto.wire.response import HeadCame

BODY = bytes(range(256)) * 4096 * 5
"""5 MiB."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)


class Basin:
    """
    A sink that notes how its bytes came.
    """

    def __init__(self) -> None:
        self.body = bytearray()
        self.ways: list[str] = []
        self.raises: Exception | None = None
        self.then: Callable[[], None] = lambda: None

    def begin(self, head: HeadCame) -> None:
        """Nothing to prepare."""

    def _came(self, way: str, data: bytes) -> None:
        self.body += data
        if self.ways[-1:] != [way]:
            self.ways.append(way)
        if way == "spliced" and self.raises is not None:
            raise self.raises
        self.then()

    def write(self, data: bytes) -> None:
        self._came("written", data)

    def splice(self, pipe: int, size: int) -> None:
        while size:
            data = os.read(pipe, size)
            size -= len(data)
            self._came("spliced", data)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class SplicingContract(Contract):
    """A rest of a body that is nothing but its bytes."""

    def begin(self, to: Any, **how: Any) -> Deferred[Response]:
        self.listener = self.raw_listener()
        host, port = self.listener.getsockname()
        return fetch(self.reactor, f"http://{host}:{port}/", to=to, **how)

    async def answered(self, *data: bytes) -> Peer:
        """Have the server's end, which has said so much."""
        peer = await self.accept_from(self.listener)
        for each in data:
            await self.say(peer, each)
        return peer

    async def say(self, peer: Peer, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[peer.socket.send(view) :]
            except BlockingIOError:
                await self.turn()

    @in_reactor
    async def test_whole(self) -> None:
        """It comes whole, and what comes behind it is left alone."""
        sink = Basin()
        fetched = self.begin(sink)
        peer = await self.answered(HEAD, BODY)
        response = await fetched
        self.assertEqual((response.status, sink.body), (200, BODY))
        self.assertEqual(sink.ways[-1], "spliced")
        self.assertLessEqual(len(sink.ways), 2)
        self.assertEqual(await peer.end(), "closed")

    @in_reactor
    async def test_file(self) -> None:
        """So does a file, and nothing stays open."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        place = Path(folder.name) / "body"
        before = 1 << 20
        for _ in range(2):  # with the first, the loop makes what it keeps
            fetched = self.begin(place)
            peer = await self.answered(HEAD, BODY)
            await fetched
            self.assertEqual(place.read_bytes(), BODY)
            await peer.end()
            peer.socket.close()
            self.listener.close()
            await self.until(lambda before=before: open_files() <= before)
            before = open_files()

    @in_reactor
    async def test_chunk(self) -> None:
        """What stands behind a large chunk is read again."""
        sink = Basin()
        fetched = self.begin(sink)
        await self.answered(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5\r\nfirst\r\n%x\r\n" % len(BODY),
            BODY,
            b"\r\n4\r\nlast\r\n0\r\nA: b\r\n\r\n",
        )
        response = await fetched
        self.assertEqual(sink.body, b"first" + BODY + b"last")
        self.assertEqual(response.trailers, ((b"A", b"b"),))
        self.assertIn("spliced", sink.ways)

    @in_reactor
    async def test_cut_short(self) -> None:
        """What came of it is kept, and the error says how much that was."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        place = Path(folder.name) / "body"
        fetched = self.begin(place)
        peer = await self.answered(HEAD, BODY[:-1])
        peer.socket.shutdown(socket.SHUT_WR)
        with self.assertRaisesRegex(BodyCutShort, f"{len(BODY) - 1}.*{len(BODY)}"):
            await fetched
        kept = place.with_name("body.part")
        self.assertEqual(kept.read_bytes(), BODY[:-1])

    @in_reactor
    async def test_reset(self) -> None:
        """A reset in the middle is one."""
        sink = Basin()
        fetched = self.begin(sink)
        peer = await self.answered(HEAD, BODY[:-1])
        await self.until(lambda: len(sink.body) == len(BODY) - 1)
        peer.reset()
        with self.assertRaises(ConnectionWasReset):
            await fetched

    @in_reactor
    async def test_silence(self) -> None:
        """It is counted from the last byte that came."""
        sink = Basin()
        fetched = self.begin(sink, timeout=0.2)
        peer = await self.answered(HEAD, BODY[:-1])
        await self.until(lambda: len(sink.body) == len(BODY) - 1)
        self.assertIn("spliced", sink.ways)
        with self.assertRaises(TimedOut):
            await fetched
        self.assertEqual(await peer.end(), "reset")

    @in_reactor
    async def test_cancelled(self) -> None:
        """Who cancels it lets go of the connection."""
        sink = Basin()
        fetched = self.begin(sink)
        peer = await self.answered(HEAD, BODY[:-1])
        await self.until(lambda: "spliced" in sink.ways)
        fetched.cancel()
        with self.assertRaises(CancelledError):
            await fetched
        self.assertEqual(await peer.end(), "reset")

    @in_reactor
    async def test_reactor_ends(self) -> None:
        """It ends with its reactor, and what came is kept."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        place = Path(folder.name) / "body"
        fetched = self.begin(place)
        await self.answered(HEAD, BODY[:-1])
        await self.turns()
        self.reactor.disconnectAll()
        with self.assertRaises(PeerError):
            await fetched
        kept = place.with_name("body.part").read_bytes()
        self.assertEqual(kept, BODY[: len(kept)])

    @in_reactor
    async def test_knows_of_write_alone(self) -> None:
        """A subclass that sees what is written sees all."""

        class Counting(Basin):
            seen = 0

            def write(self, data: bytes) -> None:
                self.seen += len(data)
                super().write(data)

        sink = Counting()
        fetched = self.begin(sink)
        await self.answered(HEAD, BODY)
        await fetched
        self.assertEqual((sink.seen, sink.body), (len(BODY), BODY))

    @in_reactor
    async def test_wrapped(self) -> None:
        """So does a wrapper around the protocol."""

        class Counting(ConnectionWrapper):
            seen = 0

            def dataReceived(self, data: bytes) -> None:
                self.seen += len(data)
                super().dataReceived(data)

        sink = Basin()
        listener = self.raw_listener()
        endpoint = TCP4ClientEndpoint(self.reactor, *listener.getsockname())
        protocol = FetchProtocol(Exchange(REQUEST), lambda _: sink)
        wrapper = Counting(None, protocol)
        await endpoint.connect(Factory.forProtocol(lambda: wrapper))
        await self.say(await self.accept_from(listener), HEAD + BODY)
        await protocol.done
        self.assertEqual((wrapper.seen, sink.body), (len(HEAD + BODY), BODY))

    @in_reactor
    async def test_not_here(self) -> None:
        """Where the kernel refuses it, the body is read."""

        def refuses(*_: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "splice", refuses)
        sink = Basin()
        fetched = self.begin(sink)
        await self.answered(HEAD, BODY)
        await fetched
        self.assertEqual((sink.body, sink.ways), (BODY, ["written"]))

    @in_reactor
    async def test_refused(self) -> None:
        """What the sink raises ends it, and is what it fails with."""
        for raised in (CannotWrite("'there'", "it is full"), ZeroDivisionError()):
            sink = Basin()
            sink.raises = raised
            fetched = self.begin(sink)
            await self.answered(HEAD, BODY[: 2 * SMALLEST])
            with self.assertRaises(type(raised)):
                await fetched

    @in_reactor
    async def test_full(self) -> None:
        """A device that takes nothing is complained of."""
        fetched = self.begin("/dev/full")
        await self.answered(HEAD, BODY[: 2 * SMALLEST])
        with self.assertRaisesRegex(CannotWrite, "no space left"):
            await fetched

    @in_reactor
    async def test_paused(self) -> None:
        """As a producer it can be paused in the middle, and at the very end."""
        for seen in (SMALLEST, len(BODY)):
            await self.paused_at(seen)

    async def paused_at(self, seen: int) -> None:
        sink = Basin()
        listener = self.raw_listener()
        endpoint = TCP4ClientEndpoint(self.reactor, *listener.getsockname())
        protocol = FetchProtocol(Exchange(REQUEST), lambda _: sink)

        def pause() -> None:
            if len(sink.body) >= seen:
                protocol.pauseProducing()

        sink.then = pause
        await connect(endpoint, lambda: protocol)
        peer = await self.accept_from(listener)
        saying = Deferred.fromCoroutine(self.say(peer, HEAD + BODY))
        await self.until(lambda: len(sink.body) >= seen)
        size = len(sink.body)
        await self.turns()
        self.assertEqual(len(sink.body), size)
        self.assertFalse(protocol.done.called)
        sink.then = lambda: None
        protocol.resumeProducing()
        await protocol.done
        await saying
        self.assertEqual(sink.body, BODY)
        self.assertIn("spliced", sink.ways)

    @in_reactor
    async def test_not_spliced(self) -> None:
        """Who is to see each byte does; and short bodies and coded ones are read."""
        coded = gzip.compress(os.urandom(2 * SMALLEST))
        short = b"x" * (SMALLEST - 1)
        for body, how in (
            (BODY, {"observer": FetchObserver()}),
            (BODY, {"max_body": len(BODY)}),
            (coded, {"decompress": True}),
            (short, {}),
        ):
            sink = Basin()
            fetched = self.begin(sink, **how)
            coding = b"Content-Encoding: gzip\r\n" if body is coded else b""
            await self.answered(
                b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n"
                % (coding, len(body)),
                body,
            )
            await fetched
            self.assertEqual(
                sink.body, gzip.decompress(coded) if body is coded else body
            )
            self.assertEqual(sink.ways, ["written"])

    @in_reactor
    async def test_no_descriptors_left(self) -> None:
        """Without descriptors for it, the body is read."""
        sink = Basin()
        fetched = self.begin(sink)

        def none_left() -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.patch(os, "pipe", none_left)
        await self.answered(HEAD, BODY)
        await fetched
        self.assertEqual((sink.body, sink.ways), (BODY, ["written"]))


class TakeOutTests(SynchronousTestCase):
    """What is in a pipe gets into a file of any kind."""

    def test_appended(self) -> None:
        """splice(2) refuses one that is opened to append."""
        data = os.urandom(30_000)
        for flags in (0, os.O_APPEND):
            with tempfile.TemporaryDirectory() as folder:
                out, into = os.pipe()
                os.write(into, data)
                os.close(into)
                path = Path(folder, "file")
                number = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
                with os.fdopen(number, "wb", buffering=0) as file:
                    take_out(out, len(data), file)
                self.assertEqual(path.read_bytes(), data)
                os.close(out)


globals().update(on_both(SplicingContract))
