"""
The `twistd` and `twist` plugin: options become a service that suits a daemon.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from sockproto.errors import PlaceError
from sockproto.options import Options
from sockproto.process import announcer, use_steady_clock
from sockproto.reporting import log
from sockproto.service import SockprotoService

if TYPE_CHECKING:
    from types import TracebackType

    from twisted.internet.defer import Deferred

__all__ = ["Options", "makeService"]


_UNHEEDED = (signal.SIG_DFL, signal.default_int_handler)


class _DaemonService(SockprotoService):
    """
    Says what a place is short of in one line, and dies of a second signal.
    """

    def __init__(self, options: Options, reactor: Any) -> None:
        super().__init__(options.settings, reactor)
        self._process = os.getpid()

    def privilegedStartService(self) -> None:
        self._heed_signals()
        try:
            super().privilegedStartService()
        except PlaceError as error:
            self._explain(error)
            raise

    def startService(self) -> None:
        self._heed_signals()
        try:
            super().startService()
        except PlaceError as error:
            self._explain(error)
            raise

    def _heed_signals(self) -> None:
        """
        Have the reactor stop by a signal that comes before it has set its own.

        A KeyboardInterrupt amid its start is lost, with all SIGINTs after it; and
        SIGTERM would leave unix sockets and the pid file behind.
        """
        if not self._reactor.running:
            for number, heard in (
                (signal.SIGTERM, self._reactor.sigTerm),
                (signal.SIGINT, self._reactor.sigInt),
            ):
                if signal.getsignal(number) in _UNHEEDED:
                    signal.signal(number, heard)

    def stopService(self) -> Deferred[None]:
        # Twisted's handlers would stop the reactor a second time, in vain. A
        # shell that started us with `&` has SIGINT ignored, and so it stays.
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        return super().stopService()

    def place_failed(self, error: PlaceError) -> None:
        super().place_failed(error)
        self._reactor.stop()
        # twistd takes any stop for a good one. At exit it has cleaned up behind it.
        atexit.register(os._exit, error.exit_status)

    def _explain(self, error: PlaceError) -> None:
        """
        Have one line instead of a traceback, in the log or on standard error.

        The exception has to leave twistd as an ordinary one: a daemon's parent
        waits to be told of it, and the pid file has to be removed.
        """
        if not self._reactor.running:
            # It never will: have the turn in which the others' unix sockets go.
            self._reactor.iterate()
        if os.getpid() == self._process:
            # Under `twistd -n` this is the real one; `sys.stderr` is the log.
            print(f"sockproto: {error}", file=sys.__stderr__)
        else:
            log.critical("{error}", error=error)
        sys.excepthook = _unless_said(sys.excepthook)


def _unless_said(hook: Any) -> Any:
    def excepthook(
        kind: type[BaseException],
        error: BaseException,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, PlaceError):
            hook(kind, error, traceback)

    return excepthook


def makeService(options: Options) -> SockprotoService:
    """
    Make the service for `twistd sockproto`.

    A place that cannot be understood is one line on standard error and exit
    status 1: nothing has started yet, nor have we become a daemon.
    """
    from twisted.internet import reactor

    use_steady_clock(reactor)
    try:
        service = _DaemonService(options, reactor)
    except PlaceError as error:
        print(f"sockproto: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from error
    service.watch(announcer(options.settings, reactor))
    return service
