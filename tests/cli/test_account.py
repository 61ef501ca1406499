"""
What `-v` says, and what `--report` keeps.
"""

from __future__ import annotations

import io
import json
import sys
import time
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sockproto.cli.account import Account, Narrated
from sockproto.errors import BodyCutShort
from sockproto.fetching import Url
from sockproto.wire.response import (
    BodyFraming,
    HeadCame,
    InterimCame,
    ResponseEnded,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
HEAD = HeadCame(
    b"HTTP/1.1 200 O\xffK\r\nX: \x1b[31m\n\r\n",
    "1.1",
    200,
    "O\xffK",
    ((b"X", b"\x1b[31m"),),
    BodyFraming.LENGTH,
    5,
    notes=("a line ends in a bare LF",),
)
SESSION = {
    "version": "TLSv1.3",
    "cipher": "AES",
    "subject": "CN=h",
    "issuer": "CN=ca",
    "names": ["h"],
    "expires": "2030-01-01T00:00:00+00:00",
}


def tell(account: Account) -> None:
    """All that happens in a fetch with a redirect."""
    account.resolved("h", ["192.0.2.1"])
    account.asked(Url.parse("https://h/"), REQUEST)
    account.connected("192.0.2.2:1", "192.0.2.1:443")
    account.sent(REQUEST)
    account.secured(dict(SESSION))
    account.received(b"x" * 10)
    account.interim_came(InterimCame(b"HTTP/1.1 103 Early\r\n\r\n", 103))
    account.head_came(HEAD)
    account.closed("the peer closed")
    account.redirected(Url.parse("https://h/b"))
    account.resolved("h", [])
    account.asked(Url.parse("https://h/b"), REQUEST + b"body")
    account.connected("192.0.2.2:2", "192.0.2.1:443")
    account.secured({"version": "TLSv1.2", "cipher": "DES"})
    account.sent(REQUEST + b"body")
    account.received(b"y" * 3)
    account.received(b"y" * 4)
    account.head_came(HEAD)
    account.ended(ResponseEnded(((b"T", b"u\x07"),)), b"behind\x1b")
    account.closed("the peer closed")


class AccountTests(SynchronousTestCase):
    """The account of a fetch is JSON, and loses nothing."""

    def report(self, error: Exception | None = None) -> dict[str, Any]:
        account = Account("https://h/")
        tell(account)
        status = 18 if error else 0
        text = json.dumps(account.report(status, error, "place", 7))
        loaded: dict[str, Any] = json.loads(text)
        return loaded

    def test_outcome(self) -> None:
        """It says how the fetch ended."""
        report = self.report()
        self.assertEqual(report["url"], "https://h/")
        self.assertEqual((report["exit_status"], report["error"]), (0, None))
        self.assertEqual((report["saved"], report["body_bytes"]), ("place", 7))
        self.assertGreaterEqual(report["seconds"], 0)

    def test_failure(self) -> None:
        """It names what went wrong."""
        report = self.report(BodyCutShort(3, 5))
        self.assertEqual(report["exit_status"], 18)
        self.assertEqual(report["error"]["type"], "BodyCutShort")
        self.assertEqual(
            report["error"]["message"], "the body was cut short: 3 of 5 bytes came"
        )

    def test_exchanges(self) -> None:
        """There is one for each request, with both ends and what came."""
        first, second = self.report()["exchanges"]
        self.assertEqual(first["url"], "https://h/")
        self.assertEqual(second["url"], "https://h/b")
        self.assertEqual((first["resolved"], second["resolved"]), (["192.0.2.1"], []))
        self.assertEqual(first["local"], "192.0.2.2:1")
        self.assertEqual(first["peer"], "192.0.2.1:443")
        self.assertEqual(first["tls"], SESSION)
        self.assertEqual((first["bytes_received"], second["bytes_received"]), (10, 7))
        self.assertEqual(second["bytes_behind"], 7)
        self.assertEqual(first["interim"][0]["status"], 103)
        self.assertEqual(second["response"]["trailers"], [["T", "u\x07"]])
        self.assertEqual(second["closed"], "the peer closed")

    def test_bytes(self) -> None:
        """Bytes are spelled as Latin-1, and come back."""
        first, second = self.report()["exchanges"]
        self.assertEqual(first["response"]["head"].encode("latin-1"), HEAD.raw)
        self.assertEqual(second["request"].encode("latin-1"), REQUEST + b"body")
        self.assertEqual(first["response"]["headers"], [["X", "\x1b[31m"]])
        self.assertEqual(first["response"]["framing"], "content-length")
        self.assertEqual(first["response"]["length"], 5)
        self.assertEqual(first["response"]["notes"], ["a line ends in a bare LF"])

    def test_any_byte(self) -> None:
        """There is no byte that does not come back."""
        every = bytes(range(256))
        account = Account("http://h/")
        account.asked(Url.parse("http://h/"), every)
        account.interim_came(InterimCame(every, 103))
        account.head_came(replace(HEAD, raw=every, headers=((b"X", every),)))
        account.ended(ResponseEnded(((b"T", every),)), b"")
        (exchange,) = json.loads(json.dumps(account.report(0, None, None, 0)))[
            "exchanges"
        ]
        response = exchange["response"]
        for text in (
            exchange["request"],
            exchange["interim"][0]["head"],
            response["head"],
            response["headers"][0][1],
            response["trailers"][0][1],
        ):
            self.assertEqual(text.encode("latin-1"), every)

    def test_keys(self) -> None:
        """It has what the page about it names, and nothing more."""
        report = self.report()
        self.assertEqual(
            " ".join(report),
            "url exit_status error saved body_bytes seconds exchanges",
        )
        for exchange in report["exchanges"]:
            self.assertEqual(
                " ".join(exchange),
                "url resolved local peer tls request interim response"
                " bytes_received bytes_behind closed seconds",
            )
            self.assertEqual(
                " ".join(exchange["response"]),
                "version status reason headers head framing length notes trailers",
            )

    def test_nothing_happened(self) -> None:
        """A fetch that did not get far has an exchange all the same, and says so."""
        account = Account("http://a b/")
        (exchange,) = account.report(3, None, None, 0)["exchanges"]
        self.assertEqual(exchange["url"], "http://a b/")
        self.assertEqual((exchange["request"], exchange["response"]), (None, None))
        self.assertEqual((exchange["bytes_received"], exchange["seconds"]), (0, {}))

    def test_quiet(self) -> None:
        """Nothing is said of it."""
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        tell(Account("http://h/"))
        self.assertEqual(stderr.getvalue(), "")

    def test_first_moment(self) -> None:
        """A phase is when it first was, since its exchange began."""
        now = [100.0]
        self.patch(time, "monotonic", lambda: now[0])
        account = Account("http://h/")
        for at in (101.5, 103.0):
            now[0] = at
            account.received(b"x")
        now[0] = 104.0
        account.redirected(Url.parse("http://h/b"))
        now[0] = 104.25
        account.received(b"x")
        report = account.report(0, None, None, 0)
        first, second = report["exchanges"]
        self.assertEqual(first["seconds"], {"first_byte": 1.5})
        self.assertEqual(second["seconds"], {"first_byte": 0.25})
        self.assertEqual(report["seconds"], 4.25)

    def test_seconds(self) -> None:
        """Each phase has its moment, in order."""
        _, second = self.report()["exchanges"]
        phases = "resolved connected secured sent first_byte head complete closed"
        self.assertEqual(list(second["seconds"]), phases.split())
        moments = list(second["seconds"].values())
        self.assertEqual(moments, sorted(moments))


class NarratedTests(SynchronousTestCase):
    """The conversation is told as it goes."""

    def setUp(self) -> None:
        self.stderr = io.StringIO()
        self.patch(sys, "stderr", self.stderr)

    def test_told(self) -> None:
        """Requests, heads, addresses, TLS, trailers and phases, escaped."""
        narrated = Narrated("https://h/")
        tell(narrated)
        told = self.stderr.getvalue()
        for line in (
            "* resolved h: 192.0.2.1",
            "* resolved h: no address",
            "* connected from 192.0.2.2:1 to 192.0.2.1:443",
            "* TLSv1.3, AES",
            "* certificate of CN=h, for h",
            "* signed by CN=ca, until 2030-01-01T00:00:00+00:00",
            "> GET / HTTP/1.1",
            "> Host: h",
            "> ",
            "* sent a body of 4 bytes",
            "< HTTP/1.1 103 Early",
            "< HTTP/1.1 200 O\\xffK",
            "< X: \\x1b[31m",
            "* a line ends in a bare LF",
            "* the body's framing: content-length 5",
            "* redirected to https://h/b",
            "< T: u\\x07",
            "* behind the end came 7 bytes: b'behind\\x1b'",
            "* closed: the peer closed; 7 bytes came",
        ):
            self.assertIn(f"{line}\n", told)
        self.assertIn("* seconds: resolved ", told)
        self.assertNotIn("\x1b", told)
        self.assertNotIn("\x07", told)
        self.assertEqual(len(narrated.exchanges), 2)

    def test_nothing_odd(self) -> None:
        """A plain response has no notes, trailers or rest."""
        narrated = Narrated("http://h/")
        narrated.sent(b"GET / HTTP/1.1\n\n")
        narrated.head_came(HeadCame(b"HTTP/1.1 204 N\r\n\r\n", "1.1", 204, "N", ()))
        narrated.ended(ResponseEnded(), b"")
        told = self.stderr.getvalue()
        self.assertIn("> GET / HTTP/1.1\n> \n", told)
        self.assertIn("* the body's framing: close\n", told)
        self.assertNotIn("behind", told)

    def test_one_line_each(self) -> None:
        """What a peer's certificate or response holds cannot make up a line."""
        narrated = Narrated("https://h/")
        forged = "h\n* all is well\r\n< HTTP/1.1 200 OK"
        narrated.secured(
            {**SESSION, "subject": forged, "issuer": forged, "names": [forged]}
        )
        self.assertEqual(len(self.stderr.getvalue().splitlines()), 3)

    def test_unusual_certificate(self) -> None:
        """A certificate for nobody is said to be one."""
        Narrated("https://h/").secured({**SESSION, "subject": "", "names": []})
        self.assertIn("* certificate of nobody, for no name\n", self.stderr.getvalue())

    def test_phases(self) -> None:
        """The phases' seconds are told where the exchange ends."""
        now = [0.0]
        self.patch(time, "monotonic", lambda: now[0])
        narrated = Narrated("http://h/")
        now[0] = 0.25
        narrated.connected("192.0.2.2:1", "192.0.2.1:80")
        now[0] = 1.5
        narrated.closed("it was reset")
        *_, seconds, closed = self.stderr.getvalue().splitlines()
        self.assertEqual(seconds, "* seconds: connected 0.250000, closed 1.500000")
        self.assertEqual(closed, "* closed: it was reset; 0 bytes came")

    def test_much_behind(self) -> None:
        """Of many bytes behind the end, the first are shown and all are counted."""
        narrated = Narrated("http://h/")
        narrated.head_came(HEAD)
        narrated.ended(ResponseEnded(), b"x" * 1000)
        self.assertIn(
            f"* behind the end came 1000 bytes: {b'x' * 64!r} and 936 bytes more\n",
            self.stderr.getvalue(),
        )

    def test_odd_lines(self) -> None:
        """A head's lines are told one by one: a bare LF, a bare CR, no last end."""
        narrated = Narrated("http://h/")
        narrated.sent(b"GET /\na\rb\r\nc: \xc3\xa9\x9b")
        self.assertEqual(self.stderr.getvalue(), "> GET /\n> a\\rb\n> c: \u00e9\\x9b\n")
