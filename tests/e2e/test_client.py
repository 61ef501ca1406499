"""
The `sockproto` command as people run it, in scripts and on terminals.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .programs import (
    PATIENCE,
    PLACE,
    SERVE,
    SOCKPROTO,
    Outcome,
    Peer,
    Program,
    Terminal,
    outcome_of,
    outcomes_of,
    read_to_end,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Services:
    """
    Where the three services of this module listen, as `HOST:PORT`.
    """

    def __init__(self, server: Program) -> None:
        self.hello = f"127.0.0.1:{server.port('hello')}"
        self.echo = f"127.0.0.1:{server.port('echo')}"
        self.udp = f"127.0.0.1:{server.port('udp')}"


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """The services, one process for all tests of this module."""
    server = Program(
        *SERVE,
        f"--hello={PLACE}",
        f"--echo={PLACE}",
        "--udp=udp:0:interface=127.0.0.1",
        "--delay=0.05",
    )
    try:
        yield Services(server)
        assert "Traceback" not in server.log, server.log
    finally:
        server.end()


def ran(*arguments: str, given: bytes = b"") -> Outcome:
    """
    Run the command to its end.
    """
    return outcome_of(*SOCKPROTO, *arguments, given=given)


def check_failure(outcome: Outcome, command: str, status: int, what: str = "") -> None:
    """
    The exit status, and one line on standard error that says it too.
    """
    assert outcome.status == status, outcome
    pattern = rf"sockproto: {command}: [^\n]*{what}[^\n]* \({status}\)\n"
    assert re.fullmatch(pattern, outcome.err), outcome


# What works


def test_hello(services: Services) -> None:
    """The greeting and an answer a name go to standard output, a line each."""
    outcome = ran("hello", "-c", services.hello, "Michael", "Tracy", "Sarah")
    assert outcome == Outcome(
        0, b"Welcome!\nHello, Michael!\nHello, Tracy!\nHello, Sarah!\n", ""
    )


@pytest.mark.parametrize("framing", ["chunk", "line"])
def test_hello_pipe(services: Services, framing: str) -> None:
    """Names come from a pipe, a line each, up to the line `exit`."""
    outcome = ran(
        "hello",
        f"--connect={services.hello}",
        f"--framing={framing}",
        given=b"Michael\n\nTracy\nexit\nSarah\n",
    )
    assert outcome == Outcome(0, b"Welcome!\nHello, Michael!\nHello, Tracy!\n", "")


def test_hello_endpoint(services: Services) -> None:
    """ADDRESS may be any client endpoint description, and -4 goes with it."""
    host, _, port = services.hello.partition(":")
    outcome = ran("hello", "-4", "-c", f"tcp:{host}:{port}", "Michael")
    assert outcome == Outcome(0, b"Welcome!\nHello, Michael!\n", "")


def test_verbose(services: Services) -> None:
    """-v tells on standard error what happens on the socket."""
    outcome = ran("hello", "-v", "-c", services.hello, "Michael")
    assert outcome.out == b"Welcome!\nHello, Michael!\n"
    for words in (
        f"connected from 127.0.0.1:\\d+ to {services.hello}",
        "sent 7 bytes: b'Michael'",
        "received 15 bytes: b'Hello, Michael!'",
        "closed: ",
    ):
        assert re.search(words, outcome.err), outcome.err


def test_echo(services: Services) -> None:
    """From a pipe, all bytes come back as they are."""
    data = os.urandom(1 << 20)
    assert ran("echo", "-c", services.echo, given=data) == Outcome(0, data, "")


def test_connect(services: Services) -> None:
    """A raw conversation carries all bytes, and the end of input."""
    data = os.urandom(1 << 20)
    outcome = ran("connect", *services.echo.split(":"), given=data)
    assert outcome == Outcome(0, data, "")


def test_udp(services: Services) -> None:
    """One datagram a name, an answer a line."""
    outcome = ran("udp", "-c", services.udp, "Michael", "Tracy")
    assert outcome == Outcome(0, b"Hello, Michael!\nHello, Tracy!\n", "")


def test_light() -> None:
    """`--version` and `--help` answer without Twisted."""
    program = (
        "import sys\n"
        "from sockproto.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    questions = [("--version",), ("--help",), ("fetch", "--help"), ("hello", "-h")]
    for outcome in outcomes_of(
        (sys.executable, "-c", program, *question) for question in questions
    ):
        assert outcome.status == 0
        assert b"sockproto" in outcome.out or b"Usage: " in outcome.out
        modules = outcome.err.split()
        assert "click" in modules
        assert not [name for name in modules if name.split(".")[0] == "twisted"]


# What fails


@pytest.fixture
def refusing() -> Iterator[str]:
    """An address where nobody listens, and nobody else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def test_refused(refusing: str) -> None:
    """Where nobody listens, each command exits with 7."""
    host_port = refusing.split(":")
    commands = (
        ("hello", "-c", refusing, "Michael"),
        ("echo", "-c", refusing),
        ("connect", *host_port),
        ("fetch", f"http://{refusing}/"),
    )
    ended = outcomes_of((*SOCKPROTO, *command) for command in commands)
    for command, outcome in zip(commands, ended, strict=True):
        check_failure(outcome, command[0], 7, f"{refusing}: connection refused")
        assert outcome.out == b""


def test_udp_refused() -> None:
    """A UDP port that refuses is told of by the kernel: 7."""
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check_failure(ran("udp", "-c", f"127.0.0.1:{port}", "Michael"), "udp", 7)


def test_udp_silent() -> None:
    """A UDP port that never answers is asked so many times, then: 28."""
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        outcome = ran(
            "udp",
            f"--connect=127.0.0.1:{silent.getsockname()[1]}",
            "--timeout=0.05",
            "--tries=2",
            "Michael",
        )
        check_failure(outcome, "udp", 28, "2 times")
        assert [silent.recv(100) for _ in range(2)] == [b"Michael"] * 2
        with pytest.raises(BlockingIOError):
            silent.recv(100)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 70])
def test_unresolved(host: str) -> None:
    """A host name without an address, or that cannot have one: 6."""
    where = f"{host}:9"
    commands = (
        ("hello", "-c", where, "Michael"),
        ("udp", "-c", where, "Michael"),
        ("connect", *where.split(":")),
    )
    ended = outcomes_of((*SOCKPROTO, *command) for command in commands)
    for command, outcome in zip(commands, ended, strict=True):
        check_failure(outcome, command[0], 6, host)


def test_unresolved_fetch() -> None:
    """So it is with a URL."""
    outcome = ran("fetch", "http://nowhere.invalid:9/")
    check_failure(outcome, "fetch", 6, "nowhere.invalid")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("hello", "Michael\nTracy"), 2),
        (("hello", "--framing=line", "Michael\nTracy"), 2),
        (("hello", ""), 2),
        (("hello", "-c", "nothing", "Michael"), 2),
        (("hello", "--timeout=0", "Michael"), 2),
        (("udp", ""), 2),
        (("udp", "--tries=0", "Michael"), 2),
        (("connect", "127.0.0.1", "no-such-service"), 2),
        (("connect", "127.0.0.1", "99999"), 2),
        (("connect", "127.0.0.1"), 2),
        (("connect", "127.0.0.1", "\udcff"), 2),
        (("connect", "\udcff", "80"), 6),
        (("hello", "-c", "\udcff:80", "Michael"), 6),
        (("udp", "-c", "\udcff:80", "Michael"), 6),
        (("fetch", "gopher://127.0.0.1/"), 1),
        (("fetch", "http://127.0.0.1:x/"), 3),
    ],
)
def test_misuse(command: tuple[str, ...], status: int) -> None:
    """What cannot be asked for is refused before anything is said."""
    outcome = ran(*command)
    check_failure(outcome, command[0], status)
    assert outcome.out == b""


@pytest.mark.parametrize("into", ["closed", "full", "broken"])
def test_output(services: Services, into: str) -> None:
    """Standard output that is closed, full or broken: 23, and no traceback."""
    host, _, port = services.echo.partition(":")
    commands = (
        ("hello", "-c", services.hello, "Michael"),
        ("echo", "-c", services.echo),
        ("connect", host, port),
        ("udp", "-c", services.udp, "Michael"),
    )
    shell = ("sh", "-c", 'exec "$@" >&-', "sh") if into == "closed" else ()
    if into == "broken":
        reader, out = os.pipe()
        os.close(reader)
    else:
        out = os.open("/dev/full", os.O_WRONLY)
    try:
        ended = outcomes_of(
            ((*shell, *SOCKPROTO, *command) for command in commands),
            b"Michael\n",
            stdout=out,
        )
    finally:
        os.close(out)
    for command, outcome in zip(commands, ended, strict=True):
        check_failure(outcome, command[0], 23, "standard output")


def test_greeting_is_not_written(services: Services) -> None:
    """A greeting that nobody waits for has to be written all the same: 23."""
    command = (*SOCKPROTO, "hello", "--framing=line", "-c", services.hello)
    with Path("/dev/full").open("wb") as full:
        check_failure(outcome_of(*command, stdout=full), "hello", 23)


def test_input_that_cannot_be_read(services: Services) -> None:
    """Standard input that is open for writing alone: 26, and no traceback."""
    commands = (
        ("hello", "-c", services.hello),
        ("udp", "-c", services.udp),
        ("echo", "-c", services.echo),
        ("connect", *services.echo.split(":")),
    )
    shell = ("sh", "-c", 'exec "$@" 0>/dev/null', "sh")
    ended = outcomes_of((*shell, *SOCKPROTO, *command) for command in commands)
    for command, outcome in zip(commands, ended, strict=True):
        check_failure(outcome, command[0], 26, "standard input")


def says_welcome(connection: socket.socket) -> None:
    connection.sendall(b"Welcome!")
    connection.recv(1024)


def resets(connection: socket.socket) -> None:
    connection.sendall(b"Welcome!")
    connection.recv(1024)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reads_some(connection: socket.socket) -> None:
    connection.recv(1024)


@pytest.mark.parametrize(
    ("talk", "status"),
    [
        (says_welcome, 18),
        (reads_some, 52),
        (resets, 56),
        (read_to_end, 28),
    ],
)
def test_hello_peers(talk: Callable[[socket.socket], object], status: int) -> None:
    """A peer that leaves owing: 18; without a word: 52; resets: 56; is silent: 28."""
    with Peer(talk) as peer:
        where = f"127.0.0.1:{peer.port}"
        options = ("--timeout=0.5",) if status == 28 else ()
        # One that waits for a greeting has said nothing itself.
        if status == 52:
            options = ("--no-greeting",)
        outcome = ran("hello", *options, "-c", where, "Michael")
    check_failure(outcome, "hello", status)


def echoes_some(connection: socket.socket) -> None:
    read_to_end(connection)
    connection.sendall(b"Mic")


def echoes_none(connection: socket.socket) -> None:
    read_to_end(connection)


def echoes_and_stalls(connection: socket.socket) -> None:
    connection.sendall(connection.recv(3))
    reset = select.poll()
    reset.register(connection, 0)
    reset.poll(PATIENCE * 1000)


@pytest.mark.parametrize(
    ("talk", "status", "out"),
    [
        (echoes_some, 18, b"Mic"),
        (echoes_none, 52, b""),
        (resets, 56, None),
        (echoes_and_stalls, 28, b"Mic"),
    ],
)
def test_echo_peers(
    talk: Callable[[socket.socket], object], status: int, out: bytes | None
) -> None:
    """The same of an echo; what came is written first."""
    with Peer(talk) as peer:
        options = ("--timeout=0.5",) if status == 28 else ()
        outcome = ran(
            "echo", *options, "-c", f"127.0.0.1:{peer.port}", given=b"Michael"
        )
    check_failure(outcome, "echo", status)
    if out is not None:
        assert outcome.out == out


def test_peer_that_ends_first() -> None:
    """A peer that has ended its side, and listens on, gets all of the input."""
    heard = bytearray()

    def listens(connection: socket.socket) -> None:
        connection.sendall(b"go on")
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65_536):
            heard.extend(data)

    given = bytes(range(256)) * 8_192
    with Peer(listens) as peer:
        outcome = ran("connect", "127.0.0.1", str(peer.port), given=given)
    assert (outcome.status, outcome.out) == (0, b"go on")
    assert bytes(heard) == given


# Terminals


def talked(command: str, services: Services) -> tuple[str, ...]:
    """
    The arguments of a command that talks to our services.
    """
    where: str = getattr(services, command)
    return (*SOCKPROTO, command, "-c", where)


PROMPTS = {"hello": "name>", "udp": "name>", "echo": "input>"}


@pytest.mark.parametrize("command", PROMPTS)
def test_prompt(services: Services, command: str) -> None:
    """A prompt takes lines with a history, and Ctrl-D leaves with 0."""
    prompt = PROMPTS[command]
    answer = "\r\nMichael\r\n" if command == "echo" else "Hello, Michael!\r\n"
    with Terminal(*talked(command, services)) as terminal:
        terminal.await_shown(prompt)
        terminal.type("Michaelx\x7f\r")
        terminal.await_shown(answer)
        terminal.await_shown(prompt, 2)
        terminal.type("\x1b[A")
        # Typed, answered, and brought back.
        terminal.await_shown("Michael", 3)
        terminal.type("\r")
        terminal.await_shown(answer, 2)
        terminal.await_shown(prompt, 3)
        terminal.type("\x04")
        assert terminal.wait() == 0
        assert terminal.is_restored
        assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("command", ["hello", "echo"])
def test_exit(services: Services, command: str) -> None:
    """`exit` at a prompt leaves."""
    with Terminal(*talked(command, services)) as terminal:
        terminal.await_shown(PROMPTS[command])
        terminal.type("exit\r")
        assert terminal.wait() == 0
        assert terminal.is_restored


@pytest.mark.parametrize("command", PROMPTS)
def test_interrupt(services: Services, command: str) -> None:
    """Ctrl-C at a prompt: 130, one line, and the terminal as it was."""
    with Terminal(*talked(command, services)) as terminal:
        terminal.await_shown(PROMPTS[command])
        terminal.type("Mich\x03")
        assert terminal.wait() == 130
        assert terminal.is_restored
        shown = terminal.shown
    assert shown.endswith(f"\r\nsockproto: {command}: interrupted (130)\r\n")
    assert shown.count("interrupted") == 1
    assert "Traceback" not in shown


@pytest.mark.parametrize("command", ["hello", "connect"])
def test_interrupt_waiting(command: str) -> None:
    """Ctrl-C while a silent peer is awaited ends the command too."""
    with Peer(says_welcome_and_waits) as peer:
        where = (
            ("-c", f"127.0.0.1:{peer.port}", "Michael")
            if command == "hello"
            else ("127.0.0.1", str(peer.port))
        )
        with Terminal(*SOCKPROTO, command, *where) as terminal:
            terminal.await_shown("Welcome!")
            terminal.type("\x03")
            assert terminal.wait() == 130
            assert terminal.is_restored
            shown = terminal.shown
    assert shown.endswith(f"sockproto: {command}: interrupted (130)\r\n")
    assert "Traceback" not in shown


def says_welcome_and_waits(connection: socket.socket) -> None:
    connection.sendall(b"Welcome!")
    read_to_end(connection)


def test_connect_terminal(services: Services) -> None:
    """A raw conversation on a terminal ends with Ctrl-D."""
    with Terminal(*SOCKPROTO, "connect", *services.echo.split(":")) as terminal:
        terminal.type("Michael\r")
        terminal.await_shown("Michael\r\n", 2)
        terminal.type("\x04")
        assert terminal.wait() == 0


def says_escapes(connection: socket.socket) -> None:
    connection.sendall(b"\x1b[2JWelcome\x07!")
    connection.recv(1024)
    connection.sendall(b"\x9b1m\xff")
    connection.recv(1024)


def test_escapes() -> None:
    """What a peer sends is escaped on a terminal, and exact in a pipe."""
    with Peer(says_escapes) as peer:
        command = ("hello", "-c", f"127.0.0.1:{peer.port}", "Michael")
        assert ran(*command).out == b"\x1b[2JWelcome\x07!\n\x9b1m\xff\n"
        with Terminal(*SOCKPROTO, *command) as terminal:
            assert terminal.wait() == 0
            shown = terminal.shown
    assert shown == "\\x1b[2JWelcome\\x07!\r\n\\x9b1m\\xff\r\n"


def test_peer_leaves_at_prompt() -> None:
    """A service that goes while we are asked for a name is told of, not waited for."""
    asked = threading.Event()

    def greets_and_leaves(connection: socket.socket) -> None:
        connection.sendall(b"Welcome!")
        asked.wait(PATIENCE)

    with (
        Peer(greets_and_leaves) as peer,
        Terminal(*SOCKPROTO, "hello", "-c", f"127.0.0.1:{peer.port}") as terminal,
    ):
        terminal.await_shown("name>")
        asked.set()
        status = terminal.wait()
        assert status != 0
        assert terminal.is_restored
        assert re.search(
            rf"\nsockproto: hello: [^\n]+ \({status}\)\r\n$", terminal.shown
        )
        assert "Traceback" not in terminal.shown
