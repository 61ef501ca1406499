"""
The interfaces that rooms share.
"""

from __future__ import annotations

from dataclasses import dataclass

from zope.interface import Attribute, Interface

__all__ = ["Debt", "IOwing"]


@dataclass(frozen=True, slots=True)
class Debt:
    """
    What a connection still owes its peer, in bytes.

    It is true if anything is owed.

    Attributes:
        unanswered: what the peer sent and has had no answer to yet.
        unsent: what is on its way and was not yet taken by the kernel.
    """

    unanswered: int = 0
    unsent: int = 0

    def __bool__(self) -> bool:
        return bool(self.unanswered or self.unsent)

    def __add__(self, other: Debt) -> Debt:
        return Debt(self.unanswered + other.unanswered, self.unsent + other.unsent)

    def __str__(self) -> str:
        parts = []
        if self.unanswered:
            parts.append(f"the answers to {self.unanswered} bytes")
        if self.unsent:
            parts.append(f"{self.unsent} bytes not yet sent")
        return " and ".join(parts) or "nothing"


class IOwing(Interface):
    """
    A connection that can say what it owes, and be ended in order.
    """

    bytes_received: int = Attribute("Bytes received in all.")

    def owed() -> Debt:
        """
        What the peer could still wait for.
        """

    def finish(reason: str) -> None:
        """
        Send what is unsent, then end of file; then close.

        `reason` is for the log: `the service stops`.
        """

    def abort(reason: str) -> None:
        """
        Close at once with a reset. What is unsent is lost.
        """
