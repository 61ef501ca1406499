"""
The interfaces that rooms share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from sockproto.rolls import Roll

__all__ = ["Attendant", "Debt", "IAttended", "IOwing", "ISteadyReceiver", "Writer"]


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


class Writer(Protocol):
    """
    What bytes can be written to; nothing else of it is of interest.
    """

    def write(self, data: bytes, /) -> object:
        """Send these, which are `bytes` and nothing like them."""


class ISteadyReceiver(Interface):
    """
    A protocol whose `dataReceived` a transport may keep, once it is connected.

    It is the same one until the transport's `protocol` is set, which may be to the
    same protocol; it wants no context of Twisted's log (`log.msg`) around it, and
    passes no descriptors over UNIX sockets (`IUNIXTransport`). So it and a transport
    like those of `sockproto.uvreactor` have nothing in between.
    """

    def write_to(writer: Writer) -> None:
        """
        Write to this from now on; it may come before the protocol is connected.

        The protocol is told again when that changes: when TLS starts, or another
        protocol takes over. The transport's `write` does the same, always. After
        `connectionLost` it is of no use any more.
        """


class Attendant(Protocol):
    """
    Who wants to know that a connection is made, and that it is lost.
    """

    def made(self, connection: Any, /) -> None:
        """It is made; its protocol is told next."""

    def lost(self, connection: Any, /) -> None:
        """It is lost; its protocol is told next."""

    def gone(self, connection: Any, /) -> None:
        """It is lost, and its protocol was told."""


class IAttended(Interface):
    """
    A protocol that tells others when it is connected, and when no longer, and that is
    on rolls meanwhile: so who only wants to know who is there need not be told.

    It has its transport to the end, and hands it to no other protocol. So a policy
    that wants to know no more need not wrap it. A subclass may not keep to that: it
    has to define both anew (`attendants = ()`, `rolls = ()`), or is wrapped.
    """

    attendants: tuple[Attendant, ...] = Attribute(
        "Who is told; policies add theirs, as a rule before it is connected."
    )
    rolls: tuple[Roll, ...] = Attribute(
        "Where it is from when it is made until its protocol was told of the loss;"
        " policies add theirs before it is connected."
    )
