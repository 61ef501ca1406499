"""
What the options of `fetch` come to, and where its bodies go.
"""

from __future__ import annotations

import getpass
import io
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from sockproto import fetching
from sockproto.cli import console, fetching as command
from sockproto.cli.account import Narrated
from sockproto.cli.console import Output
from sockproto.cli.fetching import FetchOptions
from sockproto.errors import (
    BodyCutShort,
    CannotRead,
    CannotWrite,
    HeaderNotSendable,
    NotConnected,
    SettingError,
    StatusRefused,
    UrlMalformed,
)
from sockproto.wire.response import BodyFraming, HeadCame

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PLAIN = FetchOptions(
    urls=("http://h/a",),
    outputs=(),
    remote_name=False,
    include=False,
    head=False,
    verbose=False,
    headers=(),
    method=None,
    data=(),
    user=None,
    user_agent=None,
    location=False,
    max_redirs=20,
    fail=False,
    insecure=False,
    cacert=None,
    family=None,
    resolve=(),
    unix_socket=None,
    timeout=60.0,
    connect_timeout=None,
    max_time=None,
    max_filesize=None,
    compressed=False,
    raw=False,
    raw_request=None,
    report=None,
)

HEAD = HeadCame(
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "1.1",
    200,
    "OK",
    ((b"Content-Length", b"5"),),
    BodyFraming.LENGTH,
    5,
)
REFUSAL = HeadCame(b"HTTP/1.1 404 No\r\n\r\n", "1.1", 404, "No", ())


class FolderTests(SynchronousTestCase):
    """What the tests share: a folder to be in, and standard error."""

    def setUp(self) -> None:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name).resolve()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        self.stderr = io.StringIO()
        self.patch(sys, "stderr", self.stderr)
        reader, self._writer = os.pipe()
        self.stdout = Output(self._writer)
        self._reader = reader
        self.addCleanup(os.close, reader)
        self.addCleanup(self._end_stdout)

    def _end_stdout(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def shown(self) -> bytes:
        """What went to standard output."""
        self._end_stdout()
        return b"".join(iter(lambda: os.read(self._reader, 65536), b""))


class ArgumentTests(FolderTests):
    """Options become the arguments of the function."""

    def arguments(self, **options: Any) -> dict[str, Any]:
        return command._arguments(replace(PLAIN, **options))

    def test_plain(self) -> None:
        """Without options there is a GET that is silent for a minute at most."""
        arguments = self.arguments()
        self.assertIsNone(arguments["method"])
        self.assertIsNone(arguments["body"])
        self.assertIsNone(arguments["user"])
        self.assertEqual((arguments["headers"], arguments["timeout"]), ([], 60.0))
        self.assertEqual((arguments["follow"], arguments["verify"]), (False, True))

    def test_head(self) -> None:
        """-I is HEAD, and nothing else."""
        self.assertEqual(self.arguments(head=True)["method"], "HEAD")
        for name, options in (("-X", {"method": "PUT"}), ("-d", {"data": ("a",)})):
            error = self.assertRaises(
                SettingError, self.arguments, head=True, **options
            )
            self.assertEqual(error.name, name)

    def test_headers(self) -> None:
        """As with curl: replaced, left out, empty; -A is one of them."""
        given = self.arguments(
            headers=("A: b", "Accept:", "X;", "C:d:e"), user_agent="me"
        )["headers"]
        self.assertEqual(
            given,
            [
                ("A", " b"),
                ("Accept", None),
                ("X", ""),
                ("C", "d:e"),
                ("User-Agent", "me"),
            ],
        )
        self.assertEqual(
            self.arguments(user_agent="")["headers"], [("User-Agent", None)]
        )
        for header in ("", ":", "a", " : b", ";"):
            self.assertRaises(HeaderNotSendable, self.arguments, headers=(header,))

    def test_data(self) -> None:
        """Pieces are joined by an ampersand; a file's bytes are not touched."""
        Path("file").write_bytes(b"\r\n\0\xff")
        body = self.arguments(data=("a=b", "@file", "\udcff"))["body"]
        self.assertEqual(body, b"a=b&\r\n\0\xff&\xff")
        error = self.assertRaises(CannotRead, self.arguments, data=("@missing",))
        self.assertEqual(str(error), "cannot read 'missing': no such file or directory")

    def test_data_from_input(self) -> None:
        """@- is standard input."""
        pieces = [b"a", b"b", b""]
        self.patch(command, "read_input", lambda: pieces.pop(0))
        self.assertEqual(self.arguments(data=("@-",))["body"], b"ab")

    def test_user(self) -> None:
        """A password that is missing is asked for, where somebody can be asked."""
        self.assertEqual(self.arguments(user="a:b")["user"], "a:b")
        self.patch(command, "stdin_is_terminal", lambda: False)
        self.assertRaises(SettingError, self.arguments, user="a")
        self.patch(command, "stdin_is_terminal", lambda: True)
        self.patch(getpass, "getpass", lambda prompt: "secret")
        self.assertEqual(self.arguments(user="a")["user"], "a:secret")

        def ended(prompt: str) -> str:
            raise EOFError

        self.patch(getpass, "getpass", ended)
        self.assertRaises(SettingError, self.arguments, user="a")

    def test_resolve(self) -> None:
        """Host and port lead to addresses, in brackets or not."""
        resolve = self.arguments(
            resolve=(
                "A.b:80:192.0.2.1,[2001:db8::1]",
                "[::1]:443:2001:db8::2",
                "b\xfccher.example:80:192.0.2.3",
            )
        )["resolve"]
        self.assertEqual(
            resolve,
            {
                ("a.b", 80): ["192.0.2.1", "2001:db8::1"],
                ("::1", 443): ["2001:db8::2"],
                ("xn--bcher-kva.example", 80): ["192.0.2.3"],
            },
        )
        for text in (
            "",
            "a",
            "a:80",
            "a:80:",
            "a:0:192.0.2.1",
            "a:65536:192.0.2.1",
            "a:123456:192.0.2.1",
        ):
            self.assertRaises(SettingError, self.arguments, resolve=(text,))
        endless = f"a:{'1' * 5000}:192.0.2.1"
        self.assertRaises(SettingError, self.arguments, resolve=(endless,))
        error = self.assertRaises(SettingError, self.arguments, resolve=("a:80:b",))
        self.assertEqual(
            str(error),
            "--resolve is 'a:80:b', where HOST:PORT:ADDRESS[,ADDRESS] is allowed",
        )

    def test_raw_request(self) -> None:
        """A file's bytes are sent as they are, and nothing is beside them."""
        Path("raw").write_bytes(b"HEAD / HTTP/1.1\n\n")
        raw = self.arguments(raw_request="raw")["raw_request"]
        self.assertEqual(raw, b"HEAD / HTTP/1.1\n\n")
        self.assertTrue(command._asks_head(raw))
        self.assertFalse(command._asks_head(None))
        self.assertFalse(command._asks_head(b"HEADS / HTTP/1.1\n\n"))
        for options in (
            {"headers": ("a: b",)},
            {"method": "PUT"},
            {"data": ("a",)},
            {"head": True},
            {"user": "a:b"},
            {"user_agent": "a"},
            {"location": True},
        ):
            self.assertRaises(
                SettingError, self.arguments, raw_request="raw", **options
            )

    def test_outputs(self) -> None:
        """An -o for each URL; a last dash for those after it."""
        two = ("a", "b")
        for given, more, expected in (
            ((), {}, [None, None]),
            (("x",), {}, ["x", None]),
            (("x", "y"), {}, ["x", "y"]),
            (("-",), {}, ["-", "-"]),
            (("-",), {"remote_name": True}, ["-", None]),
            (("x", "-"), {}, ["x", "-"]),
        ):
            options = replace(PLAIN, urls=two, outputs=given, **more)  # type: ignore[arg-type]
            self.assertEqual(command._outputs(options), expected)
        for options in (
            replace(PLAIN, outputs=("a", "b")),
            replace(PLAIN, outputs=("",)),
            replace(PLAIN, outputs=("-",), report="-"),
        ):
            self.assertRaises(SettingError, command._outputs, options)


class BodyTests(FolderTests):
    """A body goes where it was wanted, and its head is shown."""

    def body(self, output: str | None = None, **options: Any) -> command._Body:
        chosen = replace(PLAIN, **options)
        return command._Body(chosen, output, chosen.urls[0], self.stdout)

    def test_named_after_url(self) -> None:
        """The head is shown, the body saved under the URL's last segment."""
        body = self.body()
        body.begin(HEAD)
        body.write(b"hello")
        self.assertEqual(body.complete(), "a")
        self.assertEqual(self.shown(), HEAD.raw)
        self.assertEqual(Path("a").read_bytes(), b"hello")

    def test_standard_output(self) -> None:
        """The body alone, or with -i its head before it."""
        for include in (False, True):
            body = self.body("-", include=include)
            body.begin(HEAD)
            body.write(b"hello")
            self.assertIsNone(body.complete())
            self.assertIsNone(body.give_up())
        self.assertEqual(self.shown(), b"hello" + HEAD.raw + b"hello")

    def test_report_in_place_of_head(self) -> None:
        """Where the report goes to standard output, the head does not."""
        body = self.body(report="-")
        body.begin(HEAD)
        self.assertEqual(self.shown(), b"")

    def test_fail(self) -> None:
        """With -f the head of a refusal is shown, and nothing is saved."""
        body = self.body(fail=True)
        error = self.assertRaises(StatusRefused, body.begin, REFUSAL)
        self.assertEqual((error.status, error.exit_status), (404, 22))
        self.assertIsNone(body.give_up())
        self.assertEqual(self.shown(), REFUSAL.raw)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_head_only(self) -> None:
        """For HEAD no file is made."""
        body = self.body(head=True)
        body.begin(HEAD)
        self.assertIsNone(body.complete())
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_head_only_to_standard_output(self) -> None:
        """The head is all there is, and is shown without being asked for."""
        self.body("-", head=True).begin(HEAD)
        self.assertEqual(self.shown(), HEAD.raw)

    def test_kept(self) -> None:
        """What came of a body that is not whole is kept, and said."""
        body = self.body("x")
        body.begin(HEAD)
        body.write(b"he")
        said = body.give_up()
        self.assertEqual(said, f"what came is kept as {str(self.folder / 'x.part')!r}")
        self.assertEqual(Path("x.part").read_bytes(), b"he")

    def test_progress(self) -> None:
        """On a terminal, what takes longer than a second has a bar."""

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        terminal = Terminal()
        self.patch(sys, "stderr", terminal)
        now = [0.0]
        self.patch(time, "monotonic", lambda: now[0])
        body = self.body("x")
        body.begin(HEAD)
        body.write(b"h")
        self.assertEqual(terminal.getvalue(), "")
        now[0] = 1.5
        body.write(b"e")
        self.assertIn("5.00", terminal.getvalue())
        body.write(b"llo")
        self.assertTrue(body.complete())
        self.assertEqual(Path("x").read_bytes(), b"hello")


class CommandTests(FolderTests):
    """The command fetches one URL after the other."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(console, "_STDOUT", self._writer)
        self.answers: list[Any] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.patch(fetching, "fetch", self._fetch)
        self.status: int | None = None
        self.error: BaseException | None = None
        self.patch(command, "run", self._drive)

    def _fetch(self, reactor: Any, url: str, **options: Any) -> Deferred[None]:
        self.asked.append((url, options))
        answer = self.answers.pop(0)
        if isinstance(answer, UrlMalformed):
            raise answer
        options["to"].begin(HEAD)
        if isinstance(answer, Exception):
            options["to"].write(b"he")
            return fail(answer)
        options["to"].write(answer)
        return succeed(None)

    def _drive(
        self, name: str, main: Callable[[Any, Output], Coroutine[Any, Any, int]]
    ) -> None:
        self.assertEqual(name, "fetch")
        running = Deferred.fromCoroutine(main(MemoryReactorClock(), self.stdout))
        results: list[Any] = []
        running.addBoth(results.append)
        outcome: Any = results.pop()
        self.error = getattr(outcome, "value", None)
        self.status = outcome if self.error is None else None

    def fetch(self, *answers: Any, **options: Any) -> int | None:
        """Run the command; each URL is answered by bytes, or an error."""
        self.answers[:] = answers
        fetch: Any = command.fetch  # that leaves the process, outside tests
        fetch(replace(PLAIN, **options))
        return self.status

    def test_saved(self) -> None:
        """It says where the body is."""
        self.assertEqual(self.fetch(b"hello"), 0)
        self.assertEqual(self.stderr.getvalue(), "saved to 'a'\n")
        self.assertEqual(self.shown(), HEAD.raw)

    def test_first_failure_counts(self) -> None:
        """Each URL is fetched; the status is the first failure's, each is told."""
        urls = ("http://h/a", "http://h/b", "http://h/c", "http://h/d")
        status = self.fetch(
            b"hello",
            BodyCutShort(2, 5),
            NotConnected("h:80", "refused"),
            b"again",
            urls=urls,
        )
        self.assertEqual(status, 18)
        told = self.stderr.getvalue()
        self.assertIn("sockproto: fetch: what came is kept as 'b.part'\n", told)
        self.assertIn(
            "sockproto: fetch: http://h/b: the body was cut short: 2 of 5 bytes came"
            " (18)\n",
            told,
        )
        self.assertIn(
            "sockproto: fetch: http://h/c: no connection to h:80: refused (7)\n", told
        )
        self.assertTrue(told.endswith("saved to 'd'\n"))

    def test_malformed_url(self) -> None:
        """A URL that is none is an error of its own."""
        status = self.fetch(b"hello", urls=("http://a b/", "http://h/x"))
        self.assertEqual(status, 3)
        self.assertEqual([url for url, _ in self.asked], ["http://h/x"])

    def test_standard_output_gone(self) -> None:
        """Where standard output takes nothing more, the rest is not asked for."""
        gone = CannotWrite("standard output", "broken pipe")
        self.assertEqual(self.fetch(gone, b"x", urls=("u", "v"), outputs=("-",)), 23)
        self.assertEqual(len(self.asked), 1)

    def test_wrong_option(self) -> None:
        """Nothing is asked for if an option is wrong."""
        self.fetch(outputs=("a", "b"))
        self.assertIsInstance(self.error, SettingError)
        self.assertEqual(self.asked, [])

    def test_report(self) -> None:
        """The report has a line for each URL, failures too, and replaces a file."""
        Path("r").write_text("old")
        self.fetch(b"hello", BodyCutShort(2, 5), urls=("u/a", "u/b"), report="r")
        lines = [json.loads(line) for line in Path("r").read_text().splitlines()]
        self.assertEqual([line["exit_status"] for line in lines], [0, 18])
        self.assertEqual([line["saved"] for line in lines], ["a", None])
        self.assertEqual([line["body_bytes"] for line in lines], [5, 2])
        self.assertEqual(lines[1]["error"]["type"], "BodyCutShort")

    def test_report_shown(self) -> None:
        """On standard output it is in the place of the head."""
        self.fetch(b"hello", report="-")
        self.assertEqual(json.loads(self.shown())["saved"], "a")

    def test_report_not_written(self) -> None:
        """A report that cannot be written is an error."""
        self.assertEqual(self.fetch(b"hello", report="no/such/folder"), 23)
        refused = BodyCutShort(2, 5)
        self.assertEqual(self.fetch(refused, report="no/such/folder"), 18)

    def test_verbose(self) -> None:
        """-v has somebody told of what happens."""
        self.fetch(b"hello", verbose=True)
        self.assertIsInstance(self.asked[0][1]["observer"], Narrated)
        self.fetch(b"hello")
        self.assertIsNone(self.asked[1][1]["observer"])
