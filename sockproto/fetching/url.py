"""
The parts of a URL that a request needs, and nothing that could smuggle another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from sockproto.errors import SchemeNotSupported, UrlMalformed

__all__ = ["Url"]

_DEFAULT_PORTS = {"http": 80, "https": 443}

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_UNWANTED = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]+)(?:%25([A-Za-z0-9._~-]+))?\](?::[0-9]*)?")

# What may stand in a path or a query as it is (RFC 3986, section 3.3), what is
# escaped already, and what browsers and curl send as it is too.
_SAFE = "!\"#$%&'()*+,/:;<=>?@[]^_`{|}~-."


@dataclass(frozen=True, slots=True)
class Url:
    """
    An http or https URL (RFC 3986).

    Attributes:
        text: as it was given.
        scheme: `http` or `https`.
        host: to connect to, in ASCII; an IPv6 address without its brackets.
        port: the scheme's, unless the URL has one.
        target: path and query, as they go into the request line.
    """

    text: str
    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """
        Read a URL. Without a scheme, it is http, as in curl.

        Raises:
            SchemeNotSupported: it is neither http nor https.
            UrlMalformed: it breaks the grammar, or holds credentials.
        """
        unwanted = _UNWANTED.search(text)
        if unwanted:
            raise UrlMalformed(text, f"it holds {unwanted[0]!r}")
        try:
            parts = urlsplit(text if _SCHEME.match(text) else f"http://{text}")
            port = parts.port
        except ValueError as error:
            raise UrlMalformed(text, str(error).lower()) from error
        if parts.scheme not in _DEFAULT_PORTS:
            raise SchemeNotSupported(text, parts.scheme)
        if "@" in parts.netloc:
            raise UrlMalformed(text, "it holds credentials, which are not taken")
        if port == 0:
            raise UrlMalformed(text, "port 0 cannot be connected to")
        target = parts.path or "/"
        if "?" in text.partition("#")[0]:
            target += f"?{parts.query}"
        try:
            target = quote(target, safe=_SAFE, errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise UrlMalformed(text, "it is no text that UTF-8 can spell") from error
        return cls(
            text,
            parts.scheme,
            _host(text, parts.netloc),
            _DEFAULT_PORTS[parts.scheme] if port is None else port,
            target,
        )

    @property
    def authority(self) -> str:
        """What `Host` says (RFC 9112, section 3.2): no zone, no default port."""
        host = self.host.partition("%")[0]
        if ":" in host:
            host = f"[{host}]"
        return (
            host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"
        )

    @property
    def file_name(self) -> str:
        """
        The last segment of the path: a name for a file, `index.html` for none.

        It has no slash, no control character and no dot at its start; what is
        escaped in the URL stays so.
        """
        segment = self.target.partition("?")[0].rpartition("/")[2].lstrip(".")
        return segment[:200] or "index.html"


def _host(text: str, netloc: str) -> str:
    if netloc.startswith("["):
        match = _IPV6.fullmatch(netloc)
        if match is None:
            raise UrlMalformed(text, "its host is no IPv6 address in brackets")
        return f"{match[1]}%{match[2]}" if match[2] else match[1]
    host = netloc.partition(":")[0]
    if not host:
        raise UrlMalformed(text, "it has no host")
    if not host.isascii():
        import idna

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise UrlMalformed(text, f"its host is no domain name: {error}") from error
    if not _HOST.fullmatch(host):
        raise UrlMalformed(text, f"{host!r} is no host")
    return host
