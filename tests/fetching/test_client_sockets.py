"""
Fetching over real sockets: TCP, unix and TLS, in one process.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import trustme
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import SSL4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.trial.unittest import TestCase

import sockproto.tls  # noqa: F401 - what a lost connection is told depends on it
from sockproto.connecting import connect
from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    CannotWrite,
    CertificateRefused,
    ConnectionWasReset,
    HandshakeFailed,
    HeadMalformed,
    NotConnected,
    NothingCame,
    RedirectRefused,
    SockprotoError,
    TimedOut,
    TooLarge,
)
from sockproto.fetching import FetchObserver, FetchProtocol, Response, fetch
from sockproto.transports import innermost
from sockproto.wire.exchange import Exchange
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
    Noting,
    basic,
    redirect,
    sized,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from sockproto.wire.response import HeadCame


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
        self.url = f"{self.scheme}://{self.address_of(self.port)}/a"
        self.addCleanup(self.hang_up)

    def address_of(self, port: Any) -> str:
        """Where a port is, as a URL has it."""
        return f"127.0.0.1:{port.getHost().port}"

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


class SlowBucket(Bucket):
    """
    A consumer that is full after each write, and empty a turn later.
    """

    def __init__(self, clock: Any) -> None:
        super().__init__(fills=True)
        self.clock = clock
        self.pauses = 0
        self.on_write = self.drain

    def drain(self) -> None:
        """Go on a little later."""
        self.pauses += 1
        self.clock.callLater(0, self.resume)

    def resume(self) -> None:
        """Go on, if there is still something to come."""
        if self.producer is not None:
            super().resume()


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
                trailers=(),
                body=b"hello",
                place=None,
                url=self.url,
                redirects=(),
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

    async def test_redirect(self) -> None:
        """A redirect is followed; the endless body of it is not waited for."""
        redirected = b"HTTP/1.1 302 F\r\nLocation: /b\r\n\r\n" + b"x" * 100_000

        def answer(connection: Answering) -> None:
            if connection.heard.startswith(b"GET /a "):
                connection.say(redirected)
            else:
                connection.say(FIVE + b"hello")

        self.server.answer = answer
        response = await self.fetch(follow=True)
        self.assertEqual((response.status, response.body), (200, b"hello"))
        self.assertEqual(response.redirects, (self.url,))
        await self.server.connections[0].lost

    async def test_unread_request(self) -> None:
        """An answer that comes before the request was read is taken."""
        body = bytes(8 << 20)

        def answer_early(connection: Answering) -> None:
            transport: Any = connection.transport
            transport.pauseProducing()
            connection.say(FIVE + b"hello")

        self.server.at_once = answer_early
        response = await self.fetch(body=body, max_time=5)
        self.assertEqual(response.body, b"hello")

    async def test_slow_consumer(self) -> None:
        """A consumer that is slow has it all, and holds up the peer meanwhile."""
        body = bytes(range(256)) * 4096
        for said, then in (
            (HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, None),
            (CHUNKED + b"%x\r\n%b\r\n" % (len(body), body) + LAST, None),
            (CHUNKED + b"1\r\n\0\r\n" * 500 + LAST, Answering.close),
            (TO_CLOSE + body, Answering.close),
            (sized(gzip.compress(body), GZIP), None),
            (TO_CLOSE[:-2] + GZIP + b"\r\n" + gzip.compress(body), Answering.close),
        ):
            self.answers(said, then=then)
            bucket = SlowBucket(self.reactor)
            await self.fetch(to=bucket, decompress=True, timeout=10)
            expected = bytes(500) if b"\r\n\0\r\n" in said[:100] else body
            self.assertTrue(bucket.body == expected)
            self.assertGreater(bucket.pauses, 1)

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
        noting = Noting()
        self.answers(FIVE + b"hello", then=None)
        response = await self.fetch(observer=noting)
        self.assertEqual(noting.of("resolved"), [("127.0.0.1", ["127.0.0.1"])])
        self.assertEqual(noting.of("connected"), [(response.local, response.peer)])
        self.assertEqual(noting.of("sent"), [self.server.connections[0].heard])
        self.assertEqual(b"".join(noting.of("received")), FIVE + b"hello")
        self.assertEqual(noting.names()[-1], "closed")
        self.assertNotIn("secured", noting.names())

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

    def at_head(self, act: Callable[[], object]) -> FetchObserver:
        """An observer that acts once the head has been taken."""
        reactor = self.reactor

        class Watching(FetchObserver):
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


class UnixTests(ServerTests):
    """`fetch` over a unix socket."""

    def listen(self) -> Any:
        """Listen on a socket in a folder of its own."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name) / "socket")
        return self.reactor.listenUNIX(self.path, self.server)

    def address_of(self, port: Any) -> str:
        """Any host will do."""
        return "example.com"

    async def test_response(self) -> None:
        """The host is said; the addresses are those of the socket."""
        self.answers(FIVE + b"hello", then=None)
        response = await self.fetch(unix_socket=self.path)
        self.assertEqual(response.body, b"hello")
        self.assertEqual((response.local, response.peer), ("a unix socket", self.path))
        heard = self.server.connections[0].heard
        self.assertIn(b"\r\nHost: example.com\r\n", heard)

    async def test_missing(self) -> None:
        """A socket that is not there is said to be so."""
        for self.url in ("http://example.com/", "https://example.com/"):
            error = await self.failing(NotConnected, unix_socket=self.path + "2")
            self.assertEqual(error.problem, "no such file or directory")
            self.assertEqual(error.where, self.path + "2")


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

    async def test_over_another_endpoint(self) -> None:
        """The protocol speaks over TLS of Twisted's own endpoints, too."""
        said = TO_CLOSE + b"hello"
        self.answers(said, then=Answering.close)
        endpoint = SSL4ClientEndpoint(
            self.reactor,
            "127.0.0.1",
            self.port.getHost().port,
            ssl.CertificateOptions(),
        )
        basket = Basket()

        def begin(head: HeadCame) -> Basket:
            basket.begin(head)
            return basket

        exchange = Exchange(REQUEST)
        talk = await connect(endpoint, lambda: FetchProtocol(exchange, begin))
        await talk.done
        self.assertEqual(basket.body, b"hello")

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

    async def test_not_verified(self) -> None:
        """By request, whoever answers is talked to."""
        await self.port.stopListening()
        self.port = self.listen_as("example.com")
        self.url = f"https://127.0.0.1:{self.port.getHost().port}/"
        self.answers(FIVE + b"hello", then=None)
        response = await self.fetch(verify=False, trust_root=None)
        self.assertEqual(response.body, b"hello")

    async def test_authorities_in_a_file(self) -> None:
        """Authorities may be in a file; the request is sent after the proof."""
        with TemporaryDirectory() as folder:
            place = Path(folder) / "ca.pem"
            place.write_bytes(self.authority.cert_pem.bytes())
            self.answers(FIVE + b"hello", then=None)
            for root in (place, str(place)):
                self.assertEqual((await self.fetch(trust_root=root)).body, b"hello")

    async def test_observer(self) -> None:
        """An observer is told what was agreed on, before anything is received."""
        noting = Noting()
        self.answers(FIVE + b"hello", then=None)
        await self.fetch(observer=noting)
        (session,) = noting.of("secured")
        self.assertRegex(session["version"], r"\ATLSv1\.[23]\Z")
        self.assertEqual(session["names"], ["127.0.0.1"])
        self.assertLess(
            noting.names().index("secured"), noting.names().index("received")
        )

    async def test_refused_is_not_secured(self) -> None:
        """Nor is it told where the peer is refused."""
        noting = Noting()
        await self.refused(trust_root=None, observer=noting)
        self.assertNotIn("secured", noting.names())

    async def test_redirect_to_plain(self) -> None:
        """A redirect does not lead out of TLS, not even to the same host."""
        url = self.url.replace("https:", "http:")
        self.answers(redirect(url), then=None)
        error = await self.failing(RedirectRefused, follow=True)
        self.assertEqual(error.location, url)
        self.assertIn("https to http", error.problem)

    async def test_redirect_into_tls(self) -> None:
        """It leads into it, and takes no secret along."""
        plain = Server()
        location = redirect(self.url)
        plain.answer = lambda connection: connection.say(location)
        port = self.reactor.listenTCP(0, plain, interface="127.0.0.1")
        try:
            self.answers(FIVE + b"hello", then=None)
            url = f"http://us:er@127.0.0.1:{port.getHost().port}/"
            secure, self.url = self.url, url
            response = await self.fetch(follow=True, headers=[("Cookie", "c=s")])
            self.assertEqual(response.url, secure)
            self.assertIn(basic(b"us:er"), plain.connections[0].heard)
            heard = self.server.connections[0].heard
            self.assertNotIn(b"Authorization", heard)
            self.assertNotIn(b"Cookie", heard)
            await plain.connections[0].lost
        finally:
            await maybeDeferred(port.stopListening)

    async def test_slow_consumer(self) -> None:
        """A consumer that is slow has it all, also what came with the end."""
        body = bytes(range(256)) * 1024
        small = b"".join(b"1\r\n%c\r\n" % byte for byte in bytes(500)) + LAST
        for said, then, expected in (
            (CHUNKED + small, None, bytes(500)),
            (CHUNKED + small, Answering.close, bytes(500)),
            (TO_CLOSE + body, Answering.close, body),
            (
                TO_CLOSE[:-2] + GZIP + b"\r\n" + gzip.compress(body),
                Answering.close,
                body,
            ),
        ):
            self.answers(said, then=then)
            bucket = SlowBucket(self.reactor)
            await self.fetch(to=bucket, decompress=True, timeout=10)
            self.assertTrue(bucket.body == expected)

    async def test_handshake_timeout(self) -> None:
        """A peer that accepts and says nothing is given up."""
        await self.port.stopListening()
        self.port = self.reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.url = f"https://127.0.0.1:{self.port.getHost().port}/"
        error = await self.failing(TimedOut, connect_timeout=0.05)
        self.assertEqual(error.awaited, "the TLS handshake")
        await self.server.connections[0].lost

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
