"""
What passes under --rate and --total-rate, and what it costs, held up to bounds.

    python scripts/fault_rates.py [--only NAME]...

Each run starts real servers on loopback, and prints what was measured beside its
bound. The exit status is 1 if a bound was broken. Linux: it reads /proc.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import ssl
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crowds import Crowd, Meanwhile
from hold_up import LETTERS, Memory, flooded
from servers import (
    KIB,
    LOOPBACK,
    MIB,
    PATIENCE,
    PLACE,
    WITH_TLS,
    Row,
    Server,
    certificate_files,
    is_until,
    run_named,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


# Memory


def memory() -> Iterator[Row]:
    """
    Clients that send and never read cost little with rates, too.
    """
    rates = ("--rate=1M", "--total-rate=20M")
    with tempfile.TemporaryDirectory() as name:
        ca, certificate, key = certificate_files(Path(name))
        tls = f"ssl:0:interface={LOOPBACK}:privateKey={key}:certKey={certificate}"
        for case in (
            Memory("echo", "echo", rates),
            Memory("echo, TLS", "echo", rates, secure=True, bound=WITH_TLS),
            Memory(
                "hello line",
                "hello",
                (*rates, "--framing=line", "--delay=0"),
                data=LETTERS,
            ),
            Memory(
                "hello line, TLS",
                "hello",
                (*rates, "--framing=line", "--delay=0"),
                data=LETTERS,
                secure=True,
                bound=WITH_TLS,
            ),
        ):
            place = tls if case.secure else PLACE
            with Server(f"--{case.service}={place}", *case.options) as server:
                context = ssl.create_default_context(cafile=ca) if case.secure else None
                row = flooded(server, case, context)
            yield Row(f"{row.run}, {' '.join(rates)}", row.figure, row.bound, ok=row.ok)


# Rates


TURN_SECONDS = 0.05
"""What those who share a rate pay in one turn is what it allows in this time."""

WARM, MEASURED = 2.0, 10.0
"""Seconds."""

LEAST_SHARE = 0.8
"""Ten seconds of a twentieth are ten turns; one may have one more, or one less."""


@dataclass(slots=True)
class Taken:
    """
    What one client of an echo took, and the longest it waited for a byte.
    """

    size: int = 0
    last: float = 0.0
    gap: float = 0.0


def rates() -> Iterator[Row]:
    """
    What passes is what --rate and --total-rate say, evenly and without jerks.
    """
    for options, count, each, gap in (
        (("--rate=200K",), 1, 200 * KIB, 150),
        (("--rate=200K",), 20, 200 * KIB, 250),
        (("--total-rate=1M",), 1, MIB, 150),
        (("--total-rate=1M",), 20, MIB / 20, 1500),
        (("--rate=100K", "--total-rate=1M"), 20, MIB / 20, 1500),
    ):
        with Server(f"--echo={PLACE}", *options) as server:
            port = server.port("echo")
            with (
                Crowd(port, count, far=True) as crowd,
                Meanwhile(port) as meanwhile,
            ):
                taken = pumped(crowd.nonblocking().clients)
            inwards = read_by(server, count)
        # In the beginning so much of each passes at once, and one read more.
        total = "total" in options[-1]
        burst = 2 * count * MIB * TURN_SECONDS / (WARM + MEASURED) if total else 0.0
        sizes = [one.size for one in taken]
        out = sum(sizes) / MEASURED
        wanted = each * count
        worst = max(one.gap for one in taken) * 1000
        share = min(sizes) / max(sizes)
        yield Row(
            f"{' '.join(options)}, {count} clients",
            f"{out / KIB:.0f} KiB/s out, {inwards / KIB:.0f} in, in all; least"
            f" {share:.2f} of the most; longest gap {worst:.0f} ms;"
            f" another in {meanwhile.worst:.0f} ms",
            f"{wanted / KIB:.0f} +- 5 % (in + {burst / KIB:.0f}), {LEAST_SHARE},"
            f" {gap} ms, 1,000 ms",
            abs(out / wanted - 1) <= 0.05
            and 0.95 * wanted <= inwards <= 1.05 * wanted + burst
            and share >= LEAST_SHARE
            and worst <= gap
            and meanwhile.worst <= 1000
            and server.is_clean,
        )


def pumped(clients: list[socket.socket]) -> list[Taken]:
    """
    Have each send and read as much as goes; measure once it has become even.
    """
    data = bytes(64 * KIB)
    taken = {client: Taken() for client in clients}
    with selectors.DefaultSelector() as ready:
        for client in clients:
            ready.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE)
        begin = time.monotonic() + WARM
        while (now := time.monotonic()) < begin + MEASURED:
            for key, events in ready.select(0.05):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if events & selectors.EVENT_WRITE:
                    with contextlib.suppress(BlockingIOError):
                        one.send(data)
                if events & selectors.EVENT_READ:
                    note(taken[one], len(one.recv(MIB)), begin)
            if now < begin:
                time.sleep(0.001)
    return list(taken.values())


def note(one: Taken, size: int, begin: float) -> None:
    """
    Write down what came, and how long it was awaited.
    """
    now = time.monotonic()
    if now >= begin:
        one.size += size
        if one.last:
            one.gap = max(one.gap, now - one.last)
        one.last = now


def read_by(server: Server, count: int) -> float:
    """
    Read from the log how many bytes a second the server read from so many, in all.
    """
    pattern = r"closed\. \((\d+) bytes in, \d+ out, ([\d.]+) s"

    def large() -> list[tuple[str, str]]:
        return [found for found in re.findall(pattern, server.log) if len(found[0]) > 4]

    is_until(time.monotonic() + PATIENCE, lambda: len(large()) == count)
    return sum(int(size) / float(seconds) for size, seconds in large())


RUNS = {"memory": memory, "rates": rates}


if __name__ == "__main__":
    sys.exit(run_named(RUNS, (__doc__ or "").split("\n\n")[0].strip()))
