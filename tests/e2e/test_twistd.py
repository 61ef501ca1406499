"""
How the services start and stop, under `twistd`, `twist` and `sockproto serve`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from typing import TYPE_CHECKING

import pytest

from tests import TWISTD_USAGE_STATUS

from .programs import (
    PATIENCE,
    PLACE,
    SERVE,
    TWIST,
    TWISTD,
    Outcome,
    Program,
    connected,
    installed,
    is_refused,
    outcome_of,
    outcomes_of,
    read_exactly,
    read_to_end,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOREGROUND = (*TWISTD, "-n", "--pidfile=", "sockproto")
COMMANDS = {"twistd": FOREGROUND, "twist": TWIST, "serve": SERVE}

IN_USE = "it is in use; stop what listens there, or choose another"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        yield somebody.getsockname()[1]


# Places


def failures(*options: str, **more: object) -> dict[str, Outcome]:
    """
    Start the services in each way, side by side.
    """
    commands = [(*command, *options) for command in COMMANDS.values()]
    return dict(zip(COMMANDS, outcomes_of(commands, **more), strict=True))  # type: ignore[arg-type]


def check_place_failure(ended: dict[str, Outcome], what: str) -> None:
    """
    Each has exit status 1, and one plain line about the place.
    """
    for name, outcome in ended.items():
        complaints = [
            line for line in outcome.err.splitlines() if line.startswith("sockproto: ")
        ]
        expected = (
            f"sockproto: serve: {what} (1)" if name == "serve" else f"sockproto: {what}"
        )
        assert complaints == [expected], name
        assert outcome.status == 1, name
        everything = outcome.out.decode() + outcome.err
        assert "Traceback" not in everything, name
        assert everything.count(what) == 1, name


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("tcp:abc", "'abc' is no port number"),
        ("tcp:99999", "port 99999 is above 65535"),
        (
            "foo:1",
            (
                "'foo' is no kind of place;"
                " tcp, tcp6, unix, ssl, tls, systemd and haproxy are"
            ),
        ),
    ],
)
def test_no_place(place: str, problem: str) -> None:
    """A place that is not understood is one line, and exit status 1."""
    check_place_failure(
        failures(f"--echo={place}"), f"echo cannot listen on {place!r}: {problem}"
    )


def test_in_use(taken: int) -> None:
    """A port in use is one line, and exit status 1."""
    place = f"tcp:{taken}:interface=127.0.0.1"
    check_place_failure(
        failures(f"--echo={place}"), f"echo cannot listen on {place!r}: {IN_USE}"
    )


def test_no_such_interface() -> None:
    """An address that is not this machine's is one line, and exit status 1."""
    place = "tcp:0:interface=192.0.2.1"
    check_place_failure(
        failures(f"--hello={place}"),
        f"hello cannot listen on {place!r}:"
        " no interface of this machine has that address",
    )


def test_not_permitted() -> None:
    """Port 80 without the right to it is one line that says what it needs."""
    lowest = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if lowest.exists() and int(lowest.read_text()) <= 80:
        pytest.skip("anybody may listen on port 80 here")
    place = "tcp:80:interface=127.0.0.1"
    as_anybody: tuple[str, ...] = ()
    if os.geteuid() == 0:
        # Without the one right, and not as another user: who may not read our files.
        as_anybody = (installed("setpriv"), "--bounding-set=-net_bind_service")
    ended = dict(
        zip(
            COMMANDS,
            outcomes_of(
                (*as_anybody, *command, f"--echo={place}")
                for command in COMMANDS.values()
            ),
            strict=True,
        )
    )
    check_place_failure(
        ended,
        f"echo cannot listen on {place!r}:"
        " not permitted; a port below 1024 needs root or CAP_NET_BIND_SERVICE",
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_one_of_two(
    start: Callable[..., Program], command: str, taken: int, tmp_path: Path
) -> None:
    """When one place failed, the other is free for the next start."""
    path = tmp_path / "hello.sock"
    hello = f"--hello=unix:{path}"
    outcome = outcome_of(
        *COMMANDS[command], hello, f"--echo=tcp:{taken}:interface=127.0.0.1"
    )
    assert outcome.status == 1
    assert f"sockproto: {'serve: ' * (command == 'serve')}echo cannot" in outcome.err
    server = start(*COMMANDS[command], hello)
    server.await_line(f"hello listens on {path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert client.recv(1024) == b"Welcome!"


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_left(command: str, taken: int, tmp_path: Path) -> None:
    """When one place failed, the socket of another is gone, also without a lock."""
    path = tmp_path / "hello.sock"
    outcome = outcome_of(
        *COMMANDS[command],
        f"--hello=unix:{path}:lockfile=0",
        f"--echo=tcp:{taken}:interface=127.0.0.1",
    )
    assert outcome.status == 1
    assert IN_USE in outcome.err
    assert not path.exists()


LATE_PLUGIN = """\
import errno

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.task import deferLater
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IStreamServerEndpoint)
class Late:
    def __init__(self, reactor):
        self.reactor = reactor

    def listen(self, factory):
        return deferLater(self.reactor, 0.1, self.fail)

    def fail(self):
        raise CannotListenError("here", 1, OSError(errno.EADDRINUSE, "in use"))


@implementer(IPlugin, IStreamServerEndpointStringParser)
class Parser:
    prefix = "late"

    def parseStreamServer(self, reactor, *args, **kwargs):
        return Late(reactor)


parser = Parser()
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_late_failure(command: str, tmp_path: Path) -> None:
    """A plugin's place that fails after the start ends the process, with 1."""
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "late.py").write_text(LATE_PLUGIN)
    outcome = outcome_of(
        *COMMANDS[command],
        f"--hello={PLACE}",
        "--echo=late:1",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert outcome.status == 1, outcome
    everything = outcome.out.decode() + outcome.err
    assert everything.count(f"echo cannot listen on 'late:1': {IN_USE}") == 1
    assert "Traceback" not in everything


# Connections


@pytest.mark.parametrize("service", ["hello", "echo"])
def test_bad_proxy_header(serve: Callable[..., Program], service: str) -> None:
    """A PROXY header that is none resets its connection, and only that."""
    server = serve(f"--{service}=haproxy:{PLACE}", "--delay=0", "--greeting=")
    port = server.port(service)
    for header in (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 xx yy\r\n",
        b"PROXY TCP4 \xff 5.6.7.8 11 22\r\n",
        b"PROXY TCP4 e\x1b\n 5.6.7.8 11 22\r\n",
        b"Michael\n",
    ):
        with connected(port) as client:
            client.sendall(header)
            with pytest.raises(ConnectionResetError):
                read_to_end(client)
    until(lambda: server.log.count("Closing the connection from") == 4, "four lines")
    assert "\x1b" not in server.log
    assert "Traceback" not in server.log
    with connected(port) as client:
        client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 11 22\r\nMichael\n")
        client.shutdown(socket.SHUT_WR)
        assert b"Michael" in read_to_end(client)
    server.await_line(r"Accept new connection from 192\.0\.2\.1:11\.\.\.")


PASS_SOCKET = """
import os, socket, sys
passed = socket.create_server(("::1", 0), family=socket.AF_INET6)
os.dup2(passed.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(
    LISTEN_FDS="1", LISTEN_FDNAMES="hello", LISTEN_PID=str(os.getpid())
)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_passed_socket(start: Callable[..., Program]) -> None:
    """A socket of systemd's is served if it is what its place says, else refused."""
    command = (sys.executable, "-c", PASS_SOCKET, *SERVE)
    server = start(*command, "--hello=systemd:INET6:index=0", "--greeting=Hi")
    with socket.create_connection(("::1", server.port("hello")), PATIENCE) as client:
        assert read_exactly(client, 2) == b"Hi"
    server = start(*command, "--hello=systemd:INET:index=0", "--deny=::1")
    assert server.wait() == 1
    assert "the socket that systemd has passed is of systemd:INET6" in server.log


# Options


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ("--delay=-1",),
            "--delay: '-1' was given, where a number of seconds from 0 up is allowed",
        ),
        (
            ("--framing=x",),
            "--framing: 'x' was given, where auto, chunk, line or netstring is allowed",
        ),
        (
            ("--drain=1", "--delay=5"),
            (
                "--drain: '1' was given,"
                " where a number of seconds not below the delay (5) is allowed"
            ),
        ),
    ],
)
def test_wrong_option(options: tuple[str, ...], complaint: str) -> None:
    """A wrong option is named once, with what was seen and what is allowed."""
    ended = failures(*options)
    for name, outcome in ended.items():
        everything = outcome.out.decode() + outcome.err
        assert everything.count(complaint) == 1, name
        assert "Traceback" not in everything, name
    # EX_USAGE is twist's own.
    statuses = {name: outcome.status for name, outcome in ended.items()}
    assert statuses == {
        "twistd": TWISTD_USAGE_STATUS,
        "twist": os.EX_USAGE,
        "serve": 2,
    }
    assert ended["serve"].err == f"sockproto: serve: {complaint} (2)\n"


# Stopping


@pytest.mark.parametrize(
    ("command", "number", "status"),
    [
        ("twistd", SIGTERM, -SIGTERM),
        ("twistd", SIGINT, -SIGINT),
        ("twist", SIGTERM, -SIGTERM),
        ("twist", SIGINT, -SIGINT),
        ("serve", SIGTERM, 0),
        ("serve", SIGINT, 0),
        ("serve", SIGHUP, 0),
    ],
)
def test_signal(
    start: Callable[..., Program], command: str, number: signal.Signals, status: int
) -> None:
    """A signal closes the port at once; answers that are owed still come."""
    server = start(*COMMANDS[command], f"--hello={PLACE}", "--delay=0.8")
    port = server.port("hello")
    with connected(port) as client:
        client.sendall(b"Michael\n")
        # The LF that completes the greeting tells that the name has been read.
        assert read_exactly(client, 9) == b"Welcome!\n"
        server.signal(number)
        until(lambda: is_refused(port), "refusal", 0.7)
        assert read_to_end(client) == b"Hello, Michael!\n"
    assert server.wait() == status


@pytest.mark.parametrize("command", COMMANDS)
def test_second_signal(start: Callable[..., Program], command: str) -> None:
    """A second signal ends the process at once, whatever is owed."""
    server = start(*COMMANDS[command], f"--hello={PLACE}", "--delay=60", "--drain=60")
    port = server.port("hello")
    with connected(port) as client:
        client.sendall(b"Michael\n")
        assert read_exactly(client, 9) == b"Welcome!\n"
        server.signal(SIGTERM)
        until(lambda: is_refused(port), "refusal")
        server.signal(SIGTERM)
        assert server.wait() == -SIGTERM


@pytest.mark.parametrize("command", COMMANDS)
def test_background(start: Callable[..., Program], command: str) -> None:
    """What a shell's `&` starts with SIGINT ignored goes on ignoring it."""
    server = start(
        *COMMANDS[command],
        f"--echo={PLACE}",
        before=lambda: signal.signal(SIGINT, signal.SIG_IGN),
    )
    port = server.port("echo")
    with connected(port) as client:
        server.signal(SIGINT)
        client.sendall(b"still there?")
        assert client.recv(1024) == b"still there?"
    assert not is_refused(port)
    server.signal(SIGTERM)
    # Had it been draining already, SIGTERM would have been the second signal.
    assert server.wait() == (0 if command == "serve" else -SIGTERM)


@pytest.mark.parametrize("command", COMMANDS)
def test_drain(start: Callable[..., Program], command: str) -> None:
    """Amid slow transfers and delayed answers, every byte is delivered."""
    data = os.urandom(4 << 20)
    server = start(
        *COMMANDS[command], f"--hello={PLACE}", f"--echo={PLACE}", "--delay=0.8"
    )
    echo, hello = server.port("echo"), server.port("hello")
    with (
        contextlib.ExitStack() as clients,
        connected(echo) as transfer,
        ThreadPoolExecutor(1) as sender,
    ):
        sending = sender.submit(transfer.sendall, data)
        came = bytearray(transfer.recv(1024))
        named = [clients.enter_context(connected(hello)) for _ in range(10)]
        for client in named:
            client.sendall(b"Michael\nTracy\n")
            assert read_exactly(client, 9) == b"Welcome!\n"
        server.signal(SIGTERM)
        until(lambda: is_refused(echo) and is_refused(hello), "refusal", 0.7)
        for client in named:
            answers = read_to_end(client)
            assert answers == b"Hello, Michael!\nHello, Tracy!\n"
        # It stood still meanwhile; there is more to come.
        came += read_to_end(transfer)
        sending.result(PATIENCE)
        assert bytes(came) == data
    assert server.wait() == (0 if command == "serve" else -SIGTERM)


def test_drain_ends(serve: Callable[..., Program]) -> None:
    """Who does not read is cut off after the drain, with one line of the log."""
    server = serve(f"--echo={PLACE}", "--delay=0", "--drain=0.3")
    with connected(server.port("echo")) as client:
        client.settimeout(1)
        with contextlib.suppress(TimeoutError):
            client.sendall(bytes(64 << 20))
        server.signal(SIGTERM)
        assert server.wait() == 0
    assert server.log.count("Aborting 1 connection after 0.3 s of drain") == 1


# Daemons


class Daemon:
    """
    `twistd` as it is started without `-n`, with its files in a folder.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.pid_file = folder / "sockproto.pid"
        self._log_file = folder / "sockproto.log"
        self.outcome = outcome_of(
            *TWISTD,
            f"--pidfile={self.pid_file}",
            f"--logfile={self._log_file}",
            "sockproto",
            *options,
        )

    @property
    def log(self) -> str:
        return self._log_file.read_text() if self._log_file.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        os.kill(int(self.pid_file.read_text()), number)

    def end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.signal(signal.SIGKILL)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon with these options; it is killed in the end."""
    running: list[Daemon] = []

    def begin(*options: str) -> Daemon:
        running.append(Daemon(tmp_path, *options))
        return running[-1]

    yield begin
    for each in running:
        each.end()
        assert "Traceback" not in each.log, each.log


def test_daemon(daemon: Callable[..., Daemon]) -> None:
    """A daemon serves when its command returns, and removes its pid file in the end."""
    running = daemon(f"--echo={PLACE}")
    assert running.outcome == Outcome(0, b"", "")
    until(lambda: "listens on" in running.log, "the daemon's start")
    port = int(running.log.partition("listens on 127.0.0.1:")[2].partition(".")[0])
    with connected(port) as client:
        client.sendall(b"there?")
        assert client.recv(1024) == b"there?"
    running.signal(SIGTERM)
    until(lambda: not running.pid_file.exists(), "the pid file's removal")
    assert is_refused(port)


def test_daemon_in_use(daemon: Callable[..., Daemon], taken: int) -> None:
    """A daemon that cannot listen does not hang, and has one line in its log."""
    place = f"tcp:{taken}:interface=127.0.0.1"
    running = daemon(f"--echo={place}")
    assert running.outcome.status == 1
    assert "Traceback" not in running.outcome.err
    complaint = f"echo cannot listen on {place!r}: {IN_USE}"
    assert running.log.count(complaint) == 1
    # The command ends a moment before the daemon has removed it.
    until(lambda: not running.pid_file.exists(), "the pid file's removal")


def test_help_lists_the_plugin() -> None:
    """`twistd --help` knows the services by name."""
    outcome = outcome_of(*TWISTD, "--help")
    assert b"sockproto" in outcome.out
    assert (outcome.status, "Traceback" in outcome.err) == (0, False)
