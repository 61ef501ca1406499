"""
The command's arguments: help, defaults, what is wrong with them, and statuses.
"""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sockproto.cli import fetching, main, piping, serve, talking
from sockproto.version import __version__
from tests.cli.fetch_options import PLAIN

COMMANDS = ("connect", "echo", "fetch", "hello", "serve", "udp")


class Refusing(io.StringIO):
    """A standard output that takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, "it is refused")


class MainTests(SynchronousTestCase):
    """What every test runs: the command, with the streams of its own."""

    def setUp(self) -> None:
        self.stdout = io.StringIO()
        self.stderr = io.StringIO()
        self.patch(sys, "stdout", self.stdout)
        self.patch(sys, "stderr", self.stderr)

    def run_main(self, *arguments: str) -> object:
        """Run the command; returns its exit status."""
        self.patch(sys, "argv", ["sockproto", *arguments])
        exited: SystemExit = self.assertRaises(SystemExit, main)
        return exited.code


class HelpTests(MainTests):
    """What the command says of itself."""

    def test_help(self) -> None:
        """Help names each command, on standard output."""
        for option in ("-h", "--help"):
            self.assertEqual(self.run_main(option), 0)
            for command in COMMANDS:
                self.assertIn(f"\n  {command} ", self.stdout.getvalue())
            self.assertEqual(self.stderr.getvalue(), "")

    def test_version(self) -> None:
        """The version is one line."""
        self.assertEqual(self.run_main("--version"), 0)
        self.assertEqual(self.stdout.getvalue(), f"sockproto {__version__}\n")

    def test_shared(self) -> None:
        """What means the same everywhere is an option of each client."""
        for command in COMMANDS:
            if command != "serve":
                self.stdout.truncate(0)
                self.assertEqual(self.run_main(command, "--help"), 0)
                for option in ("-4", "-6", "-v, --verbose", "--timeout SECONDS"):
                    self.assertIn(option, self.stdout.getvalue())

    def test_no_command(self) -> None:
        """Without a command the help is an error, and on standard error."""
        self.assertEqual(self.run_main(), 2)
        self.assertEqual(self.stdout.getvalue(), "")
        for command in COMMANDS:
            self.assertIn(f"\n  {command} ", self.stderr.getvalue())

    def test_without_twisted(self) -> None:
        """Help and version answer without Twisted, which takes its time."""
        code = (
            "import sys; from sockproto.cli import main\n"
            "try: main()\n"
            "finally: assert 'twisted' not in sys.modules"
        )
        for option in ("--help", "--version"):
            subprocess.run(
                [sys.executable, "-c", code, option], check=True, capture_output=True
            )


class UsageTests(MainTests):
    """Arguments that mean nothing."""

    def refused(self, *arguments: str) -> str:
        """Status 2 and one line on standard error, which is returned."""
        self.assertEqual(self.run_main(*arguments), 2, arguments)
        self.assertEqual(self.stdout.getvalue(), "")
        said = self.stderr.getvalue()
        self.stderr.seek(0)
        self.stderr.truncate()
        self.assertRegex(said, r"\Asockproto: [^\n]+ \(2\)\n\Z")
        return said

    def test_group(self) -> None:
        """A command or an option that there is not, is named."""
        self.assertIn("'nonsense'", self.refused("nonsense"))
        self.assertIn("'--nonsense'", self.refused("--nonsense"))
        self.refused("-v", "hello")
        self.refused("hello", "-c")
        self.refused("fetch", "-o")

    def test_commands(self) -> None:
        """So is what a command has not, behind the command's name."""
        for arguments in (
            ("hello", "--nope"),
            ("hello", "--framing=auto"),
            ("hello", "--timeout=x"),
            ("hello", "--timeout=0"),
            ("hello", "--timeout=-1"),
            ("echo", "extra"),
            ("echo", "--crlf"),
            ("udp", "--tries=0"),
            ("udp", "--tries=1.5"),
            ("connect",),
            ("connect", "host"),
            ("connect", "host", "1", "extra"),
            ("connect", "-c", "a:1", "host", "1"),
            ("fetch",),
            ("fetch", "--max-redirs=-1", "u"),
            ("fetch", "--max-time=nan", "u"),
            ("fetch", "--max-filesize=x", "u"),
            ("fetch", "--max-filesize=-1", "u"),
            ("fetch", "--max-time=0", "u"),
            ("fetch", "--connect-timeout=inf", "u"),
            ("fetch", "--connect-timeout=-1", "u"),
            ("fetch", "--timeout=0", "u"),
            ("fetch", "-c", "h:1", "u"),
            ("fetch", "-x", "proxy", "u"),
        ):
            said = self.refused(*arguments)
            self.assertTrue(said.startswith(f"sockproto: {arguments[0]}: "), said)

    def test_no_value(self) -> None:
        """An option without its value is told behind the command's name, too."""
        for arguments in (("hello", "-c"), ("fetch", "u", "-u"), ("fetch", "-o")):
            said = self.refused(*arguments)
            self.assertIn(f"'{arguments[-1]}'", said)
            self.assertTrue(said.startswith(f"sockproto: {arguments[0]}: "), said)

    def test_says_what(self) -> None:
        """The error names the option, what was seen and what is allowed."""
        said = self.refused("hello", "--framing=auto")
        for word in ("--framing", "'auto'", "'chunk'", "'line'", "'netstring'"):
            self.assertIn(word, said)
        said = self.refused("udp", "--tries=0")
        for word in ("--tries", "0", "x>=1"):
            self.assertIn(word, said)
        for option, allowed in (
            ("--max-redirs", "x>=0"),
            ("--max-filesize", "x>=0"),
            ("--max-time", "x>0"),
            ("--connect-timeout", "x>0"),
        ):
            said = self.refused("fetch", f"{option}=-1", "u")
            for word in (option, "-1", allowed):
                self.assertIn(word, said)

    def test_not_a_number(self) -> None:
        """A timeout is a number of seconds, and "nan" is none."""

        def never(**options: Any) -> None:
            self.fail(f"it ran with {options}")

        self.patch(talking, "hello", never)
        self.refused("hello", "--timeout=nan")


class CallTests(MainTests):
    """What a command is given."""

    def called(self, module: Any, name: str, *arguments: str) -> dict[str, Any]:
        """The options with which a command is called."""
        seen: list[dict[str, Any]] = []
        self.patch(module, name, lambda **options: seen.append(options))
        self.assertEqual(self.run_main(*arguments), 0, self.stderr.getvalue())
        (options,) = seen
        return options

    def test_hello(self) -> None:
        """`hello` speaks to the tutorials' place, as the tutorials' client."""
        self.assertEqual(
            self.called(talking, "hello", "hello"),
            {
                "names": (),
                "address": "127.0.0.1:9999",
                "framing": "chunk",
                "family": None,
                "timeout": 30.0,
                "no_greeting": False,
                "verbose": False,
            },
        )
        options = self.called(
            talking, "hello", "hello", "-6", "-v", "-c", "h:1", "a", "--", "-b", "exit"
        )
        self.assertEqual(options["names"], ("a", "-b", "exit"))
        self.assertEqual(options["address"], "h:1")
        self.assertEqual(options["family"], 6)
        self.assertTrue(options["verbose"])

    def test_udp(self) -> None:
        """`udp` tries thrice, a second each."""
        self.assertEqual(
            self.called(talking, "udp", "udp", "-4", "a", ""),
            {
                "names": ("a", ""),
                "address": "127.0.0.1:9999",
                "answer": "Hello, NAME!",
                "family": 4,
                "timeout": 1.0,
                "tries": 3,
                "verbose": False,
            },
        )

    def test_echo(self) -> None:
        """`echo` waits for ever, unless told otherwise."""
        self.assertEqual(
            self.called(piping, "echo", "echo"),
            {
                "address": "127.0.0.1:10000",
                "family": None,
                "timeout": None,
                "verbose": False,
            },
        )

    def test_connect(self) -> None:
        """`connect` takes host and port as two arguments."""
        self.assertEqual(
            self.called(piping, "connect", "connect", "h", "smtp", "--timeout=0.5"),
            {
                "host": "h",
                "port": "smtp",
                "family": None,
                "timeout": 0.5,
                "crlf": False,
                "verbose": False,
            },
        )

    def test_fetch(self) -> None:
        """`fetch` takes curl's letters, and headers in order."""
        seen: list[fetching.FetchOptions] = []
        self.patch(fetching, "fetch", seen.append)
        for arguments in (
            ("fetch", "u"),
            (
                "fetch",
                "-H",
                "a: b",
                "-H",
                "c:d",
                "-LIfk",
                "-o",
                "x",
                "u",
                "v",
                "-X",
                "Y",
            ),
        ):
            self.assertEqual(self.run_main(*arguments), 0, self.stderr.getvalue())
        plain, much = seen
        self.assertEqual(plain, replace(PLAIN, urls=("u",)))
        self.assertEqual((much.urls, much.outputs), (("u", "v"), ("x",)))
        self.assertEqual((much.headers, much.method), (("a: b", "c:d"), "Y"))
        self.assertTrue(much.location and much.head and much.fail and much.insecure)

    def test_fetch_options(self) -> None:
        """Each option, short or long, is the field of its name."""
        seen: list[fetching.FetchOptions] = []
        self.patch(fetching, "fetch", seen.append)
        self.assertEqual(self.run_main("fetch", "u"), 0)
        plain = seen.pop()
        for arguments, field, value in (
            ("-o a --output -", "outputs", ("a", "-")),
            ("-O", "remote_name", True),
            ("--remote-name", "remote_name", True),
            ("-i", "include", True),
            ("--include", "include", True),
            ("-I", "head", True),
            ("--head", "head", True),
            ("-v", "verbose", True),
            ("--verbose", "verbose", True),
            ("-H a:b --header c;", "headers", ("a:b", "c;")),
            ("-X PUT", "method", "PUT"),
            ("--request PUT", "method", "PUT"),
            ("-d a --data @b", "data", ("a", "@b")),
            ("-u a:b", "user", "a:b"),
            ("--user a", "user", "a"),
            ("-A me", "user_agent", "me"),
            ("--user-agent=", "user_agent", ""),
            ("-L", "location", True),
            ("--location", "location", True),
            ("--max-redirs 0", "max_redirs", 0),
            ("-f", "fail", True),
            ("--fail", "fail", True),
            ("-k", "insecure", True),
            ("--insecure", "insecure", True),
            ("--cacert ca.pem", "cacert", "ca.pem"),
            ("-4", "family", 4),
            ("-6", "family", 6),
            ("--resolve a:1:::1 --resolve b", "resolve", ("a:1:::1", "b")),
            ("--unix-socket path", "unix_socket", "path"),
            ("--timeout 0.5", "timeout", 0.5),
            ("--connect-timeout 0.5", "connect_timeout", 0.5),
            ("--max-time 0.5", "max_time", 0.5),
            ("--max-filesize 0", "max_filesize", 0),
            ("--compressed", "compressed", True),
            ("--raw", "raw", True),
            ("--raw-request file", "raw_request", "file"),
            ("--report -", "report", "-"),
        ):
            self.assertEqual(self.run_main("fetch", "u", *arguments.split()), 0)
            self.assertEqual(seen.pop(), replace(plain, **{field: value}), arguments)  # type: ignore[arg-type]

    def test_serve(self) -> None:
        """`serve` reads its options by itself, as twistd does."""
        given = ("--hello=tcp:0", "--delay", "0", "-x", "--help", "-h", "more")
        seen: list[tuple[str, ...]] = []
        self.patch(serve, "serve", lambda arguments, *_: seen.append(arguments))
        self.assertEqual(self.run_main("serve", *given), 0)
        self.assertEqual(seen, [given])

    def test_no_worker(self) -> None:
        """What only the parent of workers sets is refused, before all else."""
        os.environ["SOCKPROTO_WORKER"] = "x"
        self.addCleanup(os.environ.pop, "SOCKPROTO_WORKER", None)
        self.assertEqual(self.run_main("serve"), 2)


class EndTests(MainTests):
    """How a command ends that did not get far."""

    def ends(self, error: BaseException) -> object:
        """The status of a command that raises this."""

        def hello(**options: Any) -> None:
            raise error

        self.patch(talking, "hello", hello)
        return self.run_main("hello")

    def test_interrupt(self) -> None:
        """Ctrl-C is not a traceback."""
        self.assertEqual(self.ends(KeyboardInterrupt()), 130)
        self.assertEqual(self.stderr.getvalue().strip(), "")

    def test_broken_pipe(self) -> None:
        """A broken pipe is not a traceback."""
        self.assertEqual(self.ends(BrokenPipeError(errno.EPIPE, "Broken pipe")), 23)
        self.assertNotIn("Traceback", self.stderr.getvalue())

    def test_help_refused(self) -> None:
        """Help that standard output does not take is status 23, in one line."""
        for number in (errno.EPIPE, errno.ENOSPC):
            for arguments in (("--help",), ("--version",), ("hello", "--help")):
                self.patch(sys, "stdout", Refusing(number))
                stderr = io.StringIO()
                self.patch(sys, "stderr", stderr)
                self.assertEqual(self.run_main(*arguments), 23)
                self.assertEqual(stderr.getvalue().count("\n"), 1)
