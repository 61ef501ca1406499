"""
Holds the services up to what they promise, on a scale that is too slow for the tests.

    python scripts/hold_up.py [--only NAME]

Each run starts real servers on loopback, and prints what was measured beside its
bound. The exit status is 1 if a bound was broken. Linux: it reads /proc.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from servers import (
    A_CONNECTION,
    KIB,
    LOOPBACK,
    MIB,
    PATIENCE,
    PLACE,
    SERVE,
    TWISTD,
    WITH_TLS,
    Row,
    Server,
    certificate_files,
    connected,
    echoes,
    is_until,
    read_to_end,
    reset,
    run_named,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Whole transfers


def send_and_read(
    connection: socket.socket, data: bytes, *, head: bytes = b""
) -> bytes:
    """
    Send, and meanwhile read as many bytes; close only then.
    """

    def read() -> bytes:
        came = bytearray()
        while len(came) < len(data) and (part := connection.recv(MIB)):
            came += part
        return bytes(came)

    with connection, ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read)
        connection.sendall(head + data)
        return coming.result(PATIENCE)


def send_and_read_tls(connection: ssl.SSLSocket, data: bytes) -> bytes:
    """
    The same over TLS: one thread, since OpenSSL takes no two at once.
    """
    came = bytearray()
    view = memoryview(data)
    connection.setblocking(False)
    with connection, selectors.DefaultSelector() as ready:
        events = selectors.EVENT_READ | selectors.EVENT_WRITE
        ready.register(connection, events)
        while len(came) < len(data):
            if not ready.select(PATIENCE):
                break
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if view:
                    view = view[connection.send(view[: 64 * KIB]) :]
                    if not view:
                        ready.modify(connection, selectors.EVENT_READ)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                while part := connection.recv(MIB):
                    came += part
                break
    return bytes(came)


def transfer() -> Iterator[Row]:
    """
    64 MiB come back as they were sent, through every program and transport.
    """
    data = os.urandom(64 * MIB)

    def timed(name: str, carry: Callable[[], bytes], server: Server) -> Row:
        began = time.monotonic()
        identical = carry() == data
        seconds = time.monotonic() - began
        word = "identical" if identical else "DIFFERENT"
        return Row(
            f"transfer {name}",
            f"{word}, {64 / seconds:.0f} MiB/s",
            "identical",
            identical and server.is_clean,
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "data"
        source.write_bytes(data)
        unix = str(folder / "echo.sock")
        ca, certificate, key = certificate_files(folder)

        def through(*command: str) -> bytes:
            with source.open("rb") as file:
                return subprocess.run(
                    command,
                    stdin=file,
                    capture_output=True,
                    timeout=PATIENCE,
                    check=False,
                ).stdout

        with Server(f"--echo={PLACE}", f"--echo=unix:{unix}") as server:
            port = str(server.port("echo"))
            server.await_line(re.escape(unix))
            programs: dict[str, tuple[str, ...]] = {
                "nc -N, TCP": ("nc", "-N", LOOPBACK, port),
                "socat, TCP": ("socat", "-t30", "-", f"TCP:{LOOPBACK}:{port}"),
                "nc -N, unix": ("nc", "-N", "-U", unix),
                "socat, unix": ("socat", "-t30", "-", f"UNIX-CONNECT:{unix}"),
            }
            for what, command in programs.items():
                if shutil.which(command[0]):
                    yield timed(what, lambda c=command: through(*c), server)  # type: ignore[misc]
                else:
                    yield Row(f"transfer {what}", "not installed", "identical", ok=True)
        tls = f"ssl:0:interface={LOOPBACK}:privateKey={key}:certKey={certificate}"
        with Server(f"--echo={tls}") as server:
            context = ssl.create_default_context(cafile=ca)
            raw = connected(server.port("echo"))
            secure = context.wrap_socket(raw, server_hostname="localhost")
            yield timed("TLS", lambda: send_and_read_tls(secure, data), server)
        with Server(f"--echo=haproxy:{PLACE}") as server:
            raw = connected(server.port("echo"))
            head = f"PROXY TCP4 192.0.2.1 {LOOPBACK} 5000 80\r\n".encode()
            yield timed("haproxy:", lambda: send_and_read(raw, data, head=head), server)


# Memory


class Flood:
    """
    Clients that send for ever and never read, in a thread of their own.

    Args:
        connections: theirs; closed in the end.
        data: what each of them repeats.
        pieces: bytes that are sent at once.
    """

    def __init__(
        self, connections: list[socket.socket], data: bytes, pieces: int
    ) -> None:
        self._connections = connections
        self._data = data[:pieces] if pieces < len(data) else data
        self._over = False
        self.bytes_sent = 0
        self._last_sent = time.monotonic()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        for connection in self._connections:
            connection.close()

    @property
    def is_stuck(self) -> bool:
        """Whether nobody has taken a byte for two seconds."""
        return time.monotonic() - self._last_sent > 2

    def _send(self) -> None:
        with selectors.DefaultSelector() as ready:
            for connection in self._connections:
                connection.setblocking(False)
                ready.register(connection, selectors.EVENT_WRITE)
            while not self._over:
                for key, _ in ready.select(0.1):
                    assert isinstance(key.fileobj, socket.socket)
                    self._send_one(ready, key.fileobj)

    def _send_one(
        self, ready: selectors.BaseSelector, connection: socket.socket
    ) -> None:
        try:
            sent = connection.send(self._data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError:
            ready.unregister(connection)
            return
        self.bytes_sent += sent
        self._last_sent = time.monotonic()


@dataclass(frozen=True, slots=True)
class Memory:
    """
    One case of the memory run: who is flooded with what.
    """

    name: str
    service: str
    options: tuple[str, ...] = ()
    data: bytes = b"a" * 64 * KIB
    pieces: int = 64 * KIB
    delay: float = 0.0
    secure: bool = False
    bound: int = A_CONNECTION


FLOODERS = 100
LETTERS = b"a\n" * (32 * KIB)

MEMORY = (
    Memory("echo", "echo"),
    Memory("echo, TLS", "echo", secure=True, bound=WITH_TLS),
    *(
        Memory(
            f"hello auto, delay {delay:g}, TLS",
            "hello",
            (f"--delay={delay:g}",),
            data=LETTERS,
            delay=delay,
            secure=True,
            bound=WITH_TLS,
        )
        for delay in (1.0, 0.0)
    ),
    *(
        Memory(
            f"hello {framing}, delay {delay:g}{more}",
            "hello",
            (f"--framing={framing}", f"--delay={delay:g}"),
            data=data,
            pieces=pieces,
            delay=delay,
        )
        for delay in (1.0, 0.0)
        for framing, data, pieces, more in (
            ("line", LETTERS, len(LETTERS), ""),
            ("auto", LETTERS, len(LETTERS), ""),
            ("chunk", LETTERS, len(LETTERS), ""),
            ("chunk", LETTERS, 1, ", bytes one by one"),
            ("netstring", b"1:a," * (16 * KIB), 64 * KIB, ""),
        )
    ),
)


def served_in(port: int, case: Memory, context: ssl.SSLContext | None) -> float:
    """
    Measure how long one polite client waits, beyond the delay.
    """
    began = time.monotonic()
    connection = connected(port)
    if context is not None:
        connection = context.wrap_socket(connection, server_hostname="localhost")
    with connection:
        asked = b"4:Anna," if "netstring" in case.name else b"Anna\n"
        connection.sendall(asked)
        came = b""
        while b"Anna" not in came and (part := connection.recv(KIB)):
            came += part
    return time.monotonic() - began - case.delay if b"Anna" in came else PATIENCE


def memory() -> Iterator[Row]:
    """
    Clients that send and never read cost little, and hold up nobody else.
    """
    with tempfile.TemporaryDirectory() as name:
        ca, certificate, key = certificate_files(Path(name))
        tls = f"ssl:0:interface={LOOPBACK}:privateKey={key}:certKey={certificate}"
        for case in MEMORY:
            place = tls if case.secure else PLACE
            with Server(f"--{case.service}={place}", *case.options) as server:
                context = ssl.create_default_context(cafile=ca) if case.secure else None
                try:
                    yield flooded(server, case, context)
                except OSError as error:
                    yield Row(f"memory {case.name}", repr(error), "served", ok=False)


def flooded(server: Server, case: Memory, context: ssl.SSLContext | None) -> Row:
    """
    Flood one server until it takes no more, or for some seconds.
    """
    port = server.port(case.service)
    served_in(port, case, context)
    before = highest = server.resident
    connections = []
    for _ in range(FLOODERS):
        connection = connected(port)
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname="localhost")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections.append(connection)
    slowest = 0.0
    with Flood(connections, case.data, case.pieces) as flood:
        deadline = time.monotonic() + 12
        while time.monotonic() < deadline and not flood.is_stuck:
            slowest = max(slowest, served_in(port, case, context))
            highest = max(highest, server.resident)
            time.sleep(0.1)
        sent = flood.bytes_sent
    each = (highest - before) / FLOODERS / KIB
    return Row(
        f"memory {case.name}",
        f"{each:.0f} KiB each ({sent / MIB:.0f} MiB taken),"
        f" another served in {slowest:.2f} s",
        f"{case.bound} KiB, 1 s",
        each <= case.bound and slowest <= 1 and server.is_clean,
    )


# Many connections


def idle() -> Iterator[Row]:
    """
    5,000 idle connections and 2,000 that reset leave it serving.
    """
    with Server(f"--echo={PLACE}") as server, contextlib.ExitStack() as open_ones:
        port = server.port("echo")
        echoes(port)
        before = server.resident
        idlers = [open_ones.enter_context(connected(port)) for _ in range(5_000)]
        served = echoes(port)
        each = (server.resident - before) / len(idlers) / KIB
        for _ in range(2_000):
            reset(connected(port))
        began = time.monotonic()
        served = echoes(port) and served
        seconds = time.monotonic() - began
        idlers[0].sendall(b"awake")
        served = idlers[0].recv(KIB) == b"awake" and served
        yield Row(
            "idle 5,000, reset 2,000",
            f"{each:.1f} KiB each, then served in {seconds:.2f} s",
            "32 KiB, 1 s, no traceback",
            each <= 32 and served and seconds <= 1 and server.is_clean,
        )


# Stopping


def slowly_echoed(port: int, data: bytes, sending: threading.Barrier) -> bool:
    """
    Echo some MiB with a reader that takes its time; tell whether all came back.
    """
    with connected(port) as connection:

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        with ThreadPoolExecutor(1) as sender:
            sent = sender.submit(send)
            came = bytearray(connection.recv(64 * KIB))
            sending.wait(PATIENCE)
            while part := connection.recv(64 * KIB):
                came += part
                time.sleep(0.01)
            sent.result(PATIENCE)
    return bytes(came) == data


def greeted(port: int, name: bytes, sending: threading.Barrier) -> bool:
    """
    Say a name and leave the sending side open; tell whether it was answered.
    """
    with connected(port) as connection:
        came = connection.recv(KIB)
        connection.sendall(name + b"\n")
        sending.wait(PATIENCE)
        came += read_to_end(connection)
    return came == b"Welcome!\nHello, " + name + b"!\n"


def refused_after(port: int) -> float:
    """
    Measure how long a port still takes connections.
    """
    began = time.monotonic()

    def refuses() -> bool:
        try:
            connected(port, 1).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False

    is_until(began + 10, refuses)
    return time.monotonic() - began


def stop() -> Iterator[Row]:
    """
    SIGTERM amid 50 transfers and 50 answers loses none of them.
    """
    for name, command, status in (
        ("serve", SERVE, 0),
        ("twistd", TWISTD, -signal.SIGTERM),
    ):
        options = (
            f"--echo={PLACE}",
            f"--hello={PLACE}",
            "--delay=2",
            "--drain=30",
        )
        with Server(*options, command=command) as server:
            echo, hello = server.port("echo"), server.port("hello")
            data = os.urandom(4 * MIB)
            # The last at the barrier is we: all have begun, none is done.
            sending = threading.Barrier(101)
            with ThreadPoolExecutor(100) as clients:
                transfers = [
                    clients.submit(slowly_echoed, echo, data, sending)
                    for _ in range(50)
                ]
                answers = [
                    clients.submit(greeted, hello, b"client %d" % number, sending)
                    for number in range(50)
                ]
                sending.wait(PATIENCE)
                server.process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                refused = max(refused_after(echo), refused_after(hello))
                whole = sum(map(_result, transfers))
                answered = sum(map(_result, answers))
            try:
                ended = server.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                ended = None
            seconds = time.monotonic() - began
            yield Row(
                f"stop {name}",
                f"{whole} transfers, {answered} answers, refused after {refused:.2f} s,"
                f" status {ended} after {seconds:.1f} s",
                f"50, 50, 0.5 s, {int(status)}",
                (whole, answered, ended) == (50, 50, status)
                and refused <= 0.5
                and server.is_clean,
            )


def _result(future: object) -> bool:
    try:
        return bool(future.result(PATIENCE))  # type: ignore[attr-defined]
    except (OSError, threading.BrokenBarrierError, TimeoutError) as error:
        print(f"  a client: {error!r}", file=sys.stderr)
        return False


RUNS = {
    "transfer": transfer,
    "memory": memory,
    "idle": idle,
    "stop": stop,
}


if __name__ == "__main__":
    sys.exit(run_named(RUNS, __doc__.split("\n\n")[0].strip()))
