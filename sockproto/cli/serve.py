"""
The command `serve`: the services of `twistd -n sockproto`, for a terminal.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TextIO

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    globalLogBeginner,
)
from twisted.python import usage

from sockproto.cli.running import complain
from sockproto.errors import PlaceError
from sockproto.handover import Handover
from sockproto.options import LONGEST_SHOWN, Options
from sockproto.policies.draining import State
from sockproto.process import announcer, use_steady_clock
from sockproto.reporting import Log, log
from sockproto.service import SockprotoService
from sockproto.sharing import HeldPort, HoldingReactor, ServingReactor
from sockproto.workers import Crew, Orders, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort
    from twisted.logger import LogEvent

__all__ = ["serve"]

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


MOST_WORKERS = 256


class _ServeOptions(Options):
    """
    The services' options, and those of the process.
    """

    synopsis = "Usage: sockproto serve [options]"

    optParameters: ClassVar[list[list[Any]]] = [
        [
            "workers",
            None,
            "1",
            "Processes, on the same places; auto: one a CPU. Limits are of each.",
        ],
        [
            "reactor",
            None,
            "auto",
            "uvloop, stock (Twisted's own), or auto: uvloop where it is installed.",
        ],
    ]

    workers: int

    def postOptions(self) -> None:
        super().postOptions()
        text = self["workers"]
        if text == "auto":
            self.workers = min(_cpus(), MOST_WORKERS)
        elif text.isascii() and text.isdigit() and _is_count_of_workers(text):
            self.workers = int(text)
        else:
            raise usage.UsageError(
                f"--workers: {text[:LONGEST_SHOWN]!r} was given, where a whole number"
                f" from 1 to {MOST_WORKERS} or auto is allowed"
            )
        if self["reactor"] not in ("auto", "uvloop", "stock"):
            raise usage.UsageError(
                f"--reactor: {self['reactor'][:LONGEST_SHOWN]!r} was given, where auto,"
                " uvloop or stock is allowed"
            )


def _cpus() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_count_of_workers(digits: str) -> bool:
    significant = digits.lstrip("0")
    return 0 < len(significant) < 9 and int(significant) <= MOST_WORKERS


def _check_uvloop() -> None:
    try:
        import uvloop  # noqa: F401
    except ImportError as error:
        raise usage.UsageError(
            "--reactor=uvloop: uvloop is not installed; install sockproto[uvloop]"
        ) from error
    from sockproto.uvreactor import check_uvloop

    try:
        check_uvloop()
    except ImportError as error:
        raise usage.UsageError(f"--reactor=uvloop: {error}") from error


def _installed_reactor(which: str) -> tuple[Any, str]:
    """
    Install the reactor that was asked for.

    Returns:
        It, and its name for people.

    Raises:
        UsageError: uvloop was asked for, and is not installed, or too old.
    """
    # Somebody who has installed one has chosen.
    if which != "stock" and "twisted.internet.reactor" not in sys.modules:
        try:
            _check_uvloop()
        except usage.UsageError:
            if which == "uvloop":
                raise
        else:
            from sockproto.uvreactor import install

            return install(), f"uvloop {version('uvloop')}"
    from twisted.internet import reactor

    return reactor, f"Twisted's {type(reactor).__name__}"


class _TerminalService(SockprotoService):
    """
    Says what a place is short of in one line, and ends the command.
    """

    exit_status = 0

    def place_failed(self, error: PlaceError) -> None:
        complain("serve", error, error.exit_status)
        self.exit_status = error.exit_status
        self._reactor.callWhenRunning(self._reactor.stop)


class _HoldingService(_TerminalService):
    """
    Opens the places for workers, and nothing that they could not share.
    """

    def __init__(self, options: _ServeOptions, reactor: HoldingReactor) -> None:
        super().__init__(options.settings, reactor)
        self._openings = [
            replace(opening, listen=partial(self._hold, opening.listen))
            for opening in self._openings
        ]

    def _hold(
        self, listen: Callable[[], Deferred[IListeningPort]]
    ) -> Deferred[IListeningPort]:
        def check(port: IListeningPort) -> IListeningPort:
            if not isinstance(port, HeldPort):
                maybeDeferred(port.stopListening)
                raise TypeError("workers cannot share it; say --workers=1")
            return port

        return maybeDeferred(listen).addCallback(check)


def serve(
    arguments: tuple[str, ...],
    handover: Handover | None = None,
    environment: Mapping[str, str] = os.environ,
) -> NoReturn:
    """
    Run `sockproto serve`: until a signal, which drains; then exit 0.

    Args:
        arguments: its options.
        handover: what a worker has from its parent.
        environment: of the process, as it was at the start.
    """
    options = _ServeOptions()
    try:
        options.parseOptions(list(arguments))
        is_parent = handover is None and options.workers > 1
        if is_parent and options["reactor"] == "uvloop":
            _check_uvloop()
        # The parent needs none of it itself.
        reactor, name = _installed_reactor("stock" if is_parent else options["reactor"])
    except usage.UsageError as error:
        complain("serve", error, 2)
        sys.exit(2)
    use_steady_clock(reactor)
    if is_parent:
        _oversee(options, reactor, environment)
    _serve(options, reactor, name, handover)


def _serve(
    options: _ServeOptions, reactor: Any, name: str, handover: Handover | None
) -> NoReturn:
    """Serve, alone or as a worker."""
    settings = options.settings
    say = _log_to_stderr(quietly=handover is not None and handover.quiet)
    if settings.log is not Log.NONE:
        log.info("Running on {reactor}.", reactor=name)
    listening = reactor
    if handover is not None:
        listening = ServingReactor(reactor, handover.slot, handover.places)
    service = _service(partial(_TerminalService, settings, listening))
    signals = _Signals(reactor, worker=handover is not None)
    if handover is None:
        service.watch(announcer(settings, reactor))
    else:
        service.watch(_teller(handover.ready, reactor))
    _start(service, signals)
    say(LogLevel.info)
    if handover is not None:

        def stop(parent_is_gone: bool) -> None:
            if parent_is_gone:
                log.warn("The process that started this worker is gone.")
            signals.stop()

        orders = Orders(reactor, 0, missing=listening.serve, stop=stop)
        reactor.callWhenRunning(orders.startReading)
    _run(reactor, service, signals)
    sys.exit(service.exit_status)


def _service(make: Callable[[], _TerminalService]) -> _TerminalService:
    try:
        return make()
    except PlaceError as error:
        complain("serve", error, error.exit_status)
        sys.exit(error.exit_status)


def _start(service: _TerminalService, signals: _Signals) -> None:
    # Before a place is open: what came until the reactor heeds signals was lost,
    # with a unix socket left behind.
    signals.heed()
    try:
        service.privilegedStartService()
        service.startService()
    except PlaceError as error:
        # The reactor has to run all the same, for the other places to be closed.
        service.place_failed(error)


def _run(reactor: Any, service: _TerminalService, signals: _Signals) -> None:
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(signals.heed)
    reactor.run()


# Workers


def _teller(ready: int, reactor: Any) -> Callable[[State], None]:
    """Make what tells a worker's parent how far its service is."""

    def tell(state: State) -> None:
        if state is State.SERVING:
            reactor.callWhenRunning(os.write, ready, b"\n")
        elif state is State.DRAINING:
            os.close(ready)

    return tell


def _oversee(
    options: _ServeOptions, reactor: Any, environment: Mapping[str, str]
) -> NoReturn:
    """Hold the places, and have workers serve there."""
    settings = options.settings
    say = _log_to_stderr(quietly=True)  # the first worker says it all
    holding = HoldingReactor(reactor, options.workers)
    service = _service(partial(_HoldingService, options, holding))

    def failed(problem: str) -> None:
        complain("serve", problem, 1)
        service.exit_status = 1
        signals.stop()

    crew = Crew(
        reactor,
        partial(_spawn, holding, environment),
        count=options.workers,
        drain=settings.drain,
        failed=failed,
        log=settings.log,
    )
    signals = _Signals(reactor, at_once=crew.kill)
    crew.watch(announcer(settings, reactor))

    def opened(state: State) -> None:
        if state is State.SERVING:
            say(LogLevel.info)
            reactor.callWhenRunning(crew.start)

    service.watch(opened)
    _start(service, signals)
    reactor.addSystemEventTrigger("before", "shutdown", crew.stop)
    _run(reactor, service, signals)
    sys.exit(service.exit_status)


def _spawn(
    holding: HoldingReactor,
    environment: Mapping[str, str],
    worker: Worker,
    first: bool,
) -> None:
    """Start a worker as we were started ourselves."""
    places, descriptors = holding.passing(above=2)
    ready = max([2, *descriptors]) + 1
    quiet = not first or worker.slot > 0
    handover = Handover(worker.slot, quiet, ready, places)
    # Until it heeds signals itself: Ctrl-C is for all processes of a terminal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        holding.spawnProcess(
            worker,
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            env=handover.environment(environment),
            childFDs={0: "w", 1: 1, 2: 2, ready: "r", **descriptors},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Signals:
    """
    Has the first signal stop the reactor, and the second end the process at once.

    Args:
        reactor: is stopped.
        worker: whether it is SIGTERM alone: the others are its parent's business.
        at_once: called before the end.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        worker: bool = False,
        at_once: Callable[[], object] = int,
    ) -> None:
        self._reactor = reactor
        self._worker = worker
        self._at_once = at_once
        self._came = False

    def heed(self) -> None:
        """Take the signals; again once the reactor has set its own."""
        for number in SIGNALS:
            # A shell's `&` has SIGINT ignored, nohup SIGHUP: so they stay.
            if self._worker and number != signal.SIGTERM:
                signal.signal(number, signal.SIG_IGN)
            elif signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._heard)
        if self._worker:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _heard(self, number: int, _: object) -> None:
        if self._came:
            # Not from the first one on: of a second that had come by then, and
            # whose handler is gone, Python prints a traceback.
            signal.signal(number, signal.SIG_DFL)
            self._at_once()
            os.kill(os.getpid(), number)
        self._came = True
        self._reactor.callFromThread(self.stop)

    def stop(self) -> None:
        """Stop the reactor, in order."""
        with suppress(ReactorNotRunning):  # a place that failed has stopped it
            self._reactor.stop()


# As syslog(3) counts them.
_SYSLOG_LEVELS = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}


def _is_journal(file: TextIO) -> bool:
    """Tell whether systemd's journal is what a file goes to (systemd.exec(5))."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _log_to_stderr(*, quietly: bool = False) -> Callable[[LogLevel], None]:
    """
    Begin the log.

    Args:
        quietly: with errors alone.

    Returns:
        What sets how much of ours is said from then on.
    """
    journal = _is_journal(sys.stderr)

    def spell(event: LogEvent) -> str | None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False).rstrip(
            "\n"
        )
        if not text:
            return None
        time = datetime.fromtimestamp(event["log_time"]).astimezone()
        level = event.get("log_level", LogLevel.info)
        if journal:
            # The journal has the time, and takes the level from here.
            return f"<{_SYSLOG_LEVELS.get(level, 6)}>{text}\n"
        mark = "" if level < LogLevel.warn else f"{level.name}: "
        return f"{time:%H:%M:%S} {mark}{text}\n"

    ours_or_grave = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    say = partial(ours_or_grave.setLogLevelForNamespace, "sockproto")
    say(LogLevel.error if quietly else LogLevel.info)
    observer = FilteringLogObserver(FileLogObserver(sys.stderr, spell), [ours_or_grave])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    return say
