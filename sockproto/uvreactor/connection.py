"""
A connection whose transport is uvloop's.

Theory of operation. A `Connection` is a protocol to uvloop and a transport to
Twisted's protocol. It is in nobody's way: `write` is a call of the method of uvloop's
transport, and what uvloop reads goes to the Twisted protocol through one call that
sets the log's context; neither is there for a protocol that says that it needs none
(`ISteadyReceiver`). What uvloop does at once and Twisted at the reactor's next turn,
ending a connection or a direction of it, is put off to that turn, so that what is
written in between is still sent.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    ILoggingContext,
    IPushProducer,
    ISSLTransport,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from sockproto.interfaces import ISteadyReceiver
from sockproto.uvreactor.naming import Logged, address_of
from sockproto.uvreactor.views import BorrowedSocket, InPieces, UnderTLS, joined

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.address import IPv4Address, IPv6Address
    from twisted.internet.interfaces import IProtocol

    from sockproto.interfaces import Writer
    from sockproto.uvreactor.accepting import AcceptingPort
    from sockproto.uvreactor.reactor import UvloopReactor

__all__ = ["BUFFER_SIZE", "NOBODY", "Connection"]

BUFFER_SIZE = 65_536
"""Bytes unsent above which a producer is paused; it goes on when all are sent."""

DONE = Failure(ConnectionDone())
LOST = Failure(ConnectionLost())
"""Why a connection ended, as Twisted shares them among its transports."""

NO_LINGERING = struct.pack("ii", 1, 0)
"""For SO_LINGER (socket(7)): a close is a reset."""

NOBODY = Protocol()
"""Stands where no protocol is yet, and hears nothing."""


def _ignore(data: object) -> None:
    """Stand where `write` was."""


@implementer(
    IConsumer,
    IHalfCloseableDescriptor,
    ILoggingContext,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
class Connection(Logged):
    """
    One connection, accepted or made; over TCP, unless a subclass says otherwise.

    What is rare is no slot, but an attribute of the class until it happens.
    """

    __slots__ = (
        "TLS",
        "__dict__",
        "__weakref__",
        "_borrowed",
        "_buffer_size",
        "_full",
        "_held",
        "_metered",
        "_out",
        "_protocol",
        "_reading",
        "_reason",
        "_steady",
        "_uv",
        "_write_disconnecting",
        "connected",
        "data_received",
        "disconnected",
        "disconnecting",
        "producer",
        "reactor",
        "server",
        "streamingProducer",
    )

    no_delay = True
    """Whether it has TCP_NODELAY, as far as we know; uvloop sets it."""

    _aborting = False
    _asks_to_be_told = False
    _awaits_producer = False
    _ending_input = False  # its protocol is being told so
    _held_end = False
    _input_ended = False
    _producer_paused = False
    _pulling = False
    _spent = 0  # bytes that a producer has written in this turn
    _under_tls: UnderTLS
    _was: type = Protocol  # whose it was
    _write_disconnected = False

    _client_of_tls: bool

    def __init__(
        self, reactor: UvloopReactor, server: AcceptingPort | None = None
    ) -> None:
        self.reactor = reactor
        self.server = server
        self.TLS = False
        self.connected = 0
        self.disconnected = False
        self.disconnecting = False
        self.producer: Any = None
        self.streamingProducer = False
        self.data_received = self._receive
        self._borrowed: BorrowedSocket | None = None
        self._buffer_size = BUFFER_SIZE
        self._full = False  # of what is unsent
        self._held: bytes | None = None
        self._metered = False  # writes are counted for a producer
        self._out: Any = _ignore
        self._protocol: Any = NOBODY
        self._reading = True
        self._reason: Failure | None = None
        self._steady = False
        self._write_disconnecting = False

    # To uvloop we are the protocol (asyncio.Protocol)

    def connection_made(self, uv: Any) -> None:
        self._uv = uv
        reactor = self.reactor
        reactor.kept.add(self)
        self.connected = 1
        self._out = uv.write
        reactor.something_is_due = False
        contexts = reactor.log_contexts
        contexts.append(self.server or self)
        try:
            protocol: Any = self._build()
            if protocol is None:
                self.disconnecting = True
                uv.abort()
            else:
                self._protocol = protocol
                self._steady = ISteadyReceiver.providedBy(protocol)
                protocol.makeConnection(self)
                if self._steady:
                    # It may be another by now.
                    self._protocol.write_to(self._writer)
                    self._hear()
        except BaseException:
            self._could_not_make(Failure())
        finally:
            contexts.pop()
        if reactor.something_is_due:
            reactor.call_what_is_due()
        held = self.disconnecting or not self._reading
        if held and self.connected and self._protocol is not NOBODY:
            self._hold_back()

    def _could_not_make(self, reason: Failure) -> None:
        self.failed(reason)

    def _build(self) -> IProtocol | None:
        """Build the protocol, if one is wanted."""
        raise NotImplementedError

    def _peer_name(self) -> Any:
        """What the socket calls its peer."""
        raise NotImplementedError

    def _hear(self) -> None:
        """Have uvloop call whoever is to be called now: it keeps the method."""
        if self._held is not None:
            self.data_received = self._hold
        elif self._steady:
            self.data_received = self._protocol.dataReceived
        else:
            self.data_received = self._receive
        small = self._buffer_size < BUFFER_SIZE
        self._uv.set_protocol(InPieces(self, self._buffer_size) if small else self)

    @property
    def bufferSize(self) -> int:
        """
        Bytes of the largest read, if it is set below 64 KiB; uvloop's are of 256,000.

        It is also what a producer may write in a turn.
        """
        return self._buffer_size

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self._buffer_size = size
        if self.connected:
            self._hear()

    def _receive(self, data: bytes) -> None:
        contexts = self.reactor.log_contexts
        contexts.append(self)
        try:
            self._protocol.dataReceived(data)
        except BaseException:
            self.failed(Failure())
        finally:
            contexts.pop()

    def eof_received(self) -> bool:
        if self._held is not None:
            self._held_end = True
            return True
        protocol = self._protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            self._input_ended = self._ending_input = True
            if self._steady:
                try:
                    protocol.readConnectionLost()
                except BaseException:
                    self.failed(Failure())
            else:
                self._tell(protocol.readConnectionLost)
            self._ending_input = False
            # Who closed it meanwhile had this turn to write; uvloop sends it all.
            return not self.disconnecting or (
                self.producer is not None and self._waits_for_producer()
            )
        self._put_write(_ignore)
        self._uv.abort()
        return True  # uvloop need not close it

    # Whose protocol has paused it before uvloop began to read, which that does then
    # all the same: what comes, and no more than a read, waits until it is resumed.

    def _hold_back(self) -> None:
        self._held = b""
        self._hear()
        self._soon(self._pause_if_held)

    def _hold(self, data: bytes) -> None:
        self._held = (self._held or b"") + data
        self._uv.pause_reading()

    def _pause_if_held(self) -> None:
        if self._held is not None:
            self._uv.pause_reading()

    def _release(self) -> None:
        held = self._held
        if held is None or not self.reads:
            return
        self._held = None
        self._hear()
        if held:
            self._tell(self._protocol.dataReceived, held)
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        if not self._held_end:
            if self.reads:
                self._uv.resume_reading()
        elif self.reads:
            self._held_end = False
            self._end_input()
        else:
            self._held = b""

    def pause_writing(self) -> None:
        self._full = True
        if not self._asks_to_be_told:
            self._pause_producer()

    def resume_writing(self) -> None:
        self._full = False
        if self.streamingProducer and not self._uv.is_closing():
            self._uv.set_write_buffer_limits(BUFFER_SIZE, 0)
        if not self._resume_producer():
            self._go_on_ending()

    def connection_lost(self, exception: BaseException | None) -> None:
        if self.disconnected:
            return
        reason = self._reason
        if reason is None:
            if exception is None:
                reason = DONE
            elif exception.__traceback__ is not None:
                # A steady receiver's own `OSError`; of others uvloop complains.
                reason = Failure(exception, type(exception), exception.__traceback__)
                log.err(reason)
            elif isinstance(exception, BrokenPipeError):
                reason = self._hear_the_rest()
            else:
                reason = LOST
        self.connectionLost(reason)

    def _hear_the_rest(self) -> Failure:
        """
        Read what a peer had sent that has closed, and so refuses what we write.

        Returns:
            Why the connection is lost: it was closed, if that was to be read, too.
        """
        descriptor = self._uv.get_extra_info("socket").fileno()
        while self.reads and self._held is None and self._reason is None:
            try:
                data = os.read(descriptor, BUFFER_SIZE)
            except OSError:
                break
            if not data:
                if not IHalfCloseableProtocol.providedBy(self._protocol):
                    return DONE
                self.eof_received()
                break
            try:
                self.data_received(data)
            except BaseException:
                self.failed(Failure())
        return self._reason or LOST

    def connectionLost(self, reason: Failure) -> None:
        """
        End it at once, and tell the protocol why; the reactor does so at its end.
        """
        if self.disconnected:
            return
        self.disconnected = True
        self.connected = 0
        if self.TLS:
            self._put_write(_ignore)
        else:
            self._out = _ignore  # a steady receiver writes no more
        if self._borrowed is not None:
            self._give_back_socket()
        self._uv.abort()
        self.reactor.kept.discard(self)
        producer, self.producer = self.producer, None
        if producer is not None:
            self._tell(producer.stopProducing)
        protocol = self._protocol
        if self._steady:
            try:
                protocol.connectionLost(reason)
            except BaseException:
                self.failed(Failure())
        else:
            self._tell(protocol.connectionLost, reason)
        # It is not held any more, nor are we by ourselves: no garbage is left.
        self._was = type(protocol)
        self._protocol = NOBODY
        self._steady = False
        self.data_received = _ignore

    def _prefix(self) -> str:
        """How the log names the protocol, or that which it was."""
        protocol = self._protocol
        if protocol is NOBODY:
            return self._was.__name__
        if ILoggingContext.providedBy(protocol):
            return protocol.logPrefix()
        return type(protocol).__name__

    def _tell(self, told: Any, *args: object) -> None:
        """Call the protocol's side; what it raises ends the connection."""
        contexts = self.reactor.log_contexts
        contexts.append(self)
        try:
            told(*args)
        except BaseException:
            self.failed(Failure())
        finally:
            contexts.pop()

    def failed(self, reason: Failure) -> None:
        """Log what a protocol raised, and end the connection for it."""
        log.err(reason)
        if not self.disconnected:
            self._reason = reason
            self._put_write(_ignore)
            self._uv.abort()

    # To the protocol we are the transport

    @property
    def protocol(self) -> Any:
        """Who is told what comes; another may take over. None has it after the loss."""
        if self.disconnected and self._protocol is NOBODY:
            raise AttributeError("protocol")
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: Any) -> None:
        before = self._protocol
        if self._steady and before is not protocol:
            # Nobody tells it any more when that changes.
            self._tell(before.write_to, self)
        self._protocol = protocol
        self._steady = ISteadyReceiver.providedBy(protocol)
        if self.connected:
            if self._steady:
                self._tell(protocol.write_to, self._writer)
            self._hear()
            if not self._reading:
                self._uv.pause_reading()

    @property
    def socket(self) -> socket.socket:
        """The socket, for its options; uvloop reads it and writes to it."""
        if self._borrowed is None:
            if not self.connected:
                raise AttributeError("socket")
            uvs = self._uv.get_extra_info("socket")
            self._borrowed = BorrowedSocket(uvs.family, uvs.type, 0, uvs.fileno())
            self._borrowed.connection = self
        return self._borrowed

    def _give_back_socket(self) -> None:
        assert self._borrowed is not None
        self._borrowed.detach()
        self._borrowed = None

    def let_go(self) -> None:
        """Close the descriptor, which another may have a copy of; tell nobody."""
        if self.connected:
            self.connected = 0
            self.disconnected = True
            self._put_write(_ignore)
            if self._borrowed is not None:
                self._give_back_socket()
            self._uv.abort()
            self.reactor.kept.discard(self)

    def getHandle(self) -> Any:
        return self.socket

    def fileno(self) -> int:
        """The descriptor's number; -1 once it is closed."""
        return self.socket.fileno() if self.connected else -1

    def getHost(self) -> IPv4Address | IPv6Address:
        return address_of(self._uv.get_extra_info("sockname"))

    def getPeer(self) -> IPv4Address | IPv6Address:
        return address_of(self._peer_name())

    def getTcpNoDelay(self) -> bool:
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        if enabled and self.no_delay:
            return
        self.no_delay = bool(enabled)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def write(self, data: bytes) -> None:
        if data.__class__ is not bytes:
            data = joined((data,))  # uvloop would keep what may change
        self._out(data)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        self._out(joined(pieces))

    @property
    def _writer(self) -> Writer:
        """What a steady receiver writes to: uvloop's transport, if it can be."""
        before = self._metered or self.TLS or self._out is _ignore
        return self if before else cast("Writer", self._uv)

    @property
    def logstr(self) -> str:
        """As Twisted's transports have it."""
        return self.logPrefix()

    def get_write_buffer_size(self) -> int:
        """Bytes that were written and that the kernel has not taken yet."""
        return self._uv.get_write_buffer_size() if self.connected else 0

    # Ends

    def stopProducing(self) -> None:
        self.loseConnection()

    def stopConsuming(self) -> None:
        self.unregisterProducer()
        self.loseConnection()

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._awaits_producer = False
            if not self._ending_input:  # it has its turn
                self._uv.pause_reading()
                self._soon(self._close)

    def _go_on_ending(self) -> None:
        if self.disconnecting:
            self._soon(self._close)
        elif self._write_disconnecting:
            self._soon(self._end_writing)

    def _close(self) -> None:
        if self.disconnected:
            return
        if self._waits_for_producer():
            self._resume_if_all_is_sent()
        else:
            self._uv.close()  # when all is sent

    def loseWriteConnection(self) -> None:
        if self.connected and not self._write_disconnecting:
            self._write_disconnecting = True
            self._awaits_producer = False
            self._soon(self._end_writing)

    def _end_writing(self) -> None:
        if not self.connected or self._write_disconnected or self._uv.is_closing():
            return
        if self._waits_for_producer():
            self._resume_if_all_is_sent()
            return
        if self._tell_when_sent():
            return
        self._write_disconnected = True
        self._put_write(_ignore)
        self._uv.write_eof()
        protocol = self._protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            self._tell(protocol.writeConnectionLost)

    def abortConnection(self) -> None:
        if self.disconnected or self._aborting or not self.connected:
            return
        self._aborting = True
        self._reason = Failure(ConnectionAborted())
        self._put_write(_ignore)
        self._reset()
        # Not `abort`, if a close is on its way already: that has its turn then.
        self._uv.abort()

    def _reset(self) -> None:
        with suppress(OSError):  # the peer was first
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGERING)

    def _soon(self, call: Any) -> None:
        self.reactor.loop.call_soon(call)

    def readConnectionLost(self, reason: Failure) -> None:
        """As `IHalfCloseableDescriptor` has it; uvloop calls `eof_received`."""
        self._end_input()

    def _end_input(self) -> None:
        if not self.eof_received():
            self._uv.close()

    def writeConnectionLost(self, reason: Failure) -> None:
        """As `IHalfCloseableDescriptor` has it."""
        self.connectionLost(reason)

    # Producers

    def pauseProducing(self) -> None:
        if self.connected:
            self._reading = False
            self._uv.pause_reading()

    def stopReading(self) -> None:
        self.pauseProducing()

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self._reading = True
            if self._held is not None:
                self._soon(self._release)
            elif not self._input_ended:
                self._uv.resume_reading()

    def startReading(self) -> None:
        self.resumeProducing()

    @property
    def reads(self) -> bool:
        """Whether it is listened to."""
        return bool(
            self._reading
            and self.connected
            and not self.disconnecting
            and not self._input_ended
        )

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(
                f"{producer!r} was registered as producer, where {self.producer!r} is"
                " still; unregister it first"
            )
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        self._producer_paused = self._awaits_producer = False
        if not streaming:
            # It is asked for more when all that it wrote is sent.
            self._uv.set_write_buffer_limits(0, 0)
            self._metered = True
            self._put_write(self._write_pulled)
            self._pull()
        elif not self._steady:
            self._metered = True
            self._put_write(self._write_counted)
        if self._full and self._steady:
            self._pause_producer()  # its writes are not counted

    def unregisterProducer(self) -> None:
        if self.producer is None:
            return
        self.producer = None
        if not self.connected or self._reason is not None:
            return
        if self._metered:
            self._metered = False
            self._put_write(self._uv.write)
        if not self.streamingProducer and not self._uv.is_closing():
            self._uv.set_write_buffer_limits(BUFFER_SIZE, 0)
        if self.disconnecting or self._write_disconnecting:
            self._go_on_ending()

    def _waits_for_producer(self) -> bool:
        """Tell whether a close waits for it: for one that could write it does not."""
        if self._write_disconnected:
            return False
        return self.producer is not None and (
            not self.streamingProducer or self._producer_paused or self._awaits_producer
        )

    def _pause_producer(self) -> None:
        if self.producer is None or not self.streamingProducer:
            return
        if not self._producer_paused:
            self._producer_paused = True
            self._tell(self.producer.pauseProducing)

    def pause_producer_until_sent(self) -> None:
        """Pause a push producer until all is sent: what is now, or the next write."""
        if self.producer is not None and self.streamingProducer:
            self._producer_paused = True
            self._tell(self.producer.pauseProducing)  # as often as it is asked for
            self._tell_when_sent()

    def _tell_when_sent(self) -> bool:
        """Have uvloop call `resume_writing` then; False if nothing is unsent."""
        unsent = self.get_write_buffer_size() > 0
        if unsent and not self._uv.is_closing():
            self._asks_to_be_told = True
            self._uv.set_write_buffer_limits(0, 0)
            self._asks_to_be_told = False
        return unsent

    def go_on_closing(self) -> None:
        """Go on with a close that waits for a producer's next write: it has none."""
        self._awaits_producer = False
        self._go_on_ending()

    def _resume_if_all_is_sent(self) -> None:
        """For one that was paused when nothing was unsent: there is no event for it."""
        if self._producer_paused and not self.get_write_buffer_size():
            self._resume_producer()

    def _resume_producer(self) -> bool:
        """Let it go on; False if there is none that waits for it."""
        if self.producer is None or self._full or self._spent > self.bufferSize:
            return False
        if not self.streamingProducer:
            self._pull()
        elif self._producer_paused:
            self._producer_paused = False
            self._awaits_producer = not self._steady  # to write
            self._tell(self.producer.resumeProducing)
        else:
            return False
        return True

    def _write_counted(self, data: bytes) -> None:
        """
        Write for a producer that may go on until it is paused.

        The kernel of a fast reader would take all that it has, and nobody else
        would have their turn.
        """
        self._uv.write(data)
        self._awaits_producer = False
        if not self._spent:
            self._soon(self._turn_over)
        self._spent += len(data)
        if self._full or self._spent > self.bufferSize:
            self._pause_producer()

    def _turn_over(self) -> None:
        self._spent = 0
        if self._producer_paused and not self._full and self._tell_when_sent():
            return
        if not self._resume_producer():
            self._go_on_ending()

    def _write_pulled(self, data: bytes) -> None:
        self._uv.write(data)
        if not (self._pulling or self._full):
            self._pulling = True
            self._soon(self._pull)

    def _pull(self) -> None:
        self._pulling = False
        if self.producer is not None and not self.streamingProducer and not self._full:
            self._tell(self.producer.resumeProducing)

    # TLS

    def startTLS(self, context_factory: Any, normal: bool = True) -> None:
        """
        Go on under TLS, as `ITLSTransport` has it.
        """
        client = self._client_of_tls is bool(normal)
        producer, streaming = self.producer, self.streamingProducer
        if producer is not None:
            self.unregisterProducer()
        nothing: Any = None  # it is to build no protocol
        factory = TLSMemoryBIOFactory(context_factory, client, nothing)
        above: Any = factory.protocol(factory, self._protocol, False)
        under = UnderTLS(self, self._out)
        self._under_tls = under
        self.protocol = above
        self.TLS = True
        self._out = above.write
        vars(self).update(
            getHandle=above.getHandle,
            getPeerCertificate=above.getPeerCertificate,
            loseConnection=partial(self._lose_connection_over_tls, above),
            registerProducer=above.registerProducer,
            unregisterProducer=above.unregisterProducer,
        )
        directlyProvides(self, ISSLTransport)
        above.makeConnection(under)
        if producer is not None:
            self.registerProducer(producer, streaming)

    def _lose_connection_over_tls(self, above: Any) -> None:
        if self.connected and not self.disconnecting:
            above.loseConnection()

    def _put_write(self, write: Any) -> None:
        if self._write_disconnected:
            write = _ignore
        if self.TLS:
            self._under_tls.write = write
            if self.disconnected:
                self._out = _ignore
        else:
            self._out = write
            if self._steady and self.connected and self._reason is None:
                self._tell(self._protocol.write_to, self._writer)
