"""
The person, or the pipe, at the other end of standard input and output.
"""

from __future__ import annotations

import codecs
import os
import select
import sys
from contextlib import suppress
from typing import Any

from sockproto.cli.standard_files import say
from sockproto.connecting import Observer
from sockproto.errors import CannotWrite
from sockproto.spelling import spell, spell_for_terminal

__all__ = [
    "Narrator",
    "Output",
    "for_terminal",
    "leave_prompt",
    "read_input",
    "read_line",
    "remember_terminal",
    "restore_terminal",
    "stdin_is_terminal",
]

_STDIN, _STDOUT = 0, 1

READ_SIZE = 65_536

_terminal: list[Any] = []
_prompting = False
_piped = bytearray()


def remember_terminal() -> None:
    """Keep the terminal's settings: line editing changes them while it waits."""
    with suppress(ImportError, OSError):
        import termios

        with suppress(termios.error):
            _terminal[:] = termios.tcgetattr(_STDIN)


def restore_terminal() -> None:
    """Give the terminal back as it was, should a thread still edit a line."""
    if _terminal:
        import termios

        with suppress(termios.error):
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, _terminal)


def stdin_is_terminal() -> bool:
    """Whether somebody types."""
    return os.isatty(_STDIN)


class Output:
    """
    Standard output: exact bytes into a pipe, escaped on a terminal.
    """

    def __init__(self, descriptor: int = _STDOUT) -> None:
        self._descriptor = descriptor
        self.is_terminal = os.isatty(descriptor)
        # A read may end within a character, or within a CRLF.
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def write(self, data: bytes) -> None:
        """
        Write peer's bytes; it blocks until they are taken.

        Raises:
            CannotWrite: it is closed, its reader has gone, or its disk is full.
        """
        if self.is_terminal:
            text = self._held + self._decoder.decode(data)
            self._held = "\r" if text.endswith("\r") else ""
            data = _escaped(text.removesuffix("\r"))
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # somebody who shares it has made it so
                    select.select([], [self._descriptor], [])
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise CannotWrite("standard output", words) from error

    def write_line(self, data: bytes) -> None:
        """Write peer's bytes and a line feed."""
        self.write(data + b"\n")


def for_terminal(data: bytes) -> bytes:
    """
    Escape what a terminal would act on; a CRLF becomes the LF it stands for.
    """
    return _escaped(data.decode("utf-8", "backslashreplace"))


def _escaped(text: str) -> bytes:
    text = spell_for_terminal(text.replace("\r\n", "\n"))
    return text.encode("utf-8", "backslashreplace")


def read_input() -> bytes:
    """
    Read what standard input has, at most 64 KiB; empty at its end. It blocks.
    """
    while True:
        try:
            return os.read(_STDIN, READ_SIZE)
        except BlockingIOError:  # somebody who shares it has made it so
            select.select([_STDIN], [], [])


def _read_piped_line() -> bytes:
    """A line with its end, or what is left of the input."""
    while not (end := _piped.find(b"\n") + 1):
        data = read_input()
        if not data:
            end = len(_piped)
            break
        _piped.extend(data)
    line = bytes(_piped[:end])
    del _piped[:end]
    return line


def read_line(prompt: str) -> bytes | None:
    """
    Read a line without its end; None at the end of input. It blocks.

    On a terminal there is a prompt, with line editing and a history.
    """
    if not stdin_is_terminal():
        line = _read_piped_line()
        return line.removesuffix(b"\n").removesuffix(b"\r") if line else None
    global _prompting  # noqa: PLW0603 - there is one terminal
    _prompting = True
    try:
        if os.isatty(_STDOUT):
            with suppress(ImportError):
                import readline  # noqa: F401 - input() edits lines by it
            return input(prompt).encode("utf-8", "surrogateescape")
        # What was asked for goes to standard output, a prompt does not.
        say(prompt, end="")
        return input().encode("utf-8", "surrogateescape")
    except EOFError:
        say("")
        return None
    finally:
        _prompting = False


def leave_prompt() -> None:
    """Go to a new line, should somebody else speak while a prompt waits."""
    if _prompting and sys.stderr is not None and sys.stderr.isatty():
        say("")


class Narrator(Observer):
    """
    Tells on standard error what happens on the socket (`-v`).
    """

    def resolved(self, host: str, addresses: Any) -> None:
        self._say("*", f"resolved {host}: {', '.join(addresses) or 'no address'}")

    def connected(self, here: str, there: str) -> None:
        self._say("*", f"connected from {here} to {there}")

    def sent(self, data: bytes) -> None:
        self._say(">", f"sent {len(data)} bytes: {spell(data)}")

    def received(self, data: bytes) -> None:
        self._say("<", f"received {len(data)} bytes: {spell(data)}")

    def closed(self, why: str) -> None:
        self._say("*", f"closed: {why}")

    def _say(self, sign: str, what: str) -> None:
        say(f"{sign} {spell_for_terminal(what)}")
