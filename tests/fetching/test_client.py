"""
One request and its response, in memory and over real sockets.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import trustme
from hypothesis import given, settings, strategies as st
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

import sockproto.tls  # noqa: F401 - what a lost connection is told depends on it
from sockproto.connecting import Observer
from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    CannotWrite,
    CertificateRefused,
    ConnectionWasReset,
    HandshakeFailed,
    HeaderNotSendable,
    HeadMalformed,
    MisuseError,
    NotConnected,
    NothingCame,
    SchemeNotSupported,
    SockprotoError,
    TimedOut,
    TooLarge,
    UrlMalformed,
)
from sockproto.fetching import FetchProtocol, Response, fetch
from sockproto.transports import innermost
from sockproto.version import __version__
from sockproto.wire.exchange import Exchange, HeadCame

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress

HEAD = b"HTTP/1.1 200 OK\r\n"
FIVE = HEAD + b"Content-Length: 5\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
TO_CLOSE = HEAD + b"\r\n"

USUAL = b"User-Agent: sockproto/%b\r\nAccept: */*\r\nConnection: close\r\n" % (
    __version__.encode()
)


class Basket:
    """
    A sink that keeps what it is given, or raises instead.
    """

    def __init__(
        self, begin: BaseException | None = None, write: BaseException | None = None
    ) -> None:
        self._begin = begin
        self._write = write
        self.heads: list[HeadCame] = []
        self.body = b""

    def begin(self, head: HeadCame) -> None:
        if self._begin is not None:
            raise self._begin
        self.heads.append(head)

    def write(self, data: bytes) -> None:
        if self._write is not None:
            raise self._write
        self.body += data


class Conversation:
    """
    A `FetchProtocol` on a `StringTransport`, with what came of it.
    """

    def __init__(
        self, *, timeout: float | None = None, basket: Basket | None = None
    ) -> None:
        self.clock = Clock()
        self.basket = basket or Basket()
        self.transport = StringTransport()
        self.protocol = FetchProtocol(
            Exchange(b"/", [(b"Host", b"h")]),
            self.basket,
            clock=self.clock,
            timeout=timeout,
        )
        self.outcomes: list[HeadCame | BaseException] = []
        self.protocol.done.addCallbacks(
            self.outcomes.append, lambda failure: self.outcomes.append(failure.value)
        )
        self.protocol.makeConnection(self.transport)

    def lose(self, *, why: BaseException, half_close: bool = False) -> None:
        """End the connection, the peer's side of it first if it can be so."""
        if half_close:
            self.protocol.readConnectionLost()
        if self.transport.disconnected:
            why = ConnectionAborted()
        self.protocol.connectionLost(Failure(why))

    @property
    def outcome(self) -> HeadCame | BaseException:
        """The one thing that `done` fired with."""
        (outcome,) = self.outcomes
        return outcome


class ProtocolTests(SynchronousTestCase):
    """The protocol, without a network."""

    def test_request(self) -> None:
        """The request is sent when the connection is there, once."""
        talk = Conversation()
        self.assertEqual(talk.transport.value(), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        talk.protocol.dataReceived(FIVE)
        talk.protocol.dataReceived(b"hello")
        self.assertEqual(talk.transport.value(), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")

    def test_complete(self) -> None:
        """A complete response closes the connection, and has its head fire."""
        for body in (FIVE + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"):
            talk = Conversation()
            talk.protocol.dataReceived(body + b"behind")
            self.assertTrue(talk.transport.disconnecting)
            talk.lose(why=ConnectionDone())
            self.assertEqual(talk.basket.body, b"hello")
            self.assertEqual(talk.basket.heads, [talk.outcome])

    def test_complete_then_reset(self) -> None:
        """What becomes of the connection of a complete response is no matter."""
        for why in (ConnectionLost(), ConnectionAborted(), SSL.Error([])):
            talk = Conversation()
            talk.protocol.dataReceived(FIVE + b"hello")
            talk.protocol.dataReceived(b"late")
            talk.lose(why=why)
            self.assertIsInstance(talk.outcome, HeadCame)

    def test_read_to_close(self) -> None:
        """The end of the peer's side ends a body that has no other end."""
        talk = Conversation()
        talk.protocol.dataReceived(TO_CLOSE + b"hel")
        talk.protocol.dataReceived(b"lo")
        talk.protocol.readConnectionLost()
        self.assertTrue(talk.transport.disconnecting)
        talk.lose(why=ConnectionDone())
        self.assertEqual(talk.basket.body, b"hello")
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_interim(self) -> None:
        """Interim responses are passed over; the sink has the final head alone."""
        talk = Conversation()
        talk.protocol.dataReceived(b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + FIVE)
        self.assertEqual([head.raw for head in talk.basket.heads], [FIVE])

    def test_lost_at_every_point(self) -> None:
        """Wherever the connection ends, `done` fires once, with the right kind."""
        for stream, head, complete in (
            (FIVE + b"hello", FIVE, len(FIVE) + 5),
            (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", CHUNKED, len(CHUNKED) + 15),
            (TO_CLOSE + b"hello", TO_CLOSE, len(TO_CLOSE)),
        ):
            for end in range(len(stream) + 1):
                for half_close in (True, False):
                    talk = Conversation(timeout=30)
                    talk.protocol.dataReceived(stream[:end])
                    talk.lose(why=ConnectionDone(), half_close=half_close)
                    expected: type = BodyCutShort
                    if not end:
                        expected = NothingCame
                    elif end < len(head):
                        expected = HeadMalformed
                    elif end >= complete:
                        expected = HeadCame
                    self.assertIs(type(talk.outcome), expected, stream[:end])
                    self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_reset_at_every_point(self) -> None:
        """A reset never passes for the end of a response."""
        for stream, complete in (
            (FIVE + b"hello", True),
            (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", True),
            (TO_CLOSE + b"hello", False),
        ):
            for end in range(len(stream) + 1):
                talk = Conversation(timeout=30)
                talk.protocol.dataReceived(stream[:end])
                talk.lose(why=ConnectionLost())
                whole = complete and end == len(stream)
                expected = HeadCame if whole else ConnectionWasReset
                self.assertIs(type(talk.outcome), expected, stream[:end])
                self.assertEqual(talk.clock.getDelayedCalls(), [])

    @settings(deadline=None)
    @given(cuts=st.lists(st.integers(0, 100), max_size=6))
    def test_chopping(self, cuts: list[int]) -> None:
        """Segments change nothing."""
        stream = CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
        talk = Conversation()
        start = 0
        for end in [*sorted(cuts), len(stream)]:
            talk.protocol.dataReceived(stream[start:end])
            start = max(start, min(end, len(stream)))
        talk.lose(why=ConnectionDone())
        self.assertEqual(talk.basket.body, b"hello")
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_malformed(self) -> None:
        """A response that breaks the grammar has the connection aborted."""
        for stream, kind in (
            (b"220 smtp\r\n\r\n", HeadMalformed),
            (CHUNKED + b"zz\r\n", BodyMalformed),
        ):
            talk = Conversation()
            talk.protocol.dataReceived(stream)
            self.assertTrue(talk.transport.disconnected)
            talk.lose(why=ConnectionAborted())
            self.assertIsInstance(talk.outcome, kind)

    def test_silence(self) -> None:
        """A peer that is silent for the whole period is cut off."""
        talk = Conversation(timeout=30)
        talk.clock.advance(29.9)
        self.assertFalse(talk.transport.disconnected)
        talk.clock.advance(0.1)
        self.assertTrue(talk.transport.disconnected)
        talk.lose(why=ConnectionAborted())
        error = talk.outcome
        assert isinstance(error, TimedOut)
        self.assertEqual(error.seconds, 30)
        self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_slow(self) -> None:
        """Each byte begins the period anew, also one of an interim head."""
        stream = b"HTTP/1.1 100 Continue\r\n\r\n" + FIVE + b"hello"
        talk = Conversation(timeout=30)
        for byte in stream:
            talk.clock.advance(29)
            talk.protocol.dataReceived(bytes([byte]))
        self.assertFalse(talk.transport.disconnected)
        talk.lose(why=ConnectionDone())
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_patience(self) -> None:
        """Without a timeout nothing is waited for on the clock."""
        self.assertEqual(Conversation().clock.getDelayedCalls(), [])

    def test_silence_after_the_end(self) -> None:
        """A connection that does not close makes a complete response no failure."""
        talk = Conversation(timeout=30)
        talk.protocol.dataReceived(FIVE + b"hello")
        talk.clock.advance(30)
        talk.lose(why=ConnectionDone())
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_cancel(self) -> None:
        """To cancel aborts the connection, at every point, and that is all."""
        for came in (b"", HEAD, FIVE, FIVE + b"hel"):
            talk = Conversation(timeout=30)
            talk.protocol.dataReceived(came)
            talk.protocol.done.cancel()
            self.assertTrue(talk.transport.disconnected)
            self.assertIsInstance(talk.outcome, CancelledError)
            talk.protocol.dataReceived(b"lo")
            self.assertEqual(talk.basket.body, b"hel" if came.endswith(b"hel") else b"")
            talk.lose(why=ConnectionAborted())
            self.assertIsInstance(talk.outcome, CancelledError)
            self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_sink_refuses(self) -> None:
        """An error of ours that a sink raises aborts, and is what `done` has."""
        error = CannotWrite("here", "full")
        for basket in (Basket(begin=error), Basket(write=error)):
            talk = Conversation(basket=basket)
            talk.protocol.dataReceived(FIVE + b"hel")
            self.assertTrue(talk.transport.disconnected)
            talk.protocol.dataReceived(b"lo")
            talk.lose(why=ConnectionAborted())
            self.assertIs(talk.outcome, error)
            self.assertEqual(talk.basket.body, b"")

    def test_sink_breaks(self) -> None:
        """Whatever else a sink raises ends the exchange likewise."""
        error = OSError(28, "No space left on device")
        for basket in (Basket(begin=error), Basket(write=error)):
            talk = Conversation(basket=basket)
            talk.protocol.dataReceived(FIVE + b"hel")
            self.assertTrue(talk.transport.disconnected)
            talk.lose(why=ConnectionAborted())
            self.assertIs(talk.outcome, error)

    def test_without_close_notify(self) -> None:
        """TLS that is cut off ends only what has an end of its own."""
        for stream, kind in (
            (FIVE + b"hello", HeadCame),
            (FIVE + b"hel", BodyCutShort),
            (CHUNKED + b"5\r\nhel", BodyCutShort),
            (HEAD, HeadMalformed),
            (TO_CLOSE + b"hello", ConnectionWasReset),
            (TO_CLOSE, ConnectionWasReset),
        ):
            talk = Conversation()
            talk.protocol.dataReceived(stream)
            talk.lose(why=SSL.SysCallError(-1, "Unexpected EOF"))
            self.assertIs(type(talk.outcome), kind, stream)


class Answering(Protocol):
    """
    A server's end: hears one request, then does what its server says.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.heard = b""
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._server.connections.append(self)
        if self._server.at_once is not None:
            self._server.at_once(self)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self.heard.endswith(self._server.request_end):
            self._server.answer(self)

    def say(self, data: bytes) -> None:
        """Write."""
        transport: Any = self.transport
        transport.write(data)

    def close(self) -> None:
        """Close in good order."""
        transport: Any = self.transport
        transport.loseConnection()

    def abort(self) -> None:
        """Close with a reset."""
        transport: Any = self.transport
        transport.abortConnection()

    def cut(self) -> None:
        """Close the socket under TLS, once what was said is on its way."""
        from twisted.internet import reactor

        # TLS collects small writes until the reactor's next turn.
        clock: Any = reactor
        clock.callLater(
            0, clock.callLater, 0, lambda: innermost(self.transport).loseConnection()
        )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Server(Factory):
    """
    Builds the server's ends, and keeps them.
    """

    noisy = False
    request_end = b"\r\n\r\n"

    def __init__(self) -> None:
        self.connections: list[Answering] = []
        self.answer: Callable[[Answering], object] = lambda _: None
        self.at_once: Callable[[Answering], object] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Answering:
        return Answering(self)


class ServerTests(TestCase):
    """What the tests over real sockets share."""

    scheme = "http"
    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.server = Server()
        self.port = self.listen()
        self.url = f"{self.scheme}://127.0.0.1:{self.port.getHost().port}/a"
        self.addCleanup(self.hang_up)

    async def hang_up(self) -> None:
        """Close what is open at the server's end."""
        await maybeDeferred(self.port.stopListening)
        for connection in self.server.connections:
            if not connection.lost.called:
                connection.abort()
            await connection.lost
        for warning in self.flushWarnings():
            # pyOpenSSL's, about what Twisted gives it.
            self.assertIn("Passing pyOpenSSL", warning["message"])

    def listen(self) -> Any:
        """Begin to listen on a port that is free."""
        return self.reactor.listenTCP(0, self.server, interface="127.0.0.1")

    def answers(self, *said: bytes, then: Callable[[Answering], object] | None) -> None:
        """Have the server answer so, and then do this."""

        def answer(connection: Answering) -> None:
            for data in said:
                connection.say(data)
            if then is not None:
                then(connection)

        self.server.answer = answer

    def fetch(self, **options: Any) -> Deferred[Response]:
        """Fetch what the server has."""
        return fetch(self.reactor, self.url, **options)

    async def failing(self, kind: type[BaseException], **options: Any) -> Any:
        """Fetch what ends with this error; returns it."""
        with self.assertRaises(kind) as raised:
            await self.fetch(**options)
        return raised.exception

    async def fetching(self, *said: bytes) -> list[Deferred[Response]]:
        """Fetch what is still missing when the server has said this."""
        heard: Deferred[None] = Deferred()
        self.answers(*said, then=lambda _: heard.callback(None))
        # In a list: who awaits us would await a Deferred as well.
        begun = [self.fetch()]
        await heard
        return begun

    async def request(self, **options: Any) -> bytes:
        """The bytes of a request, as the server hears them."""
        self.answers(FIVE + b"hello", then=None)
        await self.fetch(**options)
        return self.server.connections[-1].heard


class FetchTests(ServerTests):
    """`fetch` over TCP."""

    async def test_response(self) -> None:
        """The response says all that came, and between which addresses."""
        head = b"HTTP/1.1 404 Not  Here\r\nB:  2\r\na: 1\r\nB: 3\r\n"
        head += b"Content-Length: 5\r\n\r\n"
        self.answers(head + b"hello", then=None)
        response = await self.fetch()
        peer = self.server.connections[0].transport
        assert peer is not None
        address: Any = peer.getPeer()
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
                    (b"Content-Length", b"5"),
                ),
                head=head,
                body=b"hello",
                place=None,
                local=f"127.0.0.1:{address.port}",
                peer=f"127.0.0.1:{self.port.getHost().port}",
            ),
        )

    async def test_body_identical(self) -> None:
        """A large body comes as it was sent, however it is delimited."""
        body = bytes(range(256)) * 8192
        half = len(body) // 2
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:])
        )
        for said, then in (
            (HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, None),
            (CHUNKED + chunks + b"0\r\n\r\n", None),
            (TO_CLOSE + body, Answering.close),
        ):
            self.answers(said, then=then)
            response = await self.fetch()
            self.assertTrue(response.body == body)

    async def test_request(self) -> None:
        """The request has these bytes, and Host first."""
        self.assertEqual(
            await self.request(),
            b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % self.port.getHost().port
            + USUAL
            + b"\r\n",
        )

    async def test_own_headers(self) -> None:
        """One's own headers follow, as they are, in order."""
        heard = await self.request(
            headers=[("X-b", " 1 "), (b"x-B", b"\xff"), ("\tY ", "\xe9"), ("Z", "")]
        )
        self.assertTrue(
            heard.endswith(
                USUAL + b"X-b: 1\r\nx-B: \xff\r\nY: \xc3\xa9\r\nZ: \r\n\r\n"
            ),
            heard,
        )

    async def test_own_host(self) -> None:
        """One's own Host takes the place of ours, the first, wherever it is given."""
        self.assertEqual(
            await self.request(headers=[("X", "1"), ("hOST", "example.com")]),
            b"GET /a HTTP/1.1\r\nhOST: example.com\r\n" + USUAL + b"X: 1\r\n\r\n",
        )

    async def test_own_usual(self) -> None:
        """One's own User-Agent, Accept or Connection is the only one."""
        heard = await self.request(
            headers=[("connection", "x"), ("ACCEPT", "a/b"), ("User-agent", "me")]
        )
        self.assertTrue(
            heard.endswith(
                b"\r\nconnection: x\r\nACCEPT: a/b\r\nUser-agent: me\r\n\r\n"
            )
        )
        self.assertEqual(heard.lower().count(b"\r\n"), 6)

    def test_not_sendable(self) -> None:
        """A header that would smuggle something is refused before anything is sent."""
        for name, value in (
            ("X", "a\r\nInjected: b"),
            ("X", "a\nb"),
            ("X", "a\rb"),
            ("X", "a\0"),
            ("X\r\nY", "a"),
            ("X Y", "a"),
            ("X:", "a"),
            ("", "a"),
            ("\xe9", "a"),
            ("Content-Length", "5"),
        ):
            with self.assertRaises(HeaderNotSendable):
                self.fetch(headers=[(name, value)])
            with self.assertRaises(HeaderNotSendable):
                self.fetch(headers=[(name.encode(), value.encode())])
        with self.assertRaises(HeaderNotSendable):
            self.fetch(headers=[("Host", "a"), ("host", "b")])

    def test_bad_url(self) -> None:
        """A URL that is not taken is refused at the call."""
        with self.assertRaises(UrlMalformed):
            fetch(self.reactor, "http://a b/")
        with self.assertRaises(SchemeNotSupported):
            fetch(self.reactor, "ftp://a/")

    def test_bad_arguments(self) -> None:
        """Arguments that mean nothing are refused at the call."""
        bad: list[dict[str, Any]] = [
            {"family": 5},
            {"timeout": -1},
            {"timeout": 0},
            {"timeout": float("nan")},
            {"max_body": -1},
        ]
        for options in bad:
            try:
                taken = self.fetch(**options)
            except MisuseError:
                continue
            taken.addErrback(lambda _: None)
            taken.cancel()
            self.fail(f"{options} was taken")

    async def test_redirect(self) -> None:
        """A redirect is a response like others."""
        self.answers(
            b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
            then=None,
        )
        response = await self.fetch()
        self.assertEqual((response.status, response.body), (302, b""))
        self.assertEqual(len(self.server.connections), 1)

    async def test_in_memory(self) -> None:
        """A body in memory may be as large as was said, and no larger."""
        endless = CHUNKED + b"6\r\nhello!\r\n"
        for said in (FIVE + b"hello", TO_CLOSE + b"hello", endless):
            self.answers(said, then=Answering.close)
            if said is not endless:
                self.assertEqual((await self.fetch(max_body=5)).body, b"hello")
            error = await self.failing(TooLarge, max_body=4)
            self.assertEqual(error.limit, 4)

    async def test_too_large_is_aborted(self) -> None:
        """A body that is too large, or has no end, is not read to its end."""
        self.answers(HEAD + b"Content-Length: 6\r\n\r\n", then=None)
        await self.failing(TooLarge, max_body=5)
        await self.server.connections[-1].lost

        self.answers(CHUNKED + b"100000\r\n" + b"x" * 0x10000, then=None)
        await self.failing(TooLarge, max_body=100)
        await self.server.connections[-1].lost

    async def test_errors(self) -> None:
        """Each way to end too early is an error of its own."""
        for said, then, kind in (
            (b"", Answering.close, NothingCame),
            (b"HTTP/1.1 2", Answering.close, HeadMalformed),
            (b"220 smtp\r\n\r\n", None, HeadMalformed),
            (FIVE + b"hel", Answering.close, BodyCutShort),
            (CHUNKED + b"zz\r\n", None, BodyMalformed),
            (FIVE + b"hel", Answering.abort, ConnectionWasReset),
            (TO_CLOSE + b"hel", Answering.abort, ConnectionWasReset),
        ):
            self.answers(said, then=then)
            await self.failing(kind)

    async def test_refused(self) -> None:
        """A port on which nobody listens is said to be so."""
        await self.port.stopListening()
        error = await self.failing(NotConnected)
        self.assertEqual(error.problem, "connection refused")

    async def test_silence(self) -> None:
        """A peer that says nothing is given up."""
        self.answers(FIVE + b"hel", then=None)
        error = await self.failing(TimedOut, timeout=0.05)
        self.assertEqual(error.seconds, 0.05)
        await self.server.connections[0].lost

    async def test_cancel(self) -> None:
        """To cancel closes the connection, at every point, and nothing is logged."""
        for said in (b"", HEAD, FIVE + b"hel"):
            (fetching,) = await self.fetching(said)
            fetching.cancel()
            self.assertIsInstance(self.failureResultOf(fetching).value, CancelledError)
            await self.server.connections[-1].lost
            self.assertEqual(self.flushLoggedErrors(), [])

    async def test_cancel_while_connecting(self) -> None:
        """To cancel before there is a connection leaves none."""
        fetching = self.fetch()
        fetching.cancel()
        self.assertIsInstance(self.failureResultOf(fetching).value, CancelledError)

    async def test_sink(self) -> None:
        """A sink has the head, then the body; the response has none then."""
        basket = Basket()
        self.answers(FIVE + b"hello", then=None)
        response = await self.fetch(to=basket)
        self.assertEqual(basket.body, b"hello")
        self.assertEqual([head.raw for head in basket.heads], [response.head])
        self.assertIsNone(response.body)
        self.assertIsNone(response.place)

    async def test_observer(self) -> None:
        """An observer is told what happens on the socket, in order."""
        told: list[object] = []

        class Watching(Observer):
            def resolved(self, host: str, addresses: object) -> None:
                told.append((host, addresses))

            def connected(self, here: str, there: str) -> None:
                told.append(there)

            def sent(self, data: bytes) -> None:
                told.append(data)

            def received(self, data: bytes) -> None:
                told.append(data)

            def closed(self, why: str) -> None:
                told.append(why)

        self.answers(FIVE + b"hello", then=None)
        response = await self.fetch(observer=Watching())
        resolved, there, sent, *received, why = told
        self.assertEqual(resolved, ("127.0.0.1", ["127.0.0.1"]))
        self.assertEqual(there, response.peer)
        self.assertEqual(sent, self.server.connections[0].heard)
        self.assertEqual(
            b"".join(data for data in received if isinstance(data, bytes)),
            FIVE + b"hello",
        )
        self.assertIsInstance(why, str)

    async def test_family(self) -> None:
        """An address of the other family is none."""
        self.answers(FIVE + b"hello", then=None)
        self.assertEqual((await self.fetch(family=4)).body, b"hello")


class FileTests(ServerTests):
    """`fetch` into a file."""

    def setUp(self) -> None:
        super().setUp()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()
        self.place = self.folder / "a"

    def there(self) -> dict[str, bytes]:
        """The folder's files and what is in them."""
        return {f.name: f.read_bytes() for f in self.folder.iterdir() if f.is_file()}

    async def test_replaced(self) -> None:
        """A file is replaced once the body is complete."""
        self.place.write_bytes(b"old")
        before: list[dict[str, bytes]] = []

        def then(connection: Answering) -> None:
            before.append(self.there())
            connection.say(b"lo")

        self.answers(FIVE + b"hel", then=then)
        for to in (str(self.place), self.place):
            response = await self.fetch(to=to)
            self.assertIsNone(response.body)
            self.assertEqual(response.place, str(self.place))
            self.assertEqual(self.there(), {"a": b"hello"})
        self.assertEqual(before, [{"a": b"old"}, {"a": b"hello"}])

    async def test_cut_short(self) -> None:
        """What came of a body is kept beside its place."""
        self.place.write_bytes(b"old")
        self.answers(FIVE + b"hel", then=Answering.close)
        await self.failing(BodyCutShort, to=self.place)
        self.assertEqual(self.there(), {"a": b"old", "a.part": b"hel"})

    async def test_not_connected(self) -> None:
        """Where no body came, the file is as it was."""
        self.place.write_bytes(b"old")
        await self.port.stopListening()
        await self.failing(NotConnected, to=self.place)
        self.assertEqual(self.there(), {"a": b"old"})

    def at_head(self, act: Callable[[], object]) -> Observer:
        """An observer that acts once the head has been taken."""
        reactor = self.reactor

        class Watching(Observer):
            def received(self, data: bytes) -> None:
                if data == FIVE:
                    # Not before the protocol has handed it on.
                    reactor.callLater(0, act)

        return Watching()

    async def test_cancelled(self) -> None:
        """To cancel leaves nothing half at the body's place."""
        begun: Deferred[None] = Deferred()
        self.answers(FIVE, then=None)
        fetching = self.fetch(
            to=self.place, observer=self.at_head(lambda: begun.callback(None))
        )
        await begun
        self.assertEqual(len(self.there()), 1)
        fetching.cancel()
        self.failureResultOf(fetching)
        await self.server.connections[0].lost
        self.assertEqual(self.there(), {})
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_refused(self) -> None:
        """A place that cannot be written to ends the exchange."""
        self.answers(FIVE, then=None)
        await self.failing(CannotWrite, to=self.folder / "no" / "a")
        await self.server.connections[0].lost

    async def test_taken(self) -> None:
        """If its place is taken meanwhile, a body is kept where one finds it."""

        def take() -> None:
            self.place.mkdir()
            self.server.connections[0].say(b"hello")

        self.answers(FIVE, then=None)
        await self.failing(CannotWrite, to=self.place, observer=self.at_head(take))
        self.assertEqual(self.there(), {"a.part": b"hello"})


class TLSTests(ServerTests):
    """`fetch` over TLS."""

    scheme = "https"
    authority = trustme.CA()

    def listen(self) -> Any:
        """Listen with a certificate for this address."""
        return self.listen_as("127.0.0.1")

    def listen_as(self, name: str) -> Any:
        """Listen with a certificate for this name."""
        issued = self.authority.issue_cert(name)
        pem = issued.private_key_and_cert_chain_pem.bytes()
        return self.reactor.listenSSL(
            0,
            self.server,
            ssl.PrivateCertificate.loadPEM(pem).options(),
            interface="127.0.0.1",
        )

    def fetch(self, **options: Any) -> Deferred[Response]:
        """Fetch, with trust in our own authority alone."""
        certificate = ssl.Certificate.loadPEM(self.authority.cert_pem.bytes())
        options.setdefault("trust_root", ssl.trustRootFromCertificates([certificate]))
        return super().fetch(**options)

    async def test_body_identical(self) -> None:
        """A large body comes as it was sent, however it is delimited."""
        body = bytes(range(256)) * 8192
        for said, then in (
            (HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, None),
            (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), None),
            (TO_CLOSE + body, Answering.close),
        ):
            self.answers(said, then=then)
            response = await self.fetch()
            self.assertTrue(response.body == body)

    async def test_request(self) -> None:
        """The request is that of TCP, with https's default port."""
        self.assertEqual(
            await self.request(headers=[("Host", "h")]),
            b"GET /a HTTP/1.1\r\nHost: h\r\n" + USUAL + b"\r\n",
        )

    async def refused(self, **options: Any) -> CertificateRefused:
        """Have the server's certificate refused, and nothing be sent to it."""
        self.answers(FIVE + b"hello", then=None)
        error: CertificateRefused = await self.failing(CertificateRefused, **options)
        await self.server.connections[0].lost
        self.assertEqual(self.server.connections[0].heard, b"")
        return error

    async def test_not_trusted(self) -> None:
        """A certificate of an authority that is not trusted is refused."""
        other = ssl.Certificate.loadPEM(trustme.CA().cert_pem.bytes())
        error = await self.refused(trust_root=ssl.trustRootFromCertificates([other]))
        self.assertEqual(error.host, "127.0.0.1")

    async def test_not_trusted_by_the_system(self) -> None:
        """Unless told otherwise, the system's authorities are trusted alone."""
        await self.refused(trust_root=None)

    async def test_other_name(self) -> None:
        """A certificate for another name is refused, and the name is said."""
        await self.port.stopListening()
        self.port = self.listen_as("example.com")
        self.url = f"https://127.0.0.1:{self.port.getHost().port}/"
        error = await self.refused()
        self.assertEqual(error.problem, "it is for example.com")

    async def test_cut_after_the_end(self) -> None:
        """A body with an end of its own needs no close_notify."""
        for said in (
            FIVE + b"hello",
            CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        ):
            self.answers(said, then=Answering.cut)
            self.assertEqual((await self.fetch()).body, b"hello")

    async def test_left_open(self) -> None:
        """Nor does it wait for the close_notify of a peer that sends none."""

        def turn_deaf(connection: Answering) -> None:
            transport: Any = connection.transport
            transport.pauseProducing()

        self.answers(FIVE + b"hello", then=turn_deaf)
        self.assertEqual((await self.fetch()).body, b"hello")

    async def test_cut_to_close(self) -> None:
        """A body that ends with the connection ends with its close_notify alone."""
        self.answers(TO_CLOSE + b"hello", then=Answering.cut)
        await self.failing(ConnectionWasReset)
        self.answers(TO_CLOSE + b"hello", then=Answering.close)
        self.assertEqual((await self.fetch()).body, b"hello")

    async def test_cut_short(self) -> None:
        """A body that is cut short says how much came."""
        self.answers(FIVE + b"hel", then=Answering.close)
        error = await self.failing(BodyCutShort)
        self.assertEqual((error.received, error.expected), (3, 5))

    async def test_cut_short_without_notice(self) -> None:
        """So does one that is cut short without close_notify: it was not reset."""
        self.answers(FIVE + b"hel", then=Answering.cut)
        error = await self.failing(BodyCutShort)
        self.assertEqual((error.received, error.expected), (3, 5))

    async def test_nothing_came(self) -> None:
        """A peer that closes without a word has said nothing."""
        self.answers(then=Answering.close)
        await self.failing(NothingCame)

    async def test_cut_before_a_word(self) -> None:
        """A peer that goes after the handshake has not failed in it."""
        self.answers(then=Answering.cut)
        error = await self.failing(SockprotoError)
        self.assertEqual(self.server.connections[0].heard[:4], b"GET ")
        self.assertIsInstance(error, NothingCame | ConnectionWasReset)

    async def test_cancel(self) -> None:
        """To cancel closes the connection, and nothing is logged."""
        (fetching,) = await self.fetching(FIVE + b"hel")
        fetching.cancel()
        self.assertIsInstance(self.failureResultOf(fetching).value, CancelledError)
        await self.server.connections[0].lost
        self.assertEqual(self.flushLoggedErrors(), [])


class NoTLSTests(ServerTests):
    """`fetch` over TLS from a peer that does not speak it."""

    scheme = "https"

    async def test_plain(self) -> None:
        """A peer that answers in plain text has failed in the handshake."""
        self.server.at_once = lambda c: c.say(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        error = await self.failing(HandshakeFailed)
        self.assertEqual(error.exit_status, 35)

    async def test_closes(self) -> None:
        """A peer that leaves in the handshake has failed in it too."""
        self.server.request_end = b""
        self.server.answer = Answering.close
        await self.failing(HandshakeFailed)

    async def test_resets(self) -> None:
        """A peer that resets the connection in the handshake has failed in it too."""
        self.server.request_end = b""
        self.server.answer = Answering.abort
        await self.failing(HandshakeFailed)
