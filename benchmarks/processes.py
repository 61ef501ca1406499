"""
A server's process: how it starts, when it is ready, what it uses, and its end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "Failed",
    "Process",
    "busy_seconds",
    "free_port",
    "on_cores",
]

LOOPBACK = "127.0.0.1"
STARTING_SECONDS = 20.0
"""After which a server that does not answer counts as hung."""

RESTING_SECONDS = 5.0
"""After which a server that still works for itself is measured all the same."""

ENDING_SECONDS = 3.0
"""After which a server that was told to end is killed."""

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """
    A server, or the load generator, did not do its part.
    """


def free_port(service: str) -> int:
    """
    Find a port that was free just now.
    """
    kind = socket.SOCK_DGRAM if service == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind((LOOPBACK, 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def on_cores(cores: Iterable[int]) -> Iterator[None]:
    """
    Have what is started meanwhile run on these cores, from its first moment on.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def busy_seconds() -> float:
    """
    Count what all cores have worked, with what the host took from a virtual machine.
    """
    values = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()
    user, nice, system, _, _, interrupt, soft_interrupt, stolen = map(int, values[1:9])
    return (user + nice + system + interrupt + soft_interrupt + stolen) / TICKS


class Process:
    """
    A server, in a `with` statement; at its end it is stopped, and killed if need be.

    Args:
        command: starts it.
        cores: where it may run.
    """

    def __init__(self, command: tuple[str, ...], cores: Iterable[int]) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - until __exit__
        try:
            with on_cores(cores):
                self._popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._complaints,
                    start_new_session=True,
                )
        except OSError as error:
            self._complaints.close()
            raise Failed(f"cannot be started: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(ENDING_SECONDS)
        # Its workers too: they are in its session, and may have outlived it.
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._complaints.close()

    @property
    def pids(self) -> list[int]:
        """The server and its workers."""
        return _tree(self._popen.pid)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the server and its workers, in whole ticks."""
        total = 0
        for pid in self.pids:
            with suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
                # The name may hold anything, spaces and brackets too.
                values = stat.rpartition(")")[2].split()
                total += int(values[11]) + int(values[12])
        return total / TICKS

    @property
    def private_kib(self) -> int:
        """Memory that is the server's alone, its workers' included."""
        total = 0
        for pid in self.pids:
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith(("Private_Clean:", "Private_Dirty:")):
                        total += int(line.split()[1])
        if not total:
            raise Failed("its memory cannot be read: /proc/PID/smaps_rollup")
        return total

    def wait_until_ready(self, service: str, port: int) -> None:
        """
        Wait until the service answers, and the server has no more to do for itself.

        Raises:
            Failed: it has ended, or does not answer.
        """
        deadline = time.monotonic() + STARTING_SECONDS
        while not _answers(service, port):
            self.check_alive()
            if time.monotonic() > deadline:
                raise Failed(f"no answer {STARTING_SECONDS:.0f} s after its start")
            time.sleep(0.02)
        deadline = time.monotonic() + RESTING_SECONDS
        before = None
        while before != (now := (self.pids, self.cpu_seconds)):
            if time.monotonic() > deadline:
                break
            before = now
            time.sleep(0.15)
        self.check_alive()

    def check_alive(self, seconds: float = 0.0) -> None:
        """
        Raises:
            Failed: the server has ended, or does within so many seconds; with the last
                line that it said.
        """
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        raise Failed(f"it ended with status {self._popen.returncode}{said}")


def _answers(service: str, port: int) -> bool:
    kind = socket.SOCK_DGRAM if service == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(1 if service != "udp" else 0.1)
        try:
            one.connect((LOOPBACK, port))
            if service != "hello":
                one.send(b"Is there an echo?")
            return bool(one.recv(64))
        except OSError:
            return False


def _tree(pid: int) -> list[int]:
    """List a process and its descendants."""
    pids = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text("ascii").split():
                pids += _tree(int(child))
    return pids
