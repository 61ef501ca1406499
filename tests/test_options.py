"""
The services' command line, as twistd, twist and `sockproto serve` parse it.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from io import StringIO

from hypothesis import given, strategies as st
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from sockproto import __version__
from sockproto.options import Options
from sockproto.reporting import Log
from sockproto.settings import Settings
from sockproto.wire.framing import Framing


def parsed(*argv: str) -> Settings:
    options = Options()
    options.parseOptions(list(argv))
    return options.settings


class OptionsTests(SynchronousTestCase):
    def refused(self, *argv: str) -> str:
        """Check that a command line is refused; return what is said."""
        with self.assertRaises(UsageError) as caught:
            parsed(*argv)
        return str(caught.exception)

    def test_defaults(self) -> None:
        """Without options, what runs is what runs without settings."""
        self.assertEqual(parsed(), Settings())

    def test_places(self) -> None:
        """Where any place is given, only those services run; each may have several."""
        self.assertEqual(
            parsed("--hello=tcp:1", "--hello=tcp:2", "--udp-echo=udp:3"),
            Settings(hello=("tcp:1", "tcp:2"), echo=(), udp=(), udp_echo=("udp:3",)),
        )
        self.assertEqual(
            parsed("--echo", "unix:/tmp/a", "--udp=udp:4"),
            Settings(hello=(), echo=("unix:/tmp/a",), udp=("udp:4",)),
        )

    def test_two_command_lines(self) -> None:
        """The places of one command line are not those of the next."""
        self.assertEqual(parsed("--hello=tcp:1").hello, ("tcp:1",))
        self.assertEqual(parsed("--hello=tcp:2").hello, ("tcp:2",))

    def test_values(self) -> None:
        """Each option sets the setting of its name."""
        self.assertEqual(
            parsed(
                "--delay=0.25",
                "--framing=line",
                "--max-name=10",
                "--greeting=Hi",
                "--answer=NAME?",
                "--backlog=5",
                "--drain=3",
                "--log=messages",
                "--udp-any-port",
            ),
            Settings(
                delay=0.25,
                framing=Framing.LINE,
                max_name=10,
                greeting=b"Hi",
                answer=b"NAME?",
                backlog=5,
                drain=3,
                log=Log.MESSAGES,
                udp_any_port=True,
            ),
        )

    def test_limits(self) -> None:
        """Each limit has its option; a rate may have a unit."""
        self.assertEqual(
            parsed(
                "--max-connections=100",
                "--max-per-peer=10",
                "--allow=192.0.2.0/24,::1",
                "--allow=unix",
                "--deny=192.0.2.7",
                r"--refusal=busy\r\n",
                "--idle=30",
                "--stalled=0",
                "--rate=64K",
                "--total-rate=1.5M",
                "--udp-rate=10",
                "--udp-total-rate=0",
            ),
            Settings(
                max_connections=100,
                max_per_peer=10,
                allow=("192.0.2.0/24", "::1", "unix"),
                deny=("192.0.2.7",),
                refusal=b"busy\r\n",
                idle=30,
                stalled=0,
                rate=65_536,
                total_rate=1_572_864,
                udp_rate=10,
                udp_total_rate=0,
            ),
        )

    def test_limits_refused(self) -> None:
        """What is no limit is refused as other options are."""
        number = "a number a second from 1 to 1e+12, or 0 for no limit,"
        for option, text, allowed in (
            ("max-connections", "-1", "a whole number from 0 to 2147483648"),
            ("max-per-peer", "-1", "a whole number from 0 to 2147483648"),
            ("idle", "nan", "a number of seconds from 0 up"),
            ("stalled", "", "a number of seconds from 0 up"),
            ("rate", "64Q", number),
            ("rate", "0.5", number),
            ("total-rate", "inf", number),
            ("udp-rate", "1K", number),
            ("allow", "192.0.2.7/24", "the network 192.0.2.0/24, or the address"),
            ("deny", "all", "a network such as 192.0.2.0/24 or 2001:db8::/32"),
        ):
            self.assertTrue(
                self.refused(f"--{option}={text}").startswith(
                    f"--{option}: {text!r} was given, where {allowed}"
                ),
                self.refused(f"--{option}={text}"),
            )

    def test_escapes(self) -> None:
        """Greeting and answer take escapes; an empty greeting is taken as it is."""
        settings = parsed(r"--greeting=\x00\n", r"--answer=\tNAME\\")
        self.assertEqual(settings.greeting, b"\0\n")
        self.assertEqual(settings.answer, b"\tNAME\\")
        self.assertEqual(parsed("--greeting=").greeting, b"")

    def test_any_bytes(self) -> None:
        """Bytes of the command line that are no UTF-8 are sent as they are."""
        self.assertEqual(parsed("--greeting=\udcff").greeting, b"\xff")

    @given(
        option=st.sampled_from(["delay", "drain", "max-name", "backlog"]),
        text=st.one_of(
            st.text(max_size=6),
            st.sampled_from(["-1", "nan", "inf", "1e999", "", "0x10", "9" * 5000]),
        ),
    )
    def test_any_number(self, option: str, text: str) -> None:
        """Whatever stands where a number should is taken, or refused in one line."""
        try:
            parsed("--delay=0", f"--drain={sys.float_info.max}", f"--{option}={text}")
        except UsageError as error:
            self.assertTrue(
                str(error).startswith(f"--{option}: {repr(text)[:200]}"),
                str(error),
            )
        else:
            self.assertGreaterEqual(float(text), 0)

    def test_refusals(self) -> None:
        """The error names the option, what was seen and what is allowed."""
        seconds = "a number of seconds from 0 up"
        for option, text, allowed in (
            ("delay", "soon", seconds),
            ("delay", "-1", seconds),
            ("delay", "nan", seconds),
            ("drain", "", seconds),
            ("drain", "inf", seconds),
            ("drain", "0.5", "a number of seconds not below the delay (1)"),
            ("max-name", "0", "a whole number from 1 to 65536"),
            ("max-name", "1.5", "a whole number from 1 to 65536"),
            ("backlog", "many", "a whole number from 1 to 65535"),
            ("framing", "lines", "auto, chunk, line or netstring"),
            ("log", "all", "none, connections or messages"),
            ("answer", "Hello!", "a text with NAME exactly once"),
            ("answer", "NAME NAME", "a text with NAME exactly once"),
            ("answer", "NAME", "over UDP, a text with more than NAME"),
        ):
            self.assertEqual(
                self.refused(f"--{option}={text}"),
                f"--{option}: {text!r} was given, where {allowed} is allowed",
            )

    def test_escapes_refused(self) -> None:
        """An unknown escape is shown beside those that are known."""
        for option in ("greeting", "answer"):
            for text, escape in ((r"NAME\q", r"\q"), ("NAME\\", "\\")):
                self.assertEqual(
                    self.refused(f"--{option}={text}"),
                    f"--{option}: {text!r} was given (unknown escape {escape!r}),"
                    r" where the escapes \n \r \t \\ \xNN are allowed",
                )

    def test_arguments_refused(self) -> None:
        """What is no option is refused, and shown."""
        self.assertEqual(
            self.refused("--delay=0", "tcp:9999"),
            "'tcp:9999' was given, where only options are allowed",
        )

    def test_unknown_option(self) -> None:
        """An option that does not exist is named."""
        self.assertIn("--colour", self.refused("--colour=blue"))

    def test_version(self) -> None:
        """`--version` says ours, not Twisted's, and is all that happens."""
        with redirect_stdout(StringIO()) as out, self.assertRaises(SystemExit) as done:
            parsed("--version")
        self.assertEqual(done.exception.code, 0)
        self.assertEqual(out.getvalue(), f"sockproto {__version__}\n")

    def test_help(self) -> None:
        """The help shows every option, with its default."""
        text = str(Options())
        for words in (
            "--hello=",
            "--echo=",
            "--udp=",
            "--udp-echo=",
            "--delay=",
            "--framing=",
            "--max-name=",
            "--greeting=",
            "--answer=",
            "--backlog=",
            "--drain=",
            "--log=",
            "--udp-any-port",
            "--max-connections=",
            "--max-per-peer=",
            "--allow=",
            "--deny=",
            "--refusal=",
            "--idle=",
            "--stalled=",
            "--rate=",
            "--total-rate=",
            "--udp-rate=",
            "--udp-total-rate=",
            "tcp:9999:interface=127.0.0.1",
            "interface=[::1]",
        ):
            self.assertIn(words, text)
