"""
Feeds every machine and every parser what nobody sends, and holds them to what they say.

    pip install atheris
    python scripts/fuzz.py [TARGET ...] [--seconds N] [--seed N] [--corpus FOLDER]
    python scripts/fuzz.py TARGET --input "b'...'"

With atheris, what is fed is guided by the code that it reaches; without, it is made
by chance from what each target begins with. Each target's docstring is what must be
true of any input. What is not, is printed with a short input that shows it, and the
run goes on; the exit status is 1 then. The second form feeds one such input again.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any, NoReturn

try:
    atheris: Any = importlib.import_module("atheris")
except ImportError:
    atheris = None

ALONE = "--alone"
"""Says that this is the process of one target, which is then watched by atheris."""

with (
    atheris.instrument_imports(include=["sockproto"])
    if atheris and ALONE in sys.argv
    else contextlib.nullcontext()
):
    # Each of these imports what it feeds.
    from fuzzing import (
        commands,
        framing,
        hello,
        places,
        proxy,
        requests,
        responses,
        settings,
    )
    from fuzzing.mutating import mutated
    from fuzzing.targets import LONGEST, SHAPE, Given, Target

THEMES = (framing, hello, responses, requests, proxy, settings, places, commands)

TARGETS = {
    each.name: each
    for theme in THEMES
    for each in vars(theme).values()
    if isinstance(each, Target)
}

SLOW = 10
"""Seconds that no input may take."""


class Findings:
    """
    What broke, each once, with a short input that shows it.
    """

    def __init__(self, kept: Target) -> None:
        self._target = kept
        self._seen: set[tuple[str, str]] = set()
        self.inputs = 0

    def feed(self, data: bytes) -> None:
        """Feed one input."""
        self.inputs += 1
        what = self._broken(data)
        if what is not None and what not in self._seen:
            self._seen.add(what)
            self._tell(self._shortened(data, what))

    def _broken(self, data: bytes) -> tuple[str, str] | None:
        try:
            self._target.keeps(Given.of(data))
        except Exception as error:  # noqa: BLE001 - each is a finding
            frames = traceback.extract_tb(error.__traceback__)
            where = " ".join(f"{frame.name}:{frame.lineno}" for frame in frames[1:])
            return type(error).__name__, where
        return None

    def _shortened(self, data: bytes, what: tuple[str, str]) -> bytes:
        """Leave out and make zero what need not be there."""
        size = len(data) // 2
        until = time.monotonic() + SLOW
        while size and time.monotonic() < until:
            at = 0
            while at < len(data):
                for less in (
                    data[: max(at, SHAPE)] + data[max(at, SHAPE) + size :],
                    data[:at] + bytes(len(data[at : at + size])) + data[at + size :],
                ):
                    if less != data and self._broken(less) == what:
                        data = less
                        break
                else:
                    at += size
                    continue
                if at >= SHAPE and not any(data[at : at + size]):
                    at += size
            size //= 2
        return data

    def _tell(self, data: bytes) -> None:
        print(f"finding: {self._target.name} --input {data!r}", flush=True)
        try:
            self._target.keeps(Given.of(data))
        except Exception:  # noqa: BLE001
            print(traceback.format_exc(), flush=True)


def feed_by_chance(kept: Target, findings: Findings, seconds: float, seed: int) -> None:
    """Feed what chance makes of the seeds."""
    by = Random(seed)  # noqa: S311 - it keeps no secrets
    pool = kept.inputs()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        findings.feed(mutated(by.choice(pool), kept.words, pool, by))


def feed_by_coverage(
    kept: Target, findings: Findings, seconds: float, seed: int, corpus: Path
) -> NoReturn:
    """Have atheris choose; it ends the process."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(kept.inputs()):
        (corpus / f"seed-{number}").write_bytes(data)
    words = corpus.parent / f"{kept.name}.words"
    words.write_text(
        "".join(
            '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'
            for word in kept.words
        )
    )
    arguments = [
        sys.argv[0],
        *(f"-max_total_time={seconds:.0f}", f"-seed={seed}", f"-max_len={LONGEST}"),
        *(f"-timeout={SLOW}", f"-artifact_prefix={corpus.parent}/{kept.name}-"),
        *([f"-dict={words}"] if kept.words else []),
        *("-print_final_stats=1", "-rss_limit_mb=2048", "-len_control=20"),
        str(corpus),
    ]
    atheris.Setup(arguments, findings.feed)
    atheris.Fuzz()
    raise AssertionError("it has ended the process")


def run_one(name: str, seconds: float, seed: int, corpus: Path) -> None:
    """Feed one target, in an empty folder and with nothing to read from."""
    kept = TARGETS[name]
    corpus = corpus.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        findings = Findings(kept)
        for data in kept.inputs():
            findings.feed(data)
        if atheris:
            feed_by_coverage(kept, findings, seconds, seed, corpus / name)
        feed_by_chance(kept, findings, seconds, seed)
        print(f"stat::number_of_executed_units: {findings.inputs}", file=sys.stderr)


def run_all(names: list[str], seconds: float, seed: int, corpus: Path) -> int:
    """Feed each target in a process of its own; print a table."""
    found = 0
    rows = []
    for name in names:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        arguments = [f"--seconds={seconds}", f"--seed={seed}", f"--corpus={corpus}"]
        run = subprocess.run(
            [sys.executable, __file__, name, ALONE, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        inputs = re.search(r"number_of_executed_units: *(\d+)", run.stderr)
        findings = run.stdout.count("finding: ")
        if run.returncode:
            findings += 1
            print(f"finding: {name} ended with {run.returncode}\n{run.stderr[-3000:]}")
        print(run.stdout, end="", flush=True)
        found += findings
        count = int(inputs[1]) if inputs else 0
        rows.append(f"{name:16}{count:>10} inputs{cpu:>8.0f} s{findings:>4} findings")
        print(rows[-1], flush=True)
    print(f"{found} findings, seed {seed}")
    return 1 if found else 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip().splitlines()[0],
        epilog=f"Targets: {', '.join(TARGETS)}.",
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all by default")
    parser.add_argument("--seconds", type=float, default=60, help="for each [60]")
    parser.add_argument("--seed", type=int, default=1, help="of what chance makes [1]")
    parser.add_argument("--corpus", type=Path, help="keeps what was worth feeding")
    parser.add_argument("--input", help="what to feed, as Python spells bytes")
    parser.add_argument(ALONE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target is {', '.join(sorted(unknown))}; {parser.epilog}")
    chosen = given.targets or list(TARGETS)
    if given.input is not None:
        data = ast.literal_eval(given.input)
        for name in chosen:
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                TARGETS[name].keeps(Given.of(data))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        corpus = given.corpus or Path(folder)
        if given.alone:
            run_one(chosen[0], given.seconds, given.seed, corpus)
            return 0
        return run_all(chosen, given.seconds, given.seed, corpus)


if __name__ == "__main__":
    sys.exit(main())
