"""
Hello and echo over UDP: the services, and hello's client.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address as _IPv6
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from sockproto.checks import choice, seconds, whole_number
from sockproto.connecting import fail_all, fire, first_address
from sockproto.errors import (
    MisuseError,
    NameNotSendable,
    NotConnected,
    SettingError,
    SockprotoError,
    TimedOut,
)
from sockproto.reporting import Log, log
from sockproto.spelling import counted, host_and_port, spell
from sockproto.wire.datagram import LARGEST_DATAGRAM, answer_to
from sockproto.wire.hello import DEFAULT_ANSWER, Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from sockproto.connecting import Observer
    from sockproto.transports import DatagramTransport

__all__ = [
    "DatagramHelloClient",
    "EchoDatagramProtocol",
    "HelloDatagramProtocol",
    "connect_datagram_hello",
]

FIRST_USER_PORT = 1024
"""Ports below are those of services, which never ask: an answer could start a loop."""

BURST = 1_000
"""Datagrams that the kernel is asked to hold for us."""

DATAGRAM_COST = 1_280
"""
Bytes that Linux counts for a small datagram and its bookkeeping (768, at most
1,280 seen): `SO_RCVBUF` is spent on both.
"""


_DROPPED = {
    "port": "from ports of services",
    "own": "from our own places",
    "no name": "without a name",
    "too large": "whose answer is too large",
    "not sent": "whose answer was not sent",
}


class ServiceDatagramProtocol(DatagramProtocol):
    """
    Answers datagrams, but never so that two services could answer each other.

    Dropped are datagrams from source port 0, from below 1024 unless `any_port`,
    and from our own places. A subclass says what the answer is.

    Args:
        any_port: answer source ports below 1024 too.
        own_places: addresses of services that belong together; shared by them,
            and each adds its own when it starts.
        log: how much is logged.

    Attributes:
        dropped: how many datagrams got no answer, by reason: `port`, `own`,
            `no name`, `too large`, `not sent`.
    """

    noisy = False
    transport: DatagramTransport  # type: ignore[assignment]

    def __init__(
        self,
        *,
        any_port: bool = False,
        own_places: OwnPlaces | None = None,
        log: Log | str = Log.CONNECTIONS,
    ) -> None:
        self.log = choice("log", Log, log)
        self.dropped: Counter[str] = Counter()
        self._lowest_port = 1 if any_port else FIRST_USER_PORT
        self._own = OwnPlaces() if own_places is None else own_places
        self._logs_messages = self.log is Log.MESSAGES
        self._place: tuple[str, int] | None = None

    def startProtocol(self) -> None:
        if not hasattr(self.transport, "getHost"):
            return  # Twisted's FakeDatagramTransport, in somebody's unit test
        host = self.transport.getHost()
        self._place = (host.host, host.port)
        self._own.add(*self._place)
        if self.log is not Log.NONE:
            log.info("Bind UDP on {port}...", port=host.port)
        handle = getattr(self.transport, "getHandle", None)
        if handle is not None:
            _ask_for_buffer(handle())

    def stopProtocol(self) -> None:
        if self._place is not None:
            self._own.remove(*self._place)
            self._place = None
        if self.dropped and self.log is not Log.NONE:
            log.info(
                "No answer was given to {datagrams}: {why}.",
                datagrams=counted(self.dropped.total(), "datagram"),
                why=", ".join(
                    f"{n} {_DROPPED[why]}" for why, n in self.dropped.items()
                ),
            )

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        if self._logs_messages:
            log.info("Received from {peer}.", peer=host_and_port(addr[0], addr[1]))
        port = addr[1]
        if port < self._lowest_port:
            self.dropped["port"] += 1
        elif port in self._own.ports and self._own.has(addr[0], port):
            self.dropped["own"] += 1
        else:
            answer = self._answer(datagram)
            if answer is None:
                self.dropped["no name"] += 1
                return
            try:
                self.transport.write(answer, addr)
            except MessageLengthError:
                self.dropped["too large"] += 1
            except OSError:
                # The kernel's buffer is full, a firewall or a route is in the way.
                # UDP may lose datagrams; so does this one.
                self.dropped["not sent"] += 1

    def _answer(self, datagram: bytes) -> bytes | None:
        raise NotImplementedError


class HelloDatagramProtocol(ServiceDatagramProtocol):
    """
    Answers each datagram with `Hello, NAME!`, at once.

    An empty datagram is no name, and one that starts and ends as an answer does
    is taken for one; both get no answer.

    Args:
        answer: holds `NAME` exactly once, and something beside it.
        any_port, own_places, log: see `ServiceDatagramProtocol`.

    Raises:
        SettingError: `answer` is not like that.
    """

    def __init__(
        self,
        *,
        answer: bytes | str = DEFAULT_ANSWER,
        any_port: bool = False,
        own_places: OwnPlaces | None = None,
        log: Log | str = Log.CONNECTIONS,
    ) -> None:
        super().__init__(any_port=any_port, own_places=own_places, log=log)
        self._template = Answer.parse(answer)
        if not self._template.tells_itself:
            raise SettingError(
                "answer",
                answer,
                "over UDP, a text with something beside NAME, by which two services"
                " can tell an answer,",
            )

    def _answer(self, datagram: bytes) -> bytes | None:
        return answer_to(self._template, datagram)


class EchoDatagramProtocol(ServiceDatagramProtocol):
    """
    Sends each datagram back (RFC 862), also an empty one.

    An echo cannot tell an answer from a question. Its only guard against loops
    are the ports it does not answer.
    """

    def _answer(self, datagram: bytes) -> bytes | None:
        return datagram


class OwnPlaces:
    """
    The UDP addresses of services that belong together.

    Attributes:
        ports: theirs, for a first look that costs little.
    """

    def __init__(self) -> None:
        self.ports: frozenset[int] = frozenset()
        self._places: list[tuple[str, int]] = []

    def add(self, host: str, port: int) -> None:
        """Add the address of a socket, `0.0.0.0` and `::` included."""
        self._places.append((_unmapped(host), port))
        self.ports = frozenset(port for _, port in self._places)

    def remove(self, host: str, port: int) -> None:
        """Forget a socket that was closed."""
        self._places.remove((_unmapped(host), port))
        self.ports = frozenset(port for _, port in self._places)

    def has(self, host: str, port: int) -> bool:
        """Tell whether a datagram from there comes from one of these places."""
        host = _unmapped(host)
        if (host, port) in self._places:
            return True
        everywhere = any((each, port) in self._places for each in _EVERYWHERE)
        return everywhere and _is_local(host)


# Compared, not bound.
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104


def _unmapped(host: str) -> str:
    """The IPv4 address that an IPv6 socket shows as `::ffff:a.b.c.d`."""
    if host.startswith("::ffff:"):
        mapped = _IPv6(host).ipv4_mapped
        return host if mapped is None else str(mapped)
    return host


def _is_local(host: str) -> bool:
    """Ask the kernel: only an address of this machine can be bound to."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        probe = socket.socket(family, socket.SOCK_DGRAM)
    except OSError:
        return True  # at the limit of open files nobody can tell: never loop
    with probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _ask_for_buffer(handle: socket.socket) -> None:
    wanted = BURST * DATAGRAM_COST
    with suppress(OSError):
        # Linux doubles what it is asked for, to count the bookkeeping in.
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted // 2)
        granted = handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        if granted < wanted:
            log.info(
                "The kernel gives {granted} bytes of receive buffer, enough for some"
                " {datagrams} small datagrams of the {burst} asked for"
                " (net.core.rmem_max is the limit).",
                granted=granted,
                datagrams=granted // DATAGRAM_COST,
                burst=BURST,
            )


@dataclass
class _Question:
    """A name that was sent, and those who wait for its answer."""

    datagram: bytes
    tries_left: int
    waiters: list[Deferred[bytes]] = field(default_factory=list)
    again: IDelayedCall | None = None


class DatagramHelloClient(DatagramProtocol):
    """
    The client of a UDP hello service, on a UDP socket connected to it.

    UDP may lose, repeat and reorder datagrams, so an answer is matched to its
    name by what it says, and a name without an answer is sent again.

    Args:
        clock: measures the timeout; the reactor, outside tests.
        timeout: seconds to wait for an answer, a try.
        tries: how many times a name is sent.
        answer: what the service's answers look like; holds `NAME` exactly once.
        where: the peer's address, for error messages.
        observer: is told what happens on the socket.
        reopen: makes a new socket for this protocol, should the old one have
            died: on some reactors an ICMP refusal closes it.

    Attributes:
        unexpected: the last datagram that answers no name we wait for: a late
            repetition, or of a service whose `answer` is another.
    """

    noisy = False
    transport: DatagramTransport  # type: ignore[assignment]

    def __init__(
        self,
        clock: IReactorTime,
        *,
        timeout: float = 1.0,
        tries: int = 3,
        answer: bytes | str = DEFAULT_ANSWER,
        where: str = "the peer",
        observer: Observer | None = None,
        reopen: Callable[[], None] | None = None,
    ) -> None:
        self._clock = clock
        self._timeout = seconds("timeout", timeout, above_zero=True)
        self._tries = whole_number("tries", tries, 1, sys.maxsize)
        self._template = Answer.parse(answer)
        self._where = where
        self._observer = observer
        self._reopen = reopen
        self._questions: dict[bytes, _Question] = {}
        self._open = False
        self._closing: Deferred[None] | None = None
        self.unexpected: bytes | None = None

    def greet(self, name: bytes | str) -> Deferred[bytes]:
        """
        Send a name; fires with the answer.

        Calls may overlap; two with the same name share one answer. Cancelling
        gives up this name and no other.

        Raises:
            NameNotSendable: the name is empty, or larger than a datagram.
            MisuseError: `close` was called before.

        Errors:
            TimedOut: no try was answered.
            NotConnected: refused (nobody listens there), or unreachable.
        """
        if isinstance(name, str):
            name = name.encode("utf-8", "surrogateescape")
        if not name:
            raise NameNotSendable(name, "it is empty, and an empty name gets no answer")
        if self._template.tells_itself and self._template.name_in(name) is not None:
            raise NameNotSendable(name, "it looks like an answer, and gets none")
        if self._closing is not None:
            raise MisuseError("close() was called before greet()")
        waiter: Deferred[bytes] = Deferred(lambda d: self._give_up(name, d))
        question = self._questions.get(name)
        if question is not None:
            question.waiters.append(waiter)
            return waiter
        question = _Question(name, self._tries, [waiter])
        self._questions[name] = question
        try:
            if not self._open and self._reopen is not None:
                self._reopen()
            self._try(question)
        except NotConnected as error:
            self._fail(question, error)
        except MessageLengthError:
            self._drop(question)
            raise NameNotSendable(
                name, f"its {len(name)} bytes do not fit one datagram"
            ) from None
        return waiter

    def close(self) -> Deferred[None]:
        """
        Close the socket; fires when it is closed. What is awaited fails.
        """
        if self._closing is None:
            self._closing = Deferred()
            self._fail_all(NotConnected(self._where, "closed at this end"))
            if self._open:
                self.transport.stopListening()
            else:
                self._closing.callback(None)
        return self._closing

    def _try(self, question: _Question) -> None:
        question.tries_left -= 1
        question.again = self._clock.callLater(self._timeout, self._silence, question)
        if self._observer is not None:
            self._observer.sent(question.datagram)
        try:
            self.transport.write(question.datagram)
        except OSError as error:
            self._fail(question, NotConnected(self._where, str(error.strerror).lower()))

    def _silence(self, question: _Question) -> None:
        question.again = None
        if question.tries_left:
            self._try(question)
            return
        awaited = f"an answer to {spell(question.datagram)}"
        if self._tries > 1:
            awaited += f", sent {self._tries} times,"
        if self.unexpected is not None:
            awaited += f" (though {spell(self.unexpected)} came)"
        self._fail(question, TimedOut(awaited, self._tries * self._timeout))

    def _drop(self, question: _Question) -> None:
        self._questions.pop(question.datagram, None)
        if question.again is not None:
            question.again.cancel()
            question.again = None

    def _fail(self, question: _Question, error: SockprotoError) -> None:
        self._drop(question)
        fail_all(question.waiters, error)

    def _fail_all(self, error: SockprotoError) -> None:
        for question in list(self._questions.values()):
            self._fail(question, error)

    def _give_up(self, name: bytes, waiter: Deferred[bytes]) -> None:
        question = self._questions.get(name)
        if question is not None and waiter in question.waiters:
            question.waiters.remove(waiter)
            if not question.waiters:
                self._drop(question)

    # Twisted's side

    def startProtocol(self) -> None:
        self._open = True

    def stopProtocol(self) -> None:
        self._open = False
        if self._closing is not None:
            if not self._closing.called:
                self._closing.callback(None)
        else:
            # Nobody asked for it: epoll reports an ICMP refusal so.
            self._refused()

    def connectionRefused(self) -> None:
        self._refused()

    def _refused(self) -> None:
        self._fail_all(NotConnected(self._where, "refused: nobody listens there"))

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        if self._observer is not None:
            self._observer.received(datagram)
        name = self._template.name_in(datagram)
        question = None if name is None else self._questions.get(name)
        if question is None:
            self.unexpected = datagram
            return
        self._drop(question)
        for waiter in question.waiters:
            fire(waiter, datagram)


def _with_scope(host: str, port: int) -> Any:
    flags = socket.AI_NUMERICHOST
    return socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)[0][4]


def connect_datagram_hello(
    reactor: Any,
    host: str,
    port: int,
    *,
    timeout: float = 1.0,
    tries: int = 3,
    answer: bytes | str = DEFAULT_ANSWER,
    family: int | None = None,
    observer: Observer | None = None,
) -> Deferred[DatagramHelloClient]:
    """
    Open a `DatagramHelloClient` for a service; cancelling gives up.

    Errors:
        NameNotResolved: the host has no address (of that family, 4 or 6).
        NotConnected: there is no route to it.
    """

    def open_socket(address: IPv4Address | IPv6Address) -> DatagramHelloClient:
        def reopen() -> None:
            interface = "::" if isinstance(address, IPv6Address) else ""
            udp = reactor.listenUDP(
                0, client, interface=interface, maxPacketSize=LARGEST_DATAGRAM
            )
            try:
                if "%" in address.host:
                    # Twisted's connect drops the scope; the socket will keep it.
                    udp.getHandle().connect(_with_scope(address.host, port))
                udp.connect(address.host, port)
            except OSError as error:
                udp.stopListening()
                raise NotConnected(
                    host_and_port(address.host, port), str(error.strerror).lower()
                ) from error

        client = DatagramHelloClient(
            reactor,
            timeout=timeout,
            tries=tries,
            answer=answer,
            where=host_and_port(address.host, port),
            observer=observer,
            reopen=reopen,
        )
        reopen()
        if observer is not None:
            here = client.transport.getHost()
            observer.connected(
                host_and_port(here.host, here.port),
                host_and_port(address.host, port),
            )
        return client

    return first_address(reactor, host, port, family, observer).addCallback(open_socket)
