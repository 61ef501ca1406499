"""
The limits of the services under crowds that want more, held up to bounds.

    python scripts/fault_limits.py [--only NAME]...

Each run starts real servers on loopback, and prints what was measured beside its
bound. The exit status is 1 if a bound was broken. Linux: it reads /proc, and peers
come from all over 127.0.0.0/8.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crowds import (
    addresses,
    all_given_back,
    files_at_rest,
    proxy_v1,
    proxy_v2,
    rush,
    told,
)
from servers import (
    KIB,
    LOOPBACK,
    PATIENCE,
    PLACE,
    Row,
    Server,
    echoes,
    run_named,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = "come back later\n"
GREETING = b"Welcome!\n"
PARTING = 32
"""So many at least hear why they are refused, at the same time; a crowd is reset."""


# Descriptors


def descriptors() -> Iterator[Row]:
    """
    1,000 clients at once where far fewer files may be open: nobody is lost.
    """
    for files in (128, 1024):
        for options in ((), (f"--refusal={WORDS}",)):
            with Server(f"--echo={PLACE}", *options, files=files) as server:
                yield crowded(server, files, *options)


def crowded(server: Server, files: int, *options: str) -> Row:
    """
    Have a crowd rush in; tell what became of it, and what is left of it.
    """
    count = 1_000
    port = server.port("echo")
    most = int(server.await_line(r"(\d+) connections are served at once")[1])
    before = files_at_rest(server, port)
    clients = list(rush(port, count, [LOOPBACK]))
    served, heard = served_of(clients)
    inside = server.open_files
    used, began = server.cpu_seconds, time.monotonic()
    time.sleep(1)
    used = (server.cpu_seconds - used) / (time.monotonic() - began)
    for client in clients:
        client.close()
    given_back = all_given_back(server, before)
    told_so = heard[WORDS.encode()]
    # Twisted accepts 100 and more before it lets go of the first. Where they are
    # more than there are files, it ends those above in silence.
    ended = heard[b""]
    few = files < 200
    return Row(
        f"{count:,} clients, {files} files{', --refusal' if options else ''}",
        f"{served} served, {told_so} told so, {heard[None]} reset, {ended} ended;"
        f" {inside} files open, then {server.open_files - before:+d};"
        f" {used:.0%} of a processor",
        f"{most}, {PARTING if options else 0} or more, the rest,"
        f" {'any' if few else 0}; 0 files, 20 %, no traceback",
        served == most
        and served + heard.total() == count
        and set(heard) <= {WORDS.encode(), None, b""}
        and (told_so >= PARTING if options else not told_so)
        and (few or not ended)
        and given_back
        and used <= 0.2
        and echoes(port)
        and server.is_clean,
    )


def served_of(clients: list[socket.socket]) -> tuple[int, Counter[bytes | None]]:
    """
    Have those ask an echo who are still there.

    Returns:
        How many were served; how many of the others heard what (None for a reset).
    """
    waiting = list(clients)
    heard: Counter[bytes | None] = Counter()
    # What overflowed the backlog is tried again after a second, and after two more.
    quiet_since = time.monotonic()
    while waiting and time.monotonic() < quiet_since + 3:
        time.sleep(0.1)
        for client in list(waiting):
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                heard[first_heard(client)] += 1
                waiting.remove(client)
                quiet_since = time.monotonic()
    for client in waiting:
        client.settimeout(PATIENCE)
        client.sendall(b"?")
    for client in waiting:
        # One whom the backlog did not hold is let in, or refused, only now.
        first = told(client, 1)
        if first and first != b"?":
            first += told(client, KIB) or b""
        heard[first] += 1
    return heard.pop(b"?", 0), heard


def first_heard(client: socket.socket) -> bytes | None:
    """
    Read what was said to one who said nothing; None for a reset.

    Raises:
        BlockingIOError: nothing, so far.
    """
    try:
        first = client.recv(KIB)
    except ConnectionResetError:
        return None
    return first + (told(client, KIB) or b"")


# Who may come


@dataclass(frozen=True, slots=True)
class Case:
    """
    A crowd at a limit, and how many of it are to be served.
    """

    name: str
    options: tuple[str, ...]
    sources: tuple[str, ...]
    served: int
    headers: tuple[bytes, ...] = (b"",)
    place: str = PLACE
    said: bool = False


def proxied(*real: str) -> tuple[bytes, ...]:
    """
    Spell headers for such addresses, of both versions by turns.
    """
    return tuple(
        (proxy_v2 if number % 2 else proxy_v1)(address)
        for number, address in enumerate(real)
    )


HUNDRED = tuple(addresses(100))
BEHIND = f"haproxy:{PLACE}"
CROWD = 2_000
CASES = (
    Case("--max-connections=100", ("--max-connections=100",), (LOOPBACK,), 100),
    Case(
        "--max-connections=100 --refusal",
        ("--max-connections=100", f"--refusal={WORDS}"),
        (LOOPBACK,),
        100,
        said=True,
    ),
    Case("--max-per-peer=10, 100 peers", ("--max-per-peer=10",), HUNDRED, 1_000),
    Case(
        "--deny, half of the peers",
        ("--deny=127.1.0.0/24", "--deny=127.2.0.7"),
        (*addresses(10, "127.1"), *addresses(10, "127.2")),
        CROWD // 20 * 9,
    ),
    Case(
        "--allow, half of the peers",
        ("--allow=127.1.0.0/24",),
        (*addresses(10, "127.1"), *addresses(10, "127.2")),
        CROWD // 2,
    ),
    Case(
        "haproxy, --max-per-peer=10, 100 real peers, v1 and v2",
        ("--max-per-peer=10",),
        (LOOPBACK,),
        1_000,
        headers=proxied(*(f"198.51.100.{number}" for number in range(100))),
        place=BEHIND,
    ),
    Case(
        "haproxy, --max-per-peer=10, IPv6, 100 addresses of 5 networks /64",
        ("--max-per-peer=10",),
        (LOOPBACK,),
        50,
        headers=proxied(*(f"2001:db8:0:{n % 5}::{n:x}" for n in range(100))),
        place=BEHIND,
    ),
    Case(
        "haproxy, --deny, half of the real peers",
        ("--deny=198.51.100.0/24",),
        (LOOPBACK,),
        CROWD // 2,
        headers=proxied("198.51.100.1", "198.51.100.2", "203.0.113.1", "203.0.113.2"),
        place=BEHIND,
    ),
)


def gates() -> Iterator[Row]:
    """
    Just as many are served as may be, all others refused, and all is given back.
    """
    for case in CASES:
        with Server(f"--echo={case.place}", *case.options) as server:
            port = server.port("echo")
            before = files_at_rest(server, port)
            clients = list(rush(port, CROWD, case.sources))
            for number, client in enumerate(clients):
                if header := case.headers[number % len(case.headers)]:
                    client.settimeout(PATIENCE)
                    client.sendall(header)
            served, heard = served_of(clients)
            for client in clients:
                client.close()
            given_back = all_given_back(server, before)
            again = is_served(port, case)
        told_so = heard[WORDS.encode()]
        yield Row(
            f"{CROWD:,} at {case.name}",
            f"{served} served, {told_so} told so, {heard[None]} reset",
            f"{case.served}, {PARTING if case.said else 0} or more, the rest; then"
            " served again, no traceback",
            served == case.served
            and told_so + heard[None] == CROWD - served
            and (told_so >= PARTING if case.said else not told_so)
            and again
            and given_back
            and server.is_clean,
        )


def is_served(port: int, case: Case) -> bool:
    """
    Tell whether a new client from where all are welcome has its echo.
    """
    source = case.sources[0] if "--allow" in case.name else case.sources[-1]
    with socket.create_connection(
        (LOOPBACK, port), PATIENCE, source_address=(source, 0)
    ) as client:
        client.sendall(case.headers[-1] + b"?")
        return told(client, 1) == b"?"


# What a refusal costs


def refusals() -> Iterator[Row]:
    """
    To refuse costs less processor time than to greet, hear `exit` and close.
    """
    good, bad = "127.1.0.1", "127.2.0.1"
    plain = f"--hello={PLACE}"
    for name, options, header in (
        ("a reset", (plain,), None),
        ("words", (plain, f"--refusal={WORDS}"), None),
        ("a reset, behind haproxy", (f"--hello={BEHIND}",), proxy_v1),
    ):
        common = ("--delay=0", "--framing=line", f"--deny={bad}")
        with Server(*options, *common) as server:
            port = server.port("hello")
            costs: dict[str, list[float]] = {good: [], bad: []}
            for number in range(12):
                # By turns, so that what slows the machine down slows both.
                for source in (good, bad) if number % 2 else (bad, good):
                    before = processor_nanoseconds(server)
                    for _ in range(200):
                        converse(port, source, header(source) if header else b"")
                    time.sleep(0.05)
                    used = processor_nanoseconds(server) - before
                    costs[source].append(used / 200 / 1000)
            ratios = [b / g for b, g in zip(costs[bad], costs[good], strict=True)]
            ratio = statistics.median(ratios[2:])
            yield Row(
                f"refusal by {name}",
                f"{statistics.median(costs[bad]):.0f} us of processor time, served"
                f" {statistics.median(costs[good]):.0f} us: {ratio:.2f} of it",
                "below 1, no traceback",
                ratio < 1 and server.is_clean,
            )


def converse(port: int, source: str, header: bytes) -> None:
    """
    Hear the greeting, say `exit` and hear the end; or be refused.
    """
    client = socket.socket()
    with client, contextlib.suppress(ConnectionError):
        client.settimeout(PATIENCE)
        client.bind((source if not header else LOOPBACK, 0))
        client.connect((LOOPBACK, port))
        if header:
            client.sendall(header)
        if told(client, len(GREETING)) == GREETING:
            client.sendall(b"exit\n")
        told(client, KIB)


def processor_nanoseconds(server: Server) -> int:
    """
    Tell the processor time of the main thread, which does all of it.
    """
    return int(Path(f"/proc/{server.process.pid}/schedstat").read_text().split()[0])


RUNS = {
    "descriptors": descriptors,
    "gates": gates,
    "refusals": refusals,
}


if __name__ == "__main__":
    sys.exit(run_named(RUNS, (__doc__ or "").split("\n\n")[0].strip()))
