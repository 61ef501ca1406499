"""
The programs that people talk to a server with, and whole transfers.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trustme

from .programs import (
    PATIENCE,
    PLACE,
    Program,
    connected,
    installed,
    is_refused,
    outcome_of,
    outcomes_of,
    read_to_end,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = os.urandom(4 << 20)
NAMES = b"Michael\nTracy\nSarah\n"
GREETED = b"Welcome!\nHello, Michael!\nHello, Tracy!\nHello, Sarah!\n"


@pytest.fixture
def hello(serve: Callable[..., Program]) -> str:
    """The port of a hello service."""
    return str(serve(f"--hello={PLACE}", "--delay=0.05").port("hello"))


class Secured:
    """
    A certificate for localhost and the authority behind it, as files.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        self.authority = folder / "ca.pem"
        self._certificate = folder / "cert.pem"
        self._key = folder / "key.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        issued.cert_chain_pems[0].write_to_path(str(self._certificate))
        issued.private_key_pem.write_to_path(str(self._key))

    @property
    def place(self) -> str:
        return (
            "ssl:0:interface=127.0.0.1"
            f":privateKey={self._key}:certKey={self._certificate}"
        )


@pytest.fixture
def secured(tmp_path: Path) -> Secured:
    return Secured(tmp_path)


def test_nc(hello: str) -> None:
    """`nc -N` sends its lines, ends its side, and still gets every answer."""
    outcome = outcome_of(installed("nc"), "-N", "127.0.0.1", hello, given=NAMES)
    assert (outcome.status, outcome.out) == (0, GREETED)


def test_nc_exit(hello: str) -> None:
    """What follows `exit` is discarded, and the close ends nc."""
    outcome = outcome_of(
        installed("nc"), "127.0.0.1", hello, given=b"Michael\nexit\nTracy\n"
    )
    assert outcome.out == b"Welcome!\nHello, Michael!\n"


def test_socat(hello: str) -> None:
    """socat's lines are answered, in CRLF too."""
    outcome = outcome_of(
        installed("socat"), "-", f"TCP:127.0.0.1:{hello},crlf", given=NAMES
    )
    assert (outcome.status, outcome.out) == (0, GREETED)


def test_telnet(hello: str) -> None:
    """A telnet conversation is one of lines, and `exit` ends it."""
    process = subprocess.Popen(
        [installed("telnet"), "127.0.0.1", hello],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )
    with process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            said = b""
            for keys, answer in (
                (b"", b"Welcome!"),
                (b"Michael\n", b"Hello, Michael!\n"),
                (b"Tracy\n", b"Hello, Tracy!\n"),
            ):
                process.stdin.write(keys)
                while answer not in said:
                    part = process.stdout.read(1024)
                    assert part, said
                    said += part
            process.stdin.write(b"exit\n")
            said += process.stdout.read()
            process.wait(PATIENCE)
        finally:
            process.kill()
    assert b"Welcome!\nHello, Michael!\nHello, Tracy!\nConnection closed" in said


def test_transfers(serve: Callable[..., Program], tmp_path: Path) -> None:
    """4 MiB come back identical by nc and socat, over TCP and a unix socket."""
    path = str(tmp_path / "echo.sock")
    server = serve(f"--echo={PLACE}", f"--echo=unix:{path}")
    port = server.port("echo")
    server.await_line(f"echo listens on {path}")
    nc, socat = installed("nc"), installed("socat")
    outcomes = outcomes_of(
        [
            (nc, "-N", "127.0.0.1", str(port)),
            (nc, "-N", "-U", path),
            (socat, "-t10", "-", f"TCP:127.0.0.1:{port}"),
            (socat, "-t10", "-", f"UNIX-CONNECT:{path}"),
        ],
        DATA,
    )
    assert [outcome.out == DATA for outcome in outcomes] == [True] * 4


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """
    Send block by block, and read each before the next.
    """
    came = bytearray()
    for start in range(0, len(data), 65_536):
        connection.sendall(data[start : start + 65_536])
        while len(came) < min(start + 65_536, len(data)):
            part = connection.recv(65_536)
            if not part:
                return bytes(came)
            came += part
    return bytes(came)


def test_tls_transfer(serve: Callable[..., Program], secured: Secured) -> None:
    """4 MiB come back identical over TLS to a client that reads, then closes."""
    port = serve(f"--echo={secured.place}").port("echo")
    context = ssl.create_default_context(cafile=str(secured.authority))
    with (
        connected(port) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        assert exchange(connection, DATA) == DATA


def test_s_client(serve: Callable[..., Program], secured: Secured) -> None:
    """`openssl s_client` is greeted, and `exit` ends it."""
    port = serve(f"--hello={secured.place}", "--delay=0.05").port("hello")
    outcome = outcome_of(
        installed("openssl"),
        "s_client",
        "-quiet",
        "-verify_return_error",
        f"-CAfile={secured.authority}",
        f"-connect=localhost:{port}",
        given=b"Michael\nTracy\nexit\n",
    )
    assert outcome.out == b"Welcome!\nHello, Michael!\nHello, Tracy!\n"


@pytest.fixture
def behind_haproxy(
    start: Callable[..., Program], tmp_path: Path
) -> Callable[[int], int]:
    """Put a real haproxy, which says who connects, before a port."""

    def put_before(port: int) -> int:
        program = installed("haproxy")
        config = tmp_path / "haproxy.cfg"
        while True:
            # It cannot choose a port itself: take one that was free just now.
            with socket.create_server(("127.0.0.1", 0)) as free:
                front: int = free.getsockname()[1]
            config.write_text(
                "defaults\n mode tcp\n"
                " timeout connect 10s\n timeout client 60s\n timeout server 60s\n"
                f"frontend f\n bind 127.0.0.1:{front}\n default_backend b\n"
                f"backend b\n server s 127.0.0.1:{port} send-proxy\n"
            )
            running = start(program, "-db", "-f", str(config))
            while is_refused(front) and running.process.poll() is None:
                pass
            if running.process.poll() is None:
                return front
            assert "cannot bind" in running.log.lower(), running.log

    return put_before


def test_haproxy(
    serve: Callable[..., Program], behind_haproxy: Callable[[int], int]
) -> None:
    """
    Behind haproxy 4 MiB come back identical, and then end of file, to a client that
    half-closes; the log tells who it is.
    """

    def send(connection: socket.socket) -> None:
        connection.sendall(DATA)
        connection.shutdown(socket.SHUT_WR)

    server = serve(f"--echo=haproxy:{PLACE}")
    front = behind_haproxy(server.port("echo"))
    with connected(front) as connection, ThreadPoolExecutor(1) as sender:
        sending = sender.submit(send, connection)
        came = read_to_end(connection)
        sending.result(PATIENCE)
        mine = connection.getsockname()[1]
    assert came == DATA
    server.await_line(rf"Accept new connection from 127\.0\.0\.1:{mine}\.\.\.")
    server.await_line(rf"Connection from 127\.0\.0\.1:{mine} closed\.")


def test_haproxy_hello(
    serve: Callable[..., Program], behind_haproxy: Callable[[int], int]
) -> None:
    """Behind haproxy the conversation is the same, half-close included."""
    server = serve(f"--hello=haproxy:{PLACE}", "--delay=0.05")
    front = behind_haproxy(server.port("hello"))
    outcome = outcome_of(installed("nc"), "-N", "127.0.0.1", str(front), given=NAMES)
    assert outcome.out == GREETED
