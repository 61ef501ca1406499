"""
Standard input, output and error, as pipes and as terminals.
"""

from __future__ import annotations

import io
import os
import pty
import sys
import termios
import threading
import unicodedata
from pathlib import Path

from hypothesis import example, given, settings, strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sockproto.cli import console
from sockproto.cli.console import (
    READ_SIZE,
    Narrator,
    Output,
    for_terminal,
    leave_prompt,
    read_input,
    read_line,
    remember_terminal,
    restore_terminal,
    stdin_is_terminal,
)
from sockproto.errors import CannotWrite


class Typed(io.StringIO):
    """A text stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class DescriptorTests(SynchronousTestCase):
    """What every test has: descriptors that are closed in the end."""

    def setUp(self) -> None:
        self._open: set[int] = set()
        self.addCleanup(self.close_all)

    def close_all(self) -> None:
        """Close what is still open."""
        for descriptor in self._open:
            os.close(descriptor)

    def closing(self, descriptor: int) -> int:
        """Close a descriptor when the test is over, unless it is by then."""
        self._open.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        """Close a descriptor now."""
        self._open.remove(descriptor)
        os.close(descriptor)

    def pipe(self) -> tuple[int, int]:
        """A pipe's ends, for reading and for writing."""
        reader, writer = os.pipe()
        return self.closing(reader), self.closing(writer)

    def terminal(self) -> tuple[int, int]:
        """A terminal: the person's end and the program's."""
        master, slave = pty.openpty()
        return self.closing(master), self.closing(slave)


class OutputTests(DescriptorTests):
    """Standard output."""

    def shown(self, master: int) -> bytes:
        """What a terminal shows, to the end of the line."""
        shown = b""
        while not shown.endswith(b"\n"):
            shown += os.read(master, 100)
        return shown

    def test_pipe(self) -> None:
        """A pipe has the exact bytes."""
        reader, writer = self.pipe()
        output = Output(writer)
        self.assertFalse(output.is_terminal)
        output.write(b"a\r\n\x1b[2J\0")
        output.write(b"")
        output.write_line(b"\xff")
        self.assertEqual(os.read(reader, 100), b"a\r\n\x1b[2J\0\xff\n")

    def test_large(self) -> None:
        """It blocks until all is taken."""
        reader, writer = self.pipe()
        data = bytes(range(256)) * 4096
        writing = threading.Thread(target=Output(writer).write, args=(data,))
        writing.start()
        taken = b""
        while len(taken) < len(data):
            taken += os.read(reader, 65536)
        writing.join()
        self.assertTrue(taken == data)

    def refused(self, descriptor: int) -> str:
        """What is wrong with a descriptor that takes nothing."""
        error = self.assertRaises(CannotWrite, Output(descriptor).write, b"a")
        self.assertEqual((error.where, error.exit_status), ("standard output", 23))
        return str(error.problem)

    def test_refused(self) -> None:
        """A reader that has gone, and a closed descriptor, are said in words."""
        reader, writer = self.pipe()
        self.close(reader)
        self.assertEqual(self.refused(writer), "broken pipe")
        self.close(writer)
        self.assertEqual(self.refused(writer), "bad file descriptor")

    def test_full(self) -> None:
        """So is a full disk."""
        if not Path("/dev/full").exists():
            raise SkipTest("there is no /dev/full")
        descriptor = self.closing(os.open("/dev/full", os.O_WRONLY))
        self.assertEqual(self.refused(descriptor), "no space left on device")

    def test_terminal(self) -> None:
        """A terminal is told nothing that it would act on."""
        master, slave = self.terminal()
        output = Output(slave)
        self.assertTrue(output.is_terminal)
        output.write_line(b"J\xc3\xb6rg \x1b[2J\a\xff\x9b")
        # The terminal's driver puts a CR before each LF.
        self.assertEqual(self.shown(master), b"J\xc3\xb6rg \\x1b[2J\\x07\\xff\\x9b\r\n")

    def test_terminal_segments(self) -> None:
        """What a read has cut in two is shown whole on a terminal."""
        master, slave = self.terminal()
        output = Output(slave)
        for data in (b"J\xc3", b"\xb6rg\r", b"\n"):
            output.write(data)
        self.assertEqual(self.shown(master), b"J\xc3\xb6rg\r\n")


class ForTerminalTests(SynchronousTestCase):
    """What is done to bytes for a terminal."""

    def test_text(self) -> None:
        """Text stays; a CRLF is a line feed; the rest is escaped."""
        for data, shown in (
            (b"a\tb\n", b"a\tb\n"),
            (b"a\r\nb\r\n", b"a\nb\n"),
            (b"a\rb", b"a\\rb"),
            (
                "J\xf6rg \u20ac \U0001f600".encode(),
                "J\xf6rg \u20ac \U0001f600".encode(),
            ),
            (b"\x00\x07\x08\x1b\x7f", b"\\x00\\x07\\x08\\x1b\\x7f"),
            ("\x9b\u202e\u2066".encode(), b"\\x9b\\u202e\\u2066"),
            (b"\xff\xc3", b"\\xff\\xc3"),
        ):
            self.assertEqual(for_terminal(data), shown)

    @settings(deadline=None)
    @given(data=st.binary())
    @example(data="\xa0\u3000".encode())
    def test_harmless(self, data: bytes) -> None:
        """Whatever comes, what is shown is printable text, and spaces of any script."""
        shown = for_terminal(data).decode("utf-8")
        harmful = [
            c
            for c in shown
            if not c.isprintable()
            and c not in "\n\t"
            and unicodedata.category(c) != "Zs"
        ]
        self.assertEqual(harmful, [])

    @settings(deadline=None)
    @given(text=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
    def test_ascii(self, text: str) -> None:
        """Plain text is shown as it is."""
        self.assertEqual(for_terminal(text.encode()), text.encode())


class InputTests(DescriptorTests):
    """Standard input."""

    def use(self, stdin: int, stdout: int | None = None) -> None:
        """Make these the standard files."""
        self.patch(console, "_STDIN", stdin)
        self.patch(console, "_STDOUT", self.pipe()[1] if stdout is None else stdout)
        file = open(  # noqa: SIM115 - until the test is over
            stdin, encoding="utf-8", errors="surrogateescape", closefd=False
        )
        self.addCleanup(file.close)
        self.patch(sys, "stdin", file)
        self.stderr = io.StringIO()
        self.patch(sys, "stderr", self.stderr)

    def piped(self, data: bytes) -> None:
        """Make standard input a pipe that holds this and ends."""
        reader, writer = self.pipe()
        os.write(writer, data)
        self.close(writer)
        self.use(reader)

    def test_is_terminal(self) -> None:
        """A pipe types nothing, a person does."""
        self.piped(b"")
        self.assertFalse(stdin_is_terminal())
        self.use(self.terminal()[1])
        self.assertTrue(stdin_is_terminal())

    def test_read_input(self) -> None:
        """Bytes come as they are, in bounded pieces; at the end, none."""
        self.piped(b"\0\xff\r\n" * 16000)
        taken = b""
        while data := read_input():
            self.assertLessEqual(len(data), READ_SIZE)
            taken += data
        self.assertEqual(taken, b"\0\xff\r\n" * 16000)
        self.assertEqual(read_input(), b"")

    def test_read_input_early(self) -> None:
        """What is there comes at once, without an end or a line."""
        reader, writer = self.pipe()
        self.use(reader)
        os.write(writer, b"a")
        self.assertEqual(read_input(), b"a")

    def test_read_input_non_blocking(self) -> None:
        """What comes late is waited for, should somebody have made it non-blocking."""
        reader, writer = self.pipe()
        os.set_blocking(reader, False)
        self.use(reader)
        late = threading.Timer(0.05, os.write, (writer, b"late\n"))
        late.start()
        self.addCleanup(late.join)
        self.assertEqual(read_line("name>"), b"late")

    def test_lines(self) -> None:
        """Lines come without their ends, in whatever bytes; the last needs none."""
        self.piped(b"a\nb\r\n\n\xff\0\r\r\nlast")
        lines = [read_line("name>") for _ in range(6)]
        self.assertEqual(lines, [b"a", b"b", b"", b"\xff\0\r", b"last", None])
        self.assertEqual(self.stderr.getvalue(), "")

    def test_ended(self) -> None:
        """A standard input that has nothing is at its end."""
        self.piped(b"")
        self.assertIsNone(read_line("name>"))

    def test_prompt(self) -> None:
        """On a terminal there is a prompt; into a pipe of answers it does not go."""
        master, slave = self.terminal()
        reader, writer = self.pipe()
        self.use(slave, writer)
        os.write(master, b"J\xc3\xb6rg\n\n")
        self.assertEqual(read_line("name>"), b"J\xc3\xb6rg")
        self.assertEqual(read_line("name>"), b"")
        self.assertEqual(self.stderr.getvalue(), "name>name>")
        self.close(writer)
        self.assertEqual(os.read(reader, 100), b"")

    def test_prompt_on_terminal(self) -> None:
        """Where both are a terminal, the prompt is on standard output."""
        master, slave = self.terminal()
        self.use(slave, slave)
        stdout = io.StringIO()
        self.patch(sys, "stdout", stdout)
        os.write(master, b"a\n")
        self.assertEqual(read_line("input>"), b"a")
        self.assertEqual((stdout.getvalue(), self.stderr.getvalue()), ("input>", ""))

    def test_prompt_ended(self) -> None:
        """Ctrl-D ends the input, and the prompt's line."""
        master, slave = self.terminal()
        self.use(slave)
        os.write(master, b"\x04")
        self.assertIsNone(read_line("name>"))
        self.assertEqual(self.stderr.getvalue(), "name>\n")

    def test_leave_prompt(self) -> None:
        """Who speaks while a prompt waits on a terminal begins a new line."""
        for prompting, stderr, said in (
            (True, Typed(), "\n"),
            (False, Typed(), ""),
            (True, io.StringIO(), ""),
        ):
            self.patch(console, "_prompting", prompting)
            self.patch(sys, "stderr", stderr)
            leave_prompt()
            self.assertEqual(stderr.getvalue(), said)

    def test_terminal_restored(self) -> None:
        """The terminal is given back as it was."""
        _, slave = self.terminal()
        self.use(slave)
        self.patch(console, "_terminal", [])
        before = termios.tcgetattr(slave)
        remember_terminal()
        silent = termios.tcgetattr(slave)
        silent[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(slave, termios.TCSADRAIN, silent)
        restore_terminal()
        self.assertEqual(termios.tcgetattr(slave), before)

    def test_no_terminal(self) -> None:
        """Where there is none, nothing is remembered and nothing given back."""
        self.piped(b"")
        self.patch(console, "_terminal", [])
        remember_terminal()
        restore_terminal()
        self.assertEqual(console._terminal, [])


class NarratorTests(SynchronousTestCase):
    """What `-v` says."""

    def setUp(self) -> None:
        self.stderr = io.StringIO()
        self.patch(sys, "stderr", self.stderr)
        self.narrator = Narrator()

    def test_lines(self) -> None:
        """It tells each thing that happens on the socket in a line."""
        self.narrator.resolved("localhost", ["::1", "127.0.0.1"])
        self.narrator.resolved("nowhere", [])
        self.narrator.connected("127.0.0.1:50123", "127.0.0.1:9999")
        self.narrator.sent(b"Tracy")
        self.narrator.received(b"Hello, Tracy!\n")
        self.narrator.closed("the peer closed")
        self.assertEqual(
            self.stderr.getvalue().splitlines(),
            [
                "* resolved localhost: ::1, 127.0.0.1",
                "* resolved nowhere: no address",
                "* connected from 127.0.0.1:50123 to 127.0.0.1:9999",
                "> sent 5 bytes: b'Tracy'",
                r"< received 14 bytes: b'Hello, Tracy!\n'",
                "* closed: the peer closed",
            ],
        )

    def test_escaped(self) -> None:
        """Whatever the peer sent is escaped, and not at any length."""
        self.narrator.received(b"\x1b[2J\r\n\xff" * 10000)
        self.narrator.closed("broken off: \x1b\u202e")
        said = self.stderr.getvalue()
        self.assertTrue(said.replace("\n", "").isprintable())
        self.assertEqual(said.count("\n"), 2)
        self.assertIn("received 70000 bytes", said)
        self.assertLess(len(said), 2000)
