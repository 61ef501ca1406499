"""
`sockproto fetch` as people run it, against a real nginx and against broken servers.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from .programs import (
    PATIENCE,
    SOCKPROTO,
    Outcome,
    Peer,
    Program,
    installed,
    is_refused,
    outcome_of,
    read_to_end,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = os.urandom(3 << 20)

CONFIG = """\
{user}
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/tmp;
    proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp;
    uwsgi_temp_path {folder}/tmp;
    scgi_temp_path {folder}/tmp;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    server {{
        listen 127.0.0.1:{port} default_server;
        listen 127.0.0.1:{tls_port} ssl default_server;
        root {folder}/root;
        location /chunked/ {{
            alias {folder}/root/;
            ssi on;  # rewritten on its way, so its length is not known
            ssi_types *;
        }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name other;
        location / {{ return 200 "the other"; }}
    }}
}}
"""


class Nginx:
    """
    A running nginx: its addresses, and the authority of its certificate.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "ca.pem"
        program = installed("nginx")
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(str(self.authority))
        issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        (folder / "root").mkdir()
        (folder / "root" / "data.bin").write_bytes(DATA)
        (folder / "root" / "empty").touch()
        while True:
            # It cannot choose ports itself: take some that were free just now.
            with (
                socket.create_server(("127.0.0.1", 0)) as one,
                socket.create_server(("127.0.0.1", 0)) as two,
            ):
                self.port: int = one.getsockname()[1]
                self.tls_port: int = two.getsockname()[1]
            config = folder / "nginx.conf"
            config.write_text(
                CONFIG.format(
                    # As root it would go on as somebody who cannot read the folder.
                    user="user root;" if os.geteuid() == 0 else "",
                    folder=folder,
                    port=self.port,
                    tls_port=self.tls_port,
                )
            )
            self.program = Program(program, "-p", str(folder), "-c", str(config))
            until(self._has_settled, "nginx")
            if self.program.process.poll() is None:
                return
            log = self.program.log
            self.program.end()
            assert "Address already in use" in log, log

    def _has_settled(self) -> bool:
        return self.program.process.poll() is not None or not is_refused(self.tls_port)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """An nginx, one for all tests of this module."""
    running = Nginx(tmp_path_factory.mktemp("nginx"))
    yield running
    running.program.end()


def fetched(folder: Path, *arguments: str, **environment: str) -> Outcome:
    """
    Run the command in a folder.
    """
    return outcome_of(
        *SOCKPROTO, "fetch", *arguments, cwd=folder, env={**os.environ, **environment}
    )


def check_failure(outcome: Outcome, status: int, what: str = "") -> None:
    """
    The exit status, and a last line on standard error that says it too.
    """
    assert outcome.status == status, outcome
    last = outcome.err.splitlines()[-1]
    assert re.fullmatch(rf"sockproto: fetch: .*{what}.* \({status}\)", last), outcome
    assert "Traceback" not in outcome.err


def test_file(nginx: Nginx, tmp_path: Path) -> None:
    """The head is printed as it came, the body saved byte for byte."""
    outcome = fetched(tmp_path, nginx.url("data.bin"))
    assert outcome.status == 0
    assert outcome.out.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(DATA)}\r\n".encode() in outcome.out
    assert outcome.out.endswith(b"\r\n\r\n")
    assert outcome.err == "saved to 'data.bin'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]
    assert (tmp_path / "data.bin").read_bytes() == DATA


def test_chunked(nginx: Nginx, tmp_path: Path) -> None:
    """A chunked body is saved without its chunks."""
    outcome = fetched(tmp_path, nginx.url("chunked/data.bin"))
    assert b"Transfer-Encoding: chunked\r\n" in outcome.out
    assert outcome.status == 0
    assert (tmp_path / "data.bin").read_bytes() == DATA


def test_empty(nginx: Nginx, tmp_path: Path) -> None:
    """An empty body is an empty file."""
    assert fetched(tmp_path, nginx.url("empty")).status == 0
    assert (tmp_path / "empty").read_bytes() == b""


def test_status(nginx: Nginx, tmp_path: Path) -> None:
    """A status of 404 is no failure: its head and body are what was asked for."""
    outcome = fetched(tmp_path, nginx.url("nothing.html"))
    assert outcome.status == 0
    assert outcome.out.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"404" in (tmp_path / "nothing.html").read_bytes()


def test_host(nginx: Nginx, tmp_path: Path) -> None:
    """One's own Host reaches another server at the same address."""
    outcome = fetched(tmp_path, "-H", "Host: other", "-o", "body", nginx.url(""))
    assert outcome.status == 0
    assert (tmp_path / "body").read_bytes() == b"the other"


def test_tls(nginx: Nginx, tmp_path: Path) -> None:
    """A certificate from an authority of SSL_CERT_FILE is trusted, for its name."""
    where = f"https://localhost:{nginx.tls_port}/data.bin"
    outcome = fetched(tmp_path, where, SSL_CERT_FILE=str(nginx.authority))
    assert (outcome.status, outcome.err) == (0, "saved to 'data.bin'\n")
    assert (tmp_path / "data.bin").read_bytes() == DATA


def test_tls_wrong_name(nginx: Nginx, tmp_path: Path) -> None:
    """A certificate for another name: 60, and nothing is saved."""
    where = f"https://127.0.0.1:{nginx.tls_port}/data.bin"
    outcome = fetched(tmp_path, where, SSL_CERT_FILE=str(nginx.authority))
    check_failure(outcome, 60, "it is for localhost")
    assert outcome.out == b""
    assert list(tmp_path.iterdir()) == []


def test_tls_unknown_authority(nginx: Nginx, tmp_path: Path) -> None:
    """An authority that nobody has trusted: 60."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    where = f"https://localhost:{nginx.tls_port}/data.bin"
    check_failure(fetched(tmp_path, where, SSL_CERT_FILE=str(other)), 60)


def test_tls_to_plain(nginx: Nginx, tmp_path: Path) -> None:
    """A server that does not speak TLS: 35."""
    where = f"https://127.0.0.1:{nginx.port}/data.bin"
    check_failure(fetched(tmp_path, where), 35, "TLS handshake")


# Where the body goes


def test_numbered(nginx: Nginx, tmp_path: Path) -> None:
    """The URL's name replaces nothing: a number is put behind it."""
    (tmp_path / "data.bin").write_bytes(b"mine")
    for number in (1, 2):
        outcome = fetched(tmp_path, nginx.url("data.bin"))
        assert outcome.err == f"saved to 'data.bin.{number}'\n"
        assert (tmp_path / f"data.bin.{number}").read_bytes() == DATA
    assert (tmp_path / "data.bin").read_bytes() == b"mine"


def test_output(nginx: Nginx, tmp_path: Path) -> None:
    """-o replaces the file, and keeps its mode."""
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    mine.chmod(0o640)
    assert fetched(tmp_path, "-o", "mine", nginx.url("data.bin")).status == 0
    assert mine.read_bytes() == DATA
    assert stat.S_IMODE(mine.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_device(nginx: Nginx, tmp_path: Path) -> None:
    """-o /dev/null leaves it the device that it is."""
    null = Path("/dev/null")
    if os.geteuid() == 0:
        # Were this broken, root would replace the machine's own.
        null = tmp_path / "null"
        try:
            os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            null.write_bytes(b"")
        except OSError:
            null.unlink(missing_ok=True)
            null = Path("/dev/null")
    outcome = fetched(tmp_path, "-o", str(null), nginx.url("data.bin"))
    assert outcome.status == 0
    assert null.is_char_device()
    assert set(tmp_path.iterdir()) <= {null}


def test_unwritable(nginx: Nginx, tmp_path: Path) -> None:
    """A folder that is not there, or a device that is full: 23."""
    for place in ("no/such/folder", "/dev/full"):
        check_failure(fetched(tmp_path, "-o", place, nginx.url("data.bin")), 23, place)
    assert list(tmp_path.iterdir()) == []


# Servers that break off


def answering(answer: bytes) -> Peer:
    """
    A server that gives this answer to any request, and closes.
    """

    def answer_one(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request and (part := connection.recv(4096)):
            request += part
        connection.sendall(answer)

    return Peer(answer_one)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


def test_short(tmp_path: Path) -> None:
    """A body cut short: 18; what came is kept, and said to be."""
    with answering(HEAD + DATA[:500_000]) as peer:
        outcome = fetched(tmp_path, f"http://127.0.0.1:{peer.port}/data.bin")
    check_failure(outcome, 18, "500000 of 1000000 bytes")
    assert outcome.out == HEAD
    assert "kept as 'data.bin.part'" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin.part"]
    assert (tmp_path / "data.bin.part").read_bytes() == DATA[:500_000]


def test_short_chunks(tmp_path: Path) -> None:
    """A chunked body without its last chunk: 18."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    with answering(answer) as peer:
        outcome = fetched(tmp_path, f"http://127.0.0.1:{peer.port}/body")
    check_failure(outcome, 18, "after 5 bytes")
    assert (tmp_path / "body.part").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 52),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 8),
        (b"HTTP/1.1 200 OK\r\nContent-Le", 8),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 56),
    ],
)
def test_broken(tmp_path: Path, answer: bytes, status: int) -> None:
    """Nothing at all: 52; a broken head: 8; a broken chunk: 56. Nothing is saved."""
    with answering(answer) as peer:
        outcome = fetched(tmp_path, f"http://127.0.0.1:{peer.port}/body")
    check_failure(outcome, status)
    assert list(tmp_path.iterdir()) == []


def test_silent(tmp_path: Path) -> None:
    """A server that says nothing: 28."""
    with Peer(read_to_end) as peer:
        outcome = fetched(
            tmp_path, "--timeout=0.3", f"http://127.0.0.1:{peer.port}/body"
        )
    check_failure(outcome, 28, "0.3 seconds")


def test_interrupt(tmp_path: Path) -> None:
    """Ctrl-C amid a body: 130, one line; what came is kept, and said to be."""

    def stall(connection: socket.socket) -> None:
        connection.sendall(HEAD + DATA[:500_000])
        read_to_end(connection)

    def has_come() -> bool:
        return any(path.stat().st_size == 500_000 for path in tmp_path.iterdir())

    with (
        Peer(stall) as peer,
        subprocess.Popen(
            [*SOCKPROTO, "fetch", f"http://127.0.0.1:{peer.port}/data.bin"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            until(has_come, "the part")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130
    assert out == HEAD
    assert err.decode() == (
        "sockproto: fetch: interrupted; what came is kept as 'data.bin.part' (130)\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin.part"]
    assert (tmp_path / "data.bin.part").read_bytes() == DATA[:500_000]
