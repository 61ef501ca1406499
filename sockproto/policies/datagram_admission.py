"""
Whose datagrams are looked at.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sockproto.checks import choice, clock as checked_clock
from sockproto.peers import UNIX, Networks
from sockproto.reporting import Log, Occasional, log
from sockproto.spelling import counted
from sockproto.wrapping import DatagramWrapper

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorTime
    from twisted.internet.protocol import DatagramProtocol

__all__ = ["DatagramAdmission"]

_WORDS = {
    "denied": "from networks that are denied (--deny)",
    "not allowed": "from networks that are not allowed (--allow)",
}


class DatagramAdmission(DatagramWrapper):
    """
    Drops the datagrams of networks that may not send any, before `inner` sees them.

    Drops are logged, at once and then no more than every ten seconds while they
    last; what is left to tell is told when the protocol stops.

    Args:
        inner: what the datagrams are for.
        clock: spaces the log's lines; the reactor, outside tests.
        allow: the networks whose datagrams are looked at, as CIDR texts; none for
            all.
        deny: the networks whose datagrams are not, also if they are allowed.
        log: with `Log.NONE`, drops are only counted.

    Attributes:
        dropped: how many datagrams were dropped, by reason: `denied`,
            `not allowed`.

    Raises:
        SettingError: a text is no network.
    """

    def __init__(
        self,
        inner: DatagramProtocol,
        clock: IReactorTime,
        *,
        allow: Networks | Iterable[str] | str = (),
        deny: Networks | Iterable[str] | str = (),
        log: Log | str = Log.CONNECTIONS,
    ) -> None:
        super().__init__(inner)
        self.allow = Networks("allow", allow)
        self.deny = Networks("deny", deny)
        self.dropped: Counter[str] = Counter()
        self._logs = choice("log", Log, log) is not Log.NONE
        self._told = Occasional(checked_clock("clock", clock), self._tell)

    def startProtocol(self) -> None:
        self._told.begin()
        super().startProtocol()

    def stopProtocol(self) -> None:
        try:
            super().stopProtocol()
        finally:
            self._told.end()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        # On a unix socket the sender is a path, or nobody.
        host = addr[0] if isinstance(addr, tuple) else UNIX
        if self.deny and host in self.deny:
            self._drop("denied")
        elif self.allow and host not in self.allow:
            self._drop("not allowed")
        else:
            self.inner.datagramReceived(datagram, addr)

    def _drop(self, reason: str) -> None:
        self.dropped[reason] += 1
        if self._logs:
            self._told.happened(reason)

    def _tell(self, counts: Counter[str]) -> None:
        for reason, count in counts.items():
            log.warn(
                "Dropped {datagrams}{where} {words}.",
                datagrams=counted(count, "datagram"),
                where=self.where,
                words=_WORDS[reason],
            )
