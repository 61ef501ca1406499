"""
Certificates for tests over TLS.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import trustme
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IStreamServerEndpoint

__all__ = ["TrustedCertificate", "certificate_for_localhost", "over_tls"]


@cache
def certificate_for_localhost() -> Any:
    """Make options for a TLS server, with a certificate that nobody vouches for."""
    made = trustme.CA().issue_cert("localhost")
    pem = made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes()
    return PrivateCertificate.loadPEM(pem).options()


class TrustedCertificate:
    """
    A certificate for localhost, and who trusts it.

    Attributes:
        server: options for a TLS server that has the certificate.
        client: options for a TLS client that trusts it, and no other.
    """

    def __init__(self) -> None:
        authority = trustme.CA()
        own = authority.issue_cert("localhost").private_key_and_cert_chain_pem
        root = Certificate.loadPEM(authority.cert_pem.bytes())
        self.server: Any = PrivateCertificate.loadPEM(own.bytes()).options()
        self.client: Any = optionsForClientTLS(
            "localhost", trustRootFromCertificates([root])
        )


def over_tls() -> tuple[IStreamServerEndpoint, Callable[[Any], Any]]:
    """A place to listen over TLS, and what makes the client's of its address."""
    from twisted.internet import reactor

    trusted = TrustedCertificate()
    return (
        SSL4ServerEndpoint(reactor, 0, trusted.server, interface="127.0.0.1"),
        lambda host: wrapClientTLS(
            trusted.client, TCP4ClientEndpoint(reactor, "127.0.0.1", host.port)
        ),
    )
