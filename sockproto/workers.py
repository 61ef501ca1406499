"""
Processes that serve the same places: started, watched, started again, and stopped.

A worker's standard input is a pipe from its parent, by which it is told what to do;
end of file tells that the parent is gone, however it went. By another pipe it tells
that it serves, and that it no longer does.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet import fdesc
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol

from sockproto.policies.draining import State, Watched
from sockproto.reporting import Log, log
from sockproto.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IProcessTransport
    from twisted.python.failure import Failure

__all__ = ["Crew", "Orders", "Worker"]

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds until a worker that ended is started again; each time they double."""

LONG_SECONDS = 60.0
"""Who has served for so long did not end of what it began with."""

SPARE_SECONDS = 3.0
"""What a worker may take longer than its drain, before it is killed."""

STOP = "stop"


class Worker(ProcessProtocol):
    """
    One worker, as its parent sees it, from its start to its end.

    Attributes:
        slot: whose place it takes.
        serves: whether it does now.
        process: its number.
    """

    transport: IProcessTransport | None

    def __init__(self, crew: Crew, slot: int) -> None:
        self.slot = slot
        self.serves = False
        self.process = 0
        self.since = float("inf")
        self._crew = crew
        self._hears = True

    def tell(self, order: str) -> None:
        """Send one line."""
        if self.transport is not None and self._hears:
            self.transport.writeToChild(0, f"{order}\n".encode())

    def kill(self) -> None:
        """End it at once."""
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")

    def connectionMade(self) -> None:
        self.process = self.transport.pid  # type: ignore[union-attr]

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803
        self._crew.now_serves(self)

    def childConnectionLost(self, childFD: int) -> None:  # noqa: N803
        if childFD == 0:
            self._hears = False
        else:
            self._crew.serves_no_longer(self)

    def processEnded(self, reason: Failure) -> None:
        self._crew.has_ended(self, reason.value)


class Crew(Watched):
    """
    All workers. They are serving once all of them are, for the first time.

    Args:
        clock: measures; the reactor, outside tests.
        spawn: starts a process for a worker; told whether it is the first of its
            slot.
        count: how many there are.
        drain: seconds that a worker may take to stop.
        failed: told in words of a worker that ended before all of them served.
        log: how much is logged.
    """

    def __init__(
        self,
        clock: Any,
        spawn: Callable[[Worker, bool], object],
        *,
        count: int,
        drain: float,
        failed: Callable[[str], object],
        log: Log = Log.CONNECTIONS,
    ) -> None:
        super().__init__(State.STOPPED)
        self._clock = clock
        self._spawn = spawn
        self._count = count
        self._drain = drain
        self._failed = failed
        self._logs = log is not Log.NONE
        self._begun = False
        self._stopping = False
        self._workers: dict[int, Worker] = {}
        self._delays = dict.fromkeys(range(count), FIRST_DELAY)
        self._to_come: dict[int, IDelayedCall] = {}
        self._kill: IDelayedCall | None = None
        self._stopped: list[Deferred[None]] = []

    @property
    def workers(self) -> list[Worker]:
        """Those that there are now."""
        return [self._workers[slot] for slot in sorted(self._workers)]

    def start(self) -> None:
        """Start all workers."""
        for slot in range(self._count):
            if not self._stopping:
                self._start(slot, first=True)

    def stop(self) -> Deferred[None]:
        """
        Have all workers drain; fires when none is left. It kills those who take
        longer than they may.
        """
        done: Deferred[None] = Deferred()
        self._stopped.append(done)
        if not self._stopping:
            self._stopping = True
            self._enter(State.DRAINING)
            for call in self._to_come.values():
                call.cancel()
            self._to_come.clear()
            for worker in self.workers:
                worker.tell(STOP)
            patience = self._drain + SPARE_SECONDS
            self._kill = self._clock.callLater(patience, self._too_late)
        self._look()
        return done

    def kill(self) -> None:
        """End all workers at once."""
        for worker in self.workers:
            worker.kill()

    def _too_late(self) -> None:
        log.warn(
            "Killing {workers}, not stopped {seconds:g} s after the drain.",
            workers=counted(len(self._workers), "worker"),
            seconds=SPARE_SECONDS,
        )
        self.kill()

    def _look(self) -> None:
        if self._stopping and not self._workers and self._stopped:
            if self._kill is not None and self._kill.active():
                self._kill.cancel()
            stopped, self._stopped = self._stopped, []
            if self.state is not State.STOPPED:
                self._enter(State.STOPPED)
            for done in stopped:
                done.callback(None)

    # One worker

    def _start(self, slot: int, *, first: bool = False) -> None:
        self._to_come.pop(slot, None)
        worker = self._workers[slot] = Worker(self, slot)
        try:
            self._spawn(worker, first)
        except OSError as error:  # no memory, too many processes
            self.has_ended(worker, error)

    def now_serves(self, worker: Worker) -> None:
        """A worker has told so."""
        worker.serves = True
        worker.since = self._clock.seconds()
        again = self._begun
        if not again and self._missing():
            return
        if again and self._logs:
            log.info(
                "Worker {number} serves again (process {process}).",
                number=worker.slot + 1,
                process=worker.process,
            )
        self._tell_who_is_missing()
        if not again and not self._stopping:
            self._begun = True
            if self._logs:
                log.info(
                    "{count} workers serve (processes {processes}).",
                    count=self._count,
                    processes=", ".join(str(each.process) for each in self.workers),
                )
            self._enter(State.SERVING)

    def serves_no_longer(self, worker: Worker) -> None:
        """A worker has closed its places, or is dead."""
        if worker.serves:
            worker.serves = False
            self._tell_who_is_missing()

    def _missing(self) -> list[int]:
        serving = {each.slot for each in self.workers if each.serves}
        return [slot for slot in range(self._count) if slot not in serving]

    def _tell_who_is_missing(self) -> None:
        if not self._stopping:
            order = " ".join(map(str, self._missing()))
            for worker in self.workers:
                if worker.serves:
                    worker.tell(order)

    def has_ended(self, worker: Worker, how: object) -> None:
        """A worker's process is over."""
        slot = worker.slot
        del self._workers[slot]
        self.serves_no_longer(worker)
        ending = _ending(how)
        name = f"worker {slot + 1} (process {worker.process or 'none'}) {ending}"
        if self._stopping:
            if ending != _WELL:
                log.warn("While stopping, {name}.", name=name)
            self._look()
        elif not self._begun:
            self._failed(f"{name} before it served")
        else:
            if self._clock.seconds() - worker.since >= LONG_SECONDS:
                self._delays[slot] = FIRST_DELAY
            delay = self._delays[slot]
            self._delays[slot] = min(2 * delay, LONGEST_DELAY)
            log.warn(
                "{name}; it is started again in {delay:g} s.",
                name=name[0].upper() + name[1:],
                delay=delay,
            )
            self._to_come[slot] = self._clock.callLater(delay, self._start, slot)


_WELL = "ended with status 0"


def _ending(how: Any) -> str:
    number = getattr(how, "signal", None)
    if number is not None:
        try:
            return f"was ended by {signal.Signals(number).name}"
        except ValueError:  # a real-time signal
            return f"was ended by signal {number}"
    if isinstance(how, OSError):
        return f"could not be started ({(how.strerror or str(how)).lower()})"
    return f"ended with status {getattr(how, 'exitCode', None) or 0}"


class Orders(FileDescriptor):
    """
    What a worker hears from its parent.

    Args:
        reactor: reads.
        descriptor: the pipe.
        missing: told for which slots to accept, too.
        stop: told to stop, with whether the parent is gone.
    """

    def __init__(
        self,
        reactor: Any,
        descriptor: int,
        *,
        missing: Callable[[set[int]], object],
        stop: Callable[[bool], object],
    ) -> None:
        super().__init__(reactor)
        self.connected = True
        self._descriptor = descriptor
        self._missing = missing
        self._stop = stop
        self._stopped = False
        self._unread = b""
        fdesc.setNonBlocking(descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> Any:
        return fdesc.readFromFD(self._descriptor, self.heard)

    def heard(self, data: bytes) -> None:
        """Take what was read."""
        *orders, self._unread = (self._unread + data).split(b"\n")
        for order in orders:
            if order == STOP.encode():
                self._stopped = True
                self._stop(False)
            else:
                self._missing({int(slot) for slot in order.split()})

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        # Another reason is that our own reactor ends.
        if not self._stopped and reason.check(ConnectionDone):
            self._stopped = True
            self._stop(True)
