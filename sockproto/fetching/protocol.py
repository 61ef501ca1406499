"""
The protocol of one HTTP exchange, and who is told of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol as Structure

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from zope.interface import implementer

from sockproto.connecting import (
    ClientStream,
    Observer,
    ended_without_notice,
    fail_all,
)
from sockproto.errors import (
    ConnectionWasReset,
    PeerError,
    SockprotoError,
    TimedOut,
)
from sockproto.fetching.splicing import SMALLEST, Splicing, Told, splicing_from
from sockproto.reporting import describe_address
from sockproto.transports import buffered, innermost
from sockproto.wire.response import (
    BodyCame,
    HeadCame,
    InterimCame,
    ResponseEnded,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from sockproto.fetching.url import Url
    from sockproto.wire.exchange import Exchange

__all__ = ["FetchObserver", "FetchProtocol", "Sink"]

READ_SIZE = 120 * 1024
"""
Bytes of a read. With Twisted's 64 KiB, 1 GiB to a file took 1.5 s of CPU, not 1.2;
from 128 KiB on, glibc maps and unmaps memory for each.
"""


class Sink(Structure):
    """
    Takes a body as it comes. What a method raises ends the exchange.

    Where that is faster, one that has `splice(pipe, size)`, and where it is not None,
    is given up to 1 MiB at a time in a pipe, and takes them out of it, all of them
    (splice(2)). It counts where the class that has it is the one that has `write`.
    """

    def begin(self, head: HeadCame, /) -> None:
        """The head of the last response has come; the body follows."""

    def write(self, data: bytes, /) -> None:
        """The next bytes of the body."""


def _takes_pipes(sink: Sink | None) -> bool:
    """Tell whether it has `splice`, and no subclass that knows of `write` alone."""
    for kind in type(sink).__mro__:
        if "write" in vars(kind) or "splice" in vars(kind):
            return {"write", "splice"} <= vars(kind).keys() and getattr(
                sink, "splice", None
            ) is not None
    return False


class FetchObserver(Observer):
    """
    Is told what happens in an exchange too; each method does nothing.
    """

    def asked(self, url: Url, request: bytes) -> None:
        """This request is sent next, its body included."""

    def interim_came(self, interim: InterimCame) -> None:
        """A 1xx response came before the final one."""

    def head_came(self, head: HeadCame) -> None:
        """The head of a response came, which may be a redirect."""

    def redirected(self, url: Url) -> None:
        """The response is a redirect, and is followed to there."""

    def ended(self, end: ResponseEnded, behind: bytes) -> None:
        """The response is complete; these bytes came behind it, in one read."""


@implementer(IPushProducer)
class FetchProtocol(ClientStream):
    """
    Sends one request when it is connected, and reads the response to it.

    It can be paused, as any producer: then it does not read from the peer.

    Args:
        exchange: what is asked.
        begin: is given the head, and returns the sink of the body; None if the
            body is not wanted, and then the connection closes at once.
        clock: measures silence; needed only with the two timeouts.
        timeout: seconds of silence from the peer.
        handshake_timeout: seconds until TLS is agreed on.
        observer: is told what happens on the socket.

    Attributes:
        done: fires with the head when the response is complete. Cancelling it
            aborts the connection.
        trailers: fields behind a chunked body, once it is complete.
        local, peer: the addresses at both ends, once connected.
    """

    trailers: tuple[tuple[bytes, bytes], ...] = ()
    local = peer = ""

    def __init__(
        self,
        exchange: Exchange,
        begin: Callable[[HeadCame], Sink | None],
        *,
        clock: IReactorTime | None = None,
        timeout: float | None = None,
        handshake_timeout: float | None = None,
        observer: FetchObserver | None = None,
    ) -> None:
        super().__init__(observer)
        self._exchange = exchange
        self._begin = begin
        self._clock = clock
        self._timeout = timeout
        self._tells = observer or FetchObserver()
        self._silence: IDelayedCall | None = None
        self._waiting = 0  # bytes of the request, when silence was last looked at
        self._handshake_timeout = handshake_timeout
        self._handshake_deadline: IDelayedCall | None = None
        self._head: HeadCame | None = None
        self._sink: Sink | None = None
        self._complete = False
        self._paused = False
        self._handing_out = False
        self._sink_error: Exception | None = None
        self._splices = observer is None  # that is told each byte
        self._splicing: Splicing | None = None
        self.done: Deferred[HeadCame] = Deferred(self._cancelled)

    def _made(self) -> None:
        transport: Any = self.transport
        self.local = describe_address(transport.getHost())
        self.peer = describe_address(transport.getPeer())
        socket: Any = innermost(transport)
        if hasattr(socket, "bufferSize"):
            socket.bufferSize = READ_SIZE
        self._start_silence()
        if not self._in_handshake:
            self.send(self._exchange.request)
        elif self._clock is not None and self._handshake_timeout is not None:
            self._handshake_deadline = self._clock.callLater(
                self._handshake_timeout, self._handshake_timed_out
            )

    def _start_silence(self) -> None:
        if self._timeout is not None and self._clock is not None:
            self._silence = self._clock.callLater(self._timeout, self._timed_out)

    def _handshake_timed_out(self) -> None:
        self._handshake_deadline = None
        assert self._handshake_timeout is not None
        self.abort(TimedOut("the TLS handshake", self._handshake_timeout))

    def handshakeCompleted(self) -> None:
        self._stop_handshake_deadline()
        super().handshakeCompleted()
        if self._failure is None:
            self.send(self._exchange.request)

    def _stop_handshake_deadline(self) -> None:
        if self._handshake_deadline is not None:
            self._handshake_deadline.cancel()
            self._handshake_deadline = None

    def _stop_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _timed_out(self) -> None:
        self._silence = None
        assert self._timeout is not None
        left = buffered(self.transport)
        before = self._waiting or (len(self._exchange.request) if left else 0)
        self._waiting = left
        if self._complete:
            self.transport.abortConnection()
        elif left < before:
            # It takes the request, and need not speak before it has all of it.
            self._start_silence()
        else:
            self.abort(TimedOut("the next byte of the response", self._timeout))

    def _received(self, data: bytes) -> None:
        if self._silence is not None and self._timeout is not None:
            self._silence.reset(self._timeout)
        self._exchange.receive_data(data)
        self._hand_out()
        if self._splices and self._exchange.plain_left >= SMALLEST:
            self._splice()

    # In the kernel, what needs not be read

    def _splice(self) -> None:
        if self._paused or self._failure is not None:
            return
        if _takes_pipes(self._sink):
            told = Told(
                lambda: self._exchange.plain_left,
                self._spliced,
                self._spliced_to_the_end,
                self._not_spliced,
                self._lost_while_spliced,
            )
            self._splicing = splicing_from(self.transport, told)
        if self._splicing is None:
            self._splices = False
        else:
            self.transport.pauseProducing()
            self._splicing.resume()

    def _spliced(self, pipe: int, size: int) -> None:
        self.bytes_received += size
        if self._silence is not None and self._timeout is not None:
            self._silence.reset(self._timeout)
        sink: Any = self._sink
        try:
            sink.splice(pipe, size)
        except Exception as error:  # noqa: BLE001 - a sink is anybody's code
            self._refused(error)
            return
        self._exchange.skip(size)
        if not self._exchange.plain_left:
            self._stop_splicing()
            self._hand_out()
            if not (self._complete or self._paused or self._failure):
                self.transport.resumeProducing()  # it was but a chunk

    def _spliced_to_the_end(self, error: SockprotoError | None) -> None:
        self._stop_splicing()
        if error is not None:
            self.abort(error)
        else:
            self.transport.resumeProducing()  # so it sees the end

    def _not_spliced(self) -> None:
        self._splices = False
        self._stop_splicing()
        self.transport.resumeProducing()

    def _lost_while_spliced(self, reason: Failure) -> None:
        # It was paused, and so the reactor does not tell it.
        transport: Any = self.transport
        self._stop_splicing()
        transport.connectionLost(reason)

    def _stop_splicing(self) -> None:
        if self._splicing is not None:
            self._splicing.close()
            self._splicing = None

    def _peer_ended(self) -> None:
        self._take_end()
        self.transport.loseConnection()

    def _take_end(self) -> None:
        self._paused = False  # what is left is one read at most
        self._exchange.receive_eof()
        self._hand_out()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Read no more, for now; that silence is not the peer's."""
        # Once the input has ended, nothing is left to hold back but one read.
        if not self._complete and not self._input_ended and self._failure is None:
            self._paused = True
            self._stop_silence()
            if self._splicing is not None:
                self._splicing.pause()
            else:
                self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        over = self.ended is not None or self._failure is not None
        if self._paused and not self._complete and not over:
            self._paused = False
            self._start_silence()
            if self._splicing is not None:
                self._splicing.resume()
            else:
                self.transport.resumeProducing()
                self._hand_out()

    def stopProducing(self) -> None:
        """The body is not wanted any more: abort."""
        self.abort(ConnectionWasReset("its body is not wanted any more"))

    def _hand_out(self) -> None:
        if self._complete or self._handing_out:
            return
        self._handing_out = True
        try:
            while not self._paused and self._failure is None:
                event = self._exchange.next_event()
                if event is None:
                    break
                if isinstance(event, BodyCame):
                    assert self._sink is not None, "its head comes first"
                    self._sink.write(event.data)
                elif self._take(event):
                    break
        except Exception as error:  # noqa: BLE001 - a sink is anybody's code
            self._refused(error)
        finally:
            self._handing_out = False

    def _refused(self, error: Exception) -> None:
        if not isinstance(error, SockprotoError):
            self._sink_error = error
            error = ConnectionWasReset("its body was refused at this end")
        self.abort(error)

    def _take(self, event: HeadCame | InterimCame | ResponseEnded) -> bool:
        """Take all but the body; whether that was the last of it."""
        if isinstance(event, InterimCame):
            self._tell(self._tells.interim_came, event)
            return False
        if isinstance(event, HeadCame):
            self._head = event
            self._tell(self._tells.head_came, event)
            self._sink = self._begin(event)
            if self._sink is not None:
                return False
            event = ResponseEnded()
        else:
            self._tell(self._tells.ended, event, self._exchange.behind)
        self._end(event)
        return True

    def _end(self, end: ResponseEnded) -> None:
        self._complete = True
        self.trailers = end.trailers
        if buffered(self.transport):
            # Who has answered need not read the rest of the request.
            self.transport.abortConnection()
            return
        self.transport.loseConnection()
        # TLS would wait for a close_notify that may never come.
        innermost(self.transport).loseConnection()

    def _shortfall(self) -> PeerError | None:
        if self._complete:
            return None
        return ConnectionWasReset("it ended before the response did")

    def abort(self, error: SockprotoError | None = None) -> None:
        self._stop_splicing()
        super().abort(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_splicing()
        self._stop_silence()
        self._stop_handshake_deadline()
        if not (self._input_ended or self._failure or self._in_handshake):
            self._take_end_from(reason)
        super().connectionLost(reason)
        if self._complete and not self.done.called:
            assert self._head is not None
            self.done.callback(self._head)

    def _take_end_from(self, reason: Failure) -> None:
        """
        Take the loss of a connection that has no half-close for the end of input.

        TLS that ends without close_notify may have been cut by anybody: it ends
        only a body that has another end of its own (RFC 9112, section 9.8).
        """
        self._input_ended = True
        cut = ended_without_notice(reason) and self.bytes_received > 0
        if reason.check(ConnectionDone) or (
            cut and (self._head is None or self._head.self_delimiting)
        ):
            self._take_end()

    def _loss_error(self, reason: Failure) -> SockprotoError | None:
        return None if self._complete else super()._loss_error(reason)

    def _over(self, error: SockprotoError) -> None:
        fail_all([self.done], self._sink_error or error)
