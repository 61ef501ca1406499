"""
The function that fetches a URL: connections, redirects, and where the body goes.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IConsumer

from sockproto.checks import seconds, whole_number
from sockproto.connecting import (
    CONNECT_SECONDS,
    Host,
    connect,
    within,
)
from sockproto.errors import (
    SettingError,
    TooLarge,
    TooManyRedirects,
)
from sockproto.fetching.asking import Asking, Header
from sockproto.fetching.protocol import FetchObserver, FetchProtocol, Sink
from sockproto.fetching.saving import Saving
from sockproto.fetching.url import Url
from sockproto.wire.coding import LARGEST_DECODED
from sockproto.wire.exchange import Exchange
from sockproto.wire.request import method_of
from sockproto.wire.response import (
    DEFAULT_LIMITS,
    BodyFraming,
    HeadCame,
    Limits,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


__all__ = ["Response", "fetch"]

LARGEST_BODY_IN_MEMORY = 16 * 1024 * 1024
"""Bytes; give a place or a sink for what may be larger."""

MOST_REDIRECTS = 20


@dataclass(frozen=True, slots=True)
class Response:
    """
    A response, complete and as it came.

    Attributes:
        version: `1.1` or `1.0`.
        status, reason: of the status line.
        headers: names and values as received, in order.
        head: the head's exact bytes, the empty line at its end included.
        trailers: fields behind a chunked body.
        body: its bytes, the framing taken off; None where a sink took them.
        place: the file that has the body; None where there is none.
        url: that of the last request, without user information.
        redirects: the URLs before it.
        local, peer: the addresses at both ends, spelled `HOST:PORT`.
    """

    version: str
    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...]
    head: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    body: bytes | None
    place: str | None
    url: str
    redirects: tuple[str, ...]
    local: str
    peer: str


class _InMemory:
    def __init__(self) -> None:
        self.body = bytearray()

    def begin(self, head: HeadCame) -> None:
        """Memory follows what comes, not what is promised."""

    def write(self, data: bytes) -> None:
        self.body += data


class _Bounded:
    """A sink that takes so many bytes and no more."""

    def __init__(self, inner: Sink, limit: int) -> None:
        self._inner = inner
        self._limit = limit
        self._taken = 0

    def begin(self, head: HeadCame) -> None:
        self._inner.begin(head)
        promised = head.length if head.framing == BodyFraming.LENGTH else None
        if promised is not None and promised > self._limit:
            raise TooLarge(self._limit)

    def write(self, data: bytes) -> None:
        self._taken += len(data)
        if self._taken > self._limit:
            raise TooLarge(self._limit)
        self._inner.write(data)


class _IntoConsumer:
    """A Twisted consumer as a sink: it says when it has enough."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._registered = False
        self.producer: FetchProtocol | None = None

    def begin(self, head: HeadCame) -> None:
        self._consumer.registerProducer(self.producer, True)
        self._registered = True

    def write(self, data: bytes) -> None:
        self._consumer.write(data)

    def end(self) -> None:
        if self._registered:
            self._registered = False
            self._consumer.unregisterProducer()


@dataclass(frozen=True, slots=True)
class _Ways:
    """How a connection to a URL comes about; see `fetch`."""

    reactor: Any
    family: int | None
    resolve: Mapping[tuple[str, int], Sequence[str]]
    unix_socket: str | None
    trust_root: Any
    verify: bool
    connect_timeout: float | None
    observer: FetchObserver | None

    async def connect(
        self, url: Url, build: Callable[[], FetchProtocol]
    ) -> FetchProtocol:
        endpoint: Any
        if self.unix_socket is not None:
            endpoint = UNIXClientEndpoint(self.reactor, self.unix_socket)
        else:
            endpoint = Host(
                self.reactor,
                url.host,
                url.port,
                family=self.family,
                addresses=self.resolve.get((url.host, url.port)),
                timeout_seconds=max(CONNECT_SECONDS, self.connect_timeout or 0),
                observer=self.observer,
            )
        if url.scheme == "https":
            # A plain connection has no use for its modules.
            from sockproto.tls import secured, trust_in

            trust_root = self.trust_root
            if isinstance(trust_root, str | os.PathLike):
                trust_root = trust_in(os.fspath(trust_root))
            endpoint = secured(
                endpoint, url.host, trust_root=trust_root, verify=self.verify
            )
        connecting = connect(endpoint, build)
        if self.connect_timeout is not None:
            what = f"a connection to {url.authority}"
            connecting = within(self.reactor, connecting, self.connect_timeout, what)
        return await connecting


@dataclass(slots=True)
class _Fetch:
    """One call of `fetch`: an exchange, and those that redirects lead to."""

    asking: Asking
    ways: _Ways
    sink: Any
    outer: Sink
    raw_request: bytes | None
    most_redirects: int | None
    timeout: float | None
    exchange_options: dict[str, Any]
    redirects: list[str] = field(default_factory=list)
    following: Asking | None = None

    async def run(self) -> Response:
        try:
            return await self._to_the_answer()
        except BaseException:
            if isinstance(self.sink, Saving):
                self.sink.give_up()
            raise
        finally:
            if isinstance(self.sink, _IntoConsumer):
                self.sink.end()

    async def _to_the_answer(self) -> Response:
        while True:
            protocol = await self.ways.connect(self.asking.url, self._build)
            head = await protocol.done
            if self.following is None:
                break
            self.redirects.append(str(self.asking.url))
            self.asking, self.following = self.following, None
            if self.ways.observer is not None:
                self.ways.observer.redirected(self.asking.url)
        sink = self.sink
        return Response(
            head.version,
            head.status,
            head.reason,
            head.headers,
            head.raw,
            protocol.trailers,
            bytes(sink.body) if isinstance(sink, _InMemory) else None,
            sink.complete() if isinstance(sink, Saving) else None,
            str(self.asking.url),
            tuple(self.redirects),
            protocol.local,
            protocol.peer,
        )

    def _build(self) -> FetchProtocol:
        request = self.raw_request
        if request is None:
            request = self.asking.request().encode()
        ways = self.ways
        if ways.observer is not None:
            ways.observer.asked(self.asking.url, request)
        protocol = FetchProtocol(
            Exchange(request, method_of(request), **self.exchange_options),
            self._begin,
            clock=ways.reactor,
            timeout=self.timeout,
            handshake_timeout=ways.connect_timeout,
            observer=ways.observer,
        )
        if isinstance(self.sink, _IntoConsumer):
            self.sink.producer = protocol
        return protocol

    def _begin(self, head: HeadCame) -> Sink | None:
        if self.most_redirects is not None:
            self.following = self.asking.redirected(head)
        if self.following is None:
            self.outer.begin(head)
            return self.outer
        if len(self.redirects) == self.most_redirects:
            raise TooManyRedirects(self.most_redirects)
        return None


def fetch(
    reactor: Any,
    url: str,
    *,
    method: str | None = None,
    headers: Sequence[Header] = (),
    body: bytes | None = None,
    user: str | bytes | None = None,
    raw_request: bytes | None = None,
    to: str | os.PathLike[str] | Sink | IConsumer | None = None,
    follow: bool = False,
    max_redirects: int = MOST_REDIRECTS,
    decompress: bool = False,
    raw: bool = False,
    max_body: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    timeout: float | None = None,
    connect_timeout: float | None = None,
    max_time: float | None = None,
    family: int | None = None,
    resolve: Mapping[tuple[str, int], Sequence[str]] | None = None,
    unix_socket: str | os.PathLike[str] | None = None,
    trust_root: Any = None,
    verify: bool = True,
    observer: FetchObserver | None = None,
) -> Deferred[Response]:
    """
    Fetch a URL over HTTP/1.1; fires when the response is complete.

    Each request has a connection of its own, with `Connection: close`. A status
    of 400 or more is no error. Cancelling closes the connection.

    Args:
        reactor: connects, resolves, measures.
        url: http or https (RFC 3986). User information in it is sent as `user`.
        method: GET by default, POST where there is a body.
        headers: of the request; one's own takes the place of ours of the same
            name, and one whose value is None is not sent.
        body: of the request, sent as it is.
        user: `NAME:PASSWORD` for Basic authentication (RFC 7617).
        raw_request: bytes that are sent exactly as they are in place of a
            request of ours.
        to: where the body goes: a file, which is replaced once the body is
            complete, a `Sink`, or an `IConsumer`. By default, it is kept in memory.
        follow: go where redirects lead (RFC 9110, section 15.4).
        max_redirects: how often.
        decompress: ask for gzip and deflate, and take them off.
        raw: take nothing off, not even the framing of chunks.
        max_body: bytes of a body, decoded; 16 MiB where it is kept in memory,
            any number elsewhere (4 GiB where it was compressed).
        limits: what a head may weigh.
        timeout: seconds of silence from the peer, while connecting too.
        connect_timeout: seconds until each connection is there.
        max_time: seconds for all of it.
        family: 4 or 6, to take only addresses of that family.
        resolve: addresses of a host (in lower case) and port, in place of those
            that its name resolves to.
        unix_socket: connect there, whatever the URL's host.
        trust_root: an `IOpenSSLTrustRoot`, or the path of authorities in PEM,
            for https; the system's by default.
        verify: False takes whatever certificate there is.
        observer: is told what happens on the socket.

    Raises:
        UrlMalformed, SchemeNotSupported, HeaderNotSendable, SettingError: nothing
            was sent.

    Errors:
        NameNotResolved, NotConnected, TimedOut: no connection, or silence.
        HandshakeFailed, CertificateRefused, TrustMalformed: TLS; nothing was sent.
        NothingCame, HeadMalformed, BodyMalformed, BodyCutShort,
        ConnectionWasReset, CodingMalformed: what came is no whole response.
        RedirectRefused, TooManyRedirects: with `follow`.
        TooLarge: it is above `max_body`.
        CannotWrite: the file does not take it.
    """
    timeout, max_time = _seconds("timeout", timeout), _seconds("max_time", max_time)
    _check_choices(family, max_redirects, max_body, resolve or {})
    if raw_request is not None:
        ours = {"follow": follow, "method": method, "headers": headers, "body": body}
        for name, seen in {**ours, "user": user}.items():
            if seen or isinstance(seen, str | bytes):
                raise SettingError(name, seen, "nothing beside raw_request")
    ways = _Ways(
        reactor,
        family,
        resolve or {},
        os.fspath(unix_socket) if unix_socket is not None else None,
        trust_root,
        verify,
        min(
            (b for b in (_seconds("connect_timeout", connect_timeout), timeout) if b),
            default=None,
        ),
        observer,
    )
    asking = Asking.make(
        Url.parse(url), method, headers, body, user, decompress=decompress and not raw
    )
    sink: Any
    if to is None:
        sink = _InMemory()
        max_body = LARGEST_BODY_IN_MEMORY if max_body is None else max_body
    elif isinstance(to, str | os.PathLike):
        sink = Saving(to, replace=True)
    elif IConsumer.providedBy(to):
        sink = _IntoConsumer(to)
    else:
        sink = to
    fetching = _Fetch(
        asking,
        ways,
        sink,
        sink if max_body is None else _Bounded(sink, max_body),
        raw_request,
        max_redirects if follow else None,
        timeout,
        {
            "limits": limits,
            "decompress": decompress,
            "raw": raw,
            "largest_decoded": LARGEST_DECODED if max_body is None else max_body,
        },
    )
    fetched = Deferred.fromCoroutine(fetching.run())
    if max_time is not None:
        fetched = within(reactor, fetched, max_time, "the whole response")
    return fetched


def _check_choices(
    family: int | None,
    max_redirects: int,
    max_body: int | None,
    resolve: Mapping[tuple[str, int], Sequence[str]],
) -> None:
    if family not in {None, 4, 6}:
        raise SettingError("family", family, "4 or 6")
    whole_number("max_redirects", max_redirects, 0, sys.maxsize)
    if max_body is not None:
        whole_number("max_body", max_body, 0, sys.maxsize)
    for addresses in resolve.values():
        for address in addresses:
            if not isinstance(address, str) or not (
                isIPAddress(address) or isIPv6Address(address)
            ):
                raise SettingError("resolve", address, "an IP address")


def _seconds(name: str, seen: float | None) -> float | None:
    return None if seen is None else seconds(name, seen, above_zero=True)
