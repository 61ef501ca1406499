"""
`sockproto serve`, as far as it goes without serving.
"""

from __future__ import annotations

import io
import itertools
import os
import signal
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from sockproto.cli import serve as module
from sockproto.cli.serve import SIGNALS, serve
from sockproto.errors import PlaceError
from sockproto.settings import Settings
from sockproto.version import __version__

if TYPE_CHECKING:
    from twisted.logger import ILogObserver


class ArgumentTests(SynchronousTestCase):
    """Its arguments, which are those of `twistd -n sockproto`."""

    def setUp(self) -> None:
        self.stdout = io.StringIO()
        self.stderr = io.StringIO()
        self.patch(sys, "stdout", self.stdout)
        self.patch(sys, "stderr", self.stderr)
        self.patch(module, "_log_to_stderr", lambda **_: lambda _: None)

    def ended(self, *arguments: str) -> object:
        """The status with which it ends."""
        exited: SystemExit = self.assertRaises(SystemExit, serve, arguments)
        return exited.code

    def test_help(self) -> None:
        """Help names each option, and this command."""
        self.assertEqual(self.ended("--help"), 0)
        said = self.stdout.getvalue()
        self.assertIn("Usage: sockproto serve [options]", said)
        for option in ("--hello=", "--echo=", "--udp=", "--udp-echo=", "--delay="):
            self.assertIn(option, said)

    def test_version(self) -> None:
        """The version is sockproto's."""
        self.assertEqual(self.ended("--version"), 0)
        self.assertEqual(self.stdout.getvalue(), f"sockproto {__version__}\n")

    def said(self, status: int, *arguments: str) -> str:
        """The one line that it ends with."""
        self.assertEqual(self.ended(*arguments), status)
        self.assertEqual(self.stdout.getvalue(), "")
        line = self.stderr.getvalue()
        self.assertRegex(line, rf"\Asockproto: serve: [^\n]+ \({status}\)\n\Z")
        return line

    def test_usage(self) -> None:
        """An option that there is not is status 2."""
        self.assertIn("--nope", self.said(2, "--nope"))

    def test_argument(self) -> None:
        """There are no other arguments than options."""
        self.assertIn("'more'", self.said(2, "more"))

    def test_value(self) -> None:
        """The error for a wrong value names the option and what was seen."""
        line = self.said(2, "--delay=soon")
        self.assertIn("--delay", line)
        self.assertIn("'soon'", line)

    def test_workers(self) -> None:
        """The number of workers is a whole one, or auto."""
        for wrong in (
            "0",
            "-1",
            "two",
            "1.5",
            "",
            "257",
            "9" * 10_000,
            "\N{SUPERSCRIPT TWO}",
            "0000002560",
        ):
            self.stderr.truncate(0)
            self.stderr.seek(0)
            line = self.said(2, f"--workers={wrong}")
            self.assertIn("a whole number from 1 to 256 or auto is allowed", line)
            self.assertLess(len(line), 400)
        for right, workers in (("1", 1), ("256", 256)):
            options = module._ServeOptions()
            options.parseOptions([f"--workers={right}"])
            self.assertEqual(options.workers, workers)
        options = module._ServeOptions()
        options.parseOptions(["--workers=auto"])
        self.assertEqual(options.workers, len(os.sched_getaffinity(0)))
        options.parseOptions([f"--workers={'0' * 12}2"])
        self.assertEqual(options.workers, 2)

    def test_reactor(self) -> None:
        """A reactor that there is not is named."""
        line = self.said(2, "--reactor=epoll")
        self.assertIn("'epoll' was given, where auto, uvloop or stock is allowed", line)

    def test_no_uvloop(self) -> None:
        """What to install is said to whom asked for uvloop."""
        # Not another dictionary: an import would look into the one that it knows.
        without = patch.dict(sys.modules, {"uvloop": None})
        without.start()
        self.addCleanup(without.stop)
        del sys.modules["twisted.internet.reactor"]
        for options in (("--reactor=uvloop",), ("--reactor=uvloop", "--workers=2")):
            self.stderr.truncate(0)
            self.stderr.seek(0)
            self.assertIn(
                "uvloop is not installed; install sockproto[uvloop]",
                self.said(2, *options),
            )

    def test_old_uvloop(self) -> None:
        """One that is too old is named, with what to do."""
        from sockproto.uvreactor import reactor

        self.patch(reactor, "version", lambda _: "0.22.1")
        self.assertIn(
            "uvloop 0.22.1 is installed, where 0.23 or later is needed; install"
            " sockproto[uvloop]",
            self.said(2, "--reactor=uvloop", "--workers=2"),
        )

    def test_place(self) -> None:
        """A place that is none names the service and the place; status 1."""
        line = self.said(1, "--echo=nonsense:1")
        self.assertIn("echo", line)
        self.assertIn("'nonsense:1'", line)


class PlaceTests(SynchronousTestCase):
    """A place that fails when the others listen already."""

    def test_late(self) -> None:
        """It is one line, and ends the command with the error's status."""
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        reactor = MemoryReactorClock()
        service = module._TerminalService(Settings.only(echo="tcp:1"), reactor)
        self.assertEqual(service.exit_status, 0)
        service.place_failed(PlaceError("echo", "tcp:1", "it went away"))
        self.assertEqual(
            stderr.getvalue(),
            "sockproto: serve: echo cannot listen on 'tcp:1': it went away (1)\n",
        )
        self.assertEqual(service.exit_status, 1)
        self.assertEqual(reactor.whenRunningHooks, [(reactor.stop, (), {})])


class StoppingReactor:
    """A reactor that is only stopped."""

    def __init__(self) -> None:
        self.stops = 0

    def callFromThread(self, call: Any) -> None:  # noqa: N802 - Twisted's name
        call()

    def stop(self) -> None:
        self.stops += 1


class SignalTests(SynchronousTestCase):
    """What signals do."""

    def setUp(self) -> None:
        self.reactor = StoppingReactor()
        for number in SIGNALS:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, signal.default_int_handler)

    def test_first(self) -> None:
        """Each of the three stops the reactor; the next one ends the process."""
        killed: list[tuple[int, int, object]] = []
        self.patch(
            os, "kill", lambda pid, n: killed.append((pid, n, signal.getsignal(n)))
        )
        for first, second in itertools.product(SIGNALS, SIGNALS):
            module._Signals(self.reactor).heed()
            before = self.reactor.stops
            signal.raise_signal(first)
            self.assertEqual(self.reactor.stops, before + 1)
            self.assertEqual(killed, [])
            signal.raise_signal(second)
            self.assertEqual(killed, [(os.getpid(), second, signal.SIG_DFL)])
            killed.clear()

    def test_before_the_reactor(self) -> None:
        """One that comes before the reactor has set its own is not forgotten."""
        killed: list[int] = []
        self.patch(os, "kill", lambda _, number: killed.append(number))
        signals = module._Signals(self.reactor)
        signals.heed()
        signal.raise_signal(signal.SIGINT)
        self.assertEqual(self.reactor.stops, 1)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signals.heed()
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual(killed, [signal.SIGTERM])

    def test_places(self) -> None:
        """They are heeded before a place is open."""
        heeded: list[bool] = []

        def listen(*_: object, **__: object) -> None:
            heeded.extend(
                signal.getsignal(n) is not signal.default_int_handler for n in SIGNALS
            )
            raise SystemExit(0)

        self.patch(module, "_log_to_stderr", lambda **_: lambda _: None)
        self.patch(module._TerminalService, "privilegedStartService", listen)
        self.assertRaises(SystemExit, serve, ("--echo=tcp:0:interface=127.0.0.1",))
        self.assertEqual(heeded, [True] * 3)

    def test_ignored(self) -> None:
        """What a shell or nohup has ignored stays so."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        module._Signals(self.reactor).heed()
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)
        self.assertEqual(self.reactor.stops, 0)
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual(self.reactor.stops, 1)
        self.assertIs(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)


class Beginner:
    """Stands where the log of the process begins."""

    def __init__(self) -> None:
        self.observers: list[ILogObserver] = []

    def beginLoggingTo(  # noqa: N802 - Twisted's name
        self,
        observers: list[ILogObserver],
        *,
        redirectStandardIO: bool,  # noqa: N803
    ) -> None:
        self.observers.extend(observers)


class LogTests(SynchronousTestCase):
    """The log made for a terminal."""

    def test_lines(self) -> None:
        """A time and a line each; of others only what is grave."""
        stderr = io.StringIO()
        beginner = Beginner()
        self.patch(sys, "stderr", stderr)
        self.patch(module, "globalLogBeginner", beginner)
        module._log_to_stderr()
        (observer,) = beginner.observers
        ours = Logger(namespace="sockproto", observer=observer)
        others = Logger(namespace="twisted", observer=observer)
        ours.debug("not this")
        ours.info("hello listens on {where}", where="127.0.0.1:9999")
        ours.error("too bad")
        others.info("nor this")
        others.warn("careful")
        lines = stderr.getvalue().splitlines()
        self.assertEqual(
            [line.partition(" ")[2] for line in lines],
            ["hello listens on 127.0.0.1:9999", "error: too bad", "warn: careful"],
        )
        for line in lines:
            self.assertRegex(line, r"\A\d\d:\d\d:\d\d ")
