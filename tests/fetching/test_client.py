"""
One request and its response, in memory and over real sockets.
"""

from __future__ import annotations

import gzip
import zlib
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings, strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError as RefusedError,
)
from twisted.internet.interfaces import (
    IHostnameResolver,
    IPushProducer,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols import tls
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

import sockproto.tls  # noqa: F401 - what a lost connection is told depends on it
from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    CodingMalformed,
    ConnectionWasReset,
    HeaderNotSendable,
    HeadMalformed,
    MisuseError,
    NameNotResolved,
    NotConnected,
    NothingCame,
    RedirectRefused,
    SchemeNotSupported,
    SettingError,
    SockprotoError,
    TimedOut,
    TooLarge,
    TooManyRedirects,
    TrustMalformed,
    UrlMalformed,
)
from sockproto.fetching import FetchObserver, Response, fetch
from sockproto.fetching.client import LARGEST_BODY_IN_MEMORY, MOST_REDIRECTS
from sockproto.wire.coding import PIECE
from sockproto.wire.response import HeadCame, Limits, ResponseEnded
from tests.fetching.fakes import (
    CHUNKED,
    FIVE,
    GZIP,
    HEAD,
    LAST,
    REQUEST,
    TO_CLOSE,
    USUAL,
    Basket,
    Bucket,
    Line,
    Noting,
    basic,
    redirect,
    sized,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class MemoryTests(SynchronousTestCase):
    """What the tests without a network share."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.accepted = 0

    def fetch(
        self, url: Any = "http://192.0.2.1/a", **options: Any
    ) -> Deferred[Response]:
        """Begin to fetch."""
        return fetch(self.reactor, url, **options)

    def accept(self) -> Line:
        """Take the next connection."""
        host, port, factory, *_ = self.reactor.tcpClients[self.accepted]
        self.accepted += 1
        line = Line(self.reactor, (host, port))
        line.protocol = factory.buildProtocol(line.getPeer())
        line.protocol.makeConnection(line)
        return line

    def taken(self, fetching: Deferred[Response]) -> Response:
        """The response, with nothing left to do."""
        response = self.successResultOf(fetching)
        self.over()
        return response

    def failed(self, fetching: Deferred[Response], kind: type[BaseException]) -> Any:
        """The error, with nothing left to do."""
        error = self.failureResultOf(fetching, kind).value
        self.reactor.advance(0)
        self.over()
        return error

    def over(self) -> None:
        """Check that nothing is open and nothing is awaited."""
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(self.reactor.tcpClients), self.accepted)
        self.assertEqual(self.flushLoggedErrors(), [])

    def answered(self, said: bytes = FIVE + b"hello", **options: Any) -> Response:
        """The response to one request that is answered so."""
        fetching = self.fetch(**options)
        self.accept().say(said)
        return self.taken(fetching)

    def asked(self, url: str = "http://192.0.2.1/a", **options: Any) -> bytes:
        """The bytes of one request."""
        fetching = self.fetch(url, **options)
        line = self.accept()
        line.say(FIVE + b"hello")
        self.taken(fetching)
        return line.request

    def refused(self, kind: type[BaseException], *args: Any, **options: Any) -> Any:
        """An error that is raised at once, before anything is done."""
        try:
            fetching = self.fetch(*args, **options)
        except kind as error:
            self.assertEqual(self.reactor.tcpClients, [])
            self.assertEqual(self.reactor.unixClients, [])
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            return error
        fetching.addErrback(lambda _: None)
        fetching.cancel()
        raise self.failureException(f"{args}, {options} was taken")


class RequestTests(MemoryTests):
    """What is sent."""

    def test_usual(self) -> None:
        """The request has these bytes, and Host first."""
        self.assertEqual(
            self.asked(),
            b"GET /a HTTP/1.1\r\nHost: 192.0.2.1\r\n" + USUAL + b"\r\n",
        )

    def test_method(self) -> None:
        """A method is sent as it is spelled."""
        for method in ("POST", "Purge", "DELETE", "M-SEARCH", "OPTIONS"):
            self.assertTrue(
                self.asked(method=method).startswith(method.encode() + b" /a HTTP/1.1")
            )

    def test_no_method(self) -> None:
        """What is no method is refused before anything is sent."""
        for method in ("G T", "GET\r\n", "GET / HTTP/1.1\r\nX:", "\0", "É", "CONNECT"):
            self.refused(HeaderNotSendable, method=method)

    def test_empty_method(self) -> None:
        """An empty method is none, and not ours."""
        self.refused(HeaderNotSendable, method="")

    def test_body(self) -> None:
        """A body is sent as it is, with its length, by POST unless told otherwise."""
        for method, sent in ((None, b"POST"), ("PUT", b"PUT"), ("GET", b"GET")):
            for body in (b"a=b\r\n\0\xff", b""):
                heard = self.asked(method=method, body=body)
                head, _, came = heard.partition(b"\r\n\r\n")
                self.assertEqual(came, body)
                self.assertTrue(head.startswith(sent + b" /a "), head)
                self.assertIn(
                    b"\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                    b"Content-Length: %d" % len(body),
                    head,
                )

    def test_user(self) -> None:
        """Who we are is said as Basic has it, a name alone with a colon."""
        for user, sent in (
            ("aladdin:open sesame", b"aladdin:open sesame"),
            (b"a:\xff", b"a:\xff"),
            ("a:b:c", b"a:b:c"),
            ("é", b"\xc3\xa9:"),
            ("", b":"),
        ):
            self.assertIn(basic(sent), self.asked(user=user))

    def test_user_in_the_url(self) -> None:
        """User information in the URL is sent so, and nowhere else."""
        heard = self.asked("http://us%3Aer:p%40ss@192.0.2.1/a")
        self.assertEqual(
            heard,
            b"GET /a HTTP/1.1\r\nHost: 192.0.2.1\r\n"
            + USUAL
            + basic(b"us:er:p@ss")
            + b"\r\n",
        )

    def test_user_beats_the_url(self) -> None:
        """What is given beside the URL counts."""
        heard = self.asked("http://a:b@192.0.2.1/", user="c:d")
        self.assertIn(basic(b"c:d"), heard)
        self.assertNotIn(basic(b"a:b"), heard)

    def test_own_headers(self) -> None:
        """One's own headers follow, as they are, in order."""
        heard = self.asked(
            headers=[("X-b", " 1 "), (b"x-B", b"\xff"), ("\tY ", "\xe9"), ("Z", "")]
        )
        self.assertTrue(
            heard.endswith(
                USUAL + b"X-b: 1\r\nx-B: \xff\r\nY: \xc3\xa9\r\nZ: \r\n\r\n"
            ),
            heard,
        )

    def test_own_host(self) -> None:
        """One's own Host takes the place of ours, the first, wherever it is given."""
        self.assertEqual(
            self.asked(headers=[("X", "1"), ("hOST", "example.com")]),
            b"GET /a HTTP/1.1\r\nhOST: example.com\r\n" + USUAL + b"X: 1\r\n\r\n",
        )

    def test_own_usual(self) -> None:
        """One's own User-Agent, Accept or Connection is the only one."""
        heard = self.asked(
            headers=[("connection", "x"), ("ACCEPT", "a/b"), ("User-agent", "me")]
        )
        self.assertTrue(
            heard.endswith(
                b"\r\nconnection: x\r\nACCEPT: a/b\r\nUser-agent: me\r\n\r\n"
            )
        )
        self.assertEqual(heard.lower().count(b"\r\n"), 6)

    def test_left_out(self) -> None:
        """A header whose value is None is not sent."""
        self.assertEqual(
            self.asked(
                headers=[("user-agent", None), (b"Accept", None), ("X", None)],
                user="a:b",
            ),
            b"GET /a HTTP/1.1\r\nHost: 192.0.2.1\r\nConnection: close\r\n"
            + basic(b"a:b")
            + b"\r\n",
        )

    def test_not_sendable(self) -> None:
        """A header that would smuggle something is refused before anything is sent."""
        for name, value in (
            ("X", "a\r\nInjected: b"),
            ("X", "a\nb"),
            ("X", "a\rb"),
            ("X", "a\0"),
            ("X", "\n"),
            ("X\r\nY", "a"),
            ("X\n", "a"),
            ("X Y", "a"),
            ("X:", "a"),
            ("", "a"),
            ("\xe9", "a"),
            ("X\0", None),
        ):
            self.refused(HeaderNotSendable, headers=[(name, value)])
            self.refused(
                HeaderNotSendable,
                headers=[(name.encode(), None if value is None else value.encode())],
            )

    def test_two_hosts(self) -> None:
        """There is one Host at most (RFC 9112, section 3.2)."""
        self.refused(HeaderNotSendable, headers=[("Host", "a"), ("host", "b")])

    def test_not_text(self) -> None:
        """A text that UTF-8 cannot spell is refused like others."""
        self.refused(HeaderNotSendable, headers=[("X", "\ud800")])
        self.refused(HeaderNotSendable, user="\ud800")

    def test_bad_url(self) -> None:
        """A URL that is not taken is refused at the call; nothing is sent."""
        for url in (
            "http://a b/",
            "http://192.0.2.1/a b",
            "http://192.0.2.1/\r\nX: y",
            "http://192.0.2.1\r\n/",
            "http://192.0.2.1/\0",
            "http://192.0.2.1/\x1b[2J",
            "http://192.0.2.1/?\t",
            "http://us er@192.0.2.1/",
            " http://192.0.2.1/",
            "http://192.0.2.1/\x7f",
        ):
            self.refused(UrlMalformed, url)
        for url in ("ftp://a/", "file:///etc/passwd", "gopher://a/_x"):
            self.refused(SchemeNotSupported, url)

    def test_bad_arguments(self) -> None:
        """Arguments that mean nothing are refused at the call."""
        bad: list[dict[str, Any]] = [
            {"family": 5},
            {"timeout": -1},
            {"timeout": 0},
            {"timeout": float("nan")},
            {"connect_timeout": 0},
            {"max_time": 0},
            {"max_time": float("inf")},
            {"max_body": -1},
            {"max_body": 1.5},
            {"max_redirects": -1},
            {"max_redirects": True},
        ]
        for options in bad:
            error = self.refused(MisuseError, **options)
            self.assertIsInstance(error, SettingError)
            self.assertIn(error.name, options)

    def test_beside_raw_request(self) -> None:
        """What would be in a request of ours is not dropped beside one's own."""
        for name, seen in (
            ("method", "PUT"),
            ("headers", [("A", "b")]),
            ("body", b"hello"),
            ("user", "u:p"),
            ("follow", True),
        ):
            options = {name: seen, "raw_request": REQUEST}
            error = self.refused(SettingError, **options)
            self.assertEqual((error.name, error.seen), (name, seen))
            self.assertEqual(error.allowed, "nothing beside raw_request")
        none: dict[str, Any] = {
            "method": None,
            "headers": (),
            "body": None,
            "user": None,
        }
        sent = self.asked(raw_request=REQUEST, follow=False, **none)
        self.assertEqual(sent, REQUEST)

    def test_empty_beside_raw_request(self) -> None:
        """What is there and empty would be in a request of ours, too."""
        empty: Any
        for name, empty in (("body", b""), ("user", ""), ("user", b""), ("method", "")):
            options = {name: empty, "raw_request": REQUEST}
            error = self.refused(SettingError, **options)
            self.assertEqual((error.name, error.seen), (name, empty))

    def test_raw_request(self) -> None:
        """A request of one's own is sent byte for byte."""
        for request in (
            b"GET /a HTTP/1.0\r\nHost: h\n\r\n",
            b"\r\n\0\xff not HTTP at all",
            b"GET / HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
            b"",
        ):
            self.assertEqual(self.asked(raw_request=request), request)

    def test_raw_head(self) -> None:
        """A HEAD in it means that the answer has no body."""
        for request in (
            b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"\r\nHEAD /a HTTP/1.0\n\n",
        ):
            response = self.answered(
                HEAD + b"Content-Length: 1000000000000\r\n\r\n", raw_request=request
            )
            self.assertEqual(response.body, b"")
        for request in (b"GET /HEAD HTTP/1.1\r\n\r\n", b"HEADER / HTTP/1.1\r\n\r\n"):
            self.assertEqual(self.answered(raw_request=request).body, b"hello")

    def test_decompress(self) -> None:
        """What is decoded is asked for, unless one's own header says what is."""
        self.assertIn(
            b"\r\nAccept-Encoding: gzip, deflate\r\n", self.asked(decompress=True)
        )
        self.assertNotIn(b"Accept-Encoding", self.asked())
        self.assertNotIn(b"Accept-Encoding", self.asked(decompress=True, raw=True))
        heard = self.asked(decompress=True, headers=[("accept-encoding", "gzip")])
        self.assertIn(b"\r\naccept-encoding: gzip\r\n", heard)
        self.assertNotIn(b"deflate", heard)

    def test_host(self) -> None:
        """Host has the port where it is not the scheme's, and never a zone."""
        for url, host, address in (
            ("http://192.0.2.1:8080/", b"192.0.2.1:8080", ("192.0.2.1", 8080)),
            ("http://[::1]:81/", b"[::1]:81", ("::1", 81)),
            ("http://[2001:DB8::1]", b"[2001:db8::1]", ("2001:db8::1", 80)),
            ("http://[fe80::1%25eth0]/", b"[fe80::1]", ("fe80::1%eth0", 80)),
            ("EXAMPLE.com", b"example.com", ("127.0.0.1", 80)),
        ):
            self.assertIn(b"\r\nHost: " + host + b"\r\n", self.asked(url))
            self.assertEqual(self.reactor.tcpClients[-1][:2], address)


class ResponseTests(MemoryTests):
    """What comes back."""

    def test_response(self) -> None:
        """The response says all that came, and between which addresses."""
        head = b"HTTP/1.1 404 Not  Here\r\nB:  2\r\na: 1\r\nB: 3\r\n"
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        response = self.answered(
            head + b"5\r\nhello\r\n0\r\nT: 1\r\nt:  2\r\n\r\nbehind",
            url="HTTP://us:er@Example.com:8080/a?b#c",
        )
        self.assertEqual(
            response,
            Response(
                version="1.1",
                status=404,
                reason="Not  Here",
                headers=(
                    (b"B", b"2"),
                    (b"a", b"1"),
                    (b"B", b"3"),
                    (b"Transfer-Encoding", b"chunked"),
                ),
                head=head,
                trailers=((b"T", b"1"), (b"t", b"2")),
                body=b"hello",
                place=None,
                url="http://example.com:8080/a?b",
                redirects=(),
                local="10.0.0.1:12345",
                peer="127.0.0.1:8080",
            ),
        )

    def test_redirect(self) -> None:
        """A redirect is a response like others, unless it is to be followed."""
        response = self.answered(redirect("/b", body=b"moved"))
        self.assertEqual((response.status, response.body), (302, b"moved"))

    def test_end_of_stream(self) -> None:
        """A body without an end of its own ends with the connection."""
        fetching = self.fetch()
        line = self.accept()
        line.say(TO_CLOSE, b"hel", b"lo")
        self.assertNoResult(fetching)
        line.end()
        self.assertEqual(self.taken(fetching).body, b"hello")

    def test_errors(self) -> None:
        """Each way to end too early is an error of its own."""
        for said, end, kind in (
            (b"", Line.end, NothingCame),
            (b"HTTP/1.1 2", Line.end, HeadMalformed),
            (b"220 smtp\r\n\r\n", None, HeadMalformed),
            (FIVE + b"hel", Line.end, BodyCutShort),
            (CHUNKED + b"5\r\nhello\r\n", Line.end, BodyCutShort),
            (CHUNKED + b"5\r\nhello\r\n0\r\n", Line.end, BodyCutShort),
            (CHUNKED + b"zz\r\n", None, BodyMalformed),
            (sized(b"no gzip", GZIP), None, CodingMalformed),
        ):
            fetching = self.fetch(decompress=True)
            line = self.accept()
            line.say(said)
            if end is not None:
                end(line)
            self.failed(fetching, kind)

    def test_reset(self) -> None:
        """A reset is the end of no body, however it is framed."""
        for said in (
            b"",
            HEAD,
            FIVE + b"hel",
            CHUNKED,
            CHUNKED + b"5\r\nhello\r\n",
            TO_CLOSE,
            TO_CLOSE + b"hello",
        ):
            for why in (ConnectionLost(), ConnectionAborted()):
                fetching = self.fetch()
                line = self.accept()
                line.say(said)
                line.break_off(why)
                self.failed(fetching, ConnectionWasReset)

    def test_behind(self) -> None:
        """Bytes behind the response are no error, and no part of it."""
        response = self.answered(FIVE + b"hello" + FIVE + b"world")
        self.assertEqual(response.body, b"hello")

    def test_interim(self) -> None:
        """Interim responses are passed over."""
        said = b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n" * 20 + FIVE + b"hello"
        self.assertEqual(self.answered(said).head, FIVE)
        fetching = self.fetch()
        self.accept().say(b"HTTP/1.1 103 Early\r\n\r\n" * 21)
        self.failed(fetching, HeadMalformed)

    def test_limits(self) -> None:
        """What a head may weigh can be said."""
        for limits in (
            Limits(head=20),
            Limits(line=10),
            Limits(fields=0),
            Limits(interim=0),
        ):
            fetching = self.fetch(limits=limits)
            line = self.accept()
            line.say(b"HTTP/1.1 100 C\r\n\r\n" + FIVE + b"hello")
            self.assertTrue(line.disconnected)
            self.failed(fetching, HeadMalformed)
        fetching = self.fetch(limits=Limits(chunk_line=5))
        self.accept().say(CHUNKED + b"5;a=b\r\nhello\r\n")
        self.failed(fetching, BodyMalformed)

    def test_decompress(self) -> None:
        """A coded body is decoded if that was asked for, else it stays as it is."""
        coded = gzip.compress(b"hello" * 1000)
        self.assertEqual(self.answered(sized(coded, GZIP)).body, coded)
        for said in (
            sized(coded, GZIP),
            sized(zlib.compress(b"hello" * 1000), b"Content-Encoding: deflate\r\n"),
            CHUNKED[:-2] + GZIP + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(coded), coded),
        ):
            response = self.answered(said, decompress=True)
            self.assertEqual(response.body, b"hello" * 1000)

    def test_transfer_coding(self) -> None:
        """A transfer coding is always taken off."""
        coded = gzip.compress(b"hello")
        said = HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n"
        said += b"%x\r\n%b\r\n0\r\n\r\n" % (len(coded), coded)
        self.assertEqual(self.answered(said).body, b"hello")

    def test_raw(self) -> None:
        """Raw, nothing is taken off, not even the chunks."""
        coded = gzip.compress(b"hello")
        for fields, body in (
            (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n"),
            (
                b"Transfer-Encoding: gzip, chunked\r\n",
                b"%X;x=y\r\n%b\r\n0\r\n\r\n" % (len(coded), coded),
            ),
            (GZIP + b"Content-Length: %d\r\n" % len(coded), coded),
        ):
            for decompress in (True, False):
                response = self.answered(
                    HEAD + fields + b"\r\n" + body, raw=True, decompress=decompress
                )
                self.assertEqual(response.body, body)

    def test_max_body(self) -> None:
        """A body may be as large as was said, and no larger."""
        endless = CHUNKED + b"6\r\nhello!\r\n"
        for said in (
            FIVE + b"hello",
            TO_CLOSE + b"hello",
            CHUNKED + b"5\r\nhello\r\n" + LAST,
            sized(gzip.compress(b"hello"), GZIP),
            endless,
        ):
            for to in (None, Basket(), Bucket()):
                if said is not endless and GZIP not in said:
                    fetching = self.fetch(max_body=5, decompress=True, to=to)
                    line = self.accept()
                    line.say(said)
                    line.end()
                    self.assertIn(self.taken(fetching).body, (b"hello", None))
                fetching = self.fetch(max_body=4, decompress=True, to=to)
                line = self.accept()
                line.say(said)
                self.assertTrue(line.disconnected)
                self.assertEqual(self.failed(fetching, TooLarge).limit, 4)

    def test_max_body_decoded(self) -> None:
        """Of a coded body, it is the decoded bytes that count."""
        body = bytes(range(256))  # which does not shrink
        said = sized(gzip.compress(b"a" * 10_000), GZIP)
        fetching = self.fetch(max_body=10_000, decompress=True)
        self.accept().say(said)
        self.assertEqual(self.taken(fetching).body, b"a" * 10_000)
        fetching = self.fetch(max_body=9_999, decompress=True)
        self.accept().say(said)
        self.assertEqual(self.failed(fetching, TooLarge).limit, 9_999)
        coded = gzip.compress(body)
        self.assertGreater(len(coded), len(body))
        fetching = self.fetch(max_body=len(body), decompress=True)
        line = self.accept()
        line.say(CHUNKED[:-2] + GZIP + b"\r\n%x\r\n%b\r\n" % (len(coded), coded) + LAST)
        self.assertEqual(self.taken(fetching).body, body)

    def test_max_body_promised(self) -> None:
        """A body that is said to be too large is not read at all."""
        fetching = self.fetch(max_body=5)
        line = self.accept()
        line.say(HEAD + b"Content-Length: 6\r\n\r\n")
        self.assertTrue(line.disconnected)
        self.failed(fetching, TooLarge)

    def test_max_body_of_none(self) -> None:
        """What has no body is not too large."""
        for method, said in (
            ("HEAD", HEAD + b"Content-Length: 1000000000000\r\n\r\n"),
            ("GET", b"HTTP/1.1 304 N\r\nContent-Length: 1000000000000\r\n\r\n"),
            ("GET", HEAD + b"Content-Length: 0\r\n\r\n"),
        ):
            for limit in (None, 0):
                response = self.answered(said, method=method, max_body=limit)
                self.assertEqual(response.body, b"")

    def test_in_memory(self) -> None:
        """In memory there is a bound also where none was said; elsewhere not."""
        said = HEAD + b"Content-Length: %d\r\n\r\n" % (LARGEST_BODY_IN_MEMORY + 1)
        fetching = self.fetch()
        self.accept().say(said)
        error = self.failed(fetching, TooLarge)
        self.assertEqual(error.limit, LARGEST_BODY_IN_MEMORY)
        fetching = self.fetch(to=Basket())
        line = self.accept()
        line.say(said)
        self.assertFalse(line.disconnecting)
        fetching.cancel()
        self.failed(fetching, CancelledError)

    def test_bomb(self) -> None:
        """A few bytes that decode to many end with an error, not in memory."""
        packing = zlib.compressobj(wbits=31)
        coded = b"".join(packing.compress(bytes(1 << 20)) for _ in range(24))
        coded += packing.flush()
        fetching = self.fetch(decompress=True)
        self.accept().say(sized(coded, GZIP))
        self.failed(fetching, TooLarge)
        sizes: list[int] = []

        class Tally(Basket):
            def write(self, data: bytes) -> None:
                sizes.append(len(data))

        fetching = self.fetch(decompress=True, to=Tally())
        self.accept().say(sized(coded, GZIP))
        self.assertEqual(self.failed(fetching, TooLarge).ratio, 100)
        self.assertLess(sum(sizes), 17 << 20)

    def test_sink(self) -> None:
        """A sink has the head, then the body; the response has none then."""
        basket = Basket()
        response = self.answered(to=basket)
        self.assertEqual(basket.body, b"hello")
        self.assertEqual([head.raw for head in basket.heads], [response.head])
        self.assertIsNone(response.body)
        self.assertIsNone(response.place)

    def test_sink_breaks(self) -> None:
        """What a sink raises is what the caller gets."""
        error = OSError(28, "No space left on device")
        for basket in (Basket(begin=error), Basket(write=error)):
            fetching = self.fetch(to=basket)
            line = self.accept()
            line.say(FIVE + b"hel")
            self.assertTrue(line.disconnected)
            self.assertIs(self.failed(fetching, OSError), error)

    def test_no_error_status(self) -> None:
        """A status of 400 or more is a response, too."""
        for status in (b"400", b"500", b"599"):
            said = b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status
            self.assertEqual(self.answered(said).status, int(status))


class FollowTests(MemoryTests):
    """Redirects that are followed."""

    def follow(self, *answers: bytes, **options: Any) -> list[Line]:
        """Fetch what is answered so, one after the other; returns the lines."""
        fetching = self.fetch(**{"follow": True, **options})
        lines = []
        for said in answers:
            lines.append(self.accept())
            lines[-1].say(said)
        self.response = self.taken(fetching)
        return lines

    def not_followed(
        self, location: str | bytes, kind: type[BaseException] = RedirectRefused
    ) -> Any:
        """The error of a redirect to where it must not go."""
        fetching = self.fetch(follow=True)
        line = self.accept()
        line.say(redirect(location))
        self.assertTrue(line.disconnected)
        return self.failed(fetching, kind)

    def test_methods(self) -> None:
        """What becomes of the method, and of the body with it."""
        for method, statuses in (
            ("GET", {}),
            ("HEAD", {}),
            ("POST", {301: "GET", 302: "GET", 303: "GET"}),
            ("PUT", {303: "GET"}),
            ("DELETE", {303: "GET"}),
        ):
            body = b"a=b" if method in {"POST", "PUT"} else None
            fields = [("X", "y")]
            if body is not None:
                fields += [("content-type", "a/b"), ("Content-Language", "de")]
            for status in (301, 302, 303, 307, 308):
                first, second = self.follow(
                    redirect("/b", status, b"" if method == "HEAD" else b"moved"),
                    HEAD + b"Content-Length: 0\r\n\r\n",
                    method=method,
                    body=body,
                    headers=fields,
                )
                expected = statuses.get(status, method)
                head, _, came = second.request.partition(b"\r\n\r\n")
                line, _, headers = head.partition(b"\r\n")
                self.assertEqual(line, b"%b /b HTTP/1.1" % expected.encode())
                kept = body is not None and expected == method
                self.assertEqual(came, body if kept else b"", (method, status))
                for field in (b"content-type", b"content-length", b"content-language"):
                    self.assertEqual(field in headers.lower(), kept, (method, status))
                self.assertIn(b"\r\nX: y", headers)
                self.assertTrue(first.request.startswith(method.encode()))

    def test_response(self) -> None:
        """The response is that of the last, and says which way it went."""
        basket = Basket()
        self.follow(
            redirect("/b?c#d", 301, b"moved"),
            redirect("http://u:p@192.0.2.2:81/", 308, b"moved"),
            FIVE + b"hello",
            url="http://u:p@192.0.2.1/a#f",
            to=basket,
        )
        self.assertEqual(self.response.status, 200)
        self.assertEqual(self.response.url, "http://192.0.2.2:81/")
        self.assertEqual(
            self.response.redirects, ("http://192.0.2.1/a", "http://192.0.2.1/b?c")
        )
        self.assertEqual(self.response.peer, "192.0.2.2:81")
        self.assertEqual(basket.body, b"hello")
        self.assertEqual([head.raw for head in basket.heads], [FIVE])

    def test_location(self) -> None:
        """A Location is relative or not, and is where it goes."""
        for location, address, line in (
            ("b", ("192.0.2.1", 80), b"GET /x/b HTTP/1.1"),
            ("/b", ("192.0.2.1", 80), b"GET /b HTTP/1.1"),
            ("../b", ("192.0.2.1", 80), b"GET /b HTTP/1.1"),
            ("?b", ("192.0.2.1", 80), b"GET /x/a?b HTTP/1.1"),
            ("#b", ("192.0.2.1", 80), b"GET /x/a HTTP/1.1"),
            ("//192.0.2.2/b", ("192.0.2.2", 80), b"GET /b HTTP/1.1"),
            ("http://192.0.2.2:81", ("192.0.2.2", 81), b"GET / HTTP/1.1"),
            ("HTTP://[::1]/", ("::1", 80), b"GET / HTTP/1.1"),
            ("/b c", ("192.0.2.1", 80), b"GET /b%20c HTTP/1.1"),
            (b"/\xff", ("192.0.2.1", 80), b"GET /%FF HTTP/1.1"),
            ("/é", ("192.0.2.1", 80), b"GET /%C3%A9 HTTP/1.1"),
        ):
            _, second = self.follow(
                redirect(location), FIVE + b"hello", url="http://192.0.2.1/x/a"
            )
            self.assertEqual(second.address, address)
            self.assertEqual(second.request.partition(b"\r\n")[0], line)

    def test_no_redirect(self) -> None:
        """What has no Location, or another status, is the answer itself."""
        for said in (
            b"HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nhello",
            redirect("", body=b"hello"),
            redirect("/b", 300, b"hello"),
            redirect("/b", 305, b"hello"),
            redirect("/b", 201, b"hello"),
            redirect("/b", 404, b"hello"),
        ):
            self.follow(said)
            self.assertEqual(self.response.body, b"hello")

    def test_loop(self) -> None:
        """A loop ends after as many redirects as are allowed."""
        self.assertEqual(MOST_REDIRECTS, 20)
        options: dict[str, Any]
        for limit, options in (
            (0, {"max_redirects": 0}),
            (1, {"max_redirects": 1}),
            (3, {"max_redirects": 3}),
            (MOST_REDIRECTS, {}),
        ):
            fetching = self.fetch(follow=True, **options)
            before = self.accepted
            for _ in range(limit + 1):
                line = self.accept()
                line.say(redirect("/a"))
            self.assertTrue(line.disconnected)
            self.assertEqual(self.failed(fetching, TooManyRedirects).limit, limit)
            self.assertEqual(self.accepted - before, limit + 1)

    def test_as_many_as_allowed(self) -> None:
        """So many redirects are no loop."""
        self.follow(redirect("/b"), redirect("/c"), FIVE + b"hello", max_redirects=2)
        self.assertEqual(len(self.response.redirects), 2)

    def test_scheme(self) -> None:
        """Only http and https are gone to."""
        for location in (
            "ftp://192.0.2.1/",
            "file:///etc/passwd",
            "gopher://192.0.2.1:25/_x",
            "javascript:alert(1)",
            "data:,x",
            "mailto:a@b",
            "dict://192.0.2.1/",
        ):
            error = self.not_followed(location)
            self.assertEqual(error.location, location)
            self.assertEqual(error.exit_status, 1)

    def test_malformed(self) -> None:
        """What is no URL is not gone to."""
        for location in (
            "http://h:0/",
            "http://h:x/",
            "http://[::1/",
            "http://a b/",
            "http://h\\@evil/",
            b"http://h/\x01",
            b"http://h/a\tb",
            b"http://\xff/",
            "http://u@v@h/",
        ):
            self.not_followed(location)

    def test_no_host(self) -> None:
        """A URL without a host is none (RFC 9110, section 4.2.1)."""
        for location in ("http://", "http:///b", "http://?b", "//", "///b", "https://"):
            self.not_followed(location)

    def test_user_in_location_that_is_no_text(self) -> None:
        """User information that is not UTF-8 is dropped as any other."""
        for location in (b"http://\xff@192.0.2.1/b", b"//\xed\xa0\x80:@192.0.2.1/b"):
            _, second = self.follow(redirect(location), FIVE + b"hello")
            self.assertIn(b"GET /b HTTP/1.1\r\n", second.request)
            self.assertNotIn(b"Authorization", second.request)

    def test_injected(self) -> None:
        """A Location with a line end has no second line to be sent."""
        for location in (b"/\r\n\tX: y", b"/\n X: y", b"/a\rb", b"/a\0b"):
            fetching = self.fetch(follow=True)
            self.accept().say(redirect(location))
            if len(self.reactor.tcpClients) > self.accepted:
                line = self.accept()
                self.assertNotIn(b"\r\nX: y", line.request)
                line.say(FIVE + b"hello")
                self.taken(fetching)
            else:
                self.failed(fetching, SockprotoError)

    def test_body_is_not_awaited(self) -> None:
        """The body of a redirect may be endless: its connection is closed."""
        fetching = self.fetch(follow=True)
        first = self.accept()
        head = b"HTTP/1.1 302 F\r\nLocation: /b\r\nTransfer-Encoding: chunked\r\n\r\n"
        first.say(head + b"5\r\nhello\r\n")
        self.assertTrue(first.lost)
        second = self.accept()
        second.say(FIVE + b"hello")
        self.assertEqual(self.taken(fetching).body, b"hello")

    def test_body_is_not_judged(self) -> None:
        """Nor is it looked at: broken, too large or not to be decoded."""
        for fields in (
            b"Content-Length: 1000000000000\r\n",
            GZIP + b"Content-Length: 3\r\n",
        ):
            head = b"HTTP/1.1 302 F\r\nLocation: /b\r\n" + fields + b"\r\n"
            self.follow(head + b"not", FIVE + b"hello", max_body=5, decompress=True)
            self.assertEqual(self.response.body, b"hello")

    def test_consumer(self) -> None:
        """A consumer has the last response alone, and is registered once."""
        bucket = Bucket()
        self.follow(redirect("/b", body=b"moved"), FIVE + b"hello", to=bucket)
        self.assertEqual((bucket.body, bucket.registered), (b"hello", 1))
        self.assertIsNone(bucket.producer)

    SECRETS = (
        ("authorization", "Bearer s"),
        ("Cookie", "c=s"),
        ("cookie2", "s"),
        ("Proxy-Authorization", "s"),
        ("Host", "s.example"),
        ("X-Other", "kept"),
    )

    def test_same_origin(self) -> None:
        """Where scheme, host and port are the same, all is sent again."""
        for location in (
            "/b",
            "http://example.com/b",
            "//EXAMPLE.com:80/b",
            "http://example.com./b",
            "http://x:y@example.com/b",
        ):
            first, second = self.follow(
                redirect(location),
                FIVE + b"hello",
                url="http://example.com/a",
                headers=self.SECRETS,
            )
            self.assertEqual(
                second.request, first.request.replace(b" /a ", b" /b "), location
            )
            _, second = self.follow(
                redirect(location), FIVE + b"hello", url="http://us:er@example.com/a"
            )
            self.assertIn(basic(b"us:er"), second.request)
            self.assertEqual(second.request.count(b"Authorization"), 1)

    def test_other_origin(self) -> None:
        """Elsewhere, nothing that is secret is sent, nor when it leads back."""
        for location in (
            "http://example.org/a",
            "http://example.com:8080/a",
            "http://sub.example.com/a",
            "http://127.0.0.1/a",
            "http://us:er@example.org/a",
        ):
            for way in ({"headers": self.SECRETS}, {"user": "us:er"}, {}):
                url = "http://example.com/a" if way else "http://us:er@example.com/a"
                first, *others = self.follow(
                    redirect(location),
                    redirect("http://example.com/a"),
                    redirect("/b"),
                    FIVE + b"hello",
                    url=url,
                    **way,
                )
                self.assertRegex(first.request, rb"(?i)\r\nauthorization: ")
                for line in others:
                    self.assertNotRegex(
                        line.request,
                        rb"(?i)\r\n(proxy-)?authorization|\r\ncookie|s\.example",
                    )
                    self.assertNotIn(b"us:er", line.request)
                    self.assertNotIn(b64encode(b"us:er"), line.request)
                    self.assertEqual(b"X-Other: kept" in line.request, "headers" in way)
                    self.assertEqual(line.request.count(b"\r\nHost: "), 1)
                self.assertIn(b"\r\nHost: example.com\r\n", others[1].request)

    def test_user_in_location(self) -> None:
        """Who we are is not what a server says."""
        for location in ("http://evil:x@example.com/b", "//evil:x@example.com/b"):
            _, second = self.follow(
                redirect(location), FIVE + b"hello", url="http://example.com/a"
            )
            self.assertNotIn(b"evil", second.request)
            self.assertNotIn(b"Authorization", second.request)
            self.assertNotIn("evil", self.response.url)

    def test_no_referer(self) -> None:
        """Where we come from is not said."""
        _, second = self.follow(redirect("/b"), FIVE + b"hello")
        self.assertNotIn(b"referer", second.request.lower())

    def test_observer(self) -> None:
        """An observer is told of both exchanges, in order."""
        noting = Noting()
        self.follow(redirect("/b", body=b"moved"), FIVE + b"hello", observer=noting)
        once = ["resolved", "asked", "connected", "sent", "received", "head_came"]
        self.assertEqual(
            noting.names(),
            [*once, "closed", "redirected", *once, "ended", "closed"],
        )
        self.assertEqual(noting.of("redirected"), ["http://192.0.2.1/b"])
        self.assertEqual(noting.of("head_came"), [302, 200])


class ObserverTests(MemoryTests):
    """What is told of an exchange."""

    def test_order(self) -> None:
        """An observer is told what happens, in order."""
        noting = Noting()
        said = (
            b"HTTP/1.1 103 Early\r\n\r\n",
            CHUNKED,
            b"5\r\nhello\r\n0\r\nT: 1\r\n\r\nbehind",
        )
        fetching = self.fetch("http://u:p@example.com/a", observer=noting)
        line = self.accept()
        line.say(*said)
        response = self.taken(fetching)
        self.assertEqual(
            noting.told,
            [
                ("resolved", ("example.com", ["127.0.0.1"])),
                ("asked", ("http://example.com/a", line.request)),
                ("connected", (response.local, response.peer)),
                ("sent", line.request),
                ("received", said[0]),
                ("interim_came", 103),
                ("received", said[1]),
                ("head_came", 200),
                ("received", said[2]),
                ("ended", (((b"T", b"1"),), b"behind")),
                ("closed", "the peer closed"),
            ],
        )

    def test_need_not_care(self) -> None:
        """An observer's methods do nothing by themselves."""
        said = b"HTTP/1.1 100 C\r\n\r\n" + redirect("/b")
        fetching = self.fetch(follow=True, observer=FetchObserver())
        self.accept().say(said)
        self.accept().say(FIVE + b"hello")
        self.assertEqual(self.taken(fetching).body, b"hello")

    def test_raises(self) -> None:
        """What an observer raises is logged, and is nobody's trouble but its own."""

        class Failing(FetchObserver):
            def connected(self, here: str, there: str) -> None:
                raise ZeroDivisionError

            def sent(self, data: bytes) -> None:
                raise ZeroDivisionError

            def received(self, data: bytes) -> None:
                raise ZeroDivisionError

            def head_came(self, head: HeadCame) -> None:
                raise ZeroDivisionError

            def ended(self, end: ResponseEnded, behind: bytes) -> None:
                raise ZeroDivisionError

            def closed(self, why: str) -> None:
                raise ZeroDivisionError

        fetching = self.fetch(observer=Failing())
        self.accept().say(FIVE + b"hello")
        self.assertEqual(self.successResultOf(fetching).body, b"hello")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 6)


class TimeTests(MemoryTests):
    """How long it may take."""

    def test_silence(self) -> None:
        """A peer that is silent for the whole period is given up."""
        fetching = self.fetch(timeout=30)
        line = self.accept()
        self.reactor.advance(29)
        line.say(FIVE + b"hel")
        self.reactor.advance(29)
        self.assertNoResult(fetching)
        self.reactor.advance(1)
        self.assertTrue(line.disconnected)
        self.reactor.advance(0)
        error = self.failed(fetching, TimedOut)
        self.assertEqual(error.seconds, 30)

    def test_connecting(self) -> None:
        """A connection that does not come in time is given up."""
        options: dict[str, Any]
        for options, seconds in (
            ({"connect_timeout": 5}, 5),
            ({"timeout": 5}, 5),
            ({"connect_timeout": 5, "timeout": 9}, 5),
            ({"connect_timeout": 9, "timeout": 5}, 5),
        ):
            fetching = self.fetch(**options)
            self.reactor.advance(4.9)
            self.assertNoResult(fetching)
            self.reactor.advance(0.1)
            error = self.failureResultOf(fetching, TimedOut).value
            self.assertEqual(error.seconds, seconds)
            self.assertIn("192.0.2.1", error.awaited)
            self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_connecting_for_long(self) -> None:
        """An address has as long as the connection, and never less than usual."""
        options: dict[str, Any]
        for options, seconds in (
            ({}, 30),
            ({"connect_timeout": 5}, 30),
            ({"connect_timeout": 120}, 120),
            ({"timeout": 120}, 120),
            ({"connect_timeout": 120, "timeout": 60}, 60),
        ):
            fetching = self.fetch(**options)
            self.assertEqual(self.reactor.tcpClients[-1][3], seconds, options)
            line = self.accept()
            line.say(FIVE + b"hello")
            self.taken(fetching)

    def test_connected(self) -> None:
        """That time is over with the connection."""
        fetching = self.fetch(connect_timeout=5)
        line = self.accept()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.reactor.advance(1000)
        line.say(FIVE + b"hello")
        self.taken(fetching)

    def test_each_connection(self) -> None:
        """Each connection has it anew."""
        fetching = self.fetch(connect_timeout=5, follow=True)
        self.reactor.advance(4)
        self.accept().say(redirect("/b"))
        self.reactor.advance(4)
        self.assertNoResult(fetching)
        self.reactor.advance(1)
        self.failureResultOf(fetching, TimedOut)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_handshake(self) -> None:
        """TLS has as long as a connection."""
        # TLS collects small writes until a turn of the reactor that is global.
        self.patch(tls, "_get_default_clock", lambda: self.reactor)
        fetching = self.fetch("https://192.0.2.1/", connect_timeout=5)
        line = self.accept()
        self.assertEqual(line.address, ("192.0.2.1", 443))
        self.reactor.advance(4.9)
        self.assertNoResult(fetching)
        self.reactor.advance(0.1)
        self.reactor.advance(0)
        error = self.failed(fetching, TimedOut)
        self.assertEqual(error.awaited, "the TLS handshake")
        self.assertNotIn(b"GET", line.request)
        for warning in self.flushWarnings():
            self.assertIn("Passing pyOpenSSL", warning["message"])

    def test_max_time(self) -> None:
        """All of it together has a bound, wherever it is when that is reached."""
        options: dict[str, Any]
        for said in (None, (b"",), (HEAD,), (FIVE + b"hel",)):
            for options in ({}, {"timeout": 100, "connect_timeout": 100}):
                fetching = self.fetch(max_time=10, **options)
                line = None if said is None else self.accept()
                if line is not None and said is not None:
                    line.say(*said)
                self.reactor.advance(9.9)
                self.assertNoResult(fetching)
                self.reactor.advance(0.1)
                self.reactor.advance(0)
                error = self.failureResultOf(fetching, TimedOut).value
                self.assertEqual(error.awaited, "the whole response")
                self.assertEqual(error.seconds, 10)
                self.assertEqual(self.reactor.getDelayedCalls(), [])
                if line is None:
                    self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)
                    self.accepted += 1
                else:
                    self.assertTrue(line.disconnected)

    def test_max_time_of_drops(self) -> None:
        """A peer that sends a byte now and then does not get around it."""
        fetching = self.fetch(max_time=10, timeout=2)
        line = self.accept()
        line.say(TO_CLOSE)
        for _ in range(9):
            self.reactor.advance(1)
            line.say(b"x")
        self.reactor.advance(1)
        self.reactor.advance(0)
        self.failed(fetching, TimedOut)

    def test_max_time_of_redirects(self) -> None:
        """Nor does one that leads on and on."""
        fetching = self.fetch(max_time=10, follow=True)
        for _ in range(10):
            self.accept().say(redirect("/a"))
            self.reactor.advance(1)
        self.failureResultOf(fetching, TimedOut)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_in_time(self) -> None:
        """What comes in time leaves nothing on the clock."""
        fetching = self.fetch(max_time=10, timeout=5, connect_timeout=5, follow=True)
        self.accept().say(redirect("/b"))
        self.accept().say(FIVE + b"hello")
        self.taken(fetching)

    def test_after_the_end(self) -> None:
        """A complete response does not wait for a close beyond the silence."""
        fetching = self.fetch(timeout=30)
        line = self.accept()
        # A transport that has not sent all of the request keeps open until it has.
        line.loseConnection = lambda: None  # type: ignore[method-assign]
        line.say(FIVE + b"hello")
        self.assertNoResult(fetching)
        self.reactor.advance(30)
        self.reactor.advance(0)
        self.assertEqual(self.taken(fetching).body, b"hello")

    def test_cancel(self) -> None:
        """To cancel closes the connection, at every point, and that is all."""
        for said in (b"", HEAD, FIVE, FIVE + b"hel"):
            for to in (None, Basket(), Bucket()):
                fetching = self.fetch(timeout=30, connect_timeout=5, to=to)
                line = self.accept()
                line.say(said)
                fetching.cancel()
                self.assertTrue(line.disconnected)
                self.failed(fetching, CancelledError)
                if isinstance(to, Bucket):
                    self.assertIsNone(to.producer)

    def test_cancel_while_connecting(self) -> None:
        """To cancel before there is a connection leaves none."""
        fetching = self.fetch(timeout=30)
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ConsumerTests(MemoryTests):
    """A Twisted consumer takes the body, as fast as it can."""

    def setUp(self) -> None:
        super().setUp()
        self.bucket = Bucket()

    def begin(self, **options: Any) -> Line:
        """Fetch into the bucket."""
        self.fetching = self.fetch(to=self.bucket, **options)
        return self.accept()

    def test_all(self) -> None:
        """It has the body; it is registered from the head to the end."""
        line = self.begin()
        self.assertIsNone(self.bucket.producer)
        line.say(FIVE)
        self.assertTrue(verifyObject(IPushProducer, self.bucket.producer))
        line.say(b"hel", b"lo")
        response = self.taken(self.fetching)
        self.assertIsNone(response.body)
        self.assertEqual(self.bucket.body, b"hello")
        self.assertIsNone(self.bucket.producer)
        self.assertEqual(self.bucket.registered, 1)

    def test_empty(self) -> None:
        """An empty body is one too."""
        self.begin(method="HEAD").say(FIVE)
        self.taken(self.fetching)
        self.assertEqual((self.bucket.body, self.bucket.registered), (b"", 1))

    def test_pause(self) -> None:
        """Full, it is written to no more, and nothing is read; then on it goes."""
        self.bucket.fills = True
        line = self.begin(timeout=30)
        line.say(CHUNKED + b"1\r\na\r\n1\r\nb\r\n" + LAST)
        for body in (b"a", b"ab"):
            self.assertEqual(line.producerState, "paused")
            self.assertEqual(self.bucket.body, body)
            self.reactor.advance(1000)
            self.assertNoResult(self.fetching)
            self.bucket.resume()
        self.reactor.advance(0)
        self.taken(self.fetching)
        self.assertIsNone(self.bucket.producer)

    def test_pause_of_a_decoder(self) -> None:
        """What a few bytes decode to waits for it as well, piece by piece."""
        size = 8 * PIECE
        coded = gzip.compress(bytes(size))
        self.assertLess(len(coded), 1024)
        self.bucket.fills = True
        line = self.begin(decompress=True)
        line.say(sized(coded, GZIP))
        turns = 0
        while self.bucket.producer is not None:
            turns += 1
            self.assertLessEqual(len(self.bucket.body), turns * PIECE)
            self.assertEqual(line.producerState, "paused")
            self.bucket.resume()
            self.reactor.advance(0)
        self.taken(self.fetching)
        self.assertEqual(self.bucket.body, bytes(size))
        self.assertGreaterEqual(turns, 8)

    def test_resumed_at_once(self) -> None:
        """It may go on before it has paused."""
        self.bucket.fills = True
        self.bucket.on_write = self.bucket.resume
        line = self.begin(timeout=30)
        line.say(CHUNKED + b"1\r\na\r\n" * 2000 + LAST)
        self.taken(self.fetching)
        self.assertEqual(self.bucket.body, b"a" * 2000)

    def test_paused_from_the_start(self) -> None:
        """It may be full when it is registered."""
        self.bucket.on_register = self.bucket.pause
        line = self.begin()
        line.say(FIVE + b"hello")
        self.assertEqual(self.bucket.body, b"")
        self.bucket.resume()
        self.reactor.advance(0)
        self.taken(self.fetching)
        self.assertEqual(self.bucket.body, b"hello")

    def test_silence(self) -> None:
        """A peer that is not read from is not silent; else it is."""
        line = self.begin(timeout=30)
        line.say(FIVE)
        self.bucket.pause()
        self.reactor.advance(1000)
        self.assertNoResult(self.fetching)
        self.bucket.resume()
        self.reactor.advance(30)
        self.reactor.advance(0)
        self.failed(self.fetching, TimedOut)
        self.assertIsNone(self.bucket.producer)

    def test_max_time_while_paused(self) -> None:
        """The time for all of it goes on."""
        self.bucket.fills = True
        line = self.begin(max_time=10)
        line.say(CHUNKED + b"1\r\na\r\n")
        self.reactor.advance(10)
        self.reactor.advance(0)
        self.failed(self.fetching, TimedOut)
        self.assertIsNone(self.bucket.producer)

    def test_failures(self) -> None:
        """Whatever goes wrong, it is unregistered."""
        for said, why in (
            (FIVE + b"hel", ConnectionLost()),
            (FIVE + b"hel", ConnectionDone()),
            (TO_CLOSE + b"hel", ConnectionLost()),
            (CHUNKED + b"zz\r\n", ConnectionDone()),
        ):
            line = self.begin()
            line.say(said)
            line.break_off(why)
            self.failed(self.fetching, SockprotoError)
            self.assertIsNone(self.bucket.producer)

    def test_before_the_head(self) -> None:
        """Without a head it was never registered."""
        self.begin().end()
        self.failed(self.fetching, NothingCame)
        self.assertEqual(self.bucket.registered, 0)

    def test_stop(self) -> None:
        """If it wants no more, the connection is aborted."""
        line = self.begin()
        line.say(FIVE + b"hel")
        self.bucket.stop()
        self.assertTrue(line.disconnected)
        self.reactor.advance(0)
        self.failed(self.fetching, ConnectionWasReset)
        self.assertEqual(self.bucket.body, b"hel")
        self.assertIsNone(self.bucket.producer)

    def test_stop_at_once(self) -> None:
        """Also where it wants nothing at all."""
        self.bucket.on_register = self.bucket.stop
        line = self.begin()
        line.say(FIVE + b"hello")
        self.assertTrue(line.disconnected)
        self.failed(self.fetching, ConnectionWasReset)
        self.assertEqual(self.bucket.body, b"")

    def test_raises(self) -> None:
        """What it raises is told, and it is unregistered."""

        def leak() -> None:
            raise ZeroDivisionError

        self.bucket.on_write = leak
        self.begin().say(FIVE + b"hello")
        self.failed(self.fetching, ZeroDivisionError)
        self.assertIsNone(self.bucket.producer)


class WayTests(MemoryTests):
    """Where a connection is made to."""

    def test_unix_socket(self) -> None:
        """A unix socket is connected to, whatever the host, which is still said."""
        for path in ("/run/a", Path("/run/a")):
            fetching = self.fetch("http://example.com:81/a", unix_socket=path)
            self.assertEqual(self.reactor.tcpClients, [])
            place, factory, *_ = self.reactor.unixClients[-1]
            self.assertEqual(place, "/run/a")
            line = Line(self.reactor, ("192.0.2.1", 1))
            line.protocol = factory.buildProtocol(None)
            line.protocol.makeConnection(line)
            line.say(FIVE + b"hello")
            self.assertEqual(self.taken(fetching).body, b"hello")
            self.assertIn(b"\r\nHost: example.com:81\r\n", line.request)

    def test_resolve(self) -> None:
        """Addresses that are given are taken, and nobody is asked for them."""
        self.reactor.nameResolver = None
        noting = Noting()
        fetching = self.fetch(
            "http://Example.com:81/",
            resolve={("example.com", 81): ["192.0.2.9"]},
            observer=noting,
        )
        line = self.accept()
        self.assertEqual(line.address, ("192.0.2.9", 81))
        line.say(FIVE + b"hello")
        self.taken(fetching)
        self.assertIn(b"Host: example.com:81\r\n", line.request)
        self.assertEqual(noting.of("resolved"), [("example.com", ["192.0.2.9"])])

    def test_resolve_another(self) -> None:
        """They are of that host and port alone."""
        resolve = {("example.com", 81): ["192.0.2.9"]}
        for url in ("http://example.com/", "http://example.org:81/"):
            fetching = self.fetch(url, resolve=resolve)
            line = self.accept()
            self.assertEqual(line.address[0], "127.0.0.1")
            line.say(FIVE + b"hello")
            self.taken(fetching)

    def test_resolve_to_no_address(self) -> None:
        """What is no address is refused, also for a host that is not asked for."""
        for bad in ("", "localhost", "192.0.2", "192.0.2.256", "[::1]", "::1::", "a\0"):
            for addresses in ([bad], ["192.0.2.9", bad]):
                error = self.refused(
                    SettingError, resolve={("example.com", 81): addresses}
                )
                self.assertEqual((error.name, error.seen), ("resolve", bad))
        for address in ("192.0.2.9", "::1", "fe80::1%eth0"):
            resolve = {("example.com", 80): [address]}
            self.asked("http://example.com/", resolve=resolve)
            self.assertEqual(self.reactor.tcpClients[-1][0], address)

    def test_resolve_to_no_text(self) -> None:
        """An address that is no text is none."""
        for bad in (b"192.0.2.9", None, 5):
            error = self.refused(SettingError, resolve={("example.com", 80): [bad]})
            self.assertEqual((error.name, error.seen), ("resolve", bad))

    def test_resolve_a_redirect(self) -> None:
        """They count for where a redirect leads, too."""
        fetching = self.fetch(
            follow=True, resolve={("example.com", 80): ["2001:db8::9"]}
        )
        self.accept().say(redirect("http://EXAMPLE.com/"))
        line = self.accept()
        self.assertEqual(line.address, ("2001:db8::9", 80))
        line.say(FIVE + b"hello")
        self.taken(fetching)

    def test_several_addresses(self) -> None:
        """The second address is tried when the first is slow; one request is sent."""
        fetching = self.fetch(
            "http://example.com/",
            resolve={("example.com", 80): ["2001:db8::9", "192.0.2.9"]},
        )
        self.reactor.advance(1)
        self.accepted = 1
        line = self.accept()
        self.assertEqual(line.address, ("192.0.2.9", 80))
        line.say(FIVE + b"hello")
        self.assertEqual(self.taken(fetching).peer, "192.0.2.9:80")

    def test_family(self) -> None:
        """An address of the other family is none."""
        for url, family in (
            ("http://192.0.2.1/", 6),
            ("http://[::1]/", 4),
        ):
            fetching = self.fetch(url, family=family)
            error = self.failed(fetching, NameNotResolved)
            self.assertEqual(error.host, url[7:-1].strip("[]"))
        for url, family in (("http://192.0.2.1/", 4), ("http://[::1]/", 6)):
            self.assertIn(b"GET", self.asked(url, family=family))

    def test_literal(self) -> None:
        """A literal address is not resolved."""
        self.reactor.nameResolver = None
        for url, address in (
            ("http://192.0.2.1/", "192.0.2.1"),
            ("http://[2001:DB8::1]/", "2001:db8::1"),
            ("http://[fe80::1%25eth0]/", "fe80::1%eth0"),
        ):
            self.asked(url)
            self.assertEqual(self.reactor.tcpClients[-1][0], address)

    def test_not_resolved(self) -> None:
        """A name without an address is named."""
        self.reactor.nameResolver = Nowhere()
        fetching = self.fetch("http://nowhere.invalid/")
        error = self.failed(fetching, NameNotResolved)
        self.assertEqual(error.host, "nowhere.invalid")

    def test_refused(self) -> None:
        """A port on which nobody listens is said to be so."""
        fetching = self.fetch("http://192.0.2.1:81/")
        factory = self.reactor.tcpClients[0][2]
        factory.clientConnectionFailed(None, Failure(RefusedError(111)))
        self.reactor.advance(1)
        self.accepted = 1
        error = self.failed(fetching, NotConnected)
        self.assertEqual(error.where, "192.0.2.1:81")

    def test_authorities(self) -> None:
        """A file of authorities that cannot be used is said to be so."""
        for place in ("/nowhere/ca.pem", Path("/nowhere/ca.pem")):
            fetching = self.fetch("https://192.0.2.1/", trust_root=place)
            error = self.failed(fetching, TrustMalformed)
            self.assertEqual(error.path, "/nowhere/ca.pem")


@implementer(IHostnameResolver)
class Nowhere:
    """Knows no name."""

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        resolutionReceiver.resolutionBegan(None)
        resolutionReceiver.resolutionComplete()


class SegmentTests(SynchronousTestCase):
    """How a response is cut into segments changes nothing."""

    STREAMS = (
        FIVE + b"hello",
        FIVE + b"hel",
        CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\nT: 1\r\n\r\nbehind",
        CHUNKED + b"3\r\nhel\r\nzz\r\n",
        TO_CLOSE + b"hello",
        sized(gzip.compress(b"hello"), GZIP),
        b"HTTP/1.1 100 C\r\n\r\n" + FIVE + b"hello",
        redirect("/b"),
        b"220 smtp ready\r\n",
        HEAD + b"A : b\r\n\r\n",
    )

    def outcome(self, segments: Sequence[bytes], end: BaseException | None) -> object:
        """What comes of a response in these segments, with this end."""
        case = MemoryTests()
        case.setUp()
        fetching = case.fetch(decompress=True)
        line = case.accept()
        line.say(*segments)
        if end is None:
            line.end()
        else:
            line.break_off(end)
        case.reactor.advance(0)
        self.assertEqual(case.reactor.getDelayedCalls(), [])
        told: list[Any] = []
        fetching.addBoth(told.append)
        (result,) = told
        if isinstance(result, Failure):
            return type(result.value), str(result.value)
        return result

    @settings(deadline=None, max_examples=50)
    @given(
        stream=st.sampled_from(STREAMS),
        cuts=st.lists(st.integers(0, 120), max_size=6),
        end=st.sampled_from([None, ConnectionDone(), ConnectionLost()]),
    )
    @example(stream=STREAMS[2], cuts=list(range(120)), end=None)
    def test_chopping(
        self, stream: bytes, cuts: list[int], end: BaseException | None
    ) -> None:
        """The same response or the same error comes, however it arrives."""
        segments, start = [], 0
        for cut in [*sorted(cuts), len(stream)]:
            segments.append(stream[start:cut])
            start = max(start, min(cut, len(stream)))
        self.assertEqual(
            self.outcome([s for s in segments if s], end), self.outcome([stream], end)
        )
