"""
The command `serve`: the services of `twistd -n sockproto`, for a terminal.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

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
from sockproto.options import Options
from sockproto.process import announcer, use_steady_clock
from sockproto.service import SockprotoService

if TYPE_CHECKING:
    from twisted.logger import LogEvent

__all__ = ["serve"]

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _ServeOptions(Options):
    synopsis = "Usage: sockproto serve [options]"


class _TerminalService(SockprotoService):
    """
    Says what a place is short of in one line, and ends the command.
    """

    exit_status = 0

    def place_failed(self, error: PlaceError) -> None:
        complain("serve", error, error.exit_status)
        self.exit_status = error.exit_status
        self._reactor.callWhenRunning(self._reactor.stop)


def serve(arguments: tuple[str, ...]) -> NoReturn:
    """
    Run `sockproto serve`: until a signal, which drains; then exit 0.
    """
    options = _ServeOptions()
    try:
        options.parseOptions(list(arguments))
    except usage.UsageError as error:
        complain("serve", error, 2)
        sys.exit(2)

    from twisted.internet import reactor

    _log_to_stderr()
    use_steady_clock(reactor)
    try:
        service = _TerminalService(options.settings, reactor)
    except PlaceError as error:
        complain("serve", error, error.exit_status)
        sys.exit(error.exit_status)
    service.watch(announcer(options.settings, reactor))
    # Before a place is open: what came until the reactor heeds signals was lost,
    # with a unix socket left behind.
    signals = _Signals(reactor)
    signals.heed()
    try:
        service.privilegedStartService()
        service.startService()
    except PlaceError as error:
        # The reactor has to run all the same, for the other places to be closed.
        service.place_failed(error)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(signals.heed)
    reactor.run()
    sys.exit(service.exit_status)


class _Signals:
    """
    Has the first signal stop the reactor, and the second end the process at once.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._came = False

    def heed(self) -> None:
        """Take the signals; again once the reactor has set its own."""
        for number in SIGNALS:
            # A shell's `&` has SIGINT ignored, nohup SIGHUP: so they stay.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._heard)

    def _heard(self, number: int, _: object) -> None:
        if self._came:
            # Not from the first one on: of a second that had come by then, and
            # whose handler is gone, Python prints a traceback.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._came = True
        self._reactor.callFromThread(self._stop)

    def _stop(self) -> None:
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


def _log_to_stderr() -> None:
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
    ours_or_grave.setLogLevelForNamespace("sockproto", LogLevel.info)
    observer = FilteringLogObserver(FileLogObserver(sys.stderr, spell), [ours_or_grave])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
