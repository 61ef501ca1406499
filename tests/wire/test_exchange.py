"""
One HTTP exchange, from its bytes alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import example, given, settings, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    HeaderNotSendable,
    HeadMalformed,
    NothingCame,
    SockprotoError,
)
from sockproto.wire.exchange import (
    LARGEST_HEAD,
    BodyCame,
    Exchange,
    HeadCame,
    InterimCame,
    ResponseEnded,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Event = InterimCame | HeadCame | bytes | ResponseEnded | SockprotoError

HOST = (b"Host", b"example.com")
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FIVE = OK + b"Content-Length: 5\r\n\r\n"
TO_CLOSE = OK + b"\r\n"


def heard(chunks: Iterable[bytes], *, eof: bool = True) -> list[Event]:
    """
    What an exchange says to these reads and then, perhaps, the end.

    The body is joined wherever its bytes stand together; an error comes last.
    """
    exchange = Exchange(b"/", [HOST])
    events: list[Event] = []

    def drain() -> None:
        while (event := exchange.next_event()) is not None:
            if not isinstance(event, BodyCame):
                events.append(event)
            elif events and isinstance(events[-1], bytes):
                events[-1] += event.data
            else:
                events.append(event.data)

    try:
        for chunk in chunks:
            exchange.receive_data(chunk)
            drain()
        if eof:
            exchange.receive_eof()
            drain()
    except SockprotoError as error:
        events.append(error)
    return events


def comparable(events: Sequence[Event]) -> list[object]:
    """Events, with an error as its kind and the numbers that it holds."""
    return [
        (type(event), [arg for arg in event.args if not isinstance(arg, str)])
        if isinstance(event, SockprotoError)
        else event
        for event in events
    ]


def chopped(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """A stream in pieces, cut at these places; an empty piece is no read."""
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(places)]


def bytewise(stream: bytes) -> list[bytes]:
    """A stream a byte a read."""
    return [stream[i : i + 1] for i in range(len(stream))]


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


# Streams that keep the grammar, and what breaks it in each of its places.
LINES = st.sampled_from(
    [
        OK,
        b"HTTP/1.0 404 Not Found\r\n",
        b"HTTP/1.1 204 \r\n",
        b"HTTP/1.1 304\r\n",
        b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/2 200\r\n",
        b"\r\n",
        b"SSH-2.0-x\r\n",
    ]
)
FIELDS = st.lists(
    st.sampled_from(
        [
            b"Content-Length: 5\r\n",
            b"Content-Length: 6\r\n",
            b"Content-Length: x\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"X-Folded: a\r\n b\r\n",
            b"x: \xff\n",
            b"no field\r\n",
            b"Space : 1\r\n",
            b"Connection: close\r\n",
        ]
    ),
    max_size=3,
).map(b"".join)
HEADS = st.tuples(LINES, FIELDS, st.just(b"\r\n")).map(b"".join)
GOOD_CHUNKS = st.lists(st.binary(min_size=1, max_size=20).map(chunk), max_size=4).map(
    b"".join
)
BODIES = st.one_of(
    st.binary(max_size=12),
    st.tuples(
        GOOD_CHUNKS,
        st.sampled_from(
            [b"0\r\n\r\n", b"0\r\nTrailer: 1\r\n\r\n", b"3\r\nabcXY", b"zz\r\n", b"3"]
        ),
        st.binary(max_size=4),
    ).map(b"".join),
)
STREAMS = st.one_of(
    st.tuples(st.lists(HEADS, max_size=3).map(b"".join), BODIES).map(b"".join),
    st.tuples(st.sampled_from([CHUNKED, FIVE, TO_CLOSE]), BODIES).map(b"".join),
    st.binary(max_size=40),
)


class ChoppingTests(SynchronousTestCase):
    """However the network cuts a response, it is the same response."""

    @settings(deadline=None)
    @given(
        stream=STREAMS,
        cuts=st.lists(st.integers(0, 400), max_size=8),
        eof=st.booleans(),
    )
    @example(stream=CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", cuts=[50, 51, 52], eof=False)
    def test_chopping_changes_nothing(
        self, stream: bytes, cuts: list[int], eof: bool
    ) -> None:
        """The same events, the same body and the same kind of error come out."""
        whole = comparable(heard([stream], eof=eof))
        self.assertEqual(comparable(heard(chopped(stream, cuts), eof=eof)), whole)
        self.assertEqual(comparable(heard(bytewise(stream), eof=eof)), whole)

    @settings(deadline=None)
    @given(
        body=st.lists(st.binary(min_size=1, max_size=300)),
        cuts=st.lists(st.integers(0, 9999)),
    )
    def test_chunked_body(self, body: list[bytes], cuts: list[int]) -> None:
        """A chunked body has the bytes of its chunks, wherever they are cut."""
        stream = CHUNKED + b"".join(map(chunk, body)) + b"0\r\n\r\n"
        events = heard(chopped(stream, cuts), eof=False)
        self.assertEqual(
            [e for e in events if isinstance(e, bytes)],
            [b"".join(body)] if body else [],
        )
        self.assertEqual(events[-1], ResponseEnded())

    @settings(deadline=None)
    @given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 999)))
    def test_raw_head(self, body: bytes, cuts: list[int]) -> None:
        """The exact bytes of the head are kept, and none of the body's."""
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        head = b"HTTP/1.1 200   odd  \r\nX-a:  1 \r\nX-A:2\r\nx-f: 1\r\n\t2\r\n\r\n"
        events = heard(chopped(interim * 2 + head + body, cuts))
        self.assertEqual(
            [e.raw for e in events if isinstance(e, InterimCame | HeadCame)],
            [interim, interim, head],
        )

    def test_words(self) -> None:
        """What is said about a broken response does not depend on its reads."""
        for stream in (
            CHUNKED + b"3\r\nabcXY\r\n0\r\n\r\n",
            b"\r\n" + TO_CLOSE,
            CHUNKED + b"zz\r\n",
            b"nonsense\r\n\r\n",
        ):
            self.assertEqual(
                repr(heard(bytewise(stream))[-1]), repr(heard([stream])[-1])
            )

    def test_large_head(self) -> None:
        """A head above the bound is refused, be it read at once or in pieces."""
        field = b"X: %b\r\n" % (b"x" * 1000)
        head = OK + field * (LARGEST_HEAD // len(field) + 2) + b"\r\n"
        pieces = [head[i : i + 65536] for i in range(0, len(head), 65536)]
        for reads in (bytewise(head), pieces, [head]):
            self.assertIsInstance(heard(reads)[0], HeadMalformed)


class RequestTests(SynchronousTestCase):
    """The bytes of the request."""

    def test_exact(self) -> None:
        """The request line, the headers as given and in order, an empty line."""
        exchange = Exchange(b"/a?b", [HOST, (b"x-UPPER", b"1"), (b"B", b"")])
        self.assertEqual(
            exchange.request,
            b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nx-UPPER: 1\r\nB: \r\n\r\n",
        )

    def test_not_sendable(self) -> None:
        """Nothing that breaks the grammar becomes a request."""
        for target, headers in (
            (b"/", []),
            (b"/", [HOST, HOST]),
            (b"/ HTTP/1.1\r\nX: y", [HOST]),
            (b"/", [HOST, (b"X", b"y\r\nInjected: 1")]),
            (b"/", [HOST, (b"X\n", b"y")]),
            (b"/", [HOST, (b"", b"y")]),
            (b"/", [HOST, (b"X y", b"z")]),
            (b"/", [HOST, (b"X", b"\0")]),
            (b"/", [HOST, (b"Content-Length", b"5")]),
        ):
            self.assertRaises(HeaderNotSendable, Exchange, target, headers)


class HeadTests(SynchronousTestCase):
    """What the head of a response says."""

    def head(self, stream: bytes) -> HeadCame:
        """The one head that a stream has."""
        (head,) = [e for e in heard([stream]) if isinstance(e, HeadCame)]
        return head

    def test_values(self) -> None:
        """Version, status, reason and headers are as received, in order."""
        raw = b"HTTP/1.0 299 So \xe9 so\r\nB: 2\r\na: 1\r\nB:  \xff \r\n\r\n"
        self.assertEqual(
            self.head(raw),
            HeadCame(
                raw=raw,
                version="1.0",
                status=299,
                reason="So \xe9 so",
                headers=((b"B", b"2"), (b"a", b"1"), (b"B", b"\xff")),
                length=None,
                self_delimiting=False,
            ),
        )

    def test_folded(self) -> None:
        """A folded value is one value, and its raw bytes stay folded."""
        head = self.head(OK + b"A: b\r\n  c\r\n\r\n")
        self.assertEqual(head.headers, ((b"A", b"b c"),))
        self.assertIn(b"b\r\n  c", head.raw)

    def test_without_reason(self) -> None:
        """A status line may end with its number."""
        self.assertEqual(self.head(b"HTTP/1.1 200\r\n\r\n").reason, "")

    def test_bare_line_feeds(self) -> None:
        """Lines may end in LF alone (RFC 9112, section 2.2)."""
        head = self.head(b"HTTP/1.1 200 OK\nA: b\n\nbody")
        self.assertEqual(head.raw, b"HTTP/1.1 200 OK\nA: b\n\n")
        self.assertEqual(head.headers, ((b"A", b"b"),))

    def test_framing(self) -> None:
        """The head tells what length was promised, and whether there is an end."""
        for fields, expected in (
            (b"", (None, False)),
            (b"Content-Length: 0\r\n", (0, True)),
            (b"Content-Length: 5\r\nContent-Length: 5\r\n", (5, True)),
            (b"Content-Length: 5, 5\r\n", (5, True)),
            (b"Transfer-Encoding: Chunked\r\n", (None, True)),
            (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", (None, True)),
        ):
            head = self.head(OK + fields + b"\r\n12345")
            self.assertEqual((head.length, head.self_delimiting), expected, fields)

    def test_malformed(self) -> None:
        """What is no head of HTTP/1 is refused as soon as it is complete."""
        for stream in (
            b"\0",
            b"\r\n",
            b"nonsense\r\n\r\n",
            b"220 mail.example.com ESMTP\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            OK + b"no colon\r\n\r\n",
            OK + b"A : b\r\n\r\n",
            OK + b" A: b\r\n\r\n",
            OK + b"A: \0\r\n\r\n",
            OK + b"Content-Length: -1\r\n\r\n",
            OK + b"Content-Length: +1\r\n\r\n",
            OK + b"Content-Length: 1_0\r\n\r\n",
            OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
            OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        ):
            (error,) = heard([stream], eof=False)
            self.assertIsInstance(error, HeadMalformed, stream)

    def test_cut_short(self) -> None:
        """A head that ends at any of its bytes is cut short."""
        for end in range(1, len(FIVE)):
            (error,) = heard([FIVE[:end]])
            assert isinstance(error, HeadMalformed)
            self.assertEqual(error.problem, "it is cut short")

    def test_cut_short_after_interim(self) -> None:
        """A final head that is cut short behind an interim one is an error too."""
        interim, error = heard([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2"])
        self.assertEqual(
            interim, InterimCame(b"HTTP/1.1 100 Continue\r\n\r\n", status=100)
        )
        self.assertIsInstance(error, HeadMalformed)

    def test_nothing_came(self) -> None:
        """A connection that ends at once is told apart from a broken head."""
        (error,) = heard([])
        self.assertIsInstance(error, NothingCame)

    def test_endless(self) -> None:
        """A head without an end is refused at the bound, and costs no more."""
        exchange = Exchange(b"/", [HOST])
        exchange.receive_data(OK + b"X: ")
        size = 0
        with self.assertRaises(HeadMalformed):
            while size < 2 * LARGEST_HEAD:
                exchange.receive_data(b"x" * 1000)
                size += 1000
                self.assertIsNone(exchange.next_event())
        self.assertLess(size, LARGEST_HEAD + 2000)


class BodyTests(SynchronousTestCase):
    """Where a body ends, and what is wrong with one that does not."""

    def behind_head(self, stream: bytes, *, eof: bool = True) -> list[Event]:
        """What is said after the head."""
        head, *behind = heard([stream], eof=eof)
        self.assertIsInstance(head, HeadCame)
        return behind

    def test_content_length(self) -> None:
        """A body of a promised length ends without the connection."""
        self.assertEqual(
            self.behind_head(FIVE + b"hello", eof=False), [b"hello", ResponseEnded()]
        )

    def test_empty(self) -> None:
        """A body of no bytes is complete with its head."""
        for stream in (OK + b"Content-Length: 0\r\n\r\n", CHUNKED + b"0\r\n\r\n"):
            self.assertEqual(self.behind_head(stream, eof=False), [ResponseEnded()])

    def test_none(self) -> None:
        """204 and 304 have no body, whatever their headers promise."""
        for status in (b"204 No Content", b"304 Not Modified"):
            for field in (b"", b"Content-Length: 5\r\n"):
                stream = b"HTTP/1.1 " + status + b"\r\n" + field + b"\r\n"
                head, end = heard([stream + b"junk"], eof=False)
                assert isinstance(head, HeadCame)
                self.assertEqual(end, ResponseEnded())
                self.assertTrue(head.self_delimiting)
                self.assertIsNone(head.length)

    def test_chunks(self) -> None:
        """The framing of chunks is taken off: sizes, extensions, trailers."""
        stream = CHUNKED + b"3;a=b\r\nabc\r\n00A\r\n\r\n\r\n\0\0\0\0\0\0\r\n"
        self.assertEqual(
            self.behind_head(stream + b"0\r\nT: 1\r\n\r\n", eof=False),
            [b"abc\r\n\r\n\0\0\0\0\0\0", ResponseEnded()],
        )

    def test_read_to_close(self) -> None:
        """Without a length the body is what comes until the connection ends."""
        self.assertEqual(self.behind_head(TO_CLOSE + b"hello", eof=False), [b"hello"])
        self.assertEqual(
            self.behind_head(TO_CLOSE + b"hello"), [b"hello", ResponseEnded()]
        )
        self.assertEqual(self.behind_head(TO_CLOSE), [ResponseEnded()])

    def test_behind_the_end(self) -> None:
        """Bytes behind the response are no part of it, nor an error."""
        for stream in (FIVE + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"):
            for behind in (b"x", TO_CLOSE, b"\0" * 100):
                self.assertEqual(
                    self.behind_head(stream + behind), [b"hello", ResponseEnded()]
                )

    def test_after_the_end(self) -> None:
        """What is read later than the end of the response is ignored."""
        exchange = Exchange(b"/", [HOST])
        exchange.receive_data(FIVE + b"hello")
        while not isinstance(exchange.next_event(), ResponseEnded):
            pass
        exchange.receive_data(b"more")
        exchange.receive_eof()
        exchange.receive_eof()
        exchange.receive_data(b"late")
        self.assertIsNone(exchange.next_event())

    def test_cut_short(self) -> None:
        """A promised body that ends early says how much came of how much."""
        for came in range(5):
            error = self.behind_head(FIVE + b"hello"[:came])[-1]
            assert isinstance(error, BodyCutShort)
            self.assertEqual((error.received, error.expected), (came, 5))

    def test_chunks_cut_short(self) -> None:
        """A chunked body that ends at any of its bytes is cut short."""
        body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        for end in range(len(body)):
            error = self.behind_head(CHUNKED + body[:end])[-1]
            assert isinstance(error, BodyCutShort)
            came = min(max(end - 3, 0), 3) + min(max(end - 11, 0), 2)
            self.assertEqual((error.received, error.expected), (came, None))

    def test_broken_chunk(self) -> None:
        """A chunk that breaks the grammar is an error, after what came before."""
        for broken in (
            b"zz\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b" 5\r\n",
            b"\r\n",
            b"2\r\nabc\r\n",
            b"123456789012345678901\r\n",
            b"0\r\nbad trailer\r\n\r\n",
        ):
            good, *more = self.behind_head(CHUNKED + chunk(b"good") + broken, eof=False)
            assert isinstance(good, bytes)
            self.assertTrue(good.startswith(b"good"))
            self.assertIsInstance(more[-1], BodyMalformed, broken)

    def test_endless_chunk_size(self) -> None:
        """A chunk's size line without an end is refused, and not collected."""
        error = self.behind_head(
            CHUNKED + b"5;" + b"x" * (LARGEST_HEAD + 1), eof=False
        )[-1]
        self.assertIsInstance(error, BodyMalformed)

    def test_silent_after_an_error(self) -> None:
        """An error is told once; later bytes change nothing."""
        exchange = Exchange(b"/", [HOST])
        exchange.receive_data(b"nonsense\r\n\r\n")
        self.assertRaises(HeadMalformed, exchange.next_event)
        exchange.receive_data(FIVE + b"hello")
        exchange.receive_eof()
        self.assertIsNone(exchange.next_event())
