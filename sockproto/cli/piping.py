"""
The commands that carry bytes: `echo` and `connect`.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from sockproto import connecting
from sockproto.cli.console import (
    Narrator,
    Output,
    read_input,
    read_line,
    stdin_is_terminal,
)
from sockproto.cli.running import in_daemon_thread, run
from sockproto.connecting import ClientStream, Host, within
from sockproto.echo import EchoClient, connect_echo
from sockproto.errors import (
    AddressMalformed,
    CannotRead,
    NothingCame,
    PeerError,
    PeerLeftOwing,
    SockprotoError,
    TimedOut,
)
from sockproto.places import client_endpoint, host_port

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

__all__ = ["connect", "echo"]

UNWRITTEN_SIZE = 262_144
"""Bytes that wait for standard output before we stop reading the peer."""

# For systems without a table of services; the tutorials' examples.
SERVICES = {
    "ftp": 21,
    "gopher": 70,
    "imap": 143,
    "nntp": 119,
    "pop3": 110,
    "smtp": 25,
    "telnet": 23,
}


@implementer(IPushProducer)
class Pipe(ClientStream):
    """
    Standard input to the peer, the peer to standard output.

    Args:
        reactor: calls back from the threads that read and write.
        output: standard output.
        echoes: whether the peer owes us each byte that we send.
        crlf: whether an LF of the input is sent as CRLF.
        timeout: seconds of silence from the peer; None for ever.
    """

    def __init__(
        self,
        reactor: Any,
        output: Output,
        *,
        echoes: bool = False,
        crlf: bool = False,
        timeout: float | None = None,
        observer: Narrator | None = None,
    ) -> None:
        super().__init__(observer)
        self._reactor = reactor
        self._output = output
        self._echoes = echoes
        self._crlf = crlf
        self._timeout = timeout
        self._silence: IDelayedCall | None = None
        self._bytes_sent = 0
        self._input_read = False
        self._wanted: Deferred[None] | None = None
        self._unwritten: deque[bytes] = deque()
        self._unwritten_size = 0
        self._writing = False
        self.written: Deferred[None] = Deferred()

    def _made(self) -> None:
        self.transport.registerProducer(self, True)
        if self._timeout is not None:
            self._silence = self._reactor.callLater(self._timeout, self._timed_out)
        Deferred.fromCoroutine(self._send_input()).addErrback(self._cannot_read)

    def _cannot_read(self, failure: Failure) -> None:
        self.abort(CannotRead("standard input", str(failure.value)))

    async def _send_input(self) -> None:
        while self.ended is None:
            data = await in_daemon_thread(self._reactor, read_input)
            if self._over_by_now():
                return
            if not data:
                break
            if self._crlf:
                data = data.replace(b"\n", b"\r\n")
            self._bytes_sent += len(data)
            self.send(data)
            if self._wanted is not None:
                await self._wanted
        self._input_read = True
        self.transport.unregisterProducer()
        if self._input_ended:
            self.transport.loseConnection()
        else:
            self.end_input()

    def _over_by_now(self) -> bool:
        return self.ended is not None

    # The transport's back-pressure on standard input

    def pauseProducing(self) -> None:
        self._wanted = Deferred()

    def resumeProducing(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            wanted.callback(None)

    def stopProducing(self) -> None:
        self.resumeProducing()

    # Standard output's back-pressure on the transport

    def _received(self, data: bytes) -> None:
        if self._silence is not None and self._timeout is not None:
            self._silence.reset(self._timeout)
        self._unwritten.append(data)
        self._unwritten_size += len(data)
        if self._unwritten_size > UNWRITTEN_SIZE:
            self.transport.pauseProducing()
        self._write_next()

    def _write_next(self) -> None:
        if self._writing:
            return
        if not self._unwritten:
            if self.ended is not None and not self.written.called:
                self.written.callback(None)
            return
        self._writing = True
        data = b"".join(self._unwritten)
        self._unwritten.clear()
        written = in_daemon_thread(self._reactor, self._output.write, data)
        written.addCallbacks(self._wrote, self._cannot_write, callbackArgs=(len(data),))

    def _wrote(self, _: None, size: int) -> None:
        self._writing = False
        paused = self._unwritten_size > UNWRITTEN_SIZE
        self._unwritten_size -= size
        room = self._unwritten_size <= UNWRITTEN_SIZE
        if paused and room and self.ended is None and not self._input_ended:
            self.transport.resumeProducing()
        self._write_next()

    def _cannot_write(self, failure: Any) -> None:
        if self.ended is None:
            self.abort(failure.value)
        self.written.errback(failure)

    # The end

    def _timed_out(self) -> None:
        self._silence = None
        assert self._timeout is not None
        if self._unwritten_size > UNWRITTEN_SIZE:
            # Standard output is what is slow; the peer is not heard.
            self._silence = self._reactor.callLater(self._timeout, self._timed_out)
            return
        self.abort(TimedOut("the peer's next byte", self._timeout))

    def _peer_ended(self) -> None:
        self._stop_silence()  # nothing more is to come
        if not self._input_read and not stdin_is_terminal():
            if not self._echoes:
                return  # it may still listen: the rest of the input is for it
            rest = PeerLeftOwing("what was still to be sent")
            self.abort(rest if self.bytes_received else NothingCame())
            return
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _shortfall(self) -> PeerError | None:
        owed = self._bytes_sent - self.bytes_received
        if not self._echoes or owed <= 0:
            return None
        return PeerLeftOwing(f"{owed} bytes") if self.bytes_received else NothingCame()

    def _stop_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def connectionLost(self, *reason: Any) -> None:
        self._stop_silence()
        super().connectionLost(*reason)
        self._write_next()


async def _carry(
    reactor: Any,
    endpoint: Any,
    make: Any,
    timeout: float | None,
    where: str,
) -> None:
    connecting_pipe: Deferred[Pipe] = connecting.connect(endpoint, make)
    if timeout is not None:
        connecting_pipe = within(
            reactor, connecting_pipe, timeout, f"a connection to {where}"
        )
    pipe = await connecting_pipe
    over: SockprotoError | None = None
    try:
        await pipe.closed()
    except SockprotoError as error:
        over = error
    # What came is written first, whatever else went wrong.
    try:
        await pipe.written
    except SockprotoError as error:
        over = over or error
    if over is not None:
        raise over


def echo(
    address: str, family: int | None, timeout: float | None, *, verbose: bool
) -> NoReturn:
    """
    Run `sockproto echo`.
    """

    async def talk(reactor: Any, output: Output) -> None:
        observer = Narrator() if verbose else None
        endpoint = client_endpoint(reactor, address, family=family, observer=observer)
        if stdin_is_terminal():
            await _converse(reactor, output, endpoint, address, timeout, observer)
            return

        def make() -> Pipe:
            return Pipe(
                reactor, output, echoes=True, timeout=timeout, observer=observer
            )

        await _carry(reactor, endpoint, make, timeout, address)

    run("echo", talk)


async def _converse(
    reactor: Any,
    output: Output,
    endpoint: Any,
    address: str,
    timeout: float | None,
    observer: Narrator | None,
) -> None:
    def bounded(awaited: Deferred[Any], what: str) -> Deferred[Any]:
        return awaited if timeout is None else within(reactor, awaited, timeout, what)

    client: EchoClient = await bounded(
        connect_echo(endpoint, observer=observer), f"a connection to {address}"
    )
    while True:
        line = await in_daemon_thread(reactor, read_line, "input>")
        if line is None or line == b"exit":
            break
        if line:
            output.write(await bounded(client.echo(line + b"\n"), "the echo"))
    await bounded(client.close(), "the end of the conversation")


def connect(
    host: str,
    port: str,
    family: int | None,
    timeout: float | None,
    *,
    crlf: bool,
    verbose: bool,
) -> NoReturn:
    """
    Run `sockproto connect`.
    """

    async def talk(reactor: Any, output: Output) -> None:
        observer = Narrator() if verbose else None
        endpoint = Host(reactor, *_where(host, port), family=family, observer=observer)

        def make() -> Pipe:
            return Pipe(reactor, output, crlf=crlf, timeout=timeout, observer=observer)

        await _carry(reactor, endpoint, make, timeout, str(endpoint))

    run("connect", talk)


def _where(host: str, port: str) -> tuple[str, int]:
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdigit():
        try:
            number = socket.getservbyname(port, "tcp")
        except (OSError, UnicodeError):
            number = SERVICES.get(port.lower(), 0)
        if not number:
            raise AddressMalformed(
                f"{host} {port}",
                f"{port!r} is neither a port number nor a known service",
            )
        return host, number
    spelled = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    found = host_port(spelled)
    if found is None:
        raise AddressMalformed(spelled, "it is no host name and port")
    return found
