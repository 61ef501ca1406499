"""
Spells one HTTP/1.1 request (RFC 9112, section 3), and refuses what would be two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sockproto.errors import HeaderNotSendable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Request", "method_of"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[!-~]+")


@dataclass(frozen=True, slots=True)
class Request:
    """
    A request, checked.

    Attributes:
        method: a token, in its exact case (RFC 9110, section 9.1).
        target: path and query (RFC 9112, section 3.2.1).
        headers: names and values in order, `Host` among them.
        body: bytes; the caller gives its Content-Length.

    Raises:
        HeaderNotSendable: it would not be one request, or is CONNECT, which
            makes a tunnel.
    """

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes = b""

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.method):
            raise HeaderNotSendable(f"{self.method!r} is no method")
        if self.method.upper() == "CONNECT":
            raise HeaderNotSendable("CONNECT makes a tunnel, which is not supported")
        if not _TARGET.fullmatch(self.target):
            raise HeaderNotSendable(f"{self.target!r} is no request target")
        for name, value in self.headers:
            if not _TOKEN.fullmatch(name.decode("latin-1")):
                raise HeaderNotSendable(f"{name!r} is no field name")
            if any(byte in value for byte in b"\r\n\0"):
                raise HeaderNotSendable(f"{value!r} holds a line end or a NUL")

    @property
    def head(self) -> bytes:
        """Its bytes up to the empty line, which is included."""
        lines = [b"%b %b HTTP/1.1" % (self.method.encode("ascii"), self.target)]
        lines += [b"%b: %b" % field for field in self.headers]
        return b"\r\n".join([*lines, b"", b""])

    def encode(self) -> bytes:
        """Its bytes, the body included."""
        return self.head + self.body


def method_of(request: bytes) -> str:
    """The method of a request, which may be anybody's bytes."""
    return request.lstrip(b"\r\n").partition(b" ")[0].decode("latin-1")
