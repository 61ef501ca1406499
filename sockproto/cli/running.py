"""
How a command runs: one coroutine on the reactor, one exit status, one line if it fails.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sockproto.cli.console import (
    Output,
    leave_prompt,
    remember_terminal,
    restore_terminal,
)
from sockproto.cli.standard_files import say
from sockproto.errors import SockprotoError
from sockproto.spelling import spell_for_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["complain", "in_daemon_thread", "on_interrupt", "run"]

INTERRUPTED = 130
"""The shells' 128 and the number of SIGINT."""

_T = TypeVar("_T")

_at_interrupt: list[Callable[[], str | None]] = []


def on_interrupt(callback: Callable[[], str | None]) -> None:
    """
    Have a word when Ctrl-C ends the command: what it returns is said.
    """
    _at_interrupt.append(callback)


def complain(command: str, what: object, status: int) -> None:
    """
    Say on standard error, in one line, what went wrong.
    """
    leave_prompt()
    text = " ".join(spell_for_terminal(str(what)).split("\n"))
    say(f"sockproto: {command}: {text} ({status})")


def run(
    command: str, main: Callable[[Any, Output], Coroutine[Any, Any, int | None]]
) -> NoReturn:
    """
    Run a command to its end, and exit.

    Args:
        command: its name, for what is said on standard error.
        main: given the reactor and standard output; what it returns is the
            exit status. A `SockprotoError` that it raises has one too.
    """
    remember_terminal()

    from twisted.internet import reactor as installed

    reactor: Any = installed
    outcome: list[int] = []

    def failed(failure: Failure) -> int:
        error = failure.value
        if isinstance(error, SockprotoError):
            complain(command, error, error.exit_status)
            return error.exit_status
        say("".join(traceback.format_exception(error)), end="")  # a bug of ours
        return 1

    def start() -> None:
        # Not the reactor's own: Ctrl-C must work while a thread resolves a name,
        # which cannot be stopped, and while standard output blocks.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: _interrupted(command, number))
        running = Deferred.fromCoroutine(main(reactor, Output()))
        running.addErrback(failed)
        running.addCallback(lambda status: outcome.append(status or 0))
        running.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)
    restore_terminal()
    leave(outcome[0] if outcome else INTERRUPTED)


def _interrupted(command: str, number: int) -> None:
    try:
        restore_terminal()
        said = [words for callback in _at_interrupt if (words := callback())]
        word = "interrupted" if number == signal.SIGINT else "terminated"
        complain(command, "; ".join([word, *said]), 128 + number)
    finally:
        os._exit(128 + number)


def leave(status: int) -> NoReturn:
    """
    Exit, and wait for no thread: one may read a terminal for ever.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        os._exit(status)
    sys.exit(status)


def in_daemon_thread(
    reactor: Any, function: Callable[..., _T], *args: object
) -> Deferred[_T]:
    """
    Call something that blocks on a terminal or a pipe; fires with its result.

    The thread is a daemon: it keeps nobody from leaving. Cancelling gives up
    the result.
    """
    done: Deferred[_T] = Deferred(lambda _: given_up.append(True))
    given_up: list[bool] = []

    def deliver(callback: Callable[[Any], None], value: object) -> None:
        if not given_up:
            callback(value)

    def work() -> None:
        try:
            result: Any = function(*args)
        except BaseException:  # noqa: BLE001 - it is the caller's, in its thread
            reactor.callFromThread(deliver, done.errback, Failure())
        else:
            reactor.callFromThread(deliver, done.callback, result)

    threading.Thread(target=work, daemon=True).start()
    return done
