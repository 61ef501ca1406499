"""
Thousands of clients that idle, dawdle, vanish or reset, held up to bounds.

    python scripts/fault_connections.py [--only NAME]...

Each run starts real servers, on loopback or beside a network of its own, and prints
what was measured beside its bound. The exit status is 1 if a bound was broken.
Linux; the vanishing peers want root, for a network to vanish with.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from crowds import (
    Crowd,
    Gone,
    Meanwhile,
    addresses,
    all_given_back,
    dribble,
    files_at_rest,
    first_flight,
    is_over,
    service_milliseconds,
    sip,
)
from servers import (
    KIB,
    LOOPBACK,
    MIB,
    PATIENCE,
    PLACE,
    Row,
    Server,
    certificate_files,
    is_until,
    run_named,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

IDLERS = 10_000
MANY = 1_000
CUT_SECONDS = 2
SERVED_MILLISECONDS = 500
EVERYWHERE = "tcp:0"


# Idle


def idle() -> Iterator[Row]:
    """
    10,000 connections that say nothing cost little, and are served when they do.
    """
    yield idling("echo", "echo", f"--echo={PLACE}")
    yield idling("hello", "hello", f"--hello={PLACE}", f"--echo={PLACE}")


def facing() -> Iterator[Row]:
    """
    The same where a place faces a network, with the limits that it has then.
    """
    everywhere = f"--echo={EVERYWHERE}"
    yield idling(
        "echo on 0.0.0.0, one peer, --max-per-peer=0",
        "echo",
        everywhere,
        "--max-per-peer=0",
    )
    yield idling(
        "echo on 0.0.0.0, 100 peers", "echo", everywhere, sources=addresses(100)
    )


def idling(
    name: str, service: str, *options: str, sources: Iterable[str] = (LOOPBACK,)
) -> Row:
    """
    Connect the idlers, serve them once, and close them.
    """
    with Server(*options) as server:
        echo, port = server.port("echo"), server.port(service)
        service_milliseconds(echo)
        memory, files = server.resident, server.open_files
        with Crowd(port, IDLERS, sources=sources) as crowd:
            if service == "hello":
                served = crowd.hear(b"Welcome!")
            else:
                crowd.say(b"?")
                served = crowd.hear(b"?")
            full = server.resident
            waited = service_milliseconds(echo)
        given_back = all_given_back(server, files)
        each = (full - memory) / IDLERS / KIB
        left = (server.resident - memory) / MIB
        return Row(
            f"idle {IDLERS:,}, {name}",
            f"{served} served, {each:.1f} KiB each; another in {waited:.0f} ms;"
            f" closed, {left:+.1f} MiB and {server.open_files - files:+d} files",
            f"{IDLERS}, 8 KiB, {SERVED_MILLISECONDS} ms; 0 files",
            served == IDLERS
            and each <= 8
            and waited <= SERVED_MILLISECONDS
            and given_back
            and server.is_clean,
        )


# Slow ones


def take_part(
    crowd: Crowd, act: Callable[[socket.socket], object], every: float, seconds: float
) -> int:
    """
    Have each client do something now and then; tell how many are there in the end.
    """
    there = list(crowd.nonblocking().clients)
    until = time.monotonic() + seconds
    while time.monotonic() < until and there:
        began = time.monotonic()
        stayed = []
        for client in there:
            with contextlib.suppress(Gone):
                act(client)
                stayed.append(client)
        there = stayed
        time.sleep(max(0.0, began + every - time.monotonic()))
    return len(there)


def fill(crowd: Crowd) -> None:
    """
    Have each ask an echo for more than all buffers hold.
    """
    data = bytes(64 * KIB)
    unfilled = set(crowd.nonblocking().clients)
    while unfilled:
        for client in list(unfilled):
            try:
                if not dribble(client, data):
                    unfilled.discard(client)
            except Gone:
                unfilled.discard(client)
        time.sleep(0.01)


def slow_reader(size: int) -> Callable[[socket.socket], object]:
    """
    Ask for more whenever that goes, and take so many bytes.
    """
    more = bytes(64 * KIB)

    def act(client: socket.socket) -> None:
        dribble(client, more)
        sip(client, size)

    return act


def slow() -> Iterator[Row]:
    """
    Slow readers and writers are served, by the thousand; who takes nothing is cut.
    """
    for count, size, reads in ((MANY, 4 * KIB, 4 * KIB), (MANY // 10, 32 * KIB, None)):
        with Server(f"--echo={PLACE}", f"--stalled={CUT_SECONDS}") as server:
            port = server.port("echo")
            service_milliseconds(port)
            files = server.open_files
            with (
                Crowd(port, count, reads=reads, far=True) as crowd,
                Meanwhile(port) as meanwhile,
            ):
                there = take_part(crowd, slow_reader(size), 0.25, 8)
            given_back = all_given_back(server, files)
            buffers = "of 4 KiB" if reads else "as the kernel has them"
            yield Row(
                f"{count:,} ask for more and read {size // KIB} KiB each 0.25 s,"
                f" buffers {buffers}, --stalled={CUT_SECONDS}",
                f"{there} there after 8 s; another in {meanwhile.worst:.0f} ms",
                f"{count}, 2,000 ms, no traceback",
                there == count
                and meanwhile.worst <= 2000
                and given_back
                and server.is_clean,
            )
    yield from taking_nothing()
    yield from slow_writers()


def taking_nothing() -> Iterator[Row]:
    """
    Who takes nothing is cut, and not before its time.
    """
    with Server(f"--echo={PLACE}", f"--stalled={CUT_SECONDS}") as server:
        port = server.port("echo")
        service_milliseconds(port)
        files = server.open_files
        with Crowd(port, MANY, reads=4 * KIB, far=True) as crowd:
            fill(crowd)
            began = time.monotonic()
            with Meanwhile(port) as meanwhile:
                given_back = all_given_back(server, files + 1)
            seconds = time.monotonic() - began
            over = sum(map(is_over, crowd.clients))
        ended = server.log.count("took nothing for")
        yield Row(
            f"{MANY:,} take nothing, --stalled={CUT_SECONDS}",
            f"{over} cut, all within {seconds:.1f} s of full buffers;"
            f" another in {meanwhile.worst:.0f} ms",
            f"{MANY}, {CUT_SECONDS * 1.25 + 1:g} s, 1,000 ms, no traceback",
            over == ended == MANY
            and given_back
            and seconds <= CUT_SECONDS * 1.25 + 1
            and meanwhile.worst <= 1000
            and server.is_clean,
        )


def slow_writers() -> Iterator[Row]:
    """
    Who says a byte now and then is not idle; who stops is.
    """
    for service in ("echo", "hello"):
        options = (f"--{service}={PLACE}", f"--idle={CUT_SECONDS}")
        more = () if service == "echo" else (f"--echo={PLACE}",)
        with Server(*options, *more, "--framing=line") as server:
            port, echo = server.port(service), server.port("echo")
            service_milliseconds(echo)
            files = server.open_files
            with Crowd(port, MANY) as crowd, Meanwhile(echo) as meanwhile:
                there = take_part(crowd, lambda one: dribble(one, b"a"), 0.5, 8)
                silent = time.monotonic()
                is_until(
                    silent + 10,
                    lambda c=crowd: all(map(is_over, c.clients)),  # type: ignore[misc]
                )
                seconds = time.monotonic() - silent
            given_back = all_given_back(server, files)
            yield Row(
                f"{MANY:,} say a byte each 0.5 s to {service}, --idle={CUT_SECONDS}",
                f"{there} there after 8 s, none {seconds:.1f} s after their last byte;"
                f" another in {meanwhile.worst:.0f} ms",
                f"{MANY}, {CUT_SECONDS + 1.5:g} s, 1,000 ms, no traceback",
                there == MANY
                and seconds <= CUT_SECONDS + 1.5
                and meanwhile.worst <= 1000
                and given_back
                and server.is_clean,
            )


# Vanished ones

_numbers = itertools.count()


@contextlib.contextmanager
def another_network() -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """
    Make a network beside this machine's, whose peers can vanish.

    Yields:
        Our address there; what moves a thread there; what makes it fall silent.
    """
    # What has no more sockets may still be there for a while.
    name = f"fault{os.getpid()}{next(_numbers)}"
    ours, theirs, pair = f"{name}a"[-15:], f"{name}b"[-15:], "198.18.77"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def enter() -> None:
        with Path(f"/run/netns/{name}").open() as file:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(file.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")

    def vanish() -> None:
        # They hear, and whatever they say, also that they are gone, is lost.
        ip("-n", name, "route", "add", "blackhole", f"{pair}.1/32")

    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("address", "add", f"{pair}.1/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "address", "add", f"{pair}.2/24", "dev", theirs)
        ip("-n", name, "link", "set", theirs, "up")
        yield f"{pair}.1", enter, vanish
    finally:
        ip("link", "delete", ours)
        ip("netns", "delete", name)


def connected_there(
    enter: Callable[[], None], address: tuple[str, int], count: int
) -> list[socket.socket]:
    """
    Connect from another network; a socket stays where it was made.
    """
    clients: list[socket.socket] = []

    def connect() -> None:
        enter()
        clients.extend(
            socket.create_connection(address, PATIENCE) for _ in range(count)
        )

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    return clients


def vanished() -> Iterator[Row]:
    """
    Peers that are gone without a word go by --idle and --stalled.
    """
    options = (
        f"--echo={EVERYWHERE}",
        f"--hello={EVERYWHERE}",
        f"--idle={CUT_SECONDS}",
        f"--stalled={CUT_SECONDS}",
        "--max-per-peer=0",
        "--delay=0",
    )
    cases = (
        ("idle", "echo", b""),
        ("idle", "hello", b"a name\n"),
        ("taking much", "echo", bytes(MIB)),
    )
    if os.geteuid() or not Path("/sys/class/net").is_dir():
        yield Row("vanished peers", "not root", "-", ok=True)
        return
    for what, service, data in cases:
        with another_network() as (address, enter, vanish), Server(*options) as server:
            port, echo = server.port(service), server.port("echo")
            service_milliseconds(echo)
            files = server.open_files
            clients = connected_there(enter, (address, port), MANY)
            for client in clients:
                client.setblocking(False)
                with contextlib.suppress(Gone):
                    dribble(client, data)
            vanish()
            began = time.monotonic()
            with Meanwhile(echo) as meanwhile:
                given_back = all_given_back(server, files + 1, 15)
            seconds = time.monotonic() - began
            for client in clients:
                client.close()
            bound = 2 * CUT_SECONDS + 1.5
            yield Row(
                f"{MANY:,} peers vanish from {service}, {what},"
                f" --idle={CUT_SECONDS} --stalled={CUT_SECONDS}",
                f"all given back after {seconds:.1f} s;"
                f" another in {meanwhile.worst:.0f} ms",
                f"{bound:g} s, 1,000 ms, no traceback",
                given_back
                and seconds <= bound
                and meanwhile.worst <= 1000
                and server.is_clean,
            )


# TLS


def handshakes() -> Iterator[Row]:
    """
    Who connects to TLS and does not shake hands goes by --idle.
    """
    with tempfile.TemporaryDirectory() as name:
        ca, certificate, key = certificate_files(Path(name))
        tls = f"ssl:0:interface={LOOPBACK}:privateKey={key}:certKey={certificate}"
        hello = first_flight(ssl.create_default_context(cafile=ca))
        for service in ("echo", "hello"):
            for what, data in (
                ("nothing", b""),
                ("half a handshake", hello[: len(hello) // 2]),
                ("a first flight", hello),
            ):
                options = (f"--{service}={tls}", f"--idle={CUT_SECONDS}")
                yield cut_amid(Server(*options), service, what, data)


def cut_amid(server: Server, service: str, what: str, data: bytes) -> Row:
    """
    Have many stop amid a handshake; tell when the last of them was cut.
    """
    with server:
        port = server.port(service)
        files = files_at_rest(server, port)
        with Crowd(port, MANY) as crowd:
            crowd.say(data)
            began = time.monotonic()
            is_until(began + 10, lambda: all(map(is_over, crowd.clients)))
            seconds = time.monotonic() - began
            over = sum(map(is_over, crowd.clients))
        given_back = all_given_back(server, files)
        return Row(
            f"{MANY:,} say {what} to {service} over TLS, --idle={CUT_SECONDS}",
            f"{over} cut within {seconds:.1f} s",
            f"{MANY}, {2 * CUT_SECONDS + 1.5:g} s, no traceback",
            over == MANY
            and seconds <= 2 * CUT_SECONDS + 1.5
            and given_back
            and server.is_clean,
        )


RUNS = {
    "idle": idle,
    "facing": facing,
    "slow": slow,
    "vanished": vanished,
    "handshakes": handshakes,
}


if __name__ == "__main__":
    sys.exit(run_named(RUNS, (__doc__ or "").split("\n\n")[0].strip()))
