"""
Clients that reset their connections at each point of a conversation, by the hundred.

    python scripts/fault_resets.py [--only NAME]...

Each run starts real servers on loopback, whose hello and echo listen plainly, on TLS
and behind a proxy, and prints what was measured beside its bound. The exit status is
1 if a bound was broken. Linux: it reads /proc.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from crowds import (
    Gone,
    Meanwhile,
    all_given_back,
    dribble,
    files_at_rest,
    first_flight,
    proxy_v1,
    reset_all,
    told,
)
from servers import (
    KIB,
    LOOPBACK,
    PATIENCE,
    PLACE,
    Row,
    Server,
    certificate_files,
    connected,
    is_until,
    read_to_end,
    run_named,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNT = 200
"""Clients that reset, at each place and point."""

GREETING = b"Welcome!\n"
OPTIONS = ("--framing=line", "--delay=0.5")
LIMITS = (
    "--idle=60",
    "--stalled=60",
    "--rate=100M",
    "--total-rate=1G",
    "--max-per-peer=100000",
    "--deny=192.0.2.0/24",
)


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where one of the services listens, and how one talks to it.
    """

    service: str
    kind: str
    port: int
    context: ssl.SSLContext

    def connect(self) -> socket.socket:
        """Connect, and come so far that one may talk."""
        raw = self.connect_plainly()
        if self.kind == "haproxy":
            raw.sendall(proxy_v1("198.51.100.7"))
        elif self.kind == "TLS":
            return self.context.wrap_socket(raw, server_hostname="localhost")
        return raw

    def connect_plainly(self) -> socket.socket:
        """Connect, with small buffers as on a network, and say nothing."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)
        raw.settimeout(PATIENCE)
        raw.connect((LOOPBACK, self.port))
        return raw


class Services:
    """
    A server with all places, for as long as it runs.

    Args:
        options: more of them.
    """

    def __init__(self, *options: str) -> None:
        self._options = options

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        ca, certificate, key = certificate_files(Path(folder))
        tls = f"ssl:0:interface={LOOPBACK}:privateKey={key}:certKey={certificate}"
        kinds = {"TCP": PLACE, "TLS": tls, "haproxy": f"haproxy:{PLACE}"}
        services = ("hello", "echo")
        self.server = self._stack.enter_context(
            Server(
                *OPTIONS,
                *self._options,
                *(f"--{name}={place}" for name in services for place in kinds.values()),
            )
        )
        context = ssl.create_default_context(cafile=ca)
        self.flight = first_flight(context)
        self.places = [
            Place(service, kind, port, context)
            for service in services
            for kind, port in zip(
                kinds, self.server.ports(service, len(kinds)), strict=True
            )
        ]
        self.echo = self.server.port("echo")
        # TLS opens what it needs with its first connection.
        for place in self.places:
            place.connect().close()
        self.files = files_at_rest(self.server, self.echo)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


# The points. Each has a client come so far, and gives it.


def at_once(place: Place, services: Services) -> socket.socket:
    return place.connect_plainly()


def amid_handshake(place: Place, services: Services) -> socket.socket:
    client = place.connect_plainly()
    client.sendall(services.flight[: len(services.flight) // 2])
    return client


def amid_header(place: Place, services: Services) -> socket.socket:
    client = place.connect_plainly()
    client.sendall(b"PROXY TCP4 198")
    return client


def greeted(place: Place, services: Services) -> socket.socket:
    client = place.connect()
    assert told(client, len(GREETING)) == GREETING
    return client


def amid_name(place: Place, services: Services) -> socket.socket:
    client = greeted(place, services)
    client.sendall(b"Micha")
    return client


def awaiting(place: Place, services: Services) -> socket.socket:
    client = greeted(place, services)
    client.sendall(b"Michael\nTracy\n")
    return client


def half_closed(place: Place, services: Services) -> socket.socket:
    client = place.connect()
    client.sendall(b"Michael\n")
    client.shutdown(socket.SHUT_WR)
    return client


def never_reading(place: Place, services: Services) -> socket.socket:
    """Send until nothing goes any more."""
    client = place.connect()
    client.setblocking(False)
    data = bytes(64 * KIB)
    last = time.monotonic()
    with contextlib.suppress(Gone):
        while time.monotonic() - last < 0.02:
            if dribble(client, data):
                last = time.monotonic()
    return client


def leaving(place: Place, services: Services) -> socket.socket:
    client = greeted(place, services)
    client.sendall(b"exit\n")
    return client


def hear_the_end(client: socket.socket) -> None:
    """Read to the end of file, and leave our side open."""
    read_to_end(client)


@dataclass(frozen=True, slots=True)
class Point:
    """
    A point of a conversation, and where there is one.

    `come` brings a client there, but for what `wait` does when all have come.
    """

    name: str
    come: Callable[[Place, Services], socket.socket]
    services: tuple[str, ...] = ("hello", "echo")
    kinds: tuple[str, ...] = ("TCP", "TLS", "haproxy")
    wait: Callable[[socket.socket], None] | None = None


HELLO = ("hello",)
POINTS = (
    Point("at once", at_once),
    Point("amid the TLS handshake", amid_handshake, kinds=("TLS",)),
    Point("amid the proxy's header", amid_header, kinds=("haproxy",)),
    Point("after the greeting", greeted, HELLO),
    Point("amid a name", amid_name, HELLO),
    Point("while an answer waits for the delay", awaiting, HELLO),
    # Over TLS there is no half-close.
    Point("after half-close", half_closed, kinds=("TCP", "haproxy")),
    Point("while much is unsent", never_reading, ("echo",)),
    Point("while the server lingers", leaving, HELLO, wait=hear_the_end),
)


def resets() -> Iterator[Row]:
    """
    Resets leave nothing behind, and hold up nobody.
    """
    yield from resets_of("")


def limited() -> Iterator[Row]:
    """
    The same with all the limits around.
    """
    yield from resets_of(", all limits", *LIMITS)


def resets_of(name: str, *options: str) -> Iterator[Row]:
    """
    Reset at each point but the drain, in one server after another.
    """
    with Services(*options) as services:
        for point in POINTS:
            yield reset_at(point, services, name)
    yield reset_amid_drain(name, *options)


def reset_at(point: Point, services: Services, name: str) -> Row:
    """
    Have many come to a point of their conversation, and reset there.
    """
    server = services.server
    said_before = len(server.log)
    places = [
        place
        for place in services.places
        if place.service in point.services and place.kind in point.kinds
    ]
    count = 0
    with Meanwhile(services.echo) as meanwhile:
        for place in places:
            clients = [point.come(place, services) for _ in range(COUNT)]
            count += len(clients)
            if point.wait is not None:
                for client in clients:
                    point.wait(client)
            reset_all(clients)
    given_back = all_given_back(server, services.files)
    is_until(time.monotonic() + 5, lambda: accounted(server.log[said_before:])[2])
    accepted, closed, even = accounted(server.log[said_before:])
    where = ", ".join(f"{place.service} {place.kind}" for place in places)
    return Row(
        f"{count:,} reset {point.name} ({where}){name}",
        f"{accepted} accepted and {closed} closed with the others;"
        f" {server.open_files - services.files:+d} files;"
        f" another in {meanwhile.worst:.0f} ms",
        "as many, 0 files, 1,000 ms, no traceback",
        even and given_back and meanwhile.worst <= 1000 and server.is_clean,
    )


def accounted(log: str) -> tuple[int, int, bool]:
    """
    Count in a log what came and what went; tell whether it is even.
    """
    accepted = log.count("Accept new connection from ")
    closed = log.count(" closed. (")
    return accepted, closed, accepted == closed


def reset_amid_drain(name: str, *options: str) -> Row:
    """
    Have many of every kind reset while the services stop.
    """
    with Services("--drain=30", *options) as services:
        server = services.server
        clients = [
            come(place, services)
            for place in services.places
            for come in (
                (never_reading, half_closed)[: 1 if place.kind == "TLS" else 2]
                if place.service == "echo"
                else (greeted, amid_name, awaiting)
            )
            for _ in range(COUNT // 4)
        ]
        server.process.send_signal(signal.SIGTERM)
        is_until(time.monotonic() + PATIENCE, lambda: not listens(services.echo))
        reset_all(clients)
        began = time.monotonic()
        try:
            status: int | None = server.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            status = None
        seconds = time.monotonic() - began
    accepted, closed, even = accounted(server.log)
    return Row(
        f"{len(clients)} reset during a drain{name}",
        f"status {status} after {seconds:.1f} s; {accepted} accepted, {closed} closed",
        "0, 2 s (of 30), as many, no traceback",
        status == 0 and seconds <= 2 and even and server.is_clean,
    )


def listens(port: int) -> bool:
    """
    Tell whether somebody takes connections.
    """
    try:
        connected(port, 1).close()
    except OSError:
        return False
    return True


RUNS = {"resets": resets, "limited": limited}


if __name__ == "__main__":
    sys.exit(run_named(RUNS, (__doc__ or "").split("\n\n")[0].strip()))
