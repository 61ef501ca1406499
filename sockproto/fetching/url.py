"""
The parts of a URL that a request needs, and nothing that could smuggle another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

from sockproto.errors import SchemeNotSupported, UrlMalformed
from sockproto.spelling import spell_for_terminal

__all__ = ["Url"]

_DEFAULT_PORTS = {"http": 80, "https": 443}

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_UNWANTED = re.compile(r"[\x00-\x20\x7f\\]")
_NO_HOST = re.compile(r"(?:https?:)?//(?:[/?#]|\Z)", re.IGNORECASE)
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
        scheme: `http` or `https`.
        host: to connect to, in ASCII and lower case; an IPv6 address without its
            brackets.
        port: the scheme's, unless the URL has one.
        target: path and query, as they go into the request line.
        user: name and password with a colon between them, unescaped; None if
            the URL has none. It is in no other attribute.
    """

    scheme: str
    host: str
    port: int
    target: str
    user: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Url:
        """
        Read a URL. Without a scheme, it is http, as in curl.

        Raises:
            SchemeNotSupported: it is neither http nor https.
            UrlMalformed: it breaks the grammar.
        """
        unwanted = _UNWANTED.search(text)
        if unwanted:
            raise UrlMalformed(text, f"it holds {unwanted[0]!r}")
        try:
            parts = urlsplit(text if _SCHEME.match(text) else f"http://{text}")
            port = parts.port
        except ValueError as error:
            raise UrlMalformed(text, _words_of(error)) from error
        if parts.scheme not in _DEFAULT_PORTS:
            raise SchemeNotSupported(text, parts.scheme)
        user, at, netloc = parts.netloc.rpartition("@")
        if "@" in user:
            raise UrlMalformed(text, "a second '@' is before its host; write %40")
        if port == 0:
            raise UrlMalformed(text, "port 0 cannot be connected to")
        target = parts.path or "/"
        if "?" in text.partition("#")[0]:
            target += f"?{parts.query}"
        try:
            credentials = _user(user) if at else None
            target = quote(target, safe=_SAFE, errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise UrlMalformed(text, "it is no text that UTF-8 can spell") from error
        return cls(
            parts.scheme,
            _host(text, netloc),
            _DEFAULT_PORTS[parts.scheme] if port is None else port,
            target,
            credentials,
        )

    def join(self, reference: bytes) -> Url:
        """
        Resolve what Location says (RFC 9110, section 10.2.2; RFC 3986, section 5).

        Spaces and bytes beyond ASCII are escaped, as browsers and curl do. User
        information in it is dropped: a server does not say who we are.

        Raises:
            SchemeNotSupported, UrlMalformed: as `parse` has them.
        """
        text = reference.decode("utf-8", "surrogateescape").replace(" ", "%20")
        unwanted = _UNWANTED.search(text)
        if unwanted:
            raise UrlMalformed(text, f"it holds {unwanted[0]!r}")
        if _NO_HOST.match(text):
            raise UrlMalformed(text, "it has no host")
        try:
            joined = urljoin(str(self), text)
        except ValueError as error:
            raise UrlMalformed(text, _words_of(error)) from error
        if not _SCHEME.match(joined):
            # `mailto:`, or `http:` without a host: parse() would guess.
            scheme = joined.partition(":")[0]
            if scheme.lower() in _DEFAULT_PORTS:
                raise UrlMalformed(text, "it has no host")
            raise SchemeNotSupported(text, scheme)
        return replace(Url.parse(joined), user=None)

    def __str__(self) -> str:
        """Without user information and fragment."""
        zone = self.host.partition("%")[2]
        authority = self.authority
        if zone:
            authority = authority.replace("]", f"%25{zone}]")
        return f"{self.scheme}://{authority}{self.target}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials are for (RFC 6454, section 4)."""
        return self.scheme, self.host.rstrip("."), self.port

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


def _words_of(error: ValueError) -> str:
    """Why Python refuses a URL; it quotes what a peer may have sent."""
    return spell_for_terminal(str(error).lower())


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _user(text: str) -> bytes:
    name, _, password = text.encode("utf-8", "surrogateescape").partition(b":")
    return unquote_to_bytes(name) + b":" + unquote_to_bytes(password)


def _host(text: str, netloc: str) -> str:
    if netloc.startswith("["):
        match = _IPV6.fullmatch(netloc)
        # Python looks between the first brackets, which may be a user's.
        if match is None or not _is_ipv6(match[1]):
            raise UrlMalformed(text, "its host is no IPv6 address in brackets")
        address = match[1].lower()
        return f"{address}%{match[2]}" if match[2] else address
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
    return host.lower()
