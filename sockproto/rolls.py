"""
Who is connected now: they enter and leave by themselves, and nobody has to be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Roll", "Rolls"]


class Roll(set[Any]):
    """
    The connections of a factory that are there now, as `IAttended` has it.
    """

    __slots__ = ()


class Rolls:
    """
    Several of them, each as long as somebody else has it: a factory, a connection.
    """

    def __init__(self) -> None:
        self._refs: list[ref[Roll]] = []

    def add(self, roll: Roll) -> None:
        """Have one more, if it is not there already."""
        if all(each() is not roll for each in self._refs):
            self._refs.append(ref(roll, self._refs.remove))

    def __iter__(self) -> Iterator[Roll]:
        for each in list(self._refs):
            roll = each()
            if roll is not None:
                yield roll

    def count(self) -> int:
        """How many are on them."""
        count = 0
        for each in self._refs:  # each connection comes here
            count += len(each() or ())
        return count
