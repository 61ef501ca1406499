"""
What a target is, what it is given, and what several of them look at.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from operator import eq
from typing import TYPE_CHECKING, TypeVar

from sockproto.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_T = TypeVar("_T")

SHAPE = 6
"""Bytes at the start of an input that are choices; what follows them is fed."""

LONGEST = 2048
"""Bytes of an input: each is fed a byte at a time, too."""


@dataclass(frozen=True, slots=True)
class Given:
    """
    One input: what is fed, and choices about how.

    Attributes:
        choice, other: a number below 256 each, for the target to use.
        sizes: of the reads that it is cut into, over and over.
        stream: what is fed.
    """

    choice: int
    other: int
    sizes: bytes
    stream: bytes

    @classmethod
    def of(cls, data: bytes) -> Given:
        shape = data[:SHAPE].ljust(SHAPE, b"\0")
        return cls(shape[0], shape[1], shape[2:], data[SHAPE:])

    def has(self, bit: int) -> bool:
        """Whether a bit of the choice is set."""
        return bool(self.choice >> bit & 1)

    def cut(self, stream: bytes) -> list[bytes]:
        """The stream in reads of the chosen sizes."""
        reads = []
        at = turn = 0
        while at < len(stream):
            size = self.sizes[turn % len(self.sizes)] + 1
            reads.append(stream[at : at + size])
            at += size
            turn += 1
        return reads

    def choppings(self, stream: bytes) -> list[list[bytes]]:
        """In one read, a byte at a time, and in reads of the chosen sizes."""
        at_once = [stream] if stream else []
        return [at_once, [bytes([b]) for b in stream], self.cut(stream)]

    @property
    def text(self) -> str:
        """The stream as Python gives an argument, or as any text there can be."""
        if self.has(7):
            even = self.stream[: len(self.stream) & ~1]
            return even.decode("utf-16-le", "surrogatepass")
        return os.fsdecode(self.stream)

    @property
    def words(self) -> list[str]:
        """The text's parts between NULs, which no argument holds."""
        return self.text.split("\0") if self.stream else []


@dataclass(frozen=True, slots=True)
class Target:
    """
    What is fed, and what it must keep; `seeds` begin it, `words` are mixed in.
    """

    name: str
    keeps: Callable[[Given], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]

    def inputs(self) -> list[bytes]:
        """The seeds with some choices each."""
        shapes = [bytes([c, 40, 0, 2, 9, 200]) for c in (*range(8), 64, 128)]
        return [shape + seed for seed in self.seeds for shape in shapes]


def target(
    *seeds: bytes, words: Iterable[bytes] = ()
) -> Callable[[Callable[[Given], None]], Target]:
    """Make a target of a function."""

    def take(keeps: Callable[[Given], None]) -> Target:
        name = keeps.__name__.replace("_", "-")
        return Target(name, keeps, (b"", *seeds), tuple(words))

    return take


def alike(
    given: Given,
    stream: bytes,
    hear: Callable[[list[bytes]], _T],
    agree: Callable[[_T, _T], bool] = eq,
) -> _T:
    """What is heard of the stream, which is the same however it is chopped."""
    at_once, *others = [hear(reads) for reads in given.choppings(stream)]
    for heard in others:
        assert agree(heard, at_once), f"chopped {heard}, at once {at_once}"
    return at_once


def held(machine: object) -> int:
    """Bytes in a machine's buffers, and in those of the machines in it."""
    size = 0
    for value in vars(machine).values():
        if isinstance(value, bytes | bytearray):
            size += len(value)
        elif type(value).__module__.startswith("sockproto.wire.") and hasattr(
            value, "__dict__"
        ):
            size += held(value)
    return size


def told(error: Exception, *names: str) -> str:
    """
    What an error says: in one line, which a terminal can show if a peer is its cause;
    by one of these names, if it is of a setting.
    """
    said = str(error)
    assert said, "it says nothing"
    assert "\n" not in said, f"it says {said!r}"
    assert said.isprintable() or not isinstance(error, PeerError), f"it says {said!r}"
    assert not names or getattr(error, "name", None) in names, f"it says {said!r}"
    return said
