"""
Who may connect, and how many at once.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from sockproto.checks import (
    choice,
    clock as checked_clock,
    instance,
    short_text,
    whole_number,
)
from sockproto.closing import LONGEST_LAST_WORDS, OrderlyClose
from sockproto.interfaces import ISteadyReceiver
from sockproto.peers import Networks, peer_group_of
from sockproto.reporting import Log, Occasional, log
from sockproto.rolls import Roll, Rolls
from sockproto.spelling import counted
from sockproto.wrapping import FactoryWrapper, attended

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import (
        IAddress,
        IDelayedCall,
        IProtocolFactory,
        IReactorTime,
    )
    from twisted.python.failure import Failure

    from sockproto.interfaces import Attendant, Writer

__all__ = ["Admission", "Gate"]

HIGHEST = 1 << 31

PARTING_SECONDS = 3.0
"""How long a refused peer may take to hear its last words."""

MOST_PARTING = 32
"""Refused peers of a place that hear last words at the same time."""

_WORDS = {
    "denied": "from networks that are denied (--deny)",
    "not allowed": "from networks that are not allowed (--allow)",
    "most": "above {most} in all (--max-connections)",
    "most per peer": "above {most_per_peer} of one peer (--max-per-peer)",
}


class Gate:
    """
    Counts connections, of several factories if they share it, and says who may come.

    A peer is an IPv4 address or an IPv6 /64. Peers on unix sockets count only in
    all.

    Args:
        clock: spaces the log's lines; the reactor, outside tests.
        most: connections at once, in all; None for any number.
        most_per_peer: connections at once of one peer; None for any number.
        allow: the networks whose peers may come, as CIDR texts; none for all.
        deny: the networks whose peers may not, also if they are allowed.
        log: with `Log.NONE`, refusals are only counted.

    Attributes:
        of_peer: how many of them of each peer, where that is bounded.
        refused: how many were refused, by reason: `denied`, `not allowed`, `most`,
            `most per peer`.

    Raises:
        SettingError: a number is below 1, or a text is no network.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        most: int | None = None,
        most_per_peer: int | None = None,
        allow: Networks | Iterable[str] | str = (),
        deny: Networks | Iterable[str] | str = (),
        log: Log | str = Log.CONNECTIONS,
    ) -> None:
        self.most = _bound("most", most)
        self.most_per_peer = _bound("most_per_peer", most_per_peer)
        self._allow = Networks("allow", allow)
        self.deny = Networks("deny", deny)
        self._attended = 0
        self._rolls = Rolls()
        self.refused: Counter[str] = Counter()
        self.of_peer: Counter[bytes] = Counter()
        self._logs = choice("log", Log, log) is not Log.NONE
        self._told = Occasional(checked_clock("clock", clock), self._tell)

    @property
    def connected(self) -> int:
        """How many are there now."""
        return self._attended + self._rolls.count()

    def count(self, roll: Roll) -> None:
        """Count those on this roll (`IAttended`), without being told of them."""
        self._rolls.add(roll)

    @property
    def allow(self) -> Networks:
        """The networks whose peers may come; all if it has none."""
        return self._allow

    @allow.setter
    def allow(self, networks: Networks) -> None:
        self._allow = networks
        self._lists = bool(self._allow) or bool(self._deny)

    @property
    def deny(self) -> Networks:
        """The networks whose peers may not, also if they are allowed."""
        return self._deny

    @deny.setter
    def deny(self, networks: Networks) -> None:
        self._deny = networks
        self._lists = bool(self._allow) or bool(self._deny)

    def refusal(self, address: IAddress | None) -> str | None:
        """
        Ask for one more from there; None if it may come, else why it may not.
        """
        reason = self._refusal(address)
        if reason is not None:
            self.refused[reason] += 1
            if self._logs:
                self._told.happened(reason)
        return reason

    def _refusal(self, address: IAddress | None) -> str | None:
        if self.deny and self.deny.has(address):
            return "denied"
        if self.allow and not self.allow.has(address):
            return "not allowed"
        if self.most is not None and self.connected >= self.most:
            return "most"
        if self.most_per_peer is not None:
            peer = peer_group_of(address)
            if peer is not None and self.of_peer[peer] >= self.most_per_peer:
                return "most per peer"
        return None

    def admits(self, address: IAddress | None) -> bool:
        """
        Tell whether one more may come from there; if not, it is refused.
        """
        # Each connection comes here, and pays for each call.
        if (
            not self._lists
            and self.most_per_peer is None
            and (self.most is None or self.connected < self.most)
        ):
            return True
        return self.refusal(address) is None

    def attendants(
        self, address: IAddress | None, *, on_roll: bool = False
    ) -> tuple[Attendant, ...]:
        """
        Have who counts one from there as long as it is there, whether it may come.

        Args:
            on_roll: whether it is counted in all already.
        """
        in_all = () if on_roll else (self,)
        peer = None if self.most_per_peer is None else peer_group_of(address)
        return in_all if peer is None else (*in_all, _OfPeer(self, peer))

    def made(self, connection: object) -> None:
        """One has come that is on no roll."""
        self._attended += 1

    def lost(self, connection: object) -> None:
        """It has gone."""
        self._attended -= 1

    def gone(self, connection: object) -> None:
        """It was not counted any more."""

    def open(self) -> None:
        """A place that this gate guards is listened on."""
        self._told.begin()

    def close(self) -> None:
        """It is not any more; with the last of them, log what was not told yet."""
        self._told.end()

    def _tell(self, counts: Counter[str]) -> None:
        log.warn(
            "Refused {refused}.",
            refused=", ".join(
                f"{counted(count, 'connection')} {_WORDS[reason]}".format(
                    most=self.most, most_per_peer=self.most_per_peer
                )
                for reason, count in counts.items()
            ),
        )


def _bound(name: str, seen: int | None) -> int | None:
    return None if seen is None else whole_number(name, seen, 1, HIGHEST)


class _OfPeer:
    """
    Counts a connection of its peer.
    """

    __slots__ = ("_gate", "_peer")

    def __init__(self, gate: Gate, peer: bytes) -> None:
        self._gate = gate
        self._peer = peer

    def made(self, connection: object) -> None:
        self._gate.of_peer[self._peer] += 1

    def lost(self, connection: object) -> None:
        of_peer = self._gate.of_peer
        of_peer[self._peer] -= 1
        if not of_peer[self._peer]:
            del of_peer[self._peer]

    def gone(self, connection: object) -> None:
        """It was not counted any more."""


@implementer(IHalfCloseableProtocol, ISteadyReceiver)
class _RefusedConnection(Protocol):
    """
    Is reset at once, or hears why first.
    """

    _close: OrderlyClose | None = None
    _deadline: IDelayedCall | None = None

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def connectionMade(self) -> None:
        transport: Any = self.transport
        admission = self._admission
        if not admission.last_words or admission.parting >= MOST_PARTING:
            transport.abortConnection()
            return
        admission.parting += 1
        # Also if a TLS peer never shakes hands.
        self._deadline = admission.clock.callLater(PARTING_SECONDS, self._too_late)
        transport.write(admission.last_words)
        self._close = OrderlyClose(transport, admission.clock)
        self._close.begin(input_ended=False)

    def write_to(self, writer: Writer) -> None:
        """What it writes is little."""

    def dataReceived(self, data: bytes) -> None:
        if self._close is not None:
            self._close.data_received(len(data))

    def readConnectionLost(self) -> None:
        if self._close is not None:
            self._close.read_connection_lost()

    def writeConnectionLost(self) -> None:
        if self._close is not None:
            self._close.write_connection_lost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._close is not None:
            self._close.connection_lost()
            self._admission.parting -= 1
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        transport: Any = self.transport
        transport.abortConnection()


class Admission(FactoryWrapper[IProtocol]):
    """
    Lets connections in as far as its gates do; a refused one costs next to nothing.

    A refused peer gets a reset, or a last line and end of file.

    Args:
        inner: builds the protocols of those that are admitted.
        gates: each has to admit; shared by all whose connections count together.
        clock: bounds the time of last words; the reactor, outside tests.
        last_words: what a refused peer gets, line end included; none for a reset.
            Text is sent as UTF-8. At most 4,096 bytes.
        roll: where `inner`, which is this one's alone, enters all that it builds, as
            `Draining` does: to count those there costs less than to be told of each.
            A place is free then after a protocol was told of its loss, not before.

    Attributes:
        parting: how many hear last words now. Above 32 at once, peers are reset: a
            crowd must not use up the open files in spite of the gates.

    Raises:
        SettingError: `last_words` is neither bytes nor a text, or too long, or `roll`
            is none.
    """

    def __init__(
        self,
        inner: IProtocolFactory,
        *gates: Gate,
        clock: IReactorTime,
        last_words: bytes | str = b"",
        roll: Roll | None = None,
    ) -> None:
        super().__init__(inner)
        self.gates = tuple(instance("gates", each, Gate) for each in gates)
        self.clock = checked_clock("clock", clock)
        self.last_words = short_text("last_words", last_words, LONGEST_LAST_WORDS)
        self.parting = 0
        self._by_roll = roll is not None
        if roll is not None:
            instance("roll", roll, Roll)
            for gate in self.gates:
                gate.count(roll)

    def doStart(self) -> None:
        for gate in self.gates:
            gate.open()
        super().doStart()

    def doStop(self) -> None:
        super().doStop()
        for gate in self.gates:
            gate.close()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        attendants: tuple[Attendant, ...] = ()
        for gate in self.gates:
            if not gate.admits(addr):
                return _RefusedConnection(self)
            if not self._by_roll or gate.most_per_peer is not None:
                attendants += gate.attendants(addr, on_roll=self._by_roll)
        inner: IProtocol | None
        inner = self.inner.buildProtocol(addr)  # type: ignore[arg-type]
        if inner is None or not attendants:
            return inner
        return attended(inner, *attendants)
