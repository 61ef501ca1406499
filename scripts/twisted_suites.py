"""
Twisted's own suites under our reactor: do they end as under the asyncio reactor?

    python scripts/twisted_suites.py internet [PART]...
    python scripts/twisted_suites.py others [PART]...

`internet` runs `twisted.internet.test`, whose ReactorBuilder is pointed at one reactor
at a time; `others` runs the tests of `twisted.test`, `twisted.web`, `twisted.conch`,
`twisted.protocols` and treq as `trial --reactor` would. All come from what is
installed, and need PyHamcrest. Each reactor has processes of its own, and both run side
by side. A test that differs runs again, alone, up to twice, before it counts, and the
output says so; a crash and a descriptor that another has closed count at once.

The exit status is 0 if the same tests fail and are skipped under both, apart from
those that tests/uvreactor/differences.txt lists, 1 if not, and 2 if it could not run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import BaseTestSuite

from twisted.application import reactors
from twisted.internet.main import installReactor
from twisted.python.modules import getModule
from twisted.python.reflect import namedAny
from twisted.trial import util
from twisted.trial.reporter import VerboseTextReporter
from twisted.trial.runner import ErrorHolder, TestLoader, TestSuite, TrialRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from unittest import TestCase

ROOT = Path(__file__).resolve().parent.parent
DIFFERENCES = ROOT / "tests/uvreactor/differences.txt"
MOST_DIFFERENCES = 20

OURS = "sockproto.uvreactor.UvloopReactor"
THEIRS = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"

INTERNET = ("twisted.internet.test",)
OTHERS = (
    "twisted.conch",
    "twisted.test",
    "twisted.web",
    "twisted.protocols",
    "treq.test",
)
"""The longest first, that the last to end is a short one."""

AGAIN = 2
"""How often a test that differs is run again, alone, before it counts."""

MOST_AGAIN = 40
"""With more differences than these, the reactor is at fault and not the tests."""

OUTCOMES = {
    "success": "passes",
    "expectedFailure": "passes",
    "skip": "is skipped",
    "unexpectedSuccess": "fails",
    "failure": "fails",
    "error": "fails",
    "crash": "fails",
    "hang": "fails",
    "missing": "is missing",
}
"""What a test can come to, the worst last, and what of it is compared."""

RANKS = {name: rank for rank, name in enumerate(OUTCOMES)}
LINE_LENGTH = 240

ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",  # with a locale that is missing a module cannot be imported
    "PATH": os.pathsep.join(  # for the commands of Twisted's that its tests run
        (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
    ),
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
}
if importlib.util.find_spec("sockproto") is None:
    # For the programs, too, that tests start and that install the reactor.
    paths = os.environ.get("PYTHONPATH", ""), str(ROOT)
    ENVIRONMENT["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
MOST_REASONS = 3
MOST_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Reactor:
    """
    Which reactor; by its plugin's name if it has one, as `trial --reactor` does.
    """

    label: str
    class_name: str
    plugin: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """
    What one test came to.

    Attributes:
        reason: the last line of the traceback, or why it was skipped.
        module: where it was found, which need not be where its class is from.
    """

    outcome: str
    reason: str = ""
    module: str = ""
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        return OUTCOMES[self.outcome]


MISSING = Ended("missing", "no such test in this run")


@dataclass(frozen=True, slots=True)
class Work:
    """
    What one child process runs; it travels to the child as JSON.

    Attributes:
        sources: packages, or single modules.
        builders: whether ReactorBuilder is pointed at the reactor.
        parts: only tests whose normalised names have one of these in them; all if
            there are none.
        exactly: only the tests with these normalised names, if there are any.
        start: how many of the tests earlier children have done with.
        patience: seconds after which trial gives one test up.
        stall: seconds after which a child that is stuck in one test ends itself.
    """

    label: str
    class_name: str
    plugin: str | None
    sources: tuple[str, ...]
    builders: bool
    parts: tuple[str, ...]
    patience: float
    stall: float
    exactly: tuple[str, ...] = ()
    start: int = 0


def normalised(name: str, class_name: str) -> str:
    """
    The test's name without that of the reactor which its class was made for.
    """
    short = class_name.rpartition(".")[2]
    return re.sub(
        rf"_(?:{re.escape(short)}|AsyncioSelectorReactor)Tests(?=\.|$)", "", name
    )


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:LINE_LENGTH] if lines else ""


# The child


class Journal(VerboseTextReporter):
    """
    Writes down each test as it starts and as it ends: we may not live to the last.
    """

    def __init__(self, path: Path, modules: Mapping[str, str], stall: float) -> None:
        super().__init__(sys.stdout, "default", realtime=True)
        self._journal = path.open("a", encoding="utf-8")
        self._stuck = path.with_suffix(".stuck").open("w", encoding="utf-8")
        faulthandler.enable(self._stuck)
        self._modules = modules
        self._stall = stall
        self._came_to: list[tuple[str, str]] = []

    def startTest(self, tm: TestCase) -> None:  # noqa: N802
        super().startTest(tm)
        faulthandler.dump_traceback_later(self._stall, file=self._stuck, exit=True)
        self._came_to = []
        name = tm.id()
        self._line({"started": name, "module": self._modules.get(name, "")})

    def stopTest(self, test: TestCase) -> None:  # noqa: N802
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        came_to = self._came_to or [("error", "it came to nothing")]
        outcome = max((came for came, _ in came_to), key=RANKS.__getitem__)
        # What was logged often says more than the assertion or the time-out it led to.
        reasons = dict.fromkeys(why for came, why in came_to if why)
        reason = " | ".join([*reasons][:MOST_REASONS])
        name = test.id()
        ended = Ended(
            outcome, reason, self._modules.get(name, ""), round(self._lastTime or 0, 3)
        )
        self._line({"ended": name, **asdict(ended)})

    def addSuccess(self, test: TestCase) -> None:  # noqa: N802
        super().addSuccess(test)
        self._came_to.append(("success", ""))

    def addError(self, test: TestCase, error: Any) -> None:  # noqa: N802
        super().addError(test, error)
        self._failed("error", error)

    def addFailure(self, test: TestCase, fail: Any) -> None:  # noqa: N802
        super().addFailure(test, fail)
        self._failed("failure", fail)

    def addSkip(self, test: TestCase, reason: object) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self._came_to.append(("skip", last_line(str(reason))))

    def addExpectedFailure(self, *args: Any) -> None:  # noqa: N802
        super().addExpectedFailure(*args)
        self._came_to.append(("expectedFailure", ""))

    def addUnexpectedSuccess(self, *args: Any) -> None:  # noqa: N802
        super().addUnexpectedSuccess(*args)
        self._came_to.append(("unexpectedSuccess", "it was expected to fail"))

    def addSubTest(self, test: TestCase, subtest: TestCase, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._failed("failure", err)

    def done(self) -> None:
        """Print no errors again: they were printed as they came."""

    def _failed(self, outcome: str, error: Any) -> None:
        failure = self._getFailure(error)
        message = last_line(failure.getErrorMessage())
        self._came_to.append((outcome, f"{failure.type.__name__}: {message}"))

    def _line(self, entry: Mapping[str, object]) -> None:
        self._journal.write(json.dumps(entry) + "\n")
        self._journal.flush()


def fresh(reactor_class: Callable[[], Any]) -> Callable[[Any], Any]:
    """
    What builds a test its reactor, on a loop of its own that is closed afterwards.
    """

    def build(test: Any) -> Any:
        before = asyncio.get_event_loop()
        reactor = reactor_class()
        loop = reactor._asyncioEventloop  # noqa: SLF001 - it has no other name
        asyncio.set_event_loop(loop)

        def tidy() -> None:
            loop.close()
            asyncio.set_event_loop(before)

        test.addCleanup(tidy)
        return reactor

    return build


def point_builders(class_name: str) -> None:
    """
    Have ReactorBuilder make its test cases for this one reactor.
    """
    from twisted.internet.test.reactormixins import ReactorBuilder

    # The last part of the name goes into the test cases' own names; what is found
    # there is called to build a reactor.
    module = types.ModuleType("reactors_under_test")
    sys.modules[module.__name__] = module
    short = class_name.rpartition(".")[2]
    setattr(module, short, fresh(namedAny(class_name)))
    ReactorBuilder._reactors = [f"{module.__name__}.{short}"]  # noqa: SLF001


def each_test(suite: Any) -> Iterator[TestCase]:
    if isinstance(suite, BaseTestSuite):
        for inner in suite:
            yield from each_test(inner)
    else:
        yield suite


def load(sources: Iterable[str]) -> Iterator[tuple[str, TestCase]]:
    """
    Each test of these modules and packages with its module, in an order that stays.
    """
    loader = TestLoader()
    for source in sources:
        found = getModule(source)
        names = sorted(
            module.name
            for module in (found.walkModules() if found.isPackage() else [found])
            if module.name.rpartition(".")[2].startswith(loader.modulePrefix)
        )
        for name in names:
            try:
                suite = loader.loadModule(namedAny(name))
            except Exception:  # noqa: BLE001 - a module that cannot be imported is a result
                suite = TestSuite([ErrorHolder(name, sys.exc_info())])
            for test in each_test(suite):
                yield name, test


def run_child(work: Work, journal: Path) -> None:
    util.DEFAULT_TIMEOUT_DURATION = work.patience  # before reactormixins copies it
    if work.plugin:
        reactors.installReactor(work.plugin)
    else:
        installReactor(namedAny(work.class_name)())
    if work.builders:
        point_builders(work.class_name)

    tests, modules = [], {}
    for module, test in load(work.sources):
        name = normalised(test.id(), work.class_name)
        if work.parts and not any(part in name for part in work.parts):
            continue
        if work.exactly and name not in work.exactly:
            continue
        tests.append(test)
        modules.setdefault(test.id(), module)

    def reporter(*_: object) -> Journal:
        return Journal(journal, modules, work.stall)

    TrialRunner(reporter).run(TestSuite(tests[work.start :]))
    # A test's thread that never ends should not keep us.
    sys.stdout.flush()
    os._exit(0)


# The parent


def innermost(dump: str) -> str:
    """
    Where the main thread was, as faulthandler saw it.
    """
    # It comes last, unless it is the one that crashed.
    threads = re.split(r"^(?=(?:Current t|T)hread )", dump, flags=re.MULTILINE)
    one = next((each for each in threads if each.startswith("Current")), threads[-1])
    frames = re.findall(r'File "(.*?)", line (\d+) in (\S+)', one)[:MOST_FRAMES]
    where = [f"{Path(file).name}:{line} {name}" for file, line, name in frames]
    return f" in {' < '.join(where)}" if where else ""


def kill(child: subprocess.Popen[bytes]) -> None:
    """
    End it and its own children, if there still are any.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


class Children:
    """
    Runs work in child processes; where one hangs or crashes, the next goes on behind.

    Args:
        folder: holds the logs.
        limit: seconds that one work may take altogether.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self._folder = folder
        self._limit = limit
        self._count = 0
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def stop(self) -> None:
        """
        Kill those that run, and start no more.
        """
        self._stopped = True
        for child in [*self._running]:
            kill(child)

    def run(self, work: Work, name: str) -> dict[str, Ended]:
        """
        What each test came to, by normalised names.
        """
        results: dict[str, Ended] = {}
        until = time.monotonic() + self._limit
        start = 0
        while True:
            entries, how = self._once(
                Work(**{**asdict(work), "start": start}), name, until - time.monotonic()
            )
            begun = None
            for entry in entries:
                if "started" in entry:
                    begun = entry
                    start += 1
                    continue
                begun = None
                test = normalised(entry.pop("ended"), work.class_name)
                ended = Ended(**entry)
                # A class that a module imports from another's is run in both.
                if (
                    test not in results
                    or RANKS[results[test].outcome] < RANKS[ended.outcome]
                ):
                    results[test] = ended
            if begun is not None:
                test = normalised(begun["started"], work.class_name)
                results[test] = Ended(how[0], how[1], begun["module"])
            elif how[0] != "success":
                raise RuntimeError(f"{work.label}: {how[1]}")
            if begun is None or self._stopped or time.monotonic() > until:
                return results

    def _once(
        self, work: Work, name: str, seconds: float
    ) -> tuple[list[dict[str, Any]], tuple[str, str]]:
        self._count += 1
        here = self._folder / f"{name}-{self._count}"
        here.mkdir()
        journal = here / "journal"
        journal.touch()
        log = self._folder / f"{name}-{work.label}.log"
        with log.open("ab") as output:
            child = subprocess.Popen(
                [
                    *(sys.executable, "-P", __file__),
                    *("--child", json.dumps(asdict(work)), str(journal)),
                ],
                cwd=here,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **ENVIRONMENT},
            )
            self._running.add(child)
            try:
                status: int | None = child.wait(1 if self._stopped else max(seconds, 1))
            except subprocess.TimeoutExpired:
                status = None
            finally:
                kill(child)
                child.wait()
                self._running.discard(child)
        entries = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
        stuck = here / "journal.stuck"
        how = self._how(status, stuck.read_text("utf-8") if stuck.exists() else "", log)
        shutil.rmtree(here, ignore_errors=True)
        return entries, how

    def _how(self, status: int | None, stuck: str, log: Path) -> tuple[str, str]:
        if status is None:
            return "hang", f"not done after {self._limit:.0f} seconds altogether"
        if status == 0:
            return "success", ""
        if status < 0:
            return (
                "crash",
                f"killed by {signal.Signals(-status).name}{innermost(stuck)}",
            )
        if stuck:
            return "hang", f"it hung{innermost(stuck)}"
        said = last_line(log.read_text("utf-8", "replace"))
        return "crash", f"exit status {status}: {said}"


@dataclass(frozen=True, slots=True)
class Difference:
    """
    A test that came to something else under ours than under the asyncio reactor.
    """

    name: str
    ours: Ended
    theirs: Ended

    @property
    def better(self) -> bool:
        return self.ours.kind == "passes" and self.theirs.kind in {
            "fails",
            "is skipped",
        }

    @property
    def never_excused(self) -> bool:
        """
        Whether a test alone would not show it again: another's descriptor was closed.
        """
        return self.ours.outcome == "crash" or "Bad file descriptor" in self.ours.reason

    def __str__(self) -> str:
        reason = self.ours.reason or f"asyncio: {self.theirs.reason}"
        head = f"{self.name}: {self.ours.outcome}, under asyncio {self.theirs.outcome}"
        return f"{head}\n      {reason}"


def differing(
    ours: Mapping[str, Ended], theirs: Mapping[str, Ended]
) -> list[Difference]:
    found = []
    for name in sorted({*ours, *theirs}):
        mine, other = ours.get(name, MISSING), theirs.get(name, MISSING)
        if mine.kind != other.kind:
            found.append(Difference(name, mine, other))
    return found


class UnusableError(Exception):
    """
    What was asked for cannot be run.
    """


def read_differences(path: Path) -> dict[str, str]:
    """
    The differences that are known, and their reasons.
    """
    known: dict[str, str] = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, reason = line.partition(": ")
        if not colon or not reason.strip() or not name.startswith((*INTERNET, *OTHERS)):
            raise UnusableError(
                f"{path.name}: not 'test: reason', of a suite we run: {line!r}"
            )
        known[name] = reason.strip()
    if len(known) > MOST_DIFFERENCES:
        raise UnusableError(
            f"{path.name}: {len(known)} lines, where {MOST_DIFFERENCES} are allowed"
        )
    return known


class Comparison:
    """
    Runs suites under two reactors and says what differs.

    Args:
        sources: packages of tests.
        parts: only tests with one of these in their names; all if there are none.
    """

    def __init__(  # noqa: PLR0913 - given by name
        self,
        *,
        ours: Reactor,
        theirs: Reactor,
        sources: Sequence[str],
        parts: Sequence[str],
        builders: bool,
        children: Children,
        patience: float,
        stall: float,
        jobs: int,
    ) -> None:
        self._reactors = ours, theirs
        self._sources = sources
        self._parts = tuple(parts)
        self._builders = builders
        self._children = children
        self._patience = patience
        self._stall = stall
        self._jobs = jobs

    def run(self) -> list[dict[str, Ended]]:
        """
        What all tests came to, under ours and under the asyncio reactor.
        """
        results: list[dict[str, Ended]] = [{}, {}]
        seconds = [0.0, 0.0]

        def one(index: int, source: str) -> tuple[int, dict[str, Ended], float]:
            began = time.monotonic()
            done = self._children.run(
                self._work(self._reactors[index], (source,)), source.replace(".", "-")
            )
            return index, done, time.monotonic() - began

        with ThreadPoolExecutor(self._jobs) as pool:
            running = [
                pool.submit(one, index, source)
                for source in self._sources
                for index in (0, 1)
            ]
            try:
                for future in running:
                    index, done, took = future.result()
                    results[index].update(done)
                    seconds[index] += took
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._children.stop()
                raise
        self._print(results, seconds)
        return results

    def again(self, difference: Difference) -> Difference | None:
        """
        Run one test again under both, alone; None if it no longer differs.
        """
        module = difference.ours.module or difference.theirs.module
        ours, theirs = (
            self._children.run(
                self._work(reactor, (module,), (difference.name,)), "again"
            ).get(difference.name, MISSING)
            for reactor in self._reactors
        )
        now = Difference(difference.name, ours, theirs)
        return None if ours.kind == theirs.kind or now.better else now

    def covers(self, name: str) -> bool:
        """
        Whether this test is among those that were asked for.
        """
        of_suite = any(name.startswith(f"{source}.") for source in self._sources)
        return of_suite and (
            not self._parts or any(part in name for part in self._parts)
        )

    def _work(
        self, reactor: Reactor, sources: tuple[str, ...], exactly: tuple[str, ...] = ()
    ) -> Work:
        return Work(
            label=reactor.label,
            class_name=reactor.class_name,
            plugin=reactor.plugin,
            sources=sources,
            builders=self._builders,
            parts=() if exactly else self._parts,
            exactly=exactly,
            patience=self._patience,
            stall=self._stall,
        )

    def _print(
        self, results: Sequence[Mapping[str, Ended]], seconds: Sequence[float]
    ) -> None:
        counts = [
            Counter(ended.outcome for ended in result.values()) for result in results
        ]
        columns = [name for name in OUTCOMES if any(name in count for count in counts)]
        print(" " * 8, *columns, "seconds", sep="  ")
        for reactor, count, took in zip(self._reactors, counts, seconds, strict=True):
            cells = [f"{count[name]:>{len(name)}}" for name in columns]
            print(f"{reactor.label:8}", *cells, f"{took:7.0f}", sep="  ", flush=True)


def settled(comparison: Comparison, found: Sequence[Difference]) -> list[Difference]:
    """
    The differences that are still there when their tests run again alone.
    """
    if len(found) > MOST_AGAIN:
        print(f"{len(found)} tests differ, too many to run them again")
        return list(found)
    still = []
    for difference in found:
        now: Difference | None = difference
        if difference.never_excused:
            still.append(difference)
            continue
        for count in range(1, AGAIN + 1):
            now = comparison.again(difference)
            if now is None:
                print(f"again: {difference}\n      the same when run again ({count})")
                break
        if now is not None:
            still.append(now)
    return still


def judge(
    comparison: Comparison,
    results: Sequence[Mapping[str, Ended]],
    known: Mapping[str, str],
) -> bool:
    """
    Print what differs; whether all of it is known, and all that is known still differs.
    """
    differences = differing(*results)
    better = [each for each in differences if each.better]
    listed = [each for each in differences if not each.better and each.name in known]
    new = settled(
        comparison,
        [each for each in differences if not each.better and each.name not in known],
    )
    stale = [
        name
        for name in known
        if comparison.covers(name) and name not in {each.name for each in listed}
    ]
    for title, group in (
        ("better than under asyncio", better),
        (f"listed in {DIFFERENCES.name}", listed),
        ("DIFFERENT", new),
    ):
        if group:
            print(f"{title}: {len(group)}")
            for each in group:
                print(f"   {each}")
    if stale:
        print(f"LISTED BUT NOT DIFFERENT: {len(stale)}")
        for name in stale:
            print(f"   {name}: {results[0].get(name, MISSING).outcome}")
    print("not the same" if new or stale else "the same")
    return not new and not stale


@contextlib.contextmanager
def mode_kept(path: Path) -> Iterator[None]:
    """Set right what a test of Twisted's takes from /dev/null, if it is root's."""
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            path.chmod(mode)


def keep(
    folder: Path, logs: Path, command: str, results: Mapping[str, Mapping[str, Ended]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for label, ended in results.items():
        outcomes = {name: asdict(each) for name, each in sorted(ended.items())}
        (folder / f"{command}-{label}.json").write_text(
            json.dumps(outcomes, indent=1), "utf-8"
        )
    for log in logs.glob("*.log"):
        shutil.copy(log, folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=("internet", "others"))
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help="only tests with one of these in their names",
    )
    parser.add_argument(
        "--reactor-class",
        metavar="NAME",
        help=f"ours (default: {OURS}; for others, what the plugin uvloop installs)",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="processes at a time (default: 2)"
    )
    parser.add_argument(
        "--patience", type=float, default=30, help="seconds for one test (default: 30)"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=1800,
        help="seconds for one package (default: 1800)",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep logs and outcomes there"
    )
    return parser.parse_intermixed_args()  # parts may stand behind options


def checked_sources(wanted: Iterable[str]) -> list[str]:
    """
    Those that are installed; only treq need not be.
    """
    if importlib.util.find_spec("hamcrest") is None:
        raise UnusableError("Twisted's tests need PyHamcrest")
    sources = list(wanted)
    if "treq.test" in sources and importlib.util.find_spec("treq") is None:
        print("treq is not installed: without its tests")
        sources.remove("treq.test")
    return sources


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        told = json.loads(sys.argv[2])
        work = Work(
            **{name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}
        )
        run_child(work, Path(sys.argv[3]))
        return 0

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end the children
    options = arguments()
    internet = options.suite == "internet"
    by_plugin = not internet and not options.reactor_class
    ours = Reactor(
        "uvloop",
        options.reactor_class or OURS,
        "uvloop" if by_plugin else None,
    )
    theirs = Reactor(
        "asyncio",
        THEIRS,
        None if internet else "asyncio",
    )
    with tempfile.TemporaryDirectory(
        prefix="suites-", ignore_cleanup_errors=True
    ) as temporary:
        logs = Path(temporary)
        results: list[dict[str, Ended]] = [{}, {}]
        try:
            known = read_differences(DIFFERENCES)
            sources = checked_sources(INTERNET if internet else OTHERS)
            versions = [
                f"{name} {importlib.metadata.version(name)}"
                for name in ("twisted", "uvloop")
            ]
            print(f"Python {platform.python_version()},", ", ".join(versions))
            comparison = Comparison(
                ours=ours,
                theirs=theirs,
                sources=sources,
                parts=options.parts,
                builders=internet,
                children=Children(logs, options.limit),
                patience=options.patience,
                stall=3 * options.patience,
                jobs=options.jobs,
            )
            with mode_kept(Path(os.devnull)):
                results = comparison.run()
            if not any(results):
                raise UnusableError("no such tests")
            return 0 if judge(comparison, results, known) else 1
        except (
            UnusableError,
            RuntimeError,
            importlib.metadata.PackageNotFoundError,
        ) as error:
            print(error, file=sys.stderr)
            return 2
        finally:
            if options.keep:
                keep(
                    options.keep,
                    logs,
                    options.suite,
                    dict(zip(("uvloop", "asyncio"), results, strict=True)),
                )


if __name__ == "__main__":
    sys.exit(main())
