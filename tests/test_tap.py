"""
The `twistd` and `twist` plugin, in this process and as a user starts it.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sockproto.errors import PlaceError
from sockproto.hello import connect_hello
from sockproto.options import Options
from sockproto.tap import _unless_said, makeService
from tests import TWISTD_USAGE_STATUS
from tests.contracts import LogLines, directory, serve_tcp, turns_until

if TYPE_CHECKING:
    from twisted.python.failure import Failure

FREE = "tcp:0:interface=127.0.0.1"


def options(*arguments: str) -> Options:
    parsed = Options()
    parsed.parseOptions(list(arguments))
    return parsed


class MakeServiceTests(SynchronousTestCase):
    """From options to a service."""

    def test_settings(self) -> None:
        """The service has the settings that were given."""
        service = makeService(options(f"--hello={FREE}", "--delay=0.5"))
        self.assertEqual(service._settings.delay, 0.5)
        self.assertEqual(service._settings.hello, (FREE,))

    def test_place_that_cannot_be_understood(self) -> None:
        """One line on standard error and exit status 1, before anything starts."""
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        with self.assertRaises(SystemExit) as caught:
            makeService(options("--hello=tpc:9999"))
        self.assertEqual(caught.exception.code, 1)
        lines = stderr.getvalue().splitlines()
        self.assertEqual(len(lines), 1)
        self.assertIn("hello cannot listen on 'tpc:9999'", lines[0])


class DaemonServiceTests(TestCase):
    """What the service does in a daemon's place."""

    timeout = 30

    def setUp(self) -> None:
        self.patch(sys, "__stderr__", io.StringIO())
        self.patch(sys, "excepthook", self.excepthook)
        self.hooked: list[BaseException] = []

    def excepthook(self, kind: object, error: BaseException, trace: object) -> None:
        self.hooked.append(error)

    async def make_taken(self) -> Any:
        from twisted.internet import reactor

        await deferLater(reactor, 0)  # trial's reactor runs from here on
        taken: Any = await serve_tcp(self, Factory.forProtocol(Protocol))
        place = f"tcp:{taken.getHost().port}:interface=127.0.0.1"
        return makeService(options(f"--echo={place}"))

    async def test_place_in_use(self) -> None:
        """One line on standard error; the exception leaves without a traceback."""
        for start in ("privilegedStartService", "startService"):
            service = await self.make_taken()
            stderr: Any = sys.__stderr__
            stderr.truncate(0)
            with self.assertRaises(PlaceError) as caught:
                getattr(service, start)()
            self.assertEqual(stderr.getvalue().strip("\0").count("\n"), 1)
            self.assertIn("it is in use", stderr.getvalue())
            sys.excepthook(PlaceError, caught.exception, None)
            self.assertEqual(self.hooked, [])

    async def test_place_in_use_in_a_daemon(self) -> None:
        """After the fork the line goes into the log, which is all there is."""
        log = LogLines(self)
        service = await self.make_taken()
        service._process += 1
        with self.assertRaises(PlaceError):
            service.privilegedStartService()
        self.assertEqual(sys.__stderr__.getvalue(), "")  # type: ignore[union-attr]
        self.assertEqual(len(log.having("it is in use")), 1)

    def test_other_errors(self) -> None:
        """Other exceptions keep their traceback."""
        error = RuntimeError()
        _unless_said(self.excepthook)(RuntimeError, error, None)
        self.assertEqual(self.hooked, [error])

    def test_late_failure(self) -> None:
        """A place that fails later ends the process, with status 1."""
        log = LogLines(self)
        stopped: list[None] = []
        at_exit: list[tuple[object, ...]] = []
        self.patch(atexit, "register", lambda *args: at_exit.append(args))

        class Reactor:
            def stop(self) -> None:
                stopped.append(None)

        service = makeService(options(f"--echo={FREE}"))
        service._reactor = Reactor()
        service.place_failed(PlaceError("echo", FREE, "it went away"))
        self.assertEqual(len(stopped), 1)
        self.assertEqual(at_exit, [(os._exit, 1)])
        self.assertEqual(len(log.having("it went away")), 1)

    async def test_early_signal(self) -> None:
        """One that comes before the reactor heeds any stops it once it runs."""
        heard: list[int] = []

        class Early:
            """A reactor that has yet to start."""

            running = False

            def sigTerm(self, number: int, _: object) -> None:  # noqa: N802
                heard.append(number)

            sigInt = sigTerm  # noqa: N815 - Twisted's names

        for start in ("privilegedStartService", "startService"):
            service = makeService(options(f"--echo={FREE}"))
            reactor, service._reactor = service._reactor, Early()
            for number in (signal.SIGTERM, signal.SIGINT):
                self.addCleanup(signal.signal, number, signal.getsignal(number))
                signal.signal(number, signal.default_int_handler)
            getattr(service, start)()
            for number in (signal.SIGTERM, signal.SIGINT):
                heeded = signal.getsignal(number)
                self.assertIsNot(heeded, signal.default_int_handler)
                signal.raise_signal(number)
            self.assertEqual(heard, [signal.SIGTERM, signal.SIGINT])
            heard.clear()
            service._reactor = reactor
            await service.stopService()

    async def test_second_signal(self) -> None:
        """While it drains, a signal has its default effect: it ends the process."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        for ignored in (False, True):
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.signal(
                signal.SIGINT,
                signal.SIG_IGN if ignored else signal.default_int_handler,
            )
            service = makeService(options(f"--echo={FREE}"))
            service.startService()
            stopped = service.stopService()  # a turn of trial's reactor sets its own
            self.assertIs(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)
            self.assertIs(
                signal.getsignal(signal.SIGINT),
                signal.SIG_IGN if ignored else signal.SIG_DFL,
            )
            await stopped


class Program(ProcessProtocol):
    """A process that a user started."""

    def __init__(self) -> None:
        self.output = ""
        self.ended: Deferred[Program] = Deferred()
        self.status: int | None = None
        self.signal: int | None = None
        self._waiters: list[tuple[re.Pattern[str], Deferred[str]]] = []

    def outReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's
        self.output += data.decode()
        for waiter in list(self._waiters):
            found = waiter[0].search(self.output)
            if found is not None:
                self._waiters.remove(waiter)
                waiter[1].callback(found[1])

    errReceived = outReceived  # noqa: N815 - Twisted's

    def processEnded(self, reason: Failure) -> None:
        ended: Any = reason.value
        self.status, self.signal = ended.exitCode, ended.signal
        self.ended.callback(self)

    def until(self, pattern: str) -> Deferred[str]:
        """Fires with the first group of what is printed."""
        waiter: Deferred[str] = Deferred()
        self._waiters.append((re.compile(pattern), waiter))
        self.outReceived(b"")
        return waiter


class StartTests(TestCase):
    """As a user starts it."""

    timeout = 60

    def run_program(self, name: str, *arguments: str) -> Program:
        from twisted.internet import reactor

        program = Program()
        self.directory = directory(self)
        path = str(Path(sys.executable).with_name(name))
        # The package under test is where the tests are run from.
        environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
        transport = reactor.spawnProcess(
            program,
            sys.executable,
            [sys.executable, path, *arguments],
            env=environment,
            path=str(self.directory),
        )

        def end() -> Deferred[Program]:
            if program.status is None and program.signal is None:
                transport.signalProcess("KILL")
            return program.ended

        self.addCleanup(end)
        return program

    async def serve(self, name: str, *arguments: str) -> None:
        """Start it, talk to it, drain it with a signal."""
        from twisted.internet import reactor

        program = self.run_program(
            name, *arguments, "sockproto", f"--hello={FREE}", "--delay=0"
        )
        port = int(await program.until(r"hello listens on 127\.0\.0\.1:(\d+)\."))
        client = await connect_hello(TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        self.assertEqual(await client.greet("Eva"), b"Hello, Eva!")
        await client.close()
        program.transport.signalProcess("TERM")  # type: ignore[union-attr]
        await program.ended
        self.assertEqual(program.signal, signal.SIGTERM)
        self.assertNotIn("Traceback", program.output)

    async def test_twistd(self) -> None:
        """`twistd -n sockproto` serves, and ends by the signal that ends it."""
        await self.serve("twistd", "-n")

    async def test_twist(self) -> None:
        """`twist sockproto` works the same."""
        await self.serve("twist", "--log-format=text")

    async def fail(self, name: str, *arguments: str) -> str:  # type: ignore[override]
        taken: Any = await serve_tcp(self, Factory.forProtocol(Protocol))
        place = f"tcp:{taken.getHost().port}:interface=127.0.0.1"
        program = self.run_program(
            name, *arguments, "sockproto", f"--hello={FREE}", f"--echo={place}"
        )
        await program.ended
        self.assertEqual(program.status, 1)
        self.assertNotIn("Traceback", program.output)
        return program.output

    async def test_place_in_use(self) -> None:
        """A place in use is one plain line and exit status 1."""
        for arguments in (("twistd", "-n"), ("twist",)):
            output = await self.fail(*arguments)
            self.assertEqual(output.count("it is in use"), 1, output)

    async def test_place_in_use_in_a_daemon(self) -> None:
        """A daemon does not hang, and has the line in its log."""
        await self.fail("twistd", "--logfile=log", "--pidfile=pid")
        log = (self.directory / "log").read_text()
        self.assertEqual(log.count("it is in use"), 1, log)
        self.assertNotIn("Traceback", log)
        # The command ends a moment before the daemon has removed it.
        await turns_until(lambda: not (self.directory / "pid").exists())

    async def test_place_that_cannot_be_understood(self) -> None:
        """So is a place that is none, also for a daemon."""
        for arguments in (("twistd", "-n"), ("twistd",), ("twist",)):
            program = self.run_program(*arguments, "sockproto", "--hello=tpc:1")
            await program.ended
            self.assertEqual(program.status, 1)
            self.assertEqual(len(program.output.splitlines()), 1, program.output)

    async def test_wrong_option(self) -> None:
        """A wrong option is named, with what was seen and what is allowed."""
        program = self.run_program("twistd", "-n", "sockproto", "--delay=soon")
        await program.ended
        self.assertEqual(program.status, TWISTD_USAGE_STATUS)
        self.assertIn("--delay: 'soon' was given, where a number", program.output)

    async def test_drain_and_second_signal(self) -> None:
        """While a connection is owed something it drains; a second signal ends it."""
        from twisted.internet import reactor

        program = self.run_program(
            "twistd",
            "-n",
            "sockproto",
            f"--hello={FREE}",
            "--delay=50",
            "--drain=60",
            "--framing=line",
        )
        port = int(await program.until(r"hello listens on 127\.0\.0\.1:(\d+)\."))
        client = await connect_hello(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port), framing="line"
        )
        await client.greeting()
        answer = client.greet("Eva")
        answer.addErrback(lambda _: None)
        program.transport.signalProcess("TERM")  # type: ignore[union-attr]
        await program.until(r"(Port \d+ Closed)")
        self.assertIsNone(program.signal)
        program.transport.signalProcess("TERM")  # type: ignore[union-attr]
        await program.ended
        self.assertEqual(program.signal, signal.SIGTERM)
        await answer
