"""
What is asked, and what is asked next when the answer is a redirect.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING

from hypothesis import assume, example, given, settings, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import (
    HeaderNotSendable,
    RedirectRefused,
    SchemeNotSupported,
    UrlMalformed,
)
from sockproto.fetching.asking import Asking
from sockproto.fetching.url import Url
from sockproto.version import __version__
from sockproto.wire.response import HeadCame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sockproto.fetching.asking import Header

STATUSES = (301, 302, 303, 307, 308)

# What has a meaning somewhere in a URL or a request, and what has none anywhere.
PIECES = st.one_of(
    st.sampled_from(
        [
            "http://",
            "https://",
            "ftp://",
            "h",
            "example.com",
            "[::1]",
            "[fe80::1%25eth0]",
            ":80",
            ":8080",
            ":",
            "/",
            "//",
            "?",
            "#",
            "@",
            "user:secret@",
            "..",
            "%0d%0a",
            "%20",
            "%00",
            "\\",
            "\r\n",
            "\r\nX: y\r\n\r\n",
            " HTTP/1.1",
            "\t",
            "\0",
            "\x7f",
            "\x85",
            "\u2028",
            "\uff0f",
            "\udcff",
            "\ud800",
            "\xe9",
        ]
    ),
    st.text(max_size=5),
)
TEXTS = st.lists(PIECES, max_size=6).map("".join)
REFERENCES = st.one_of(
    TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=20),
)


def ask(  # noqa: PLR0913 - as a request has them
    url: str = "http://example.com/a",
    method: str | None = None,
    headers: Sequence[Header] = (),
    body: bytes | None = None,
    user: str | bytes | None = None,
    *,
    decompress: bool = False,
) -> Asking:
    """What is asked first."""
    return Asking.make(
        Url.parse(url), method, headers, body, user, decompress=decompress
    )


def sent(asking: Asking) -> bytes:
    """Its bytes."""
    return asking.request().encode()


def answer(
    location: bytes | None = b"/b", status: int = 302, name: bytes = b"Location"
) -> HeadCame:
    """The head of a redirect."""
    headers = () if location is None else ((name, location),)
    return HeadCame(b"", "1.1", status, "", headers)


def follow(asking: Asking, *locations: bytes, status: int = 302) -> Asking:
    """What is asked after these redirects."""
    for location in locations:
        following = asking.redirected(answer(location, status))
        assert following is not None
        asking = following
    return asking


class RequestTests(SynchronousTestCase):
    """How a request is spelled."""

    def test_all(self) -> None:
        """Host, the usual fields in this order, then one's own; then the body."""
        asking = ask(
            "http://example.com:81/a?b#c",
            headers=[("X", "y")],
            body=b"a=b",
            user="me:secret",
            decompress=True,
        )
        self.assertEqual(
            sent(asking),
            b"POST /a?b HTTP/1.1\r\n"
            b"Host: example.com:81\r\n"
            b"User-Agent: sockproto/%b\r\n"
            b"Accept: */*\r\n"
            b"Connection: close\r\n"
            b"Accept-Encoding: gzip, deflate\r\n"
            b"Authorization: Basic %b\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 3\r\n"
            b"X: y\r\n"
            b"\r\n"
            b"a=b" % (__version__.encode(), b64encode(b"me:secret")),
        )

    def test_method(self) -> None:
        """It is GET, or POST where there is a body, unless told otherwise."""
        for method, body, expected in (
            (None, None, b"GET"),
            (None, b"", b"POST"),
            ("PUT", b"a", b"PUT"),
            ("get", None, b"get"),
            ("DELETE", None, b"DELETE"),
        ):
            asking = ask(method=method, body=body)
            self.assertEqual(sent(asking).partition(b" ")[0], expected)

    def test_own_replace_ours(self) -> None:
        """Each field of one's own takes the place of ours of the same name."""
        for name in (
            "host",
            "USER-AGENT",
            "accept",
            "Connection",
            "accept-encoding",
            "authorization",
            "content-type",
            "content-length",
        ):
            for value, count in (("3", 1), (None, 0)):
                request = sent(
                    ask(
                        headers=[(name, value)], body=b"a=b", user="me", decompress=True
                    )
                )
                head = request.partition(b"\r\n\r\n")[0].lower()
                self.assertEqual(
                    head.count(b"\r\n" + name.lower().encode() + b": "), count
                )
                self.assertEqual(head.count(b"\r\n"), 7 + count)

    def test_repeated(self) -> None:
        """One's own may be several of a name, all of which are sent in order."""
        request = sent(ask(headers=[("Cookie", "a"), ("X", "1"), ("cookie", "b")]))
        self.assertIn(b"\r\nCookie: a\r\nX: 1\r\ncookie: b\r\n\r\n", request)

    def test_own_framing(self) -> None:
        """With a Transfer-Encoding of one's own there is no length of ours."""
        request = sent(ask(headers=[("Transfer-Encoding", "chunked")], body=b"0"))
        self.assertNotIn(b"Content-Length", request)
        request = sent(ask(headers=[("Transfer-Encoding", None)], body=b"0"))
        self.assertIn(b"\r\nContent-Length: 1\r\n", request)

    def test_user(self) -> None:
        """Name and password are UTF-8, as they were typed, in Base64."""
        for url, user, expected in (
            ("http://h/", "a:b", b"a:b"),
            ("http://h/", b"\xff:b", b"\xff:b"),
            ("http://h/", "\udcff", b"\xff:"),
            ("http://a:b@h/", None, b"a:b"),
            ("http://a@h/", None, b"a:"),
            ("http://a:b@h/", "c", b"c:"),
            ("http://%c3%a9:%3A%40@h/", None, b"\xc3\xa9::@"),
        ):
            asking = ask(url, user=user)
            self.assertEqual(asking.user, expected)
            self.assertIsNone(asking.url.user)
            self.assertIn(
                b"\r\nAuthorization: Basic " + b64encode(expected) + b"\r\n",
                sent(asking),
            )
        self.assertNotIn(b"Authorization", sent(ask()))

    def test_not_sendable(self) -> None:
        """What would be another request is refused when it is made."""
        for headers in (
            [("X", "a\r\nY: b")],
            [("X", "a\n")],
            [("X", "\ra")],
            [("X", "a\0b")],
            [("X\n", "a")],
            [("X\r\nY", "b")],
            [("X: y\r\nZ", None)],
            [("X Y", "a")],
            [("X:", "a")],
            [("", "a")],
            [(b"\xff", b"a")],
        ):
            self.assertRaises(HeaderNotSendable, ask, headers=headers)
        for method in ("A B", "GET\r\n", "\xe9", "connect", "(", "\0"):
            self.assertRaises(HeaderNotSendable, ask, method=method)

    @settings(deadline=None)
    @given(url=TEXTS)
    @example("http://h/\r\nX: y")
    @example("http://user:secret@h/a b")
    @example("http://\udcff@h/")
    def test_one_request(self, url: str) -> None:
        """No URL puts a control character, a space or another line into the head."""
        try:
            request = ask(url).request()
        except (UrlMalformed, SchemeNotSupported):
            return
        first, host, *others = request.head.split(b"\r\n")
        self.assertRegex(first, rb"\AGET /[!-~]* HTTP/1\.1\Z")
        self.assertRegex(host, rb"\AHost: [A-Za-z0-9._:\[\]-]+\Z")
        if others[3].startswith(b"Authorization: "):
            self.assertRegex(
                others.pop(3), rb"\AAuthorization: Basic [A-Za-z0-9+/=]+\Z"
            )
        self.assertEqual(
            others,
            [
                b"User-Agent: sockproto/" + __version__.encode(),
                b"Accept: */*",
                b"Connection: close",
                b"",
                b"",
            ],
        )
        self.assertEqual(request.body, b"")

    @settings(deadline=None)
    @given(user=TEXTS, rest=TEXTS)
    @example("a:b", "/")
    @example("\udcff", "")
    @example("%0d%0aX:%20y", "")
    @example("", "")
    def test_user_nowhere_else(self, user: str, rest: str) -> None:
        """User information is in Authorization, and changes nothing else."""
        assume(not re.search(r"[/?#@]", user))
        with_user, without = (
            f"http://{prefix}example.com/{rest}" for prefix in (f"{user}@", "")
        )
        try:
            plain = sent(ask(without))
            request = sent(ask(with_user))
        except (UrlMalformed, SchemeNotSupported):
            return
        lines = [
            line
            for line in request.split(b"\r\n")
            if not line.startswith(b"Authorization: Basic ")
        ]
        self.assertEqual(lines, plain.split(b"\r\n"))

    @settings(deadline=None)
    @given(
        name=st.one_of(st.text(max_size=4), st.just("X")),
        value=st.one_of(TEXTS, st.none()),
        coded=st.booleans(),
    )
    @example("X", "\ud800", False)
    @example("X", "a\r\nb", True)
    def test_one_field(self, name: str, value: str | None, coded: bool) -> None:
        """A field of one's own is one line with these bytes, or is refused."""
        header: Header = (name, value)
        if coded:
            header = (
                name.encode("utf-8", "surrogatepass"),
                None if value is None else value.encode("utf-8", "surrogatepass"),
            )
        try:
            request = sent(ask(headers=[header]))
        except HeaderNotSendable:
            return
        *lines, end, body = request.split(b"\r\n")
        self.assertEqual((end, body), (b"", b""))
        for line in lines[1:]:
            self.assertRegex(line, rb"\A[!#$%&'*+.^_`|~0-9A-Za-z-]+: ")
            self.assertNotRegex(line, rb"[\r\n\0]")
        self.assertLessEqual(len(lines), 6)


class RedirectTests(SynchronousTestCase):
    """What is asked next."""

    def test_answers(self) -> None:
        """Other statuses, and those without a Location, lead nowhere."""
        for status in (200, 201, 204, 300, 304, 305, 306, 309, 400, 503):
            self.assertIsNone(ask().redirected(answer(status=status)))
        for status in STATUSES:
            self.assertIsNone(ask().redirected(answer(None, status)))
            self.assertIsNone(ask().redirected(answer(b"", status)))
            self.assertIsNotNone(ask().redirected(answer(b"/b", status)))

    def test_name_of_the_field(self) -> None:
        """Location is found however it is spelled."""
        self.assertIsNotNone(ask().redirected(answer(name=b"LOCATION")))

    def test_methods(self) -> None:
        """The method and the body after each status (RFC 9110, section 15.4)."""
        changes = {
            (301, "POST"),
            (302, "POST"),
            *((303, method) for method in ("GET", "POST", "PUT", "DELETE", "post")),
        }
        for status in STATUSES:
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "post"):
                for body in (None, b"a=b"):
                    asking = ask(method=method, body=body)
                    following = follow(asking, b"/b", status=status)
                    expected = (
                        ("GET", None) if (status, method) in changes else (method, body)
                    )
                    self.assertEqual(
                        (following.method, following.body), expected, (status, method)
                    )

    def test_fields_of_the_body(self) -> None:
        """What goes with a body goes with it, and nothing else does."""
        headers: list[Header] = [
            ("content-TYPE", "a/b"),
            ("Content-Length", "3"),
            ("Content-Encoding", "x"),
            ("Content-Language", "x"),
            ("Content-Location", "x"),
            ("Digest", "x"),
            ("Last-Modified", "x"),
            ("Transfer-Encoding", "x"),
        ]
        asking = ask(headers=[*headers, ("X", "y")], body=b"a=b")
        head = sent(follow(asking, b"/b")).lower()
        for name, _ in headers:
            assert isinstance(name, str)
            self.assertNotIn(b"\r\n" + name.lower().encode() + b":", head)
        self.assertIn(b"\r\nx: y\r\n", head)
        again = sent(follow(asking, b"/b", status=307))
        self.assertEqual(again, sent(asking).replace(b" /a ", b" /b "))

    def test_same_origin(self) -> None:
        """At the same scheme, host and port, all fields are sent again."""
        headers: list[Header] = [
            ("Cookie", "c"),
            ("Proxy-Authorization", "p"),
            ("Host", "x"),
        ]
        for url, location in (
            ("http://h/a", b"http://h:80/b"),
            ("http://h/a", b"HTTP://H/b"),
            ("http://h/a", b"http://h./b"),
            ("http://h/a", b"//h/b"),
            ("https://h/a", b"https://h:443/b"),
            ("http://[::1]/a", b"http://[::1]:80/b"),
        ):
            asking = ask(url, headers=headers, user="us:er")
            self.assertEqual(
                sent(follow(asking, location)),
                sent(asking).replace(b" /a ", b" /b "),
                location,
            )

    def test_other_origin(self) -> None:
        """At another, no secret is sent; it does not come back either."""
        headers: list[Header] = [
            ("AUTHORIZATION", "s"),
            ("Cookie", "s"),
            ("Cookie2", "s"),
            ("proxy-authorization", "s"),
            ("Host", "s"),
        ]
        for url, location in (
            ("http://h/a", b"https://h/b"),
            ("http://h/a", b"http://h:443/b"),
            ("http://h/a", b"http://h.h/b"),
            ("http://h/a", b"http://us:er@i/b"),
            ("https://h/a", b"https://h:444/b"),
            ("http://[::1]/a", b"http://[::2]/b"),
            ("http://[fe80::1%25a]/a", b"http://[fe80::1%25b]/b"),
        ):
            for asking in (ask(url, headers=headers), ask(url, user="us:er")):
                back = url.encode()
                ways: tuple[bytes, ...]
                for ways in ((location,), (location, b"/c"), (location, back)):
                    if location.startswith(b"https:") and ways[-1].startswith(b"http:"):
                        continue  # there is no way back
                    following = follow(asking, *ways)
                    self.assertIsNone(following.user)
                    head = sent(following).lower()
                    self.assertNotRegex(head, rb": s\r|authorization|cookie")
                    self.assertEqual(head.count(b"\r\nhost: "), 1)
                    self.assertEqual(follow(asking, *ways, status=307).user, None)

    def test_user_in_location(self) -> None:
        """User information of a Location is sent nowhere."""
        for location in (b"http://x:y@h/b", b"//x:y@i/b", b"http://x@h/b"):
            following = follow(ask("http://h/a"), location)
            self.assertIsNone(following.user)
            self.assertIsNone(following.url.user)
            self.assertNotIn(b"Authorization", sent(following))
            self.assertNotIn(b"x:y", sent(following))

    def test_refused(self) -> None:
        """From https to http, to another scheme or nowhere it is not gone."""
        for url, location, words in (
            ("https://h/a", b"http://h/a", "https to http"),
            ("https://h/a", b"http://i:443/", "https to http"),
            ("http://h/a", b"ftp://h/a", "neither http nor https"),
            ("http://h/a", b"javascript:alert(1)", "neither http nor https"),
            ("http://h/a", b"file:///etc/passwd", "neither http nor https"),
            ("http://h/a", b"http://h:99999/", "malformed"),
            ("http://h/a", b"http://\x01/", "malformed"),
            ("http://h/a", b"http://[::1", "malformed"),
            ("http://h/a", b"/a\\b", "malformed"),
        ):
            error = self.assertRaises(
                RedirectRefused, ask(url).redirected, answer(location)
            )
            self.assertEqual(error.location, location.decode())
            self.assertIn(words, error.problem)

    def test_shown(self) -> None:
        """A Location that is no text is shown with its bytes escaped."""
        error = self.assertRaises(
            RedirectRefused, ask().redirected, answer(b"ftp://\xff")
        )
        self.assertEqual(error.location, "ftp://\\xff")

    def test_shown_in_print(self) -> None:
        """What a peer put into a Location moves no cursor, wherever it is quoted."""
        for location in ("//h\ufe13\x9b31m/", "//\uff1a\u202e/"):
            error = self.assertRaises(
                RedirectRefused, ask().redirected, answer(location.encode())
            )
            self.assertTrue(str(error).isprintable(), ascii(str(error)))

    @settings(deadline=None)
    @given(
        url=st.sampled_from(
            ["http://h/a/b?c", "https://h:81/", "http://[fe80::1%25eth0]/x"]
        ),
        location=REFERENCES,
        status=st.sampled_from(STATUSES),
    )
    @example("http://h/a/b?c", b"http://\xff@h/", 302)
    @example("http://h/a/b?c", b"http://\xed\xa0\x80@h/", 302)
    @example("http://h/a/b?c", b"http:", 302)
    @example("http://h/a/b?c", b"//[", 302)
    def test_any_location(self, url: str, location: bytes, status: int) -> None:
        """Whatever a server says, one safe request is next, or it is refused."""
        asking = ask(url, headers=[("Cookie", "c=secret")], user="us:er", body=b"x")
        try:
            following = asking.redirected(answer(location, status))
        except RedirectRefused:
            return
        if following is None:
            self.assertEqual(location, b"")
            return
        first, host, *others = following.request().head.split(b"\r\n")
        self.assertRegex(first, rb"\A(GET|POST) /[!-~]* HTTP/1\.1\Z")
        self.assertRegex(host, rb"\AHost: [A-Za-z0-9._:\[\]-]+\Z")
        same = following.url.origin == asking.url.origin
        self.assertEqual(b"Cookie: c=secret" in others, same)
        self.assertEqual(following.user, b"us:er" if same else None)
        self.assertLessEqual(len(others), 9)
        self.assertFalse(
            asking.url.scheme == "https" and following.url.scheme == "http"
        )
