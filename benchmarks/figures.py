"""
What was measured, how it is summed up, and how it is kept in a file.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["Measurement", "NotReadable", "Run", "Spread", "Summary", "spread"]


class NotReadable(Exception):
    """
    A file is not one that `Run.save` has written.
    """


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    One server at one kind of work, in one round.

    Args:
        mode: the name of the work.
        server: the name of the server.
        round: its number, from 0.
        cpu_us: microseconds of the server's processor time a unit of work.
        rate: units of work a second.
        p50_us: microseconds from question to answer, of half of them at most; None
            where nobody asks.
        p99_us: of 99 in 100.
        lost: the share of datagrams that was not answered.
        kib: memory of an idle connection, the process's own.
        opening_seconds: how long it took to open the idle connections.
        other_load: what others used of the machine meanwhile, in cores.
    """

    mode: str
    server: str
    round: int
    cpu_us: float
    rate: float
    p50_us: float | None
    p99_us: float | None
    lost: float
    kib: float | None
    opening_seconds: float | None
    other_load: float


@dataclass(frozen=True, slots=True)
class Spread:
    """
    The median of some values, with the least and the most.
    """

    median: float
    least: float
    most: float


def spread(values: Iterable[float | None]) -> Spread | None:
    """
    Sum up values; None where there are none.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(statistics.median(known), min(known), max(known))


@dataclass(frozen=True, slots=True)
class Summary:
    """
    A server's rounds at one kind of work; `ratio` is to the baseline's of the round.
    """

    server: str
    rounds: int
    ratio: Spread | None
    cpu_us: Spread
    rate: Spread
    p50_us: Spread | None
    p99_us: Spread | None
    lost: Spread
    kib: Spread | None
    opening_seconds: Spread | None


@dataclass(slots=True)
class Run:
    """
    All that was measured, and where, with what and how.
    """

    when: str
    machine: dict[str, str]
    versions: dict[str, str]
    baseline: str
    rounds: int
    seconds: float
    seed: int
    measurements: list[Measurement] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """
        Write a file that `load` reads.
        """
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """
        Read what `save` has written.

        Raises:
            NotReadable: it is something else.
            OSError: it cannot be read.
        """
        try:
            values = json.loads(path.read_text("utf-8"))
            measurements = [Measurement(**each) for each in values.pop("measurements")]
            return cls(**values, measurements=measurements)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NotReadable(f"{path} holds no measurements") from error

    def modes(self) -> list[str]:
        """
        Name the kinds of work that were measured, in their order.
        """
        return list(dict.fromkeys(each.mode for each in self.measurements))

    def other_load(self, mode: str) -> Spread | None:
        """
        Sum up what others used of the machine during one kind of work.
        """
        return spread(
            each.other_load for each in self.measurements if each.mode == mode
        )

    def summaries(self, mode: str, servers: Iterable[str]) -> list[Summary]:
        """
        Sum up one kind of work, with the servers in this order.
        """
        of_mode = [each for each in self.measurements if each.mode == mode]
        base = {
            each.round: each.cpu_us for each in of_mode if each.server == self.baseline
        }
        return [
            _summary(server, mine, base)
            for server in servers
            if (mine := [each for each in of_mode if each.server == server])
        ]


def _summary(server: str, mine: list[Measurement], base: dict[int, float]) -> Summary:
    def of(value: Callable[[Measurement], float | None]) -> Spread | None:
        return spread(map(value, mine))

    def certain(value: Callable[[Measurement], float]) -> Spread:
        found = of(value)
        assert found is not None
        return found

    return Summary(
        server=server,
        rounds=len(mine),
        ratio=of(
            lambda each: base[each.round] / each.cpu_us if each.round in base else None
        ),
        cpu_us=certain(lambda each: each.cpu_us),
        rate=certain(lambda each: each.rate),
        p50_us=of(lambda each: each.p50_us),
        p99_us=of(lambda each: each.p99_us),
        lost=certain(lambda each: each.lost),
        kib=of(lambda each: each.kib),
        opening_seconds=of(lambda each: each.opening_seconds),
    )
