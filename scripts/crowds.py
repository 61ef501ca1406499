"""
Crowds of clients, and how a server bears them.

What the fault runs beside this share. Linux: all of 127.0.0.0/8 is this machine.
"""

from __future__ import annotations

import contextlib
import errno
import select
import selectors
import socket
import ssl
import subprocess
import sys
import time
from itertools import cycle
from typing import TYPE_CHECKING, Self

from servers import KIB, LOOPBACK, PATIENCE, connected, echoes, is_until, reset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servers import Server

__all__ = [
    "Crowd",
    "Gone",
    "Meanwhile",
    "addresses",
    "all_given_back",
    "dribble",
    "files_at_rest",
    "first_flight",
    "is_over",
    "proxy_v1",
    "proxy_v2",
    "reset_all",
    "rush",
    "service_milliseconds",
    "sip",
    "told",
]

IP_BIND_ADDRESS_NO_PORT = 24
"""The kernel chooses the port when it connects (ip(7)); Python 3.12 has the name."""


class Gone(Exception):
    """
    The server has ended a connection.
    """


def addresses(count: int, network: str = "127.1") -> list[str]:
    """
    Make up so many addresses of this machine's: `127.1.0.1`, ...
    """
    return [f"{network}.{number // 250}.{number % 250 + 1}" for number in range(count)]


class Crowd:
    """
    Connected clients, in the order in which they came; closed in the end.

    Args:
        port: where they connect.
        count: how many.
        sources: the addresses from which they come, by turns.
        reads: bytes of each one's receive buffer; the kernel's choice by default.
        far: with segments as on a network. Loopback's are 64 KiB, and the kernel's
            buffers are a multiple of them.
    """

    def __init__(
        self,
        port: int,
        count: int,
        *,
        sources: Iterable[str] = (LOOPBACK,),
        reads: int | None = None,
        far: bool = False,
    ) -> None:
        self.clients: list[socket.socket] = []
        for source, _ in zip(cycle(sources), range(count), strict=False):
            client = socket.socket()
            self.clients.append(client)
            if reads is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, reads)
            if far:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)
            client.settimeout(PATIENCE)
            # Its port may be another's, too, that has gone from another server.
            client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            client.bind((source, 0))
            client.connect((LOOPBACK, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all."""
        for client in self.clients:
            client.close()

    def say(self, data: bytes) -> int:
        """Send from each; tell from how many it went."""
        went = 0
        for client in self.clients:
            with contextlib.suppress(OSError):
                client.sendall(data)
                went += 1
        return went

    def hear(self, data: bytes, seconds: float = PATIENCE) -> int:
        """Read from each; tell how many got just that, as far as it is long."""
        return sum(told(client, len(data), seconds) == data for client in self.clients)

    def nonblocking(self) -> Self:
        """Have none wait."""
        for client in self.clients:
            client.setblocking(False)
        return self


class Meanwhile:
    """
    Another client of an echo, again and again, in a process that does nothing else.

    Attributes:
        worst: how many milliseconds one waited, in the end.
    """

    def __init__(self, port: int) -> None:
        self.worst = PATIENCE * 1000
        self._asking = subprocess.Popen(
            [sys.executable, __file__, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        assert self._asking.stdout is not None
        self._asking.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        said, _error = self._asking.communicate()
        self.worst = float(said)


def ask_again_and_again(port: int) -> None:
    """
    Be that process, until the standard input ends.
    """
    print("ready", flush=True)
    worst = service_milliseconds(port, 1)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        worst = max(worst, service_milliseconds(port, 1))
    print(worst)


def told(client: socket.socket, size: int, seconds: float = PATIENCE) -> bytes | None:
    """
    Read so many bytes, or fewer before end of file; None for a reset.
    """
    came = b""
    client.settimeout(seconds)
    try:
        while len(came) < size and (part := client.recv(size - len(came))):
            came += part
    except ConnectionResetError:
        return None
    except TimeoutError:
        pass
    return came


def is_over(client: socket.socket) -> bool:
    """
    Tell whether the server has ended a connection; what it said before is dropped.
    """
    client.setblocking(False)
    try:
        while client.recv(64 * KIB):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def dribble(client: socket.socket, data: bytes) -> int:
    """
    Send what goes without waiting.

    Raises:
        Gone: the connection is over.
    """
    try:
        return client.send(data)
    except BlockingIOError:
        return 0
    except OSError as error:
        raise Gone from error


def sip(client: socket.socket, size: int) -> int:
    """
    Read what is there, up to so much.

    Raises:
        Gone: the connection is over.
    """
    try:
        came = client.recv(size)
    except BlockingIOError:
        return 0
    except OSError as error:
        raise Gone from error
    if not came:
        raise Gone
    return len(came)


def reset_all(clients: Iterable[socket.socket]) -> None:
    """
    Close each with a reset.
    """
    for client in clients:
        with contextlib.suppress(OSError):
            reset(client)


def service_milliseconds(port: int, times: int = 20) -> float:
    """
    Measure how long a new client waits for its echo, at worst.
    """
    worst = 0.0
    for _ in range(times):
        began = time.monotonic()
        if not echoes(port, 5):
            return PATIENCE * 1000
        worst = max(worst, time.monotonic() - began)
    return worst * 1000


def all_given_back(server: Server, files: int, seconds: float = 10) -> bool:
    """
    Wait until a server has no more files open than that.
    """
    return is_until(time.monotonic() + seconds, lambda: server.open_files <= files)


def files_at_rest(server: Server, port: int) -> int:
    """
    Tell how many files a server has open once it has served somebody.
    """
    connected(port).close()
    time.sleep(0.3)
    return server.open_files


def rush(port: int, count: int, sources: Iterable[str]) -> Iterator[socket.socket]:
    """
    Connect so many all at once; give them in the order in which they connected.

    Those that were reset meanwhile are given, too; their error waits on them.
    """
    with selectors.DefaultSelector() as ready:
        for source, _ in zip(cycle(sources), range(count), strict=False):
            client = socket.socket()
            client.bind((source, 0))
            client.setblocking(False)
            code = client.connect_ex((LOOPBACK, port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, "connect")
            ready.register(client, selectors.EVENT_WRITE)
        while ready.get_map():
            events = ready.select(PATIENCE)
            if not events:
                raise TimeoutError
            for key, _ in events:
                assert isinstance(key.fileobj, socket.socket)
                ready.unregister(key.fileobj)
                yield key.fileobj


def first_flight(context: ssl.SSLContext) -> bytes:
    """
    Make a TLS client's first flight, for localhost.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def proxy_v1(source: str) -> bytes:
    """
    Spell the header of the PROXY protocol, version 1.
    """
    kind, target = ("TCP6", "::1") if ":" in source else ("TCP4", LOOPBACK)
    return f"PROXY {kind} {source} {target} 5000 80\r\n".encode()


def proxy_v2(source: str) -> bytes:
    """
    The same, version 2.
    """
    kind, target = (
        (socket.AF_INET6, "::1") if ":" in source else (socket.AF_INET, LOOPBACK)
    )
    family = b"\x21" if kind == socket.AF_INET6 else b"\x11"
    body = socket.inet_pton(kind, source) + socket.inet_pton(kind, target)
    body += (5000).to_bytes(2, "big") + (80).to_bytes(2, "big")
    size = len(body).to_bytes(2, "big")
    return b"\r\n\r\n\0\r\nQUIT\n\x21" + family + size + body


if __name__ == "__main__":
    ask_again_and_again(int(sys.argv[1]))
