"""
Floods and forges datagrams, and counts what the services make of them.

    python scripts/fault_datagrams.py [--only NAME]

Each run starts real servers on loopback, and prints what was measured beside its
bound. The exit status is 1 if a bound was broken. Linux: it reads /proc; forging a
source takes root, and without it those runs say so.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import select
import socket
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Self

from servers import KIB, LOOPBACK, MIB, PATIENCE, Row, Server, is_until, run_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ON_LOOPBACK = f"udp:0:interface={LOOPBACK}"
FACING_NETWORK = "udp:0"
RATE, TOTAL_RATE, BURST_SECONDS = 100, 5_000, 5
"""What holds where a place faces a network, and nothing else was asked for."""

MANY = 100_000
NAME = b"Anna of %d" % os.getpid()
"""What is forged; nobody else says it."""
UDP = struct.Struct("!4H")


# What the kernel knows


class Queue:
    """
    A UDP socket of a server's, as /proc/net/udp tells of it.
    """

    def __init__(self, port: int) -> None:
        self._port = f":{port:04X}"

    def _columns(self) -> list[str]:
        for line in Path("/proc/net/udp").read_text().splitlines():
            columns = line.split()
            if columns[1].endswith(self._port):
                return columns
        raise RuntimeError("the server's socket is gone")

    @property
    def waiting(self) -> int:
        """Bytes that were received and not read yet, with their bookkeeping."""
        return int(self._columns()[4].partition(":")[2], 16)

    @property
    def dropped(self) -> int:
        """Datagrams that found no room."""
        return int(self._columns()[-1])

    def await_room(self) -> None:
        """Wait until most of what was sent is read."""
        while self.waiting > 256 * KIB:
            time.sleep(0.001)

    def await_empty(self) -> None:
        """Wait until all is read."""
        if not is_until(time.monotonic() + PATIENCE, lambda: self.waiting == 0):
            raise RuntimeError("the server does not read")


def sum_of(pattern: str, log: str) -> int:
    """Add up the numbers that a line of the log has, over all such lines."""
    return sum(map(int, re.findall(pattern, log)))


# Floods


class Honest:
    """
    Somebody who says a name a second, from an address of his own.

    Args:
        port: whom he asks.
        seconds: from one name to the next.
    """

    def __init__(self, port: int, seconds: float = 1.0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.2.1", 0))
        self._socket.connect((LOOPBACK, port))
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.asked = self.answered = 0
        self.slowest = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _ask(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            name = b"honest %d" % self.asked
            self._socket.send(name)
            self.asked += 1
            deadline = began + self._seconds
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                with contextlib.suppress(TimeoutError):
                    if self._socket.recv(KIB) == b"Hello, " + name + b"!":
                        self.answered += 1
                        self.slowest = max(self.slowest, time.monotonic() - began)
                        break
            self._over.wait(max(0.0, deadline - time.monotonic()))


class FloodedServer(Server):
    """
    A server whose whole log can be waited for.
    """

    def await_end(self) -> None:
        """Wait until all that it has said is read, after its end."""
        self._reader.join(PATIENCE)


class Flooded:
    """
    What a flood has done to a server, whose UDP hello is its only place.

    Args:
        server: it.
        pace: sends so many datagrams, and looks at the queue now and then.
        count: how many.
    """

    def __init__(
        self, server: FloodedServer, pace: Callable[[int, Queue], None], count: int
    ) -> None:
        port = server.port("udp")
        queue = Queue(port)
        with Honest(port) as honest:
            is_until(time.monotonic() + PATIENCE, lambda: honest.answered > 0)
            before, used = server.private, server.cpu_seconds
            began = time.monotonic()
            pace(count, queue)
            queue.await_empty()
            self.seconds = time.monotonic() - began
            self.cpu_seconds = server.cpu_seconds - used
            # What is late is late, and not lost.
            is_until(time.monotonic() + 2, lambda: honest.answered == honest.asked)
        self.grown = server.private - before
        self.lost = queue.dropped
        self.honest = honest
        server.process.terminate()
        server.process.wait(PATIENCE)
        server.await_end()
        self.of_source = sum_of(r"(\d+) above \S+ a second of one", server.log)
        self.in_all = sum_of(r"(\d+) above \S+ a second in all", server.log)
        self.dropped = self.of_source + self.in_all
        self.served = count + honest.asked - self.dropped - self.lost

    @property
    def each(self) -> float:
        """Microseconds of the server's processor, a datagram that it has read."""
        return self.cpu_seconds / (self.served + self.dropped) * 1e6


class Sources:
    """
    Addresses of this machine that send by turns, and keep what they are answered.
    """

    def __init__(self, count: int, port: int) -> None:
        self._sockets = []
        for number in range(1, count + 1):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
            one.bind((f"127.0.1.{number}", 0))
            one.connect((LOOPBACK, port))
            one.setblocking(False)
            self._sockets.append(one)
        self.answered = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()

    def send(self, count: int, queue: Queue) -> None:
        """Send names by turns, as fast as they are read, and count the answers."""
        turns = itertools.cycle(self._sockets)
        for number in range(count):
            if number % 100 == 0:
                queue.await_room()
            if number % 2_000 == 0:
                self._count()
            next(turns).send(b"%d" % number)
        queue.await_empty()
        self._count()

    def _count(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(BlockingIOError):
                while one.recv(KIB):
                    self.answered += 1


def flood() -> Iterator[Row]:
    """
    100,000 datagrams from 250, 40 and 1 addresses; each is accounted for.
    """
    for place, addresses in (
        (ON_LOOPBACK, 250),
        (FACING_NETWORK, 250),
        (FACING_NETWORK, 40),
        (FACING_NETWORK, 1),
    ):
        with FloodedServer(f"--udp={place}") as server:
            with Sources(addresses, server.port("udp")) as sources:
                result = Flooded(server, sources.send, MANY)
            where = "loopback, no limit" if place == ON_LOOPBACK else "facing a network"
            name = f"{MANY:,} of {addresses}, {where}"
            yield from flood_rows(name, place, addresses, sources.answered, result)
            yield Row(
                f"{name}: the server",
                f"{result.each:.0f} us of processor a datagram,"
                f" {result.grown / KIB:.0f} KiB more memory",
                "1 MiB, no traceback",
                result.grown <= MIB and server.is_clean,
            )


def flood_rows(
    name: str, place: str, addresses: int, answered: int, result: Flooded
) -> Iterator[Row]:
    """
    Say who was answered, and whether the honest one was.
    """
    honest = result.honest
    accounted = answered + honest.answered + result.dropped + result.lost
    if place == ON_LOOPBACK:
        most = float(MANY)
        bound = "all answered"
        well = answered == MANY
    else:
        # From the time the log's last bucket was full to the last datagram.
        seconds = result.seconds + BURST_SECONDS
        most = min(addresses * RATE, TOTAL_RATE) * (seconds + 0.5)
        bound = f"at most {most:,.0f}"
        well = answered <= most
    yield Row(
        name,
        f"{answered:,} answered; dropped: {result.of_source:,} of one source,"
        f" {result.in_all:,} in all; {result.lost} by the kernel;"
        f" in {result.seconds:.1f} s",
        f"{bound}; each accounted for",
        well and accounted == MANY + honest.asked,
    )
    figure = (
        f"{honest.answered} of {honest.asked} answered,"
        f" the slowest in {honest.slowest:.2f} s"
    )
    crowded = place != ON_LOOPBACK and addresses * RATE > TOTAL_RATE
    yield Row(
        f"{name}: another, a name a second",
        figure,
        "the total is shared: some" if crowded else "all, 0.5 s",
        honest.answered > 0
        if crowded
        else honest.answered == honest.asked and honest.slowest <= 0.5,
    )


# Forged sources


class Forger:
    """
    Sends datagrams whose source is made up.

    Raises:
        PermissionError: we are not root.
    """

    def __init__(self) -> None:
        self._v4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._v6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_UDP)
        # At byte 6 of the datagram, by the kernel: IPv6 takes none without.
        self._v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 6)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._v4.close()
        self._v6.close()

    def send(
        self, source: tuple[str, int], to: tuple[str, int], data: bytes = NAME
    ) -> None:
        """Send one; both addresses have to be of this machine."""
        body = UDP.pack(source[1], to[1], UDP.size + len(data), 0) + data
        if ":" in to[0]:
            # It is from ::1, as is all that goes there.
            assert source[0] == to[0]
            self._v6.sendto(body, (to[0], 0))
        else:
            head = struct.pack(
                "!BBHHHBBH4s4s",
                0x45,
                0,
                0,  # the length, identity and checksum are the kernel's part
                0,
                0,
                64,
                socket.IPPROTO_UDP,
                0,
                socket.inet_aton(source[0]),
                socket.inet_aton(to[0]),
            )
            self._v4.sendto(head + body, (to[0], 0))


def root_only(name: str) -> Row:
    """Say that a run was left out."""
    return Row(name, "not root: not run", "-", ok=True)


FORGED = 200_000
TABLE = 16 * MIB
"""65,536 sources at some 160 bytes, and what Python keeps beside them."""


def forged() -> Iterator[Row]:
    """
    200,000 datagrams from as many forged addresses cost no more than the table.
    """
    for name, options in (
        ("by default", ()),
        (
            "--udp-rate=1 --udp-total-rate=0",
            ("--udp-rate=1", "--udp-total-rate=0"),
        ),
    ):
        title = f"{FORGED:,} forged sources, {name}"
        try:
            forger = Forger()
        except PermissionError:
            yield root_only(title)
            continue
        with (
            forger,
            FloodedServer(f"--udp={FACING_NETWORK}", *options) as server,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        ):
            # It takes the answers, as far as its buffer goes, and reads none.
            sink.bind(("0.0.0.0", 0))  # noqa: S104
            answered_at: int = sink.getsockname()[1]
            port = server.port("udp")

            def send(
                count: int,
                queue: Queue,
                forger: Forger = forger,
                port: int = port,
                answered_at: int = answered_at,
            ) -> None:
                # All of 127.0.0.0/8 is here: no answer leaves this machine.
                for number in range(count):
                    if number % 100 == 0:
                        queue.await_room()
                    address = socket.inet_ntoa(struct.pack("!I", 0x7F100000 + number))
                    forger.send((address, answered_at), (LOOPBACK, port))

            result = Flooded(server, send, FORGED)
            honest = result.honest
            limited = not options
            most = TOTAL_RATE * (result.seconds + BURST_SECONDS + 0.5)
            yield Row(
                title,
                f"{result.served:,} answered, {result.dropped:,} dropped,"
                f" {result.lost} by the kernel; {result.grown / MIB:.1f} MiB more"
                f" memory; {result.each:.0f} us of processor each; another had"
                f" {honest.answered} of {honest.asked} answers",
                (f"at most {most:,.0f} answered, " if limited else "")
                + f"{TABLE // MIB} MiB",
                result.grown <= TABLE
                and server.is_clean
                and (not limited or result.served <= most),
            )


# Loops


class Watch:
    """
    Counts what was forged, and answers to it, on its way from some ports.

    Args:
        ports: theirs; of UDP, over IPv4 and IPv6.
    """

    EVERY_PROTOCOL, PACKETS, STATISTICS, ATTACH_FILTER = 3, 263, 6, 26
    INCOMING_UDP = (
        (0x20, 0, 0, 0xFFFFF004),  # A = whether it leaves or arrives
        (0x15, 8, 0, socket.PACKET_OUTGOING),  # each is there twice
        (0x30, 0, 0, 0),  # A = first byte of the packet
        (0x74, 0, 0, 4),  # A >>= 4
        (0x15, 0, 2, 4),  # is it IPv4?
        (0x30, 0, 0, 9),  # A = its protocol
        (0x05, 0, 0, 1),
        (0x30, 0, 0, 6),  # A = IPv6's next header
        (0x15, 0, 1, socket.IPPROTO_UDP),
        (0x06, 0, 0, 0x40000),  # take it
        (0x06, 0, 0, 0),  # or not
    )
    """Without it, what others do on loopback fills the buffer."""

    def __init__(self, ports: set[int]) -> None:
        self._ports = ports
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        code = b"".join(struct.pack("HBBI", *each) for each in self.INCOMING_UDP)
        program = ctypes.create_string_buffer(code)
        self._socket.setsockopt(
            socket.SOL_SOCKET,
            self.ATTACH_FILTER,
            struct.pack("HP", len(self.INCOMING_UDP), ctypes.addressof(program)),
        )
        self._socket.bind(("lo", self.EVERY_PROTOCOL))
        self._socket.setblocking(False)
        self._over = False
        self._thread = threading.Thread(target=self._count, daemon=True)
        self.seen = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        both = self._socket.getsockopt(self.PACKETS, self.STATISTICS, 8)
        self.missed = struct.unpack("II", both)[1]
        self._socket.close()

    def _count(self) -> None:
        while not self._over:
            if not select.select([self._socket], [], [], 0.05)[0]:
                continue
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = self._socket.recv(KIB)
                    start = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
                    port = int.from_bytes(packet[start : start + 2], "big")
                    self.seen += port in self._ports and NAME in packet


def udp_places(server: Server, count: int) -> list[tuple[str, int]]:
    """
    Read from the log where the UDP services listen, `0.0.0.0` and all.
    """
    pattern = r"udp(?:-echo)? listens on \[?([\d.:]+?)\]?:(\d+)\.\n"

    def found() -> list[tuple[str, str]]:
        return re.findall(pattern, server.log)

    if not is_until(time.monotonic() + PATIENCE, lambda: len(found()) == count):
        raise RuntimeError(f"not {count} places in the log:\n{server.log}")
    return [(host, int(port)) for host, port in found()]


def reachable(host: str) -> str:
    """The address at which a place is asked."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104


def own_addresses() -> list[str]:
    """IPv4 addresses of this machine."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        # Nothing is sent: the kernel only looks which address it would take.
        probe.connect(("192.0.2.1", 9))
        return [LOOPBACK, "127.0.0.2", probe.getsockname()[0]]
    return [LOOPBACK, "127.0.0.2"]


def settle(places: list[tuple[str, int]]) -> bool:
    """
    Ask each place in order; what was sent before is then dealt with.
    """
    answered = 0
    for host, port in places:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(5)
            asking.connect((reachable(host), port))
            asking.send(b"honest")
            with contextlib.suppress(OSError):
                answered += b"honest" in asking.recv(KIB)
    time.sleep(0.2)
    return answered == len(places)


INTERFACES = ("0.0.0.0", LOOPBACK, "[::1]", "[::]")  # noqa: S104


def loops() -> Iterator[Row]:
    """
    No datagram from a service's port, or from our own, is answered.
    """
    try:
        forger = Forger()
    except PermissionError:
        yield root_only("forged ports")
        return
    options = [
        f"--{service}=udp:0:interface={interface}"
        for service in ("udp", "udp-echo")
        for interface in INTERFACES
    ]
    # The limits would hide what is answered.
    options += ["--udp-rate=0", "--udp-total-rate=0"]
    with forger, FloodedServer(*options) as server:
        places = udp_places(server, 2 * len(INTERFACES))
        ports = {port for _, port in places}
        told: Counter[str] = Counter()
        for name, pairs, reason in (
            (
                "source port 0",
                list(from_ports(range(1), places)),
                "ports of services",
            ),
            (
                "source ports 1 to 1023",
                list(from_ports(range(1, 1024), places)),
                "ports of services",
            ),
            (
                "from the services themselves",
                list(from_each_other(places)),
                "our own places",
            ),
        ):
            sent = forged_own = 0
            with Watch(ports) as watch:
                for source, to in pairs:
                    forger.send(source, to)
                    sent += 1
                    forged_own += source[1] in ports
                    if sent % 500 == 0:
                        settle(places)
                well = settle(places)
            answers = watch.seen - forged_own
            yield Row(
                f"{name}: hello and echo, on {len(places)} places",
                f"{sent:,} forged, {answers} answered"
                + (f", {watch.missed} not watched" if watch.missed else ""),
                "none; who asks then is answered",
                answers == 0 and watch.missed == 0 and well,
            )
            told[reason] += sent
        server.process.terminate()
        server.process.wait(PATIENCE)
        server.await_end()
        counted = sum_of(r"No answer was given to (\d+) datagrams", server.log)
        of_ports = sum_of(r"(\d+) from ports of services", server.log)
        own = sum_of(r"(\d+) from our own places", server.log)
        yield Row(
            "the log, at the stop",
            f"{counted:,} datagrams without an answer: {of_ports:,} from ports of"
            f" services, {own:,} from our own places",
            " + ".join(f"{each:,}" for each in told.values()) + ", no traceback",
            [of_ports, own] == list(told.values())
            and counted == of_ports + own
            and server.is_clean,
        )
    yield from between_processes()


def from_ports(
    ports: range, places: list[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Each of these source ports, to each place."""
    for port in ports:
        for host, to in places:
            here = reachable(host)
            yield (here, port), (here, to)
            if host == "::":  # it serves IPv4 as well
                yield (LOOPBACK, port), (LOOPBACK, to)


def from_each_other(
    places: list[tuple[str, int]],
) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Each place as the source, by every address it has, to each place."""
    everywhere = own_addresses()
    for (host, port), (other, to) in itertools.product(places, places):
        if ":" not in other or other == "::":
            sources = everywhere if host in INTERFACES[:1] or host == "::" else [host]
            for source in sources:
                if ":" not in source:
                    yield (source, port), (LOOPBACK, to)
        if ":" in other and ":" in host:
            yield ("::1", port), ("::1", to)


def between_processes() -> Iterator[Row]:
    """
    Services of two processes, of which neither knows the other, come to an end.
    """
    for first, second, where, most in (
        ("udp", "udp", ON_LOOPBACK, 1),
        ("udp", "udp-echo", ON_LOOPBACK, 2),
        ("udp-echo", "udp", ON_LOOPBACK, 3),
        ("udp-echo", "udp-echo", FACING_NETWORK, None),
    ):
        with (
            Forger() as forger,
            Server(f"--{first}={where}") as one,
            Server(f"--{second}={where}") as other,
        ):
            ports = one.port(first), other.port(second)
            seconds = 3.0
            with Watch(set(ports)) as watch:
                forger.send((LOOPBACK, ports[1]), (LOOPBACK, ports[0]))
                time.sleep(seconds)
            answers = watch.seen - 1
            name = {"udp": "hello", "udp-echo": "echo"}
            bound = 2 * RATE * (BURST_SECONDS + seconds + 0.5) if most is None else most
            yield Row(
                f"forged between two processes: {name[first]} and {name[second]}"
                + (", facing a network" if most is None else ""),
                f"{answers} answers in {seconds:g} s",
                f"{bound:.0f}" + ("" if most else " (its rate)"),
                answers <= bound and one.is_clean and other.is_clean,
            )


RUNS = {"flood": flood, "forged": forged, "loops": loops}


if __name__ == "__main__":
    sys.exit(run_named(RUNS, __doc__.split("\n\n")[0].strip()))
