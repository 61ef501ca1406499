"""
How a factory's connections come to their end when it stops.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol

from sockproto.checks import (
    clock as checked_clock,
    instance,
    seconds as checked_seconds,
)
from sockproto.interfaces import Debt, IOwing
from sockproto.reporting import log
from sockproto.rolls import Roll, Rolls
from sockproto.spelling import counted
from sockproto.wrapping import FactoryWrapper, enrolled

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import (
        IAddress,
        IDelayedCall,
        IProtocolFactory,
        IReactorTime,
    )

__all__ = ["Drain", "Draining", "State"]

QUIET_SECONDS = 0.5
"""A client that is owed nothing and was silent for so long has what it wanted."""

LOOK_SECONDS = 0.1

ABORT_SECONDS = 1.0
"""What a transport may take to tell that it was aborted; Twisted's take a turn."""

SHORTEST_SECONDS = 0.001
"""What is left of the drain below this is nothing: floats do not add up exactly."""


class State(Enum):
    """
    How far a service is; they come in this order.
    """

    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


class Watched:
    """
    What has a state that others may ask for and watch.

    Attributes:
        state: the one that it is in.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self._watchers: list[Callable[[State], None]] = []

    def watch(self, told: Callable[[State], None]) -> None:
        """Have a function called with each state that is to come."""
        self._watchers.append(told)

    def _enter(self, state: State) -> None:
        self.state = state
        for told in list(self._watchers):
            try:
                told(state)
            except Exception:  # noqa: BLE001 - of anybody's code; we have to go on
                log.failure("a watcher of the state raised")


class Drain(Watched):
    """
    The connections of one factory, or of several that stop together.

    Args:
        clock: measures; the reactor, outside tests.

    Attributes:
        state: `SERVING`, then `DRAINING` from the call of `begin`, then `STOPPED`
            when the last connection is gone.
    """

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(State.SERVING)
        self.clock = checked_clock("clock", clock)
        self._rolls = Rolls()
        self._waiters: list[Deferred[None]] = []
        self._seconds = self._deadline = 0.0
        self._next: IDelayedCall | None = None
        # How many bytes of each had passed, and since when it is so.
        self._quiet_since: dict[IOwing, tuple[int, float]] = {}
        self._finished: set[IOwing] = set()

    @property
    def connections(self) -> set[IOwing]:
        """Those that are there now."""
        return set[Any]().union(*self._rolls)

    def roll(self) -> Roll:
        """Have a roll that is looked at, as long as others have it (`IAttended`)."""
        roll = Roll()
        self._rolls.add(roll)
        return roll

    def begin(self, seconds: float) -> Deferred[None]:
        """
        Let connections end by themselves; fires when none is left.

        One that is owed nothing and has sent nothing for half a second, and was
        sent nothing, is finished: it gets end of file. After `seconds` the rest is
        aborted, and one line of the log says how many they were and what they were
        owed. New connections are refused; closing the ports is the caller's part,
        and comes first. A second call waits for the same.

        Args:
            seconds: how long this may take.

        Raises:
            SettingError: `seconds` is no number from 0 up.
        """
        checked_seconds("seconds", seconds)
        waiter: Deferred[None] = Deferred()
        if self.state is State.STOPPED:
            waiter.callback(None)
            return waiter
        self._waiters.append(waiter)
        if self.state is State.SERVING:
            self._seconds = seconds
            self._deadline = self.clock.seconds() + seconds
            self._enter(State.DRAINING)
            self._look()
        return waiter

    def reopen(self) -> None:
        """Serve again, after a stop."""
        assert self.state is not State.DRAINING
        if self.state is State.STOPPED:
            self._quiet_since.clear()
            self._finished.clear()
            self._enter(State.SERVING)

    def _look(self) -> None:
        self._next = None
        if self.state is not State.DRAINING:
            return  # it ended while its watchers were told of the beginning
        now = self.clock.seconds()
        # Nobody waits longer than was said on a clock that was set back.
        self._deadline = min(self._deadline, now + self._seconds)
        left = self._deadline - now
        connections = self._attend()
        if not connections:
            self._stop()
        elif left < SHORTEST_SECONDS:
            self._next = self.clock.callLater(ABORT_SECONDS, self._stop)
            self._abort()
        else:
            self._next = self.clock.callLater(min(LOOK_SECONDS, left), self._look)
            for connection in connections - self._finished:
                try:
                    self._finish_if_quiet(connection, now)
                except Exception:  # noqa: BLE001 - as above
                    log.failure("a connection raised while it was drained")

    def _attend(self) -> set[IOwing]:
        """Have each tell us of its end: it is not asked of any before we drain."""
        connections: set[Any] = self.connections
        for connection in connections:
            if self not in connection.attendants:
                connection.attendants += (self,)
        return connections

    def _finish_if_quiet(self, connection: IOwing, now: float) -> None:
        if not any(connection in roll for roll in self._rolls):
            return  # it went with one before it
        passed = connection.bytes_received + connection.bytes_sent
        before = self._quiet_since.get(connection)
        # What is owed may hold up reading: silence counts from its end. And
        # nobody was silent in a future that a clock set back has taken away.
        if (
            before is None
            or before[0] != passed
            or before[1] > now
            or connection.owed()
        ):
            self._quiet_since[connection] = (passed, now)
        elif now - before[1] >= QUIET_SECONDS:
            self._finished.add(connection)
            connection.finish("the service stops")

    def _abort(self) -> None:
        left = list(self.connections)
        owed = sum(map(_debt_of, left), Debt())
        log.warn(
            "Aborting {connections} after {seconds:g} s of drain;"
            " they were owed {owed}.",
            connections=counted(len(left), "connection"),
            seconds=self._seconds,
            owed=owed,
        )
        for connection in left:
            try:
                connection.abort("aborted after the drain")
            except Exception:  # noqa: BLE001 - as above
                log.failure("a connection raised when it was aborted")

    def _stop(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
        # Who begins again when it is told of the stop waits for another one.
        waiters, self._waiters = self._waiters, []
        self._enter(State.STOPPED)
        for waiter in waiters:
            waiter.callback(None)

    def made(self, connection: IOwing) -> None:
        """It was made before it was told to tell us."""

    def lost(self, connection: IOwing) -> None:
        """It is lost; it is there until its protocol was told."""

    def gone(self, connection: IOwing) -> None:
        """A connection is gone, and its protocol was told."""
        if self._waiters:  # it drains
            self._quiet_since.pop(connection, None)
            self._finished.discard(connection)
            if not any(self._rolls):
                self._stop()


def _debt_of(connection: IOwing) -> Debt:
    try:
        return connection.owed()
    except Exception:  # noqa: BLE001 - as above
        log.failure("a connection could not tell what it owes")
        return Debt()


class Draining(FactoryWrapper[IProtocol]):
    """
    Lets a factory's connections end by themselves before it stops.

    What a connection is owed is what its protocol says (`IOwing`); of one that
    does not say, what it has written and the kernel has not taken.

    Args:
        inner: builds the protocols.
        drain: shared by the factories that stop together.

    Attributes:
        roll: the connections of this factory that are there now.
    """

    def __init__(self, inner: IProtocolFactory, drain: Drain) -> None:
        super().__init__(inner)
        self.drain = instance("drain", drain, Drain)
        self.roll = drain.roll()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        if self.drain.state is not State.SERVING:
            return None
        inner: IProtocol | None
        inner = self.inner.buildProtocol(addr)  # type: ignore[arg-type]
        return None if inner is None else enrolled(inner, self.roll)
