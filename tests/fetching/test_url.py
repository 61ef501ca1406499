"""
Which URLs are taken, and what a request makes of them.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given, settings, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import SchemeNotSupported, UrlMalformed
from sockproto.fetching.url import Url

# What has a meaning somewhere in a URL, and what has none anywhere.
PIECES = st.one_of(
    st.sampled_from(
        [
            "http://",
            "https://",
            "ftp://",
            "example.com",
            "[::1]",
            "%25eth0",
            ":80",
            ":",
            "/",
            "//",
            "?",
            "#",
            "@",
            "user:secret@",
            ".",
            "..",
            "%2F",
            "%00",
            "%2e",
            "\\",
            "\r\n",
            "\t",
            "\0",
            "\x7f",
            "\x85",
            "\u2028",
            "\u202e",
            "\uff0f",
            "\u3002",
            "\udcff",
            "\xe9",
            "a" * 300,
        ]
    ),
    st.text(max_size=5),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


class GoodTests(SynchronousTestCase):
    """URLs that are taken."""

    def test_parts(self) -> None:
        """Scheme, host, port and target of common URLs."""
        for text, expected in (
            ("http://example.com", ("http", "example.com", 80, "/")),
            ("https://example.com", ("https", "example.com", 443, "/")),
            ("http://EXAMPLE.com/A", ("http", "example.com", 80, "/A")),
            ("HTTP://example.com/A", ("http", "example.com", 80, "/A")),
            ("http://example.com:8080/a/b.c", ("http", "example.com", 8080, "/a/b.c")),
            ("http://example.com:/", ("http", "example.com", 80, "/")),
            ("http://example.com:65535/", ("http", "example.com", 65535, "/")),
            ("http://example.com./", ("http", "example.com.", 80, "/")),
            ("http://my_host-1/", ("http", "my_host-1", 80, "/")),
            ("http://127.0.0.1:1/", ("http", "127.0.0.1", 1, "/")),
            ("http://h/a;b,c=d!e", ("http", "h", 80, "/a;b,c=d!e")),
            ("http://h//a//", ("http", "h", 80, "//a//")),
            ("http://h/a/../b", ("http", "h", 80, "/a/../b")),
            ("http://h/a:80@b", ("http", "h", 80, "/a:80@b")),
        ):
            url = Url.parse(text)
            self.assertEqual((url.scheme, url.host, url.port, url.target), expected)
            self.assertIsNone(url.user)

    def test_no_scheme(self) -> None:
        """Without a scheme it is http, also where a query holds another URL."""
        for text, expected in (
            ("example.com", ("http", "example.com", 80, "/")),
            ("localhost:8080", ("http", "localhost", 8080, "/")),
            ("localhost:8080/a", ("http", "localhost", 8080, "/a")),
            ("[::1]:8080/a", ("http", "::1", 8080, "/a")),
            ("h/?u=https://other/", ("http", "h", 80, "/?u=https://other/")),
        ):
            url = Url.parse(text)
            self.assertEqual((url.scheme, url.host, url.port, url.target), expected)

    def test_query(self) -> None:
        """A query stays as it is; without a path, the path is the root."""
        for text, target in (
            ("http://h?a=b", "/?a=b"),
            ("http://h?a/b", "/?a/b"),
            ("http://h/?a=b&c=d", "/?a=b&c=d"),
            ("http://h/a?b?c", "/a?b?c"),
            ("http://h/?", "/?"),
            ("http://h/a?", "/a?"),
            ("http://h/??", "/??"),
        ):
            self.assertEqual(Url.parse(text).target, target, text)

    def test_empty_query(self) -> None:
        """An empty query is not the same as none (RFC 3986, section 6.2.3)."""
        self.assertEqual(Url.parse("http://h?").target, "/?")

    def test_fragment(self) -> None:
        """A fragment is not sent, whatever stands in it."""
        for text, target in (
            ("http://h#f", "/"),
            ("http://h/a#f", "/a"),
            ("http://h/a?b#f?g", "/a?b"),
            ("http://h/a#", "/a"),
            ("http://h/#@evil/", "/"),
        ):
            self.assertEqual(Url.parse(text).target, target, text)

    def test_question_in_a_fragment(self) -> None:
        """A question mark in the fragment makes no query."""
        for text, target in (("http://h/#/?", "/"), ("http://h/a#/a?", "/a")):
            self.assertEqual(Url.parse(text).target, target, text)

    def test_escapes(self) -> None:
        """What is escaped stays so; what is not ASCII is escaped as UTF-8."""
        for text, target in (
            ("http://h/%2F%2f%25", "/%2F%2f%25"),
            ("http://h/%zz", "/%zz"),
            ("http://h/b\xfccher", "/b%C3%BCcher"),
            ("http://h/?q=\u20ac", "/?q=%E2%82%AC"),
            ("http://h/\x85", "/%C2%85"),
            ("http://h/\u2028", "/%E2%80%A8"),
            # A byte of the command line that is not UTF-8.
            ("http://h/\udcff", "/%FF"),
        ):
            self.assertEqual(Url.parse(text).target, target, ascii(text))

    def test_idna(self) -> None:
        """A host that is not ASCII goes by its IDNA 2008 name."""
        for text, host in (
            ("http://b\xfccher.example/", "xn--bcher-kva.example"),
            ("http://B\xdcCHER.example/", "xn--bcher-kva.example"),
            ("http://fa\xdf.de:81/", "xn--fa-hia.de"),
            ("http://\u4f8b\u3002jp/", "xn--fsq.jp"),
            ("http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ):
            self.assertEqual(Url.parse(text).host, host)

    def test_ipv6(self) -> None:
        """An IPv6 literal stands in brackets, its zone behind %25 (RFC 6874)."""
        for text, host, port in (
            ("http://[::1]/", "::1", 80),
            ("http://[::1]", "::1", 80),
            ("http://[::1]:8080/", "::1", 8080),
            ("http://[::1]:/", "::1", 80),
            ("https://[2001:DB8::1]/", "2001:db8::1", 443),
            ("http://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1", 80),
            ("http://[fe80::1%25eth0]:8/", "fe80::1%eth0", 8),
        ):
            url = Url.parse(text)
            self.assertEqual((url.host, url.port), (host, port), text)


class UserTests(SynchronousTestCase):
    """User information (RFC 3986, section 3.2.1)."""

    def test_user(self) -> None:
        """It is unescaped, has a colon, and is in no other part."""
        for text, user in (
            ("http://user@h/", b"user:"),
            ("http://user:@h/", b"user:"),
            ("http://user:secret@h/", b"user:secret"),
            ("http://:secret@h/", b":secret"),
            ("http://a:b:c@h/", b"a:b:c"),
            ("http://a%3ab:%40%2f@h/", b"a:b:@/"),
            ("http://%C3%A9:\xe9@h/", b"\xc3\xa9:\xc3\xa9"),
            ("http://%ff:%00@h/", b"\xff:\0"),
            ("http://%zz:%@h/", b"%zz:%"),
            # A byte of the command line that is not UTF-8.
            ("http://\udcff@h/", b"\xff:"),
            ("user:secret@h/", b"user:secret"),
        ):
            url = Url.parse(text)
            self.assertEqual(url.user, user, ascii(text))
            self.assertEqual((url.host, url.port, url.target), ("h", 80, "/"))
            self.assertEqual(url.authority, "h")
            self.assertEqual(str(url), "http://h/")
            self.assertNotIn("secret", repr(url))

    def test_with_the_rest(self) -> None:
        """Port, address, path and query are what they are without it."""
        for text in (
            "example.com:8080/a?b",
            "[::1]:81/@",
            "[fe80::1%25eth0]/",
            "h?a@b",
            "h#a@b",
            "good.example/@evil.example",
        ):
            for scheme in ("http://", "https://"):
                self.assertEqual(
                    replace(Url.parse(f"{scheme}u:p@{text}"), user=None),
                    Url.parse(f"{scheme}{text}"),
                )

    def test_no_user(self) -> None:
        """An `@` behind the host is none."""
        for text in ("http://h/a@b", "http://h?a@b", "http://h#a@b", "http://h/:p@b"):
            self.assertIsNone(Url.parse(text).user)


class BadTests(SynchronousTestCase):
    """URLs that are not taken."""

    def refused(self, *texts: str) -> None:
        """Each of these is malformed, and the error says which it was."""
        for text in texts:
            error = self.assertRaises(UrlMalformed, Url.parse, text)
            self.assertEqual(error.url, text)
            self.assertTrue(error.problem)

    def test_control_characters(self) -> None:
        """Control characters, spaces and backslashes are refused anywhere."""
        for bad in map(chr, [*range(0x21), 0x7F, 0x5C]):
            self.refused(
                f"{bad}http://h/",
                f"ht{bad}tp://h/",
                f"http://{bad}h/",
                f"http://h{bad}/",
                f"http://h:8{bad}0/",
                f"http://h/a{bad}b",
                f"http://h/?a{bad}b",
                f"http://h/#a{bad}b",
                f"http://h/{bad}",
            )

    def test_smuggling(self) -> None:
        """No line end makes a second request."""
        self.refused("http://h/ HTTP/1.1\r\nX: y", "http://h/\r\n\r\nGET /")

    def test_second_at(self) -> None:
        """Which of two `@` ends the user is not guessed; one in a path is none."""
        self.refused(
            "http://a@b@h/", "http://good.example@x@evil.example/", "http://@@h/"
        )

    def test_user(self) -> None:
        """A user before it makes no host better."""
        self.refused(
            "http://user@",
            "http://user@/",
            "http://user@:80/",
            "http://user@h:0/",
            "http://us er@h/",
            "http://us\r\ner@h/",
            "http://user:a\\b@h/",
            "http://user@[::1/",
            "http://[::1]@/",
            "http://a,b@c,d/",
            "http://\ud800@h/",
            "http://a:\ud800@h/",
        )

    def test_no_host(self) -> None:
        """There is a host."""
        self.refused("", "http://", "http:///a", "http://:80/", "http://?q", "http://#")

    def test_host(self) -> None:
        """A host is a name or an address, without anything to decode."""
        self.refused(
            "http://%65xample.com/",
            "http://a,b/",
            "http://a$b/",
            "http://a*/",
            f"http://{'a' * 254}/",
            "http://\uff41\uff1a80/",
            "http://\u2100.example/",
            "http://\u202eexample/",
            f"http://\xe9{'a' * 70}.example/",
            "http://\ud800/",
            "http://\udcff/",
        )

    def test_port(self) -> None:
        """A port is a number from 1 to 65535."""
        self.refused(
            "http://h:0/",
            "http://h:65536/",
            "http://h:-1/",
            "http://h:+1/",
            "http://h:x/",
            "http://h:80:80/",
            "http://h:\u0663/",
            "http://[::1]:x/",
            "http://[::1]:65536/",
        )

    def test_ipv6(self) -> None:
        """What is in brackets is an IPv6 address, and they are there."""
        self.refused(
            "http://::1/",
            "http://[::1/",
            "http://::1]/",
            "http://[]/",
            "http://[::1::2]/",
            "http://[12345::]/",
            "http://[127.0.0.1]/",
            "http://[v1.a]/",
            "http://[example.com]/",
            "http://[fe80::1%eth0]/",
            "http://[fe80::1%25]/",
            "http://a[::1]/",
        )

    def test_ipv6_behind_a_user(self) -> None:
        """Brackets in a user make nothing an address that is none."""
        self.refused(
            "http://[::]@[:]/", "http://[::1]@[0%258]/", "http://[::]@[1.2.3.4]/"
        )

    def test_behind_the_bracket(self) -> None:
        """Behind an IPv6 literal comes its port, or nothing."""
        self.refused("http://[::1]a/", "http://[::1].example:80/", "http://[::1]\xe9/")

    def test_lone_surrogate(self) -> None:
        """A character that no encoding has is malformed too."""
        self.refused("http://h/\ud800", "http://h/?\ud800")

    def test_scheme(self) -> None:
        """Another scheme than http and https is named as such."""
        for text, scheme in (
            ("ftp://h/", "ftp"),
            ("file:///etc/passwd", "file"),
            ("FTPS://h/", "ftps"),
            ("git+ssh://user@h/", "git+ssh"),
            ("httpx://h/", "httpx"),
        ):
            error = self.assertRaises(SchemeNotSupported, Url.parse, text)
            self.assertEqual((error.url, error.scheme), (text, scheme))

    @settings(deadline=None)
    @given(text=TEXTS)
    @example("http://[::1]]/")
    @example("http://\udcff@h/")
    @example("http://\ud800@h/")
    def test_any_text(self, text: str) -> None:
        """Any text is a URL that can be requested safely, or one of two errors."""
        try:
            url = Url.parse(text)
        except (UrlMalformed, SchemeNotSupported):
            return
        self.assertIn(url.scheme, ("http", "https"))
        self.assertIn(url.port, range(1, 65536))
        self.assertRegex(url.host, r"\A[A-Za-z0-9._:%~-]+\Z")
        self.assertRegex(url.authority, r"\A[A-Za-z0-9._:\[\]-]+\Z")
        # One line, one target: printable ASCII without a space (RFC 9112, 3).
        self.assertRegex(url.target, r"\A/[!-~]*\Z")
        # What it is spelled as is the same URL.
        self.assertEqual(Url.parse(str(url)), replace(url, user=None))


class SpellingTests(SynchronousTestCase):
    """A URL as text."""

    def test_text(self) -> None:
        """Without user information, fragment and default port, zone and all."""
        for text, expected in (
            ("http://h", "http://h/"),
            ("HTTP://H:80/A?b#c", "http://h/A?b"),
            ("https://h:443", "https://h/"),
            ("https://h:80/", "https://h:80/"),
            ("h:81/a", "http://h:81/a"),
            ("http://u:p@h/", "http://h/"),
            ("http://[::1]:81/", "http://[::1]:81/"),
            ("http://[fe80::1%25eth0]/a", "http://[fe80::1%25eth0]/a"),
            ("http://[fe80::1%25eth0]:81/a", "http://[fe80::1%25eth0]:81/a"),
            ("http://b\xfccher.example/\xfc", "http://xn--bcher-kva.example/%C3%BC"),
            ("http://h//a//?", "http://h//a//?"),
        ):
            url = Url.parse(text)
            self.assertEqual(str(url), expected)
            self.assertEqual(Url.parse(expected), replace(url, user=None))

    def test_origin(self) -> None:
        """Scheme, host and port, and nothing else, make an origin."""
        for text, same in (
            ("http://h/", True),
            ("http://h:80/a?b#c", True),
            ("HTTP://H/", True),
            ("http://u:p@h/", True),
            ("http://h./", True),
            ("https://h/", False),
            ("https://h:80/", False),
            ("http://h:8080/", False),
            ("http://a.h/", False),
            ("http://h.h/", False),
        ):
            other = Url.parse(text).origin
            self.assertEqual(other == Url.parse("http://h/x").origin, same, text)
        self.assertNotEqual(
            Url.parse("http://[fe80::1%25a]/").origin,
            Url.parse("http://[fe80::1%25b]/").origin,
        )


class JoinTests(SynchronousTestCase):
    """Where Location leads."""

    BASE = Url.parse("http://us:er@h:81/a/b;c?d#e")

    def test_references(self) -> None:
        """The examples of RFC 3986, section 5.4, in an http URL."""
        base = Url.parse("http://a/b/c/d;p?q")
        for reference, expected in (
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("g;x", "http://a/b/c/g;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
            ("g?y/./x", "http://a/b/c/g?y/./x"),
        ):
            self.assertEqual(str(base.join(reference.encode())), expected, reference)

    def test_absolute(self) -> None:
        """Another URL takes the place of this, but for the user."""
        for reference, expected in (
            (b"https://i/", "https://i/"),
            (b"HTTP://I:80", "http://i/"),
            (b"//i:82/x", "http://i:82/x"),
            (b"http://[::1]:80/", "http://[::1]/"),
            (b"http://x:y@i/", "http://i/"),
            (b"//x:y@h:81/", "http://h:81/"),
            (b"http://b\xc3\xbccher.example", "http://xn--bcher-kva.example/"),
            (b"/x?http://i/", "http://h:81/x?http://i/"),
        ):
            url = self.BASE.join(reference)
            self.assertEqual(str(url), expected)
            self.assertIsNone(url.user)

    def test_zone(self) -> None:
        """The zone of an address stays with it."""
        base = Url.parse("http://[fe80::1%25eth0]:81/a")
        self.assertEqual(base.join(b"/b").host, "fe80::1%eth0")
        self.assertEqual(base.join(b"/b").port, 81)

    def test_escaped(self) -> None:
        """Spaces and bytes beyond ASCII are escaped, as browsers and curl do."""
        for reference, target in (
            (b"/a b", "/a%20b"),
            (b"/?a b", "/?a%20b"),
            (b" /a", "/a/%20/a"),
            (b"/\xc3\xa9", "/%C3%A9"),
            (b"/\xff\x80", "/%FF%80"),
            (b"/%20%zz", "/%20%zz"),
        ):
            self.assertEqual(self.BASE.join(reference).target, target, reference)

    def refused(self, kind: type[Exception], *references: bytes) -> None:
        """None of these leads anywhere."""
        for reference in references:
            with self.assertRaises(kind, msg=repr(reference)):
                self.BASE.join(reference)

    def test_malformed(self) -> None:
        """What breaks the grammar leads nowhere."""
        self.refused(
            UrlMalformed,
            b"/a\r\nX: y",
            b"/\0",
            b"/\t",
            b"/\x7f",
            b"/a\\b",
            b"\\\\evil\\",
            b"http://[",
            b"//[::1",
            b"http://h:0/",
            b"http://h:x/",
            b"http://a b/",
            b"http://a@b@c/",
            b"http://\xff/",
            b"https:",
            b"https:x",
        )

    def test_no_host(self) -> None:
        """Nor does what has no host (RFC 9110, section 4.2.1)."""
        self.refused(
            UrlMalformed,
            b"http://",
            b"http:///b",
            b"http://?b",
            b"//",
            b"///b",
            b"//#",
            b"https://",
            b"https:///b",
            b"http://x@/",
        )

    def test_scheme(self) -> None:
        """Another scheme is named as such."""
        for reference, scheme in (
            (b"ftp://h/", "ftp"),
            (b"FILE:///etc/passwd", "file"),
            (b"javascript:alert(1)", "javascript"),
            (b"mailto:a@b", "mailto"),
            (b"data:,x", "data"),
        ):
            error = self.assertRaises(SchemeNotSupported, self.BASE.join, reference)
            self.assertEqual(error.scheme.lower(), scheme)

    @settings(deadline=None)
    @given(
        base=st.sampled_from(
            ["http://u:p@h/a/b?c", "https://h:81", "http://[fe80::1%25eth0]//"]
        ),
        reference=st.one_of(
            TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
            st.binary(max_size=20),
        ),
    )
    @example("http://h/", b"http://\xff@h/")
    @example("http://h/", b"http://\xed\xa0\x80:\xff@h/")
    @example("http://h/", b"//[")
    @example("http://h/", b"http:")
    def test_any_bytes(self, base: str, reference: bytes) -> None:
        """Any bytes are a URL that can be requested safely, or one of two errors."""
        try:
            url = Url.parse(base).join(reference)
        except (UrlMalformed, SchemeNotSupported):
            return
        self.assertIsNone(url.user)
        self.assertIn(url.scheme, ("http", "https"))
        self.assertRegex(url.authority, r"\A[A-Za-z0-9._:\[\]-]+\Z")
        self.assertRegex(url.target, r"\A/[!-~]*\Z")
        self.assertEqual(Url.parse(str(url)), url)


class AuthorityTests(SynchronousTestCase):
    """What `Host` says."""

    def test_authority(self) -> None:
        """The host, and the port where it is not the scheme's; never a zone."""
        for text, authority in (
            ("http://h/", "h"),
            ("http://h:80/", "h"),
            ("http://h:443/", "h:443"),
            ("https://h:443/", "h"),
            ("https://h:80/", "h:80"),
            ("http://h:8080/", "h:8080"),
            ("http://[::1]/", "[::1]"),
            ("http://[::1]:81/", "[::1]:81"),
            ("http://[fe80::1%25eth0]/", "[fe80::1]"),
            ("http://[fe80::1%25eth0]:81/", "[fe80::1]:81"),
            ("http://b\xfccher.example:81/", "xn--bcher-kva.example:81"),
        ):
            self.assertEqual(Url.parse(text).authority, authority, text)


class FileNameTests(SynchronousTestCase):
    """What a body is called if nobody says it."""

    def test_file_name(self) -> None:
        """It is the last segment of the path, or `index.html`."""
        for text, name in (
            ("http://h", "index.html"),
            ("http://h/", "index.html"),
            ("http://h/a/", "index.html"),
            ("http://h/a/b.tar.gz", "b.tar.gz"),
            ("http://h/a?b=/c/d", "a"),
            ("http://h?a/b", "index.html"),
            ("http://h/a#b/c", "a"),
            ("http://h/.bashrc", "bashrc"),
            ("http://h/..", "index.html"),
            ("http://h/a/...b", "b"),
            ("http://h/%2e%2e%2fpasswd", "%2e%2e%2fpasswd"),
            ("http://h/b\xfc", "b%C3%BC"),
            ("http://h/a%00b", "a%00b"),
            ("http://h/" + "a" * 300, "a" * 200),
        ):
            self.assertEqual(Url.parse(text).file_name, name, text)

    @settings(deadline=None)
    @given(path=TEXTS)
    def test_harmless(self, path: str) -> None:
        """It names a file in this folder, which is not hidden, and can be made."""
        try:
            name = Url.parse(f"http://h/{path}").file_name
        except UrlMalformed:
            return
        self.assertRegex(name, r"\A(?!\.)[!-~]{1,200}\Z")
        self.assertNotIn("/", name)
        self.assertNotIn("\\", name)
