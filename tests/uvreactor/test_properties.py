"""
However a conversation is chopped, paused and ended, its bytes are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from tests.reactors import (
    LONGEST,
    Client,
    HalfCloseable,
    Server,
    UvloopReactor,
    close_reactor,
    without_uvloop,
)


@dataclass(frozen=True)
class Step:
    """
    What one end does in its turn.
    """

    act: str
    size: int = 0


STEPS = st.lists(
    st.one_of(
        st.builds(
            Step,
            st.sampled_from(["write", "writeSequence"]),
            st.sampled_from([0, 1, 100, 65_536, 70_000, 400_000]),
        ),
        st.builds(Step, st.sampled_from(["pause", "resume", "turn", "change"])),
    ),
    max_size=8,
)


class Talker(HalfCloseable):
    """
    Does its steps, one a turn; ends its direction when they and its input are done.
    """

    def __init__(self, reactor: Any, steps: list[Step], early: bool) -> None:
        super().__init__()
        self.reactor = reactor
        self.steps = iter(steps)
        self.early = early
        self.sent = bytearray()
        self.halves = 0

    def connectionMade(self) -> None:
        super().connectionMade()
        self.go_on()

    def go_on(self) -> None:
        for step in self.steps:
            self.do(step)
            if step.act == "turn":
                self.reactor.callLater(0, self.go_on)
                return
        if "readConnectionLost" not in self.happened:  # Twisted's would tell it again
            self.transport.resumeProducing()
        self.transport.loseWriteConnection()
        if self.early:  # it is sent all the same
            self.write(b"in the same turn")

    def do(self, step: Step) -> None:
        data = bytes([len(self.sent) % 256]) * step.size
        if step.act == "write":
            self.write(data)
        elif step.act == "writeSequence":
            middle = step.size // 2
            self.sent += data
            self.transport.writeSequence([data[:middle], b"", data[middle:]])
        elif step.act == "pause":
            self.transport.pauseProducing()
        elif step.act == "resume" and "readConnectionLost" not in self.happened:
            self.transport.resumeProducing()
        elif step.act == "change":
            self.transport.protocol = self

    def write(self, data: bytes) -> None:
        self.sent += data
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.half_done()

    def writeConnectionLost(self) -> None:
        super().writeConnectionLost()
        self.half_done()

    def half_done(self) -> None:
        self.halves += 1
        if self.halves == 2:
            self.transport.loseConnection()


def converse(
    reactor: Any, steps: tuple[list[Step], list[Step]], early: bool
) -> tuple[Talker, Talker]:
    """Have the two ends do their steps, until both are closed."""
    server, client = (Talker(reactor, each, early) for each in steps)
    closed: list[Talker] = []

    def note(talker: Talker, _: object) -> None:
        closed.append(talker)
        if len(closed) == 2:
            reactor.callLater(0, reactor.stop)

    server.does["connectionLost"] = client.does["connectionLost"] = note

    def begin() -> None:
        port = reactor.listenTCP(0, Server(lambda: server), interface="127.0.0.1")
        reactor.connectTCP("127.0.0.1", port.getHost().port, Client(lambda: client))

    reactor.callWhenRunning(begin)
    reactor.callLater(LONGEST, reactor.stop)
    reactor.run(installSignalHandlers=False)
    close_reactor(reactor)
    return server, client


class ConversationTests(SynchronousTestCase):
    if without_uvloop:  # pragma: no cover
        skip = without_uvloop

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(steps=st.tuples(STEPS, STEPS), early=st.booleans())
    def test_same_bytes(
        self, steps: tuple[list[Step], list[Step]], early: bool
    ) -> None:
        """Both ends receive what the other has sent, and are told the same."""
        told = []
        for make in (EPollReactor, UvloopReactor):
            server, client = converse(make(), steps, early)
            self.assertEqual(server.received, client.sent)
            self.assertEqual(client.received, server.sent)
            self.assertEqual(server.lost, ConnectionDone)
            self.assertEqual(client.lost, ConnectionDone)
            told.append((sorted(server.happened), sorted(client.happened)))
        # The number of `dataReceived` is the kernel's.
        self.assertEqual(
            *(
                [[name for name in each if name != "dataReceived"] for each in pair]
                for pair in told
            )
        )
