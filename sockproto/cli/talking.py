"""
The commands that say names: `hello` and `udp`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.defer import Deferred

from sockproto.cli.console import (
    Narrator,
    Output,
    read_line,
    stdin_is_terminal,
)
from sockproto.cli.running import complain, in_daemon_thread, run
from sockproto.connecting import within
from sockproto.datagram import connect_datagram_hello
from sockproto.errors import (
    AddressMalformed,
    CannotRead,
    ConnectionWasReset,
    MisuseError,
    NameNotSendable,
    SockprotoError,
)
from sockproto.hello import HelloClient, connect_hello
from sockproto.places import client_endpoint, host_port
from sockproto.wire.framing import Framing
from sockproto.wire.hello import EXIT, problem_with_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from twisted.python.failure import Failure

__all__ = ["hello", "udp"]


async def _names(
    reactor: Any, given: tuple[str, ...], gone: Deferred[None] | None = None
) -> AsyncIterator[bytes]:
    """
    Yield the names that were given, else those that are typed or piped.

    `gone` fires when there is nobody left to give names to.
    """
    if given:
        for name in given:
            yield os.fsencode(name)
        return
    awaited: list[Deferred[bytes | None]] = []

    def left(_: object) -> None:
        for line in awaited:
            line.errback(ConnectionWasReset("the service has closed it"))

    if gone is not None:
        gone.addCallback(left)
    while True:
        awaited = [_typed(reactor)]
        try:
            line = await awaited[0]
        finally:
            awaited = []
        if line is None:
            return
        if line:
            yield line


def _typed(reactor: Any) -> Deferred[bytes | None]:
    """Fire with the next line; or let somebody else say that none is wanted."""
    line: Deferred[bytes | None] = Deferred()

    def came(result: Any) -> None:
        if not line.called:
            line.callback(result)

    reading = in_daemon_thread(reactor, read_line, "name>")
    reading.addErrback(_cannot_read).addBoth(came)
    return line


def _cannot_read(failure: Failure) -> None:
    failure.trap(OSError)
    raise CannotRead("standard input", str(failure.value)) from failure.value


def _check(names: tuple[str, ...], how: Framing) -> None:
    """Before anything is said: half a conversation helps nobody."""
    for name in map(os.fsencode, names):
        problem = None if name == EXIT else problem_with_name(how, name)
        if problem is not None:
            raise NameNotSendable(name, problem)


def hello(
    names: tuple[str, ...],
    address: str,
    framing: str,
    family: int | None,
    timeout: float,
    *,
    no_greeting: bool,
    verbose: bool,
) -> NoReturn:
    """
    Run `sockproto hello`.
    """
    how = Framing(framing)

    async def talk(reactor: Any, output: Output) -> None:
        _check(names, how)
        observer = Narrator() if verbose else None
        endpoint = client_endpoint(reactor, address, family=family, observer=observer)
        client: HelloClient = await within(
            reactor,
            connect_hello(
                endpoint, framing=how, greeted=not no_greeting, observer=observer
            ),
            timeout,
            f"a connection to {address}",
        )
        unsaid: list[Failure] = []
        if not no_greeting:
            greeting = client.greeting()
            if how is Framing.CHUNK:
                greeting = within(reactor, greeting, timeout, "a greeting")
                output.write_line(await greeting)
            else:
                # It may be complete only after our first name.
                greeting.addCallback(output.write_line)
                greeting.addErrback(unsaid.append)
        gone = client.closed()
        gone.addErrback(lambda failure: None)
        async for name in _names(reactor, names, gone):
            if name == EXIT:
                break
            try:
                answer = client.greet(name)
            except MisuseError as error:
                if names or not stdin_is_terminal():
                    raise
                complain("hello", error, error.exit_status)
                continue
            answer = within(reactor, answer, timeout, "an answer")
            output.write_line(await answer)
        await within(reactor, client.close(), timeout, "the end of the conversation")
        for failure in unsaid:
            failure.raiseException()  # if none came, closing has told of it

    run("hello", talk)


def udp(
    names: tuple[str, ...],
    address: str,
    answer: str,
    family: int | None,
    timeout: float,
    tries: int,
    *,
    verbose: bool,
) -> NoReturn:
    """
    Run `sockproto udp`.
    """

    async def talk(reactor: Any, output: Output) -> int:
        where = host_port(address)
        if where is None:
            raise AddressMalformed(address, "HOST:PORT or [v6]:PORT will do")
        client = await connect_datagram_hello(
            reactor,
            *where,
            timeout=timeout,
            tries=tries,
            answer=answer,
            family=family,
            observer=Narrator() if verbose else None,
        )
        status = 0
        async for name in _names(reactor, names):
            if name == EXIT and not names:
                break
            try:
                output.write_line(await client.greet(name))
            except SockprotoError as error:
                if error.exit_status == 23:
                    raise
                complain("udp", error, error.exit_status)
                status = status or error.exit_status
        await client.close()
        return status

    run("udp", talk)
