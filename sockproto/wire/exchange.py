"""
One HTTP/1.1 request and its response (RFC 9112), through h11.

h11 reads the grammar; this keeps what it does not: the head's exact bytes, and
what kind of trouble ended the exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h11

from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    HeaderNotSendable,
    HeadMalformed,
    NothingCame,
)

__all__ = ["BodyCame", "Exchange", "HeadCame", "InterimCame", "ResponseEnded"]

LARGEST_HEAD = 300 * 1024
"""Bytes of a head that has not ended yet; curl's bound too."""

_TOO_LARGE = f"it is larger than the {LARGEST_HEAD} bytes that are allowed"

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class InterimCame:
    """
    A 1xx response: the final one is still to come.
    """

    raw: bytes
    status: int


@dataclass(frozen=True, slots=True)
class HeadCame:
    """
    The head of the response.

    Attributes:
        raw: its bytes as received, the empty line at its end included.
        version: `1.1` or `1.0`.
        status, reason: of the status line.
        headers: as received and in order; a folded value is unfolded.
        length: what Content-Length promises, in bytes; None where the body is
            chunked or ends with the connection.
        self_delimiting: whether the body has an end of its own, and does not
            end with the connection.
    """

    raw: bytes
    version: str
    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...]
    length: int | None
    self_delimiting: bool


@dataclass(frozen=True, slots=True)
class BodyCame:
    """
    The next bytes of the body, their framing taken off.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """
    The response is complete. What follows on the connection is not part of it.
    """


class Exchange:
    """
    The client's side of one request.

    Send `request`; feed what comes to `receive_data` and `receive_eof`, and
    after each call `next_event` until it returns None.

    Args:
        target: the request target (RFC 9112, section 3.2).
        headers: of the request, `Host` among them.

    Raises:
        HeaderNotSendable: a header breaks the grammar.
    """

    def __init__(self, target: bytes, headers: Headers) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
        try:
            request = h11.Request(method=b"GET", target=target, headers=list(headers))
            line = self._h11.send(request)
            end = self._h11.send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise HeaderNotSendable(str(error)) from error
        self.request: bytes = (line or b"") + (end or b"")
        self._raw = bytearray()
        self._head: HeadCame | None = None
        self._body_size = 0
        self._ended = False
        self._eof = False

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the connection."""
        if self._ended or not data:
            return
        if self._head is None:
            self._raw += data
        self._h11.receive_data(data)

    def receive_eof(self) -> None:
        """Take the end of the connection."""
        if not self._eof:
            self._eof = True
            self._h11.receive_data(b"")

    def next_event(
        self,
    ) -> InterimCame | HeadCame | BodyCame | ResponseEnded | None:
        """
        Hand out what happened next; None if that needs more bytes.

        Raises:
            NothingCame: the connection ended before a single byte.
            HeadMalformed: the head breaks the grammar, or is cut short.
            BodyMalformed: a chunk is broken.
            BodyCutShort: the connection ended before the body did.
        """
        if self._ended:
            return None
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            self._ended = True
            raise self._trouble(error) from error
        if isinstance(event, h11.InformationalResponse):
            return InterimCame(self._take_raw(), event.status_code)
        if isinstance(event, h11.Response):
            self._head = HeadCame(
                self._take_raw(),
                event.http_version.decode("ascii"),
                event.status_code,
                bytes(event.reason).decode("latin-1"),
                tuple((bytes(n), bytes(v)) for n, v in event.headers.raw_items()),
                *_body_framing(event),
            )
            return self._head
        if isinstance(event, h11.Data):
            self._body_size += len(event.data)
            return BodyCame(bytes(event.data))
        if isinstance(event, h11.EndOfMessage):
            self._ended = True
            return ResponseEnded()
        assert event in (h11.NEED_DATA, h11.PAUSED) or self._eof, event
        return None

    def _take_raw(self) -> bytes:
        """The bytes of the head that has just ended: all but what h11 still holds."""
        behind, _ = self._h11.trailing_data
        head = bytes(self._raw[: len(self._raw) - len(behind)])
        self._raw = bytearray(behind)
        if len(head) > LARGEST_HEAD:
            # h11 bounds a head only while it waits for the end of it.
            self._ended = True
            raise HeadMalformed(_TOO_LARGE)
        return head

    def _trouble(
        self, error: h11.RemoteProtocolError
    ) -> NothingCame | HeadMalformed | BodyMalformed | BodyCutShort:
        if self._head is None:
            if error.error_status_hint == 431:
                return HeadMalformed(_TOO_LARGE)
            if not self._eof:
                return HeadMalformed(_words(error))
            return HeadMalformed("it is cut short") if self._raw else NothingCame()
        if self._eof:
            return BodyCutShort(self._body_size, self._head.length)
        return BodyMalformed(_words(error))


def _words(error: h11.RemoteProtocolError) -> str:
    """What h11 says, but not what it says of the bytes that have come by chance."""
    words = str(error)
    if words.startswith("malformed chunk footer"):
        return "a chunk does not end where its size says"
    if words in ("illegal request line", "no response line received"):
        return "it does not begin with a status line"
    return words


def _body_framing(response: h11.Response) -> tuple[int | None, bool]:
    """Content-Length, and whether the body has an end (RFC 9112, section 6.3)."""
    names = dict(response.headers)
    if response.status_code in (204, 304):
        return None, True
    if b"transfer-encoding" in names:
        return None, True
    if b"content-length" in names:
        return int(names[b"content-length"]), True
    return None, False
