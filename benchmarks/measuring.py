"""
The method: rounds, in each of which every server is measured once.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from figures import Measurement
from processes import Failed, Process, busy_seconds, free_port, on_cores

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from modes import Mode
    from servers import Server

__all__ = ["Plan", "measure", "rounds"]

WARM_UP_SECONDS = 0.5
LOAD_SECONDS = 90.0
"""After which the load generator is killed, beyond the time that counts."""

DYING_SECONDS = 0.5
"""That a server may still need to say why it ended, once its connections are gone."""

MIB = 1 << 20

FAILURES = 2
"""After so many, a server is left out of the other rounds of that work."""


@dataclass(frozen=True, slots=True)
class Plan:
    """
    How to measure.

    Args:
        programs: what was compiled, by name.
        rounds: how many.
        seconds: of one measurement, after the warm-up.
        quiet: load of others, in cores, above which a measurement is made again.
        retries: how often.
        chance: shuffles the servers of a round.
        cores: of the machine, that we may use.
    """

    programs: Mapping[str, Path]
    rounds: int
    seconds: float
    quiet: float
    retries: int
    chance: random.Random
    cores: tuple[int, ...]


def rounds(
    plan: Plan,
    mode: Mode,
    servers: Sequence[Server],
    failed: Callable[[Server, Failed], None],
) -> Iterator[Measurement]:
    """
    Measure every server once a round, in an order that changes, one after the other.

    A server that fails is told of to `failed`, and left out after the second time.
    """
    failures = dict.fromkeys((server.name for server in servers), 0)
    for number in range(plan.rounds):
        for server in plan.chance.sample(servers, len(servers)):
            if failures[server.name] >= FAILURES:
                continue
            try:
                yield _quietly(plan, mode, server, number)
            except Failed as error:
                failures[server.name] += 1
                failed(server, error)


def _quietly(plan: Plan, mode: Mode, server: Server, number: int) -> Measurement:
    """Measure, again while others disturb; the least disturbed one counts."""
    best = measure(plan, mode, server, number)
    for _ in range(plan.retries):
        if best.other_load <= plan.quiet:
            break
        again = measure(plan, mode, server, number)
        best = min(best, again, key=lambda each: each.other_load)
    return best


def measure(plan: Plan, mode: Mode, server: Server, number: int) -> Measurement:
    """
    Start a server, load it, and end it.

    It gets the first cores and the load generator the others. Where none is left,
    they share, and the load generator sleeps whenever it has nothing to do.

    Raises:
        Failed: with the reason, in one line.
    """
    port = free_port(mode.service)
    names = {name: str(path) for name, path in plan.programs.items()}
    command = tuple(
        part.format(port=port, **names) for part in server.commands[mode.service]
    )
    with Process(command, plan.cores[: server.cores]) as process:
        process.wait_until_ready(mode.service, port)
        before = process.private_kib
        with _Others(process) as others:
            result, held_kib = _load(plan, mode, server.cores, port, process)
    done = _number(result, "messages")
    if mode.unit == "MiB":
        done = _number(result, "bytes") / MIB
    if not done:
        raise Failed("it did nothing in the time that counts")
    idle = held_kib is not None
    seconds, cpu_seconds = _number(result, "seconds"), _number(result, "cpu_seconds")
    lost = _number(result, "lost")
    has_times = mode.unit != "MiB" and not idle
    return Measurement(
        mode=mode.name,
        server=server.name,
        round=number,
        cpu_us=cpu_seconds / done * 1e6,
        rate=done / seconds,
        p50_us=_number(result, "p50_us") if has_times else None,
        p99_us=_number(result, "p99_us") if has_times else None,
        lost=lost / (done + lost),
        kib=(held_kib - before) / done if held_kib is not None else None,
        opening_seconds=seconds if idle else None,
        other_load=others.cores,
    )


def _load(
    plan: Plan, mode: Mode, server_cores: int, port: int, process: Process
) -> tuple[dict[str, object], int | None]:
    """Run the load generator; of idle connections, read the memory meanwhile."""
    left = plan.cores[server_cores:]
    command = [
        str(plan.programs["load"]),
        mode.kind,
        str(port),
        f"--connections={mode.connections}",
        *mode.options,
        f"--seconds={plan.seconds}",
        f"--warm-up={WARM_UP_SECONDS}",
        f"--watch={','.join(map(str, process.pids))}",
        *(("--spin",) if left else ()),
    ]
    with on_cores(left or plan.cores):
        load = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    held_kib = None
    try:
        assert load.stdout is not None
        limit = plan.seconds + WARM_UP_SECONDS + LOAD_SECONDS
        if not select.select([load.stdout], [], [], limit)[0]:
            raise Failed(f"the load generator was not done after {limit:.0f} s")
        said = load.stdout.readline()
        if said and mode.is_idle:
            held_kib = process.private_kib
        _, complaint = load.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        raise Failed("the load generator did not end") from None
    finally:
        load.kill()
        load.wait()
    if load.returncode or not said:
        process.check_alive(DYING_SECONDS)
        raise Failed(complaint.strip() or f"load: status {load.returncode}")
    result: dict[str, object] = json.loads(said)
    return result, held_kib


def _number(result: dict[str, object], name: str) -> float:
    value = result[name]
    assert isinstance(value, int | float)
    return value


class _Others:
    """
    Counts what the machine did beside us, in a `with` statement; `cores` is the mean.
    """

    def __init__(self, server: Process) -> None:
        self._server = server
        self.cores = 0.0

    def __enter__(self) -> Self:
        self._since = time.monotonic()
        self._before = self._count()
        return self

    def __exit__(self, *_: object) -> None:
        elapsed = time.monotonic() - self._since
        self.cores = max(0.0, (self._count() - self._before) / elapsed)

    def _count(self) -> float:
        ours = os.times()
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (
            busy_seconds()
            - self._server.cpu_seconds
            - (ours.user + ours.system)
            - (reaped.ru_utime + reaped.ru_stime)
        )
