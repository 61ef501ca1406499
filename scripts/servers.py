"""
Server processes to try things on, and a table of what was measured.

What the scripts beside this one share. Linux: it reads /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "A_CONNECTION",
    "KIB",
    "LOOPBACK",
    "MIB",
    "PATIENCE",
    "PLACE",
    "SERVE",
    "TWISTD",
    "WITH_TLS",
    "Row",
    "Runs",
    "Server",
    "certificate_files",
    "connected",
    "echoes",
    "is_until",
    "print_rows",
    "print_table",
    "read_to_end",
    "reset",
    "run_named",
]

MIB = 1 << 20
KIB = 1 << 10
LOOPBACK = "127.0.0.1"
PLACE = f"tcp:0:interface={LOOPBACK}"
PATIENCE = 30.0
"""Seconds after which whatever is awaited counts as missing."""

REACTOR = os.environ.get("REACTOR", "stock")
"""What the servers run on, `stock` or `uvloop`: `REACTOR=uvloop python scripts/...`."""

A_CONNECTION, WITH_TLS = (256, 384) if REACTOR == "stock" else (330, 480)
"""KiB that one may cost whose peer does not read (docs/limits.md)."""

SERVE = (sys.executable, "-m", "sockproto", "serve", f"--reactor={REACTOR}")
TWISTD = (
    sys.executable,
    "-c",
    "from twisted.scripts.twistd import run; run()",
    *(() if REACTOR == "stock" else (f"--reactor={REACTOR}",)),
    "-n",
    "--pidfile=",
    "sockproto",
)

Runs: TypeAlias = "Mapping[str, Callable[[], Iterator[Row]]]"
"""What `--only` may name."""


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the table.
    """

    run: str
    figure: str
    bound: str
    ok: bool


class Server:
    """
    A server process, from its start to its end; `log` is what it has said.

    Args:
        options: of the services.
        command: what runs them.
        files: the limit of open files that it gets; its own by default.
    """

    def __init__(
        self, *options: str, command: tuple[str, ...] = SERVE, files: int | None = None
    ) -> None:
        self._options = options
        self._command = command
        self._files = files
        self._log: list[str] = []
        self._news = threading.Condition()

    def __enter__(self) -> Self:
        def limit_files() -> None:
            if self._files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self._files, self._files))

        self.process = subprocess.Popen(
            [*self._command, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=limit_files,  # noqa: PLW1509 - no thread holds a lock here
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self._log.append(line)
                    self._news.notify_all()

    @property
    def log(self) -> str:
        return "".join(self._log)

    @property
    def is_clean(self) -> bool:
        """Whether no traceback has been logged."""
        return "Traceback" not in self.log

    def await_line(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the log matches."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            for line in self._log:
                match = re.search(pattern, line)
                if match:
                    found.append(match)
                    return True
            return False

        with self._news:
            if not self._news.wait_for(look, PATIENCE):
                raise RuntimeError(f"no {pattern!r} in the log:\n{self.log}")
        return found[0]

    def port(self, service: str) -> int:
        """Read from the log where a service listens."""
        return int(self.await_line(rf"{service} listens on \S+:(\d+)\.")[1])

    def ports(self, service: str, count: int) -> list[int]:
        """Read where a service of several places listens, in their order."""
        found: list[str] = []

        def look() -> bool:
            pattern = rf" {service} listens on \S+:(\d+)\."
            found[:] = re.findall(pattern, self.log)
            return len(found) == count

        if not is_until(time.monotonic() + PATIENCE, look):
            raise RuntimeError(f"{service} listens on {found}:\n{self.log}")
        return [int(port) for port in found]

    @property
    def resident(self) -> int:
        """Bytes of memory that it has now."""
        return self._memory("VmRSS")

    @property
    def private(self) -> int:
        """Of those, what is its own: no code, which the kernel may drop and reread."""
        return self._memory("RssAnon")

    def _memory(self, kind: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(rf"{kind}:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) * KIB

    @property
    def open_files(self) -> int:
        """Descriptors that it has open now."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def connected(port: int, seconds: float = PATIENCE) -> socket.socket:
    """
    Connect to a port of this machine.
    """
    return socket.create_connection((LOOPBACK, port), seconds)


def read_to_end(connection: socket.socket) -> bytes:
    """
    Read until end of file.
    """
    parts = []
    while part := connection.recv(MIB):
        parts.append(part)
    return b"".join(parts)


def is_until(deadline: float, condition: Callable[[], bool]) -> bool:
    """
    Look again and again until something is so, or the time has come.
    """
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def certificate_files(folder: Path) -> tuple[str, str, str]:
    """
    Make an authority, and a certificate for localhost with its key.
    """
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("localhost", LOOPBACK)
    names = tuple(str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(names[0])
    issued.cert_chain_pems[0].write_to_path(names[1])
    issued.private_key_pem.write_to_path(names[2])
    return names[0], names[1], names[2]


def reset(connection: socket.socket) -> None:
    """
    Close with a reset.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def echoes(port: int, seconds: float = PATIENCE) -> bool:
    """
    Ask an echo for its echo.
    """
    with contextlib.suppress(OSError), connected(port, seconds) as connection:
        connection.sendall(b"there?")
        return connection.recv(KIB) == b"there?"
    return False


def run_named(runs: Runs, description: str) -> int:
    """
    Make the runs that the command line names, or all; return the exit status.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--only", choices=runs, action="append", help="make this run; may be repeated"
    )
    only = parser.parse_args().only or runs
    return print_table({name: run for name, run in runs.items() if name in only})


def print_table(runs: Runs) -> int:
    """
    Make runs, and print what each measured; return the exit status.
    """
    return print_rows(row for run in runs.values() for row in run())


def print_rows(rows: Iterable[Row]) -> int:
    """
    Print a table, row by row as they come; return the exit status.
    """
    # Thousands of connections; the server inherits the limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    broken = 0
    print("run | figure | bound | ok")
    print("--- | --- | --- | ---")
    for row in rows:
        word = "ok" if row.ok else "NO"
        print(f"{row.run} | {row.figure} | {row.bound} | {word}", flush=True)
        broken += not row.ok
    return 1 if broken else 0
