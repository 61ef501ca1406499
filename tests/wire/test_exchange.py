"""
One HTTP exchange, from its bytes alone: the response, its codings taken off.
"""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

from hypothesis import given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    CodingMalformed,
    HeadMalformed,
    NothingCame,
    SockprotoError,
    TooLarge,
)
from sockproto.wire import coding as decoding
from sockproto.wire.exchange import Exchange
from sockproto.wire.response import (
    DEFAULT_LIMITS,
    BodyCame,
    HeadCame,
    InterimCame,
    Limits,
    ResponseEnded,
)
from tests.wire.streams import (
    CHUNKED,
    CONTINUE,
    FIVE,
    OK,
    TO_CLOSE,
    Heard,
    Refusal,
    chop,
    chunk,
    hear,
    one_by_one,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GZIP = gzip.compress(b"hello", mtime=0)


def heard(  # noqa: PLR0913
    reads: Iterable[bytes],
    *,
    eof: bool = True,
    method: str = "GET",
    limits: Limits = DEFAULT_LIMITS,
    decompress: bool = False,
    raw: bool = False,
    largest_decoded: int = 2**32,
) -> list[Heard]:
    """
    What an exchange says to these reads and then, perhaps, the end.

    The body is joined wherever its bytes stand together; an error comes last.
    """
    exchange = Exchange(
        b"",
        method,
        limits=limits,
        decompress=decompress,
        raw=raw,
        largest_decoded=largest_decoded,
    )
    events: list[Heard] = []
    try:
        for read in reads:
            exchange.receive_data(read)
            hear(exchange, events)
        if eof:
            exchange.receive_eof()
            hear(exchange, events)
    except SockprotoError as error:
        events.append(Refusal(type(error), str(error)))
    return events


def sized(fields: bytes, body: bytes) -> bytes:
    """A response with a Content-Length and these fields."""
    return OK + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(fields: bytes, body: bytes, size: int = 7) -> bytes:
    """A response in chunks, with these fields."""
    chunks = [chunk(body[at : at + size]) for at in range(0, len(body), size)]
    return OK + fields + b"\r\n" + b"".join(chunks) + b"0\r\n\r\n"


def body_of(
    stream: bytes, *, decompress: bool = False, raw: bool = False, eof: bool = False
) -> bytes:
    """The body of a response that is complete without the connection's end."""
    head, *body, end = heard([stream], decompress=decompress, raw=raw, eof=eof)
    assert isinstance(head, HeadCame), head
    assert isinstance(end, ResponseEnded), end
    return b"".join(each for each in body if isinstance(each, bytes))


def refused(
    stream: bytes, *, decompress: bool = False, raw: bool = False, eof: bool = True
) -> Refusal:
    """The refusal in which a response ends, the same however it is read."""
    whole = heard([stream], decompress=decompress, raw=raw, eof=eof)[-1]
    again = heard(one_by_one(stream), decompress=decompress, raw=raw, eof=eof)[-1]
    assert isinstance(whole, Refusal), whole
    assert whole == again, again
    return whole


STREAMS = st.builds(
    lambda before, start, fields, body: before + start + fields + b"\r\n" + body,
    st.sampled_from([b"", b"", CONTINUE, CONTINUE * 2]),
    st.sampled_from([OK, OK, OK, b"HTTP/1.0 404 Not Found\r\n", b"HTTP/1.1 204\r\n"]),
    st.lists(
        st.sampled_from(
            [
                b"Content-Length: 5\r\n",
                b"Content-Length: %d\r\n" % len(GZIP),
                b"Content-Encoding: gzip\r\n",
                b"Content-Encoding: x-gzip\r\n",
                b"Content-Encoding: deflate\r\n",
                b"Content-Encoding: br\r\n",
                b"Content-Encoding: , identity ,\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Transfer-Encoding: gzip, chunked\r\n",
                b"Transfer-Encoding: deflate, chunked\r\n",
                b"no field\r\n",
            ]
        ),
        max_size=3,
    ).map(b"".join),
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    GZIP,
                    GZIP[:9],
                    chunk(GZIP),
                    chunk(GZIP[:9]) + chunk(GZIP[9:]),
                    chunk(GZIP[:-1] + b"!"),
                    chunk(b"\0"),
                    chunk(zlib.compress(b"hello")),
                    chunk(zlib.compress(GZIP)),
                    b"0\r\n\r\n",
                    b"0\r\n\r\n",
                    b"hello",
                    b"zz\r\n",
                ]
            ),
            st.binary(min_size=1, max_size=20).map(chunk),
        ),
        max_size=4,
    ).map(b"".join),
)
CUTS = st.lists(st.integers(0, 9999), max_size=8)


class ChoppingTests(SynchronousTestCase):
    """However the network cuts a response, it is the same response."""

    @given(
        stream=STREAMS,
        cuts=CUTS,
        eof=st.booleans(),
        decompress=st.booleans(),
        raw=st.booleans(),
    )
    def test_chopping_changes_nothing(
        self,
        stream: bytes,
        cuts: list[int],
        eof: bool,
        decompress: bool,
        raw: bool,
    ) -> None:
        """The same events, the same body and the same kind of error come out."""

        def said(reads: list[bytes]) -> tuple[Sequence[Heard], bytes, object]:
            events = heard(reads, eof=eof, decompress=decompress, raw=raw)
            kinds = [each.kind for each in events if isinstance(each, Refusal)]
            body = b"".join(each for each in events if isinstance(each, bytes))
            told = [e for e in events if not isinstance(e, bytes | Refusal)]
            return told, body, kinds[0] if kinds else None

        whole, body, kind = said([stream])
        for reads in (one_by_one(stream), chop(stream, cuts)):
            events, came, again = said(reads)
            self.assertEqual((events, again), (whole, kind))
            if kind is CodingMalformed:
                # zlib keeps to itself what it had of the read that is broken.
                shorter, longer = sorted((came, body), key=len)
                self.assertTrue(longer.startswith(shorter))
            else:
                self.assertEqual(came, body)

    @given(
        data=st.binary(max_size=500),
        content=st.booleans(),
        transfer=st.booleans(),
        size=st.integers(1, 100),
        cuts=CUTS,
    )
    def test_round_trip(
        self, data: bytes, content: bool, transfer: bool, size: int, cuts: list[int]
    ) -> None:
        """A body comes out as it was before it was coded."""
        fields, body = b"", data
        if content:
            fields += b"Content-Encoding: deflate\r\n"
            body = zlib.compress(body)
        if transfer:
            fields += b"Transfer-Encoding: gzip\r\n"
            body = gzip.compress(body, mtime=0)
        stream = chunked(fields + b"Transfer-Encoding: chunked\r\n", body, size)
        head, *came, end = heard(chop(stream, cuts), eof=False, decompress=True)
        self.assertIsInstance(head, HeadCame)
        self.assertEqual(came, [data] if data else [])
        self.assertEqual(end, ResponseEnded())


class ContentCodingTests(SynchronousTestCase):
    """Content codings (RFC 9110, section 8.4): those of what was asked for."""

    def test_only_when_asked(self) -> None:
        """A content coding is part of the body, unless it is to be taken off."""
        for stream in (
            sized(b"Content-Encoding: gzip\r\n", GZIP),
            chunked(b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", GZIP),
        ):
            self.assertEqual(body_of(stream), GZIP)
            self.assertEqual(body_of(stream, decompress=True), b"hello")
        to_close = OK + b"Content-Encoding: gzip\r\n\r\n" + GZIP
        self.assertEqual(body_of(to_close, eof=True), GZIP)
        self.assertEqual(body_of(to_close, eof=True, decompress=True), b"hello")

    def test_spellings(self) -> None:
        """Names have no case, and stand in one field or several, in order."""
        twice = zlib.compress(GZIP)
        for fields, body in (
            (b"content-encoding: GZip\r\n", GZIP),
            (b"Content-Encoding: x-gzip\r\n", GZIP),
            (b"Content-Encoding: ,\tgzip ,,\r\n", GZIP),
            (b"Content-Encoding: gzip, deflate\r\n", twice),
            (b"Content-Encoding: gzip\r\nContent-Encoding: deflate\r\n", twice),
            (b"Content-Encoding: gzip, identity\r\n", GZIP),
            (b"Content-Encoding: identity\r\n", b"hello"),
            (b"Content-Encoding:\r\n", b"hello"),
            (b"Content-Encoding: ,\r\n", b"hello"),
            (b"", b"hello"),
        ):
            self.assertEqual(body_of(sized(fields, body), decompress=True), b"hello")

    def test_unknown(self) -> None:
        """A coding that is not known is refused only where it is to be taken off."""
        for value in (b"br", b"gzip, zstd", b"gzip;q=1", b"\xff"):
            stream = sized(b"Content-Encoding: %b\r\n" % value, GZIP)
            self.assertEqual(body_of(stream), GZIP)
            self.assertEqual(body_of(stream, raw=True, decompress=True), GZIP)
            refusal = refused(stream, decompress=True)
            self.assertIs(refusal.kind, CodingMalformed)
            self.assertIn("is not known", refusal.words)

    def test_too_many(self) -> None:
        """Content and transfer codings are counted together."""
        fields = b"Content-Encoding: %b\r\n" % b", ".join([b"gzip"] * 5)
        fields += b"Transfer-Encoding: gzip, chunked\r\n"
        refusal = refused(chunked(fields, GZIP), decompress=True)
        self.assertTrue(refusal.words.endswith("it has more than 5 codings"))

    def test_cut_short(self) -> None:
        """Coded data that ends early is refused, though the body is whole."""
        for end in range(1, len(GZIP)):
            for stream in (
                sized(b"Content-Encoding: gzip\r\n", GZIP[:end]),
                chunked(
                    b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
                    GZIP[:end],
                ),
                OK + b"Content-Encoding: gzip\r\n\r\n" + GZIP[:end],
            ):
                self.assertEqual(
                    refused(stream, decompress=True),
                    Refusal(
                        CodingMalformed,
                        "the body cannot be decoded: its coded data is cut short",
                    ),
                )

    def test_framing_is_judged_first(self) -> None:
        """A coded body that is cut short itself is said to be that."""
        stream = OK + b"Content-Encoding: gzip\r\nContent-Length: 99\r\n\r\n" + GZIP
        *_, body, refusal = heard([stream], decompress=True)
        self.assertEqual(body, b"hello")
        self.assertEqual(
            refusal,
            Refusal(
                BodyCutShort,
                f"the body was cut short: {len(GZIP)} of 99 bytes came",
            ),
        )

    def test_empty(self) -> None:
        """A body without a byte is no broken gzip."""
        for stream in (
            sized(b"Content-Encoding: gzip\r\n", b""),
            chunked(b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", b""),
        ):
            self.assertEqual(body_of(stream, decompress=True), b"")

    def test_no_body(self) -> None:
        """Where no body comes, nothing is taken off, be the coding known or not."""
        for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304)):
            for coding in (b"gzip", b"br"):
                stream = b"HTTP/1.1 %d\r\nContent-Encoding: %b\r\n\r\n" % (
                    status,
                    coding,
                )
                head, end = heard([stream], eof=False, method=method, decompress=True)
                self.assertIsInstance(head, HeadCame, (method, status, coding))
                self.assertEqual(end, ResponseEnded())

    def test_bound(self) -> None:
        """A body may decode to as much as the bound, and not to a byte more."""
        stream = sized(b"Content-Encoding: gzip\r\n", GZIP)
        _, body, _ = heard([stream], decompress=True, largest_decoded=5)
        self.assertEqual(body, b"hello")
        self.assertEqual(
            heard([stream], decompress=True, largest_decoded=4)[-1],
            Refusal(TooLarge, "the body is larger than the 4 bytes that are allowed"),
        )
        # What is not coded is its caller's to count.
        self.assertEqual(
            heard([FIVE + b"hello"], largest_decoded=4)[1:], [b"hello", ResponseEnded()]
        )

    def test_pieces(self) -> None:
        """A read that decodes to much comes in pieces, and then what follows it."""
        size = 1024 * 1024
        stream = sized(b"Content-Encoding: gzip\r\n", gzip.compress(b"x" * size))
        exchange = Exchange(b"", decompress=True)
        exchange.receive_data(stream + b"behind")
        self.assertIsInstance(exchange.next_event(), HeadCame)
        came = 0
        while isinstance(event := exchange.next_event(), BodyCame):
            self.assertLessEqual(len(event.data), 64 * 1024)
            came += len(event.data)
        self.assertEqual(came, size)
        self.assertEqual(event, ResponseEnded())
        self.assertEqual(exchange.behind, b"behind")


class TransferCodingTests(SynchronousTestCase):
    """Transfer codings (RFC 9112, section 7): those of the way."""

    def test_always(self) -> None:
        """They are taken off without being asked to, except raw."""
        for coding, body in ((b"gzip", GZIP), (b"deflate", zlib.compress(b"hello"))):
            fields = b"Transfer-Encoding: %b, chunked\r\n" % coding
            stream = chunked(fields, body, 99)
            self.assertEqual(body_of(stream), b"hello")
            self.assertEqual(body_of(stream, decompress=True), b"hello")
            self.assertEqual(
                body_of(stream, raw=True, decompress=True), chunk(body) + b"0\r\n\r\n"
            )
        plain = chunked(b"Transfer-Encoding: identity, chunked\r\n", b"hello")
        self.assertEqual(body_of(plain), b"hello")

    def test_stacked(self) -> None:
        """They lie above content codings, which are taken off after them."""
        fields = b"Content-Encoding: gzip\r\nTransfer-Encoding: deflate, chunked\r\n"
        stream = chunked(fields, zlib.compress(GZIP))
        self.assertEqual(body_of(stream), GZIP)
        self.assertEqual(body_of(stream, decompress=True), b"hello")

    def test_cut_short(self) -> None:
        """Coded data that ends before its chunks do is refused."""
        fields = b"Transfer-Encoding: gzip, chunked\r\n"
        self.assertEqual(
            refused(chunked(fields, GZIP[:-1])),
            Refusal(
                CodingMalformed,
                "the body cannot be decoded: its coded data is cut short",
            ),
        )
        self.assertIs(refused(chunked(fields, b"hello")).kind, CodingMalformed)

    def test_unknown(self) -> None:
        """One that is not known is refused, raw or not."""
        for raw in (False, True):
            stream = chunked(b"Transfer-Encoding: br, chunked\r\n", b"hello")
            self.assertIs(refused(stream, raw=raw).kind, CodingMalformed)


class ExchangeTests(SynchronousTestCase):
    """What is as the response's reader has it."""

    def test_request(self) -> None:
        """The bytes to send are kept."""
        self.assertEqual(Exchange(b"GET / HTTP/1.1\r\n\r\n").request[:5], b"GET /")

    def test_order(self) -> None:
        """Interim responses, the head, the body and the end come in this order."""
        stream = (
            CONTINUE
            + OK
            + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunk(GZIP)
            + b"0\r\nT: 1\r\n\r\n"
        )
        for reads in ([stream], one_by_one(stream)):
            interim, head, body, end = heard(reads, decompress=True, eof=False)
            self.assertEqual(interim, InterimCame(CONTINUE, 100))
            assert isinstance(head, HeadCame)
            self.assertEqual(head.values(b"content-encoding"), [b"gzip"])
            self.assertEqual((body, end), (b"hello", ResponseEnded(((b"T", b"1"),))))

    def test_plain(self) -> None:
        """A body without codings comes as it is, to its end or the connection's."""
        for stream in (
            FIVE + b"hello",
            CHUNKED + chunk(b"hello") + b"0\r\n\r\n",
            TO_CLOSE + b"hello",
        ):
            for decompress in (False, True):
                self.assertEqual(
                    heard([stream], decompress=decompress)[1:],
                    [b"hello", ResponseEnded()],
                )

    def test_refusals(self) -> None:
        """A broken response is refused, and one that is cut short."""
        for stream, kind in (
            (b"", NothingCame),
            (b"nonsense\r\n\r\n", HeadMalformed),
            (FIVE[:-1], HeadMalformed),
            (FIVE + b"hell", BodyCutShort),
            (CHUNKED + b"5\r\nhello\r\n", BodyCutShort),
            (CHUNKED + b"zz\r\n", BodyMalformed),
        ):
            self.assertIs(refused(stream).kind, kind)

    def test_limits(self) -> None:
        """The limits are those that were given."""
        limits = Limits(interim=1)
        self.assertIsInstance(
            heard([CONTINUE + TO_CLOSE], limits=limits)[-1], ResponseEnded
        )
        self.assertIsInstance(heard([CONTINUE * 2], limits=limits)[-1], Refusal)

    def test_limit_of_codings(self) -> None:
        """Codings are counted up to the limit that was given."""
        for most in (0, 1, 6):
            limits = Limits(codings=most)
            coded = b"hello"
            for count in range(most + 2):
                names = b"gzip, " * count
                for stream in (
                    sized(b"Content-Encoding: %b\r\n" % names, coded),
                    chunked(b"Transfer-Encoding: %bchunked\r\n" % names, coded),
                ):
                    last = heard([stream], limits=limits, decompress=True)[-1]
                    if count <= most:
                        self.assertIsInstance(last, ResponseEnded)
                    else:
                        assert isinstance(last, Refusal), last
                        self.assertIs(last.kind, CodingMalformed)
                        self.assertTrue(last.words.endswith(f"than {most} codings"))
                coded = gzip.compress(coded)

    def test_limit_of_ratio(self) -> None:
        """A body may grow by as many times as the limit says, and not more."""
        self.patch(decoding, "RATIO_APPLIES_FROM", 1000)
        packed = gzip.compress(b"x" * 5000)
        self.patch(decoding, "RATIO_BLOCK", len(packed))
        ratio = -(-5000 // len(packed))
        stream = sized(b"Content-Encoding: gzip\r\n", packed)
        for limits, whole in (
            (Limits(ratio=ratio), True),
            (Limits(ratio=ratio - 1), False),
            (Limits(ratio=0), False),
        ):
            last = heard([stream], limits=limits, decompress=True)[-1]
            self.assertEqual(isinstance(last, ResponseEnded), whole)
            if isinstance(last, Refusal):
                self.assertIs(last.kind, TooLarge)
                self.assertIn(f"more than {limits.ratio} times", last.words)

    def test_method(self) -> None:
        """An answer to HEAD has no body, and tells the length that one would have."""
        head, end = heard([FIVE], method="HEAD", eof=False)
        assert isinstance(head, HeadCame)
        self.assertEqual((head.length, end), (5, ResponseEnded()))

    def test_after_the_end(self) -> None:
        """What is read later than the end of the response is ignored."""
        exchange = Exchange(b"", decompress=True)
        exchange.receive_data(sized(b"Content-Encoding: gzip\r\n", GZIP) + b"!")
        while not isinstance(exchange.next_event(), ResponseEnded):
            pass
        exchange.receive_data(b"more")
        exchange.receive_eof()
        self.assertIsNone(exchange.next_event())
        self.assertEqual(exchange.behind, b"!")

    def test_silent_after_an_error(self) -> None:
        """An error is told once, whoever raised it; later bytes change nothing."""
        coded = b"Content-Encoding: gzip\r\n"
        fields = coded + b"Transfer-Encoding: chunked\r\n"
        for stream in (
            b"nonsense\r\n\r\n" + FIVE,
            sized(b"Content-Encoding: br\r\n", b"hello"),
            sized(coded, GZIP[:-1]),
            chunked(fields, b"no gzip at all"),
            chunked(fields, GZIP + b"behind" + GZIP, len(GZIP)),
            sized(coded, gzip.compress(b"x" * 100)),
        ):
            exchange = Exchange(b"", decompress=True, largest_decoded=99)
            exchange.receive_data(stream)
            with self.assertRaises(SockprotoError):
                while exchange.next_event():
                    pass
            self.assertIsNone(exchange.next_event(), stream)
            exchange.receive_data(FIVE + b"hello")
            exchange.receive_eof()
            self.assertIsNone(exchange.next_event())
