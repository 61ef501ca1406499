"""
`sockproto fetch` against the servers that people run, and against odd TLS.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import ipaddress
import json
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .programs import (
    LOOPBACK,
    Outcome,
    Peer,
    Program,
    answering,
    check_failure,
    connected,
    fetched,
    installed,
    on_free_ports,
    read_request,
    read_to_end,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = os.urandom(3 << 20)
TEXT = "".join(f"{number} is a number\n" for number in range(100_000)).encode()
PAGE = b"<p>a page\n"

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


# The servers


@dataclass(frozen=True)
class Server:
    """
    Where a server listens.
    """

    ports: list[int]

    @property
    def port(self) -> int:
        return self.ports[0]

    def url(self, path: str = "") -> str:
        return f"http://{LOOPBACK}:{self.port}/{path}"


@contextlib.contextmanager
def running(program: Program, ports: list[int]) -> Iterator[Server]:
    """A server, which is ended as its own tools would end it."""
    try:
        yield Server(ports)
    finally:
        program.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait()
        program.end()


def configured(
    count: int, folder: Path, config: str, *command: str, **values: object
) -> contextlib.AbstractContextManager[Server]:
    """
    A server with a configuration that is told its ports.

    Args:
        count: how many ports it has.
        folder: for its files.
        config: a template of the configuration.
        command: what runs; `{config}` in it is the file.
        values: for the template.
    """
    file = folder / "config"

    def begin(ports: list[int]) -> Program:
        text = config.format(ports=ports, folder=folder, **values)
        file.write_text(text, encoding="utf-8")
        return Program(*(word.format(config=file) for word in command))

    return running(*on_free_ports(count, begin))


@pytest.fixture(scope="module")
def site() -> Iterator[Path]:
    """What the servers serve; Apache reads it as nobody, so it is not in tmp_path."""
    with tempfile.TemporaryDirectory(prefix="sockproto-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "data.bin").write_bytes(DATA)
        (folder / "text.txt").write_bytes(TEXT)
        (folder / "dir").mkdir()
        (folder / "dir" / "index.html").write_bytes(PAGE)
        yield folder


@dataclass(frozen=True)
class Authority:
    """
    Who signs certificates, and the file that makes it trusted.
    """

    ca: trustme.CA
    file: str


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(trustme.CA(), str(tmp_path_factory.mktemp("ca") / "ca.pem"))
    authority.ca.cert_pem.write_to_path(authority.file)
    return authority


NGINX = """\
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
    types {{ text/plain txt; text/html html; }}
    default_type application/octet-stream;
    gzip on;
    gzip_types text/plain;
    root {site};
    ssl_certificate {folder}/pair.pem;
    ssl_certificate_key {folder}/pair.pem;
    server {{ listen 127.0.0.1:{ports[0]}; }}
    server {{ listen 127.0.0.1:{ports[1]}; absolute_redirect off; }}
    server {{ listen 127.0.0.1:{ports[2]} ssl; ssl_protocols TLSv1.2; }}
    server {{ listen 127.0.0.1:{ports[3]} ssl; ssl_protocols TLSv1.3; }}
}}
"""


@pytest.fixture(scope="module")
def nginx(
    site: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """nginx; its second port is for HAProxy, the next have TLS 1.2 and 1.3."""
    folder = tmp_path_factory.mktemp("nginx")
    pair = authority.ca.issue_cert("localhost").private_key_and_cert_chain_pem
    pair.write_to_path(str(folder / "pair.pem"))
    command = [installed("nginx"), "-p", str(folder), "-c", "{config}"]
    # As root it would go on as somebody who cannot read the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    with configured(4, folder, NGINX, *command, site=site, user=user) as server:
        yield server


APACHE = """\
ServerRoot "{folder}"
ServerName localhost
DefaultRuntimeDir "{folder}"
PidFile "{folder}/apache.pid"
ErrorLog /dev/stderr
Listen 127.0.0.1:{ports[0]}
LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule deflate_module {modules}/mod_deflate.so
LoadModule dir_module {modules}/mod_dir.so
LoadModule filter_module {modules}/mod_filter.so
LoadModule mime_module {modules}/mod_mime.so
TypesConfig {folder}/types
AddType text/plain .txt
User #65534
Group #65534
DocumentRoot "{site}"
<Directory "{site}">
    Require all granted
</Directory>
AddOutputFilterByType DEFLATE text/plain
"""


@pytest.fixture(scope="module")
def apache(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Debian's Apache."""
    program = installed("apache2")
    modules = Path("/usr/lib/apache2/modules")
    if not modules.is_dir():
        pytest.skip("apache2 is not Debian's: its modules are elsewhere")
    folder = tmp_path_factory.mktemp("apache")
    (folder / "types").touch()
    command = [program, "-X", "-f", "{config}"]
    with configured(1, folder, APACHE, *command, site=site, modules=modules) as server:
        yield server


# Debian has a package of its own for mod_deflate, and does without it in silence.
LIGHTTPD = """\
server.modules = ("mod_deflate")
server.bind = "127.0.0.1"
server.port = {ports[0]}
server.document-root = "{site}"
server.upload-dirs = ("{folder}")
index-file.names = ("index.html")
mimetype.assign = (".txt" => "text/plain", ".html" => "text/html")
deflate.mimetypes = ("text/plain")
deflate.allowed-encodings = ("gzip", "deflate")
"""


@pytest.fixture(scope="module")
def lighttpd(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("lighttpd")
    command = [installed("lighttpd"), "-D", "-f", "{config}"]
    with configured(1, folder, LIGHTTPD, *command, site=site) as server:
        yield server


def compresses(server: Server) -> bool:
    """Whether it has the module for it, asked without the command."""
    with connected(server.port) as connection:
        connection.sendall(b"GET /text.txt HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
        head = read_to_end(connection).partition(b"\r\n\r\n")[0]
    return b"\r\ncontent-encoding: gzip" in head.lower()


HAPROXY = """\
defaults
    mode http
    retries 0
    timeout connect 20s
    timeout client 20s
    timeout server 20s

frontend web
    bind 127.0.0.1:{ports[0]}
    http-request set-header X-Proxy one
    http-request deny deny_status 403 if {{ path /denied }}
    http-request redirect code 308 location /text.txt if {{ path /moved }}
    http-request return status 200 content-type text/plain string hi if {{ path /say }}
    http-request silent-drop if {{ path /dropped }}
    use_backend down if {{ path /down }}
    default_backend nginx

frontend bytes
    mode tcp
    bind 127.0.0.1:{ports[1]}
    default_backend nginx-bytes

frontend bytes-down
    mode tcp
    bind 127.0.0.1:{ports[2]}
    default_backend down-bytes

backend nginx
    http-response set-header X-Proxy one
    server one 127.0.0.1:{behind}

backend nginx-bytes
    mode tcp
    server one 127.0.0.1:{behind}

backend down
    server one 127.0.0.1:{nobody}

backend down-bytes
    mode tcp
    server one 127.0.0.1:{nobody}
"""


@pytest.fixture(scope="module")
def haproxy(
    nginx: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """HAProxy: for HTTP in front of nginx, for bytes too, and in front of nobody."""
    folder = tmp_path_factory.mktemp("haproxy")
    command = [installed("haproxy"), "-db", "-f", "{config}"]
    with socket.socket() as taken:  # and not listening: who connects is refused
        taken.bind((LOOPBACK, 0))
        values = {"behind": nginx.ports[1], "nobody": taken.getsockname()[1]}
        with configured(3, folder, HAPROXY, *command, **values) as server:
            yield server


@pytest.fixture(scope="module")
def http_server(site: Path) -> Iterator[Server]:
    """Python's own."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", LOOPBACK]
    program = Program(*command, "--directory", str(site), "0")
    port = int(program.await_line(r" port (\d+) ")[1])
    with running(program, [port]) as server:
        yield server


@pytest.fixture(scope="module")
def httpbin() -> Iterator[Server]:
    for package in ("gunicorn", "httpbin"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    command = [sys.executable, "-m", "gunicorn", "--bind", f"{LOOPBACK}:0"]
    options = ["--worker-class", "gthread", "--threads", "4"]
    program = Program(*command, *options, "--graceful-timeout", "1", "httpbin:app")
    port = int(program.await_line(rf"Listening at: http://{LOOPBACK}:(\d+) ")[1])
    with running(program, [port]) as server:
        yield server


# What all of them do


@pytest.fixture(params=["nginx", "apache", "lighttpd", "haproxy", "http_server"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def test_file(server: Server, tmp_path: Path) -> None:
    """A file is saved byte for byte, and its length was told."""
    outcome = fetched(tmp_path, server.url("data.bin"))
    assert (outcome.status, outcome.err) == (0, "saved to 'data.bin'\n")
    assert (tmp_path / "data.bin").read_bytes() == DATA
    head = outcome.out.lower()
    assert head.startswith((b"http/1.1 200 ok\r\n", b"http/1.0 200 ok\r\n"))
    assert b"\r\ncontent-length: %d\r\n" % len(DATA) in head
    assert head.endswith(b"\r\n\r\n")


def test_head(server: Server, tmp_path: Path) -> None:
    """-I has the head of the same answer, without its body."""
    outcome = fetched(tmp_path, "-I", server.url("data.bin"))
    assert (outcome.status, outcome.err) == (0, "")
    assert b"\r\ncontent-length: %d\r\n" % len(DATA) in outcome.out.lower()
    assert outcome.out.endswith(b"\r\n\r\n")
    assert list(tmp_path.iterdir()) == []


def test_missing(server: Server, tmp_path: Path) -> None:
    """A page that is not there is an answer, and with -f a failure."""
    outcome = fetched(tmp_path, "-o-", "-i", server.url("nothing"))
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.split()[1] == b"404"
    check_failure(fetched(tmp_path, "-f", server.url("nothing")), 22, "status 404")
    assert list(tmp_path.iterdir()) == []


def test_directory(server: Server, tmp_path: Path) -> None:
    """-L goes from a folder without its slash to the folder's page."""
    outcome = fetched(tmp_path, "-o", os.devnull, server.url("dir"))
    assert outcome.status == 0
    assert outcome.out.split()[1] == b"301"
    outcome = fetched(tmp_path, "-L", "--report", "report", server.url("dir"))
    assert (outcome.status, outcome.err) == (0, "saved to 'dir'\n")
    assert outcome.out.split()[1] == b"200"
    assert (tmp_path / "dir").read_bytes() == PAGE
    report = json.loads((tmp_path / "report").read_bytes())
    urls = [exchange["url"] for exchange in report["exchanges"]]
    assert urls == [server.url("dir"), server.url("dir/")]


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("nginx", "gzip"),
        ("apache", "gzip"),
        ("lighttpd", "gzip"),
        ("lighttpd", "deflate"),
        ("haproxy", "gzip"),
    ],
)
def test_compressed(
    name: str, coding: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """--compressed saves what the server compressed on its way."""
    server: Server = request.getfixturevalue(name)
    if name == "lighttpd" and not compresses(server):
        pytest.skip("lighttpd-mod-deflate is not installed")
    options = ["--compressed", "-o", "text", "-H", f"Accept-Encoding: {coding}"]
    outcome = fetched(tmp_path, *options, server.url("text.txt"))
    assert outcome.status == 0, outcome
    assert b"\r\ncontent-encoding: " + coding.encode() in outcome.out.lower()
    assert (tmp_path / "text").read_bytes() == TEXT
    if name != "lighttpd":
        assert b"\r\ntransfer-encoding: chunked\r\n" in outcome.out.lower()


# HAProxy


def test_haproxy_rules(haproxy: Server, tmp_path: Path) -> None:
    """What the proxy itself answers is taken as what a server answers."""
    assert fetched(tmp_path, "-o-", haproxy.url("say")).out == b"hi"
    check_failure(fetched(tmp_path, "-f", haproxy.url("denied")), 22, "status 403")
    outcome = fetched(tmp_path, "-L", "-o", "text", haproxy.url("moved"))
    assert b"\r\nx-proxy: one\r\n" in outcome.out
    assert (tmp_path / "text").read_bytes() == TEXT


def test_haproxy_drops(haproxy: Server, tmp_path: Path) -> None:
    """A proxy that drops a connection without a word is silence: 28."""
    outcome = fetched(tmp_path, "--timeout=0.5", haproxy.url("dropped"))
    check_failure(outcome, 28, "0.5 seconds")


def test_haproxy_server_down(haproxy: Server, tmp_path: Path) -> None:
    """A server that is down is the proxy's 503."""
    outcome = fetched(tmp_path, "-io-", haproxy.url("down"))
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nconnection: close\r\n" in outcome.out.lower()
    check_failure(fetched(tmp_path, "-f", haproxy.url("down")), 22, "status 503")


def test_haproxy_bytes(haproxy: Server, tmp_path: Path) -> None:
    """A proxy for bytes changes none, and closes if its server is down: 52, or 56."""
    url, down = (f"http://{LOOPBACK}:{port}/data.bin" for port in haproxy.ports[1:])
    assert fetched(tmp_path, url).status == 0
    assert (tmp_path / "data.bin").read_bytes() == DATA
    outcome = fetched(tmp_path, down)
    assert outcome.status in {52, 56}  # 56 if it closed before it was asked
    check_failure(outcome, outcome.status)


# httpbin


def told(folder: Path, *arguments: str) -> Any:
    """
    The JSON that httpbin answers.
    """
    outcome = fetched(folder, "-o-", *arguments)
    assert (outcome.status, outcome.err) == (0, ""), outcome
    return json.loads(outcome.out)


def test_basic_auth(httpbin: Server, tmp_path: Path) -> None:
    """-u, and credentials in the URL, are let in; others are not."""
    url = httpbin.url("basic-auth/user/pass")
    expected = {"authenticated": True, "user": "user"}
    assert told(tmp_path, "-u", "user:pass", url) == expected
    assert told(tmp_path, url.replace("//", "//user:pass@")) == expected
    for options in ([], ["-u", "user:wrong"]):
        check_failure(fetched(tmp_path, "-f", *options, url), 22, "status 401")


def test_post(httpbin: Server, tmp_path: Path) -> None:
    """-d arrives as a form, or as whatever -H says that it is."""
    assert told(tmp_path, "-d", "a=1", "-d", "b=%26", httpbin.url("post"))["form"] == {
        "a": "1",
        "b": "&",
    }
    text = TEXT[:300_000]
    (tmp_path / "file").write_bytes(text)
    options = ["-d", "@file", "-H", "Content-Type: text/plain", "-X", "PUT"]
    assert told(tmp_path, *options, httpbin.url("put"))["data"].encode() == text


def test_headers(httpbin: Server, tmp_path: Path) -> None:
    """-H and -A arrive; a field that was left out does not."""
    options = ["-H", "X-One: a", "-H", "X-One: b", "-H", "Accept:", "-A", "me/1"]
    assert told(tmp_path, *options, httpbin.url("headers"))["headers"] == {
        "Host": f"{LOOPBACK}:{httpbin.port}",
        "Connection": "close",
        "X-One": "a,b",
        "User-Agent": "me/1",
    }


@pytest.mark.parametrize("kind", ["redirect", "absolute-redirect", "relative-redirect"])
def test_redirects(httpbin: Server, tmp_path: Path, kind: str) -> None:
    """-L follows, however the place is written; without it, a redirect is an answer."""
    url = httpbin.url(f"{kind}/5")
    assert told(tmp_path, "-L", url)["url"] == httpbin.url("get")
    outcome = fetched(tmp_path, "-io-", url)
    assert outcome.status == 0
    assert outcome.out.split()[1] == b"302"
    outcome = fetched(tmp_path, "-L", "--max-redirs=4", url)
    check_failure(outcome, 47, "more than 4 redirects")


def test_too_many_redirects(httpbin: Server, tmp_path: Path) -> None:
    """More than 20 redirects: 47, unless one asks for more."""
    url = httpbin.url("relative-redirect/25")
    check_failure(fetched(tmp_path, "-L", url), 47, "more than 20 redirects")
    assert told(tmp_path, "-L", "--max-redirs=25", url)["url"] == httpbin.url("get")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "method", "data"),
    [
        (301, "GET", ""),
        (302, "GET", ""),
        (303, "GET", ""),
        (307, "POST", "text"),
        (308, "POST", "text"),
    ],
)
def test_redirected_post(
    httpbin: Server, tmp_path: Path, status: int, method: str, data: str
) -> None:
    """After 307 and 308 a POST is sent again; after others it becomes a GET."""
    url = httpbin.url(f"redirect-to?url=/anything&status_code={status}")
    options = ["-L", "-d", "text", "-H", "Content-Type: text/plain"]
    answer = told(tmp_path, *options, url)
    assert (answer["method"], answer["data"]) == (method, data)
    assert ("Content-Type" in answer["headers"]) == (method == "POST")


def test_redirected_credentials(httpbin: Server, tmp_path: Path) -> None:
    """Another host gets no credentials, and no cookie."""
    secret = ["-L", "-u", "user:pass", "-H", "Cookie: secret", "-H", "X-Mine: yes"]
    there = f"http://localhost:{httpbin.port}/headers"
    for place, names in [
        ("/headers", {"Authorization", "Cookie", "X-Mine"}),
        (there, {"X-Mine"}),
    ]:
        answer = told(tmp_path, *secret, httpbin.url(f"redirect-to?url={place}"))
        seen = {"Authorization", "Cookie", "X-Mine"} & set(answer["headers"])
        assert seen == names


def test_teapot(httpbin: Server, tmp_path: Path) -> None:
    """A status that few have heard of is one like others."""
    outcome = fetched(tmp_path, "-io-", httpbin.url("status/418"))
    assert outcome.status == 0
    assert b"teapot" in outcome.out
    check_failure(fetched(tmp_path, "-f", httpbin.url("status/418")), 22, "status 418")


def test_delay(httpbin: Server, tmp_path: Path) -> None:
    """--max-time does not wait for a server that thinks for longer: 28."""
    outcome = fetched(tmp_path, "--max-time=0.5", httpbin.url("delay/3"))
    check_failure(outcome, 28, "0.5 seconds")


def test_codings(httpbin: Server, tmp_path: Path) -> None:
    """gzip and deflate are taken off; what is not known is not guessed at."""
    for coding, key in [("gzip", "gzipped"), ("deflate", "deflated")]:
        assert told(tmp_path, "--compressed", httpbin.url(coding))[key] is True
    outcome = fetched(tmp_path, "--compressed", httpbin.url("brotli"))
    check_failure(outcome, 61, "'br'")


def test_chunks(httpbin: Server, tmp_path: Path) -> None:
    """A body of unknown length comes without its chunks, and with --raw in them."""
    number = random.Random(1)
    expected = bytes(number.randint(0, 255) for _ in range(100_000))
    url = httpbin.url("stream-bytes/100000?seed=1&chunk_size=7777")
    outcome = fetched(tmp_path, "-io-", url)
    head, _, body = outcome.out.partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked" in head.lower()
    assert body == expected
    raw = fetched(tmp_path, "--raw", "-o-", url).out
    assert raw.startswith(b"1E61\r\n" + expected[:7777] + b"\r\n1E61\r\n")
    assert raw.endswith(b"\r\n0\r\n\r\n")


def test_drip(httpbin: Server, tmp_path: Path) -> None:
    """A body that comes a byte at a time is whole in the end."""
    url = httpbin.url("drip?numbytes=20&duration=0.4&delay=0")
    assert fetched(tmp_path, "-o-", "--timeout=1", url).out == b"*" * 20


# TLS

NOW = dt.datetime.now(dt.UTC)
LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


ADDRESS = x509.IPAddress(ipaddress.ip_address(LOOPBACK))


def pair_for(
    names: list[x509.GeneralName],
    authority: trustme.CA | None,
    *,
    starts: dt.datetime = NOW - DAY,
    expires: dt.datetime = NOW + DAY,
) -> bytes:
    """
    A key and a certificate for names, in PEM; its common name is always localhost.

    Args:
        names: in its subjectAltName, which it has only if there are any.
        authority: whose signature it has; its own if None.
        starts, expires: when it is valid.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    issuer, signing = subject, key
    if authority is not None:
        issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
        loaded = serialization.load_pem_private_key(
            authority.private_key_pem.bytes(), None
        )
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing = loaded
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(expires)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    certificate = builder.sign(signing, hashes.SHA256())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)


class SecurePeer(Peer):
    """
    A server of the test's own that speaks TLS.

    It closes as Python does, without a close_notify.

    Args:
        pair: its key and certificate, in PEM.
        talk: given the connection.
    """

    def __init__(
        self, pair: bytes, talk: Callable[[ssl.SSLSocket], object] | None = None
    ) -> None:
        self.requests: list[bytes] = []
        self.server_names: list[str | None] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.sni_callback = self._take_name
        with tempfile.NamedTemporaryFile() as file:
            file.write(pair)
            file.flush()
            self.context.load_cert_chain(file.name)
        self._secure_talk = talk or (lambda connection: connection.sendall(HELLO))
        super().__init__(self._secure)

    def _take_name(self, _: object, name: str | None, __: object) -> None:
        self.server_names.append(name)

    def _secure(self, connection: socket.socket) -> None:
        with self.context.wrap_socket(connection, server_side=True) as secure:
            self.requests.append(read_request(secure))
            self._secure_talk(secure)

    def url(self, host: str = "localhost") -> str:
        return f"https://{host}:{self.port}/body"


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_nginx_tls(
    nginx: Server, authority: Authority, tmp_path: Path, version: str
) -> None:
    """A file comes over TLS 1.2 and 1.3; -v and the report say what was agreed on."""
    port = nginx.ports[2 if version == "TLSv1.2" else 3]
    options = ["-v", "--cacert", authority.file, "--report", "report"]
    outcome = fetched(tmp_path, *options, f"https://localhost:{port}/data.bin")
    assert outcome.status == 0, outcome
    assert (tmp_path / "data.bin").read_bytes() == DATA
    lines = outcome.err.splitlines()
    assert any(line.startswith(f"* {version}, ") for line in lines)
    assert any(line.endswith(", for localhost") for line in lines)
    assert any(line.startswith("* signed by ") for line in lines)
    report = json.loads((tmp_path / "report").read_bytes())
    tls = report["exchanges"][0]["tls"]
    assert (tls["version"], tls["names"]) == (version, ["localhost"])


NAMES: list[tuple[str, list[x509.GeneralName], str | None]] = [
    ("localhost", dns("localhost"), None),
    ("LOCALHOST", dns("localhost"), None),
    ("localhost", dns("other.name", "localhost"), None),
    ("localhost", dns("other.name"), "it is for other.name"),
    ("localhost", [], "it has no subjectAltName"),
    ("localhost", [x509.RFC822Name("a@localhost")], "it has no subjectAltName"),
    ("localhost", dns("*"), "it cannot be checked"),
    ("a.localhost", dns("*.localhost"), "it cannot be checked"),
    ("a.some.name", dns("*.some.name"), None),
    ("some.name", dns("*.some.name"), "it is for"),
    ("a.b.some.name", dns("*.some.name"), "it is for"),
    ("a.some.name", dns("*a.some.name"), ""),
    ("a.some.name", dns("a.*.name"), ""),
    (LOOPBACK, [ADDRESS], None),
    (LOOPBACK, dns(LOOPBACK), ""),
    (LOOPBACK, dns("localhost"), "it is for localhost"),
    ("localhost", [ADDRESS], "it is for 127.0.0.1"),
]


@pytest.mark.parametrize(("host", "names", "problem"), NAMES)
def test_names(
    tmp_path: Path,
    authority: Authority,
    host: str,
    names: list[x509.GeneralName],
    problem: str | None,
) -> None:
    """A certificate that does not prove the name: 60, and nothing was sent."""
    with SecurePeer(pair_for(names, authority.ca)) as peer:
        options = ["--resolve", f"{host}:{peer.port}:{LOOPBACK}", "-o-"]
        outcome = fetched(
            tmp_path, "--cacert", authority.file, *options, peer.url(host)
        )
        if problem is None:
            assert outcome == Outcome(0, b"hello", "")
            return
        check_failure(outcome, 60, problem)
        assert not any(peer.requests)
        insecure = fetched(tmp_path, "-k", *options, peer.url(host))
    assert insecure == Outcome(0, b"hello", "")


def test_untrusted(tmp_path: Path, authority: Authority) -> None:
    """An authority nobody trusts, a signature of its own, another's: 60; -k lets in."""
    own = pair_for(dns("localhost"), None)
    issued = pair_for(dns("localhost"), authority.ca)
    others = pair_for(dns("localhost"), trustme.CA())
    for pair, options in [
        (own, []),
        (own, ["--cacert", authority.file]),
        (issued, []),
        (others, ["--cacert", authority.file]),
    ]:
        with SecurePeer(pair) as peer:
            check_failure(fetched(tmp_path, *options, peer.url()), 60)
            assert not any(peer.requests)
            insecure = fetched(tmp_path, *options, "-k", "-o-", peer.url())
            assert insecure == Outcome(0, b"hello", "")
    assert list(tmp_path.iterdir()) == []


def test_own_certificate_as_authority(tmp_path: Path) -> None:
    """--cacert with the server's own certificate trusts it."""
    pair = pair_for(dns("localhost"), None)
    (tmp_path / "own.pem").write_bytes(pair)
    with SecurePeer(pair) as peer:
        outcome = fetched(tmp_path, "--cacert", "own.pem", "-o-", peer.url())
    assert outcome == Outcome(0, b"hello", "")


def test_validity(tmp_path: Path, authority: Authority) -> None:
    """A certificate of the past or of the future: 60."""
    past = {"starts": LONG_AGO, "expires": LONG_AGO + DAY}
    future = {"starts": NOW + DAY, "expires": NOW + 2 * DAY}
    for dates, problem in [(past, "has expired"), (future, "is not valid yet")]:
        with SecurePeer(pair_for(dns("localhost"), authority.ca, **dates)) as peer:
            outcome = fetched(tmp_path, "--cacert", authority.file, peer.url())
            check_failure(outcome, 60, problem)
            assert not any(peer.requests)
            assert fetched(tmp_path, "-ko-", peer.url()).out == b"hello"


def test_cacert(tmp_path: Path, authority: Authority) -> None:
    """--cacert is a file or a folder of PEM; what is none is 77."""
    (tmp_path / "empty.pem").touch()
    (tmp_path / "broken.pem").write_text(
        "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n"
    )
    (tmp_path / "folder").mkdir()
    with SecurePeer(pair_for(dns("localhost"), authority.ca)) as peer:
        for place in ("no.pem", "empty.pem", "broken.pem", "folder"):
            outcome = fetched(tmp_path, "--cacert", place, peer.url())
            check_failure(outcome, 77, place)
        (tmp_path / "folder" / "ca.pem").write_bytes(Path(authority.file).read_bytes())
        outcome = fetched(tmp_path, "--cacert", "folder", "-o-", peer.url())
        assert outcome.out == b"hello"
        assert len(peer.server_names) == 1


def test_server_name(tmp_path: Path, authority: Authority) -> None:
    """A server is told the name that is wanted of it, but never an address."""
    names = [*dns("some.name", "localhost"), ADDRESS]
    with SecurePeer(pair_for(names, authority.ca)) as peer:
        options = ["--cacert", authority.file, "-o-"]
        options += ["--resolve", f"some.name:{peer.port}:{LOOPBACK}"]
        for host in ("some.name", "Some.Name", "localhost", LOOPBACK):
            assert fetched(tmp_path, *options, peer.url(host)).out == b"hello"
    assert peer.server_names == ["some.name", "some.name", "localhost", None]


def test_old_tls(tmp_path: Path, authority: Authority) -> None:
    """A server that has TLS 1.1 and no later: 35, with -k too."""
    with SecurePeer(pair_for(dns("localhost"), authority.ca)) as peer:
        peer.context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.deprecated_call():
            peer.context.minimum_version = ssl.TLSVersion.TLSv1
            peer.context.maximum_version = ssl.TLSVersion.TLSv1_1
        for options in (["--cacert", authority.file], ["-k"]):
            outcome = fetched(tmp_path, *options, peer.url())
            check_failure(outcome, 35, "TLS handshake failed")
    assert peer.requests == []


def test_no_tls(tmp_path: Path) -> None:
    """A server that closes amid the handshake, or talks HTTP: 35."""
    for talk in (lambda c: c.recv(1), lambda c: c.sendall(HELLO)):
        with Peer(talk) as peer:
            check_failure(fetched(tmp_path, f"https://localhost:{peer.port}/"), 35)


CLOSED_PLAINLY = [
    (HELLO, {0}),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        {0},
    ),
    (b"HTTP/1.1 204 No Content\r\n\r\n", {0}),
    (b"HTTP/1.1 200 OK\r\n\r\nhello", {56}),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", {18, 56}),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        {18, 56},
    ),
    (b"HTTP/1.1 200 OK\r\nContent-", {8, 56}),
    (b"", {52, 56}),
]


@pytest.mark.parametrize(("answer", "statuses"), CLOSED_PLAINLY)
def test_without_close_notify(
    tmp_path: Path,
    authority: Authority,
    answer: bytes,
    statuses: set[int],
) -> None:
    """TLS that just ends is the end of a body only if that has another end."""
    pair = pair_for(dns("localhost"), authority.ca)
    with SecurePeer(pair, lambda connection: connection.sendall(answer)) as peer:
        outcome = fetched(tmp_path, "--cacert", authority.file, peer.url())
    assert outcome.status in statuses, outcome
    if outcome.status:
        check_failure(outcome, outcome.status)
    assert (tmp_path / "body").exists() == (outcome.status == 0)


def test_close_notify(tmp_path: Path, authority: Authority) -> None:
    """TLS that ends as it should is the end of a body that has no other."""

    def talk(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
        connection.unwrap()

    with SecurePeer(pair_for(dns("localhost"), authority.ca), talk) as peer:
        outcome = fetched(tmp_path, "--cacert", authority.file, "-o-", peer.url())
    assert outcome == Outcome(0, b"hello", "")


def test_stays_open(tmp_path: Path, authority: Authority) -> None:
    """A server that keeps the connection open does not keep the command."""

    def talk(connection: ssl.SSLSocket) -> None:
        connection.sendall(HELLO)
        read_to_end(connection)

    with SecurePeer(pair_for(dns("localhost"), authority.ca), talk) as peer:
        outcome = fetched(tmp_path, "--cacert", authority.file, "-o-", peer.url())
    assert outcome == Outcome(0, b"hello", "")


def test_reset_over_tls(tmp_path: Path, authority: Authority) -> None:
    """A reset amid a body over TLS is never its end."""

    def talk(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + DATA[:500_000])
        at_once = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

    with SecurePeer(pair_for(dns("localhost"), authority.ca), talk) as peer:
        outcome = fetched(tmp_path, "--cacert", authority.file, peer.url())
    check_failure(outcome, 56)
    assert not (tmp_path / "body").exists()


def test_redirect_to_https(tmp_path: Path, authority: Authority) -> None:
    """A fetch that began without TLS goes on with it, and as strictly."""
    with SecurePeer(pair_for(dns("localhost"), authority.ca)) as peer:
        for host, status in [("localhost", 0), (LOOPBACK, 60)]:
            redirect = f"HTTP/1.1 301 Moved\r\nLocation: {peer.url(host)}\r\n\r\n"
            with answering(redirect.encode()) as plain:
                url = f"http://{LOOPBACK}:{plain.port}/"
                outcome = fetched(
                    tmp_path, "-L", "-o-", "--cacert", authority.file, url
                )
            assert (outcome.status, outcome.out) == (
                status,
                b"" if status else b"hello",
            )
            if status:
                check_failure(outcome, 60, "it is for localhost")


def test_redirect_to_http(tmp_path: Path, authority: Authority) -> None:
    """A redirect from https to http is refused: 1."""
    with answering(HELLO) as plain:
        where = f"http://localhost:{plain.port}/"
        redirect = f"HTTP/1.1 302 Found\r\nLocation: {where}\r\n\r\n".encode()
        pair = pair_for(dns("localhost"), authority.ca)
        with SecurePeer(pair, lambda connection: connection.sendall(redirect)) as peer:
            outcome = fetched(tmp_path, "-L", "--cacert", authority.file, peer.url())
    check_failure(outcome, 1, f"{where}.* from https to http")
    assert list(tmp_path.iterdir()) == []


def test_verbose(tmp_path: Path) -> None:
    """-v shows the certificate before what is sent, and one that proves nothing."""
    expires = dt.datetime(2099, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    names = [*dns("localhost", "\x1b[2J.name"), ADDRESS]
    with SecurePeer(pair_for(names, None, expires=expires)) as peer:
        outcome = fetched(tmp_path, "-kv", "-o-", peer.url())
    assert outcome.status == 0, outcome
    assert "\x1b" not in outcome.err
    lines = outcome.err.splitlines()
    assert any(line.startswith("* TLSv1.3, TLS_") for line in lines)
    [line] = [line for line in lines if line.startswith("* certificate of ")]
    assert line.startswith("* certificate of CN=localhost, for localhost, ")
    assert line.endswith(", 127.0.0.1")
    signed = "* signed by CN=localhost, until 2099-01-02T03:04:05+00:00"
    assert lines.index(signed) < lines.index("> GET /body HTTP/1.1")


def test_verbose_of_a_refusal(tmp_path: Path) -> None:
    """Neither -v nor the report says that something was sent to who proved nothing."""
    with SecurePeer(pair_for(dns("localhost"), None)) as peer:
        options = ["-v", "-u", "user:pass", "--report", "report"]
        outcome = fetched(tmp_path, *options, peer.url())
    check_failure(outcome, 60)
    assert not [line for line in outcome.err.splitlines() if line.startswith(">")]
    report = json.loads((tmp_path / "report").read_bytes())
    assert "sent" not in report["exchanges"][0]["seconds"]
