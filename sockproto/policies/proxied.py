"""
Connections that come through a proxy, and say so in their first bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from sockproto.checks import (
    choice,
    clock as checked_clock,
    seconds as checked_seconds,
)
from sockproto.errors import PeerError
from sockproto.interfaces import Debt, IOwing
from sockproto.reporting import Log, describe_address, log
from sockproto.wire.proxy import Endpoint, ProxyHeader, ProxyHeaderReader, UnixEndpoint
from sockproto.wrapping import ConnectionWrapper, FactoryWrapper, accountable

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IAddress,
        IDelayedCall,
        IProtocol,
        IProtocolFactory,
        IReactorTime,
    )
    from twisted.python.failure import Failure

__all__ = ["BehindProxy"]


@implementer(IOwing)
class _Unknown(Protocol):
    """
    Stands for the inner protocol until it is known who has come.
    """

    transport: Any
    bytes_received = 0
    bytes_sent = 0

    def owed(self) -> Debt:
        return Debt()

    def finish(self, reason: str) -> None:
        self._tell(reason)
        self.transport.loseConnection()

    def abort(self, reason: str) -> None:
        self._tell(reason)
        self.transport.abortConnection()

    def _tell(self, reason: str) -> None:
        self.transport.tell(f"{reason}, without a header")


class _ProxiedConnection(ConnectionWrapper):
    """
    Reads the header, and then has the inner protocol built for who is behind it.
    """

    factory: BehindProxy

    _reader: ProxyHeaderReader | None
    _deadline: IDelayedCall | None = None
    _source: IAddress | None = None
    _destination: IAddress | None = None

    def makeConnection(self, transport: Any) -> None:
        self._reader = ProxyHeaderReader()
        self._deadline = self.factory.clock.callLater(
            self.factory.seconds, self._too_late
        )
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        if self._reader is None:
            self.inner.dataReceived(data)
            return
        try:
            read = self._reader.receive_data(data)
        except PeerError as error:
            self._refuse(str(error))
        else:
            if read is not None:
                self._begin(*read)

    def _begin(self, header: ProxyHeader, rest: bytes) -> None:
        self._stop_waiting()
        self._reader = None
        transport = self.transport
        self._source = _address(header.source)
        self._destination = _address(header.destination)
        inner: IProtocol | None = self.factory.inner.buildProtocol(self.getPeer())
        if inner is None:
            transport.loseConnection()
            return
        self.protocol = accountable(inner)
        self.protocol.makeConnection(self)  # type: ignore[arg-type]
        self.inner_changed()
        if rest:
            self.inner.dataReceived(rest)

    def _too_late(self) -> None:
        self._deadline = None
        self._refuse(f"no header of the PROXY protocol in {self.factory.seconds:g} s")

    def _refuse(self, problem: str) -> None:
        self._stop_waiting()
        self._reader = None  # what follows is nobody's
        self.factory.refused += 1
        self.tell(problem)
        self.transport.abortConnection()

    def tell(self, problem: str) -> None:
        """Log why it ends, the proxy's address with it."""
        if self.factory.logs:
            log.info(
                "Closing the connection from {peer}: {problem}.",
                peer=describe_address(self.transport.getPeer()),
                problem=problem,
            )

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_waiting()
        super().connectionLost(reason)

    def getPeer(self) -> IAddress:
        return self._source or self.transport.getPeer()

    def getHost(self) -> IAddress:
        return self._destination or self.transport.getHost()


def _address(endpoint: Endpoint | None) -> IAddress | None:
    if endpoint is None:
        return None
    if isinstance(endpoint, UnixEndpoint):
        return UNIXAddress(endpoint.path or None)
    kind = IPv6Address if ":" in endpoint.host else IPv4Address
    return kind("TCP", endpoint.host, endpoint.port)


class BehindProxy(FactoryWrapper[_ProxiedConnection]):
    """
    Serves connections that begin with a header of the PROXY protocol, v1 or v2.

    The inner protocol is built when the header has come, for the address that it
    names, and sees both addresses of the header on its transport. Half-close and
    all else is as without a proxy. A connection without a header, or with a broken
    one, is aborted, with one line of the log.

    Wrappers inside see the real peer, those around it the proxy.

    Args:
        inner: builds the protocols.
        clock: measures; the reactor, outside tests.
        seconds: how long the header may take.
        log: with `Log.NONE`, those that had none are only counted.

    Attributes:
        refused: how many connections had no header, or a broken one.

    Raises:
        SettingError: `seconds` is no number above 0.
    """

    def __init__(
        self,
        inner: IProtocolFactory,
        clock: IReactorTime,
        *,
        seconds: float = 10.0,
        log: Log | str = Log.CONNECTIONS,
    ) -> None:
        super().__init__(inner)
        self.clock = checked_clock("clock", clock)
        self.seconds = checked_seconds("seconds", seconds, above_zero=True)
        self.logs = choice("log", Log, log) is not Log.NONE
        self.refused = 0

    def buildProtocol(self, addr: IAddress | None) -> _ProxiedConnection:
        return self.wrap(_Unknown())

    def wrap(self, inner: IProtocol) -> _ProxiedConnection:
        return _ProxiedConnection(self, inner)
