"""
Half an hour of mixed company, after which the services have the memory they had.

    python scripts/soak.py [--seconds N]

Clients of every kind come and go at a moderate pace: those that talk, that send and
read much, that leave at once, reset, dawdle, never read, say nothing, are refused,
hide behind a proxy, break TLS off, or send datagrams. The exit status is 1 if a
bound was broken. Linux: it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import ssl
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from servers import (
    KIB,
    LOOPBACK,
    MIB,
    PLACE,
    Row,
    Server,
    certificate_files,
    echoes,
    is_until,
    print_rows,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

UDP_PLACE = f"udp:0:interface={LOOPBACK}"
STALLED = 5
IDLE = 10
WARM_SECONDS = 60.0
"""After so long every kind of client has been there many times."""

SAMPLED_SECONDS = 20.0
"""Memory moves with who is there: the middle of so long is what counts."""

EARLIER = 2 * MIB
"""What the memory may be above what it was after the first minute."""


class Crowd:
    """
    Who comes, and what became of it.

    Args:
        server: serves them.
        ca: the file of the authority that its TLS place trusts.
    """

    def __init__(self, server: Server, ca: str) -> None:
        self._hello = server.port("hello")
        self._echo, self._tls, self._proxied = server.ports("echo", 3)
        self._udp = server.port("udp")
        self._context = ssl.create_default_context(cafile=ca)
        self._data = os.urandom(256 * KIB)
        self._random = random.Random(7)  # noqa: S311 - no secrets
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.connections = 0
        self.messages = 0

    def kinds(self) -> list[tuple[float, Callable[[], Awaitable[bool]]]]:
        """How many of each kind come a second."""
        return [
            (8, self.talks),
            (6, self.sends_much),
            (10, self.leaves_at_once),
            (6, self.resets),
            (1, self.reads_slowly),
            (1, self.never_reads),
            (1, self.says_nothing),
            (4, self.is_denied),
            (4, self.is_proxied),
            (2, self.uses_tls),
            (2, self.breaks_tls_off),
            (30, self.sends_a_datagram),
        ]

    async def come(self, until: float) -> None:
        """Have all kinds come until then, and wait for the last."""
        async with asyncio.TaskGroup() as group:
            for a_second, kind in self.kinds():
                group.create_task(self._come(until, a_second, kind))

    async def _come(
        self, until: float, a_second: float, kind: Callable[[], Awaitable[bool]]
    ) -> None:
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < until:
                group.create_task(self._one(kind))
                await asyncio.sleep(self._random.expovariate(a_second))

    async def _one(self, kind: Callable[[], Awaitable[bool]]) -> None:
        name = kind.__name__.replace("_", " ")
        try:
            async with asyncio.timeout(60):
                well = await kind()
        except (OSError, EOFError, TimeoutError) as error:
            self.wrong[f"{name}: {type(error).__name__}"] += 1
            return
        if well:
            self.done[name] += 1
        else:
            self.wrong[name] += 1

    async def _open(
        self, port: int, source: str = LOOPBACK, *, secure: bool = False
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connections += 1
        return await asyncio.open_connection(
            LOOPBACK,
            port,
            ssl=self._context if secure else None,
            local_addr=(source, 0),
            limit=4 * KIB,
        )

    # The kinds. Each tells whether it went as it should.

    async def talks(self) -> bool:
        reader, writer = await self._open(self._hello)
        with contextlib.closing(writer):
            well = await reader.readline() == b"Welcome!\n"
            for name in (b"Michael", b"Tracy", b"Sarah"):
                writer.write(name + b"\n")
                well &= await reader.readline() == b"Hello, " + name + b"!\n"
                self.messages += 1
            writer.write(b"exit\n")
            return well and await reader.read() == b""

    async def sends_much(self) -> bool:
        data = self._data[: self._random.randrange(1, len(self._data))]
        reader, writer = await self._open(self._echo)
        with contextlib.closing(writer):
            writer.write(data)
            writer.write_eof()
            self.messages += 1
            return await reader.read(-1) == data

    async def leaves_at_once(self) -> bool:
        port = self._random.choice((self._hello, self._echo, self._proxied))
        _, writer = await self._open(port)
        writer.close()
        return True

    async def resets(self) -> bool:
        port = self._random.choice((self._hello, self._echo, self._tls))
        _, writer = await self._open(port)
        writer.write(b"Micha" if self._random.random() < 0.5 else self._data)
        await asyncio.sleep(self._random.random() / 10)
        raw: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # the server was first, as TLS may be
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return True

    async def reads_slowly(self) -> bool:
        """Take 2 s for each piece of what the kernel does not hold."""
        reader, writer = await self._open(self._echo)
        with contextlib.closing(writer):
            writer.write(self._data)
            writer.write_eof()
            came = bytearray()
            for _ in range(8):
                came += await reader.read(4 * KIB)
                await asyncio.sleep(2)
            came += await reader.read(-1)
            return bytes(came) == self._data

    async def never_reads(self) -> bool:
        """Ask for more than fits, and be cut off."""
        self.connections += 1
        loop = asyncio.get_running_loop()
        with socket.socket() as raw:
            raw.setblocking(False)
            await loop.sock_connect(raw, (LOOPBACK, self._echo))
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                while True:
                    await loop.sock_sendall(raw, self._data)
        return True

    async def says_nothing(self) -> bool:
        """Be told the end once one was idle for long enough."""
        began = time.monotonic()
        reader, writer = await self._open(self._echo)
        with contextlib.closing(writer):
            ended = await reader.read() == b""
            seconds = time.monotonic() - began
            if not IDLE - 1 < seconds < IDLE + 3:
                self.wrong[f"ended after {seconds:.1f} s of silence"] += 1
            return ended

    async def is_denied(self) -> bool:
        try:
            reader, writer = await self._open(self._hello, "127.9.0.1")
        except ConnectionResetError:
            return True
        with contextlib.closing(writer):
            try:
                return await reader.read() == b""
            except ConnectionResetError:
                return True

    async def is_proxied(self) -> bool:
        peer = f"198.51.{self._random.randrange(256)}.{self._random.randrange(256)}"
        reader, writer = await self._open(self._proxied)
        with contextlib.closing(writer):
            writer.write(f"PROXY TCP4 {peer} {LOOPBACK} 5000 80\r\nthere?".encode())
            writer.write_eof()
            self.messages += 1
            return await reader.read() == b"there?"

    async def uses_tls(self) -> bool:
        data = self._data[: self._random.randrange(1, len(self._data))]
        reader, writer = await self._open(self._tls, secure=True)
        with contextlib.closing(writer):
            writer.write(data)
            self.messages += 1
            return await reader.readexactly(len(data)) == data

    async def breaks_tls_off(self) -> bool:
        _, writer = await self._open(self._tls)
        # The head of a record of 256 bytes, and some of it.
        writer.write(b"\x16\x03\x01\x01\x00\x01" + bytes(20))
        await asyncio.sleep(self._random.random())
        writer.close()
        return True

    async def sends_a_datagram(self) -> bool:
        source = f"127.1.{self._random.randrange(256)}.{self._random.randrange(1, 255)}"
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as raw:
            raw.setblocking(False)
            raw.bind((source, 0))
            await loop.sock_connect(raw, (LOOPBACK, self._udp))
            await loop.sock_sendall(raw, b"Anna")
            self.messages += 1
            return await loop.sock_recv(raw, KIB) == b"Hello, Anna!"


class Watch:
    """
    The memory and descriptors of a server, each second.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._began = time.monotonic()
        self._samples: list[tuple[float, int, int, int]] = []

    async def look(self) -> None:
        """Look for ever."""
        server = self._server
        while True:
            at = time.monotonic() - self._began
            self._samples.append(
                (at, server.resident, server.private, server.open_files)
            )
            await asyncio.sleep(1)

    def around(self, at: float) -> tuple[float, float, float]:
        """Tell the medians of what was seen in the seconds before."""
        seen = [s[1:] for s in self._samples if at - SAMPLED_SECONDS < s[0] <= at]
        resident, private, files = (
            statistics.median(each) for each in zip(*seen, strict=True)
        )
        return resident, private, files

    @property
    def end(self) -> float:
        return self._samples[-1][0]

    def curve(self, count: int) -> str:
        """Spell the private memory at so many times, in MiB."""
        step = (self.end - WARM_SECONDS) / max(1, count - 1)
        return ", ".join(
            f"{self.around(WARM_SECONDS + step * number)[1] / MIB:.1f}"
            for number in range(count)
        )


def soak(seconds: float) -> Iterator[Row]:
    """
    Serve the crowd, and compare the memory with that after the first minute.
    """
    with tempfile.TemporaryDirectory() as name:
        ca, certificate, key = certificate_files(Path(name))
        options = (
            f"--hello={PLACE}",
            f"--echo={PLACE}",
            f"--echo=ssl:0:interface={LOOPBACK}:privateKey={key}:certKey={certificate}",
            f"--echo=haproxy:{PLACE}",
            f"--udp={UDP_PLACE}",
            "--framing=line",
            "--delay=0.2",
            f"--idle={IDLE}",
            f"--stalled={STALLED}",
            "--deny=127.9.0.0/16",
            "--max-per-peer=5000",
            "--rate=50M",
            "--total-rate=200M",
            "--udp-rate=100",
            "--udp-total-rate=5000",
        )
        with Server(*options) as server:
            crowd = Crowd(server, ca)
            echo = server.port("echo")
            echoes(echo)
            files_before = server.open_files
            watch = Watch(server)

            async def serve() -> None:
                looking = asyncio.create_task(watch.look())
                await crowd.come(time.monotonic() + seconds)
                looking.cancel()

            asyncio.run(serve())
            first, last = watch.around(WARM_SECONDS), watch.around(seconds)
            given_back = is_until(
                time.monotonic() + 5, lambda: server.open_files <= files_before
            )
            yield from _rows(crowd, watch, first, last)
            yield Row(
                "soak, afterwards",
                f"{server.open_files} files open of {files_before} before,"
                f" {server.log.count('Traceback')} tracebacks",
                f"{files_before}, none, still served",
                given_back and server.is_clean and echoes(echo),
            )


def _rows(
    crowd: Crowd,
    watch: Watch,
    first: tuple[float, float, float],
    last: tuple[float, float, float],
) -> Iterator[Row]:
    served = sum(crowd.done.values())
    wrong = sum(crowd.wrong.values())
    print(f"  done: {dict(crowd.done)}", file=sys.stderr)
    print(f"  wrong: {dict(crowd.wrong)}", file=sys.stderr)
    yield Row(
        f"soak {watch.end / 60:.0f} min, memory",
        f"after the first minute {first[0] / MIB:.1f} MiB"
        f" ({first[1] / MIB:.1f} private), at the end {last[0] / MIB:.1f}"
        f" ({last[1] / MIB:.1f}); private between: {watch.curve(7)}",
        "+ 2 MiB",
        all(
            now <= then + EARLIER for now, then in zip(last[:2], first[:2], strict=True)
        ),
    )
    yield Row(
        "soak, load",
        f"{crowd.connections} connections, {crowd.messages} messages;"
        f" {served} went as they should, {wrong} did not",
        "0 did not",
        not wrong,
    )


def main() -> int:
    """
    Soak for as long as was asked for; return the exit status.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=1800, help="how long (1800)")
    seconds = parser.parse_args().seconds
    if seconds < WARM_SECONDS + SAMPLED_SECONDS:
        parser.error(f"at least {WARM_SECONDS + SAMPLED_SECONDS:g} seconds")
    return print_rows(soak(seconds))


if __name__ == "__main__":
    sys.exit(main())
