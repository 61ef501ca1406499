"""
`sockproto serve --workers`: several processes at the same places.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from .programs import (
    LOOPBACK,
    PATIENCE,
    PLACE,
    SERVE,
    SOCKPROTO,
    Program,
    connected,
    is_refused,
    outcome_of,
    read_exactly,
    read_to_end,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UDP_PLACE = f"udp:0:interface={LOOPBACK}"

REACTORS = ("uvloop", "stock")


@pytest.fixture
def crew(serve: Callable[..., Program]) -> Iterator[Callable[..., Program]]:
    """Start two workers, and wait until they serve; no process may be left of them."""
    started: list[Program] = []

    def begin(*options: str) -> Program:
        started.append(serve("--workers=2", *options))
        workers_of(started[-1])
        return started[-1]

    yield begin
    for program in started:
        program.end()
        for process in everyone(program):
            until(partial(is_over, process), "the end of a worker")


def workers_of(program: Program) -> list[int]:
    """The processes of the workers, at the start."""
    said = program.await_line(r"2 workers serve \(processes (\d+), (\d+)\)\.")
    return [int(process) for process in said.groups()]


def everyone(program: Program) -> list[int]:
    """The workers that there have been."""
    again = program.log.split("serves again (process ")[1:]
    return workers_of(program) + [int(part.partition(")")[0]) for part in again]


def is_over(process: int) -> bool:
    """Whether a process is gone, or waits for whoever asks how it ended."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def sockets_of(process: int) -> int:
    """How many sockets it has open."""
    found = 0
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(link.readlink()).startswith("socket:")
    return found


def echoes(port: int, text: bytes = b"there?") -> bool:
    """Whether an echo comes from there."""
    with connected(port) as client:
        client.sendall(text)
        return read_exactly(client, len(text)) == text


@pytest.mark.parametrize("reactor", REACTORS)
def test_spread(crew: Callable[..., Program], reactor: str) -> None:
    """Every worker serves at the one port, and the log has it once."""
    server = crew(f"--echo={PLACE}", f"--reactor={reactor}")
    workers = workers_of(server)
    before = [sockets_of(each) for each in workers]
    port = server.port("echo")
    with contextlib.ExitStack() as connections:
        clients = [connections.enter_context(connected(port)) for _ in range(40)]
        for client in clients:
            client.sendall(b"there?")
            assert read_exactly(client, 6) == b"there?"
        more = [sockets_of(each) - n for each, n in zip(workers, before, strict=True)]
        assert min(more) >= 5, more
    assert server.log.count("echo listens on") == 1
    assert server.log.count("Running on ") == 1
    assert server.log.count("The limit of open files is") == 1


def test_drain(crew: Callable[..., Program]) -> None:
    """A signal closes the places of all, and what is owed still comes."""
    server = crew(f"--hello={PLACE}", "--delay=0.8")
    port = server.port("hello")
    with contextlib.ExitStack() as connections:
        clients = [connections.enter_context(connected(port)) for _ in range(20)]
        for client in clients:
            client.sendall(b"Michael\n")
            assert read_exactly(client, 9) == b"Welcome!\n"
        server.signal(signal.SIGTERM)
        until(lambda: is_refused(port), "refusal")
        for client in clients:
            assert read_to_end(client) == b"Hello, Michael!\n"
    assert server.wait() == 0
    assert all(map(is_over, workers_of(server)))
    assert "warn" not in server.log


def test_second_signal(crew: Callable[..., Program]) -> None:
    """A second signal ends all processes at once, whatever is owed."""
    server = crew(f"--hello={PLACE}", "--delay=60", "--drain=60")
    port = server.port("hello")
    with connected(port) as client:
        client.sendall(b"Michael\n")
        assert read_exactly(client, 9) == b"Welcome!\n"
        server.signal(signal.SIGTERM)
        until(lambda: is_refused(port), "refusal")
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM
        until(lambda: all(map(is_over, workers_of(server))), "the workers' end")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_terminal(start: Callable[..., Program], number: signal.Signals) -> None:
    """What a terminal sends to all processes is the parent's business."""
    server = start(
        *SERVE, "--workers=2", f"--hello={PLACE}", "--delay=0.3", before=os.setsid
    )
    workers_of(server)
    with connected(server.port("hello")) as client:
        client.sendall(b"Michael\n")
        assert read_exactly(client, 9) == b"Welcome!\n"
        os.killpg(server.process.pid, number)
        assert read_to_end(client) == b"Hello, Michael!\n"
    assert server.wait() == 0


@pytest.mark.parametrize("reactor", REACTORS)
def test_crash(crew: Callable[..., Program], reactor: str) -> None:
    """When a worker dies, others answer whoever comes, and a new one follows."""
    server = crew(f"--echo={PLACE}", f"--udp-echo={UDP_PLACE}", f"--reactor={reactor}")
    first, second = workers_of(server)
    port, udp = server.port("echo"), server.port("udp-echo")
    os.kill(first, signal.SIGKILL)
    # Half of these came to the dead one's socket.
    assert all(echoes(port) for _ in range(40))
    for _ in range(20):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect((LOOPBACK, udp))  # so an answer has to be from there
            client.send(b"there?")
            assert client.recv(1024) == b"there?"
    said = rf"Worker 1 \(process {first}\) was ended by SIGKILL; .* again in 1 s\."
    server.await_line(said)
    following = int(server.await_line(r"Worker 1 serves again \(process (\d+)\)")[1])
    os.kill(second, signal.SIGKILL)
    assert all(echoes(port) for _ in range(40))
    assert not is_over(following)
    server.await_line(r"Worker 2 serves again")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert server.log.count("echo listens on") == 2  # and udp-echo


def test_worker_drains(crew: Callable[..., Program]) -> None:
    """A worker that is told to end drains, while others answer in its place."""
    server = crew(f"--echo={PLACE}", "--drain=60", "--delay=0")
    first, _ = workers_of(server)
    port = server.port("echo")
    os.kill(first, signal.SIGTERM)
    assert all(echoes(port) for _ in range(40))
    server.await_line(r"Worker 1 \(process \d+\) ended with status 0; it is started")
    server.await_line(r"Worker 1 serves again")


def test_parent_dies(crew: Callable[..., Program]) -> None:
    """No worker outlives its parent, and the port is free."""
    server = crew(f"--echo={PLACE}")
    port = server.port("echo")
    workers = workers_of(server)
    assert echoes(port)
    server.process.kill()
    until(lambda: all(map(is_over, workers)), "the workers' end")
    assert is_refused(port)
    assert server.log.count("The process that started this worker is gone.") == 2


def test_in_use(crew: Callable[..., Program]) -> None:
    """A place of another crew's is in use: one line, status 1, and nothing listens."""
    port = crew(f"--echo={PLACE}").port("echo")
    place = f"tcp:{port}:interface={LOOPBACK}"
    ended = outcome_of(*SERVE, "--workers=2", f"--hello={PLACE}", f"--echo={place}")
    assert ended.err == (
        f"sockproto: serve: echo cannot listen on {place!r}: it is in use;"
        " stop what listens there, or choose another (1)\n"
    )
    assert ended.status == 1
    assert ended.out == b""


def test_unix(crew: Callable[..., Program], tmp_path: Path) -> None:
    """A unix socket is shared; it stays when a worker goes, and goes in the end."""
    path = tmp_path / "echo.sock"
    server = crew(f"--echo=unix:{path}:mode=660")
    first, _ = workers_of(server)

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"there?")
            return read_exactly(client, 6) == b"there?"

    assert path.stat().st_mode & 0o777 == 0o660
    assert answers()
    os.kill(first, signal.SIGTERM)
    server.await_line(r"Worker 1 serves again")
    assert path.stat().st_mode & 0o777 == 0o660
    assert all(answers() for _ in range(10))
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert list(tmp_path.iterdir()) == []


def test_haproxy(crew: Callable[..., Program]) -> None:
    """A place behind a proxy is shared like what it wraps."""
    server = crew(f"--echo=haproxy:{PLACE}")
    port = server.port("echo")
    for _ in range(10):
        with connected(port) as client:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 11 22\r\nthere?")
            assert read_exactly(client, 6) == b"there?"
    server.await_line(r"Accept new connection from 192\.0\.2\.1:11\.\.\.")


@pytest.mark.parametrize("kind", ["ssl", "tls"])
def test_tls(crew: Callable[..., Program], tmp_path: Path, kind: str) -> None:
    """Places with TLS are shared like others."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "localhost.pem")
    place = {
        "ssl": f"ssl:0:privateKey={tmp_path}/localhost.pem:interface={LOOPBACK}",
        "tls": f"tls:{tmp_path}:port=0:interface={LOOPBACK}",
    }
    port = crew(f"--echo={place[kind]}").port("echo")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    for _ in range(10):
        with (
            connected(port) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(b"there?")
            assert read_exactly(client, 6) == b"there?"


PLUGIN = """
from twisted.internet.defer import succeed
from twisted.internet.interfaces import (
    IListeningPort, IStreamServerEndpoint, IStreamServerEndpointStringParser
)
from twisted.plugin import IPlugin
from zope.interface import implementer

@implementer(IListeningPort)
class Port:
    def getHost(self):
        return "nowhere"
    def stopListening(self):
        pass

@implementer(IStreamServerEndpoint)
class Endpoint:
    def listen(self, factory):
        return succeed(Port())

@implementer(IPlugin, IStreamServerEndpointStringParser)
class Parser:
    prefix = "another"
    def parseStreamServer(self, reactor, *args):
        return Endpoint()

parser = Parser()
"""


def test_not_shared(start: Callable[..., Program], tmp_path: Path) -> None:
    """A place of a plugin's that has no socket to be shared is refused."""
    (tmp_path / "twisted" / "plugins").mkdir(parents=True)
    (tmp_path / "twisted" / "plugins" / "another_place.py").write_text(PLUGIN)
    command = ("env", f"PYTHONPATH={tmp_path}", *SERVE, "--echo=another:")
    start(*command).await_line("echo listens on nowhere")
    ended = outcome_of(*command, "--workers=2")
    assert ended.status == 1
    assert ended.err == (
        "sockproto: serve: echo cannot listen on 'another:':"
        " workers cannot share it; say --workers=1 (1)\n"
    )


PASS_SOCKET = """
import os, socket, sys
passed = socket.create_server(("127.0.0.1", 0))
os.dup2(passed.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(
    LISTEN_FDS="1", LISTEN_FDNAMES="echo", LISTEN_PID=str(os.getpid())
)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_passed_socket(start: Callable[..., Program]) -> None:
    """Workers accept from a socket of systemd's, and so do those that follow."""
    command = (sys.executable, "-c", PASS_SOCKET, *SERVE)
    server = start(*command, "--workers=2", "--echo=systemd:INET:name=echo")
    first, second = workers_of(server)
    port = server.port("echo")
    assert all(echoes(port) for _ in range(10))
    os.kill(first, signal.SIGKILL)
    server.await_line("Worker 1 serves again")
    os.kill(second, signal.SIGKILL)
    assert all(echoes(port) for _ in range(10))
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_systemd(serve: Callable[..., Program], systemd: socket.socket) -> None:
    """systemd hears once that all are ready, and once that all stop."""
    server = serve("--workers=2", f"--hello={PLACE}")
    assert systemd.recv(1000).startswith(b"READY=1\n")
    os.kill(workers_of(server)[0], signal.SIGKILL)
    server.await_line("Worker 1 serves again")
    server.signal(signal.SIGTERM)
    assert b"EXTEND_TIMEOUT_USEC=15000000" in systemd.recv(1000)
    assert server.wait() == 0
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(1000)


# The reactor


def test_no_uvloop(start: Callable[..., Program], tmp_path: Path) -> None:
    """Without uvloop the stock reactor serves, unless uvloop was asked for."""
    (tmp_path / "uvloop.py").write_text("raise ImportError('not here')")
    command = ("env", f"PYTHONPATH={tmp_path}", *SERVE, f"--echo={PLACE}")
    server = start(*command)
    assert echoes(server.port("echo"))
    assert "Running on Twisted's " in server.log
    for more in ((), ("--workers=2",)):
        ended = outcome_of(*command, "--reactor=uvloop", *more)
        assert ended.status == 2
        assert ended.err == (
            "sockproto: serve: --reactor=uvloop: uvloop is not installed;"
            " install sockproto[uvloop] (2)\n"
        )


@pytest.mark.parametrize(
    ("option", "name"),
    [("auto", "uvloop "), ("uvloop", "uvloop "), ("stock", "Twisted's ")],
)
def test_reactor(serve: Callable[..., Program], option: str, name: str) -> None:
    """The log says which reactor it is."""
    server = serve(f"--echo={PLACE}", f"--reactor={option}")
    assert echoes(server.port("echo"))
    server.await_line(f"Running on {name}")


def test_not_a_worker() -> None:
    """The variable of workers is of use to nobody else."""
    ended = outcome_of(
        *SOCKPROTO,
        "serve",
        f"--echo={PLACE}",
        env={**os.environ, "SOCKPROTO_WORKER": "x"},
    )
    assert ended.status == 2
    assert ended.err.startswith(
        "sockproto: serve: the variable SOCKPROTO_WORKER is 'x'"
    )
    assert ended.err.count("\n") == 1
