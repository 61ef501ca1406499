"""
One response is read from its bytes alone, however the network chopped them.
"""

from __future__ import annotations

import dataclasses
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    CodingMalformed,
    HeadMalformed,
    NothingCame,
    SettingError,
    SockprotoError,
)
from sockproto.wire.response import (
    BARE_LF,
    CHUNKED_REPEATED,
    DEFAULT_LIMITS,
    FOLDED,
    INDENTED,
    LARGEST_LENGTH,
    LENGTH_BESIDE_CODING,
    LENGTH_REPEATED,
    BodyCame,
    BodyFraming,
    HeadCame,
    InterimCame,
    Limits,
    ResponseEnded,
    ResponseReader,
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
    from collections.abc import Callable, Iterable

PIECE = 64 * 1024


def heard(  # noqa: PLR0913
    reads: Iterable[bytes],
    *,
    eof: bool = True,
    patient: bool = False,
    method: str = "GET",
    limits: Limits = DEFAULT_LIMITS,
    raw: bool = False,
) -> list[Heard]:
    """
    What a reader says to these reads and then, perhaps, the end.

    The body is joined wherever its bytes stand together; an error comes last.
    Who is patient asks only when all has been read.
    """
    reader = ResponseReader(method, limits=limits, raw=raw)
    events: list[Heard] = []
    try:
        for read in reads:
            reader.receive_data(read)
            if not patient:
                hear(reader, events)
        if eof:
            reader.receive_eof()
        hear(reader, events)
    except SockprotoError as error:
        events.append(Refusal(type(error), str(error)))
    return events


def head_of(stream: bytes, method: str = "GET") -> HeadCame:
    """The head that a stream begins with."""
    head = heard([stream], eof=False, method=method)[0]
    assert isinstance(head, HeadCame), head
    return head


def with_fields(*lines: bytes) -> HeadCame:
    """The head of a response with these field lines."""
    return head_of(OK + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


def behind_head(stream: bytes, *, eof: bool = True) -> list[Heard]:
    """What is said after the head."""
    head, *behind = heard([stream], eof=eof)
    assert isinstance(head, HeadCame), head
    return behind


# Streams that keep the grammar in part, and what breaks it in each of its places.
FRAGMENTS = st.sampled_from(
    [
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"HTTP/2 ",
        b"HTT",
        b"200",
        b"100",
        b"101",
        b"204",
        b"304",
        b" ",
        b"\t",
        b"OK",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b"\xff",
        b":",
        b"X: y",
        b"Y:",
        b"Location: a",
        b"Location: b",
        b"Content-Length: 5",
        b"Content-Length: 6",
        b"Content-Length: -1",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: zstd, chunked",
        b"Transfer-Encoding: gzip",
        b"5\r\nhello\r\n",
        b"5;a=b\r\nhello\r\n",
        b"5\nhello\n",
        b"3\r\nabcXY",
        b"0\r\n",
        b"0\r\n\r\n",
        b"0" * 17,
        b"hello",
        b"x" * 70,
        OK,
        CONTINUE,
        FIVE,
        CHUNKED,
        TO_CLOSE,
    ]
)
STREAMS = st.builds(
    bytes.__add__,
    st.sampled_from([b"", b"", b"HTTP/1.1 ", OK, FIVE, CHUNKED, TO_CLOSE, CONTINUE]),
    st.lists(FRAGMENTS, max_size=20).map(b"".join),
)
LIMITS = st.one_of(
    st.just(DEFAULT_LIMITS),
    st.builds(
        Limits,
        head=st.integers(1, 150),
        line=st.integers(1, 100),
        fields=st.integers(0, 3),
        interim=st.integers(0, 2),
        chunk_line=st.integers(1, 12),
    ),
)
CUTS = st.lists(st.integers(0, 9999), max_size=8)

NAMES = st.from_regex(rb"X-[!#$%&'*+.^_`|~0-9A-Za-z-]{0,20}", fullmatch=True)
VALUES = (
    st.binary(max_size=40)
    .map(lambda data: bytes(byte for byte in data if byte not in b"\0\r\n"))
    .map(lambda data: data.strip(b" \t"))
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6).map(tuple)


def anyhow(test: Callable[..., None]) -> Callable[..., None]:
    """Have a test for any stream, cut in any way."""
    arbitrary = given(
        stream=STREAMS,
        cuts=CUTS,
        limits=LIMITS,
        eof=st.booleans(),
        raw=st.booleans(),
        method=st.sampled_from(["GET", "GET", "HEAD"]),
    )
    known = example(
        stream=CHUNKED + chunk(b"abc") + b"0\r\n\r\n",
        cuts=[50, 51, 52],
        limits=DEFAULT_LIMITS,
        eof=False,
        raw=True,
        method="GET",
    )
    return arbitrary(known(test))


class ChoppingTests(SynchronousTestCase):
    """However the network cuts a response, it is the same response."""

    @anyhow
    def test_skipping_changes_nothing(  # noqa: PLR0913, PLR0917
        self,
        stream: bytes,
        cuts: list[int],
        limits: Limits,
        eof: bool,
        raw: bool,
        method: str,
    ) -> None:
        """What is taken past the reader is what it would have handed out."""
        reader = ResponseReader(method, limits=limits, raw=raw)
        events: list[Heard] = []
        try:
            for read in chop(stream, cuts):
                size = min(reader.plain_left, len(read))
                if size:
                    reader.skip(size)
                    before = events.pop() if isinstance(events[-1], bytes) else b""
                    events.append(before + read[:size])  # type: ignore[operator]
                    hear(reader, events)
                reader.receive_data(read[size:])
                hear(reader, events)
            if eof:
                reader.receive_eof()
            hear(reader, events)
        except SockprotoError as error:
            events.append(Refusal(type(error), str(error)))
        expected = heard([stream], eof=eof, limits=limits, raw=raw, method=method)
        self.assertEqual(events, expected)

    @anyhow
    def test_chopping_changes_nothing(  # noqa: PLR0913, PLR0917
        self,
        stream: bytes,
        cuts: list[int],
        limits: Limits,
        eof: bool,
        raw: bool,
        method: str,
    ) -> None:
        """The same events, the same body and the same words come out."""

        def said(reads: list[bytes], *, patient: bool = False) -> list[Heard]:
            return heard(
                reads, eof=eof, patient=patient, method=method, limits=limits, raw=raw
            )

        whole = said([stream])
        self.assertEqual(said(one_by_one(stream)), whole)
        self.assertEqual(said(chop(stream, cuts)), whole)
        self.assertEqual(said(chop(stream, cuts), patient=True), whole)

    def test_no_status_line_within_a_small_limit(self) -> None:
        """What is no status line is called so in the same words at any limit."""
        for most in range(1, 80):
            for stream in (b"nonsense\r\n\r\n", b"HTTX\r\n", b"y" * 90 + b"\r\n"):
                for limits in (Limits(line=most), Limits(head=most)):
                    self.assertEqual(
                        heard(one_by_one(stream), limits=limits),
                        heard([stream], limits=limits),
                        (most, stream),
                    )

    @given(
        version=st.sampled_from(["1.0", "1.1"]),
        status=st.integers(200, 999).filter(lambda status: status not in {204, 304}),
        reason=VALUES,
        headers=FIELDS,
        body=st.lists(st.binary(min_size=1, max_size=300), max_size=5),
        framing=st.sampled_from(
            [BodyFraming.LENGTH, BodyFraming.CHUNKED, BodyFraming.CLOSE]
        ),
        trailers=FIELDS,
        cuts=CUTS,
    )
    def test_round_trip(  # noqa: PLR0913, PLR0917
        self,
        version: str,
        status: int,
        reason: bytes,
        headers: tuple[tuple[bytes, bytes], ...],
        body: list[bytes],
        framing: BodyFraming,
        trailers: tuple[tuple[bytes, bytes], ...],
        cuts: list[int],
    ) -> None:
        """A response that keeps the grammar is read as it was written."""
        data = b"".join(body)
        coded, length = data, None
        own = headers
        if framing == BodyFraming.LENGTH:
            length = len(data)
            own += ((b"Content-Length", b"%d" % length),)
        elif framing == BodyFraming.CHUNKED:
            version = "1.1"
            own += ((b"Transfer-Encoding", b"chunked"),)
            coded = b"".join(map(chunk, body)) + b"0\r\n"
            coded += b"".join(b"%b: %b\r\n" % field for field in trailers) + b"\r\n"
        raw = b"HTTP/%b %d %b\r\n" % (version.encode(), status, reason)
        raw += b"".join(b"%b: %b\r\n" % field for field in own) + b"\r\n"
        self.assertEqual(
            heard(chop(raw + coded, cuts)),
            [
                HeadCame(
                    raw,
                    version,
                    status,
                    reason.decode("latin-1"),
                    own,
                    framing,
                    length,
                ),
                *([data] if data else []),
                ResponseEnded(trailers if framing == BodyFraming.CHUNKED else ()),
            ],
        )

    def test_cut_short_at_any_byte(self) -> None:
        """A response that ends too early is never taken for a whole one."""
        lf_head = b"HTTP/1.1 200 OK\nContent-Length: 5\n\n"
        chunks = chunk(b"abc") + b"00A;x=y\r\n0123456789\r\n0\r\nT: 1\r\n U\r\n\r\n"
        folded = OK + b"A: b\r\n c\r\nTransfer-Encoding: chunked\r\n\r\n"
        for head, body in (
            (FIVE, b"hello"),
            (lf_head, b"hello"),
            (CONTINUE + FIVE, b"hello"),
            (CHUNKED, chunks),
            (CONTINUE * 2 + folded, chunks),
            (b"HTTP/1.1 204\r\n\r\n", b""),
        ):
            stream = head + body
            self.assertIsInstance(heard([stream])[-1], ResponseEnded)
            for end in range(len(stream)):
                expected: type[SockprotoError] = BodyCutShort
                if end == 0:
                    expected = NothingCame
                elif end < len(head):
                    expected = HeadMalformed
                for raw in (False, True):
                    last = heard([stream[:end]], raw=raw)[-1]
                    assert isinstance(last, Refusal)
                    self.assertIs(last.kind, expected, (stream, end))
                    if expected is HeadMalformed:
                        self.assertTrue(last.words.endswith("it is cut short"))
                # Without the connection's end there is nothing to complain about.
                waiting = heard([stream[:end]], eof=False)
                self.assertFalse(
                    any(isinstance(e, Refusal | ResponseEnded) for e in waiting)
                )


class StatusLineTests(SynchronousTestCase):
    """The first line (RFC 9112, section 4)."""

    def test_taken(self) -> None:
        """Version, status and reason are as received; a reason may be missing."""
        for line, expected in {
            b"HTTP/1.1 200 OK": ("1.1", 200, "OK"),
            b"HTTP/1.0 404 Not Found": ("1.0", 404, "Not Found"),
            b"HTTP/1.1 200": ("1.1", 200, ""),
            b"HTTP/1.1 200 ": ("1.1", 200, ""),
            b"HTTP/1.1 200  two  spaces\t": ("1.1", 200, "two  spaces"),
            b"HTTP/1.1 299 So \xe9 so": ("1.1", 299, "So \xe9 so"),
            b"HTTP/1.1 999 \x01\x7f": ("1.1", 999, "\x01\x7f"),
            b"HTTP/1.1 600 200 OK": ("1.1", 600, "200 OK"),
        }.items():
            head = head_of(line + b"\r\n\r\n")
            self.assertEqual((head.version, head.status, head.reason), expected, line)
            self.assertEqual((head.raw, head.notes), (line + b"\r\n\r\n", ()))

    def test_other_versions(self) -> None:
        """Another version than HTTP/1.1 and HTTP/1.0 is named in the refusal."""
        for line, version in {
            b"HTTP/2 200": b"HTTP/2",
            b"HTTP/0.9 200 OK": b"HTTP/0.9",
            b"HTTP/1.2 200 OK": b"HTTP/1.2",
            b"HTTP/1.10 200 OK": b"HTTP/1.10",
            b"HTTP/01.1 200 OK": b"HTTP/01.1",
            b"HTTP/3 junk": b"HTTP/3",
        }.items():
            (refusal,) = heard([line + b"\r\n\r\n"], eof=False)
            assert isinstance(refusal, Refusal)
            self.assertIs(refusal.kind, HeadMalformed)
            self.assertIn(f"its version is {version!r}, where", refusal.words)

    def test_malformed(self) -> None:
        """A first line that breaks the grammar is shown."""
        for line in (
            b"HTTP/",
            b"HTTP/1.1",
            b"HTTP/1.1 ",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 000 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 -20 OK",
            b"HTTP/1.1 2\xb20 OK",
            b"HTTP/1.1 200OK",
            b"HTTP/1.1 200\tOK",
            b"HTTP/1.1 200\r",
            b"HTTP/1.1 OK",
            b"HTTP/x 200 OK",
            b"HTTP/ 200 OK",
        ):
            (refusal,) = heard([line + b"\r\n\r\n"], eof=False)
            assert isinstance(refusal, Refusal)
            self.assertIs(refusal.kind, HeadMalformed)
            self.assertTrue(refusal.words.endswith(f"{line!r} is no status line"), line)

    def test_bare_cr_or_nul(self) -> None:
        """Neither a CR that ends no line nor a NUL is in a reason."""
        for line in (
            b"HTTP/1.1 200 O\0K",
            b"HTTP/1.1 200 OK\r",
            b"HTTP/1.1 200 OK\rSet-Cookie: a",
        ):
            (refusal,) = heard([line + b"\r\n\r\n"], eof=False)
            assert isinstance(refusal, Refusal)
            self.assertIs(refusal.kind, HeadMalformed)
            self.assertIn("a bare CR or a NUL", refusal.words)

    def test_no_status_line(self) -> None:
        """What speaks another protocol is refused at its first line, and shown."""
        for stream, seen in {
            b"\r\n": b"\r\n",
            b"\n": b"\n",
            b" HTTP/1.1 200 OK\r\n": b" HTTP/1.1 200 OK\r\n",
            b"http/1.1 200 OK\r\n": b"http/1.1 200 OK\r\n",
            b"HTT\r\n": b"HTT\r\n",
            b"ICY 200 OK\r\n": b"ICY 200 OK\r\n",
            b"220 mail.example.com ESMTP\r\n": b"220 mail.example.com ESMTP\r\n",
            b"\0\xff\n": b"\0\xff\n",
            b"x" * 64: b"x" * 64,
            b"x" * 99 + b"\r\n": b"x" * 64,
        }.items():
            (refusal,) = heard([stream], eof=False)
            assert isinstance(refusal, Refusal)
            self.assertIs(refusal.kind, HeadMalformed)
            self.assertTrue(
                refusal.words.endswith(
                    f"it does not begin with a status line but {seen!r}"
                ),
                refusal,
            )

    def test_incomplete(self) -> None:
        """What may still become a status line is waited for; at the end it is not."""
        for prefix in (b"H", b"HTTP", b"HTTP/1.1 200 " + b"x" * 100):
            self.assertEqual(heard([prefix], eof=False), [])
            self.assertEqual(
                heard([prefix]),
                [
                    Refusal(
                        HeadMalformed,
                        "the head of the response is malformed: it is cut short",
                    )
                ],
            )
        self.assertEqual(heard([b"SSH-2"], eof=False), [])
        (refusal,) = heard([b"SSH-2"])
        assert isinstance(refusal, Refusal)
        self.assertTrue(refusal.words.endswith("a status line but b'SSH-2'"))


class FieldTests(SynchronousTestCase):
    """The field lines of a head (RFC 9112, section 5)."""

    def refused(self, *lines: bytes) -> str:
        """The words with which these field lines are refused."""
        stream = OK + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
        (refusal,) = heard([stream], eof=False)
        assert isinstance(refusal, Refusal), refusal
        self.assertIs(refusal.kind, HeadMalformed)
        return refusal.words

    def test_as_received(self) -> None:
        """Names and values are as received, in order, repeated ones too."""
        head = with_fields(b"B: 2", b"a:1", b"B:\t \xff \t", b"C:", b"d: a:b")
        self.assertEqual(
            head.headers,
            ((b"B", b"2"), (b"a", b"1"), (b"B", b"\xff"), (b"C", b""), (b"d", b"a:b")),
        )
        self.assertEqual(head.values(b"b"), [b"2", b"\xff"])
        self.assertEqual(head.values(b"x"), [])
        self.assertEqual(head.notes, ())

    def test_raw(self) -> None:
        """The exact bytes of each head are kept, and none of the body's."""
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        head = b"HTTP/1.1 200   odd  \r\n X:\nX-a:  1 \r\nX-A:2\nx-f: 1\r\n\t2\r\n\r\n"
        self.assertEqual(
            [
                event.raw
                for event in heard([interim * 2 + head + b"body"])
                if isinstance(event, InterimCame | HeadCame)
            ],
            [interim, interim, head],
        )

    def test_control_characters(self) -> None:
        """Control characters other than NUL, CR and LF stay in a value."""
        value = bytes(byte for byte in range(1, 256) if byte not in b"\r\n")
        self.assertEqual(
            with_fields(b"X: a" + value + b"b").headers, ((b"X", b"a%bb" % value),)
        )

    def test_bare_cr_or_nul(self) -> None:
        """A NUL, or a CR that ends no line, is refused wherever it is."""
        for line in (
            b"X: a\0b",
            b"X\0: a",
            b"X: a\rb",
            b"X: a\r",
            b"X\r: a",
            b"\rX: a",
            b"X: a\rSet-Cookie: b",
            b"\0",
            b"\r",
            b" \0",
        ):
            self.assertIn(f"a bare CR or a NUL is in {line!r}", self.refused(line))
        self.assertIn("a bare CR or a NUL", self.refused(b"X: a", b" b\0"))
        self.assertIn("a bare CR or a NUL", self.refused(b"X: a", b" b\r c"))

    def test_names(self) -> None:
        """A name is a token, and nothing stands between it and its colon."""
        for name in (
            b"",
            b"X ",
            b"X\t",
            b"X y",
            b"Content-Length ",
            b"Transfer-Encoding\x0b",
            b"(X)",
            b'"X"',
            b"X/Y",
            b"X@",
            b"\xff",
            b"\x7f",
            b"\xc3\xa9",
        ):
            self.assertIn(f"{name!r} is no field name", self.refused(name + b": 5"))
        every = b"!#$%&'*+-.^_`|~09azAZ"
        self.assertEqual(with_fields(every + b":1").headers, ((every, b"1"),))

    def test_no_colon(self) -> None:
        """A line without a colon is no field; of a long one 64 bytes are shown."""
        self.assertIn(
            "no colon is in the field line b'HTTP/1.1 200 OK'",
            self.refused(b"HTTP/1.1 200 OK"),
        )
        line = b"x" * 65
        self.assertTrue(self.refused(line).endswith(f"{line[:64]!r}..."))
        self.assertTrue(self.refused(line[:64]).endswith(f"{line[:64]!r}"))

    def test_folded(self) -> None:
        """A folded value is one value, its parts joined by a space, and noted."""
        for lines, value in (
            ((b"A: b", b"  c "), b"b c"),
            ((b"A: b", b"\tc", b" d: e"), b"b c d: e"),
            ((b"A:", b" c"), b"c"),
            ((b"A:", b" ", b"\t", b" c", b" d"), b"c d"),
            ((b"A: b", b" ", b" c"), b"b c"),
            ((b"A: b", b" \t"), b"b"),
            ((b"A:", b" "), b""),
        ):
            head = with_fields(*lines, b"Z: 1")
            self.assertEqual(head.headers, ((b"A", value), (b"Z", b"1")), lines)
            self.assertEqual(head.notes, (FOLDED,))

    def test_folded_framing(self) -> None:
        """A fold hides no framing: what is judged is the whole value."""
        head = with_fields(b"Transfer-Encoding:", b" chunked")
        self.assertEqual(head.framing, BodyFraming.CHUNKED)
        self.assertIn("no number", self.refused(b"Content-Length: 5", b" 6"))

    def test_indented_start(self) -> None:
        """A field that is indented, with none before it, is dropped and noted."""
        head = with_fields(b" Content-Length: 5", b"\tno name: 5", b"A: b")
        self.assertEqual(head.headers, ((b"A", b"b"),))
        self.assertEqual(head.notes, (INDENTED,))
        self.assertEqual(head.framing, BodyFraming.CLOSE)
        for line in (b" ", b"\t", b" no field"):
            self.assertIn(f"no colon is in the field line {line!r}", self.refused(line))

    def test_blank_is_not_empty(self) -> None:
        """Only an empty line ends a head, not one of spaces."""
        stream = OK + b"A: b\r\n \r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(head_of(stream).raw, stream)

    def test_bare_lf(self) -> None:
        """Lines may end in LF alone (RFC 9112, section 2.2), which is noted once."""
        for stream in (
            b"HTTP/1.1 200 OK\nA: b\n\n",
            b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n\n",
        ):
            head = head_of(stream + b"\nbody")
            self.assertEqual(head.raw, stream)
            self.assertEqual((head.reason, head.headers), ("OK", ((b"A", b"b"),)))
            self.assertEqual(head.notes, (BARE_LF,))

    def test_notes_in_order(self) -> None:
        """What was odd is noted in the order in which it came."""
        head = head_of(
            OK + b" a:\r\nX: 1\n 2\r\nTransfer-Encoding: chunked, chunked\r\n"
            b"Content-Length: 5, 5\r\n\r\n"
        )
        self.assertEqual(
            head.notes,
            (
                INDENTED,
                BARE_LF,
                FOLDED,
                LENGTH_REPEATED,
                CHUNKED_REPEATED,
                LENGTH_BESIDE_CODING,
            ),
        )

    def test_location(self) -> None:
        """Two places to go to are refused, if they are not the same."""
        head = with_fields(b"Location: /a", b"location: /a")
        self.assertEqual(head.values(b"location"), [b"/a", b"/a"])
        self.assertIn(
            "several Location fields", self.refused(b"Location: /a", b"LOCATION: /b")
        )


class LimitTests(SynchronousTestCase):
    """How much is taken: as much as a limit says, and not a byte more."""

    def taken(self, stream: bytes, limits: Limits) -> None:
        """This is a whole response within these limits."""
        self.assertIsInstance(heard([stream], limits=limits)[-1], ResponseEnded)

    def refused(
        self,
        stream: bytes,
        limits: Limits,
        words: str,
        kind: type[SockprotoError] = HeadMalformed,
    ) -> None:
        """This passes these limits, and is refused so, however it is read."""
        for reads in ([stream], one_by_one(stream)):
            last = heard(reads, limits=limits, eof=False)[-1]
            assert isinstance(last, Refusal), last
            self.assertIs(last.kind, kind)
            self.assertTrue(last.words.endswith(words), last)

    def test_defaults(self) -> None:
        """They are those of curl, where it has some."""
        self.assertEqual(
            Limits(),
            Limits(
                head=307_200,
                line=102_400,
                fields=5000,
                interim=20,
                chunk_line=1024,
                chunk_digits=16,
                codings=5,
                ratio=100,
            ),
        )

    def test_bad_values(self) -> None:
        """A limit that is none is refused by its name; 0 and the largest are some."""
        for name in (field.name for field in dataclasses.fields(Limits)):
            for bad in (-1, 1.0, "5", None, True, sys.maxsize + 1):
                options: dict[str, Any] = {name: bad}
                with self.assertRaises(SettingError) as caught:
                    Limits(**options)
                self.assertEqual(
                    (caught.exception.name, caught.exception.seen), (name, bad)
                )
                with self.assertRaises(SettingError):
                    dataclasses.replace(Limits(), **options)
            for good in (0, sys.maxsize):
                self.assertEqual(getattr(Limits(**{name: good}), name), good)

    def test_chunk_digits(self) -> None:
        """A chunk's size has as many digits as the limit says."""
        rest = b"\r\nhello\r\n0\r\n\r\n"
        for digits in (1, 2, 16, 17, 100):
            limits = Limits(chunk_digits=digits)
            self.taken(CHUNKED + b"5".zfill(digits) + rest, limits)
            self.refused(
                CHUNKED + b"5".zfill(digits + 1) + rest,
                limits,
                f"has more than {digits} digits",
                BodyMalformed,
            )

    def test_no_chunk_line(self) -> None:
        """A limit of 0 bytes is one, and not the absence of one."""
        self.refused(
            CHUNKED + b"0\r\n\r\n",
            Limits(chunk_line=0),
            "a line is longer than the 0 bytes allowed",
            BodyMalformed,
        )

    def test_head(self) -> None:
        """The bytes of all heads together are bounded, interim ones included."""
        for before in (b"", CONTINUE, CONTINUE * 3):
            stream = before + FIVE
            self.taken(stream + b"hello", Limits(head=len(stream)))
            self.refused(
                stream + b"hello",
                Limits(head=len(stream) - 1),
                f"more than {len(stream) - 1} bytes of fields came",
            )

    def test_line(self) -> None:
        """The bytes of a line are bounded, its end included."""
        for name in (b"X: ", b" "):
            line = name + b"y" * 50 + b"\r\n"
            stream = OK + b"A: b\r\n" + line + b"\r\n"
            self.taken(stream, Limits(line=len(line)))
            self.refused(
                stream,
                Limits(line=len(line) - 1),
                f"a line is longer than the {len(line) - 1} bytes allowed",
            )
        self.taken(TO_CLOSE, Limits(line=len(OK)))
        self.refused(TO_CLOSE, Limits(line=len(OK) - 1), "16 bytes allowed")

    def test_default_line(self) -> None:
        """Unless told otherwise, a line has at most 100 KiB."""
        for extra in (0, 1):
            line = b"X: " + b"y" * (102_400 - 5 + extra) + b"\r\n"
            last = heard([OK + line + b"\r\n"])[-1]
            self.assertEqual(isinstance(last, Refusal), bool(extra))

    def test_fields(self) -> None:
        """The number of fields of a head is bounded; a fold is no further one."""
        lines = b"A: 1\r\n 2\r\nB: 3\r\n"
        self.taken(OK + lines + b"\r\n", Limits(fields=2))
        self.refused(
            OK + lines + b"C: 4\r\n\r\n",
            Limits(fields=2),
            "it has more than 2 fields",
        )
        self.taken(OK + b"A:\r\n" * 5000 + b"\r\n", Limits())
        last = heard([OK + b"A:\r\n" * 5001 + b"\r\n"])[-1]
        assert isinstance(last, Refusal)
        self.assertTrue(last.words.endswith("it has more than 5000 fields"))

    def test_interim(self) -> None:
        """A server that announces without end is refused (as CVE-2021-3737)."""
        self.taken(CONTINUE * 20 + TO_CLOSE, Limits())
        events = heard([CONTINUE * 21], eof=False)
        self.assertEqual(events[:-1], [InterimCame(CONTINUE, 100)] * 20)
        last = events[-1]
        assert isinstance(last, Refusal)
        self.assertIs(last.kind, HeadMalformed)
        self.assertTrue(last.words.endswith("more than 20 interim responses came"))

    def test_chunk_line(self) -> None:
        """A chunk's size and extensions have 1 KiB (as CVE-2023-39326)."""
        rest = b"hello\r\n0\r\n\r\n"
        self.taken(CHUNKED + b"5;" + b"x" * 1020 + b"\r\n" + rest, Limits())
        self.refused(
            CHUNKED + b"5;" + b"x" * 1021 + b"\r\n" + rest,
            Limits(),
            "a line is longer than the 1024 bytes allowed",
            BodyMalformed,
        )
        # Its end is not waited for.
        self.refused(
            CHUNKED + b"0" * 1025, Limits(), "1024 bytes allowed", BodyMalformed
        )

    def test_trailers(self) -> None:
        """Trailers have the limits of a head once more."""
        trailers = b"T: 1\r\nU: 2\r\n\r\n"
        stream = CONTINUE + CHUNKED + b"0\r\n" + trailers
        heads = len(CONTINUE + CHUNKED)
        self.taken(stream, Limits(head=heads, fields=2, line=100))
        long = b"T: " + b"x" * heads + b"\r\n\r\n"
        self.refused(
            CONTINUE + CHUNKED + b"0\r\n" + long,
            Limits(head=heads),
            f"more than {heads} bytes of fields came",
            BodyMalformed,
        )
        self.refused(
            CHUNKED + b"0\r\n" + trailers,
            Limits(fields=1),
            "it has more than 1 fields",
            BodyMalformed,
        )
        self.refused(
            CHUNKED + b"0\r\nT: " + b"x" * 100,
            Limits(line=40),
            "a line is longer than the 40 bytes allowed",
            BodyMalformed,
        )

    def test_endless(self) -> None:
        """What has no end is refused at its limit, and no more of it is held."""
        # As curl's CVE-2023-38039, and those of http.client.
        for start, filler, most in (
            (b"", b"HTTP/1.1 200 " + b"x" * PIECE, 100 * 1024),
            (OK + b"X: ", b"x" * PIECE, 100 * 1024),
            (OK, b"X: y\r\n" * (PIECE // 6), 300 * 1024),
            (OK, (b"X: " + b"y" * 1021) * 64, 100 * 1024),
            (OK, (b"X: " + b"y" * 1019 + b"\r\n") * 64, 300 * 1024),
            (OK + b"A: b\r\n", b" \n" * (PIECE // 2), 300 * 1024),
            (OK, b" x:\n" * (PIECE // 4), 300 * 1024),
            (CHUNKED + b"5;", b"x" * PIECE, 1024),
            (CHUNKED + b"0\r\n", (b"X: " + b"y" * 1019 + b"\r\n") * 64, 300 * 1024),
        ):
            reader = ResponseReader()
            tracemalloc.start()
            try:
                reader.receive_data(start)
                came = 0
                with self.assertRaises(SockprotoError) as caught:
                    while came < 2 * most + 3 * PIECE:
                        while (event := reader.next_event()) is not None:
                            self.assertIsInstance(event, HeadCame)
                        reader.receive_data(filler)
                        came += len(filler)
                self.assertIsInstance(caught.exception, (HeadMalformed, BodyMalformed))
                self.assertLessEqual(came, most + 2 * PIECE)
                # Bytes of a field, the objects of many small ones, and a read.
                held, peak = tracemalloc.get_traced_memory()
                self.assertLess(held, 3 * most + 3 * PIECE)
                self.assertLess(peak, 3 * 1024 * 1024)
            finally:
                tracemalloc.stop()

    def test_many_folds(self) -> None:
        """A value that is folded a hundred thousand times comes out whole."""
        stream = OK + b"A: b\r\n" + b" c\n" * 95_000 + b"\r\n"
        head = head_of(stream)
        self.assertEqual(len(head.headers[0][1]), 1 + 2 * 95_000)

    def test_claims_cost_nothing(self) -> None:
        """A number that the peer only claims reserves no memory."""
        for stream in (
            OK + b"Content-Length: %d\r\n\r\nhello" % LARGEST_LENGTH,
            CHUNKED + b"f" * 16 + b"\r\nhello",
        ):
            tracemalloc.start()
            try:
                head, body, refusal = heard([stream])
                self.assertLess(tracemalloc.get_traced_memory()[1], 256 * 1024)
            finally:
                tracemalloc.stop()
            self.assertIsInstance(head, HeadCame)
            self.assertEqual(body, b"hello")
            assert isinstance(refusal, Refusal)
            self.assertIs(refusal.kind, BodyCutShort)


class ContentLengthTests(SynchronousTestCase):
    """What Content-Length promises (RFC 9110, section 8.6; RFC 9112, section 6.3)."""

    def test_taken(self) -> None:
        """One number, or several equal ones, which are noted."""
        for lines, length, notes in (
            ((b"Content-Length: 5",), 5, ()),
            ((b"content-length:5",), 5, ()),
            ((b"CONTENT-LENGTH: \t5\t",), 5, ()),
            ((b"Content-Length: 0",), 0, ()),
            ((b"Content-Length: 0000",), 0, ()),
            ((b"Content-Length: 005",), 5, ()),
            ((b"Content-Length: " + b"0" * 5000 + b"5",), 5, ()),
            ((b"Content-Length: %d" % LARGEST_LENGTH,), 2**63 - 1, ()),
            ((b"Content-Length: 5", b"Content-Length: 5"), 5, (LENGTH_REPEATED,)),
            ((b"Content-Length: 5", b"Content-Length: 05"), 5, (LENGTH_REPEATED,)),
            ((b"Content-Length: 5, 5",), 5, (LENGTH_REPEATED,)),
            ((b"Content-Length: 5\t,5 , 5",), 5, (LENGTH_REPEATED,)),
        ):
            head = with_fields(*lines)
            self.assertEqual((head.length, head.notes), (length, notes), lines)
            self.assertEqual(head.framing, BodyFraming.LENGTH)
            self.assertTrue(head.self_delimiting)

    def refused(self, *values: bytes) -> str:
        """The words with which these Content-Lengths are refused."""
        fields = b"".join(b"Content-Length: %b\r\n" % value for value in values)
        (refusal,) = heard([OK + fields + b"\r\nhello"], eof=False)
        assert isinstance(refusal, Refusal), (values, refusal)
        self.assertIs(refusal.kind, HeadMalformed)
        return refusal.words

    def test_no_number(self) -> None:
        """Decimal digits are a number, and nothing else is."""
        for value in (
            b"",
            b"-1",
            b"-0",
            b"+5",
            b"5.0",
            b"5e3",
            b"0x5",
            b"1_0",
            b"5 5",
            b"5;q=1",
            b"five",
            b"\xd9\xa5",
            b"\xb2",
            b"5\x0b",
            b"5,",
            b",5",
            b",",
            b"5,,5",
            b"5, six",
        ):
            self.assertIn(
                f"Content-Length is {value!r}, no number", self.refused(value)
            )

    def test_too_large(self) -> None:
        """What no file can have is refused, in however many digits it is said."""
        for value in (
            b"%d" % (LARGEST_LENGTH + 1),
            b"0%d" % (LARGEST_LENGTH + 1),
            b"18446744073709551621",  # 5, in 64 bits
            b"9" * 20,
            b"1" + b"0" * 20,
            b"9" * 5000,
        ):
            words = self.refused(value)
            self.assertTrue(
                words.endswith(f"above the {2**63 - 1} that a file can have")
            )
            self.assertLess(len(words), 250)

    def test_differing(self) -> None:
        """Two lengths are two responses to whom reads after us: neither is taken."""
        self.assertTrue(
            self.refused(b"5", b"6").endswith("its Content-Lengths differ: 5, 6")
        )
        self.assertIn("differ: 5, 6", self.refused(b"5, 6"))
        self.assertIn("differ: 5, 5, 0", self.refused(b"5", b"5, 0"))
        many = b", ".join(b"%d" % number for number in range(9))
        self.assertTrue(self.refused(many).endswith("differ: 0, 1, 2, 3, 4"))
        self.assertIn("no number", self.refused(b"5", b"x"))

    def test_body(self) -> None:
        """A body of a promised length ends without the connection."""
        self.assertEqual(
            behind_head(FIVE + b"hello", eof=False), [b"hello", ResponseEnded()]
        )
        self.assertEqual(
            behind_head(OK + b"Content-Length: 0\r\n\r\n", eof=False), [ResponseEnded()]
        )

    def test_cut_short(self) -> None:
        """A body that ends early says how much came of how much."""
        for came in range(5):
            last = behind_head(FIVE + b"hello"[:came])[-1]
            self.assertEqual(
                last,
                Refusal(
                    BodyCutShort, f"the body was cut short: {came} of 5 bytes came"
                ),
            )


class TransferEncodingTests(SynchronousTestCase):
    """Which codings a body has underway (RFC 9112, sections 6.1 and 7)."""

    def test_taken(self) -> None:
        """What ends in chunked, the codings under it being known."""
        for lines, codings, notes in (
            ((b"chunked",), (), ()),
            ((b"CHUNKED",), (), ()),
            ((b", ,chunked,",), (), ()),
            ((b"chunked", b"chunked"), (), (CHUNKED_REPEATED,)),
            ((b"chunked, Chunked",), (), (CHUNKED_REPEATED,)),
            ((b"chunked, chunked, chunked",), (), (CHUNKED_REPEATED,)),
            ((b"gzip, chunked",), ("gzip",), ()),
            ((b"GZip\t,\tchunked",), ("gzip",), ()),
            ((b"gzip", b"chunked"), ("gzip",), ()),
            ((b"deflate, x-gzip, chunked",), ("deflate", "x-gzip"), ()),
            ((b"identity, chunked",), ("identity",), ()),
            ((b"gzip, chunked, chunked",), ("gzip",), (CHUNKED_REPEATED,)),
        ):
            head = with_fields(*(b"Transfer-Encoding: " + line for line in lines))
            self.assertEqual((head.transfer_codings, head.notes), (codings, notes))
            self.assertEqual((head.framing, head.length), (BodyFraming.CHUNKED, None))
            self.assertTrue(head.self_delimiting)

    def refused(self, *values: bytes, start: bytes = OK) -> Refusal:
        """The refusal of these Transfer-Encodings, body or no body."""
        fields = b"".join(b"Transfer-Encoding: %b\r\n" % value for value in values)
        stream = start + fields + b"\r\n5\r\nhello\r\n0\r\n\r\n"
        (refusal,) = heard([stream], eof=False)
        assert isinstance(refusal, Refusal), (values, refusal)
        self.assertEqual(heard([stream], eof=False, method="HEAD"), [refusal])
        return refusal

    def test_not_chunked_last(self) -> None:
        """A body whose last coding is another has no end of its own."""
        for value in (
            b"",
            b",",
            b"gzip",
            b"identity",
            b"chunked, gzip",
            b"chunked, identity",
            b"chunked;a=b",
            b"xchunked",
            b"x chunked",
            b"\x0bchunked",
            b"chunked\x0b",
            b'"chunked"',
            b"chun\xe2\x84\xaaed",
        ):
            self.assertEqual(
                self.refused(value),
                Refusal(
                    HeadMalformed,
                    "the head of the response is malformed: Transfer-Encoding is"
                    f" {value!r}, not chunked last",
                ),
            )
        self.assertIn("b'chunked, gzip'", self.refused(b"chunked", b"gzip").words)

    def test_chunked_below_another(self) -> None:
        """A body is not chunked twice, with another coding between."""
        refusal = self.refused(b"chunked, gzip, chunked")
        self.assertIs(refusal.kind, HeadMalformed)
        self.assertTrue(refusal.words.endswith("twice chunked"))

    def test_unknown(self) -> None:
        """A coding that nobody asked for is named; of a long one 64 characters."""
        for value, named in {
            b"compress, chunked": "compress",
            b"br, gzip, chunked": "br",
            b"gzip;a=b, chunked": "gzip;a=b",
            b"gzip chunked, chunked": "gzip chunked",
            b"x" * 99 + b",chunked": "x" * 64,
            b"\xff, chunked": "\xff",
        }.items():
            self.assertEqual(
                self.refused(value),
                Refusal(
                    CodingMalformed,
                    "the body cannot be decoded: the transfer coding"
                    f" {named!r} is not known",
                ),
            )

    def test_in_http_1_0(self) -> None:
        """HTTP/1.0 knows no transfer codings, so that one of its own is a fault."""
        for value in (b"chunked", b"gzip", b""):
            refusal = self.refused(value, start=b"HTTP/1.0 200 OK\r\n")
            self.assertIs(refusal.kind, HeadMalformed)
            self.assertTrue(refusal.words.endswith("is in a response of HTTP/1.0"))

    def test_beats_content_length(self) -> None:
        """A Content-Length beside it is disregarded, and noted."""
        for fields in (
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        ):
            head, body, end = heard(
                [OK + fields + b"\r\n" + b"5\r\nhello\r\n0\r\n\r\n"]
            )
            assert isinstance(head, HeadCame)
            self.assertEqual((head.framing, head.length), (BodyFraming.CHUNKED, None))
            self.assertEqual(head.notes, (LENGTH_BESIDE_CODING,))
            self.assertEqual((body, end), (b"hello", ResponseEnded()))


class FramingTests(SynchronousTestCase):
    """Where a body ends (RFC 9112, section 6.3)."""

    def test_no_body(self) -> None:
        """204, 304 and answers to HEAD have no body, whatever their heads say."""
        for method, status in (
            ("GET", 204),
            ("GET", 304),
            ("HEAD", 200),
            ("HEAD", 404),
        ):
            for field, notes in (
                (b"", ()),
                (b"Content-Length: 5\r\n", ()),
                (b"Transfer-Encoding: gzip, chunked\r\n", ()),
            ):
                stream = b"HTTP/1.1 %d\r\n%b\r\n" % (status, field)
                reader = ResponseReader(method)
                reader.receive_data(stream + b"junk")
                head = reader.next_event()
                assert isinstance(head, HeadCame)
                self.assertEqual(head.framing, BodyFraming.NONE)
                self.assertEqual((head.transfer_codings, head.notes), ((), notes))
                self.assertTrue(head.self_delimiting)
                self.assertEqual(reader.next_event(), ResponseEnded())
                self.assertEqual(reader.behind, b"junk")

    def test_method_is_exact(self) -> None:
        """Methods differ by case: `head` is not HEAD."""
        self.assertEqual(
            heard([FIVE + b"hello"], method="head")[1:], [b"hello", ResponseEnded()]
        )

    def test_interim(self) -> None:
        """Interim responses come before the final one, and have no body."""
        hints = b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n"
        self.assertEqual(
            heard([CONTINUE + hints + FIVE + b"hello"]),
            [
                InterimCame(CONTINUE, 100),
                InterimCame(hints, 103),
                head_of(FIVE),
                b"hello",
                ResponseEnded(),
            ],
        )
        self.assertIn(
            "no field name", str(heard([b"HTTP/1.1 100 Go\r\nA : b\r\n\r\n"]))
        )

    def test_switching(self) -> None:
        """101 is refused: nobody asked for another protocol."""
        self.assertEqual(
            heard([CONTINUE + b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n"])[-1],
            Refusal(
                HeadMalformed,
                "the head of the response is malformed: 101 switches to a protocol"
                " that was not asked for",
            ),
        )

    def test_read_to_close(self) -> None:
        """Without a length the body is what comes until the connection ends."""
        head = head_of(TO_CLOSE)
        self.assertEqual((head.framing, head.length), (BodyFraming.CLOSE, None))
        self.assertFalse(head.self_delimiting)
        self.assertEqual(behind_head(TO_CLOSE + b"hello", eof=False), [b"hello"])
        self.assertEqual(behind_head(TO_CLOSE + b"hello"), [b"hello", ResponseEnded()])
        self.assertEqual(behind_head(TO_CLOSE), [ResponseEnded()])

    def test_nothing_came(self) -> None:
        """A connection that ends at once is told apart from a broken head."""
        for reads in ([], [b""]):
            self.assertEqual(
                heard(reads),
                [Refusal(NothingCame, "the peer closed without sending anything")],
            )

    def test_behind(self) -> None:
        """Bytes behind the response are no part of it, nor an error."""
        for stream in (
            FIVE + b"hello",
            CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
            CHUNKED + b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n",
        ):
            for behind in (b"", b"x", TO_CLOSE, b"\0" * 100):
                reader = ResponseReader()
                reader.receive_data(stream + behind)
                while not reader.ended:
                    self.assertEqual(reader.behind, b"")
                    self.assertIsNotNone(reader.next_event())
                self.assertEqual(reader.behind, behind)

    def test_after_the_end(self) -> None:
        """What is read later than the end of the response is ignored."""
        reader = ResponseReader()
        reader.receive_data(FIVE + b"hello!")
        while not isinstance(reader.next_event(), ResponseEnded):
            pass
        reader.receive_data(b"more")
        reader.receive_eof()
        reader.receive_eof()
        reader.receive_data(b"late")
        self.assertIsNone(reader.next_event())
        self.assertEqual((reader.behind, reader.ended), (b"!", True))

    def test_silent_after_an_error(self) -> None:
        """An error is told once; later bytes change nothing."""
        for stream in (
            b"nonsense\r\n\r\n",
            OK + b"A : b\r\n\r\n",
            OK + b"Transfer-Encoding: br, chunked\r\n\r\n",
            CHUNKED + b"zz\r\n",
        ):
            reader = ResponseReader()
            reader.receive_data(stream + FIVE)
            with self.assertRaises(SockprotoError):
                while reader.next_event():
                    pass
            reader.receive_data(FIVE + b"hello")
            reader.receive_eof()
            self.assertIsNone(reader.next_event())
            self.assertEqual((reader.behind, reader.ended), (b"", False))

    def test_whole_reads_are_not_copied(self) -> None:
        """A read that is all body is handed on as it is."""
        read = b"x" * PIECE
        for start in (
            TO_CLOSE,
            OK + b"Content-Length: 1000000\r\n\r\n",
            CHUNKED + b"fffff\r\n",
        ):
            reader = ResponseReader()
            reader.receive_data(start)
            while reader.next_event():
                pass
            reader.receive_data(read)
            event = reader.next_event()
            assert isinstance(event, BodyCame)
            self.assertIs(event.data, read)


class ChunkTests(SynchronousTestCase):
    """The chunked coding (RFC 9112, section 7.1)."""

    def test_framing_is_taken_off(self) -> None:
        """Sizes, extensions and line ends are no part of the body."""
        stream = (
            CHUNKED
            + b"3;a=b\r\nabc\r\n"
            + b"00A\r\n\r\n\r\n\0\0\0\0\0\0\r\n"
            + b'a \t;x="y;z"\xff\x01\r\n0123456789\r\n'
            + b"1 \r\n!\r\n"
            + b"0" * 15
            + b"1\r\n?\r\n"
            + b"000;x\r\n\r\n"
        )
        self.assertEqual(
            behind_head(stream, eof=False),
            [b"abc\r\n\r\n\0\0\0\0\0\x000123456789!?", ResponseEnded()],
        )
        self.assertEqual(behind_head(CHUNKED + b"0\r\n\r\n"), [ResponseEnded()])

    def refused(self, broken: bytes) -> str:
        """The words with which this is refused behind a good chunk."""
        stream = CHUNKED + chunk(b"good") + broken
        events = heard([stream], eof=False)
        self.assertEqual(heard(one_by_one(stream), eof=False), events)
        _, body, last = events
        assert isinstance(body, bytes)
        self.assertTrue(body.startswith(b"good"))
        assert isinstance(last, Refusal), broken
        self.assertIs(last.kind, BodyMalformed, broken)
        return last.words

    def test_no_size(self) -> None:
        """A size is hexadecimal digits, and its line ends in CRLF."""
        for line in (
            b"zz\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x5\r\n",
            b"1_0\r\n",
            b" 5\r\n",
            b"\t5\r\n",
            b"5 5\r\n",
            b"5,\r\n",
            b"\r\n",
            b";a=b\r\n",
            b"\xb2\r\n",
            b"5\x0b\r\n",
            # As Go's CVE-2025-22871, and what follows from it.
            b"5\n",
            b"5;a=b\n",
            b"5;\n",
            b"5\r\r\n",
            b"5;a\rb\r\n",
            b"5;a\0b\r\n",
            b"5\0\r\n",
        ):
            self.assertTrue(
                self.refused(line + b"hello\r\n").endswith(f"{line!r} is no chunk size")
            )

    def test_digits(self) -> None:
        """A size has at most 16 digits, leading zeros included."""
        for digits in (b"0" * 16 + b"5", b"f" * 17, b"0" * 17, b"1" * 100):
            self.assertTrue(
                self.refused(digits + b"\r\n").endswith("has more than 16 digits")
            )
        self.assertEqual(
            behind_head(CHUNKED + b"f" * 16 + b"\r\nhello", eof=False), [b"hello"]
        )

    def test_end_of_data(self) -> None:
        """A chunk's data ends in CRLF where its size says (as CVE-2025-43859)."""
        for broken, seen in {
            b"2\r\nabc\r\n": b"c",
            b"2\r\nabXY0\r\n\r\n": b"X",
            b"2\r\nab\n0\r\n\r\n": b"\n",
            b"2\r\nab0\r\n\r\n": b"0",
            b"2\r\nab\r0\r\n\r\n": b"0",
            b"2\r\nab\r\r\n": b"\r",
            b"2\r\nab\0\n": b"\0",
        }.items():
            self.assertTrue(
                self.refused(broken).endswith(
                    f"{seen!r} is where a chunk's data should end in CRLF"
                ),
                broken,
            )

    def test_trailers(self) -> None:
        """Trailers are kept, and are no headers."""
        stream = CHUNKED + b"0\r\nT: 1\r\nu:\t2 \n v\r\nContent-Length: 9\r\n\r\n"
        self.assertEqual(
            heard([stream])[1:],
            [ResponseEnded(((b"T", b"1"), (b"u", b"2 v"), (b"Content-Length", b"9")))],
        )
        self.assertEqual(
            heard([CHUNKED + b"0\r\n odd: 1\r\n\r\n"])[1:], [ResponseEnded()]
        )
        self.assertEqual(head_of(stream).notes, ())

    def test_bad_trailers(self) -> None:
        """Trailers have the grammar of fields."""
        for trailer, words in {
            b"bad": "no colon is in the field line b'bad'",
            b"A : b": "b'A ' is no field name",
            b": b": "b'' is no field name",
            b"A: \0": "a bare CR or a NUL is in b'A: \\x00'",
            b"A: b\rc": "a bare CR or a NUL is in b'A: b\\rc'",
            b"5": "no colon is in the field line b'5'",
        }.items():
            self.assertTrue(
                self.refused(b"0\r\n" + trailer + b"\r\n\r\n").endswith(words)
            )

    def test_cut_short(self) -> None:
        """A chunked body that ends at any of its bytes says how much came."""
        body = b"3\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
        for end in range(len(body)):
            came = min(max(end - 3, 0), 3) + min(max(end - 11, 0), 2)
            self.assertEqual(
                behind_head(CHUNKED + body[:end])[-1],
                Refusal(BodyCutShort, f"the body was cut short after {came} bytes"),
            )

    @given(
        body=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
        trailers=FIELDS,
        cuts=CUTS,
    )
    def test_raw(
        self,
        body: list[bytes],
        trailers: tuple[tuple[bytes, bytes], ...],
        cuts: list[int],
    ) -> None:
        """Raw, a chunked body keeps its framing byte for byte."""
        coded = b"".join(map(chunk, body)) + b"4 ;a=b\r\n1234\r\n00;x\r\n"
        coded += b"".join(b"%b: %b\r\n" % field for field in trailers) + b"\r\n"
        self.assertEqual(
            heard(chop(CHUNKED + coded, cuts), raw=True, eof=False),
            [head_of(CHUNKED), coded, ResponseEnded(trailers)],
        )

    def test_raw_is_checked(self) -> None:
        """Raw, the framing is left in the body, and is no less strict."""
        for broken in (b"zz\r\n", b"2\r\nabXY", b"0\r\nbad\r\n\r\n"):
            last = heard([CHUNKED + broken], raw=True, eof=False)[-1]
            assert isinstance(last, Refusal)
            self.assertIs(last.kind, BodyMalformed)

    def test_raw_elsewhere(self) -> None:
        """Raw, a body without chunks is the same."""
        for stream in (
            FIVE + b"hello",
            TO_CLOSE + b"hello",
            CONTINUE + FIVE + b"hello",
        ):
            self.assertEqual(heard([stream], raw=True), heard([stream]))
