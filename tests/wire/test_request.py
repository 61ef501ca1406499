"""
A request is spelled exactly, and what would be two is none.
"""

from __future__ import annotations

from hypothesis import given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import HeaderNotSendable
from sockproto.wire.request import Request, method_of

HOST = (b"Host", b"example.com")


class SpellingTests(SynchronousTestCase):
    """The bytes of a request (RFC 9112, section 3)."""

    def test_exact(self) -> None:
        """The request line, the headers as given and in order, an empty line."""
        request = Request("GET", b"/a?b", [HOST, (b"x-UPPER", b"1"), (b"B", b"")])
        self.assertEqual(
            request.head,
            b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nx-UPPER: 1\r\nB: \r\n\r\n",
        )
        self.assertEqual(request.encode(), request.head)

    def test_body(self) -> None:
        """A body follows the head, whatever its bytes; its length is the caller's."""
        body = b"\r\n\0\xff"
        request = Request("POST", b"/", [HOST, (b"Content-Length", b"4")], body)
        self.assertEqual(
            request.encode(),
            b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\n" + body,
        )
        self.assertEqual(request.encode(), request.head + body)

    def test_without_headers(self) -> None:
        """Headers are the caller's: none is added."""
        self.assertEqual(
            Request("OPTIONS", b"*", []).encode(), b"OPTIONS * HTTP/1.1\r\n\r\n"
        )

    def test_methods(self) -> None:
        """A method is any token, in its exact case (RFC 9110, section 9.1)."""
        for method in ("GET", "get", "PROPFIND", "M-SEARCH", "!#$%&'*+-.^_`|~09aZ"):
            self.assertEqual(
                Request(method, b"/", []).head,
                method.encode() + b" / HTTP/1.1\r\n\r\n",
            )

    def test_values(self) -> None:
        """A value may have any bytes but a line end and NUL."""
        value = bytes(byte for byte in range(1, 256) if byte not in b"\r\n")
        self.assertIn(
            b"\r\nX: %b\r\n" % value, Request("GET", b"/", [(b"X", value)]).head
        )

    @given(
        method=st.text(max_size=3),
        target=st.binary(max_size=4),
        name=st.binary(max_size=3),
        value=st.binary(max_size=4),
    )
    def test_one_request(
        self, method: str, target: bytes, name: bytes, value: bytes
    ) -> None:
        """Whatever it is made of, it has as many lines as it should, or is refused."""
        try:
            head = Request(method, target, [(name, value)]).head
        except HeaderNotSendable:
            return
        lines = head.split(b"\r\n")
        self.assertEqual(
            lines,
            [
                b"%b %b HTTP/1.1" % (method.encode(), target),
                name + b": " + value,
                b"",
                b"",
            ],
        )
        self.assertEqual(len(lines[0].split()), 3)
        self.assertFalse(set(b"\r\n\0") & set(b"".join(lines)))


class RefusalTests(SynchronousTestCase):
    """What would not be one request."""

    def refused(
        self, method: str, target: bytes, headers: list[tuple[bytes, bytes]]
    ) -> str:
        """What is said to be wrong with this request."""
        with self.assertRaises(HeaderNotSendable) as caught:
            Request(method, target, headers)
        error = caught.exception
        assert isinstance(error, HeaderNotSendable)
        return error.problem

    def test_methods(self) -> None:
        """A method is a token, without a space or a line end in it."""
        for method in (
            "",
            "GET ",
            " GET",
            "GET /x",
            "GET\r\n",
            "GET\n",
            "G\xcbT",
            "G:",
        ):
            self.assertEqual(self.refused(method, b"/", []), f"{method!r} is no method")

    def test_connect(self) -> None:
        """CONNECT makes a tunnel, in whatever case it is written."""
        for method in ("CONNECT", "connect", "Connect"):
            self.assertIn("tunnel", self.refused(method, b"/", []))
        self.assertEqual(Request("CONNECTED", b"/", []).method, "CONNECTED")

    def test_targets(self) -> None:
        """A target is visible ASCII, and something."""
        for target in (
            b"",
            b"/ HTTP/1.1\r\nX: y",
            b"/a b",
            b"/\t",
            b"/\n",
            b"/\r",
            b"/\0",
            b"/\x7f",
            b"/\xc3\xa9",
        ):
            self.assertEqual(
                self.refused("GET", target, []), f"{target!r} is no request target"
            )

    def test_names(self) -> None:
        """A field's name is a token."""
        for name in (
            b"",
            b"X ",
            b" X",
            b"X y",
            b"X:",
            b"X\n",
            b"X\r\nY",
            b"\xff",
            b"\0",
        ):
            self.assertEqual(
                self.refused("GET", b"/", [HOST, (name, b"y")]),
                f"{name!r} is no field name",
            )

    def test_values(self) -> None:
        """A value does not end its line, and has no NUL."""
        for value in (b"y\r\nInjected: 1", b"\n", b"\r", b"y\r", b"\0", b"y\n z"):
            self.assertEqual(
                self.refused("GET", b"/", [HOST, (b"X", value)]),
                f"{value!r} holds a line end or a NUL",
            )


class MethodTests(SynchronousTestCase):
    """The method can be told of bytes that nobody has checked."""

    def test_method_of(self) -> None:
        """It is what stands before the first space, behind empty lines."""
        for request, method in (
            (b"HEAD / HTTP/1.1\n\n", "HEAD"),
            (b"\r\nGET /", "GET"),
            (b"HEADS / HTTP/1.1\n\n", "HEADS"),
            (b"HEAD", "HEAD"),
            (b"\xff /", "\xff"),
            (b"", ""),
        ):
            self.assertEqual(method_of(request), method)
