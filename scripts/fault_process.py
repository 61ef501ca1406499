"""
Sets the clock, sends signals and kills, and looks what becomes of the services.

    python scripts/fault_process.py [--only NAME]

Each run starts real servers on loopback, and prints what was measured beside its
bound. The exit status is 1 if a bound was broken. Linux: it reads /proc. Setting
the clock takes libfaketime (Debian: apt install faketime); nobody else's is set.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from servers import (
    KIB,
    LOOPBACK,
    MIB,
    PATIENCE,
    PLACE,
    SERVE,
    TWISTD,
    Row,
    Server,
    certificate_files,
    connected,
    echoes,
    is_until,
    read_to_end,
    run_named,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UDP_PLACE = f"udp:0:interface={LOOPBACK}"
TWIST = (
    sys.executable,
    "-c",
    "from twisted.application.twist._twist import Twist; Twist.main()",
    "--log-format=text",
    "sockproto",
)
COMMANDS = {"serve": SERVE, "twistd -n": TWISTD}
NEVER = float("inf")


def with_environment(command: tuple[str, ...], **values: str) -> tuple[str, ...]:
    """Have a command run with some variables set."""
    return ("env", *(f"{name}={value}" for name, value in values.items()), *command)


def seconds_text(seconds: float) -> str:
    """Spell a time that may not have come."""
    return "never" if seconds == NEVER else f"{seconds:.2f} s"


# A clock that is set


class FakeTime:
    """
    A time of day that can be set while programs run; for those alone.

    Args:
        folder: a scratch one.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "time"
        self.set(0)

    @staticmethod
    def library() -> str | None:
        """Find libfaketime."""
        places = itertools.chain(
            Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
            Path("/usr/local/lib").glob("faketime/libfaketime.so.1"),
        )
        return next(map(str, places), None)

    def set(self, seconds: float) -> None:
        """Have it so far from what it is."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)

    def around(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Have a command believe it."""
        return with_environment(
            command,
            LD_PRELOAD=self.library() or "",
            FAKETIME_TIMESTAMP_FILE=str(self._file),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
        )


JUMPS = {"+1 h": 3_600, "-1 h": -3_600, "+1 day": 86_400}
JUMP_AFTER = 0.5
IDLE, DELAY, DRAIN = 5, 1, 4
RATE_KIB, UDP_RATE = 64, 10
TRANSFER_SECONDS = 3
LIMITS = (
    f"--idle={IDLE}",
    f"--delay={DELAY}",
    f"--drain={DRAIN}",
    f"--rate={RATE_KIB}K",
    f"--udp-rate={UDP_RATE}",
)
MOST_DATAGRAMS = 20
"""What comes in a second, and what came until the jump; a full bucket has 50."""

TAC = f"""
from twisted.application.service import Application
from twisted.internet import reactor
from sockproto import Settings, make_service

application = Application("hello")
place = "tcp:0:interface={LOOPBACK}"
settings = Settings(
    hello=place, echo=place, udp="udp:0:interface={LOOPBACK}", idle={IDLE},
    delay={DELAY}, drain={DRAIN}, rate={RATE_KIB * KIB}, udp_rate={UDP_RATE},
)
make_service(settings, reactor).setServiceParent(application)
"""


@dataclass
class Times:
    """
    What took how long over a jump of the clock; seconds.
    """

    idle: float = NEVER
    answer: float = NEVER
    later_answer: float = NEVER
    transfer: float = NEVER
    datagrams: int = -1
    drain: float = NEVER
    debt_kept: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nothing came early or late."""
        return (
            not self.problems
            and IDLE - 0.1 <= self.idle <= IDLE + 1
            and abs(self.answer - DELAY) <= 0.3
            and abs(self.later_answer - DELAY) <= 0.3
            and abs(self.transfer - TRANSFER_SECONDS) <= 0.5
            and 1 <= self.datagrams <= MOST_DATAGRAMS
            and abs(self.drain - DRAIN) <= 0.6
        )

    def __str__(self) -> str:
        problems = "".join(f"; {each}" for each in self.problems)
        return (
            f"idle ended {seconds_text(self.idle)}, answers"
            f" {seconds_text(self.answer)} and {seconds_text(self.later_answer)},"
            f" transfer {seconds_text(self.transfer)}, {self.datagrams} datagrams"
            f" in a second, drain {seconds_text(self.drain)}{problems}"
        )


def timed(action: Callable[[], bool]) -> float:
    """Measure how long something takes; NEVER if it does not come about."""
    began = time.monotonic()
    try:
        well = action()
    except OSError:
        well = False
    return time.monotonic() - began if well else NEVER


def greets(port: int) -> float:
    """Measure how long a name waits for its answer."""
    with connected(port, 8) as connection:
        came = connection.recv(KIB)

        def ask() -> bool:
            nonlocal came
            connection.sendall(b"Anna\n")
            while b"Anna" not in came and (part := connection.recv(KIB)):
                came += part
            return came == b"Welcome!\nHello, Anna!\n"

        return timed(ask)


def idles(port: int) -> float:
    """Measure how long somebody who says nothing may stay."""
    with connected(port, IDLE + 3) as connection:
        connection.recv(KIB)
        return timed(lambda: connection.recv(KIB) == b"")


def transfers(port: int) -> float:
    """Measure how long the rate makes an echo take."""
    data = os.urandom(TRANSFER_SECONDS * RATE_KIB * KIB)

    def transfer() -> bool:
        sender = threading.Thread(target=send)
        sender.start()
        came = bytearray()
        with contextlib.suppress(OSError):
            while len(came) < len(data) and (part := connection.recv(MIB)):
                came += part
        connection.close()
        sender.join()
        return bytes(came) == data

    def send() -> None:
        with contextlib.suppress(OSError):
            connection.sendall(data)

    with connected(port, 8) as connection:
        return timed(transfer)


def bucket(port: int, jumped: threading.Event) -> int:
    """Empty a source's bucket, and count what it lets through after the jump."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.02)
        asking.connect((LOOPBACK, port))

        def answers() -> int:
            count = 0
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                asking.send(b"Anna")
                with contextlib.suppress(TimeoutError):
                    asking.recv(KIB)
                    count += 1
            return count

        answers()
        jumped.wait()
        return answers()


def stuck(port: int, seconds: float = 2.0) -> socket.socket:
    """Have an echo owe us something that we do not take."""
    connection = connected(port)
    connection.setblocking(False)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            connection.send(bytes(64 * KIB))
        except BlockingIOError:
            time.sleep(0.05)
    return connection


def through_a_jump(
    command: tuple[str, ...], options: tuple[str, ...], by: int
) -> Times:
    """
    Measure what waits for the time while it is set.
    """
    times = Times()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "service.tac").write_text(TAC)
        command = tuple(each.replace("FOLDER", name) for each in command)
        clock = FakeTime(folder)
        jumped = threading.Event()
        with (
            Server(*options, command=clock.around(command)) as server,
            ThreadPoolExecutor(8) as pool,
        ):
            hello, echo = server.port("hello"), server.port("echo")
            udp = server.port("udp")
            idle = pool.submit(idles, hello)
            transfer = pool.submit(transfers, echo)
            datagrams = pool.submit(bucket, udp, jumped)
            time.sleep(1.2 - JUMP_AFTER)
            answer = pool.submit(greets, hello)
            time.sleep(JUMP_AFTER)
            clock.set(by)
            jumped.set()
            times.answer = answer.result()
            times.datagrams = datagrams.result()
            times.later_answer = greets(hello)
            times.transfer = transfer.result()
            times.idle = idle.result()
            with stuck(echo):
                # Back again, amid the drain.
                server.process.terminate()
                times.drain = timed(lambda: drained(server, clock))
            if not server.is_clean:
                times.problems.append("a traceback")
    return times


def drained(server: Server, clock: FakeTime) -> bool:
    """Set the clock amid a drain, and wait for the end."""
    time.sleep(DRAIN / 4)
    clock.set(0)
    try:
        server.process.wait(DRAIN + 5)
    except subprocess.TimeoutExpired:
        return False
    return True


def clock() -> Iterator[Row]:
    """
    Nothing comes early or late when the time of day is set.
    """
    if FakeTime.library() is None:
        yield Row("the clock is set", "libfaketime is not installed", "-", ok=True)
        return
    places = (f"--hello={PLACE}", f"--echo={PLACE}", f"--udp={UDP_PLACE}", *LIMITS)
    tac = (*TWISTD[:-1], "-y", "FOLDER/service.tac")
    for name, command, options in (
        *((name, command, places) for name, command in COMMANDS.items()),
        ("twist", TWIST, places),
        ("a .tac, by Twisted's clock", tac, ()),
    ):
        with ThreadPoolExecutor(len(JUMPS)) as pool:
            jumps = [
                pool.submit(through_a_jump, command, options, by)
                for by in JUMPS.values()
            ]
            for jump, coming in zip(JUMPS, jumps, strict=True):
                times = coming.result()
                ours = bool(options)
                yield Row(
                    f"clock {jump}, {name}",
                    str(times),
                    f"{IDLE}-{IDLE + 1} s, {DELAY} +- 0.3 s, {TRANSFER_SECONDS} +-"
                    f" 0.5 s, 1 to {MOST_DATAGRAMS}, {DRAIN} +- 0.6 s"
                    if ours
                    else "none (known)",
                    times.well or not ours,
                )


# Signals

END_SECONDS = 8.0
"""Who has not ended by then does not end; longer than any drain here."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class End:
    """
    How a process has ended: its status, the seconds from the signal, what it left.
    """

    status: int | None
    seconds: float
    left: tuple[str, ...]
    clean: bool
    last_line: str = ""

    @property
    def is_stopped_twice(self) -> bool:
        """Whether Twisted has heard of both signals before it began to stop."""
        return "ReactorNotRunning" in self.last_line

    @property
    def is_interrupt(self) -> bool:
        """Whether it is Python's own way to end of a SIGINT."""
        return self.last_line.endswith("KeyboardInterrupt")

    def __str__(self) -> str:
        marks = "" if self.clean else f" with a traceback ({self.last_line})"
        marks += f", left {' '.join(self.left)}" if self.left else ""
        status = "no end" if self.status is None else str(self.status)
        return f"{status} after {self.seconds:.2f} s{marks}"


class EndedServer(Server):
    """
    A server whose whole log can be waited for.
    """

    def await_end(self) -> None:
        """Wait until all that it has said is read, after its end."""
        self._reader.join(PATIENCE)


def ended(server: EndedServer, folder: Path, began: float) -> End:
    """
    Wait for a process to end.
    """
    try:
        status = server.process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        status = None
    seconds = time.monotonic() - began
    if status is not None:
        server.await_end()
    errors = re.findall(
        r"(?m)^.*?((?:\w+\.)*\w*(?:Error|Interrupt|Running)\b[^()\n]*)$", server.log
    )
    # A lock is a link to nowhere: that it is there is what counts.
    left = tuple(sorted(os.listdir(folder)))  # noqa: PTH208
    return End(status, seconds, left, server.is_clean, "".join(errors[-1:]))


def unignore() -> None:
    """
    Have our children heed what a shell's `&` or nohup has us ignore.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def with_pid_file(command: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Have twistd write one."""
    return tuple(
        each + str(folder / "pid") if each == "--pidfile=" else each for each in command
    )


def startup_end(
    command: tuple[str, ...], number: signal.Signals, after: float | None
) -> End:
    """
    Send a signal so long after the start, or when the last place listens.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = (f"--echo=unix:{name}/echo.sock", f"--hello={PLACE}")
        started = time.monotonic()
        with EndedServer(*places, command=with_pid_file(command, folder)) as server:
            if after is None:
                server.await_line("echo listens on")
            else:
                time.sleep(max(0.0, started + after - time.monotonic()))
            began = time.monotonic()
            server.process.send_signal(number)
            return ended(server, folder, began)


STEP = 0.05


def start() -> Iterator[Row]:
    """
    A signal ends it at each moment of its start, with a status that says so.
    """
    unignore()
    for name, command in COMMANDS.items():
        began = time.monotonic()
        with Server(f"--echo={PLACE}", command=command) as server:
            server.port("echo")
            needed = time.monotonic() - began
        moments: list[float | None] = [
            STEP * step for step in range(int(needed / STEP) + 3)
        ]
        moments += [None] * 3
        for number in SIGNALS:
            ends = [startup_end(command, number, after) for after in moments]
            slowest = max(end.seconds for end in ends)
            known = {0, -number} | ({130} if number is signal.SIGINT else set())
            # twistd writes its pid file before it calls us, and leaves SIGHUP alone.
            twistd = name != "serve"
            may_leave = twistd and number is signal.SIGHUP
            broken = [
                (after, end)
                for after, end in zip(moments, ends, strict=True)
                if end.status not in (known | {1} if end.is_interrupt else known)
                or not (end.clean or end.is_interrupt)
                or (set(end.left) - ({"pid"} if twistd else set()) and not may_leave)
            ]
            statuses = Counter(end.status for end in ends)
            figure = ", ".join(f"{n} times {status}" for status, n in statuses.items())
            interrupted = sum(end.is_interrupt for end in ends)
            if interrupted:
                figure += f"; {interrupted} with Python's KeyboardInterrupt"
            left = sum(bool(end.left) for end in ends)
            if left:
                figure += f"; {left} left files"
            for after, end in broken:
                when = "as it listens" if after is None else f"at {after:.2f} s"
                figure += f"; {when}: {end}"
            yield Row(
                f"{number.name} at {len(ends)} moments of the start, {name}",
                f"{figure}; the slowest after {slowest:.2f} s",
                f"{' or '.join(map(str, sorted(known)))}, 2 s"
                + (
                    ", may leave files (known)"
                    if may_leave
                    else ", no socket left"
                    if twistd
                    else ", nothing left"
                ),
                slowest <= 2 and not broken,
            )


STOP_DELAY, STOP_DRAIN = 1, 4
Finish: TypeAlias = "Callable[[], str]"
"""Says what a client had of it; it begins with `lost` if that is too little."""


@contextlib.contextmanager
def nobody(_: Server) -> Iterator[Finish]:
    """Nobody is connected."""
    yield lambda: ""


@contextlib.contextmanager
def waits(server: Server) -> Iterator[Finish]:
    """Somebody waits for a delayed answer."""
    with (
        connected(server.port("hello")) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        connection.sendall(b"Anna\n")

        def read() -> str:
            answered = b""
            with connection, contextlib.suppress(ConnectionError):
                answered = read_to_end(connection)
            return "" if b"Hello, Anna!" in answered else "lost the answer"

        reading = pool.submit(read)
        time.sleep(0.3)
        yield lambda: reading.result(PATIENCE)


@contextlib.contextmanager
def echo_goes_on(server: Server) -> Iterator[Finish]:
    """Somebody is amid 16 MiB, and reads with pauses."""
    data = os.urandom(16 * MIB)
    with (
        connected(server.port("echo")) as connection,
        ThreadPoolExecutor(2) as pool,
    ):

        def send() -> None:
            with contextlib.suppress(OSError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)

        def read() -> str:
            came = bytearray()
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(256 * KIB):
                    came += part
                    time.sleep(0.01)
            return "" if came == data else f"lost {len(data) - len(came)} bytes"

        pool.submit(send)
        reading = pool.submit(read)
        time.sleep(0.3)
        yield lambda: reading.result(PATIENCE)


@contextlib.contextmanager
def crowd(server: Server) -> Iterator[Finish]:
    """Eight threads connect, ask and leave, again and again."""
    port = server.port("echo")
    counts: Counter[str] = Counter()

    def come_and_go() -> None:
        while True:
            try:
                connection = connected(port, 5)
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"there?")
                served = connection.recv(KIB) == b"there?"
                counts["served" if served else "ended"] += 1
                continue
            counts["reset"] += 1

    with ThreadPoolExecutor(8) as pool:
        coming = [pool.submit(come_and_go) for _ in range(8)]
        time.sleep(0.3)

        def finish() -> str:
            for each in coming:
                each.result(PATIENCE)
            # One that the kernel has taken and we have not is reset as the port closes.
            return f"{counts['served']} served, {counts['ended'] + counts['reset']} not"

        yield finish


@contextlib.contextmanager
def handshake(server: Server) -> Iterator[Finish]:
    """Somebody has sent half of what TLS begins with."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    hello = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    with connected(server.port("echo")) as connection:
        connection.sendall(outgoing.read()[:100])
        time.sleep(0.3)

        def finish() -> str:
            with contextlib.suppress(ConnectionError):
                read_to_end(connection)
            return ""

        yield finish


MOMENTS = {
    "nobody is there": nobody,
    "an answer is awaited": waits,
    "16 MiB are echoed": echo_goes_on,
    "a crowd comes": crowd,
    "half a TLS handshake": handshake,
}


def options_for(moment: str, folder: Path, files: tuple[str, str, str]) -> list[str]:
    """
    Say how a server is started for a moment.
    """
    _, certificate, key = files
    tls = f"ssl:0:interface={LOOPBACK}:privateKey={key}:certKey={certificate}"
    return [
        f"--echo={tls if 'TLS' in moment else PLACE}",
        f"--hello={PLACE}",
        f"--hello=unix:{folder}/hello.sock",
        f"--delay={STOP_DELAY}",
        f"--drain={STOP_DRAIN}",
    ]


def signals() -> Iterator[Row]:
    """
    A signal drains at each moment, and a second one ends it at once.
    """
    unignore()
    with tempfile.TemporaryDirectory() as name:
        files = certificate_files(Path(name))
        for command, moment in itertools.product(COMMANDS, MOMENTS):
            yield moment_row(command, moment, files)
        for command in COMMANDS:
            yield from second_rows(command, files)


def at_moment(
    command: str, moment: str, files: tuple[str, str, str], number: signal.Signals
) -> tuple[End, str]:
    """
    Send a signal amid something; return the end, and what the client had of it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = options_for(moment, folder, files)
        running = with_pid_file(COMMANDS[command], folder)
        with EndedServer(*options, command=running) as server:
            server.await_line("hello listens on /")
            time.sleep(0.1)  # until its reactor heeds signals
            with MOMENTS[moment](server) as finish:
                began = time.monotonic()
                server.process.send_signal(number)
                end = ended(server, folder, began)
                return end, finish()


def moment_row(command: str, moment: str, files: tuple[str, str, str]) -> Row:
    """
    Send each signal amid something.
    """
    told, well = [], True
    for number in SIGNALS:
        end, had = at_moment(command, moment, files, number)
        # twistd leaves SIGHUP to the system; it says so itself.
        known = command != "serve" and number is signal.SIGHUP
        status = 0 if command == "serve" else -number
        told.append(f"{number.name} {end}" + (f" ({had})" if had else ""))
        well &= end.status == status and end.clean and end.seconds <= STOP_DRAIN
        well &= known or (not had.startswith("lost") and not end.left)
    return Row(
        f"{command}: {moment}",
        "; ".join(told),
        (
            "0"
            if command == "serve"
            else "dies by the signal; SIGHUP without cleaning up (known)"
        )
        + f", {STOP_DRAIN} s, nothing lost or left",
        well,
    )


def second_rows(command: str, files: tuple[str, str, str]) -> Iterator[Row]:
    """
    Send a second signal amid the drain, and hard on the heels of the first.
    """
    firsts = SIGNALS if command == "serve" else SIGNALS[:2]
    pairs = list(itertools.product(firsts, SIGNALS))
    ends = [(pair, second_end(command, files, pair, 0.5, hold=True)) for pair in pairs]
    slowest = max(end.seconds for _, end in ends)
    wrong = [
        f"{one.name}, {other.name}: {end}"
        for (one, other), end in ends
        if end.status != -other or not end.clean or set(end.left) - {"pid"}
    ]
    yield Row(
        f"{command}: a second amid the drain, {len(ends)} pairs",
        f"{len(ends) - len(wrong)} died by the second, the slowest after"
        f" {slowest:.2f} s" + "".join(f"; {each}" for each in wrong),
        "all, 0.5 s, no socket left",
        not wrong and slowest <= 0.5,
    )
    gaps = (0.0, 0.0002, 0.001, 0.01, 0.1)
    ends = [
        (pair, second_end(command, files, pair, gap, hold=False))
        for gap in gaps
        for pair in pairs
    ]
    slowest = max(end.seconds for _, end in ends)
    statuses = Counter(end.status for _, end in ends)
    wrong = [
        f"{one.name}, {other.name}: {end}"
        for (one, other), end in ends
        if end.status not in {0, -one, -other}
        or not (end.clean or (command != "serve" and end.is_stopped_twice))
    ]
    told_twice = sum(end.is_stopped_twice for _, end in ends)
    left = sum(bool(set(end.left) - {"pid"}) for _, end in ends)
    yield Row(
        f"{command}: two within 0 to 100 ms, nobody there, {len(ends)} pairs",
        ", ".join(f"{n} times {status}" for status, n in sorted(statuses.items()))
        + f"; the slowest after {slowest:.2f} s; {left} left their unix socket"
        + (f"; {told_twice} with Twisted's ReactorNotRunning" if told_twice else "")
        + "".join(f"; {each}" for each in wrong),
        "0 or one of the two, 1 s, no traceback"
        + ("" if command == "serve" else " but Twisted's (known)"),
        not wrong and slowest <= 1,
    )


def second_end(
    command: str,
    files: tuple[str, str, str],
    pair: tuple[signal.Signals, signal.Signals],
    gap: float,
    *,
    hold: bool,
) -> End:
    """
    Send two signals; the seconds are from the second.

    Args:
        hold: have a client that the drain has to wait for.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as clients:
        folder = Path(name)
        options = options_for("", folder, files)
        running = with_pid_file(COMMANDS[command], folder)
        with EndedServer(*options, command=running) as server:
            server.await_line("hello listens on /")
            time.sleep(0.1)
            if hold:
                clients.enter_context(stuck(server.port("echo"), 0.3))
            server.process.send_signal(pair[0])
            time.sleep(gap)
            began = time.monotonic()
            server.process.send_signal(pair[1])
            return ended(server, folder, began)


# Kill and restart

CLIENTS, ROUNDS = 200, 20


class Senders:
    """
    Clients that send and read for as long as they are served, in a thread.

    Args:
        connect: makes one.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connections = [connect() for _ in range(CLIENTS)]
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self.echoed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _talk(self) -> None:
        data = bytes(KIB)
        with selectors.DefaultSelector() as ready:
            for connection in self._connections:
                connection.sendall(data)
                ready.register(connection, selectors.EVENT_READ)
            while ready.get_map():
                for key, _ in ready.select():
                    sender = key.fileobj
                    assert isinstance(sender, socket.socket)
                    with contextlib.suppress(OSError):
                        if came := sender.recv(64 * KIB):
                            self.echoed += len(came)
                            sender.sendall(came)
                            continue
                    ready.unregister(sender)
                    sender.close()


def quiet_port(kind: socket.SocketKind) -> int:
    """
    Find a free port that no client of this machine is given.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(1_024, lowest)  # noqa: S311 - no secret
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, kind) as probe,
        ):
            probe.bind(("0.0.0.0", port))  # noqa: S104 - for a moment
            return port


def serves(port: int, udp: int, path: str) -> bool:
    """
    Ask at a TCP port, a UDP port and a unix socket.
    """
    if not echoes(port, 1):
        return False
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
    ):
        for each in (local, asking):
            each.settimeout(1)
        local.connect(path)
        local.sendall(b"there?")
        asking.connect((LOOPBACK, udp))
        asking.send(b"Anna")
        return local.recv(KIB) == b"there?" and asking.recv(KIB) == b"Hello, Anna!"
    return False


def restart() -> Iterator[Row]:
    """
    After kill -9 it listens again at once, on the same ports and unix socket.
    """
    for name, command in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as all_of:
            path = f"{folder}/echo.sock"
            tcp, udp = quiet_port(socket.SOCK_STREAM), quiet_port(socket.SOCK_DGRAM)
            options = (
                f"--echo=tcp:{tcp}:interface={LOOPBACK}",
                f"--echo=unix:{path}",
                f"--udp=udp:{udp}:interface={LOOPBACK}",
            )
            pid_file = with_pid_file(command, Path(folder))
            server = all_of.enter_context(Server(*options, command=pid_file))
            server.await_line("udp listens on")
            times, echoed, again = [], 0, 0
            for _ in range(ROUNDS):
                with Senders(lambda port=tcp: connected(port)) as senders:  # type: ignore[misc]
                    is_until(
                        time.monotonic() + PATIENCE,
                        lambda senders=senders: senders.echoed > MIB,  # type: ignore[misc]
                    )
                    began = time.monotonic()
                    server.process.kill()
                    server.process.wait()
                    server = all_of.enter_context(Server(*options, command=pid_file))
                    well = is_until(began + 10, lambda: serves(tcp, udp, path))  # noqa: B023
                    times.append(time.monotonic() - began)
                echoed += senders.echoed
                again += well and server.is_clean
            times.sort()
            yield Row(
                f"kill -9 and restart, {name}, {ROUNDS} times with {CLIENTS} senders",
                f"{again} times it served again, after {times[0]:.2f} to"
                f" {times[-1]:.2f} s, {times[len(times) // 2]:.2f} s in the middle"
                f" ({echoed / MIB:.0f} MiB were echoed)",
                f"{ROUNDS} times, 2 s, TCP, UDP and unix",
                again == ROUNDS and times[-1] <= 2,
            )


# sd_notify


class Supervisor:
    """
    Stands for systemd: a datagram socket that is told how far a service is.

    Args:
        address: a path, or `@` and a name.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0") if address[0] == "@" else address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def told(self, seconds: float) -> str:
        """Wait for the next datagram; nothing if none comes."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(KIB).decode()
        except TimeoutError:
            return ""


def notify() -> Iterator[Row]:
    """
    systemd is told when all places listen, and when the drain begins.
    """
    for name, command in {**COMMANDS, "twist": TWIST}.items():
        with tempfile.TemporaryDirectory() as folder:
            for address in (f"{folder}/notify", f"@sockproto-{os.getpid()}"):
                with Supervisor(address) as supervisor:
                    where = "a path" if address[0] == "/" else "an abstract name"
                    yield notified(f"{name}, {where}", command, supervisor, folder)
            yield unnotified(name, command, folder)


def notified(
    name: str, command: tuple[str, ...], supervisor: Supervisor, folder: str
) -> Row:
    """
    Follow one service from its start to its end.
    """
    port, udp = quiet_port(socket.SOCK_STREAM), quiet_port(socket.SOCK_DGRAM)
    path = f"{folder}/echo.sock"
    options = (
        f"--echo=tcp:{port}:interface={LOOPBACK}",
        f"--echo=unix:{path}",
        f"--udp=udp:{udp}:interface={LOOPBACK}",
        "--drain=2",
        "--delay=0",
    )
    command = with_environment(command, NOTIFY_SOCKET=supervisor.address)
    with Server(*options, command=command) as server:
        ready = supervisor.told(PATIENCE)
        # The first try has to do.
        listens = serves(port, udp, path)
        early = supervisor.told(0.5)
        with stuck(port, 0.5):
            began = time.monotonic()
            server.process.terminate()
            stopping = supervisor.told(5)
            seconds = time.monotonic() - began
            alive = server.process.poll() is None
            server.process.wait(PATIENCE)
        late = supervisor.told(0.2)
        words = [each.replace("\n", ", ") for each in (ready, early, stopping, late)]
        return Row(
            f"sd_notify, {name}",
            f"{words[0]!r} when all three places"
            f" {'answer' if listens else 'DO NOT ANSWER'}; {words[2]!r} {seconds:.2f} s"
            " after SIGTERM, with the drain to come; else"
            f" {words[1] + words[3] or 'nothing'}",
            "READY=1, then STOPPING=1 within 0.5 s",
            ready.startswith("READY=1\n")
            and stopping.startswith("STOPPING=1\n")
            and not early + late
            and listens
            and alive
            and seconds <= 0.5
            and server.is_clean,
        )


def unnotified(name: str, command: tuple[str, ...], folder: str) -> Row:
    """
    Look that nothing is said where a place fails, nor where nobody asked.
    """
    with (
        Supervisor(f"{folder}/notify2") as supervisor,
        socket.create_server((LOOPBACK, 0)) as taken,
    ):
        options = (
            f"--hello={PLACE}",
            f"--echo=tcp:{taken.getsockname()[1]}:interface={LOOPBACK}",
        )
        command_told = with_environment(command, NOTIFY_SOCKET=supervisor.address)
        with Server(*options, command=command_told) as server:
            status = server.process.wait(PATIENCE)
            failed = supervisor.told(0.2)
        unset = ("env", "-u", "NOTIFY_SOCKET", *command)
        with Server(f"--echo={PLACE}", command=unset) as server:
            server.port("echo")
            server.process.terminate()
            server.process.wait(PATIENCE)
            said = supervisor.told(0.2)
            well = server.is_clean and "systemd" not in server.log
        words = failed.replace("\n", ", ") or "nothing"
        return Row(
            f"sd_notify, {name}, a place in use; no NOTIFY_SOCKET",
            f"{words!r} (status {status}); {said or 'nothing'}",
            "no READY=1, 1; nothing",
            "READY" not in failed and not said and status == 1 and well,
        )


RUNS = {
    "clock": clock,
    "start": start,
    "signals": signals,
    "restart": restart,
    "notify": notify,
}


if __name__ == "__main__":
    sys.exit(run_named(RUNS, __doc__.split("\n\n")[0].strip()))
