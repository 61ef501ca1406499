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
        unread: what the peer sent and we have not read, because a policy holds
            up reading.
        held_up: whether there may be more, of any size, whose producer a policy
            holds up.
    """

    unanswered: int = 0
    unsent: int = 0
    unread: int = 0
    held_up: bool = False

    def __bool__(self) -> bool:
        return bool(self.unanswered or self.unsent or self.unread or self.held_up)

    def __add__(self, other: Debt) -> Debt:
        return Debt(
            self.unanswered + other.unanswered,
            self.unsent + other.unsent,
            self.unread + other.unread,
            self.held_up or other.held_up,
        )

    def __str__(self) -> str:
        parts = []
        if self.unanswered or self.unread:
            parts.append(f"the answers to {self.unanswered + self.unread} bytes")
        if self.unsent:
            parts.append(f"{self.unsent} bytes not yet sent")
        if self.held_up:
            parts.append("more that a rate holds up")
        return " and ".join(parts) or "nothing"


class IOwing(Interface):
    """
    A connection that can say what it owes, and be ended in order.

    Policies look for it on what they wrap: who waits for a delayed answer is not
    idle, and a drain waits for what is owed. A protocol provides it before it is
    connected, that is, as a rule, by its class.
    """

    bytes_received: int = Attribute("Bytes received in all.")
    bytes_sent: int = Attribute("Bytes handed to the transport in all.")

    def owed() -> Debt:
        """
        What the peer could still wait for. It is false once all is settled.
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
