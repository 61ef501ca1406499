"""
What is asked, and what is asked next when the answer is a redirect.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sockproto.errors import (
    HeaderNotSendable,
    RedirectRefused,
    SchemeNotSupported,
    UrlMalformed,
)
from sockproto.version import __version__
from sockproto.wire.coding import DECODED
from sockproto.wire.request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sockproto.fetching.url import Url
    from sockproto.wire.response import HeadCame

__all__ = ["Asking", "Header"]

Header = tuple[str, str | None] | tuple[bytes, bytes | None]
"""A field of a request. One whose value is None is not sent at all."""

_Fields = tuple[tuple[bytes, bytes | None], ...]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_FOR_ONE_ORIGIN = frozenset(
    {
        b"authorization",
        b"cookie",
        b"cookie2",
        b"host",
        b"proxy-authorization",
    }
)
"""Fields that another origin is never sent: secrets, and whose name it is not."""

_OF_THE_BODY = frozenset(
    {
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-location",
        b"content-type",
        b"digest",
        b"last-modified",
        b"transfer-encoding",
    }
)
"""Fields that go with a body, and go when it does (RFC 9110, section 15.4)."""


@dataclass(frozen=True, slots=True)
class Asking:
    """
    One request to a URL, not spelled yet.

    Attributes:
        url: where it goes.
        method: a token.
        headers: of one's own; each takes the place of ours of the same name.
        body: bytes, or None for none.
        user: name and password with a colon between them (RFC 7617).
        decompress: say in Accept-Encoding what is decoded.
    """

    url: Url
    method: str = "GET"
    headers: _Fields = ()
    body: bytes | None = None
    user: bytes | None = None
    decompress: bool = False

    @classmethod
    def make(
        cls,
        url: Url,
        method: str | None,
        headers: Sequence[Header],
        body: bytes | None,
        user: str | bytes | None,
        *,
        decompress: bool,
    ) -> Asking:
        """
        Take what a caller gives; credentials in the URL count where `user` is None.

        Raises:
            HeaderNotSendable: a part of it cannot be sent.
        """
        if isinstance(user, str):
            user = _encoded(user)
        if user is None:
            user = url.user
        elif b":" not in user:
            user += b":"
        asking = cls(
            replace(url, user=None),
            ("GET" if body is None else "POST") if method is None else method,
            tuple((_bytes(n), None if v is None else _bytes(v)) for n, v in headers),
            body,
            user,
            decompress,
        )
        asking.request()
        return asking

    def request(self) -> Request:
        """
        Spell it.

        Raises:
            HeaderNotSendable: a part of it cannot be sent.
        """
        own = [(name, value) for name, value in self.headers if value is not None]
        given = {name.lower() for name, _ in self.headers}
        usual = [
            (b"Host", self.url.authority.encode("ascii")),
            (b"User-Agent", f"sockproto/{__version__}".encode("ascii")),
            (b"Accept", b"*/*"),
            (b"Connection", b"close"),
        ]
        if self.decompress:
            usual.append((b"Accept-Encoding", ", ".join(DECODED).encode("ascii")))
        if self.user is not None:
            usual.append((b"Authorization", b"Basic " + b64encode(self.user)))
        if self.body is not None:
            usual.append((b"Content-Type", b"application/x-www-form-urlencoded"))
            if b"transfer-encoding" not in {name.lower() for name, _ in own}:
                usual.append((b"Content-Length", b"%d" % len(self.body)))
        # Host comes first (RFC 9110, section 7.2); one's own takes its place.
        hosts = [field for field in own if field[0].lower() == b"host"]
        if len(hosts) > 1:
            raise HeaderNotSendable("it has more than one Host")
        others = [field for field in own if field[0].lower() != b"host"]
        usual = [field for field in usual if field[0].lower() not in given]
        return Request(
            self.method,
            self.url.target.encode("ascii"),
            hosts + usual + others,
            self.body or b"",
        )

    def redirected(self, head: HeadCame) -> Asking | None:
        """
        What to ask next (RFC 9110, section 15.4); None if this is the answer.

        After 303 the method is GET, after 301 and 302 it is where it was POST,
        and then there is no body. Another scheme, host or port gets no
        credentials, and they do not come back when a later redirect does.

        Raises:
            RedirectRefused: it leads from https to http, to another scheme, or
                nowhere.
        """
        locations = head.values(b"location")
        if head.status not in _REDIRECTS or not locations or not locations[0]:
            return None
        location = locations[0]
        shown = location.decode("utf-8", "backslashreplace")
        try:
            url = self.url.join(location)
        except SchemeNotSupported as error:
            raise RedirectRefused(shown, "it is neither http nor https") from error
        except UrlMalformed as error:
            raise RedirectRefused(shown, f"it is malformed: {error.problem}") from error
        if self.url.scheme == "https" and url.scheme == "http":
            raise RedirectRefused(shown, "it would go from https to http")
        following = replace(self, url=url)
        if url.origin != self.url.origin:
            following = replace(
                following, user=None, headers=_without(self.headers, _FOR_ONE_ORIGIN)
            )
        if (head.status == 303 and self.method != "HEAD") or (
            head.status in {301, 302} and self.method == "POST"
        ):
            following = replace(
                following,
                method="GET",
                body=None,
                headers=_without(following.headers, _OF_THE_BODY),
            )
        return following


def _without(headers: _Fields, names: frozenset[bytes]) -> _Fields:
    return tuple(field for field in headers if field[0].lower() not in names)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise HeaderNotSendable(f"{text!r} is no text that UTF-8 can spell") from error


def _bytes(text: str | bytes) -> bytes:
    if isinstance(text, str):
        text = _encoded(text)
    if any(byte in text for byte in b"\r\n\0"):
        raise HeaderNotSendable(f"{text!r} holds a line end or a NUL")
    return text.strip(b" \t")
