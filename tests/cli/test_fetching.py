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

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from sockproto import fetching
from sockproto.cli import console, fetching as command
from sockproto.cli.account import Narrated
from sockproto.cli.console import Output
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
from sockproto.fetching import Saving
from sockproto.wire.request import method_of
from sockproto.wire.response import BodyFraming, HeadCame
from tests.cli.fetch_options import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HEAD = HeadCame(
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "1.1",
    200,
    "OK",
    ((b"Content-Length", b"5"),),
    BodyFraming.LENGTH,
    5,
)
CODED = replace(HEAD, headers=(*HEAD.headers, (b"Content-Encoding", b"gzip")))
CHUNKED = HeadCame(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "1.1",
    200,
    "OK",
    ((b"Transfer-Encoding", b"chunked"),),
    BodyFraming.CHUNKED,
)
REFUSAL = HeadCame(b"HTTP/1.1 404 No\r\n\r\n", "1.1", 404, "No", ())


class Terminal(io.StringIO):
    """A standard error that somebody looks at."""

    def isatty(self) -> bool:
        return True


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

    def test_passed_on(self) -> None:
        """What needs no reading goes to the argument that means it."""
        for option, argument, value in (
            ("method", "method", "PUT"),
            ("location", "follow", True),
            ("max_redirs", "max_redirects", 0),
            ("compressed", "decompress", True),
            ("raw", "raw", True),
            ("max_filesize", "max_body", 0),
            ("timeout", "timeout", 1.5),
            ("connect_timeout", "connect_timeout", 2.5),
            ("max_time", "max_time", 3.5),
            ("family", "family", 6),
            ("unix_socket", "unix_socket", "path"),
            ("cacert", "trust_root", "ca.pem"),
        ):
            changed = {**self.arguments(), argument: value}
            self.assertEqual(self.arguments(**{option: value}), changed, option)
        self.assertFalse(self.arguments(insecure=True)["verify"])

    def test_head(self) -> None:
        """-I is HEAD, and nothing else."""
        self.assertEqual(self.arguments(head=True)["method"], "HEAD")
        for name, options in (("-X", {"method": "PUT"}), ("-d", {"data": ("a",)})):
            error = self.assertRaises(
                SettingError, self.arguments, head=True, **options
            )
            self.assertEqual(error.name, name)
            self.assertEqual(
                str(error),
                f"{name} is {error.seen!r}, where nothing beside -I, which is HEAD,"
                " is allowed",
            )

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

    def test_input_not_read(self) -> None:
        """Standard input that cannot be read is called that."""

        def refuse() -> bytes:
            raise IsADirectoryError(21, "Is a directory")

        self.patch(command, "read_input", refuse)
        for options in ({"data": ("@-",)}, {"raw_request": "-"}):
            error = self.assertRaises(CannotRead, self.arguments, **options)
            self.assertEqual(str(error), "cannot read standard input: is a directory")
            self.assertEqual(error.exit_status, 26)

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

    def test_resolve_no_host(self) -> None:
        """What is no host is the option's error, and never taken for another."""
        for host in ("a b", "a\n", "*", "a/b", "a?b", "a#b", "u@a", "[zz]", "\udcff"):
            text = f"{host}:80:192.0.2.1"
            try:
                taken = self.arguments(resolve=(text,))["resolve"]
            except SettingError as error:
                self.assertEqual((error.name, error.seen), ("--resolve", text))
            except UrlMalformed as error:
                self.fail(f"{error}, and not what is wrong with --resolve")
            else:
                self.fail(f"{text!r} is taken for {taken}")

    def test_raw_request(self) -> None:
        """A file's bytes are sent as they are, and nothing is beside them."""
        Path("raw").write_bytes(b"HEAD / HTTP/1.1\n\n")
        raw = self.arguments(raw_request="raw")["raw_request"]
        self.assertEqual(raw, b"HEAD / HTTP/1.1\n\n")
        self.assertEqual(method_of(raw), "HEAD")
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

    def test_raw_request_alone(self) -> None:
        """What is beside it is named, even if it is empty; a password is not told."""
        Path("raw").write_bytes(b"GET / HTTP/1.1\n\n")
        for name, options in (
            ("-A", {"user_agent": ""}),
            ("-X", {"method": ""}),
            ("-u", {"user": ""}),
            ("-u", {"user": "me:secret"}),
        ):
            self.patch(command, "stdin_is_terminal", lambda: False)
            try:
                self.arguments(raw_request="raw", **options)
            except SettingError as error:
                self.assertEqual(error.name, name)
                self.assertIn("nothing beside --raw-request", str(error))
                self.assertNotIn("secret", str(error))
            else:
                self.fail(f"{options} beside --raw-request")

    def test_raw_request_from_input(self) -> None:
        """A dash is standard input; what cannot be read is named."""
        pieces = [b"GET", b" /\n", b""]
        self.patch(command, "read_input", lambda: pieces.pop(0))
        self.assertEqual(self.arguments(raw_request="-")["raw_request"], b"GET /\n")
        error = self.assertRaises(CannotRead, self.arguments, raw_request="no")
        self.assertEqual(str(error), "cannot read 'no': no such file or directory")

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

    def test_too_many_outputs(self) -> None:
        """More of -o than URLs says how many there are, and how many may be."""
        options = replace(PLAIN, outputs=("a", "b"))
        error = self.assertRaises(SettingError, command._outputs, options)
        self.assertEqual(
            str(error), "-o is 2, where at most one a URL, 1 in all, is allowed"
        )
        self.assertEqual(error.exit_status, 2)


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

    def test_replaces_or_not(self) -> None:
        """-o replaces what is there; a name of the URL's has a number put to it."""
        for output, place, left in ((None, "a.1", b"old"), ("a", "a", b"hello")):
            Path("a").write_bytes(b"old")
            body = self.body(output)
            body.begin(HEAD)
            body.write(b"hello")
            self.assertEqual(Path(body.complete() or "").name, place)
            self.assertEqual(Path("a").read_bytes(), left)

    def test_malformed_url(self) -> None:
        """Without a URL there is no name; with -o none is needed yet."""
        self.assertRaises(UrlMalformed, self.body, urls=("http://a b/",))
        self.body("x", urls=("http://a b/",))

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

    def test_fail_from_400_on(self) -> None:
        """-f minds 400 and above; without it, no status is minded."""
        self.body("x", fail=True).begin(replace(HEAD, status=399))
        body = self.body("y", fail=True)
        self.assertRaises(StatusRefused, body.begin, replace(HEAD, status=400))
        self.body("z").begin(REFUSAL)

    def test_fail_keeps_what_was(self) -> None:
        """A refusal replaces nothing."""
        Path("x").write_bytes(b"old")
        body = self.body("x", fail=True)
        self.assertRaises(StatusRefused, body.begin, REFUSAL)
        self.assertIsNone(body.give_up())
        self.assertEqual(Path("x").read_bytes(), b"old")

    def test_nothing_came(self) -> None:
        """Before its head has come there is nothing to keep."""
        self.assertIsNone(self.body("x").give_up())
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

    def test_method_head(self) -> None:
        """-X HEAD has no body either, and empties no file."""
        Path("x").write_bytes(b"old")
        body = self.body("x", method="HEAD")
        body.begin(HEAD)
        self.assertIsNone(body.complete())
        self.assertEqual(Path("x").read_bytes(), b"old")

    def test_escaped(self) -> None:
        """A terminal gets head and body with what it would obey escaped."""
        self.stdout.is_terminal = True
        body = self.body("-", include=True)
        body.begin(replace(HEAD, raw=b"HTTP/1.1 200 \x9b\r\n\r\n"))
        body.write(b"\x1b[2Jh\xc3")
        body.write(b"\xa9\xff\n")
        body.complete()
        self.assertEqual(
            self.shown().decode(), "HTTP/1.1 200 \\x9b\n\n\\x1b[2Jhé\\xff\n"
        )

    def test_kept(self) -> None:
        """What came of a body that is not whole is kept, and said."""
        body = self.body("x")
        body.begin(HEAD)
        body.write(b"he")
        said = body.give_up()
        self.assertEqual(said, f"what came is kept as {str(self.folder / 'x.part')!r}")
        self.assertEqual(Path("x.part").read_bytes(), b"he")

    def watched(self, output: str, *heads: HeadCame, **options: Any) -> list[str]:
        """What standard error has after a second of a body with each head."""
        told = []
        for head in heads:
            now = [0.0]
            self.patch(time, "monotonic", lambda now=now: now[0])
            sys.stderr.seek(0)
            sys.stderr.truncate()
            body = self.body(output, **options)
            body.begin(head)
            body.write(b"h")
            self.assertEqual(self.read_stderr(), "")
            now[0] = 1.5
            body.write(b"e")
            told.append(self.read_stderr())
            body.write(b"llo")
            body.give_up()
            self.assertEqual(body.size, 5)
        return told

    def read_stderr(self) -> str:
        assert isinstance(sys.stderr, io.StringIO)
        return sys.stderr.getvalue()

    def test_progress(self) -> None:
        """On a terminal, what takes longer than a second has a bar."""
        self.patch(sys, "stderr", Terminal())
        for output in ("x", "-"):
            (told,) = self.watched(output, HEAD)
            self.assertIn("40%", told)
            self.assertIn("2.00/5.00", told)

    def test_progress_without_end(self) -> None:
        """A length that is not known, or not that of the decoded body, is not told."""
        self.patch(sys, "stderr", Terminal())
        for told in self.watched("x", CHUNKED, CODED, compressed=True):
            self.assertIn("2.00B", told)
            self.assertNotIn("%", told)
        (told,) = self.watched("x", CODED)
        self.assertIn("40%", told)

    def test_progress_taken_away(self) -> None:
        """The bar is gone before anything else is said."""
        self.patch(sys, "stderr", Terminal())
        now = [0.0]
        self.patch(time, "monotonic", lambda: now[0])
        for end in ("complete", "give_up"):
            body = self.body("x")
            body.begin(HEAD)
            now[0] += 1.5
            body.write(b"hello")
            self.assertIn("100%", self.read_stderr())
            getattr(body, end)()
            self.assertTrue(self.read_stderr().endswith("\r"), end)

    def test_no_progress(self) -> None:
        """No bar goes into a file, or into a body on the same terminal."""
        self.assertEqual(self.watched("x", HEAD), [""])
        self.patch(sys, "stderr", Terminal())
        self.stdout.is_terminal = True
        self.assertEqual(self.watched("-", HEAD), [""])


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
        self.interrupted: list[Callable[[], str | None]] = []
        self.patch(command, "on_interrupt", self.interrupted.append)
        self.patch(command, "run", self._drive)

    def _fetch(self, reactor: Any, url: str, **options: Any) -> Deferred[None]:
        self.asked.append((url, options))
        answer = self.answers.pop(0)
        if isinstance(answer, UrlMalformed):
            raise answer
        if callable(answer):  # it has its own way with sink and observer
            return succeed(answer(options["to"], options["observer"]))
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

    def test_one_url(self) -> None:
        """A URL that is alone is not named, and the error is the last line."""
        self.assertEqual(self.fetch(BodyCutShort(2, 5), outputs=("x",)), 18)
        *_, last = self.stderr.getvalue().splitlines()
        self.assertEqual(
            last, "sockproto: fetch: the body was cut short: 2 of 5 bytes came (18)"
        )

    def test_one_line(self) -> None:
        """Whatever is in a URL, its error is one line that a terminal may have."""
        self.fetch(urls=("http://h/\x1b[2J\na\u2028b", "http://\x1b\n/"))
        told = self.stderr.getvalue()
        self.assertEqual(len(told.splitlines()), 2, told)
        self.assertNotIn("\x1b", told)
        self.assertEqual(self.status, 3)

    def test_password_not_told(self) -> None:
        """An error that names the URL does not tell the password in it."""
        self.fetch(
            NotConnected("h:80", "refused"),
            b"",
            urls=("http://u:secret@h/", "http://h"),
        )
        told = self.stderr.getvalue()
        self.assertIn("http://", told)
        self.assertNotIn("secret", told)

    def test_places(self) -> None:
        """Each URL has its own place; a dash holds for those after it."""
        self.fetch(
            b"one", b"two", b"three", urls=("h/a", "h/b", "h/c"), outputs=("x", "-")
        )
        self.assertEqual(self.stderr.getvalue().count("saved to"), 1)
        self.assertEqual(Path("x").read_bytes(), b"one")
        self.assertEqual(self.shown(), HEAD.raw + b"twothree")

    def test_raw_head_request(self) -> None:
        """A request for a head, sent as it is, saves nothing."""
        Path("raw").write_bytes(b"\r\nHEAD / HTTP/1.1\n\n")
        self.fetch(lambda to, _: to.begin(HEAD), raw_request="raw")
        self.assertEqual(self.stderr.getvalue(), "")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["raw"])

    def test_interrupted(self) -> None:
        """Ctrl-C keeps what came, and says where; between two URLs, nothing."""
        said: list[str | None] = []

        def interrupt(to: command._Body, _: object) -> None:
            to.begin(HEAD)
            to.write(b"he")
            said.extend(callback() for callback in self.interrupted)
            raise BodyCutShort(2, 5)

        self.fetch(interrupt, outputs=("x",))
        said.extend(callback() for callback in self.interrupted)
        kept = str(self.folder / "x.part")
        self.assertEqual(said, [f"what came is kept as {kept!r}", None])

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

    def test_report_of_malformed_url(self) -> None:
        """A URL that nothing is asked for has its line too."""
        self.fetch(b"hello", urls=("http://a b/", "http://h/x"), report="r")
        first, second = map(json.loads, Path("r").read_text().splitlines())
        self.assertEqual((first["url"], first["exit_status"]), ("http://a b/", 3))
        self.assertEqual(first["error"]["type"], "UrlMalformed")
        self.assertEqual((first["body_bytes"], first["saved"]), (0, None))
        self.assertEqual(second["exit_status"], 0)

    def test_report_of_bytes(self) -> None:
        """All bytes of a head come back from the report's Latin-1."""
        raw = b"HTTP/1.1 200 " + bytes(range(128, 256)) + b"\r\n\r\n"

        def answer(to: command._Body, observer: Narrated) -> None:
            observer.head_came(replace(HEAD, raw=raw))
            raise BodyCutShort(2, 5)

        self.fetch(answer, report="r")
        text = Path("r").read_text("ascii")
        (exchange,) = json.loads(text)["exchanges"]
        self.assertEqual(exchange["response"]["head"].encode("latin-1"), raw)
        self.assertEqual(text.count("\n"), 1)

    def test_report_until_standard_output_is_gone(self) -> None:
        """It is written of what was asked for."""
        gone = CannotWrite("standard output", "broken pipe")
        self.fetch(gone, urls=("u", "v"), outputs=("-",), report="r")
        (line,) = Path("r").read_text().splitlines()
        self.assertEqual(json.loads(line)["exit_status"], 23)

    def test_report_whole_or_not(self) -> None:
        """A report that cannot be finished leaves the old one as it was."""
        Path("r").write_text("old")
        seen: list[str] = []

        def refuse(saving: Saving) -> str:
            seen.append(Path("r").read_text())
            raise CannotWrite("'r'", "no space left on device")

        self.patch(Saving, "complete", refuse)
        status = self.fetch(lambda to, _: to.begin(HEAD), head=True, report="r")
        self.assertEqual(status, 23)
        self.assertEqual(seen, ["old"])
        self.assertEqual(Path("r").read_text(), "old")
        self.assertEqual(
            self.stderr.getvalue(),
            "sockproto: fetch: cannot write to 'r': no space left on device (23)\n",
        )

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


class ExchangeTests(FolderTests):
    """The command over a connection in memory, from the request to the report."""

    def exchange(self, response: bytes, **options: Any) -> tuple[bytes, int]:
        """What is sent for one URL that is answered by this; the exit status."""
        sent: list[bytes] = []
        statuses: list[int] = []

        def drive(
            name: str, main: Callable[[Any, Output], Coroutine[Any, Any, int]]
        ) -> None:
            reactor = MemoryReactorClock()
            running = Deferred.fromCoroutine(main(reactor, self.stdout))
            running.addCallback(statuses.append)
            _, _, factory, *_ = reactor.tcpClients[0]
            transport = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 80))
            protocol: Any = factory.buildProtocol(transport.getPeer())
            protocol.makeConnection(transport)
            protocol.dataReceived(response)
            protocol.connectionLost(Failure(ConnectionDone()))
            sent.append(transport.value())
            self.assertEqual(reactor.getDelayedCalls(), [])

        self.patch(command, "run", drive)
        self.patch(command, "on_interrupt", lambda callback: None)
        fetch: Any = command.fetch
        fetch(replace(PLAIN, **options))
        return sent[0], statuses[0]

    def test_whole(self) -> None:
        """What was sent and received is shown, saved, told and accounted for."""
        head = b"HTTP/1.1 200 \xe9\r\nContent-Length: 5\r\n\r\n"
        sent, status = self.exchange(
            head + b"hello, more",
            urls=("http://192.0.2.1/a",),
            headers=("Accept:", "X: y"),
            verbose=True,
            report="r",
        )
        self.assertEqual(status, 0)
        self.assertTrue(sent.startswith(b"GET /a HTTP/1.1\r\nHost: 192.0.2.1\r\n"))
        self.assertTrue(sent.endswith(b"\r\nX: y\r\n\r\n"))
        self.assertNotIn(b"Accept", sent)
        self.assertEqual(self.shown(), head)
        self.assertEqual(Path("a").read_bytes(), b"hello")
        report = json.loads(Path("r").read_text())
        (exchange,) = report["exchanges"]
        self.assertEqual((report["saved"], report["body_bytes"]), ("a", 5))
        self.assertEqual(exchange["request"].encode("latin-1"), sent)
        self.assertEqual(exchange["response"]["head"].encode("latin-1"), head)
        self.assertEqual(exchange["bytes_received"], len(head) + 11)
        self.assertEqual(exchange["bytes_behind"], 6)
        self.assertEqual(exchange["peer"], "192.0.2.1:80")
        told = self.stderr.getvalue()
        for line in (
            "> GET /a HTTP/1.1",
            "< HTTP/1.1 200 \\xe9",
            "* behind the end came 6 bytes: b', more'",
            "saved to 'a'",
        ):
            self.assertIn(f"{line}\n", told)

    def test_cut_short(self) -> None:
        """Half a body is 18, in a part of its own, and accounted for."""
        _, status = self.exchange(
            HEAD.raw + b"he", urls=("http://192.0.2.1/a",), report="r"
        )
        self.assertEqual(status, 18)
        self.assertEqual(Path("a.part").read_bytes(), b"he")
        self.assertFalse(Path("a").exists())
        report = json.loads(Path("r").read_text())
        self.assertEqual((report["exit_status"], report["saved"]), (18, None))
        (exchange,) = report["exchanges"]
        self.assertEqual(exchange["response"]["status"], 200)
        self.assertNotIn("complete", exchange["seconds"])
