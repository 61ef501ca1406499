"""
Measures sockproto and its peers on this machine, side by side.

    python benchmarks/run.py [--quick] [--only echo64,conn] [--page]

README.md beside this says how, and how to read what it prints. Linux.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from compiling import NotCompiled, compile_all
from figures import NotReadable, Run
from machine import machine, versions
from measuring import Plan, rounds
from modes import MODES
from page import can_plot, write_page
from servers import BASELINE, SERVERS, lacking
from tables import aligned, cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modes import Mode
    from processes import Failed
    from servers import Server

Named = TypeVar("Named", "Mode", "Server")

HERE = Path(__file__).parent

ROUNDS, SECONDS = 5, 2.0
QUICK_ROUNDS, QUICK_SECONDS = 2, 0.5

OVERHEAD_SECONDS = 2.0
"""Of a measurement: the server's start, the warm-up, the end."""

FILES_TO_SPARE = 200

NEEDED = ("twisted", "sockproto")


class NotHere(Exception):
    """
    What was asked for needs something that is not installed.
    """


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        complain(message)
        sys.exit(2)


def complain(message: object) -> None:
    """
    Say something in one line on standard error.
    """
    print(f"benchmarks: {message}", file=sys.stderr)


def main() -> int:
    parser = _parser()
    given = parser.parse_args()
    modes = _chosen(parser, "--only", given.only, MODES)
    servers = _chosen(parser, "--servers", given.servers, SERVERS)
    if given.list:
        _list()
        return 0
    try:
        return _do(given, modes, servers)
    except OSError as error:
        complain(f"{error.filename or 'the system'}: {error.strerror}")
        return 1
    except (NotCompiled, NotReadable, NotHere) as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        _progress("")
        complain("interrupted")
        return 130


def _do(
    given: argparse.Namespace, modes: Sequence[Mode], servers: Sequence[Server]
) -> int:
    """Do what was asked; return the exit status."""
    if given.page and not can_plot():
        raise NotHere("--page needs matplotlib: pip install '.[benchmarks]'")
    failures = 0
    if given.come_from:
        run = Run.load(given.come_from)
        for mode in modes:
            _print_table(run, mode)
    else:
        run = _new_run(given)
        failures = _measure_all(given, run, modes, servers)
    if given.page:
        print(f"\nwrote {write_page(run, given.into)} and its plots")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--only", metavar="MODE,...", help="the work to measure [all]")
    parser.add_argument(
        "--servers", metavar="NAME,...", help=f"the servers [all]; and {BASELINE}"
    )
    parser.add_argument("--list", action="store_true", help="name them, and end")
    parser.add_argument(
        "--rounds",
        type=_number(int, 1, 1000),
        help=f"in each of which every server is measured once [{ROUNDS}]",
    )
    parser.add_argument(
        "--seconds",
        type=_number(float, 0.1, 60),
        help=f"of each measurement, after half a second of warm-up [{SECONDS:g}]",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_ROUNDS} rounds of {QUICK_SECONDS:g} s, unless told otherwise",
    )
    parser.add_argument(
        "--quiet",
        type=_number(float, 0, 1000),
        default=15.0,
        metavar="PERCENT",
        help="measure again where others used more of a core than this [15]",
    )
    parser.add_argument(
        "--retries",
        type=_number(int, 0, 10),
        default=1,
        help="how often; the least disturbed measurement counts [1]",
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="of the order in the rounds [by chance]"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    parser.add_argument(
        "--from",
        dest="come_from",
        type=Path,
        metavar="FILE",
        help="measure nothing; take the figures that --json kept",
    )
    parser.add_argument(
        "--page", action="store_true", help="write results.md and its plots"
    )
    parser.add_argument(
        "--into", type=Path, default=HERE, metavar="FOLDER", help="where [benchmarks]"
    )
    return parser


def _number(kind: type[float], least: float, most: float) -> type[float]:
    def convert(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not {least} to {most}")
        return value

    convert.__name__ = kind.__name__  # in argparse's complaint
    return convert  # type: ignore[return-value]


def _chosen(
    parser: argparse.ArgumentParser,
    option: str,
    names: str | None,
    all_of_them: Sequence[Named],
) -> list[Named]:
    by_name = {each.name: each for each in all_of_them}
    if names is None:
        return list(all_of_them)
    asked = [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in by_name:
            parser.error(f"{option}: no {name!r} among {', '.join(by_name)}")
    return [each for each in all_of_them if each.name in asked]


def _list() -> None:
    for heading, rows in (("--only", MODES), ("--servers", SERVERS)):
        print(heading)
        for row in rows:
            print(f"  {row.name:<18}  {row.title}")


def _new_run(given: argparse.Namespace) -> Run:
    seed = given.seed
    return Run(
        when=time.strftime("%Y-%m-%d %H:%M %Z"),
        machine=machine(),
        versions=versions(),
        baseline=BASELINE,
        rounds=given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS),
        seconds=given.seconds or (QUICK_SECONDS if given.quick else SECONDS),
        seed=random.SystemRandom().randrange(1 << 32) if seed is None else seed,
    )


def _measure_all(
    given: argparse.Namespace,
    run: Run,
    modes: Sequence[Mode],
    servers: Sequence[Server],
) -> int:
    """Measure, print and keep; return how many measurements failed."""
    for package in NEEDED:
        if not find_spec(package):
            raise NotHere(f"{package} is not installed: pip install '.[benchmarks]'")
    if given.json:
        run.save(given.json)  # what cannot be written is better known now
    modes = _with_enough_files(modes)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(
            programs=compile_all(Path(folder)),
            rounds=run.rounds,
            seconds=run.seconds,
            quiet=given.quiet / 100,
            retries=given.retries,
            chance=random.Random(run.seed),  # noqa: S311 - no secret
            cores=tuple(sorted(os.sched_getaffinity(0))),
        )
        here = _with_all_they_need(servers, plan, insisting=given.servers is not None)
        count = len(modes) * len(here) * plan.rounds
        minutes = count * (plan.seconds + OVERHEAD_SECONDS) / 60
        complain(f"{count} measurements, about {minutes:.0f} min; --seed={run.seed}")
        for mode in modes:
            failures += _measure_mode(plan, run, mode, here)
            if given.json:
                run.save(given.json)
            _print_table(run, mode)
    return failures


def _with_all_they_need(
    servers: Sequence[Server], plan: Plan, *, insisting: bool
) -> list[Server]:
    """Leave out what cannot run here, unless it was asked for by name."""
    here = []
    for server in SERVERS:
        if server not in servers and server.name != BASELINE:
            continue
        if not (missing := lacking(server, plan.programs)):
            here.append(server)
        elif insisting:
            raise NotHere(f"{server.name} cannot run here: {missing}")
        else:
            complain(f"{server.name} is left out: {missing}")
    return here


def _measure_mode(plan: Plan, run: Run, mode: Mode, servers: Sequence[Server]) -> int:
    failures = []

    def failed(server: Server, error: Failed) -> None:
        failures.append(server)
        _progress("")
        complain(f"{mode.name}: {server.name}: {error}")

    able = [server for server in servers if mode.service in server.commands]
    for done, each in enumerate(rounds(plan, mode, able, failed), 1):
        run.measurements.append(each)
        _progress(f"{mode.name}: {done} of {len(able) * plan.rounds}")
    _progress("")
    return len(failures)


def _with_enough_files(modes: Sequence[Mode]) -> list[Mode]:
    """Open as many files as may be, and leave out what needs more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    enough = []
    for mode in modes:
        if mode.connections + FILES_TO_SPARE <= most:
            enough.append(mode)
        else:
            complain(f"{mode.name} is left out: only {most} files may be open")
    return enough


def _print_table(run: Run, mode: Mode) -> None:
    summaries = run.summaries(mode.name, (server.name for server in SERVERS))
    print(f"\n{mode.name}: {mode.title}")
    if not summaries:
        print("nothing was measured")
        return
    print(aligned(cells(mode, run.baseline, summaries)))
    other = run.other_load(mode.name)
    assert other is not None
    print(
        f"others used {other.median:.0%} of a core meanwhile (median),"
        f" at most {other.most:.0%}",
        flush=True,
    )


def _progress(text: str) -> None:
    """Replace the line that says how far it is, if anybody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _end(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    if sys.platform != "linux":
        complain("they run on Linux only: they read /proc")
        sys.exit(1)
    # As an exception, so that no server outlives it.
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
