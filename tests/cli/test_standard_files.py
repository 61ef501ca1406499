"""
What a command does when nobody listens to it, in processes of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import unittest

REFUSED = ["hello", "-c", "127.0.0.1:1", "x"]
"""Nothing listens there, and that is said on standard error."""


def run(arguments: list[str], redirection: str) -> int:
    """The exit status of a command with its standard files redirected."""
    command = [sys.executable, "-m", "sockproto", *arguments]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=30,
        check=False,
    ).returncode


class StandardErrorTests(unittest.TestCase):
    """What cannot be said changes nothing about the outcome."""

    def test_full(self) -> None:
        """A full standard error does not keep a command from ending."""
        self.assertEqual(run(REFUSED, "2>/dev/full"), 7)

    def test_closed(self) -> None:
        """Nor does a closed one."""
        self.assertEqual(run(REFUSED, "2>&-"), 7)

    def test_reader_gone(self) -> None:
        """Nor does a pipe that nobody reads."""
        read, write = os.pipe()
        os.close(read)
        with subprocess.Popen(
            [sys.executable, "-m", "sockproto", *REFUSED],
            stdin=subprocess.DEVNULL,
            stderr=write,
        ) as command:
            os.close(write)
            self.assertEqual(command.wait(30), 7)

    def test_usage(self) -> None:
        """A wrong option is 2, and is not said on standard output in its place."""
        done = subprocess.run(
            ["sh", "-c", '"$@" 2>&-', "sh", sys.executable, "-m", "sockproto", "--no"],
            stdout=subprocess.PIPE,
            timeout=30,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout), (2, b""))
