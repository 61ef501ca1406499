"""
Bytes between standard input, a connection and standard output.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sockproto.cli import piping
from sockproto.cli.console import Output, read_input
from sockproto.cli.piping import SERVICES, UNWRITTEN_SIZE, Pipe
from sockproto.errors import (
    AddressMalformed,
    CannotRead,
    CannotWrite,
    ConnectionWasReset,
    NothingCame,
    PeerLeftOwing,
    SockprotoError,
    TimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory


@implementer(IHalfCloseableDescriptor)
class HalfCloseable(StringTransport):
    """
    A transport one of whose directions can be closed alone, as TCP's.
    """

    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def unregisterProducer(self) -> None:
        if self.producer is not None:  # TCP minds none either
            super().unregisterProducer()

    def readConnectionLost(self, reason: Failure) -> None:
        pass

    def writeConnectionLost(self, reason: Failure) -> None:
        pass


class Threads:
    """
    Stands for the threads that block on standard input and output.

    A call waits here until the test says how it ends.
    """

    def __init__(self) -> None:
        self.reads: list[Deferred[bytes]] = []
        self.writes: list[tuple[bytes, Deferred[None]]] = []
        self.written = b""

    def call(
        self, reactor: Any, function: Callable[..., Any], *args: Any
    ) -> Deferred[Any]:
        """In place of `in_daemon_thread`."""
        done: Deferred[Any] = Deferred()
        if function is read_input:
            assert not args
            self.reads.append(done)
        else:
            (data,) = args
            self.writes.append((data, done))
        return done

    def read(self, data: bytes) -> None:
        """Have the one read that waits end with this."""
        (read,) = self.reads
        self.reads = []
        read.callback(data)

    def write(self) -> None:
        """Have the one write that waits end well."""
        ((data, write),) = self.writes
        self.writes = []
        self.written += data
        write.callback(None)

    def fail_write(self, error: Exception) -> None:
        """Have the one write that waits end with an error."""
        ((_, write),) = self.writes
        self.writes = []
        write.errback(error)


class PipeTests(SynchronousTestCase):
    """What every test has: a pipe on a transport, and its threads."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.threads = Threads()
        self.patch(piping, "in_daemon_thread", self.threads.call)
        self.transport = HalfCloseable()

    def pipe(self, **options: Any) -> Pipe:
        """A pipe that is connected."""
        pipe = Pipe(self.clock, Output(), **options)
        pipe.makeConnection(self.transport)
        self.closed = pipe.closed()
        return pipe

    def lose(self, pipe: Pipe, why: Exception | None = None) -> None:
        """End the connection."""
        pipe.connectionLost(Failure(why or ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class InputTests(PipeTests):
    """From standard input to the peer."""

    def test_sent(self) -> None:
        """What is read is sent as it is; there is one read at a time."""
        self.pipe()
        for data in (b"a\r\n", b"\0\xff", b"b\n"):
            self.assertEqual(len(self.threads.reads), 1)
            self.threads.read(data)
        self.assertEqual(self.transport.value(), b"a\r\n\0\xffb\n")

    def test_crlf(self) -> None:
        """Each LF becomes CRLF where that is asked for."""
        self.pipe(crlf=True)
        self.threads.read(b"a\n\nb")
        self.threads.read(b"\n")
        self.assertEqual(self.transport.value(), b"a\r\n\r\nb\r\n")

    def test_end(self) -> None:
        """The end of the input ends our side alone; the peer is heard to its end."""
        pipe = self.pipe()
        self.threads.read(b"a")
        self.threads.read(b"")
        self.assertTrue(self.transport.half_closed)
        self.assertFalse(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.assertEqual(self.threads.reads, [])
        pipe.dataReceived(b"b")
        self.threads.write()
        self.assertEqual(self.threads.written, b"b")

    def test_no_half_close(self) -> None:
        """Where one side cannot be ended alone, what is owed is awaited first."""
        self.transport = StringTransport()  # type: ignore[assignment]
        pipe = self.pipe(echoes=True)
        self.threads.read(b"abc")
        self.threads.read(b"")
        self.assertFalse(self.transport.disconnecting)
        pipe.dataReceived(b"ab")
        self.assertFalse(self.transport.disconnecting)
        pipe.dataReceived(b"c")
        self.assertTrue(self.transport.disconnecting)
        self.lose(pipe)
        self.successResultOf(self.closed)

    def test_back_pressure(self) -> None:
        """While the peer takes nothing, nothing is read."""
        self.pipe()
        producer: Any = self.transport.producer
        self.assertTrue(self.transport.streaming)
        for _ in range(2):
            producer.pauseProducing()
            self.threads.read(b"a")
            self.assertEqual(self.threads.reads, [])
            producer.resumeProducing()
            self.assertEqual(len(self.threads.reads), 1)
        self.assertEqual(self.transport.value(), b"aa")

    def test_stopped(self) -> None:
        """A transport that closes while it is full leaves nothing waiting."""
        pipe = self.pipe()
        pipe.pauseProducing()
        self.threads.read(b"a")
        pipe.connectionLost(Failure(ConnectionLost()))
        pipe.stopProducing()
        self.assertEqual(self.threads.reads, [])
        self.failureResultOf(self.closed, ConnectionWasReset)

    def test_late(self) -> None:
        """What is read after the connection is over is not sent."""
        pipe = self.pipe()
        self.lose(pipe)
        self.threads.read(b"late")
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual(self.threads.reads, [])

    def test_cannot_read(self) -> None:
        """An input that cannot be read ends the conversation with curl's 26."""
        pipe = self.pipe()
        (read,) = self.threads.reads
        read.errback(OSError(21, "Is a directory"))
        self.assertTrue(self.transport.disconnected)
        self.lose(pipe, ConnectionAborted())
        error = self.failureResultOf(self.closed, CannotRead).value
        self.assertEqual(getattr(error, "exit_status", None), 26)


class PeerTests(PipeTests):
    """From the peer to standard output."""

    def test_written(self) -> None:
        """Bytes are written in order, one write at a time."""
        pipe = self.pipe()
        pipe.dataReceived(b"a\0")
        pipe.dataReceived(b"b")
        pipe.dataReceived(b"c")
        self.assertEqual(len(self.threads.writes), 1)
        self.threads.write()
        self.threads.write()
        self.assertEqual(self.threads.written, b"a\0bc")
        self.assertEqual(self.threads.writes, [])

    def test_written_last(self) -> None:
        """`written` fires once the connection is over and all is written."""
        pipe = self.pipe()
        pipe.dataReceived(b"a")
        pipe.dataReceived(b"b")
        self.lose(pipe)
        self.successResultOf(self.closed)
        self.threads.write()
        self.assertNoResult(pipe.written)
        self.threads.write()
        self.successResultOf(pipe.written)
        self.assertEqual(self.threads.written, b"ab")

    def test_nothing_to_write(self) -> None:
        """It fires with the connection's end where nothing is left to be written."""
        pipe = self.pipe()
        self.assertNoResult(pipe.written)
        self.lose(pipe)
        self.successResultOf(pipe.written)
        self.successResultOf(self.closed)

    def test_back_pressure(self) -> None:
        """While standard output takes nothing, the peer is not read for ever."""
        pipe = self.pipe()
        pipe.dataReceived(b"x" * UNWRITTEN_SIZE)
        self.assertEqual(self.transport.producerState, "producing")
        pipe.dataReceived(b"y")
        self.assertEqual(self.transport.producerState, "paused")
        self.threads.write()
        self.assertEqual(self.transport.producerState, "producing")
        self.threads.write()
        self.assertEqual(len(self.threads.written), UNWRITTEN_SIZE + 1)

    def test_resumed_after_the_end(self) -> None:
        """What is written after the connection's end resumes nothing."""
        pipe = self.pipe()
        pipe.dataReceived(b"x" * UNWRITTEN_SIZE)
        pipe.dataReceived(b"y")
        self.transport.disconnecting = True  # it refuses to be resumed now
        self.lose(pipe)
        self.threads.write()
        self.threads.write()
        self.successResultOf(pipe.written)

    def test_cannot_write(self) -> None:
        """An output that takes nothing aborts the connection."""
        error = CannotWrite("standard output", "broken pipe")
        pipe = self.pipe()
        pipe.dataReceived(b"a")
        self.threads.fail_write(error)
        self.assertTrue(self.transport.disconnected)
        self.failureResultOf(pipe.written, CannotWrite)
        pipe.dataReceived(b"b")
        self.lose(pipe, ConnectionAborted())
        self.assertIs(self.failureResultOf(self.closed).value, error)
        self.assertEqual(self.threads.writes, [])

    def test_peer_ended(self) -> None:
        """A peer that has ended its side may still listen: it gets all the input."""
        pipe = self.pipe()
        pipe.dataReceived(b"a")
        pipe.readConnectionLost()
        self.assertFalse(self.transport.disconnecting)
        self.threads.read(b"the rest")
        self.assertEqual(self.transport.value(), b"the rest")
        self.threads.read(b"")
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.lose(pipe)
        self.successResultOf(self.closed)

    def test_reset(self) -> None:
        """A reset is an error, and what came before it is written."""
        pipe = self.pipe()
        pipe.dataReceived(b"a")
        self.lose(pipe, ConnectionLost())
        self.failureResultOf(self.closed, ConnectionWasReset)
        self.threads.write()
        self.successResultOf(pipe.written)

    def test_owing(self) -> None:
        """A peer that echoes owes each byte that was sent."""
        for came, kind in ((b"", NothingCame), (b"ab", PeerLeftOwing), (b"abc", None)):
            self.transport = HalfCloseable()
            pipe = self.pipe(echoes=True)
            self.threads.read(b"abc")
            self.threads.read(b"")
            if came:
                pipe.dataReceived(came)
                self.threads.write()
            pipe.readConnectionLost()
            self.lose(pipe)
            if kind is None:
                self.successResultOf(self.closed)
            else:
                error = self.failureResultOf(self.closed, kind).value
                if isinstance(error, PeerLeftOwing):
                    self.assertEqual(error.owed, "1 bytes")


class SilenceTests(PipeTests):
    """How long a peer may be silent."""

    def test_silence(self) -> None:
        """A peer that is silent for the whole period is cut off."""
        pipe = self.pipe(timeout=5)
        self.clock.advance(4.9)
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(self.transport.disconnected)
        self.lose(pipe, ConnectionAborted())
        error = self.failureResultOf(self.closed, TimedOut).value
        self.assertEqual(getattr(error, "seconds", None), 5)

    def test_each_byte(self) -> None:
        """Each byte of the peer's begins the period anew, ours do not."""
        pipe = self.pipe(timeout=5)
        self.clock.advance(4)
        pipe.dataReceived(b"a")
        self.clock.advance(4)
        self.threads.read(b"ours")
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(self.transport.disconnected)
        self.lose(pipe, ConnectionAborted())
        self.failureResultOf(self.closed, TimedOut)

    def test_not_listening(self) -> None:
        """A peer that we do not read, for our output is full, is not silent."""
        pipe = self.pipe(timeout=5)
        pipe.dataReceived(b"x" * (UNWRITTEN_SIZE + 1))
        self.assertEqual(self.transport.producerState, "paused")
        self.clock.advance(5)
        self.assertFalse(self.transport.disconnected)

    def test_peer_ended(self) -> None:
        """A peer that has ended its output owes no more of it, and listens on."""
        pipe = self.pipe(timeout=5)
        pipe.readConnectionLost()
        self.clock.advance(5)
        self.assertFalse(self.transport.disconnected)
        self.threads.read(b"late")
        self.assertEqual(self.transport.value(), b"late")
        self.threads.read(b"")
        self.lose(pipe)
        self.successResultOf(self.closed)

    def test_patience(self) -> None:
        """Without a timeout there is nothing on the clock."""
        self.pipe()
        self.assertEqual(self.clock.getDelayedCalls(), [])


@implementer(IStreamClientEndpoint)
class AtOnce:
    """
    An endpoint that is connected as soon as it is asked, or never.
    """

    def __init__(self, transport: StringTransport | None) -> None:
        self._transport = transport

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        connected: Deferred[Any] = Deferred()
        if self._transport is not None:
            protocol: Any = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
            protocol.makeConnection(self._transport)
            connected.callback(protocol)
        return connected


class CarryTests(PipeTests):
    """A conversation as a whole."""

    def carry(self, *, timeout: float | None = None, connects: bool = True) -> Pipe:
        """Begin one; `self.carried` tells how it ends."""
        pipe = Pipe(self.clock, Output())
        self.carried = Deferred.fromCoroutine(
            piping._carry(
                self.clock,
                AtOnce(self.transport if connects else None),
                lambda: pipe,
                timeout,
                "there",
            )
        )
        return pipe

    def test_done(self) -> None:
        """It is done when the connection is over and all is written."""
        pipe = self.carry()
        pipe.dataReceived(b"a")
        self.lose(pipe)
        self.assertNoResult(self.carried)
        self.threads.write()
        self.successResultOf(self.carried)

    def test_written_first(self) -> None:
        """What came is written before it is said what went wrong."""
        pipe = self.carry()
        pipe.dataReceived(b"a")
        self.lose(pipe, ConnectionLost())
        self.assertNoResult(self.carried)
        self.threads.write()
        self.failureResultOf(self.carried, ConnectionWasReset)

    def test_cannot_write(self) -> None:
        """An output that takes nothing is what went wrong."""
        pipe = self.carry()
        pipe.dataReceived(b"a")
        self.threads.fail_write(CannotWrite("standard output", "broken pipe"))
        self.lose(pipe, ConnectionAborted())
        self.failureResultOf(self.carried, CannotWrite)

    def test_first_failure(self) -> None:
        """Of several failures it is the first that counts."""
        pipe = self.carry()
        pipe.dataReceived(b"a")
        self.lose(pipe, ConnectionLost())
        self.threads.fail_write(CannotWrite("standard output", "broken pipe"))
        self.failureResultOf(self.carried, ConnectionWasReset)

    def test_not_connected(self) -> None:
        """A connection that does not come about in time is given up."""
        self.carry(timeout=5, connects=False)
        self.clock.advance(5)
        error = self.failureResultOf(self.carried, TimedOut).value
        assert isinstance(error, SockprotoError)
        self.assertIn("there", str(error))


class WhereTests(SynchronousTestCase):
    """HOST and PORT as `connect` takes them."""

    def test_numbers(self) -> None:
        """A port is a number; an IPv6 address needs no brackets."""
        for host, port, where in (
            ("example.com", "1", ("example.com", 1)),
            ("::1", "65535", ("::1", 65535)),
            ("[::1]", "80", ("::1", 80)),
        ):
            self.assertEqual(piping._where(host, port), where)

    def test_services(self) -> None:
        """Or a service's name, also where the system has no table of them."""

        def no_table(*_: object) -> int:
            raise OSError("service/proto not found")

        expected = {
            "smtp": 25,
            "ftp": 21,
            "pop3": 110,
            "imap": 143,
            "nntp": 119,
            "telnet": 23,
            "gopher": 70,
        }
        self.assertEqual(SERVICES, expected)
        self.patch(socket, "getservbyname", no_table)
        for name, number in expected.items():
            self.assertEqual(piping._where("h", name), ("h", number))
            self.assertEqual(piping._where("::1", name.upper()), ("::1", number))

    def test_table(self) -> None:
        """What the system's table has is taken, for TCP."""

        def table(name: str, kind: str) -> int:
            return {("finger", "tcp"): 79}[name, kind]

        self.patch(socket, "getservbyname", table)
        self.assertEqual(piping._where("h", "finger"), ("h", 79))

    def test_malformed(self) -> None:
        """What is neither is refused before anything is connected."""
        for host, port in (
            ("h", "nonsense"),
            ("h", ""),
            ("h", "0"),
            ("h", "65536"),
            ("h", "-1"),
            ("h", "+1"),
            ("h", "1.5"),
            ("h", "\xb2"),
            ("h", "\udcff"),
            ("h", "\u0663"),
            ("", "1"),
            ("::1::", "1"),
        ):
            self.assertRaises(AddressMalformed, piping._where, host, port)
