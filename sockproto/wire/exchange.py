"""
One request and the response to it: what a client's protocol carries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sockproto.errors import SockprotoError
from sockproto.wire.coding import LARGEST_DECODED, Decoder
from sockproto.wire.response import (
    DEFAULT_LIMITS,
    BodyCame,
    BodyFraming,
    Event,
    HeadCame,
    Limits,
    ResponseEnded,
    ResponseReader,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Exchange"]


class Exchange:
    """
    The client's side of one request, its response's codings taken off.

    Send `request`; feed what comes to `receive_data` and `receive_eof`, and
    after each call `next_event` until it returns None.

    Args:
        request: the bytes to send.
        method: of the request.
        limits: what a head may weigh.
        decompress: take the content codings off too; transfer codings always
            are (RFC 9110, section 8.4; RFC 9112, section 7).
        raw: take no coding off, and leave the framing of chunks in the body.
        largest_decoded: bytes that a coded body may decode to.
    """

    def __init__(
        self,
        request: bytes,
        method: str = "GET",
        *,
        limits: Limits = DEFAULT_LIMITS,
        decompress: bool = False,
        raw: bool = False,
        largest_decoded: int = LARGEST_DECODED,
    ) -> None:
        self.request = request
        self._reader = ResponseReader(method, limits=limits, raw=raw)
        self._limits = limits
        self._decompress = decompress and not raw
        self._raw = raw
        self._largest = largest_decoded
        self._decoder: Decoder | None = None
        self._over = False
        self._pieces: Iterator[bytes] = iter(())

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the connection."""
        self._reader.receive_data(data)

    def receive_eof(self) -> None:
        """Take the end of the connection."""
        self._reader.receive_eof()

    @property
    def behind(self) -> bytes:
        """What came, in the same read, behind the end of the response."""
        return self._reader.behind

    @property
    def plain_left(self) -> int:
        """Bytes of the body that come next for certain, and are handed out as such."""
        return 0 if self._decoder is not None else self._reader.plain_left

    def skip(self, size: int) -> None:
        """So many bytes of `plain_left` were taken off the connection by another."""
        self._reader.skip(size)

    def next_event(self) -> Event | None:
        """
        Hand out what happened next; None if that needs more bytes.

        Raises:
            CodingMalformed: a content coding is broken or not known.
            TooLarge: the body decodes to too much.
            PeerError: as `ResponseReader.next_event` has them.
        """
        if self._over:
            return None
        try:
            return self._next_event()
        except SockprotoError:
            self._over = True
            raise

    def _next_event(self) -> Event | None:
        while True:
            piece = next(self._pieces, None)
            if piece is not None:
                return BodyCame(piece)
            event = self._reader.next_event()
            if isinstance(event, BodyCame) and self._decoder is not None:
                self._pieces = self._decoder.decode(event.data)
                continue
            if isinstance(event, HeadCame):
                self._decoder = self._decoder_for(event)
            elif isinstance(event, ResponseEnded) and self._decoder is not None:
                self._decoder.finish()
            return event

    def _decoder_for(self, head: HeadCame) -> Decoder | None:
        if head.framing == BodyFraming.NONE:
            return None
        codings: list[str] = []
        if self._decompress:
            codings += [
                coding.strip(b" \t").lower().decode("latin-1")
                for value in head.values(b"content-encoding")
                for coding in value.split(b",")
                if coding.strip(b" \t")
            ]
        if not self._raw:
            codings += head.transfer_codings
        if not codings:
            return None
        return Decoder(
            codings,
            largest=self._largest,
            ratio=self._limits.ratio,
            most=self._limits.codings,
        )
