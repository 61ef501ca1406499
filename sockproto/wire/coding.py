"""
Takes content and transfer codings off a body (RFC 9110, section 8.4.1).

A few bytes can decode to gigabytes, so what comes out is handed over in pieces,
and there is a bound on how many times and to how much a body may grow.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from sockproto.errors import CodingMalformed, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["DECODED", "KNOWN", "Decoder"]

DECODED = ("gzip", "deflate")
"""The codings that are decoded, as Accept-Encoding has them."""

KNOWN = frozenset({*DECODED, "x-gzip", "identity"})
"""All that can be taken off; x-gzip is gzip (RFC 9110, section 8.4.1.3)."""

PIECE = 64 * 1024
"""Bytes that come out at a time: what waits is no more, whatever came in."""

LARGEST_RATIO = 100
"""Times that a body may grow; text does not, and zlib's most is 1,032."""

RATIO_APPLIES_FROM = 16 * 1024 * 1024
"""Bytes: what is smaller than this does no harm, whatever its ratio."""

RATIO_BLOCK = 64 * 1024
"""Coded bytes at a time for which a body may grow: what is refused does not depend
on where the network chopped it."""

LARGEST_DECODED = 4 * 1024**3
"""Bytes of a decoded body, unless its caller says otherwise."""

MOST_CODINGS = 5
"""Codings on top of each other; one is usual."""

_GZIP_MAGIC = b"\x1f\x8b"


class Decoder:
    """
    Decodes a body that was coded once or several times.

    Args:
        codings: in the order in which they were applied; `gzip`, `x-gzip`,
            `deflate` (RFC 1950, or bare as RFC 1951) and `identity` are known.
        largest: bytes that may come out.
        ratio: times that the body may grow, once it is above 16 MiB.
        most: how many codings there may be.

    Raises:
        CodingMalformed: a coding is not known, or they are too many.
    """

    def __init__(
        self,
        codings: Sequence[str],
        *,
        largest: int = LARGEST_DECODED,
        ratio: int = LARGEST_RATIO,
        most: int = MOST_CODINGS,
    ) -> None:
        for coding in codings:
            if coding not in KNOWN:
                raise CodingMalformed(
                    f"the coding {coding[:64]!r} is not known; gzip and deflate are"
                )
        if len(codings) > most:
            raise CodingMalformed(f"it has more than {most} codings")
        self._layers: list[_Layer] = [
            _Deflate() if coding == "deflate" else _Gzip()
            for coding in reversed(codings)
            if coding != "identity"
        ]
        self._largest = largest
        self._ratio = ratio
        self._came = 0
        self._gave = [0] * (len(self._layers) + 1)

    def decode(self, data: bytes) -> Iterator[bytes]:
        """
        Take the next bytes; yields what they decode to, piece by piece.

        Raises:
            CodingMalformed: they are broken.
            TooLarge: they decode to too much.
        """
        while data:
            room = RATIO_BLOCK - self._came % RATIO_BLOCK
            block = data[:room] if self._layers else data
            data = data[len(block) :]
            self._came += len(block)
            for piece in self._through(0, block):
                if self._gave[-1] > self._largest:
                    raise TooLarge(self._largest)
                yield piece

    def _through(self, depth: int, data: bytes) -> Iterator[bytes]:
        """What comes out below; each coding has the bound, or one hides another."""
        if data:
            self._gave[depth] += len(data)
        came = -(-self._came // RATIO_BLOCK) * RATIO_BLOCK
        allowed = max(RATIO_APPLIES_FROM, came * self._ratio)
        if self._gave[depth] > allowed:
            raise TooLarge(RATIO_APPLIES_FROM, self._ratio)
        if depth == len(self._layers):
            if data:
                yield data
            return
        for piece in self._layers[depth].decode(data):
            yield from self._through(depth + 1, piece)

    def finish(self) -> None:
        """
        Take the end of the body.

        Raises:
            CodingMalformed: the coded data has not ended.
        """
        if self._came and not all(
            layer.complete and not layer.left for layer in self._layers
        ):
            raise CodingMalformed("its coded data is cut short")


class _Layer:
    """One coding."""

    complete = False
    left = b""

    def decode(self, data: bytes) -> Iterator[bytes]:
        raise NotImplementedError


def _inflated(inflating: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """What bytes inflate to, a piece at a time."""
    while True:
        try:
            piece = inflating.decompress(data, PIECE)
        except zlib.error as error:
            words = str(error).partition(": ")[2] or str(error)
            raise CodingMalformed(words) from error
        if piece:
            yield piece
        data = inflating.unconsumed_tail
        if inflating.eof or (not data and len(piece) < PIECE):
            return


class _Gzip(_Layer):
    """
    gzip (RFC 1952): one member, or several in a row; NULs behind them are padding.
    """

    def __init__(self) -> None:
        self._inflating = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.left = b""

    def decode(self, data: bytes) -> Iterator[bytes]:
        data = self.left + data
        self.left = b""
        while data:
            if self.complete:
                data = data.lstrip(b"\0")
                if len(data) < len(_GZIP_MAGIC) and _GZIP_MAGIC.startswith(data):
                    self.left = data
                    return
                if not data.startswith(_GZIP_MAGIC):
                    raise CodingMalformed("there is something behind its gzip data")
                self._inflating = zlib.decompressobj(16 + zlib.MAX_WBITS)
                self.complete = False
            yield from _inflated(self._inflating, data)
            self.complete = self._inflating.eof
            data = self._inflating.unused_data


class _Deflate(_Layer):
    """
    deflate: zlib's format (RFC 1950), or what it wraps (RFC 1951), as many send.
    """

    def __init__(self) -> None:
        self._start = b""
        self._inflating: zlib._Decompress | None = None

    def decode(self, data: bytes) -> Iterator[bytes]:
        if self._inflating is None:
            self._start += data
            if len(self._start) < 2:
                return
            data = self._start
            # RFC 1950, section 2.2: the method is 8, and the two bytes divide by 31.
            is_zlib = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
            bits = zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
            self._inflating = zlib.decompressobj(bits)
        elif self.complete and data:
            raise CodingMalformed("there is something behind its deflated data")
        yield from _inflated(self._inflating, data)
        self.complete = self._inflating.eof
        if self._inflating.unused_data:
            raise CodingMalformed("there is something behind its deflated data")
