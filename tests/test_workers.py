"""
Workers as their parent keeps them, and the parent as a worker hears it.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from hypothesis import given, strategies as st
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from sockproto import workers as module
from sockproto.policies.draining import State
from sockproto.reporting import Log
from sockproto.workers import LONG_SECONDS, SPARE_SECONDS, Crew, Orders, Worker

READY = 9


class FakeProcess:
    """A process, as Twisted's transport of it shows it."""

    def __init__(self, worker: Worker, pid: int) -> None:
        self.pid = pid
        self.told = b""
        self.killed = False
        self.worker = worker
        worker.makeConnection(self)

    def writeToChild(self, child_fd: int, data: bytes) -> None:  # noqa: N802
        assert child_fd == 0
        self.told += data

    def signalProcess(self, name: str) -> None:  # noqa: N802 - Twisted's
        if self.killed:
            raise ProcessExitedAlready
        assert name == "KILL"
        self.killed = True

    # What the test has it do

    def serve(self) -> None:
        self.worker.childDataReceived(READY, b"\n")

    def drain(self) -> None:
        self.worker.childConnectionLost(READY)

    def end(self, status: int = 0, signal: int | None = None) -> None:
        for pipe in (0, READY):
            self.worker.childConnectionLost(pipe)
        ended: Any = ProcessDone if status == 0 and signal is None else None
        error = (
            ended(None) if ended else ProcessTerminated(exitCode=status, signal=signal)
        )
        if signal is not None:
            error.exitCode = None
        self.worker.processEnded(Failure(error))


class CrewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.processes: list[FakeProcess] = []
        self.first: list[bool] = []
        self.problems: list[str] = []
        self.lines: list[str] = []
        self.states: list[State] = []
        self.refused: OSError | None = None
        observer: Any = self.observe
        self.patch(module, "log", Logger(observer=observer))
        self.crew = self.make()

    def make(self, log: Log = Log.CONNECTIONS) -> Crew:
        crew = Crew(
            self.clock,
            self.spawn,
            count=3,
            drain=10,
            failed=self.problems.append,
            log=log,
        )
        crew.watch(self.states.append)
        return crew

    def observe(self, event: Any) -> None:
        self.lines.append(event["log_format"].format(**event))

    def spawn(self, worker: Worker, first: bool) -> None:
        if self.refused is not None:
            raise self.refused
        self.first.append(first)
        self.processes.append(FakeProcess(worker, 100 + len(self.processes)))

    def serve(self) -> None:
        """Start all, until they serve."""
        self.crew.start()
        for process in self.processes:
            process.serve()
        self.lines.clear()
        for process in self.processes:
            process.told = b""

    def test_serving(self) -> None:
        """They serve when the last of them does; that is told once."""
        self.crew.start()
        self.assertEqual(self.first, [True] * 3)
        for process in self.processes[:2]:
            process.serve()
        self.assertEqual((self.states, self.lines), ([], []))
        self.processes[2].serve()
        self.assertEqual(self.states, [State.SERVING])
        self.assertEqual(self.lines, ["3 workers serve (processes 100, 101, 102)."])

    def test_silence(self) -> None:
        """Without a log, only what went wrong is said."""
        self.crew = self.make(Log.NONE)
        self.crew.start()
        for process in self.processes:
            process.serve()
        self.assertEqual(self.lines, [])
        self.processes[0].end(1)
        self.clock.advance(1)
        self.processes[3].serve()
        (line,) = self.lines
        self.assertIn("ended with status 1", line)

    def test_crash(self) -> None:
        """One that ends is started again; until then others have its place."""
        self.serve()
        self.processes[1].end(signal=9)
        (line,) = self.lines
        self.assertTrue(line.startswith("Worker 2 (process 101) was ended by SIGKILL;"))
        self.assertTrue(line.endswith("; it is started again in 1 s."))
        self.assertEqual(self.processes[0].told, b"1\n")
        self.assertEqual(self.processes[1].told, b"")
        self.clock.advance(0.9)
        self.assertEqual(len(self.processes), 3)
        self.clock.advance(0.1)
        self.assertEqual(self.first, [True, True, True, False])
        self.processes[3].serve()
        self.assertEqual(self.lines[1:], ["Worker 2 serves again (process 103)."])
        self.assertEqual(self.processes[0].told, b"1\n\n")
        self.assertEqual(self.processes[3].told, b"\n")
        self.assertEqual(self.states, [State.SERVING])
        self.assertEqual(self.problems, [])

    def test_drains_by_itself(self) -> None:
        """One that serves no longer has others in its place at once."""
        self.serve()
        self.processes[2].drain()
        self.assertEqual(self.processes[0].told, b"2\n")
        self.assertEqual(self.processes[2].told, b"")
        self.processes[2].end()
        self.assertEqual(self.processes[0].told, b"2\n")
        (line,) = self.lines
        self.assertIn("ended with status 0; it is started again", line)

    def test_two_missing(self) -> None:
        """Who comes first hears of who is still missing."""
        self.serve()
        self.processes[0].end(1)
        self.processes[1].end(1)
        self.assertEqual(self.processes[2].told, b"0\n0 1\n")
        self.clock.advance(1)
        self.processes[3].serve()
        self.assertEqual(self.processes[3].told, b"1\n")

    def test_back_off(self) -> None:
        """Who ends again and again is started later and later."""
        self.serve()
        self.processes[0].end(1)
        for delay in (1, 2, 4, 8, 16, 32, 60, 60):
            before = len(self.processes)
            self.assertIn(f"again in {delay} s", self.lines[-1])
            self.clock.advance(delay - 0.01)
            self.assertEqual(len(self.processes), before)
            self.clock.advance(0.01)
            self.assertEqual(len(self.processes), before + 1)
            self.processes[-1].end(1)
        self.clock.advance(60)
        self.processes[-1].serve()
        self.clock.advance(LONG_SECONDS)
        self.processes[-1].end(1)
        self.assertIn("again in 1 s", self.lines[-1])

    def test_first_start(self) -> None:
        """One that ends before all have served is the end of it."""
        self.crew.start()
        self.processes[0].serve()
        self.processes[1].end(3)
        self.assertEqual(
            self.problems,
            ["worker 2 (process 101) ended with status 3 before it served"],
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_process(self) -> None:
        """No process can be had: it is tried again as after an end."""
        self.serve()
        self.refused = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.processes[0].end(1)
        self.clock.advance(1)
        self.assertIn(
            "could not be started (resource temporarily unavailable);", self.lines[-1]
        )
        self.refused = None
        self.clock.advance(2)
        self.processes[-1].serve()
        self.assertIn("Worker 1 serves again", self.lines[-1])

    def test_stop(self) -> None:
        """All are told to stop; it is over when the last is gone."""
        self.serve()
        stopped = self.crew.stop()
        again = self.crew.stop()
        for process in self.processes:
            self.assertEqual(process.told, b"stop\n")
            self.assertNoResult(stopped)
            process.drain()
            process.end()
        self.successResultOf(stopped)
        self.successResultOf(again)
        self.assertEqual(self.states, [State.SERVING, State.DRAINING, State.STOPPED])
        self.assertEqual((self.lines, self.clock.getDelayedCalls()), ([], []))
        self.successResultOf(self.crew.stop())

    def test_stop_while_missing(self) -> None:
        """Who would be started again is not."""
        self.serve()
        self.processes[0].end(1)
        stopped = self.crew.stop()
        for process in self.processes[1:]:
            process.end()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_during_start(self) -> None:
        """One that serves only now has been told already."""
        self.crew.start()
        self.crew.stop()
        for process in self.processes:
            process.serve()
            self.assertEqual(process.told, b"stop\n")
        self.assertNotIn(State.SERVING, self.states)

    def test_never_started(self) -> None:
        """Where nobody was started, nobody is waited for; nor started later."""
        self.successResultOf(self.crew.stop())
        self.crew.start()
        self.assertEqual(self.processes, [])

    def test_too_late(self) -> None:
        """Who takes longer than the drain is killed; so is who crashes then told."""
        self.serve()
        stopped = self.crew.stop()
        self.processes[0].end(signal=11)
        self.assertEqual(
            self.lines,
            ["While stopping, worker 1 (process 100) was ended by SIGSEGV."],
        )
        self.clock.advance(10 + SPARE_SECONDS)
        self.assertIn("Killing 2 workers", self.lines[1])
        self.assertEqual([each.killed for each in self.processes], [False, True, True])
        for process in self.processes[1:]:
            process.end(signal=9)
        self.successResultOf(stopped)

    def test_kill(self) -> None:
        """All can be killed at once, also those that are dead already."""
        self.serve()
        self.crew.kill()
        self.crew.kill()
        self.assertTrue(all(each.killed for each in self.processes))

    def test_unknown_signal(self) -> None:
        """A signal without a name has its number."""
        self.serve()
        self.processes[0].end(signal=40)
        self.assertIn("was ended by signal 40;", self.lines[0])


class OrdersTests(SynchronousTestCase):
    """What a worker hears."""

    def orders(self) -> tuple[Orders, list[Any]]:
        heard: list[Any] = []
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        reactor: Any = FakeReactor()
        return Orders(reactor, reading, missing=heard.append, stop=heard.append), heard

    @given(pieces=st.lists(st.integers(1, 4)))
    def test_chopping(self, pieces: list[int]) -> None:
        """The same is heard in whatever pieces it comes."""
        orders, heard = self.orders()
        said = b"1 12\n\n3\n"
        for size in (*pieces, len(said)):
            orders.heard(said[:size])
            said = said[size:]
        self.assertEqual(heard, [{1, 12}, set(), {3}])

    def test_stop(self) -> None:
        """A stop is heard once; that the pipe ends then is no news."""
        orders, heard = self.orders()
        orders.heard(b"1\nstop\n")
        orders.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(heard, [{1}, False])

    def test_gone(self) -> None:
        """An end of the pipe without a stop tells that the parent is gone."""
        orders, heard = self.orders()
        orders.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(heard, [True])

    def test_reactor_ends(self) -> None:
        """That our own reactor ends is not the parent's end."""
        orders, heard = self.orders()
        orders.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(heard, [])

    def test_reads(self) -> None:
        """It reads from its pipe."""
        heard: list[Any] = []
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        orders = Orders(FakeReactor(), reading, missing=heard.append, stop=heard.append)
        self.assertEqual(orders.fileno(), reading)
        os.write(writing, b"2\n")
        os.close(writing)
        self.assertIsNone(orders.doRead())
        self.assertEqual(heard, [{2}])
        self.assertIsInstance(orders.doRead(), ConnectionDone)


class FakeReactor:
    """Forgets whoever was read from."""

    def _forget(self, descriptor: object) -> None:
        pass

    removeReader = removeWriter = _forget  # noqa: N815 - Twisted's
