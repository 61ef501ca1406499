"""
The command `serve`: the services of `twistd -n sockproto`, for a terminal.
"""

from __future__ import annotations

import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

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
    try:
        service = _TerminalService(options.settings, reactor)
    except PlaceError as error:
        complain("serve", error, error.exit_status)
        sys.exit(error.exit_status)
    try:
        service.privilegedStartService()
        service.startService()
    except PlaceError as error:
        # The reactor has to run all the same, for the other places to be closed.
        service.place_failed(error)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(_stop_on_signals, reactor)
    reactor.run()
    sys.exit(service.exit_status)


def _stop_on_signals(reactor: Any) -> None:
    # After the reactor's own, which it sets when it starts.
    def stop(number: int, _: object) -> None:
        for each in SIGNALS:
            if signal.getsignal(each) is stop:
                signal.signal(each, signal.SIG_DFL)  # the second ends it at once
        reactor.callFromThread(reactor.stop)

    for number in SIGNALS:
        # A shell's `&` has SIGINT ignored, nohup SIGHUP: so they stay.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def _log_to_stderr() -> None:
    def spell(event: LogEvent) -> str | None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False).rstrip(
            "\n"
        )
        if not text:
            return None
        time = datetime.fromtimestamp(event["log_time"]).astimezone()
        level = event.get("log_level", LogLevel.info)
        mark = "" if level < LogLevel.warn else f"{level.name}: "
        return f"{time:%H:%M:%S} {mark}{text}\n"

    ours_or_grave = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    ours_or_grave.setLogLevelForNamespace("sockproto", LogLevel.info)
    observer = FilteringLogObserver(FileLogObserver(sys.stderr, spell), [ours_or_grave])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
