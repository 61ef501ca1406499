"""
The limits, on a real process and real sockets.
"""

from __future__ import annotations

import resource
import signal
import socket
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from .programs import (
    PATIENCE,
    PLACE,
    SERVE,
    connected,
    read_exactly,
    read_to_end,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .programs import Program

GREETING = b"Welcome!"


@contextmanager
def visitors(port: int, hosts: Iterable[str]) -> Iterator[list[bool]]:
    """
    Connect from each of these addresses of this machine's, and tell for each
    whether it is greeted; else it is reset, maybe before we see it connected.
    """
    with ExitStack() as connections:
        came: list[socket.socket | None] = []
        for host in hosts:
            try:
                one = socket.create_connection(("127.0.0.1", port), PATIENCE, (host, 0))
            except ConnectionResetError:
                came.append(None)
            else:
                came.append(connections.enter_context(one))
        yield [each is not None and is_served(each) for each in came]


def is_served(connection: socket.socket) -> bool:
    """Tell whether the connection is greeted; else it is reset."""
    try:
        return read_exactly(connection, len(GREETING)) == GREETING
    except ConnectionResetError:
        return False


def test_admission(serve: Callable[..., Program]) -> None:
    """
    Connections above the limits, and those of a network that is denied, are
    reset; when others have gone there is room again.
    """
    server = serve(
        f"--hello={PLACE}",
        "--max-connections=4",
        "--max-per-peer=2",
        "--deny=127.0.9.0/24",
    )
    port = server.port("hello")
    hosts = ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.9.1")
    others = [f"127.0.1.{n}" for n in range(1, 4)]
    with visitors(port, hosts) as came, visitors(port, others) as more:
        assert came == [True, True, False, True, False]
        assert more == [True, False, False]
    until(lambda: server.log.count(" closed.") == 4, "four closed")
    with connected(port) as again:
        assert is_served(again)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    for line in (
        "above 2 of one peer (--max-per-peer)",
        "from networks that are denied (--deny)",
        "above 4 in all (--max-connections)",
    ):
        assert line in server.log


def test_refusal(serve: Callable[..., Program]) -> None:
    """A refused peer may be told so, whatever it has sent already."""
    server = serve(f"--echo={PLACE}", "--allow=127.0.0.1", r"--refusal=not you\r\n")
    port = server.port("echo")
    other = ("127.0.0.2", 0)
    with socket.create_connection(("127.0.0.1", port), PATIENCE, other) as refused:
        refused.sendall(b"x" * 10_000)
        assert read_to_end(refused) == b"not you\r\n"
    with connected(port) as allowed:
        allowed.sendall(b"hello")
        assert read_exactly(allowed, 5) == b"hello"


def test_idle(serve: Callable[..., Program]) -> None:
    """Who is silent gets end of file; who waits for a delayed answer is not."""
    server = serve(f"--hello={PLACE}", "--framing=line", "--delay=1", "--idle=0.4")
    with connected(server.port("hello")) as client:
        began = time.monotonic()
        client.sendall(b"Eva\n")
        assert read_to_end(client) == b"Welcome!\nHello, Eva!\n"
        assert time.monotonic() - began > 1.3
    server.await_line(r"closed\. .*idle for 0\.4 s\)")


def test_stalled(serve: Callable[..., Program]) -> None:
    """Who takes nothing of what it is owed is reset."""
    server = serve(f"--echo={PLACE}", "--stalled=0.4")
    with (
        connected(server.port("echo")) as client,
        pytest.raises((ConnectionResetError, BrokenPipeError)),
    ):
        client.sendall(bytes(64 << 20))  # more than all buffers between us hold
    server.await_line(r"closed\. .*it took nothing for 0\.4 s\)")


def test_files(start: Callable[..., Program]) -> None:
    """A crowd beyond the limit of open files does not reach it."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    server = start(*SERVE, f"--hello={PLACE}", before=limit)
    port = server.port("hello")
    room = int(server.await_line(r"is 128: (\d+) connections are served")[1])
    with visitors(port, ["127.0.0.1"] * 300) as crowd:
        assert sum(crowd) == room
    until(lambda: server.log.count(" closed.") == room, "all closed")
    with connected(port) as again:
        assert is_served(again)
    assert "Too many open files" not in server.log
    assert "Traceback" not in server.log


def test_systemd(serve: Callable[..., Program], systemd: socket.socket) -> None:
    """systemd hears that the service is ready, and when it begins to stop."""
    server = serve(f"--hello={PLACE}")
    assert systemd.recv(1000).startswith(b"READY=1\n")
    assert server.port("hello")
    server.signal(signal.SIGTERM)
    assert b"EXTEND_TIMEOUT_USEC=15000000" in systemd.recv(1000)
    assert server.wait() == 0
