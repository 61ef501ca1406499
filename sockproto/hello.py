"""
Hello over a stream: the service and its client.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from sockproto.checks import as_bytes, choice, seconds, whole_number
from sockproto.connecting import ClientStream, connect, fail_all, fire
from sockproto.errors import (
    MisuseError,
    NameNotSendable,
    PeerError,
    PeerLeftOwing,
    SettingError,
    SockprotoError,
)
from sockproto.interfaces import Debt, IAttended
from sockproto.reporting import Log, log
from sockproto.spelling import spell
from sockproto.stream import StreamFactory, StreamProtocol
from sockproto.transports import unsent
from sockproto.wire.framing import (
    DEFAULT_MAX_MESSAGE,
    LARGEST_MESSAGE,
    Answering,
    Framing,
    Opening,
    frame,
    no_answer,
)
from sockproto.wire.hello import (
    DEFAULT_ANSWER,
    DEFAULT_GREETING,
    EXIT,
    Answer,
    Exited,
    GreetingCame,
    HelloClientConversation,
    HelloConversation,
    Named,
    problem_with_name,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IDelayedCall,
        IReactorTime,
        IStreamClientEndpoint,
    )

    from sockproto.connecting import Observer

__all__ = ["HelloClient", "HelloFactory", "HelloProtocol", "connect_hello"]

QUIET_SECONDS = 0.05
"""A pause this long in the opening of an `auto` conversation makes it one of chunks."""

WAITING_SIZE = 32_768
"""
Bytes that wait for their delay before we stop reading. One read more may come
on top, of up to 64 KiB, and as much waits to be sent: together they stay below
256 KiB a connection. On uvloop, whose reads are of up to 250 KiB, it is 330.
"""

READ_COST = 128
"""Bytes that the record of a read weighs: a peer may send its bytes one by one."""

BATCH_SIZE = 4_096
"""
Bytes of answers that are written in a turn of the reactor. 100 clients that pipeline
one-letter names held up another for 2 s when each was answered as far as its
transport took it, and for 0.2 s with this.
"""


@implementer(IAttended, IPushProducer)
class HelloProtocol(StreamProtocol):
    """
    Carries one hello conversation over one connection.

    What was read waits for its delay as bytes, and is cut into names when it is
    due; and no further than the transport takes the answers.
    """

    __slots__ = ("_at_once",)  # each message looks at it

    factory: HelloFactory

    attendants = rolls = ()  # it hands its transport to nobody

    _opening: Opening | None = None
    _conversation: HelloConversation
    _at_once: Answering  # the answer, if nothing is before it
    _more = False  # is due, and waits for the others to have their turn
    _blocked = False  # by the transport: it is full of what it has to send
    _reading = True
    _waiting_cost = 0
    _last_read = 0.0
    _quiet: IDelayedCall | None = None
    _due: IDelayedCall | None = None
    _eof_taken = False

    def _begin(self) -> None:
        factory = self.factory
        self._at_once = no_answer
        # What was read and waits: when it is due, and the bytes.
        self._waiting: deque[tuple[float, bytes]] = deque()
        self.transport.registerProducer(self, True)
        if factory.framing is Framing.AUTO:
            self._opening = Opening()
        else:
            self._conversation = factory.conversation(factory.framing)
        if factory.greeting:
            self._send(frame(factory.framing, factory.greeting))

    def dataReceived(self, data: bytes) -> None:
        at_once = self._at_once  # a local is called faster
        answer = at_once(data)
        if answer is None:
            super().dataReceived(data)
        else:
            self._received += len(data)
            self._sent += len(answer)
            self._writer.write(answer)

    def finish(self, reason: str) -> None:
        self._at_once = no_answer
        super().finish(reason)

    def _receive(self, data: bytes) -> None:
        if self._opening is not None:
            self._open(self._opening, data)
        elif self.factory.delay or self._waiting or self._blocked or self._more:
            self._wait(self.factory.clock.seconds(), data)
        else:
            self._conversation.receive_data(data)
            self._go_on()

    def readConnectionLost(self) -> None:
        if self._close is not None:
            super().readConnectionLost()
            return
        self._input_ended = True  # and it may still be owed something
        if self._opening is not None:
            self._settle(self._opening, self._opening.receive_eof() or Framing.CHUNK)
        self._go_on()

    def _lost(self) -> None:
        self._forget_waiting()

    # The opening of an auto conversation

    def _open(self, opening: Opening, data: bytes) -> None:
        clock = self.factory.clock
        self._last_read = clock.seconds()
        framing = opening.receive_data(data)
        if framing is not None:
            self._settle(opening, framing)
        elif self._quiet is not None:
            self._quiet.reset(QUIET_SECONDS)
        else:
            self._quiet = clock.callLater(QUIET_SECONDS, self._fell_quiet, opening)

    def _fell_quiet(self, opening: Opening) -> None:
        self._quiet = None
        framing = opening.settle()
        assert framing is not None, "the clock was started by a first byte"
        self._settle(opening, framing)

    def _settle(self, opening: Opening, framing: Framing) -> None:
        self._stop_quiet()
        self._opening = None
        self._conversation = self.factory.conversation(framing)
        if framing is Framing.LINE and self.factory.greeting:
            self._send(b"\n")  # the greeting went out bare
        if opening.run:
            self._wait(self._last_read, opening.run)

    # The delay

    def _wait(self, arrived: float, data: bytes) -> None:
        self._waiting.append((arrived + self.factory.delay, data))
        self._waiting_cost += len(data) + READ_COST
        self._go_on()

    def _go_on(self) -> None:
        """Answer what is due, as far as the transport takes it; then look again."""
        try:
            self._answer_due()
        except PeerError as error:
            self._end(str(error))
        if self._finishing:
            return
        if self._more or self._waiting:
            self._at_once = no_answer
            if not self._blocked:
                self._go_on_later()
        elif self._blocked or self._conversation.pending:
            self._at_once = no_answer
        elif not (self.factory.delay or self.factory.logs_messages):
            self._at_once = self._conversation.answer_at_once
        self._read_or_not()

    def _go_on_later(self) -> None:
        clock = self.factory.clock
        if self._due is None:
            wait = 0.0 if self._more else self._waiting[0][0] - clock.seconds()
            self._due = clock.callLater(max(0.0, wait), self._fall_due)
        elif self._more:
            self._due.reset(0)

    def _fall_due(self) -> None:
        self._due = None
        self._go_on()

    def _answer_due(self) -> None:
        answers: list[bytes] = []
        size = 0
        self._more = False
        try:
            while not self._blocked:
                event = self._conversation.next_event()
                if isinstance(event, Named):
                    answers.append(event.answer)
                    size += len(event.answer)
                    if self.factory.logs_messages:
                        log.info(
                            "Received {name} from {peer}.",
                            name=spell(event.name),
                            peer=self.peer,
                        )
                    if size >= BATCH_SIZE:
                        self._more = True
                        break
                elif event is None:
                    if not self._feed_due():
                        break
                else:
                    self._send_all(answers)
                    said_exit = isinstance(event, Exited)
                    self._end("it said exit" if said_exit else "the client closed")
                    break
        finally:
            # Also before a broken name is complained of.
            self._send_all(answers)

    def _send_all(self, answers: list[bytes]) -> None:
        if answers:
            self._send(b"".join(answers))
            answers.clear()

    def _feed_due(self) -> bool:
        """Give the conversation the next read that is due, or the end of input."""
        waiting = self._waiting
        if waiting:
            if waiting[0][0] > self.factory.clock.seconds():
                return False
            _, data = waiting.popleft()
            self._waiting_cost -= len(data) + READ_COST
            self._conversation.receive_data(data)
            return True
        if self._input_ended and not self._eof_taken:
            self._eof_taken = True
            self._conversation.receive_eof()
            return True
        return False

    def _end(self, reason: str) -> None:
        self._forget_waiting()
        self.finish(reason)

    def _forget_waiting(self) -> None:
        self._stop_quiet()
        self._waiting.clear()
        self._waiting_cost = 0
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _stop_quiet(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None

    # Back-pressure: IPushProducer, called by the transport

    def pauseProducing(self) -> None:
        self._blocked = True
        self._at_once = no_answer
        self._read_or_not()

    def resumeProducing(self) -> None:
        self._blocked = False
        if self._opening is None:
            self._go_on()
        else:
            self._read_or_not()

    def stopProducing(self) -> None:
        pass

    def _read_or_not(self) -> None:
        # TLS pauses who writes a greeting before the handshake is over, which it
        # cannot be if we do not read; nor is there anything to hold up so early.
        wanted = not self.bytes_received or (
            not (self._blocked or self._more) and self._waiting_cost < WAITING_SIZE
        )
        if wanted is not self._reading and not self._input_ended:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # IOwing

    def owed(self) -> Debt:
        waiting = sum(len(data) for _, data in self._waiting)
        if self._opening is not None:
            waiting += len(self._opening.run)
        elif self._blocked or self._more:
            waiting += self._conversation.pending
        return Debt(waiting, unsent(self.transport))


class HelloFactory(StreamFactory):
    """
    Builds `HelloProtocol`s.

    Args:
        clock: measures the delay and the pause that settles `auto` framing; the
            reactor, outside tests.
        framing: how names are told apart; a `Framing` or its value.
        delay: seconds between a name's arrival and its answer.
        greeting: what is said first; empty to say nothing. Text is sent as UTF-8.
        answer: what is said to a name; holds `NAME` exactly once.
        max_name: bytes of the longest name.
        log: how much is logged.

    Raises:
        SettingError: an argument is out of its bounds.
    """

    protocol = HelloProtocol

    def __init__(
        self,
        clock: IReactorTime,
        *,
        framing: Framing | str = Framing.AUTO,
        delay: float = 0.0,
        greeting: bytes | str = DEFAULT_GREETING,
        answer: bytes | str = DEFAULT_ANSWER,
        max_name: int = DEFAULT_MAX_MESSAGE,
        log: Log | str = Log.CONNECTIONS,
    ) -> None:
        super().__init__(clock, log=log)
        self.framing = choice("framing", Framing, framing)
        self.delay = seconds("delay", delay)
        self.greeting = as_bytes("greeting", greeting)
        self.answer = Answer.parse(as_bytes("answer", answer))
        self.max_name = whole_number("max_name", max_name, 1, LARGEST_MESSAGE)
        self.logs_messages = self.log is Log.MESSAGES

    def conversation(self, framing: Framing) -> HelloConversation:
        """Make the machine of one conversation whose framing is settled."""
        return HelloConversation(framing, self.answer, max_name=self.max_name)


class HelloClient(ClientStream):
    """
    The client of a hello service.

    Args:
        framing: how names are told apart. `chunk` is the tutorials' way: one
            name at a time, one read an answer. Not `auto`: that is a server's.
        greeted: whether the server says something before it is asked.
        observer: is told what happens on the socket.
    """

    def __init__(
        self,
        framing: Framing | str = Framing.CHUNK,
        *,
        greeted: bool = True,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(observer)
        self._framing = choice("framing", Framing, framing)
        if self._framing is Framing.AUTO:
            raise SettingError("framing", "auto", "chunk, line or netstring")
        self._conversation = HelloClientConversation(self._framing, greeted=greeted)
        self._greeted = greeted
        self._greeting: bytes | None = None
        self._greeting_waiters: list[Deferred[bytes]] = []
        self._unsaid: deque[bytes] = deque()
        self._awaited: deque[Deferred[bytes]] = deque()
        self._outstanding = 0
        self._leaving = False
        self._said_exit = False

    def greeting(self) -> Deferred[bytes]:
        """
        Fires with the server's greeting, without its frame.

        A server whose framing is `auto` completes its greeting for a client of
        lines only after the client's first line: do not wait for it then.
        Cancelling gives up waiting, and leaves the connection as it is.

        Errors: as of `greet`.
        """
        waiter: Deferred[bytes] = Deferred(self._give_up_greeting)
        if self._greeting is not None:
            waiter.callback(self._greeting)
        elif self.ended is not None:
            waiter.errback(self.ended)
        else:
            self._greeting_waiters.append(waiter)
        return waiter

    def _give_up_greeting(self, waiter: Deferred[bytes]) -> None:
        if waiter in self._greeting_waiters:
            self._greeting_waiters.remove(waiter)

    def greet(self, name: bytes | str) -> Deferred[bytes]:
        """
        Send a name; fires with the server's answer, without its frame.

        Calls may overlap: answers come in the order of their names. Cancelling
        one aborts the connection, since the answers that follow could not be
        told apart any more.

        Raises:
            NameNotSendable: the name would not arrive as one name.
            MisuseError: `close` was called before.

        Errors:
            PeerLeftOwing: the server closed before it answered.
            NothingCame: it closed before it said anything.
            ConnectionWasReset: the connection broke.
        """
        if isinstance(name, str):
            name = name.encode("utf-8", "surrogateescape")
        problem = problem_with_name(self._framing, name)
        if problem is not None:
            raise NameNotSendable(name, problem)
        if self._leaving:
            raise MisuseError("close() was called before greet()")
        answer: Deferred[bytes] = Deferred(self._cancelled)
        if self.ended is not None:
            answer.errback(self.ended)
            return answer
        self._awaited.append(answer)
        self._unsaid.append(name)
        self._say_next()
        return answer

    def close(self) -> Deferred[None]:
        """
        Say `exit` after the names before it; fires when the server has closed.

        Errors: as of `greet`, if an answer was still owed.
        """
        if not self._leaving:
            self._leaving = True
            self._unsaid.append(EXIT)
            if self.ended is None:
                self._say_next()
        return self.closed()

    def _made(self) -> None:
        self._say_next()

    def _say_next(self) -> None:
        """Say what may be said now: in chunk framing, one thing at a time."""
        one_at_a_time = self._framing is Framing.CHUNK
        while self._unsaid and self.transport is not None:
            ungreeted = self._greeted and self._greeting is None
            if one_at_a_time and (self._outstanding or ungreeted):
                return
            name = self._unsaid.popleft()
            if name == EXIT:
                self._said_exit = True
            else:
                self._outstanding += 1
            self.send(frame(self._framing, name))

    def _received(self, data: bytes) -> None:
        self._conversation.receive_data(data)
        self._hand_out()

    def _peer_ended(self) -> None:
        self._conversation.receive_eof()
        self._hand_out()
        self.transport.loseConnection()

    def _hand_out(self) -> None:
        try:
            while (
                self._failure is None
                and (event := self._conversation.next_event()) is not None
            ):
                if isinstance(event, GreetingCame):
                    self._greeting = event.greeting
                    waiters, self._greeting_waiters = self._greeting_waiters, []
                    for waiter in waiters:
                        fire(waiter, event.greeting)
                elif self._outstanding:
                    self._outstanding -= 1
                    fire(self._awaited.popleft(), event.answer)
                # Else it is an answer to nothing; `observer` was told.
                self._say_next()
        except PeerError as error:
            self.abort(error)

    def _shortfall(self) -> PeerError | None:
        if self._greeting_waiters:
            return PeerLeftOwing("the greeting")
        if not self._awaited:
            return None
        return PeerLeftOwing(
            "an answer" if len(self._awaited) == 1 else f"{len(self._awaited)} answers"
        )

    def _over(self, error: SockprotoError) -> None:
        awaited = [*self._greeting_waiters, *self._awaited]
        self._greeting_waiters.clear()
        self._awaited.clear()
        fail_all(awaited, error)


def connect_hello(
    endpoint: IStreamClientEndpoint,
    *,
    framing: Framing | str = Framing.CHUNK,
    greeted: bool = True,
    observer: Observer | None = None,
) -> Deferred[HelloClient]:
    """
    Connect a `HelloClient`; cancelling gives up the attempt.

    Errors:
        NameNotResolved, NotConnected, TimedOut: as `connect` says.
    """
    return connect(
        endpoint, lambda: HelloClient(framing, greeted=greeted, observer=observer)
    )
