"""
The reactor: Twisted's on asyncio, with a uvloop under it and other transports.

Theory of operation. All that Twisted's asyncio reactor does it does here too, on a
loop of uvloop's: timers, threads, processes, descriptors. Streams are uvloop's: a port
has its connections accepted by it, and a client's socket is handed over once it is
connected (`sockproto.uvreactor.tcp`). UNIX sockets that may pass descriptors, clients
on them (`sockproto.uvreactor.unix`), and UDP, which reports its errors from `write`,
keep to Twisted's descriptors: uvloop's transports do neither.
"""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import uvloop
from twisted.internet import tcp
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.error import UnsupportedAddressFamily
from twisted.internet.main import installReactor
from twisted.internet.process import reapAllProcesses
from twisted.python import context
from twisted.python.failure import Failure
from twisted.python.log import callWithLogger

from sockproto.uvreactor import unix
from sockproto.uvreactor.accepting import AcceptingPort
from sockproto.uvreactor.connection import BUFFER_SIZE, Connection
from sockproto.uvreactor.tcp import Connector, Port
from sockproto.uvreactor.udp import DatagramPort

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterator

__all__ = ["UvloopReactor", "check_uvloop", "install"]

_ROUND = 1_000
"""uvloop's timers count in milliseconds."""


OLDEST_UVLOOP = (0, 23)
"""Those before it call back in a context that they are in already."""


def check_uvloop() -> None:
    """
    See that uvloop is new enough.

    Raises:
        ImportError: it is not.
    """
    seen = version("uvloop")
    if tuple(map(int, seen.split(".")[:2])) < OLDEST_UVLOOP:
        oldest = ".".join(map(str, OLDEST_UVLOOP))
        raise ImportError(
            f"uvloop {seen} is installed, where {oldest} or later is needed;"
            " install sockproto[uvloop]"
        )


class UvloopReactor(AsyncioSelectorReactor):
    """
    A reactor whose connections cost what uvloop's do.

    Args:
        eventloop: a loop of uvloop's; the one that runs, or a new one, if none is
            given.

    Attributes:
        loop: the loop, which asyncio's libraries may use beside Twisted's.
        log_contexts: the stack of log contexts of the thread that runs it.
        buffer: where what is read in pieces comes to.
        kept: what has to be closed when the reactor ends, beside Twisted's readers.
        something_is_due: there may be calls that were put off to the next turn.
        unix_port: makes its ports on UNIX sockets.

    Raises:
        ImportError: uvloop is too old.
        TypeError: the loop is not uvloop's.
    """

    log_contexts: list[Any]
    kept: set[Connection | AcceptingPort]
    something_is_due = False
    unix_port = unix.Port

    _crashed = False
    _in_run = False
    _scheduledAt: Any
    _timerHandle: Any
    _timer_is_due = False

    def __init__(self, eventloop: AbstractEventLoop | None = None) -> None:
        check_uvloop()
        self.loop = loop = _loop_of_uvloop(eventloop)
        self.kept = set()
        self.buffer = memoryview(bytearray(BUFFER_SIZE))
        self._about_to_write: dict[Any, object] = {}
        self._take_log_contexts()
        super().__init__(loop)
        self._others_complaints = loop.get_exception_handler()
        loop.set_exception_handler(self._loop_complains)

    def _take_log_contexts(self) -> None:
        self.log_contexts = context.theContextTracker.currentContext().contexts

    def _loop_complains(self, loop: AbstractEventLoop, told: dict[str, Any]) -> None:
        connection, error = told.get("protocol"), told.get("exception")
        connection = getattr(connection, "connection", connection)  # reads in pieces
        if isinstance(connection, Connection) and error is not None:
            connection.failed(Failure(error, type(error), error.__traceback__))
        elif self._others_complaints is not None:
            self._others_complaints(loop, told)
        else:
            loop.default_exception_handler(told)

    # What stands beside Twisted's readers and writers

    def getReaders(self) -> list[Any]:
        return [*super().getReaders(), *(each for each in self.kept if each.reads)]

    def getWriters(self) -> list[Any]:
        return [
            *super().getWriters(),
            *self._about_to_write,
            *(each for each in self.kept if each.get_write_buffer_size()),
        ]

    def addReader(self, reader: Any) -> None:
        if _is_ours(reader):
            reader.startReading()
        else:
            super().addReader(reader)

    def removeReader(self, reader: Any) -> None:
        if _is_ours(reader):
            reader.stopReading()
        else:
            super().removeReader(reader)

    # Twisted's own streams, UNIX ones above all, write at the end of the turn without
    # asking before whether the kernel takes it: it does, as a rule, and to ask costs
    # more than to write. What it leaves waits until it is asked for.

    def addWriter(self, writer: Any) -> None:
        if not isinstance(writer, tcp.Connection) or not writer.connected:
            super().addWriter(writer)
        elif not (writer in self._about_to_write or self._waits_for_kernel(writer)):
            turn = self._about_to_write[writer] = object()
            self.loop.call_soon(self._write, writer, turn)

    def _waits_for_kernel(self, writer: Any) -> bool:
        """Tell whether the kernel is asked when it takes more of one of Twisted's."""
        return writer in self._writers

    def removeWriter(self, writer: Any) -> None:
        self._about_to_write.pop(writer, None)
        super().removeWriter(writer)

    def _write(self, writer: Any, turn: object) -> None:
        if self._about_to_write.get(writer) is not turn:
            return
        callWithLogger(writer, self._readOrWrite, writer, False)
        if self._about_to_write.get(writer) is turn:
            del self._about_to_write[writer]
            super().addWriter(writer)

    def removeAll(self) -> list[Any]:
        kept = [
            each for each in self.kept if each.reads or each.get_write_buffer_size()
        ]
        for each in kept:
            each.stopReading()
            self.kept.discard(each)
        writers = set(self._about_to_write)
        self._about_to_write.clear()
        return [*writers.union(super().removeAll()), *kept]

    def callLater(self, delay: float, *args: Any, **kwargs: Any) -> Any:
        if not delay:
            self.something_is_due = True
        return super().callLater(delay, *args, **kwargs)

    def call_what_is_due(self) -> None:
        """
        Make the calls that `connectionMade` has put off to the next turn.

        With Twisted's reactors they are made before any data comes, and there are
        those who count on it: `ClientCreator` tells of its connection so.
        """
        self.something_is_due = False
        if self.timeout() == 0 and not self._crashed:
            self.runUntilCurrent()

    # Running

    def startRunning(self, installSignalHandlers: bool = True) -> None:
        self._take_log_contexts()
        super().startRunning(installSignalHandlers=installSignalHandlers)

    def _reallyStartRunning(self) -> None:
        super()._reallyStartRunning()
        if self._installSignalHandlers:
            # Twisted's has the descriptor that wakes it up taken away by uvloop's.
            signal.signal(signal.SIGCHLD, self._child_ended)
            signal.siginterrupt(signal.SIGCHLD, False)

    def _child_ended(self, *_: object) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(reapAllProcesses)

    # uvloop goes round once more after its `stop`, and makes the calls of that turn:
    # our timers leave it out, where it is we who know when the next begins. A second
    # `stop` then would be one for the next.

    def run(self, installSignalHandlers: bool = True) -> None:
        with self._until_the_loop_ends():
            super().run(installSignalHandlers=installSignalHandlers)
            # What was closed last has its descriptor closed in a turn of its own.
            with suppress(OSError):  # it wants some, for signals
                self.loop.call_soon(self.loop.stop)
                self.loop.run_forever()

    def iterate(self, timeout: float) -> None:  # type: ignore[override]
        ending = self.loop.call_later(timeout + 0.01, self.loop.stop)
        try:
            with self._until_the_loop_ends():
                self.loop.run_forever()
        finally:
            ending.cancel()

    @contextmanager
    def _until_the_loop_ends(self) -> Iterator[None]:
        outer, self._in_run = self._in_run, True
        try:
            yield
        finally:
            self._in_run = outer
            if not outer:
                self._crashed = False
                self._reschedule()

    def crash(self) -> None:
        if self._crashed:
            super(AsyncioSelectorReactor, self).crash()  # but for the loop's stop
        else:
            self._crashed = self._in_run
            super().crash()

    def _onTimer(self) -> None:
        self._timer_is_due = False
        if self._crashed:  # uvloop makes this turn's calls all the same
            self._scheduledAt = None
        else:
            super()._onTimer()

    def _reschedule(self) -> None:
        timeout = self.timeout()
        if timeout is None or self._timer_is_due:  # another has no earlier turn
            return
        if self._timerHandle is not None:
            self._timerHandle.cancel()
        # Rounded up: one that comes too early is in vain, and is set again.
        self._timerHandle = self.loop.call_later(
            math.ceil(timeout * _ROUND) / _ROUND, self._onTimer
        )
        self._timer_is_due = not timeout
        # Not before: what is to come sooner would be taken for what comes later, if
        # time passed in between.
        self._scheduledAt = self.loop.time() + timeout

    # IReactorTCP, IReactorSocket, IReactorUDP

    def listenTCP(
        self, port: Any, factory: Any, backlog: int = 50, interface: str = ""
    ) -> Port:
        listening = Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: Any,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: Any = None,
    ) -> Connector:
        connector = Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def listenUNIX(
        self,
        address: Any,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: Any = 0,
    ) -> unix.Port:
        listening = self.unix_port(address, factory, backlog, mode, self, wantPID)
        listening.startListening()
        return listening

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> Any:
        listening: Any
        if addressFamily == socket.AF_UNIX:
            listening = self.unix_port._fromListeningDescriptor(
                self, fileDescriptor, factory
            )
        elif addressFamily in self._FAMILIES:
            listening = Port._fromListeningDescriptor(
                self, fileDescriptor, addressFamily, factory
            )
        else:
            raise UnsupportedAddressFamily(addressFamily)
        listening.startListening()
        return listening

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> DatagramPort:
        listening = DatagramPort(port, protocol, interface, maxPacketSize, self)
        listening.startListening()
        return listening

    def adoptDatagramPort(
        self,
        fileDescriptor: int,
        addressFamily: int,
        protocol: Any,
        maxPacketSize: int = 8192,
    ) -> DatagramPort:
        if addressFamily not in self._FAMILIES:
            raise UnsupportedAddressFamily(addressFamily)
        listening: DatagramPort = DatagramPort._fromListeningDescriptor(
            self, fileDescriptor, addressFamily, protocol, maxPacketSize=maxPacketSize
        )
        listening.startListening()
        return listening

    _FAMILIES = (socket.AF_INET, socket.AF_INET6)


def _loop_of_uvloop(given: Any) -> Any:
    """Have the loop that is given, or that runs, or a new one."""
    loop = given
    if loop is None:
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
    if loop is None:
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
    if not isinstance(loop, uvloop.Loop):
        raise TypeError(
            f"the event loop is {loop!r}, where one of uvloop's is needed;"
            " uvloop.run() runs in one, uvloop.new_event_loop() makes one"
        )
    return loop


def _is_ours(reader: Any) -> bool:
    """Tell whether uvloop reads for it, or accepts."""
    if isinstance(reader, AcceptingPort):
        return not reader.by_descriptor
    return isinstance(reader, Connection)


def install(eventloop: AbstractEventLoop | None = None) -> UvloopReactor:
    """
    Make a `UvloopReactor` the process's reactor; `twistd --reactor=uvloop` does it.

    Raises:
        ReactorAlreadyInstalledError: there is one already.
        ImportError, TypeError: as `UvloopReactor` says.
    """
    reactor = UvloopReactor(eventloop)
    installReactor(reactor)
    return reactor
