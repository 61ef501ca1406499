"""
The protocol of one HTTP exchange, and the function that makes one from a URL.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol as Structure

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone

from sockproto.checks import seconds, whole_number
from sockproto.connecting import (
    ClientStream,
    Host,
    connect,
    ended_without_notice,
    fail_all,
    within,
)
from sockproto.errors import (
    ConnectionWasReset,
    HeaderNotSendable,
    PeerError,
    SettingError,
    SockprotoError,
    TimedOut,
    TooLarge,
)
from sockproto.fetching.saving import Saving
from sockproto.fetching.url import Url
from sockproto.reporting import describe_address
from sockproto.transports import innermost
from sockproto.version import __version__
from sockproto.wire.exchange import BodyCame, Exchange, HeadCame, ResponseEnded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from sockproto.connecting import Observer

__all__ = ["FetchProtocol", "Response", "Sink", "fetch"]

LARGEST_BODY_IN_MEMORY = 16 * 1024 * 1024
"""Bytes; give a place or a sink for what may be larger."""

Header = tuple[str, str] | tuple[bytes, bytes]


class Sink(Structure):
    """
    Takes a body as it comes. What a method raises ends the exchange.
    """

    def begin(self, head: HeadCame, /) -> None:
        """The head has come; the body follows."""

    def write(self, data: bytes, /) -> None:
        """The next bytes of the body."""


@dataclass(frozen=True, slots=True)
class Response:
    """
    A response, complete and as it came.

    Attributes:
        version: `1.1` or `1.0`.
        status, reason: of the status line.
        headers: names and values as received, in order.
        head: the head's exact bytes, the empty line at its end included.
        body: its bytes, the framing taken off; None where a sink took them.
        place: the file that has the body; None where there is none.
        local, peer: the addresses at both ends, spelled `HOST:PORT`.
    """

    version: str
    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...]
    head: bytes
    body: bytes | None
    place: str | None
    local: str
    peer: str


class _InMemory:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.body = bytearray()

    def begin(self, head: HeadCame) -> None:
        if head.length is not None and head.length > self._limit:
            raise TooLarge(self._limit)

    def write(self, data: bytes) -> None:
        self.body += data
        if len(self.body) > self._limit:
            raise TooLarge(self._limit)


class FetchProtocol(ClientStream):
    """
    Sends one request when it is connected, and reads the response to it.

    Args:
        exchange: what is asked.
        sink: takes the body.
        clock: measures silence; needed only with `timeout`.
        timeout: seconds of silence from the peer.
        observer: is told what happens on the socket.

    Attributes:
        done: fires with the head when the response is complete. Cancelling it
            aborts the connection.
        local, peer: the addresses at both ends, once connected.
    """

    def __init__(
        self,
        exchange: Exchange,
        sink: Sink,
        *,
        clock: IReactorTime | None = None,
        timeout: float | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(observer)
        self._exchange = exchange
        self._sink = sink
        self._clock = clock
        self._timeout = timeout
        self._silence: IDelayedCall | None = None
        self._head: HeadCame | None = None
        self._complete = False
        self._sink_error: Exception | None = None
        self.done: Deferred[HeadCame] = Deferred(self._cancelled)
        self.local = self.peer = ""

    def _made(self) -> None:
        transport: Any = self.transport
        self.local = describe_address(transport.getHost())
        self.peer = describe_address(transport.getPeer())
        if self._timeout is not None and self._clock is not None:
            self._silence = self._clock.callLater(self._timeout, self._timed_out)
        self.send(self._exchange.request)

    def _timed_out(self) -> None:
        self._silence = None
        assert self._timeout is not None
        if self._complete:
            self.transport.abortConnection()
            return
        self.abort(TimedOut("the next byte of the response", self._timeout))

    def _received(self, data: bytes) -> None:
        if self._silence is not None and self._timeout is not None:
            self._silence.reset(self._timeout)
        self._exchange.receive_data(data)
        self._hand_out()

    def _peer_ended(self) -> None:
        self._exchange.receive_eof()
        self._hand_out()
        self.transport.loseConnection()

    def _hand_out(self) -> None:
        if self._complete:
            return
        try:
            while (event := self._exchange.next_event()) is not None:
                if isinstance(event, BodyCame):
                    self._sink.write(event.data)
                elif isinstance(event, HeadCame):
                    self._head = event
                    self._sink.begin(event)
                elif isinstance(event, ResponseEnded):
                    self._complete = True
                    self.transport.loseConnection()
                    # TLS would wait for a close_notify that may never come.
                    innermost(self.transport).loseConnection()
        except SockprotoError as error:
            self.abort(error)
        except Exception as error:  # noqa: BLE001 - a sink is anybody's code
            self._sink_error = error
            self.abort(ConnectionWasReset("its body was refused at this end"))

    def _shortfall(self) -> PeerError | None:
        if self._complete:
            return None
        return ConnectionWasReset("it ended before the response did")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if not self._input_ended and self._failure is None:
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
            self._exchange.receive_eof()
            self._hand_out()

    def _loss_error(self, reason: Failure) -> SockprotoError | None:
        return None if self._complete else super()._loss_error(reason)

    def _over(self, error: SockprotoError) -> None:
        fail_all([self.done], self._sink_error or error)


def _request_headers(url: Url, headers: Sequence[Header]) -> list[tuple[bytes, bytes]]:
    own = [(_field(name), _field(value)) for name, value in headers]
    given = {name.lower() for name, _ in own}
    usual = [
        (b"Host", url.authority.encode("ascii")),
        (b"User-Agent", f"sockproto/{__version__}".encode("ascii")),
        (b"Accept", b"*/*"),
        (b"Connection", b"close"),
    ]
    # Host comes first (RFC 9110, section 7.2); one's own takes its place.
    hosts = [field for field in own if field[0].lower() == b"host"]
    others = [field for field in own if field[0].lower() != b"host"]
    usual = [field for field in usual if field[0].lower() not in given]
    return hosts + usual + others


def _field(text: str | bytes) -> bytes:
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogateescape")
    if any(byte in text for byte in b"\r\n\0"):
        raise HeaderNotSendable(f"{text!r} holds a line end or a NUL")
    return text.strip(b" \t")


def fetch(
    reactor: Any,
    url: str,
    *,
    headers: Sequence[Header] = (),
    to: str | os.PathLike[str] | Sink | None = None,
    timeout: float | None = None,
    max_body: int = LARGEST_BODY_IN_MEMORY,
    family: int | None = None,
    trust_root: Any = None,
    observer: Observer | None = None,
) -> Deferred[Response]:
    """
    GET a URL over HTTP/1.1; fires when the response is complete.

    One request is sent, with `Connection: close`; redirects are not followed,
    and a status of 400 or more is no error. Cancelling closes the connection.

    Args:
        reactor: connects, resolves, measures.
        url: http or https (RFC 3986).
        headers: of the request; one's own `Host`, `User-Agent`, `Accept` or
            `Connection` takes the place of ours.
        to: where the body goes: a file, which is replaced once the body is
            complete, or a `Sink`. By default it is kept in memory.
        timeout: seconds of silence from the peer, while connecting too.
        max_body: bytes of a body that is kept in memory.
        family: 4 or 6, to take only addresses of that family.
        trust_root: an `IOpenSSLTrustRoot` for https; the system's by default.
        observer: is told what happens on the socket.

    Raises:
        UrlMalformed, SchemeNotSupported, HeaderNotSendable, SettingError: nothing
            was sent.

    Errors:
        NameNotResolved, NotConnected, TimedOut: no connection, or silence.
        HandshakeFailed, CertificateRefused: TLS; nothing was sent.
        NothingCame, HeadMalformed, BodyMalformed, BodyCutShort,
        ConnectionWasReset: what came is no whole response.
        TooLarge: it is above `max_body`.
        CannotWrite: the file does not take it.
    """
    if family not in {None, 4, 6}:
        raise SettingError("family", family, "4 or 6")
    if timeout is not None:
        timeout = seconds("timeout", timeout, above_zero=True)
    whole_number("max_body", max_body, 0, sys.maxsize)
    asked = Url.parse(url)
    request_headers = _request_headers(asked, headers)
    exchange = Exchange(asked.target.encode("ascii"), request_headers)
    memory: _InMemory | None = None
    saving: Saving | None = None
    sink: Sink
    if to is None:
        sink = memory = _InMemory(max_body)
    elif isinstance(to, str | os.PathLike):
        sink = saving = Saving(to, replace=True)
    else:
        sink = to

    async def exchanged() -> Response:
        endpoint: Any = Host(
            reactor, asked.host, asked.port, family=family, observer=observer
        )
        if asked.scheme == "https":
            from sockproto.tls import secured

            endpoint = secured(endpoint, asked.host, trust_root=trust_root)
        connecting = connect(
            endpoint,
            lambda: FetchProtocol(
                exchange, sink, clock=reactor, timeout=timeout, observer=observer
            ),
        )
        if timeout is not None:
            connecting = within(reactor, connecting, timeout, f"a connection to {url}")
        protocol = await connecting
        try:
            head = await protocol.done
            place = saving.complete() if saving is not None else None
        except BaseException:
            if saving is not None:
                saving.give_up()
            raise
        return Response(
            head.version,
            head.status,
            head.reason,
            head.headers,
            head.raw,
            bytes(memory.body) if memory is not None else None,
            place,
            protocol.local,
            protocol.peer,
        )

    return Deferred.fromCoroutine(exchanged())
