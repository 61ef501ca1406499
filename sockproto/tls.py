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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from service_identity.exceptions import VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    platformTrust,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from sockproto.errors import CertificateRefused, HandshakeFailed

if TYPE_CHECKING:
    from OpenSSL.crypto import X509
    from twisted.internet.interfaces import IStreamClientEndpoint
    from twisted.internet.ssl import PrivateCertificate
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["ProvenPeer", "authorities_in", "handshake_problem", "secured"]

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
) -> IStreamClientEndpoint:
    """
    Put TLS 1.2 or later over an endpoint; the peer must prove to be `host`.

    Args:
        endpoint: leads to the peer.
        host: a DNS name or an IP address: what the certificate's
            subjectAltName must hold (RFC 9525; a common name does not count).
        trust_root: an `IOpenSSLTrustRoot`; the system's by default.
        certificate: ours, should the peer want one.
    """
    return wrapClientTLS(ProvenPeer(host, trust_root, certificate), endpoint)


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
    ) -> None:
        self._host = host
        own = certificate.options() if certificate is not None else None
        self._options = CertificateOptions(
            privateKey=own.privateKey if own else None,
            certificate=own.certificate if own else None,
            trustRoot=platformTrust() if trust_root is None else trust_root,
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        self._identity: DNS_ID | IPAddress_ID
        self._server_name: bytes | None = None
        if isIPAddress(host) or isIPv6Address(host):
            self._identity = IPAddress_ID(host.partition("%")[0])
        else:
            self._identity = DNS_ID(host)
            # RFC 6066, section 3: a name, without the dot that ends it; no address.
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
            if problem is None:
                return True
            refused = CertificateRefused(self._host, problem)
            tlsProtocol.failVerification(Failure(refused))
            return False

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection

    def _problem_with_name(self, cert: X509) -> str | None:
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
