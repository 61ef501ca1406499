"""
`sockproto fetch` as people run it, against a real nginx and against bare sockets.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from sockproto.version import __version__

from .programs import (
    PATIENCE,
    SOCKPROTO,
    Outcome,
    Peer,
    Program,
    Terminal,
    answering,
    check_failure,
    fetched,
    installed,
    on_free_ports,
    outcome_of,
    read_exactly,
    read_request,
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
        root {folder}/site;
        location /chunked/ {{
            alias {folder}/site/;
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
        (folder / "site").mkdir()
        (folder / "site" / "data.bin").write_bytes(DATA)
        (folder / "site" / "empty").touch()
        config = folder / "nginx.conf"

        def begin(ports: list[int]) -> Program:
            config.write_text(
                CONFIG.format(
                    # As root it would go on as somebody who cannot read the folder.
                    user="user root;" if os.geteuid() == 0 else "",
                    folder=folder,
                    port=ports[0],
                    tls_port=ports[1],
                )
            )
            return Program(program, "-p", str(folder), "-c", str(config))

        self.program, (self.port, self.tls_port) = on_free_ports(2, begin)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """An nginx, one for all tests of this module."""
    running = Nginx(tmp_path_factory.mktemp("nginx"))
    yield running
    running.program.end()


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


HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def url_of(peer: Peer, path: str = "body") -> str:
    return f"http://127.0.0.1:{peer.port}/{path}"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def nobody_listens() -> Iterator[int]:
    """A port that stays taken, and refuses who connects."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_output_is_stdout(tmp_path: Path) -> None:
    """-o - is the body alone, byte for byte; with -i the head comes before it."""
    body = bytes(range(256)) * 16
    answer = b"HTTP/1.1 200 \x1b[31mOK\r\nContent-Length: 4096\r\n\r\n" + body
    with answering(answer) as peer:
        for options, expected in [(["-o", "-"], body), (["-io-"], answer)]:
            outcome = fetched(tmp_path, *options, url_of(peer))
            assert outcome == Outcome(0, expected, "")
    assert names_in(tmp_path) == []


def test_output_in_folder(tmp_path: Path) -> None:
    """-o names a file in another folder, and a folder of the name is refused."""
    (tmp_path / "sub").mkdir()
    with answering(HELLO) as peer:
        assert fetched(tmp_path, "-o", "sub/mine", url_of(peer)).status == 0
        check_failure(fetched(tmp_path, "-o", "sub", url_of(peer)), 23, "folder")
    assert (tmp_path / "sub" / "mine").read_bytes() == b"hello"
    assert names_in(tmp_path / "sub") == ["mine"]


def test_output_follows_link(tmp_path: Path) -> None:
    """-o replaces what a link leads to, as a shell's > does; the link stays."""
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("mine")
    with answering(HELLO) as peer:
        assert fetched(tmp_path, "-o", "link", url_of(peer)).status == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "mine").read_bytes() == b"hello"


@pytest.mark.parametrize("target", ["mine", "../nothing", "."])
def test_name_follows_no_link(tmp_path: Path, target: str) -> None:
    """A link that has the URL's name is not written through: a number is added."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "mine").write_bytes(b"mine")
    (folder / "body").symlink_to(target)
    with answering(HELLO) as peer:
        outcome = fetched(folder, "-O", url_of(peer))
    assert (outcome.status, outcome.err) == (0, "saved to 'body.1'\n")
    assert (folder / "body").readlink() == Path(target)
    assert (folder / "mine").read_bytes() == b"mine"
    assert (folder / "body.1").read_bytes() == b"hello"
    assert names_in(folder) == ["body", "body.1", "mine"]
    assert names_in(tmp_path) == ["here"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("", "index.html"),
        ("a/b/", "index.html"),
        ("a?b=/../c", "a"),
        (".profile", "profile"),
        ("a/...", "index.html"),
        ("..%2F..%2Fpasswd", "%2F..%2Fpasswd"),
        ("%00%1b%0A", "%00%1b%0A"),
        ("caf\u00e9", "caf%C3%A9"),
        ("x" * 300, "x" * 200),
    ],
)
def test_name(tmp_path: Path, path: str, name: str) -> None:
    """A name from a URL is one segment of it: no dot first, nothing unescaped."""
    folder = tmp_path / "here"
    folder.mkdir()
    with answering(HELLO) as peer:
        outcome = fetched(folder, url_of(peer, path))
    assert (outcome.status, outcome.err) == (0, f"saved to {name!r}\n")
    assert names_in(folder) == [name]
    assert names_in(tmp_path) == ["here"]


def test_name_from_server(tmp_path: Path) -> None:
    """Neither Content-Disposition nor a redirect names the file."""
    redirect = b"HTTP/1.1 302 Found\r\nLocation: /.bashrc\r\n\r\n"
    named = (
        b'HTTP/1.0 200 OK\r\nContent-Disposition: attachment; filename="../x"\r\n\r\n'
    )

    def answer(connection: socket.socket) -> None:
        asked_for = read_request(connection).split()[1]
        connection.sendall(named if asked_for == b"/.bashrc" else redirect)

    with Peer(answer) as peer:
        outcome = fetched(tmp_path, "-L", url_of(peer))
    assert (outcome.status, outcome.err) == (0, "saved to 'body'\n")
    assert names_in(tmp_path) == ["body"]


def test_several(tmp_path: Path) -> None:
    """Each URL is fetched; the first failure's status counts, each line names its."""
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
    with answering(HELLO) as good, answering(short) as bad, nobody_listens() as port:
        refused = f"http://127.0.0.1:{port}/"
        no_connection = f"no connection to 127.0.0.1:{port}"
        urls = [url_of(good, "a"), url_of(bad, "b"), refused, url_of(good, "c")]
        outcome = fetched(tmp_path, *urls)
    assert outcome.status == 18
    assert outcome.out == HELLO[:-5] + short[:-5] + HELLO[:-5]
    assert outcome.err.splitlines() == [
        "saved to 'a'",
        "sockproto: fetch: what came is kept as 'b.part'",
        f"sockproto: fetch: {urls[1]}: the body was cut short: 5 of 9 bytes came (18)",
        f"sockproto: fetch: {refused}: {no_connection}: connection refused (7)",
        "saved to 'c'",
    ]
    assert names_in(tmp_path) == ["a", "b.part", "c"]


def test_several_outputs(tmp_path: Path) -> None:
    """An -o goes with a URL each; `-` goes on, -O does not; too many are 2."""

    def answer(connection: socket.socket) -> None:
        path = read_request(connection).split()[1]
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + path)

    with Peer(answer) as peer:
        urls = [url_of(peer, "a"), url_of(peer, "b")]
        outcome = fetched(tmp_path, "-o", "x", "-o", "y", *urls)
        assert outcome.status == 0
        assert (tmp_path / "x").read_bytes() == b"/a"
        assert (tmp_path / "y").read_bytes() == b"/b"
        assert fetched(tmp_path, "-o", "-", *urls) == Outcome(0, b"/a/b", "")
        assert fetched(tmp_path, "-o", "z", "-O", *urls).status == 0
        assert names_in(tmp_path) == ["b", "x", "y", "z"]
        check_failure(fetched(tmp_path, "-oa", "-ob", "-oc", *urls), 2, "-o")
    assert names_in(tmp_path) == ["b", "x", "y", "z"]


def test_named_pipe(tmp_path: Path) -> None:
    """-o into a named pipe gives its reader the body, and leaves it a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    came: list[bytes] = []
    reader = threading.Thread(target=lambda: came.append(pipe.read_bytes()))
    reader.start()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA)
    with answering(head + DATA) as peer:
        outcome = fetched(tmp_path, "-o", "pipe", url_of(peer))
    reader.join(PATIENCE)
    assert outcome.status == 0
    assert came == [DATA]
    assert pipe.is_fifo()
    assert names_in(tmp_path) == ["pipe"]


def test_disk_fills(tmp_path: Path) -> None:
    """A disk that is full amid a body: 23, and nothing is at its place."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA)
    with answering(head + DATA) as peer:
        outcome = outcome_of(
            *("sh", "-c", 'ulimit -f 1000 && exec "$@"', "sh"),
            *(*SOCKPROTO, "fetch", url_of(peer)),
            cwd=tmp_path,
        )
    check_failure(outcome, 23, "cannot write to 'body'")
    assert names_in(tmp_path) == ["body.part"]
    kept = (tmp_path / "body.part").read_bytes()
    assert kept
    assert DATA.startswith(kept)


@pytest.mark.parametrize("options", [[], ["-o", "-"], ["--report", "-"]])
def test_stdout_is_full(tmp_path: Path, options: list[str]) -> None:
    """Standard output on a disk that is full: 23."""
    with answering(HELLO) as peer, Path("/dev/full").open("wb") as full:
        command = [*SOCKPROTO, "fetch", *options, url_of(peer)]
        outcome = outcome_of(*command, stdout=full, cwd=tmp_path)
    check_failure(outcome, 23, "cannot write to standard output: no space left")


def test_stdout_is_closed(tmp_path: Path) -> None:
    """Without a standard output: 23, and the next URL is not asked for."""
    asked = Recording(HELLO)
    with Peer(asked) as peer:
        outcome = outcome_of(
            *("sh", "-c", 'exec "$@" >&-', "sh"),
            *(*SOCKPROTO, "fetch", url_of(peer, "a"), url_of(peer, "b")),
            cwd=tmp_path,
        )
    check_failure(outcome, 23, "cannot write to standard output")
    assert len(asked.requests) == 1
    assert names_in(tmp_path) == []


def test_stdout_is_not_read(tmp_path: Path) -> None:
    """A reader of standard output that has gone: 23, and no traceback."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with answering(head + DATA) as peer:
            command = [*SOCKPROTO, "fetch", "-o", "-", url_of(peer)]
            outcome = outcome_of(*command, stdout=writing, cwd=tmp_path)
    finally:
        os.close(writing)
    check_failure(outcome, 23, "broken pipe")


def test_stderr_is_closed(tmp_path: Path) -> None:
    """Without a standard error, the fetch is the same."""
    with answering(HELLO) as peer:
        outcome = outcome_of(
            *("sh", "-c", 'exec "$@" 2>&-', "sh"),
            *(*SOCKPROTO, "fetch", "-v", url_of(peer)),
            cwd=tmp_path,
        )
    assert outcome == Outcome(0, HELLO[:-5], "")
    assert (tmp_path / "body").read_bytes() == b"hello"


# What is asked


class Recording:
    """
    Answers the same to each request, and keeps them.
    """

    def __init__(self, answer: bytes = HELLO) -> None:
        self.requests: list[bytes] = []
        self._answer = answer

    def __call__(self, connection: socket.socket) -> None:
        request = read_request(connection)
        size = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", request)
        if size is not None:
            came = len(request.partition(b"\r\n\r\n")[2])
            request += read_exactly(connection, int(size[1]) - came)
        self.requests.append(request)
        connection.sendall(self._answer)


def asked(folder: Path, *options: str, path: str = "body", given: bytes = b"") -> bytes:
    """
    The request that the command sends with these options.
    """
    recording = Recording()
    with Peer(recording) as peer:
        url = url_of(peer, path)
        outcome = fetched(folder, *options, "-o", os.devnull, url, given=given)
    assert outcome.status == 0, outcome
    [request] = recording.requests
    return request.replace(b":%d\r\n" % peer.port, b":PORT\r\n")


def fields_of(request: bytes) -> list[bytes]:
    return request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


USUAL = [
    b"Host: 127.0.0.1:PORT",
    b"User-Agent: sockproto/" + __version__.encode(),
    b"Accept: */*",
    b"Connection: close",
]


def test_request(tmp_path: Path) -> None:
    """The request is short, the same each time, and without the fragment."""
    request = asked(tmp_path, path="a/b?c=d&e=%20#fragment")
    lines = [b"GET /a/b?c=d&e=%20 HTTP/1.1", *USUAL]
    assert request == b"\r\n".join([*lines, b"", b""])


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["-H", "X-One: 1", "-H", "X-One:2"], [*USUAL, b"X-One: 1", b"X-One: 2"]),
        (["-H", "host: other"], [b"host: other", *USUAL[1:]]),
        (["-H", "accept:", "-H", "User-Agent: "], [USUAL[0], USUAL[3]]),
        (["-H", "X-Empty;"], [*USUAL, b"X-Empty: "]),
        (["-A", "me/1"], [USUAL[0], *USUAL[2:], b"User-Agent: me/1"]),
        (["-A", ""], [USUAL[0], *USUAL[2:]]),
        (["-u", "us:er:pass"], [*USUAL, b"Authorization: Basic dXM6ZXI6cGFzcw=="]),
        (["--compressed"], [*USUAL, b"Accept-Encoding: gzip, deflate"]),
    ],
)
def test_fields(tmp_path: Path, options: list[str], fields: list[bytes]) -> None:
    """-H adds, replaces, leaves out and empties; -A, -u and --compressed add."""
    assert fields_of(asked(tmp_path, *options)) == fields


def test_user_in_url(tmp_path: Path) -> None:
    """Credentials in a URL are sent as with -u, and are nowhere else."""
    recording = Recording()
    with Peer(recording) as peer:
        url = f"http://us%40er:pa%3Ass@127.0.0.1:{peer.port}/body"
        outcome = fetched(tmp_path, "-v", "--report", "report", url)
    assert outcome.status == 0
    [request] = recording.requests
    assert b"\r\nAuthorization: Basic dXNAZXI6cGE6c3M=\r\n" in request
    assert request.startswith(b"GET /body HTTP/1.1\r\nHost: 127.0.0.1:%d" % peer.port)
    assert b"us%40er" not in request


def test_password_prompt(tmp_path: Path) -> None:
    """-u without a password asks for it on a terminal, unseen; else it is 2."""
    recording = Recording()
    with Peer(recording) as peer:
        options = ["-u", "user", "-o", str(tmp_path / "body"), url_of(peer)]
        check_failure(fetched(tmp_path, *options), 2, "-u")
        assert recording.requests == []
        with Terminal(*SOCKPROTO, "fetch", *options) as terminal:
            terminal.await_shown("password of user: ")
            terminal.type("secret\r")
            assert terminal.wait() == 0
    assert "secret" not in terminal.shown
    [request] = recording.requests
    assert b"\r\nAuthorization: Basic dXNlcjpzZWNyZXQ=\r\n" in request


def test_data(tmp_path: Path) -> None:
    """-d posts what it has: text, a file's exact bytes, standard input's."""
    every = bytes(range(256)) + b"\r\n"
    (tmp_path / "file").write_bytes(every)
    for options, given, body in [
        (["-d", "a=1", "-d", "b=2"], b"", b"a=1&b=2"),
        (["-d", "@file"], b"", every),
        (["--data", "@-"], every * 1000, every * 1000),
        (["-d", ""], b"", b""),
    ]:
        head, _, sent = asked(tmp_path, *options, given=given).partition(b"\r\n\r\n")
        assert head.startswith(b"POST /body HTTP/1.1\r\n")
        assert head.split(b"\r\n")[-2:] == [
            b"Content-Type: application/x-www-form-urlencoded",
            b"Content-Length: %d" % len(body),
        ]
        assert sent == body


def test_method(tmp_path: Path) -> None:
    """-X puts another method in the place of GET, or of POST."""
    assert asked(tmp_path, "-X", "DELETE").startswith(b"DELETE /body HTTP/1.1\r\n")
    request = asked(tmp_path, "-X", "PUT", "-d", "new")
    assert request.startswith(b"PUT /body HTTP/1.1\r\n")
    assert request.endswith(b"\r\nContent-Length: 3\r\n\r\nnew")


def test_head(tmp_path: Path) -> None:
    """-I asks for the head alone, awaits no body, and saves no file."""

    def stay(connection: socket.socket) -> None:
        assert read_request(connection).startswith(b"HEAD /body HTTP/1.1\r\n")
        connection.sendall(HEAD)
        read_to_end(connection)

    with Peer(stay) as peer:
        outcome = fetched(tmp_path, "-I", url_of(peer))
    assert outcome == Outcome(0, HEAD, "")
    assert names_in(tmp_path) == []


def test_raw_request(tmp_path: Path) -> None:
    """--raw-request sends a file's exact bytes, bare LF and all."""
    request = b"GET /x HTTP/1.1\r\nHost: somebody\nConnection: close\r\n\r\n"
    (tmp_path / "request").write_bytes(request)
    assert asked(tmp_path, "--raw-request", "request") == request
    assert asked(tmp_path, "--raw-request", "-", given=request) == request


def test_raw_head_request(tmp_path: Path) -> None:
    """--raw-request with HEAD awaits no body, and saves no file."""
    (tmp_path / "request").write_bytes(b"HEAD / HTTP/1.0\r\n\r\n")
    with answering(HEAD) as peer:
        outcome = fetched(tmp_path, "--raw-request", "request", url_of(peer))
    assert outcome == Outcome(0, HEAD, "")
    assert names_in(tmp_path) == ["request"]


REFUSED: list[tuple[list[str], int]] = [
    (["-H", "X: a\r\nY: b"], 2),
    (["-H", "X\r\nY: b"], 2),
    (["-H", "no colon"], 2),
    (["-H", ": value"], 2),
    (["-A", "a\r\nX: b"], 2),
    (["-X", "GET / HTTP/1.1\r\nX:"], 2),
    (["-X", "CONNECT"], 2),
    (["-I", "-X", "PUT"], 2),
    (["-I", "-d", "x"], 2),
    (["-d", "@nothing"], 26),
    (["--raw-request", "nothing"], 26),
    (["--raw-request", os.devnull, "-H", "X: y"], 2),
    (["--raw-request", os.devnull, "-L"], 2),
    (["--resolve", "localhost:80"], 2),
    (["--resolve", "localhost:80:elsewhere"], 2),
    (["--resolve", "localhost:0:127.0.0.1"], 2),
    (["--report", "-", "-o", "-"], 2),
    (["--max-time", "0"], 2),
    (["--max-time", "nan"], 2),
    (["--connect-timeout", "inf"], 2),
    (["--max-redirs", "-1"], 2),
    (["--max-filesize", "1.5"], 2),
    (["--no-such-option"], 2),
]


@pytest.mark.parametrize(("options", "status"), REFUSED)
def test_refused(tmp_path: Path, options: list[str], status: int) -> None:
    """What cannot be sent or makes no sense is refused before anything is sent."""
    recording = Recording()
    with Peer(recording) as peer:
        check_failure(fetched(tmp_path, *options, url_of(peer)), status)
    assert recording.requests == []
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://127.0.0.1:{port}/a b", 3),
        ("http://127.0.0.1:{port}/\r\nX: y", 3),
        ("http://127.0.0.1:{port}/\x1b[2J", 3),
        ("http://127.0.0.1:99999/", 3),
        ("http://[127.0.0.1]:{port}/", 3),
        ("http:///body", 3),
        ("", 3),
        ("ftp://127.0.0.1:{port}/", 1),
        ("file:///etc/passwd", 1),
        ("http://no.such.name.invalid:{port}/", 6),
    ],
)
def test_refused_url(tmp_path: Path, url: str, status: int) -> None:
    """A URL that is none: 3; another scheme: 1; a name that nobody has: 6."""
    recording = Recording()
    with Peer(recording) as peer:
        outcome = fetched(tmp_path, url.format(port=peer.port))
    check_failure(outcome, status)
    assert "\x1b" not in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert recording.requests == []


# What is done to the body

CHUNKED = b"5;ext\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"


def test_raw(tmp_path: Path) -> None:
    """--raw leaves a body as it came: in its chunks, and compressed."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED
    with answering(chunked) as peer:
        assert fetched(tmp_path, "-o-", url_of(peer)).out == b"hello!"
        assert fetched(tmp_path, "--raw", "-o-", url_of(peer)).out == CHUNKED
    coded = gzip.compress(b"hello")
    head = b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    with answering(head + coded) as peer:
        options = ["--raw", "--compressed", "-o-"]
        assert fetched(tmp_path, *options, url_of(peer)).out == coded


def test_compressed(tmp_path: Path) -> None:
    """--compressed takes gzip off; without it, the body is saved as it came."""
    coded = gzip.compress(DATA)
    head = b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    with answering(head + coded) as peer:
        assert fetched(tmp_path, "-oplain", "--compressed", url_of(peer)).status == 0
        assert fetched(tmp_path, "-ocoded", url_of(peer)).status == 0
    assert (tmp_path / "plain").read_bytes() == DATA
    assert (tmp_path / "coded").read_bytes() == coded


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", b"no gzip at all"),
        (b"gzip", gzip.compress(DATA)[:-9]),
        (b"gzip", gzip.compress(b"hello") + b"more"),
        (b"br", b"\x0b\x02\x80hello\x03"),
    ],
)
def test_compressed_badly(tmp_path: Path, coding: bytes, body: bytes) -> None:
    """A body that cannot be decoded to its end: 61."""
    head = b"HTTP/1.0 200 OK\r\nContent-Encoding: " + coding + b"\r\n\r\n"
    with answering(head + body) as peer:
        check_failure(fetched(tmp_path, "--compressed", url_of(peer)), 61)
    assert not (tmp_path / "body").exists()


def test_compressed_bomb(tmp_path: Path) -> None:
    """A few bytes that would become very many: 63."""
    bomb = gzip.compress(bytes(64 << 20))
    head = b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    with answering(head + bomb) as peer:
        check_failure(fetched(tmp_path, "--compressed", url_of(peer)), 63)
    assert not (tmp_path / "body").exists()


@pytest.mark.parametrize(
    "answer",
    [
        HELLO,
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nhello",
    ],
)
def test_max_filesize(tmp_path: Path, answer: bytes) -> None:
    """--max-filesize: a larger body is 63, however framed, and not at its place."""
    with answering(answer) as peer:
        check_failure(fetched(tmp_path, "--max-filesize=4", url_of(peer)), 63)
        assert not (tmp_path / "body").exists()
        if answer == HELLO:
            assert fetched(tmp_path, "--max-filesize=5", url_of(peer)).status == 0


def test_fail(tmp_path: Path) -> None:
    """-f: a status of 400 or more is 22, its head is shown, nothing is replaced."""
    (tmp_path / "mine").write_bytes(b"mine")
    answer = b"HTTP/1.1 404 Not \x1b[2JHere\r\nContent-Length: 5\r\n\r\nhello"
    with answering(answer) as peer:
        outcome = fetched(tmp_path, "-f", "-o", "mine", url_of(peer))
        check_failure(outcome, 22, "status 404 Not")
        assert "\x1b" not in outcome.err
        assert outcome.out == answer[:-5]
        assert fetched(tmp_path, "-fo-", url_of(peer)).out == b""
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert names_in(tmp_path) == ["mine"]
    with answering(answer.replace(b"404", b"399")) as peer:
        assert fetched(tmp_path, "-f", url_of(peer)).status == 0


# What is told


OPTIONS = """
-o --output -O --remote-name -i --include -I --head -L --location --max-redirs
-f --fail -H --header -X --request -d --data -u --user -A --user-agent --compressed
--raw --raw-request -k --insecure --cacert --resolve --unix-socket --connect-timeout
--max-time --max-filesize --report -4 -6 -v --verbose --timeout -h --help
"""


def test_help() -> None:
    """--help names every option."""
    outcome = outcome_of(*SOCKPROTO, "fetch", "--help")
    assert (outcome.status, outcome.err) == (0, "")
    for option in OPTIONS.split():
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", outcome.out.decode()), option


EXCHANGE_KEYS = {
    *("url", "resolved", "local", "peer", "tls", "request", "interim", "response"),
    *("bytes_received", "bytes_behind", "closed", "seconds"),
}
REPORT_KEYS = {
    *("url", "exit_status", "error", "saved", "body_bytes", "seconds", "exchanges"),
}


def test_report(tmp_path: Path) -> None:
    """--report has a line of JSON a URL, failed ones too, and every byte of heads."""
    odd = b"HTTP/1.1 200 Fine\r\nX: \xff\x1b\r\nContent-Length: 5\r\n\r\nhello"
    with answering(odd) as good, answering(b"HTTP/1.1 wrong\r\n\r\n") as bad:
        urls = [url_of(good), url_of(bad)]
        outcome = fetched(tmp_path, "--report", "report", *urls)
    check_failure(outcome, 8)
    lines = (tmp_path / "report").read_text("ascii").splitlines()
    one, two = map(json.loads, lines)
    assert set(one) == set(two) == REPORT_KEYS
    assert (one["url"], two["url"]) == tuple(urls)
    assert (one["exit_status"], one["error"]) == (0, None)
    assert (one["saved"], one["body_bytes"]) == ("body", 5)
    [exchange] = one["exchanges"]
    assert set(exchange) == EXCHANGE_KEYS
    assert exchange["peer"] == f"127.0.0.1:{good.port}"
    assert exchange["request"].startswith("GET /body HTTP/1.1\r\nHost: ")
    assert exchange["response"]["status"] == 200
    assert exchange["response"]["head"].encode("latin-1") == odd[:-5]
    assert exchange["response"]["headers"][0] == ["X", "\xff\x1b"]
    assert exchange["response"]["framing"] == "content-length"
    assert exchange["bytes_received"] == len(odd)
    times = list(exchange["seconds"].values())
    assert times == sorted(times)
    assert (two["exit_status"], two["saved"], two["body_bytes"]) == (8, None, 0)
    assert two["error"]["type"] == "HeadMalformed"
    assert two["exchanges"][0]["response"] is None


def test_report_on_stdout(tmp_path: Path) -> None:
    """--report - is standard output's alone, and has each redirect."""

    def answer(connection: socket.socket) -> None:
        asked_for = read_request(connection).split()[1]
        redirect = b"HTTP/1.1 301 Moved\r\nLocation: /there\r\n\r\n"
        connection.sendall(HELLO if asked_for == b"/there" else redirect)

    with Peer(answer) as peer:
        outcome = fetched(tmp_path, "--report", "-", "-L", url_of(peer))
    assert (outcome.status, outcome.err) == (0, "saved to 'body'\n")
    report = json.loads(outcome.out)
    assert [e["url"] for e in report["exchanges"]] == [
        url_of(peer),
        url_of(peer, "there"),
    ]
    assert [e["response"]["status"] for e in report["exchanges"]] == [301, 200]


def test_report_cannot_be_written(tmp_path: Path) -> None:
    """A report that has no place is 23; the body is saved all the same."""
    with answering(HELLO) as peer:
        outcome = fetched(tmp_path, "--report", "no/such/folder", url_of(peer))
    check_failure(outcome, 23, "no/such/folder")
    assert (tmp_path / "body").read_bytes() == b"hello"


def test_verbose(tmp_path: Path) -> None:
    """-v tells the conversation as it went, with what was odd in it."""
    first = b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n"
    second = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </style>\r\n\r\n"
        b"HTTP/1.1 200 Fine\nX-Folded: a\r\n b\x1b\x07\r\nContent-Length: 5\r\n\r\n"
        b"hello" + b"more\x1b"
    )

    def answer(connection: socket.socket) -> None:
        asked_for = read_request(connection).split()[1]
        connection.sendall(second if asked_for == b"/there" else first)

    with Peer(answer) as peer:
        outcome = fetched(tmp_path, "-vL", "-o", "body", url_of(peer))
    assert outcome.status == 0
    assert "\x1b" not in outcome.err
    assert "\x07" not in outcome.err
    lines = iter(outcome.err.splitlines())
    for line in (  # in this order
        rf"\* connected from 127\.0\.0\.1:\d+ to 127\.0\.0\.1:{peer.port}",
        r"> GET /body HTTP/1\.1",
        r"> Connection: close",
        r"> ",
        r"< HTTP/1\.1 302 Found",
        r"< Location: /there",
        rf"\* redirected to http://127\.0\.0\.1:{peer.port}/there",
        r"> GET /there HTTP/1\.1",
        r"< HTTP/1\.1 103 Early Hints",
        r"< HTTP/1\.1 200 Fine",
        r"< X-Folded: a",
        r"<  b\\x1b\\x07",
        r"\* a line ends in a bare LF",
        r"\* a value is folded",
        r"\* the body's framing: content-length 5",
        r"\* behind the end came 5 bytes: b'more\\x1b'",
        r"\* seconds: .*connected [\d.]+, sent [\d.]+, .*",
        r"\* closed: .*; \d+ bytes came",
    ):
        assert any(re.fullmatch(line, seen) for seen in lines), line


def test_terminal(tmp_path: Path) -> None:
    """On a terminal, what a server sends moves no cursor and renames no window."""
    answer = (
        b"HTTP/1.1 200 \x1b[2JOK\r\nX: \x1b]0;owned\x07\x9b31m\r\n\r\n"
        b"body \x1b[H\x08 \xe2\x80\xae end\n"
    )
    with answering(answer) as peer:
        assert fetched(tmp_path, "-io-", url_of(peer)).out == answer
        with Terminal(*SOCKPROTO, "fetch", "-v", "-io-", url_of(peer)) as terminal:
            assert terminal.wait() == 0
    assert not {*"\x1b\x07\x08\x9b\u202e"} & set(terminal.shown)
    for text in (
        "HTTP/1.1 200 \\x1b[2JOK",
        "X: \\x1b]0;owned\\x07\\x9b31m",
        "body \\x1b[H\\x08 \\u202e end",
    ):
        assert text in terminal.shown


def test_terminal_of_errors(tmp_path: Path) -> None:
    """What is wrong with a head is told in one line without control characters."""
    with answering(b"HTTP/1.1 \x1b[2J\n\x1b]0;owned\x07 200\r\n\r\n") as peer:
        outcome = fetched(tmp_path, url_of(peer))
    check_failure(outcome, 8)
    assert not {*"\x1b\x07"} & set(outcome.err)
    assert len(outcome.err.splitlines()) == 1


def test_progress(tmp_path: Path) -> None:
    """On a terminal there is a bar when it takes a second, and none before."""
    enough = threading.Event()

    def drip(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        sent = 0
        while not enough.wait(0.05):
            sent += connection.send(b"x" * 100)
        connection.sendall(b"x" * (100_000 - sent))

    with Peer(drip) as peer:
        place = str(tmp_path / "body")
        command = [*SOCKPROTO, "fetch", "-o", place, url_of(peer)]
        with Terminal(*command) as terminal:
            termios.tcsetwinsize(terminal.keyboard, (24, 80))  # one of 0 has no bar
            terminal.await_shown("B/s")
            enough.set()
            assert terminal.wait() == 0
            assert terminal.shown.rstrip().endswith(f"saved to {place!r}")
        with Terminal(*command) as terminal:
            termios.tcsetwinsize(terminal.keyboard, (24, 80))
            assert terminal.wait() == 0
            assert "B/s" not in terminal.shown


# How a server is reached


def test_unix_socket(tmp_path: Path) -> None:
    """--unix-socket connects there; the URL says what to ask for."""
    place = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen()
        recording = Recording()
        with Peer(recording, listening):
            options = ["--unix-socket", place, "-v", "-o-"]
            outcome = fetched(tmp_path, *options, "http://some.name/path")
    assert (outcome.status, outcome.out) == (0, b"hello")
    [request] = recording.requests
    assert request.startswith(b"GET /path HTTP/1.1\r\nHost: some.name\r\n")
    outcome = fetched(tmp_path, "--unix-socket", str(tmp_path / "no"), "http://a/")
    check_failure(outcome, 7)


def listening_on_ipv6() -> socket.socket:
    try:
        return socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6 here")


def test_family(tmp_path: Path) -> None:
    """-4 and -6 try the addresses of one family alone."""
    with answering(HELLO) as peer:
        url = f"http://localhost:{peer.port}/"
        assert fetched(tmp_path, "-4", "-o-", url).out == b"hello"
        # Where localhost has an IPv6 address nobody listens there.
        assert fetched(tmp_path, "-6", "-o-", url).status in {6, 7}
        check_failure(fetched(tmp_path, "-6", url_of(peer)), 6)
        check_failure(fetched(tmp_path, "-4", f"http://[::1]:{peer.port}/"), 6)


def test_ipv6(tmp_path: Path) -> None:
    """An IPv6 address is asked for in its brackets."""
    recording = Recording()
    with Peer(recording, listening_on_ipv6()) as peer:
        for options in ([], ["-6"]):
            url = f"http://[::1]:{peer.port}/"
            assert fetched(tmp_path, *options, "-o-", url).out == b"hello"
    for request in recording.requests:
        assert b"\r\nHost: [::1]:%d\r\n" % peer.port in request


def test_resolve(tmp_path: Path) -> None:
    """--resolve says where a name is; of several addresses, one that answers."""
    recording = Recording()
    with Peer(recording) as peer:
        url = f"http://Some.Name:{peer.port}/"
        for addresses in ("127.0.0.1", "[::1],127.0.0.1"):
            where = f"some.name:{peer.port}:{addresses}"
            outcome = fetched(tmp_path, "-vo-", "--resolve", where, url)
            assert (outcome.status, outcome.out) == (0, b"hello")
    assert "* resolved some.name: ::1, 127.0.0.1\n" in outcome.err
    assert b"\r\nHost: some.name:%d\r\n" % peer.port in recording.requests[0]


def test_refused_connection(tmp_path: Path) -> None:
    """Nobody listens: 7."""
    with nobody_listens() as port:
        outcome = fetched(tmp_path, f"http://127.0.0.1:{port}/")
    check_failure(outcome, 7, f"127.0.0.1:{port}: connection refused")


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue is full: who connects there is not answered."""
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        with contextlib.suppress(TimeoutError):
            while True:
                waiting = opened.enter_context(socket.socket())
                waiting.settimeout(0.3)
                waiting.connect(listening.getsockname())
        yield listening.getsockname()[1]


def test_connect_timeout(tmp_path: Path) -> None:
    """--connect-timeout: a server that does not even answer the connection is 28."""
    with black_hole() as port:
        outcome = fetched(
            tmp_path, "--connect-timeout=0.3", f"http://127.0.0.1:{port}/"
        )
    check_failure(outcome, 28, f"a connection to 127.0.0.1:{port} .* 0.3 seconds")


def test_connect_timeout_of_tls(tmp_path: Path) -> None:
    """--connect-timeout is for TLS too: a handshake without an answer is 28."""
    with Peer(read_to_end) as peer:
        url = f"https://127.0.0.1:{peer.port}/"
        outcome = fetched(tmp_path, "--connect-timeout=0.3", url)
    check_failure(outcome, 28, "TLS handshake .* 0.3 seconds")


def test_connect_timeout_is_not_for_the_answer(tmp_path: Path) -> None:
    """--connect-timeout says nothing of how long an answer may take."""

    def think(connection: socket.socket) -> None:
        read_request(connection)
        threading.Event().wait(0.6)
        connection.sendall(HELLO)

    with Peer(think) as peer:
        outcome = fetched(tmp_path, "--connect-timeout=0.3", "-o-", url_of(peer))
    assert outcome == Outcome(0, b"hello", "")


def test_max_time(tmp_path: Path) -> None:
    """--max-time: a server that is never silent, and never done, is 28."""

    def drip(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(HEAD)
        while True:
            connection.sendall(b"x")
            threading.Event().wait(0.02)

    with Peer(drip) as peer:
        options = ["--max-time=0.6", "--timeout=0.5"]
        outcome = fetched(tmp_path, *options, url_of(peer))
    check_failure(outcome, 28, "within 0.6 seconds")
    assert names_in(tmp_path) == ["body.part"]


# Servers that break off

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


def test_short(tmp_path: Path) -> None:
    """A body cut short: 18; what came is kept, and said to be."""
    with answering(HEAD + DATA[:500_000]) as peer:
        outcome = fetched(tmp_path, url_of(peer, "data.bin"))
    check_failure(outcome, 18, "500000 of 1000000 bytes")
    assert outcome.out == HEAD
    assert "kept as 'data.bin.part'" in outcome.err
    assert names_in(tmp_path) == ["data.bin.part"]
    assert (tmp_path / "data.bin.part").read_bytes() == DATA[:500_000]


def test_short_again(tmp_path: Path) -> None:
    """What was kept of one attempt is not lost by the next, nor a file of -o."""
    (tmp_path / "mine").write_bytes(b"mine")
    with answering(HEAD + DATA[:5]) as peer:
        for _ in range(2):
            check_failure(fetched(tmp_path, "-o", "mine", url_of(peer)), 18)
    assert names_in(tmp_path) == ["mine", "mine.part", "mine.part.1"]
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_short_chunks(tmp_path: Path) -> None:
    """A chunked body without its last chunk: 18."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    with answering(answer) as peer:
        outcome = fetched(tmp_path, url_of(peer))
    check_failure(outcome, 18, "after 5 bytes")
    assert (tmp_path / "body.part").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 52),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 8),
        (b"HTTP/1.1 200 OK\r\nContent-Le", 8),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", 8),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!", 8),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", 8),
        (b"HTTP/1.1 200 OK\r\nName : x\r\n\r\nhello", 8),
        (b"HTTP/1.1 200 OK\r\nName: a\rb\r\n\r\nhello", 8),
        (b"HTTP/2.0 200 OK\r\n\r\nhello", 8),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 8),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 21 + HELLO, 8),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400_000, 8),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 56),
    ],
)
def test_broken(tmp_path: Path, answer: bytes, status: int) -> None:
    """Nothing at all: 52; a broken head: 8; a broken chunk: 56. Nothing is saved."""
    with answering(answer) as peer:
        outcome = fetched(tmp_path, url_of(peer))
    check_failure(outcome, status)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nServer",
        HEAD + DATA[:500_000],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + DATA[:500_000],
    ],
    ids=["nothing", "head", "length", "chunked", "close"],
)
def test_reset(tmp_path: Path, answer: bytes) -> None:
    """A reset is 56 wherever it comes, and never the end of a body."""

    def reset(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)
        at_once = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

    with Peer(reset) as peer:
        check_failure(fetched(tmp_path, url_of(peer)), 56, "the connection broke")
    assert not (tmp_path / "body").exists()


def test_silent(tmp_path: Path) -> None:
    """A server that says nothing: 28."""
    with Peer(read_to_end) as peer:
        outcome = fetched(tmp_path, "--timeout=0.3", url_of(peer))
    check_failure(outcome, 28, "0.3 seconds")


@pytest.mark.parametrize(
    ("number", "word", "status"),
    [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)],
)
def test_interrupt(
    tmp_path: Path, number: signal.Signals, word: str, status: int
) -> None:
    """Ctrl-C amid a body: 130, one line; what came is kept, and said to be."""

    def stall(connection: socket.socket) -> None:
        connection.sendall(HEAD + DATA[:500_000])
        read_to_end(connection)

    def has_come() -> bool:
        return any(path.stat().st_size == 500_000 for path in tmp_path.iterdir())

    with (
        Peer(stall) as peer,
        subprocess.Popen(
            [*SOCKPROTO, "fetch", url_of(peer, "data.bin")],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            until(has_come, "the part")
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == status
    assert out == HEAD
    assert err.decode() == (
        f"sockproto: fetch: {word}; what came is kept as 'data.bin.part' ({status})\n"
    )
    assert names_in(tmp_path) == ["data.bin.part"]
    assert (tmp_path / "data.bin.part").read_bytes() == DATA[:500_000]


# What is not loaded

SPY = """
import atexit, json, sys

def tell():
    names = ["OpenSSL", "cryptography", "service_identity", "tqdm"]
    loaded = [name for name in names if name in sys.modules]
    absent = [name for name, module in sys.modules.items() if module is None]
    with open("modules", "w") as told:
        json.dump([loaded, absent], told)

atexit.register(tell)
from sockproto.cli import main
main()
"""


@pytest.mark.parametrize("status", [0, 7])
def test_lean(tmp_path: Path, status: int) -> None:
    """A plain fetch loads no TLS, and leaves nothing behind in sys.modules."""
    with contextlib.ExitStack() as opened:
        if status:
            url = f"http://127.0.0.1:{opened.enter_context(nobody_listens())}/"
        else:
            url = url_of(opened.enter_context(answering(HELLO)))
        command = [sys.executable, "-c", SPY, "fetch", "-o", os.devnull, url]
        outcome = outcome_of(*command, cwd=tmp_path)
    assert outcome.status == status, outcome
    assert json.loads((tmp_path / "modules").read_text()) == [[], []]


def run_lean(code: str) -> None:
    """Run code in a fresh interpreter, after the lean start."""
    start = "from sockproto.cli.lean import import_reactor_without_tls as start\n"
    outcome = outcome_of(sys.executable, "-c", start + code)
    assert outcome == Outcome(0, b"", "")


def test_lean_start_admits_tls() -> None:
    """After the lean start TLS and cookies can be imported, and work."""
    run_lean("""
import sys
start()
assert "OpenSSL" not in sys.modules
from twisted.internet import reactor, ssl
assert ssl.optionsForClientTLS("example.com")
from http.cookiejar import CookieJar
assert not list(CookieJar())
""")


def test_lean_start_comes_too_late() -> None:
    """Where TLS or Twisted's network is loaded already, it changes nothing."""
    for name in ("OpenSSL", "twisted.internet.defer"):
        run_lean(f"""
import sys, {name}
before = dict(sys.modules)
start()
assert dict(sys.modules) == before
""")
