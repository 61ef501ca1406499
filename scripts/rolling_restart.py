"""
Restarts two processes behind a real HAProxy, in turn and under load; counts losses.

    python scripts/rolling_restart.py [--version v1|v2|both] [--seconds N] [--clients N]

HAProxy speaks the PROXY protocol to both, and takes each out of rotation before it
is stopped. Clients check every byte they get, and the processes' logs have to name
every client with its own address and sizes. The exit status is 1 if anything was
lost, and 2 if there is no haproxy. Linux: it uses several addresses of loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from servers import KIB, LOOPBACK, MIB, SERVE

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Awaitable, Callable

CLIENT = "127.0.0.2"
"""Where clients connect from: so the log tells them from HAProxy's checks."""

BALANCER = "127.0.0.3"
"""
Where HAProxy connects from. From LOOPBACK, one of its connections could have the very
port that a process is about to listen on again.
"""

PATIENCE = 15.0
"""Seconds after which whatever is awaited counts as missing."""

DELAY = 0.2
"""Seconds of `--delay`: some answer is owed whenever a process is stopped."""

THINK = 0.25
"""
Seconds a client may take for its next word. A process that drains takes half a
second of silence for the end of the conversation.
"""

DRAIN = 10
"""Seconds of `--drain`; the longest conversation takes 4."""

SHOWN = 10
"""Losses that are told one by one, and other problems."""

SERVICES = ("hello", "echo")
SERVERS = ("s1", "s2")
FAILURES = ("refused", "reset", "cut short", "wrong bytes", "timed out")

# A check that only connected would succeed as soon as the kernel listens. These wait
# for the service's own words, behind a header such as a client's connection has; and
# "linger" has them end without a reset, which would be in the service's log.
CONFIG = """
global
    stats socket {folder}/admin mode 600 level admin
    log stdout format raw local0
defaults
    mode tcp
    log global
    option tcplog
    option redispatch
    option tcp-check
    balance roundrobin
    source {balancer}
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout check 2s
    default-server check inter 200ms rise 1 fall 2 check-send-proxy {send}
listen hello
    bind fd@{hello}
    tcp-check connect default linger
    tcp-check expect string Welcome!
    server s1 {loopback}:{ports[s1][hello]}
    server s2 {loopback}:{ports[s2][hello]}
listen echo
    bind fd@{echo}
    tcp-check connect default linger
    tcp-check send there?
    tcp-check expect string there?
    server s1 {loopback}:{ports[s1][echo]}
    server s2 {loopback}:{ports[s2][echo]}
"""
SEND = {"v1": "send-proxy", "v2": "send-proxy-v2"}

_chance = random.Random(7)  # noqa: S311 - only to vary the load


# Programs


class Program:
    """
    A child process and what it has said.

    Args:
        name: for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.log: list[str] = []
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self, *command: str, pass_fds: tuple[int, ...] = ()) -> None:
        """Start it; also anew, when it has ended."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=pass_fds,
        )
        self._process = process
        self._reading = asyncio.create_task(self._read(process))

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.log.append(line.decode(errors="replace").rstrip("\n"))

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def stop(self) -> int:
        """Send it SIGTERM; return its status, with all it had to say in `log`."""
        assert self._process is not None
        assert self._reading is not None
        if self.is_running:
            self._process.terminate()
        async with asyncio.timeout(DRAIN + PATIENCE):
            status = await self._process.wait()
            await self._reading
        return status

    async def kill(self) -> None:
        """End it, whatever it does."""
        if self._process is not None and self.is_running:
            self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()


class Server(Program):
    """
    One of our processes: at first on any ports, and later on the same ones.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ports = dict.fromkeys(SERVICES, 0)

    async def serve(self) -> None:
        """Start it, and wait until it says where it listens."""
        said = len(self.log)
        await self.start(
            *SERVE,
            *(
                f"--{service}=haproxy:tcp:{port}:interface={LOOPBACK}"
                for service, port in self.ports.items()
            ),
            f"--delay={DELAY}",
            f"--drain={DRAIN}",
        )
        for service in SERVICES:
            found: list[str] = []

            def look(service: str = service, found: list[str] = found) -> bool:
                pattern = rf"{service} listens on \S+:(\d+)\."
                found += re.findall(pattern, "\n".join(self.log[said:]))
                return bool(found) or not self.is_running

            await until(f"{self.name} to listen", look)
            if not found:
                raise RuntimeError(f"{self.name} has ended:\n" + "\n".join(self.log))
            self.ports[service] = int(found[0])


class Balancer(Program):
    """
    HAProxy in the foreground, with its socket for orders.

    Args:
        program: its path.
        folder: for its configuration and its socket.
    """

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__("haproxy")
        self._program = program
        self._folder = folder
        self.ports: dict[str, int] = {}

    async def balance(self, servers: list[Server], version: str) -> None:
        """Start it before these servers."""
        with contextlib.ExitStack() as until_started:
            # It inherits sockets that are bound, so that no port has to be guessed.
            bound = {}
            for service in SERVICES:
                listener = until_started.enter_context(socket.socket())
                listener.bind((LOOPBACK, 0))
                listener.listen(511)
                self.ports[service] = listener.getsockname()[1]
                bound[service] = listener.fileno()
            config = self._folder / "haproxy.cfg"
            config.write_text(
                CONFIG.format(
                    folder=self._folder,
                    loopback=LOOPBACK,
                    balancer=BALANCER,
                    send=SEND[version],
                    ports={server.name: server.ports for server in servers},
                    **bound,
                )
            )
            await self.start(
                *(self._program, "-db", "-f", str(config)),
                pass_fds=tuple(bound.values()),
            )
        admin = self._folder / "admin"
        await until("haproxy", lambda: admin.exists() or not self.is_running)
        for server in servers:
            await self.becomes(server.name, "UP", "L7OK")

    async def order(self, command: str) -> str:
        """Give it one order; return its answer."""
        if not self.is_running:
            raise RuntimeError("haproxy has ended:\n" + "\n".join(self.log[-20:]))
        admin = str(self._folder / "admin")
        reader, writer = await asyncio.open_unix_connection(admin)
        writer.write(command.encode() + b"\n")
        answer = (await reader.read()).decode()
        writer.close()
        return answer.strip()

    async def set_state(self, server: str, state: str) -> None:
        """Put a server into rotation, or take it out."""
        for service in SERVICES:
            answer = await self.order(f"set server {service}/{server} state {state}")
            if answer:
                raise RuntimeError(f"haproxy does not set {server} {state}: {answer}")

    async def counts(self, name: str) -> list[dict[str, str]]:
        """Read what it counts of a server, or of `FRONTEND`, for each service."""
        rows = (await self.order("show stat")).removeprefix("# ").splitlines()
        return [row for row in csv.DictReader(rows) if row["svname"] == name]

    async def becomes(self, server: str, status: str, check: str = "") -> None:
        """Wait until it sees a server so, with all its services."""
        deadline = time.monotonic() + PATIENCE
        while True:
            seen = await self.counts(server)
            if all(
                row["status"].startswith(status) and row["check_status"].endswith(check)
                for row in seen
            ):
                return
            if time.monotonic() > deadline:
                states = [(row["status"], row["check_status"]) for row in seen]
                raise RuntimeError(f"{server} does not get {status}: {states}")
            await asyncio.sleep(0.05)

    async def sends_no_more(self, server: str) -> None:
        """Wait until a server has had no new connection for a little while."""
        before = None
        while (now := [row["stot"] for row in await self.counts(server)]) != before:
            before = now
            await asyncio.sleep(0.2)


async def until(what: str, condition: Callable[[], bool]) -> None:
    """
    Look again and again until something is so.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE:g} s for {what}")
        await asyncio.sleep(0.02)


# Clients


class Trouble(Exception):
    """
    What a client did not get as it should.
    """

    def __init__(self, kind: str, seen: str) -> None:
        super().__init__(kind, seen)
        self.kind = kind
        self.seen = seen


@dataclass(slots=True)
class Tally:
    """
    What became of one kind of client.
    """

    served: int = 0
    requests: int = 0
    size: int = 0
    slowest: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)


class Conversation:
    """
    One connection, which compares what it hears with what it ought to.
    """

    _serial = 0

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tally: Tally
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._tally = tally
        self.sent = self.received = 0
        Conversation._serial += 1
        self._serial = Conversation._serial
        self._names = 0

    def name(self) -> bytes:
        """Make a name that nobody else says: an answer to another would show."""
        self._names += 1
        return b"client %d.%d" % (self._serial, self._names)

    async def ask(self, words: bytes, answer: bytes) -> None:
        """Say something, and wait until exactly this has come back."""
        began = time.monotonic()
        self.say(words)
        await self.hear(answer)
        self.answered(time.monotonic() - began)

    def answered(self, seconds: float, requests: int = 1) -> None:
        """Count requests that were served, and how long they took."""
        self._tally.requests += requests
        self._tally.slowest = max(self._tally.slowest, seconds)

    def say(self, words: bytes) -> None:
        """Send, whether or not anybody reads it."""
        self._writer.write(words)
        self.sent += len(words)

    async def hear(self, expected: bytes) -> None:
        """Read as many bytes, and compare them."""
        try:
            async with asyncio.timeout(PATIENCE):
                came = await self._reader.readexactly(len(expected))
        except asyncio.IncompleteReadError as error:
            came = error.partial
        except TimeoutError:
            raise Trouble("timed out", f"{len(expected)} bytes owed") from None
        self.received += len(came)
        if not expected.startswith(came):
            pairs = enumerate(zip(came, expected, strict=False))
            at = next(at for at, (one, other) in pairs if one != other)
            seen = f"{came[at : at + 20]!r} for {expected[at : at + 20]!r} at {at}"
            raise Trouble("wrong bytes", seen)
        if came != expected:
            seen = f"end of file after {len(came)} of {len(expected)} bytes"
            raise Trouble("cut short", seen)
        self._tally.size += len(came)

    def end_input(self) -> None:
        """Shut down our sending side."""
        try:
            self._writer.write_eof()
        except OSError as error:  # not connected any more
            raise Trouble("reset", str(error)) from None

    async def hear_end(self) -> None:
        """Wait for the end of file, and for nothing else."""
        try:
            async with asyncio.timeout(PATIENCE):
                came = await self._reader.read()
        except TimeoutError:
            raise Trouble("timed out", "end of file owed") from None
        if came:
            raise Trouble("wrong bytes", f"{came[:80]!r} for the end of file")


async def hello(talk: Conversation) -> None:
    """Say some names as lines, each after the answer to the one before; exit."""
    await talk.hear(b"Welcome!")
    completes = b"\n"  # the greeting, which went out bare
    for _ in range(_chance.randint(1, 4)):
        name = talk.name()
        await talk.ask(name + b"\n", completes + b"Hello, " + name + b"!\n")
        completes = b""
    talk.say(b"exit\n")
    await talk.hear_end()


async def hello_ending_input(talk: Conversation) -> None:
    """Say some names at once and shut down; as `nc -N` with a pipe."""
    names = [talk.name() for _ in range(_chance.randint(1, 4))]
    began = time.monotonic()
    talk.say(b"".join(name + b"\n" for name in names))
    talk.end_input()
    answers = b"".join(b"Hello, " + name + b"!\n" for name in names)
    await talk.hear(b"Welcome!\n" + answers)
    talk.answered(time.monotonic() - began, len(names))
    await talk.hear_end()


async def long_hello(talk: Conversation) -> None:
    """Converse for some seconds as the tutorials' client does, without lines."""
    await talk.hear(b"Welcome!")
    until = time.monotonic() + _chance.uniform(2, 4)
    while time.monotonic() < until:
        name = talk.name()
        await talk.ask(name, b"Hello, " + name + b"!")
        await asyncio.sleep(_chance.uniform(0, THINK))
    talk.say(b"exit")
    await talk.hear_end()


_NOISE = os.urandom(2 * MIB)


def noise(largest: int) -> bytes:
    """
    Cut some bytes out of many.
    """
    begin = _chance.randrange(len(_NOISE) - largest)
    return _NOISE[begin : begin + _chance.randint(1, largest)]


async def echo(talk: Conversation) -> None:
    """Have some bytes echoed, and close."""
    data = noise(256 * KIB)
    await talk.ask(data, data)


async def echo_ending_input(talk: Conversation) -> None:
    """Send some bytes and shut down; then read up to the end of file."""
    data = noise(256 * KIB)
    began = time.monotonic()
    talk.say(data)
    talk.end_input()
    await talk.hear(data)
    talk.answered(time.monotonic() - began)
    await talk.hear_end()


async def long_echo(talk: Conversation) -> None:
    """Have bytes echoed for some seconds, and close."""
    until = time.monotonic() + _chance.uniform(2, 4)
    while time.monotonic() < until:
        data = noise(64 * KIB)
        await talk.ask(data, data)
        await asyncio.sleep(_chance.uniform(0, THINK))


async def long_echo_ending_input(talk: Conversation) -> None:
    """The same, with a shutdown and an end of file in the end."""
    await long_echo(talk)
    await echo_ending_input(talk)


Talk = tuple[str, str, "Callable[[Conversation], Awaitable[None]]"]

SHORT: tuple[Talk, ...] = (
    ("hello", "hello", hello),
    ("hello, half-close", "hello", hello_ending_input),
    ("echo", "echo", echo),
    ("echo, half-close", "echo", echo_ending_input),
)
LONG: tuple[Talk, ...] = (
    ("long hello", "hello", long_hello),
    ("long echo", "echo", long_echo),
    ("long echo, half-close", "echo", long_echo_ending_input),
)


# A run


class Run:
    """
    One version of the PROXY protocol: load, restarts, and what became of them.

    Args:
        balancer: not started yet.
        version: `v1` or `v2`.
    """

    def __init__(self, balancer: Balancer, version: str) -> None:
        self.balancer = balancer
        self.version = version
        self.servers = [Server(name) for name in SERVERS]
        self.tallies = {name: Tally() for name, _, _ in SHORT + LONG}
        self.restarts: Counter[str] = Counter()
        self.longest_stop = 0.0
        self.losses: list[str] = []
        self.problems: list[str] = []
        self._stage = "before the first restart"
        self._over = False
        # What clients saw: their port, bytes sent, bytes received.
        self._accounts: Counter[tuple[int, int, int]] = Counter()

    async def carry_out(self, seconds: float, clients: int) -> None:
        """Start all, restart in turn for so long under load, and stop all."""
        for server in self.servers:
            await server.serve()
        await self.balancer.balance(self.servers, self.version)
        async with asyncio.TaskGroup() as load:
            for number in range(clients):
                load.create_task(self._talk_on(number, LONG if number % 2 else SHORT))
            try:
                await self._restart_in_turn(time.monotonic() + seconds)
            except (RuntimeError, TimeoutError) as error:
                self.problems.append(str(error) or "a process did not stop")
            finally:
                self._over = True
        self.counted = {name: await self.balancer.counts(name) for name in SERVERS}
        self._stage = "at the end"
        for server in self.servers:
            await self._stop(server)
        self._check_logs()

    async def _restart_in_turn(self, deadline: float) -> None:
        await asyncio.sleep(1)
        while True:
            for server in self.servers:
                await self._restart(server)
                if time.monotonic() >= deadline:
                    return

    async def _restart(self, server: Server) -> None:
        name = server.name
        self._stage = f"{name} out of rotation"
        await self.balancer.set_state(name, "drain")
        await self.balancer.sends_no_more(name)
        self._stage = f"{name} stopping"
        await self._stop(server)
        self._stage = f"{name} down"
        await self.balancer.becomes(name, "DOWN")
        await server.serve()
        self._stage = f"{name} up again"
        await self.balancer.becomes(name, "DRAIN", "L7OK")
        await self.balancer.set_state(name, "ready")
        await self.balancer.becomes(name, "UP")
        self.restarts[name] += 1

    async def _stop(self, server: Server) -> None:
        began = time.monotonic()
        status = await server.stop()
        self.longest_stop = max(self.longest_stop, time.monotonic() - began)
        if status:
            self.problems.append(f"{server.name} ended with status {status}")

    async def _talk_on(self, number: int, talks: tuple[Talk, ...]) -> None:
        turn = number // 2
        while not self._over:
            turn += 1
            await self._talk(*talks[turn % len(talks)])

    async def _talk(
        self, kind: str, service: str, words: Callable[[Conversation], Awaitable[None]]
    ) -> None:
        tally = self.tallies[kind]
        began, stage = time.monotonic(), self._stage
        writer, port = None, 0
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(
                    LOOPBACK, self.balancer.ports[service], local_addr=(CLIENT, 0)
                )
            port = writer.get_extra_info("sockname")[1]
            talk = Conversation(reader, writer, tally)
            await words(talk)
        except Trouble as trouble:
            failure, seen = trouble.kind, trouble.seen
        except ConnectionRefusedError:
            failure, seen = "refused", "by haproxy"
        except ConnectionError as error:
            failure, seen = "reset", str(error)
        except TimeoutError:
            failure, seen = "timed out", "not connected"
        else:
            tally.served += 1
            self._accounts[port, talk.sent, talk.received] += 1
            return
        finally:
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        tally.failures[failure] += 1
        seconds = time.monotonic() - began
        self.losses.append(
            f"{kind}: {failure} after {seconds:.2f} s: {seen}; it began with {stage},"
            f" and ended with {self._stage}.{self._logged_of(port)}"
        )

    def _logged_of(self, port: int) -> str:
        client = f"{CLIENT}:{port}"
        lines = [
            f"\n    {program.name}: {line}"
            for program in (*self.servers, self.balancer)
            for line in program.log[-500:]
            if client in line
        ]
        return "".join(lines)

    def _check_logs(self) -> None:
        """Find each client in a log as it saw itself, and no complaint there."""
        closed = re.compile(
            r"Connection from (\S+):(\d+) closed\. \((\d+) bytes in, (\d+) out, .*\)"
        )
        # A warning and worse is marked as such, and a traceback has no time.
        harmless = re.compile(r"\d\d:\d\d:\d\d (?!warn:|error:|critical:).*")
        self.by_server: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        logged: Counter[tuple[int, int, int]] = Counter()
        for server in self.servers:
            for line in server.log:
                match = closed.search(line)
                if match is None:
                    if not harmless.fullmatch(line):
                        self.problems.append(f"{server.name} said {line!r}")
                elif match[1] == CLIENT:
                    self.by_server[server.name] += 1
                    logged[int(match[2]), int(match[3]), int(match[4])] += 1
                else:
                    self.checks[server.name] += 1
        for port, sent, received in (self._accounts - logged).elements():
            self.problems.append(
                f"no log has {CLIENT}:{port}, which sent {sent} bytes"
                f" and got {received}"
            )

    def tell(self) -> None:
        """Print the tables."""
        print(f"\nPROXY protocol {self.version}\n")
        columns = ("clients", "served", "requests", "MiB", "slowest s", *FAILURES)
        print(" | ".join(columns))
        print(" | ".join("---" for _ in columns))
        for name, tally in self.tallies.items():
            cells = (
                *(name, tally.served, tally.requests),
                *(f"{tally.size / MIB:.1f}", f"{tally.slowest:.3f}"),
                *(tally.failures[failure] for failure in FAILURES),
            )
            print(" | ".join(map(str, cells)))
        tallies = self.tallies.values()
        cells = (
            "all",
            sum(tally.served for tally in tallies),
            sum(tally.requests for tally in tallies),
            f"{sum(tally.size for tally in tallies) / MIB:.1f}",
            f"{max(tally.slowest for tally in tallies):.3f}",
            *(sum(tally.failures[each] for tally in tallies) for each in FAILURES),
        )
        print(" | ".join(map(str, cells)))
        counters = ("econ", "eresp", "wretr", "wredis", "srv_abrt", "chkdown")
        columns = ("process", "restarts", "clients logged", "checks logged", *counters)
        print("\n" + " | ".join(columns))
        print(" | ".join("---" for _ in columns))
        for name, counted in self.counted.items():
            cells = (
                *(name, self.restarts[name], self.by_server[name], self.checks[name]),
                *(sum(int(row[each] or 0) for row in counted) for each in counters),
            )
            print(" | ".join(map(str, cells)))
        print(f"\nthe longest stop took {self.longest_stop:.1f} s of {DRAIN}")


async def roll(program: str, version: str, seconds: float, clients: int) -> bool:
    """
    Make one run, and tell of it; return whether all went well.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Balancer(program, Path(folder)), version)
        try:
            await run.carry_out(seconds, clients)
        except (RuntimeError, TimeoutError) as error:
            run.problems.append(str(error) or "a process did not stop")
        else:
            run.tell()
        finally:
            for each in (run.balancer, *run.servers):
                await each.kill()
    for found in (run.losses, run.problems):
        for problem in found[:SHOWN]:
            print(problem, file=sys.stderr)
        if len(found) > SHOWN:
            print(f"and {len(found) - SHOWN} more", file=sys.stderr)
    return not (run.losses or run.problems)


async def roll_all(
    program: str, versions: list[str], seconds: float, clients: int
) -> int:
    """
    Make the runs; return the exit status.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    well = [await roll(program, version, seconds, clients) for version in versions]
    return 0 if all(well) else 1


def main() -> int:
    """
    Do what the command line says; return the exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--version", choices=[*SEND, "both"], default="both")
    parser.add_argument(
        "--seconds", type=float, default=60, help="of restarts, for each version (60)"
    )
    parser.add_argument("--clients", type=int, default=40, help="at a time (40)")
    options = parser.parse_args()
    # Debian's is where only root's PATH looks.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    program = shutil.which("haproxy", path=path)
    if program is None:
        print("haproxy is not installed (Debian: apt install haproxy)", file=sys.stderr)
        return 2
    versions = list(SEND) if options.version == "both" else [options.version]
    try:
        return asyncio.run(
            roll_all(program, versions, options.seconds, options.clients)
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
