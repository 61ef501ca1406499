"""
Real processes and bare sockets: what the tests of this folder are made of.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import termios
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable

__all__ = [
    "PATIENCE",
    "PLACE",
    "SERVE",
    "SOCKPROTO",
    "TWIST",
    "TWISTD",
    "Outcome",
    "Peer",
    "Program",
    "Terminal",
    "answering",
    "check_failure",
    "connected",
    "fetched",
    "installed",
    "is_refused",
    "on_free_ports",
    "outcome_of",
    "outcomes_of",
    "read_exactly",
    "read_request",
    "read_to_end",
    "until",
]

LOOPBACK = "127.0.0.1"
PLACE = f"tcp:0:interface={LOOPBACK}"

PATIENCE = 20.0
"""Seconds after which whatever is awaited counts as missing."""

_SCRIPT = Path(sys.executable).with_name("twistd")

TWISTD: tuple[str, ...] = (
    (str(_SCRIPT),)
    if _SCRIPT.exists()
    else (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
)
TWIST = (sys.executable, "-m", "twisted", "--log-format=text", "sockproto")
SOCKPROTO = (sys.executable, "-m", "sockproto")
SERVE = (*SOCKPROTO, "serve")


def installed(program: str) -> str:
    """
    Find a program; the test is skipped where it is not installed.
    """
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """
    Look again and again until something is so; return what it gave.
    """
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {patience:g} s"
        time.sleep(0.01)
    return found


class Program:
    """
    A process, from its start to its end, and all that it says.

    Args:
        command: what runs, and its arguments.
        before: called in the new process before the program.
    """

    def __init__(
        self, *command: str, before: Callable[[], object] | None = None
    ) -> None:
        self._said: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=before,  # noqa: PLW1509 - it takes no lock
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self._said.append(line.decode("utf-8", "replace"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def log(self) -> str:
        return "".join(self._said)

    def await_line(self, pattern: str) -> re.Match[str]:
        """Wait until something in the log matches."""

        def look() -> re.Match[str] | None:
            return re.search(pattern, self.log)

        with self._news:
            self._news.wait_for(lambda: look() or self._ended, PATIENCE)
        found = look()
        assert found is not None, f"no {pattern!r} in the log:\n{self.log}"
        return found

    def port(self, service: str) -> int:
        """Read from the log where a service listens."""
        return int(self.await_line(rf"\b{service} listens on \S+:(\d+)\.")[1])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end; returns the exit status, negative for a signal."""
        status = self.process.wait(patience)
        self._reader.join(patience)
        return status

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._reader.join()


def on_free_ports(
    count: int, begin: Callable[[list[int]], Program]
) -> tuple[Program, list[int]]:
    """
    Start a server that cannot choose its ports itself; returns when it listens.

    Args:
        count: how many ports it needs.
        begin: starts it on ports that were free just now.
    """
    while True:
        with contextlib.ExitStack() as taken:
            ports = [
                taken.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()
                for _ in range(count)
            ]
        numbers = [number for _, number in ports]
        program = begin(numbers)

        def has_settled(program: Program, numbers: list[int]) -> bool:
            over = program.process.poll() is not None
            return over or not any(map(is_refused, numbers))

        until(partial(has_settled, program, numbers), "a server on its ports")
        if program.process.poll() is None:
            return program, numbers
        program.end()
        assert "already in use" in program.log.lower(), program.log


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    How a program ended, and what it said.
    """

    status: int
    out: bytes
    err: str


def outcomes_of(
    commands: Iterable[Iterable[str]], given: bytes = b"", **options: Any
) -> list[Outcome]:
    """
    Run programs side by side, each to its end.

    Args:
        commands: of each, what runs and its arguments.
        given: their standard input.
        options: of `Popen`.
    """
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    running = [
        subprocess.Popen(list(command), stdin=subprocess.PIPE, **options)
        for command in commands
    ]
    try:
        outcomes = []
        for process in running:
            out, err = process.communicate(given, timeout=PATIENCE)
            text = (err or b"").decode("utf-8", "replace")
            outcomes.append(Outcome(process.returncode, out or b"", text))
        return outcomes
    finally:
        for process in running:
            process.kill()
            process.communicate()


def outcome_of(*command: str, given: bytes = b"", **options: Any) -> Outcome:
    """
    Run one program to its end.
    """
    return outcomes_of([command], given, **options)[0]


def fetched(
    folder: Path, *arguments: str, given: bytes = b"", **environment: str
) -> Outcome:
    """
    Run `sockproto fetch` in a folder, where nobody types.
    """
    return outcome_of(
        *SOCKPROTO,
        "fetch",
        *arguments,
        given=given,
        cwd=folder,
        env={**os.environ, **environment},
    )


def check_failure(outcome: Outcome, status: int, what: str = "") -> None:
    """
    The exit status, and a last line on standard error that says it too.
    """
    assert outcome.status == status, outcome
    last = outcome.err.splitlines()[-1]
    assert re.fullmatch(rf"sockproto: fetch: .*{what}.* \({status}\)", last), outcome
    assert "Traceback" not in outcome.err


def connected(port: int) -> socket.socket:
    """
    Connect to a port of this machine.
    """
    return socket.create_connection((LOOPBACK, port), PATIENCE)


def is_refused(port: int) -> bool:
    """
    Tell whether nobody listens at a port of this machine.
    """
    try:
        connected(port).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # it was in the queue when the port was closed
        pass
    return False


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """
    Read so many bytes, or fewer where end of file comes first.
    """
    came = bytearray()
    while len(came) < size and (part := connection.recv(size - len(came))):
        came += part
    return bytes(came)


def read_to_end(connection: socket.socket) -> bytes:
    """
    Read until end of file.
    """
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def read_request(connection: socket.socket) -> bytes:
    """
    Read the head of a request.
    """
    request = b""
    while b"\r\n\r\n" not in request and (part := connection.recv(4096)):
        request += part
    return request


class Peer:
    """
    A server of the test's own on `port`: it does to each connection as told.

    Args:
        talk: given the connection, which is closed when it returns.
        listening: where; at a free port of this machine, if not given.
    """

    def __init__(
        self,
        talk: Callable[[socket.socket], object],
        listening: socket.socket | None = None,
    ) -> None:
        self._talk = talk
        self._listening = listening or socket.create_server((LOOPBACK, 0))
        place = self._listening.getsockname()
        self.port: int = place[1] if isinstance(place, tuple) else 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(PATIENCE)
                self._talk(connection)


def answering(answer: bytes) -> Peer:
    """
    A server that gives this answer to any request, and closes.
    """

    def answer_one(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    return Peer(answer_one)


class Terminal:
    """
    A program with a terminal of its own, and the test at its keyboard.
    """

    def __init__(self, *command: str) -> None:
        self.keyboard, self._screen = os.openpty()
        self.shown = ""
        self._settings = termios.tcgetattr(self._screen)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            stdin=self._screen,
            stdout=self._screen,
            stderr=self._screen,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - as above
            env={**os.environ, "TERM": "xterm"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.keyboard)
        os.close(self._screen)

    @property
    def is_restored(self) -> bool:
        """Whether its settings are those from before the program."""
        return termios.tcgetattr(self._screen) == self._settings

    def type(self, keys: str) -> None:
        """Press keys; `\\r` is the enter key."""
        os.write(self.keyboard, keys.encode())

    def read(self, patience: float) -> bool:
        """Take what is shown next, if anything is in time."""
        if not select.select([self.keyboard], [], [], patience)[0]:
            return False
        self.shown += os.read(self.keyboard, 65_536).decode("utf-8", "replace")
        return True

    def await_shown(self, text: str, times: int = 1) -> None:
        """Wait until a text was shown so many times in all."""
        deadline = time.monotonic() + PATIENCE
        while self.shown.count(text) < times:
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown!r}"
            self.read(0.1)

    def wait(self) -> int:
        """Wait for its end, and take the rest of what it showed."""
        status = self.process.wait(PATIENCE)
        while self.read(0):
            pass
        return status
