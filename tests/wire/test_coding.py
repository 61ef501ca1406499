"""
Codings are taken off a body, however it was chopped, and only so far.
"""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import CodingMalformed, PeerError, TooLarge
from sockproto.wire import coding as module
from sockproto.wire.coding import DECODED, PIECE, Decoder, _Layer
from tests.wire.streams import chop, one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIB = 1024 * 1024


class Refusal(NamedTuple):
    """An error, as its kind and its words."""

    kind: type[PeerError]
    words: str


CUT_SHORT = Refusal(
    CodingMalformed, "the body cannot be decoded: its coded data is cut short"
)


def gzipped(data: bytes) -> bytes:
    """Data as gzip, the same whenever it is made."""
    return gzip.compress(data, mtime=0)


def zlibbed(data: bytes, bits: int = zlib.MAX_WBITS) -> bytes:
    """Data as deflate; with bits below zero it is bare (RFC 1951)."""
    deflating = zlib.compressobj(wbits=bits)
    return deflating.compress(data) + deflating.flush()


def bare(data: bytes) -> bytes:
    return zlibbed(data, -zlib.MAX_WBITS)


EMPTY_MEMBER = gzipped(b"")


def decoded(
    codings: Sequence[str], reads: Iterable[bytes], decoder: Decoder | None = None
) -> tuple[bytes, Refusal | None]:
    """What reads decode to, and why it went no further."""
    came = b""
    try:
        decoder = decoder or Decoder(codings)
        for read in reads:
            for piece in decoder.decode(read):
                assert piece, "a piece without bytes"
                came += piece
        decoder.finish()
    except PeerError as error:
        return came, Refusal(type(error), str(error))
    return came, None


def behind(words: str) -> Refusal:
    return Refusal(
        CodingMalformed,
        f"the body cannot be decoded: there is something behind {words}",
    )


CUTS = st.lists(st.integers(0, 9999), max_size=8)
CODINGS = st.lists(
    st.sampled_from(["gzip", "x-gzip", "deflate", "identity"]), max_size=5
)
FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            b"\0",
            b"\x1f",
            b"\x1f\x8b",
            b"\x1f\x8b\x08",
            b"\x78\x9c",
            b"\x01\x00\x00\xff\xff",
            b"\x00\x00\x00\xff\xff",
            EMPTY_MEMBER,
            gzipped(b"hello")[:-1],
        ]
    ),
    st.binary(max_size=40),
    st.binary(max_size=40).map(gzipped),
    st.binary(max_size=40).map(zlibbed),
    st.binary(max_size=40).map(bare),
)
STREAMS = st.lists(FRAGMENTS, max_size=5).map(b"".join)


def encoded(codings: Sequence[str], data: bytes) -> bytes:
    """Data with these codings applied, in order."""
    for coding in codings:
        if coding == "deflate":
            data = zlibbed(data)
        elif coding != "identity":
            data = gzipped(data)
    return data


class ChoppingTests(SynchronousTestCase):
    """However a body was chopped, it decodes to the same."""

    @given(
        stream=STREAMS,
        coding=st.sampled_from(["gzip", "deflate", "identity"]),
        cuts=CUTS,
    )
    def test_chopping_changes_nothing(
        self, stream: bytes, coding: str, cuts: list[int]
    ) -> None:
        """The same bytes and the same words come out."""
        whole, refusal = decoded([coding], [stream])
        for reads in (one_by_one(stream), chop(stream, cuts)):
            data, words = decoded([coding], reads)
            self.assertEqual(words, refusal)
            if refusal is None:
                self.assertEqual(data, whole)
            else:
                # zlib keeps to itself what it had of the read that is broken.
                shorter, longer = sorted((data, whole), key=len)
                self.assertTrue(longer.startswith(shorter))

    @given(data=st.binary(max_size=2000), codings=CODINGS, cuts=CUTS)
    def test_round_trip(self, data: bytes, codings: list[str], cuts: list[int]) -> None:
        """Whatever was coded, however often, comes out again."""
        stream = encoded(codings, data)
        for reads in (one_by_one(stream), chop(stream, cuts)):
            self.assertEqual(decoded(codings, reads), (data, None))

    @given(
        stream=st.one_of(STREAMS, st.binary(max_size=200)), codings=CODINGS, cuts=CUTS
    )
    def test_any_bytes(
        self, stream: bytes, codings: list[str], cuts: list[int]
    ) -> None:
        """Whatever comes, it is decoded or refused, and nothing else happens."""
        whole, refusal = decoded(codings, [stream])
        again, words = decoded(codings, chop(stream, cuts))
        self.assertEqual(words is None, refusal is None)
        if refusal is None:
            self.assertEqual(again, whole)
        else:
            self.assertIs(refusal.kind, CodingMalformed)
        decoder = Decoder(codings, largest=10)
        _, refusal = decoded(codings, [stream], decoder)
        self.assertIn(refusal and refusal.kind, {None, CodingMalformed, TooLarge})

    @given(
        data=st.binary(max_size=100),
        codings=CODINGS,
        largest=st.integers(0, 100),
        cuts=CUTS,
    )
    def test_bound(
        self, data: bytes, codings: list[str], largest: int, cuts: list[int]
    ) -> None:
        """A body may decode to as much as the bound, wherever it was cut."""
        stream = encoded(codings, data)
        for reads in (
            [stream] if stream else [],
            one_by_one(stream),
            chop(stream, cuts),
        ):
            came, refusal = decoded(codings, reads, Decoder(codings, largest=largest))
            self.assertLessEqual(len(came), largest)
            self.assertTrue(data.startswith(came))
            if len(data) <= largest:
                self.assertEqual((came, refusal), (data, None))
            else:
                self.assertEqual(
                    refusal,
                    Refusal(
                        TooLarge,
                        f"the body is larger than the {largest} bytes that are allowed",
                    ),
                )


class GzipTests(SynchronousTestCase):
    """gzip (RFC 1952)."""

    def test_names(self) -> None:
        """`x-gzip` is gzip (RFC 9110, section 8.4.1.3)."""
        for coding in ("gzip", "x-gzip"):
            self.assertEqual(decoded([coding], [gzipped(b"hello")]), (b"hello", None))
        self.assertEqual(DECODED, ("gzip", "deflate"))

    def test_header_fields(self) -> None:
        """A member may have a name, a comment and an extra field."""
        plain = gzipped(b"hello")
        header = b"\x1f\x8b\x08\x1c" + plain[4:10] + b"\x02\0ab" + b"name\0" + b"note\0"
        stream = header + plain[10:]
        self.assertEqual(decoded(["gzip"], one_by_one(stream)), (b"hello", None))

    def test_members(self) -> None:
        """Several members in a row are one body; NULs behind each are padding."""
        for stream in (
            gzipped(b"he") + gzipped(b"llo"),
            gzipped(b"he") + EMPTY_MEMBER * 3 + gzipped(b"llo"),
            gzipped(b"hello") + b"\0" * 1000,
            gzipped(b"he") + b"\0\0" + gzipped(b"llo") + b"\0",
        ):
            for reads in ([stream], one_by_one(stream)):
                self.assertEqual(decoded(["gzip"], reads), (b"hello", None))

    def test_something_behind(self) -> None:
        """What is behind the last member, and is no padding, is refused."""
        for tail in (b"x", b"hello", b"\0\0x", b"\x1f\x1f", b"\x1fx", b"\0\x1f\0"):
            stream = gzipped(b"hello") + tail
            for reads in ([stream], one_by_one(stream)):
                self.assertEqual(
                    decoded(["gzip"], reads), (b"hello", behind("its gzip data"))
                )

    def test_cut_short(self) -> None:
        """Data that ends at any byte within a member is cut short."""
        stream = gzipped(b"hello")
        for end in range(1, len(stream)):
            for reads in ([stream[:end]], one_by_one(stream[:end])):
                self.assertEqual(decoded(["gzip"], reads)[1], CUT_SHORT, end)

    def test_cut_short_in_a_later_member(self) -> None:
        """Data that ends within a later member is cut short, even at its first byte."""
        for padding in (b"", b"\0"):
            first = gzipped(b"hello") + padding
            for end in range(1, len(EMPTY_MEMBER)):
                self.assertEqual(
                    decoded(["gzip"], [first + EMPTY_MEMBER[:end]]),
                    (b"hello", CUT_SHORT),
                    end,
                )

    def test_broken(self) -> None:
        """A wrong checksum, size, method or header is told in zlib's words."""
        stream = gzipped(b"hello")
        for at, words in {
            0: "incorrect header check",
            1: "incorrect header check",
            2: "unknown compression method",
            3: "unknown header flags set",
            len(stream) - 8: "incorrect data check",
            len(stream) - 1: "incorrect length check",
        }.items():
            broken = bytearray(stream)
            broken[at] ^= 0xF0
            for reads in ([bytes(broken)], one_by_one(bytes(broken))):
                _, refusal = decoded(["gzip"], reads)
                self.assertEqual(
                    refusal,
                    Refusal(CodingMalformed, f"the body cannot be decoded: {words}"),
                )

    def test_html_in_place_of_gzip(self) -> None:
        """What was not coded at all is refused."""
        came, refusal = decoded(["gzip"], [b"<html></html>"])
        self.assertEqual(came, b"")
        assert refusal is not None
        self.assertIs(refusal.kind, CodingMalformed)

    def test_many_members(self) -> None:
        """A member without data costs as little as its bytes."""
        stream = EMPTY_MEMBER * (4 * PIECE // len(EMPTY_MEMBER))
        self.assertEqual(decoded(["gzip"], [stream]), (b"", None))


class DeflateTests(SynchronousTestCase):
    """deflate (RFC 1950), and what many send for it (RFC 1951)."""

    def test_both(self) -> None:
        """Data in zlib's format and bare data are told apart by two bytes."""
        for data in (b"", b"a", b"hello" * 1000, bytes(range(256))):
            for stream in (
                zlibbed(data),
                zlib.compress(data, 0),
                zlib.compress(data, 1),
                zlib.compress(data, 9),
                zlibbed(data, 9),
                bare(data),
                zlibbed(data, -9),
            ):
                for reads in ([stream], one_by_one(stream)):
                    self.assertEqual(decoded(["deflate"], reads), (data, None))

    def test_stored(self) -> None:
        """Bare data that is only stored is no zlib header."""
        stream = b"\x01\x05\x00\xfa\xffhello"
        self.assertEqual(decoded(["deflate"], [stream]), (b"hello", None))

    def test_something_behind(self) -> None:
        """One stream is one body: nothing is behind it, not even NULs."""
        for stream in (zlibbed(b"hello"), bare(b"hello")):
            for tail in (b"x", b"\0", stream):
                for reads in (
                    [stream + tail],
                    [stream, tail],
                    one_by_one(stream + tail),
                ):
                    self.assertEqual(
                        decoded(["deflate"], reads),
                        (b"hello", behind("its deflated data")),
                    )

    def test_cut_short(self) -> None:
        """Data that ends at any byte is cut short."""
        for stream in (zlibbed(b"hello"), bare(b"hello")):
            for end in range(1, len(stream)):
                for reads in ([stream[:end]], one_by_one(stream[:end])):
                    self.assertEqual(decoded(["deflate"], reads)[1], CUT_SHORT)

    def test_broken(self) -> None:
        """A wrong checksum, a block of no kind and a dictionary are refused."""
        checksum = bytearray(zlibbed(b"hello"))
        checksum[-1] ^= 1
        for stream, words in (
            (bytes(checksum), "incorrect data check"),
            (b"\x07\x00", "invalid block type"),
            (b"\x78\xbb\0\0\0\0\0", "Error 2 while decompressing data"),
        ):
            _, refusal = decoded(["deflate"], one_by_one(stream))
            assert refusal is not None
            self.assertIs(refusal.kind, CodingMalformed)
            self.assertIn(words, refusal.words)


class CodingsTests(SynchronousTestCase):
    """Which codings are known, and how many."""

    def test_identity(self) -> None:
        """Where there is nothing to take off, a body passes as it came."""
        for codings in ([], ["identity"], ["identity"] * 5):
            self.assertEqual(
                decoded(codings, [b"he", b"", b"llo"]), (b"hello", None), codings
            )
        read = b"x" * (4 * PIECE)
        self.assertIs(next(Decoder(["identity"]).decode(read)), read)

    def test_empty(self) -> None:
        """A body without a byte is complete, whatever was to be its coding."""
        for codings in ([], ["identity"], ["gzip"], ["deflate"], ["gzip", "deflate"]):
            self.assertEqual(decoded(codings, []), (b"", None))
            self.assertEqual(decoded(codings, [b""]), (b"", None))

    def test_in_order(self) -> None:
        """The last that was applied is taken off first."""
        stream = zlibbed(gzipped(b"hello"))
        self.assertEqual(decoded(["gzip", "deflate"], [stream]), (b"hello", None))
        self.assertEqual(decoded(["gzip", "identity", "deflate"], [stream])[1], None)
        _, refusal = decoded(["deflate", "gzip"], [stream])
        assert refusal is not None
        self.assertIs(refusal.kind, CodingMalformed)

    def test_inner_is_cut_short(self) -> None:
        """Each coding must end, not only the outermost."""
        for inner in (gzipped(b"hello")[:-1], b""):
            self.assertEqual(decoded(["gzip", "gzip"], [gzipped(inner)])[1], CUT_SHORT)

    def test_unknown(self) -> None:
        """A coding that is not known is named; of a long one 64 characters."""
        for coding, named in {
            "br": "br",
            "zstd": "zstd",
            "compress": "compress",
            "chunked": "chunked",
            "GZIP": "GZIP",
            "": "",
            "x" * 99: "x" * 64,
        }.items():
            for codings in ([coding], ["gzip", coding], [coding] * 9):
                self.assertEqual(
                    decoded(codings, []),
                    (
                        b"",
                        Refusal(
                            CodingMalformed,
                            f"the body cannot be decoded: the coding {named!r} is not"
                            " known; gzip and deflate are",
                        ),
                    ),
                )

    def test_too_many(self) -> None:
        """Five codings are taken (as curl), and not a sixth."""
        self.assertEqual(
            decoded(["gzip"] * 5, [encoded(["gzip"] * 5, b"a")]), (b"a", None)
        )
        for coding in ("gzip", "identity"):
            self.assertEqual(
                decoded([coding] * 6, [])[1],
                Refusal(
                    CodingMalformed,
                    "the body cannot be decoded: it has more than 5 codings",
                ),
            )

    def test_a_layer_decodes(self) -> None:
        """What is a coding says how it is taken off."""
        self.assertRaises(NotImplementedError, _Layer().decode, b"")


class BombTests(SynchronousTestCase):
    """A few bytes that decode to many."""

    def test_pieces(self) -> None:
        """What comes out comes in pieces of 64 KiB, without a byte too few."""
        for size in (PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7):
            data = random.Random(size).randbytes(size // 2) + b"x" * (size - size // 2)
            for codings in (["gzip"], ["deflate"], ["gzip", "deflate"]):
                pieces = list(Decoder(codings).decode(encoded(codings, data)))
                self.assertEqual(b"".join(pieces), data)
                self.assertLessEqual(max(map(len, pieces)), PIECE)

    def test_ratio(self) -> None:
        """Above 16 MiB a body may grow by 100 times, and not more."""
        decoder = Decoder(["gzip"])
        gave = 0
        with self.assertRaises(TooLarge) as caught:
            for piece in decoder.decode(gzipped(b"\0" * (20 * MIB))):
                gave += len(piece)
        self.assertEqual(gave, 16 * MIB)
        self.assertEqual(
            (caught.exception.limit, caught.exception.ratio), (16 * MIB, 100)
        )

    def test_ratio_of_any_reads(self) -> None:
        """Whether a body grows too much does not depend on how it was chopped."""
        self.patch(module, "RATIO_APPLIES_FROM", 1000)
        self.patch(module, "RATIO_BLOCK", 256)
        chance = random.Random(1)
        for zeros in range(2_000, 40_000, 1_000):
            body = chance.randbytes(300) + bytes(zeros) + chance.randbytes(300)
            stream = zlibbed(body)
            heard = [
                decoded([], reads, Decoder(["deflate"], ratio=20))[1]
                for reads in ([stream], one_by_one(stream), chop(stream, [200, 350]))
            ]
            self.assertEqual(heard, [heard[0]] * 3, zeros)

    def test_ratio_at_the_bound(self) -> None:
        """What grows exactly by as much as is allowed is taken."""
        self.patch(module, "RATIO_APPLIES_FROM", 1000)
        for size in (1000, 1001, 5000):
            stream = zlibbed(b"x" * size)
            ratio = -(-size // len(stream))
            self.patch(module, "RATIO_BLOCK", len(stream))
            self.assertEqual(
                decoded([], [stream], Decoder(["deflate"], ratio=ratio)),
                (b"x" * size, None),
            )
            _, refusal = decoded([], [stream], Decoder(["deflate"], ratio=ratio - 1))
            self.assertEqual(refusal is None, size == 1000)
            if refusal is not None:
                self.assertEqual(
                    refusal,
                    Refusal(
                        TooLarge,
                        f"the body grows by more than {ratio - 1} times when it is"
                        " decoded, and has passed 1000 bytes",
                    ),
                )

    def test_default_bound(self) -> None:
        """Unless told otherwise a body decodes to 4 GiB at most."""
        self.assertEqual(module.LARGEST_DECODED, 2**32)

    def test_memory(self) -> None:
        """What waits is a piece, whatever a read would decode to."""
        stream = gzipped(b"\0" * (32 * MIB))
        twice = gzipped(stream)
        for codings, data in ((["gzip"], stream), (["gzip", "gzip"], twice)):
            decoder = Decoder(codings, ratio=10_000_000)
            tracemalloc.start()
            try:
                size = sum(map(len, decoder.decode(data)))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            self.assertEqual(size, 32 * MIB)
            self.assertLess(peak, 8 * PIECE)

    def test_bomb_within(self) -> None:
        """A bomb is refused even if the coding below it makes nothing of its bytes."""
        self.patch(module, "RATIO_APPLIES_FROM", MIB)
        self.patch(module, "RATIO_BLOCK", 1024)
        stored = b"\0\0\0\xff\xff"  # blocks without data
        for codings, inner in (
            (["gzip", "gzip"], gzipped(b"hello") + b"\0" * (4 * MIB)),
            (["deflate", "gzip"], stored * MIB + bare(b"hello")),
            (["gzip", "identity", "gzip"], EMPTY_MEMBER * (4 * MIB // 20)),
        ):
            _, refusal = decoded(codings, [gzipped(inner)])
            self.assertEqual(
                refusal,
                Refusal(
                    TooLarge,
                    "the body grows by more than 100 times when it is decoded, and"
                    " has passed 1048576 bytes",
                ),
            )
