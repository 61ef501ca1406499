"""
TLS for clients: no peer is talked to that has not proven its name.
"""

from __future__ import annotations

import contextlib  # trial has a use of its own for a module's `suppress`
import datetime as dt
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sockproto.connecting import Observer
from sockproto.echo import EchoClient, EchoFactory, connect_echo
from sockproto.errors import (
    CertificateRefused,
    ConnectionWasReset,
    HandshakeFailed,
    TrustMalformed,
)
from sockproto.tls import (
    ProvenPeer,
    authorities_in,
    handshake_problem,
    secured,
    session_of,
    trust_in,
)
from tests.contracts import (
    directory,
    forgive_twisted_certificates,
    serve_tcp,
    turns_until,
)

LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
NOT_SO_LONG_AGO = dt.datetime(2002, 1, 1, tzinfo=dt.UTC)
FAR_OFF = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)


def own(leaf: trustme.LeafCert) -> PrivateCertificate:
    loaded: PrivateCertificate = PrivateCertificate.loadPEM(
        leaf.private_key_and_cert_chain_pem.bytes()
    )
    return loaded


def hand_made(
    authority: trustme.CA, names: list[x509.GeneralName] | None
) -> PrivateCertificate:
    """A certificate that trustme would not make; None is no subjectAltName."""
    signer: Any = serialization.load_pem_private_key(
        authority.private_key_pem.bytes(), None
    )
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(LONG_AGO)
        .not_valid_after(FAR_OFF)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    certificate = builder.sign(signer, hashes.SHA256())
    pem = serialization.Encoding.PEM
    loaded: PrivateCertificate = PrivateCertificate.loadPEM(
        certificate.public_bytes(pem)
        + key.private_bytes(
            pem,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return loaded


class Server(Protocol):
    """Notes what it hears."""

    transport: Any

    def connectionMade(self) -> None:
        server: Any = self.factory
        server.here.add(self)

    def dataReceived(self, data: bytes) -> None:
        server: Any = self.factory
        server.heard.append(data)
        self.transport.write(data)

    def connectionLost(self, reason: object = None) -> None:
        server: Any = self.factory
        server.here.discard(self)
        server.left += 1


class Noting(Observer):
    """Keeps what TLS agreed on, and what had been received until then."""

    def __init__(self) -> None:
        self.sessions: list[dict[str, Any]] = []
        self.came = b""
        self.came_before = b""

    def secured(self, session: dict[str, Any]) -> None:
        self.sessions.append(session)
        self.came_before = self.came

    def received(self, data: bytes) -> None:
        self.came += data


class TLSTests(TestCase):
    """What the tests over TLS share."""

    timeout = 30

    def setUp(self) -> None:
        forgive_twisted_certificates(self)
        self.authority = trustme.CA()
        self.root = trustRootFromCertificates(
            [Certificate.loadPEM(self.authority.cert_pem.bytes())]
        )

    async def listen(self, certificate: Any, interface: str = "127.0.0.1") -> None:
        from twisted.internet import reactor

        self.server: Any
        made: Any = Factory.forProtocol(Server)
        self.server = made
        self.server.here = set()
        self.server.heard = []
        self.server.left = 0
        options = (
            certificate.options()
            if isinstance(certificate, PrivateCertificate)
            else certificate
        )
        endpoint = SSL4ServerEndpoint(reactor, 0, options, interface=interface)
        self.port: Any = await endpoint.listen(self.server)
        self.addCleanup(self.port.stopListening)

    async def connect(
        self,
        host: str = "localhost",
        *,
        observer: Observer | None = None,
        **arguments: Any,
    ) -> EchoClient:
        from twisted.internet import reactor

        there = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        arguments = {"trust_root": self.root, **arguments}
        return await connect_echo(secured(there, host, **arguments), observer=observer)


class ProofTests(TLSTests):
    """A client and Twisted's own TLS server, with all kinds of certificates."""

    async def taken(self, certificate: Any, host: str = "localhost") -> None:
        """Check that the peer is talked to."""
        await self.listen(certificate)
        client = await self.connect(host)
        self.assertEqual(await client.echo(b"hello"), b"hello")
        await client.close()
        await turns_until(lambda: self.server.left)

    async def refused(
        self, certificate: Any, words: str, host: str = "localhost", **arguments: Any
    ) -> None:
        """Check that the peer is not, and why."""
        await self.listen(certificate)
        client = await self.connect(host, **arguments)
        closed = client.closed()
        failure: Any = await self.assertFailure(
            client.echo(b"secret"), CertificateRefused
        )
        self.assertIn(words, str(failure))
        self.assertIn(host, str(failure))
        await self.assertFailure(closed, CertificateRefused)
        await turns_until(lambda: self.server.left)
        self.assertEqual(self.server.heard, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_good(self) -> None:
        """A peer that proves its name is talked to."""
        await self.taken(own(self.authority.issue_cert("localhost")))

    async def test_one_of_several_names(self) -> None:
        """One of its names is enough, however it is written."""
        leaf = self.authority.issue_cert("example.com", "localhost")
        await self.taken(own(leaf), "LocalHost")

    async def test_wildcard(self) -> None:
        """A wildcard holds for one label below a domain."""
        leaf = self.authority.issue_cert("*.example.com")
        await self.taken(own(leaf), "www.example.com")

    async def test_address(self) -> None:
        """An address is proven by an address."""
        await self.taken(own(self.authority.issue_cert("127.0.0.1")), "127.0.0.1")

    async def test_address_v6(self) -> None:
        """Also an IPv6 one."""
        await self.taken(own(self.authority.issue_cert("::1")), "::1")

    async def test_international(self) -> None:
        """A name in any script is proven by its A-label."""
        leaf = self.authority.issue_cert("xn--caf-dma.example")
        await self.taken(own(leaf), "café.example")

    async def test_wrong_name(self) -> None:
        """Another name is refused, and the error says for whom it is."""
        leaf = self.authority.issue_cert("example.com")
        await self.refused(own(leaf), "it is for example.com")

    async def test_many_wrong_names(self) -> None:
        """Of many names the error shows some."""
        leaf = self.authority.issue_cert(*(f"{n}.example.com" for n in range(9)))
        await self.refused(own(leaf), "4.example.com, ...")

    async def test_wildcard_too_deep(self) -> None:
        """A wildcard does not hold for two labels."""
        leaf = self.authority.issue_cert("*.example.com")
        await self.refused(own(leaf), "*.example.com", "a.b.example.com")

    async def test_no_name(self) -> None:
        """Without a subjectAltName there is no proof; a common name is none."""
        await self.refused(hand_made(self.authority, None), "it has no subjectAltName")

    async def test_empty_names(self) -> None:
        """An empty subjectAltName is none."""
        leaf = self.authority.issue_cert(common_name="localhost")
        await self.refused(own(leaf), "it has no subjectAltName")

    async def test_wildcard_as_broad_as_a_top_level(self) -> None:
        """`*.localhost`, at which the library stumbles, is refused."""
        leaf = self.authority.issue_cert("*.localhost")
        await self.refused(own(leaf), "it cannot be checked", "a.localhost")

    async def test_wildcard_for_all(self) -> None:
        """So is `*`, and a good name beside it does not help."""
        certificate = hand_made(
            self.authority, [x509.DNSName("*"), x509.DNSName("localhost")]
        )
        await self.refused(certificate, "it cannot be checked")

    async def test_untrusted(self) -> None:
        """An authority that nobody knows proves nothing."""
        leaf = trustme.CA().issue_cert("localhost")
        await self.refused(own(leaf), "authority")

    async def test_untrusted_by_the_system(self) -> None:
        """Without authorities of one's own, the system's count."""
        leaf = self.authority.issue_cert("localhost")
        await self.refused(own(leaf), "authority", trust_root=None)

    async def test_expired(self) -> None:
        """What has expired proves nothing any more."""
        leaf = self.authority.issue_cert(
            "localhost", not_before=LONG_AGO, not_after=NOT_SO_LONG_AGO
        )
        await self.refused(own(leaf), "it has expired")

    async def test_not_valid_yet(self) -> None:
        """What is not valid yet proves nothing yet."""
        leaf = self.authority.issue_cert("localhost", not_before=FAR_OFF)
        await self.refused(own(leaf), "it is not valid yet")

    async def test_name_for_an_address(self) -> None:
        """A name proves no address."""
        leaf = self.authority.issue_cert("localhost")
        await self.refused(own(leaf), "it is for localhost", "127.0.0.1")

    async def test_address_in_the_place_of_a_name(self) -> None:
        """An address that is written as a name proves no address."""
        certificate = hand_made(self.authority, [x509.DNSName("127.0.0.1")])
        await self.refused(certificate, "127.0.0.1", "127.0.0.1")

    async def test_address_for_a_name(self) -> None:
        """An address proves no name."""
        leaf = self.authority.issue_cert("127.0.0.1")
        await self.refused(own(leaf), "it is for 127.0.0.1")

    async def test_names_are_spelled(self) -> None:
        """What the peer calls itself does not move the cursor."""
        certificate = hand_made(self.authority, [x509.DNSName("\x1b[2J.example.com")])
        await self.listen(certificate)
        client = await self.connect()
        failure: Any = await self.assertFailure(client.echo(b"x"), CertificateRefused)
        self.assertNotIn("\x1b", str(failure))
        await turns_until(lambda: self.server.left)
        self.assertEqual(self.server.heard, [])

    async def test_our_own_certificate(self) -> None:
        """A server that wants to know who we are can be told."""
        server = own(self.authority.issue_cert("localhost"))
        options = server.options(Certificate.loadPEM(self.authority.cert_pem.bytes()))
        await self.listen(options)
        ours = own(self.authority.issue_cert("client.example.com"))
        client = await self.connect(certificate=ours)
        self.assertEqual(await client.echo(b"hello"), b"hello")
        await client.close()
        await turns_until(lambda: self.server.left)

    async def test_without_our_own_certificate(self) -> None:
        """A server that does not get to know who we are ends it; that is told."""
        server = own(self.authority.issue_cert("localhost"))
        options = server.options(Certificate.loadPEM(self.authority.cert_pem.bytes()))
        await self.listen(options)
        client = await self.connect()
        await self.assertFailure(
            client.echo(b"hello"), HandshakeFailed, ConnectionWasReset
        )
        await turns_until(lambda: self.server.left)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_old_version(self) -> None:
        """A server that knows no TLS 1.2 is not talked to."""
        from twisted.internet.ssl import CertificateOptions, TLSVersion

        leaf = own(self.authority.issue_cert("localhost"))
        await self.listen(
            CertificateOptions(
                privateKey=leaf.privateKey.original,
                certificate=leaf.original,
                insecurelyLowerMinimumTo=TLSVersion.TLSv1_0,
                lowerMaximumSecurityTo=TLSVersion.TLSv1_1,
            )
        )
        client = await self.connect()
        await self.assertFailure(client.echo(b"hello"), HandshakeFailed)
        await turns_until(lambda: self.server.left)
        self.flushWarnings()  # Twisted's, of the old version

    async def test_no_tls(self) -> None:
        """A peer that speaks no TLS is told apart from one that lies."""
        from twisted.internet import reactor

        factory = EchoFactory(reactor)
        self.port = await serve_tcp(self, factory)
        client = await self.connect()
        await self.assertFailure(client.echo(b"hello"), HandshakeFailed)
        await turns_until(lambda: not factory.connections)
        self.assertEqual(self.flushLoggedErrors(), [])


class UnprovenTests(TLSTests):
    """Who is let in when that was asked for, and what is told of a session."""

    async def told(
        self, certificate: Any, host: str = "localhost", **arguments: Any
    ) -> dict[str, Any]:
        """Talk to a peer; return what an observer is told of TLS."""
        await self.listen(certificate)
        noting = Noting()
        client = await self.connect(host, observer=noting, **arguments)
        self.assertEqual(await client.echo(b"hello"), b"hello")
        (session,) = noting.sessions
        self.assertEqual(noting.came_before, b"")
        self.assertEqual(session_of(client.transport), session)
        await client.close()
        await turns_until(lambda: self.server.left)
        await self.port.stopListening()
        return session

    async def test_whoever_answers(self) -> None:
        """With `verify=False`, no certificate is too bad."""
        issue = self.authority.issue_cert
        for certificate in (
            own(issue("example.com")),
            own(issue("localhost", not_before=LONG_AGO, not_after=NOT_SO_LONG_AGO)),
            own(trustme.CA().issue_cert("localhost")),
            own(issue("*.localhost")),
            hand_made(self.authority, None),
            hand_made(self.authority, [x509.DNSName("*")]),
        ):
            for host in ("localhost", "127.0.0.1"):
                session = await self.told(certificate, host, verify=False)
                self.assertIn("TLSv1.", session["version"])
            await self.told(certificate, verify=False, trust_root=None)

    async def test_session(self) -> None:
        """An observer is told version, cipher, and of the certificate what matters."""
        leaf = self.authority.issue_cert(
            "localhost", "127.0.0.1", not_after=FAR_OFF, common_name="me"
        )
        session = await self.told(own(leaf))
        self.assertRegex(session.pop("version"), r"\ATLSv1\.[23]\Z")
        self.assertRegex(session.pop("cipher"), r"\A[A-Z0-9_-]+\Z")
        self.assertRegex(session.pop("subject"), r"CN=me")
        self.assertIn("trustme", session.pop("issuer"))
        self.assertEqual(sorted(session.pop("names")), ["127.0.0.1", "localhost"])
        self.assertEqual(session.pop("expires"), FAR_OFF.isoformat())
        self.assertEqual(session, {})

    async def test_session_without_names(self) -> None:
        """A certificate without a subjectAltName has no names."""
        session = await self.told(hand_made(self.authority, None), verify=False)
        self.assertEqual(session["names"], [])
        self.assertEqual(session["expires"], FAR_OFF.isoformat())

    async def test_names_are_spelled(self) -> None:
        """What the peer calls itself does not move the cursor."""
        certificate = hand_made(self.authority, [x509.DNSName("\x1b[2J.example.com")])
        session = await self.told(certificate, verify=False)
        self.assertNotIn("\x1b", "".join(session["names"]))

    async def test_names_that_cannot_be_read(self) -> None:
        """Nor is it an end if they cannot be read."""
        certificate = hand_made(self.authority, [x509.DNSName("a.*.b.*")])
        session = await self.told(certificate, verify=False)
        self.assertIsInstance(session["names"], list)

    async def test_refused(self) -> None:
        """Of a peer that is refused, no session is told."""
        await self.listen(own(self.authority.issue_cert("example.com")))
        noting = Noting()
        client = await self.connect(observer=noting)
        await self.assertFailure(client.echo(b"secret"), CertificateRefused)
        self.assertEqual(noting.sessions, [])
        await turns_until(lambda: self.server.left)
        self.assertEqual(self.server.heard, [])

    async def test_old_version(self) -> None:
        """TLS 1.2 is asked for all the same."""
        from twisted.internet.ssl import CertificateOptions, TLSVersion

        leaf = own(self.authority.issue_cert("localhost"))
        await self.listen(
            CertificateOptions(
                privateKey=leaf.privateKey.original,
                certificate=leaf.original,
                insecurelyLowerMinimumTo=TLSVersion.TLSv1_0,
                lowerMaximumSecurityTo=TLSVersion.TLSv1_1,
            )
        )
        client = await self.connect(verify=False)
        await self.assertFailure(client.echo(b"hello"), HandshakeFailed)
        await turns_until(lambda: self.server.left)
        self.flushWarnings()  # Twisted's, of the old version

    async def test_trust_in(self) -> None:
        """Authorities of a file are trusted, and no other."""
        place = directory(self) / "ca.pem"
        place.write_bytes(self.authority.cert_pem.bytes())
        for root in (trust_in(str(place)), trust_in(str(place.parent))):
            await self.told(
                own(self.authority.issue_cert("localhost")), trust_root=root
            )
        await self.listen(own(trustme.CA().issue_cert("localhost")))
        client = await self.connect(trust_root=trust_in(str(place)))
        await self.assertFailure(client.echo(b"secret"), CertificateRefused)
        await turns_until(lambda: self.server.left)


class SessionTests(SynchronousTestCase):
    """What is told of a session that has no certificate."""

    def test_none(self) -> None:
        """Without a certificate there is nothing of it."""
        connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)

        class Transport:
            def getHandle(self) -> SSL.Connection:
                return connection

        self.assertEqual(set(session_of(Transport())), {"version", "cipher"})


class ProvenPeerTests(SynchronousTestCase):
    """What is asked of the server."""

    def setUp(self) -> None:
        forgive_twisted_certificates(self)

    def server_name(self, host: str) -> bytes | None:
        """What the server is told we want to reach."""
        told: list[bytes | None] = []
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_tlsext_servername_callback(
            lambda connection: told.append(connection.get_servername())
        )
        server = SSL.Connection(context, None)
        server.set_accept_state()
        client = ProvenPeer(host).clientConnectionForTLS(Protocol())  # type: ignore[arg-type]
        client.set_connect_state()
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.Error):
                end.do_handshake()
            if end is client:
                other.bio_write(end.bio_read(65_536))
        return told[0] if told else None

    def test_server_name(self) -> None:
        """A name is sent, without the dot that ends it; an address is not."""
        self.assertEqual(self.server_name("example.com"), b"example.com")
        self.assertEqual(self.server_name("example.com."), b"example.com")
        self.assertEqual(self.server_name("café.example"), b"xn--caf-dma.example")
        self.assertIn(self.server_name("127.0.0.1"), (None, b""))
        self.assertIn(self.server_name("::1"), (None, b""))
        self.assertIn(self.server_name("2130706433"), (None, b""))

    def test_no_name(self) -> None:
        """No certificate is for what can be no name, as a number."""
        authority = trustme.CA()
        pem = authority.issue_cert("example.com").cert_chain_pems[0].bytes()
        certificate = Certificate.loadPEM(pem).original
        self.assertEqual(
            ProvenPeer("2130706433")._problem_with_name(certificate),
            "no certificate can be for such a name",
        )


class HandshakeProblemTests(SynchronousTestCase):
    """OpenSSL's errors, in words."""

    def test_words(self) -> None:
        """Its reasons are told; its silence is, too."""
        for error, expected in (
            (SSL.Error([("SSL routines", "", "no shared cipher")]), "no shared cipher"),
            (SSL.Error([("a", "", "one"), ("b", "", "two")]), "one, two"),
            (SSL.Error([]), "the peer broke it off"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "the peer broke it off"),
        ):
            problem = handshake_problem(Failure(error))
            assert problem is not None
            self.assertEqual(problem.problem, expected)

    def test_not_of_openssl(self) -> None:
        """Other errors are other people's."""
        self.assertIsNone(handshake_problem(Failure(ConnectionLost())))


class AuthoritiesTests(SynchronousTestCase):
    """Authorities in files."""

    def setUp(self) -> None:
        forgive_twisted_certificates(self)
        self.directory = directory(self)
        self.pems = [trustme.CA().cert_pem.bytes() for _ in range(3)]

    def test_file(self) -> None:
        """All certificates of a file are taken, whatever else is in it."""
        path = self.directory / "authorities.crt"
        path.write_bytes(b"# mine\n" + self.pems[0] + b"\n" + self.pems[1])
        found = authorities_in(str(path))
        self.assertEqual([each.dumpPEM() for each in found], self.pems[:2])

    def test_directory(self) -> None:
        """Of a directory, each `*.pem` is."""
        (self.directory / "b.pem").write_bytes(self.pems[1])
        (self.directory / "a.pem").write_bytes(self.pems[0])
        (self.directory / "c.txt").write_bytes(self.pems[2])
        found = authorities_in(str(self.directory))
        self.assertEqual([each.dumpPEM() for each in found], self.pems[:2])

    def test_none(self) -> None:
        """A place without any is an error: it would trust nobody."""
        (self.directory / "a.pem").write_bytes(b"nothing")
        for path in (self.directory, self.directory / "a.pem"):
            with self.assertRaises(ValueError) as caught:
                authorities_in(str(path))
            self.assertIn(str(path), str(caught.exception))

    def test_missing(self) -> None:
        """A file that is not there is an error of the system's."""
        with self.assertRaises(OSError):
            authorities_in(str(self.directory / "missing"))

    def test_trust(self) -> None:
        """A place of authorities that cannot be used says why, in words."""
        (self.directory / "empty.pem").write_bytes(b"")
        (self.directory / "broken.pem").write_bytes(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        )
        for name, problem in (
            ("missing.pem", "no such file or directory"),
            ("empty.pem", "no PEM certificate is in it"),
            ("broken.pem", "no PEM certificate is in it"),
        ):
            path = str(self.directory / name)
            error = self.assertRaises(TrustMalformed, trust_in, path)
            self.assertEqual((error.path, error.problem), (path, problem))
            self.assertEqual(error.exit_status, 77)
        empty = self.directory / "folder"
        empty.mkdir()
        self.assertRaises(TrustMalformed, trust_in, str(empty))
