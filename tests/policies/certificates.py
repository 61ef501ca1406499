"""
A certificate for tests over TLS.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import trustme
from twisted.internet.ssl import PrivateCertificate

__all__ = ["certificate_for_localhost"]


@cache
def certificate_for_localhost() -> Any:
    """Make options for a TLS server, with a certificate that nobody vouches for."""
    made = trustme.CA().issue_cert("localhost")
    pem = made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes()
    return PrivateCertificate.loadPEM(pem).options()
