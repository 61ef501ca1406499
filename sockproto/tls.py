"""
TLS for clients: no peer is talked to that has not proven its name.

The one piece of code for every path that opens TLS. Twisted's own check acts
on `VerificationError` alone. The library under it raises something else for a
certificate without subjectAltName, and for a wildcard as broad as `*` or
`*.localhost`; that is logged, and the peer is let in. Here, whatever goes wrong
while a name is checked refuses the peer.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL, crypto
from service_identity.exceptions import VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from sockproto.errors import CertificateRefused, HandshakeFailed, TrustMalformed

if TYPE_CHECKING:
    from OpenSSL.crypto import X509
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocolFactory
    from twisted.internet.ssl import PrivateCertificate
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = [
    "ProvenPeer",
    "authorities_in",
    "handshake_problem",
    "secured",
    "session_of",
    "trust_in",
]

_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)

# X509_V_ERR_... of OpenSSL's x509_vfy.h, those that users meet.
_PROBLEMS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is signed by itself, and not trusted",
    19: "its chain ends in an authority that is not trusted",
    20: "its authority is not known here",
    21: "its chain is not complete",
    23: "it was revoked",
    24: "its authority is not allowed to sign",
    26: "it is not meant for a server",
}


def secured(
    endpoint: IStreamClientEndpoint,
    host: str,
    *,
    trust_root: Any = None,
    certificate: PrivateCertificate | None = None,
    verify: bool = True,
) -> IStreamClientEndpoint:
    """
    Put TLS 1.2 or later over an endpoint; the peer must prove to be `host`.

    Args:
        endpoint: leads to the peer.
        host: a DNS name or an IP address: what the certificate's
            subjectAltName must hold (RFC 9525; a common name does not count).
        trust_root: an `IOpenSSLTrustRoot`; the system's by default.
        certificate: ours, should the peer want one.
        verify: False lets in whoever answers; for tests, and by request alone.
    """
    proven = ProvenPeer(host, trust_root, certificate, verify=verify)
    return _Secured(endpoint, proven)


@implementer(IStreamClientEndpoint)
class _Secured:
    # As Twisted's wrapClientTLS, which cannot be had by who imported the reactor
    # without TLS (sockproto.cli.lean).
    def __init__(self, endpoint: IStreamClientEndpoint, proven: ProvenPeer) -> None:
        self.under_tls = endpoint
        self._proven = proven

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        factory = TLSMemoryBIOFactory(self._proven, True, protocolFactory)
        connecting: Deferred[Any] = self.under_tls.connect(factory)
        return connecting.addCallback(lambda tls: tls.wrappedProtocol)


@implementer(IOpenSSLClientConnectionCreator)
class ProvenPeer:
    """
    Makes client connections that end, before any byte of the application's is
    sent, unless the peer proves to be `host`. Their protocol's
    `connectionLost` is then told `CertificateRefused`.
    """

    def __init__(
        self,
        host: str,
        trust_root: Any = None,
        certificate: PrivateCertificate | None = None,
        *,
        verify: bool = True,
    ) -> None:
        self._host = host
        self._verify = verify
        own = certificate.options() if certificate is not None else None
        self._options = CertificateOptions(
            privateKey=own.privateKey if own else None,
            certificate=own.certificate if own else None,
            trustRoot=platformTrust() if trust_root is None else trust_root,
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        self._identity: DNS_ID | IPAddress_ID | None = None
        self._server_name: bytes | None = None
        if isIPAddress(host) or isIPv6Address(host):
            self._identity = IPAddress_ID(host.partition("%")[0])
        else:
            with suppress(ValueError):  # a number, for one: no certificate is for it
                self._identity = DNS_ID(host)
                # RFC 6066, section 3: a name, without the dot that ends it.
                self._server_name = self._identity.hostname.rstrip(b".")

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        connection = SSL.Connection(self._options.getContext(), None)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)

        def verify(
            connection: SSL.Connection, cert: X509, code: int, depth: int, ok: int
        ) -> bool:
            problem: str | None
            if not ok:
                problem = _PROBLEMS.get(code, f"OpenSSL's verification error {code}")
            elif depth:
                return True  # an authority, and trusted
            else:
                problem = self._problem_with_name(cert)
            if problem is None or not self._verify:
                return True
            refused = CertificateRefused(self._host, problem)
            tlsProtocol.failVerification(Failure(refused))
            return False

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection

    def _problem_with_name(self, cert: X509) -> str | None:
        if self._identity is None:
            return "no certificate can be for such a name"
        try:
            patterns = extract_patterns(cert)
            if not patterns:
                return "it has no subjectAltName"
            verify_service_identity(patterns, [self._identity], [])
        except VerificationError:
            names = sorted(_spell_pattern(pattern) for pattern in patterns)
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            return f"it is for {shown}"
        except Exception as error:  # noqa: BLE001 - what cannot be checked is not proven
            return f"it cannot be checked: {error}"
        return None


def _spell_pattern(pattern: object) -> str:
    value = getattr(pattern, "pattern", pattern)
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text if text.isprintable() else repr(text)


def handshake_problem(reason: Failure) -> HandshakeFailed | None:
    """
    Turn what a lost connection is told of OpenSSL into our error; None if
    it is not of OpenSSL.
    """
    if not isinstance(reason.value, SSL.Error):
        return None
    words = [
        entry[2]
        for arg in reason.value.args
        if isinstance(arg, list)
        for entry in arg
        if isinstance(entry, tuple) and len(entry) > 2 and entry[2]
    ]
    return HandshakeFailed(", ".join(words) or "the peer broke it off")


def session_of(transport: Any) -> dict[str, Any]:
    """
    Tell what was agreed on, for people and reports: `version`, `cipher`, and the
    peer's `subject`, `issuer`, `names` and `expires` (ISO 8601).
    """
    connection = transport.getHandle()
    told: dict[str, Any] = {
        "version": connection.get_protocol_version_name(),
        "cipher": connection.get_cipher_name(),
    }
    presented = connection.get_peer_certificate()
    if presented is not None:
        # Without verification anything is let in, and some of it cannot be read.
        with suppress(Exception):
            certificate = presented.to_cryptography()
            told |= {
                "subject": certificate.subject.rfc4514_string(),
                "issuer": certificate.issuer.rfc4514_string(),
                "names": [],
                "expires": certificate.not_valid_after_utc.isoformat(),
            }
            told["names"] = [_spell_pattern(p) for p in extract_patterns(presented)]
    return told


def trust_in(path: str) -> Any:
    """
    An `IOpenSSLTrustRoot` of the authorities in a PEM file or a directory.

    Raises:
        TrustMalformed: it cannot be read, or none is in it.
    """
    try:
        return trustRootFromCertificates(authorities_in(path))
    except OSError as error:
        raise TrustMalformed(path, (error.strerror or str(error)).lower()) from error
    except (ValueError, crypto.Error) as error:
        raise TrustMalformed(path, "no PEM certificate is in it") from error


def authorities_in(path: str) -> list[Certificate]:
    """
    Read the certificates of a PEM file, or of each `*.pem` in a directory.

    Raises:
        OSError: it cannot be read.
        ValueError: there is no certificate in it.
    """
    place = Path(path)
    files = sorted(place.glob("*.pem")) if place.is_dir() else [place]
    found = [
        Certificate.loadPEM(pem)
        for file in files
        for pem in _PEM.findall(file.read_bytes())
    ]
    if not found:
        raise ValueError(f"no certificate is in {path}")
    return found
