"""
Names from standard input to a service.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sockproto.cli import talking
from sockproto.errors import CannotRead, ConnectionWasReset


class NamesTests(SynchronousTestCase):
    """Names that are typed or piped."""

    def setUp(self) -> None:
        self.reads: list[Deferred[bytes | None]] = []
        self.patch(talking, "in_daemon_thread", self.read_line)
        self.gone: Deferred[None] = Deferred()

    def read_line(self, *_: object) -> Deferred[bytes | None]:
        """In place of `in_daemon_thread`: the test says how it ends."""
        self.reads.append(Deferred())
        return self.reads[-1]

    def names(self) -> Deferred[list[bytes]]:
        async def take() -> list[bytes]:
            clock: Any = Clock()
            return [name async for name in talking._names(clock, (), self.gone)]

        return Deferred.fromCoroutine(take())

    def test_lines(self) -> None:
        """Each line that is not empty is a name, to the end of the input."""
        names = self.names()
        for line in (b"Eva", b"", b"Bob", None):
            self.reads.pop().callback(line)
        self.assertEqual(self.successResultOf(names), [b"Eva", b"Bob"])

    def test_nobody_left(self) -> None:
        """When the service has gone, nobody waits for a line; it is dropped."""
        names = self.names()
        self.gone.callback(None)
        self.failureResultOf(names, ConnectionWasReset)
        self.reads.pop().callback(b"late")

    def test_cannot_read(self) -> None:
        """An input that cannot be read is said to be so, also if all is over then."""
        names = self.names()
        self.reads.pop().errback(OSError(9, "Bad file descriptor"))
        error = self.failureResultOf(names, CannotRead).value
        self.assertEqual(error.exit_status, 26)
        self.gone.callback(None)
        self.assertIsNone(self.successResultOf(self.gone))

    def test_bugs(self) -> None:
        """What is wrong with us is not taken for the input's."""
        names = self.names()
        self.reads.pop().errback(RuntimeError())
        self.failureResultOf(names, RuntimeError)
