"""
No wrapper loses a byte in silence, whatever meets whatever on a connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import example, given, strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sockproto.testing import connect
from sockproto.wrapping import (
    ConnectionWrapper,
    FactoryWrapper,
    ReadingHolder,
    accountable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.python.failure import Failure

    _Case = SynchronousTestCase
else:
    _Case = object

__all__ = ["ENDS", "STEPS", "Step", "WrapperProperties", "converse"]

Step = tuple[str, Any]
"""What happens next: who does what, and how much of it."""

STREAM = b"".join(b"%07d\n" % number for number in range(1 << 18))
"""What the peer sends, as far as it comes; no part of it is like another."""

SIZES = st.integers(0, 3000) | st.sampled_from([65_535, 65_536, 65_537, 100_000])

STEPS = st.lists(
    st.tuples(st.just("deliver"), SIZES)
    | st.tuples(st.just("take"), SIZES)
    | st.tuples(st.just("pass_time"), st.sampled_from([0, 0.01, 0.04]))
    | st.tuples(st.sampled_from(["hold", "release"]), st.none()),
    max_size=20,
)
"""Of 2 MiB and 0.8 s at most: a wrapper may be slow, and may close in time."""

ENDS = st.lists(
    st.tuples(
        st.sampled_from(["end_input", "end_output", "close", "reset"]), st.none()
    ),
    max_size=2,
)

MOST_UNSENT = 4 * 65_536
"""Bytes; without a wrapper it is half of that."""

PATIENCE = 10.0
"""Seconds of the clock's in which a wrapper gets done with what it holds."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class _Echo(Protocol):
    """
    Sends back what it is sent, as its peer takes it.

    It holds up reading while too much is unsent, and when the test says.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.written = bytearray()
        self.input_over = False
        self.output_over = False
        self.closed = False
        self.reasons: list[Failure] = []
        self.complaints: list[str] = []
        self._full = False
        self._held = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        for now, words in (
            (self._full, "too much is unsent"),
            (self._held, "the protocol has paused"),
            (self.input_over, "the input is over"),
            (self.closed, "the connection closes"),
            (self.reasons, "the connection is lost"),
        ):
            if now:
                self.complaints.append(f"read on, though {words}")
        self.received += data
        if not self.output_over:
            self.written += data
            self.transport.write(data)

    def readConnectionLost(self) -> None:
        if not self.input_over:
            self.input_over = True
            self.close()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason)

    # What the transport asks

    def pauseProducing(self) -> None:
        self._full = True
        self._read_on()

    def resumeProducing(self) -> None:
        self._full = False
        self._read_on()

    def stopProducing(self) -> None:
        pass

    # What the test says

    def hold(self) -> None:
        self._held = True
        self._read_on()

    def release(self) -> None:
        self._held = False
        self._read_on()

    def end_output(self) -> None:
        if not self.output_over and not self.closed:
            self.output_over = True
            self._unregister()
            self.transport.loseWriteConnection()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._unregister()
            self.transport.loseConnection()

    def _unregister(self) -> None:
        self.transport.unregisterProducer()
        self._full = False
        self._read_on()

    def _read_on(self) -> None:
        if self._full or self._held:
            self.transport.pauseProducing()
        elif not self.input_over and not self.closed:
            self.transport.resumeProducing()


class Conversation:
    """
    An echo in a wrapper, and its peer.
    """

    def __init__(
        self, wrap: Callable[[IProtocolFactory], IProtocolFactory], clock: Clock
    ) -> None:
        self.clock = clock
        self.echo = _Echo()
        inner = Factory()
        inner.noisy = False
        inner.buildProtocol = lambda addr: self.echo  # type: ignore[method-assign]
        factory = wrap(inner)
        factory.doStart()
        _, self.transport = connect(factory, clock)
        self.sent = b""
        self.reset = False

    def step(self, what: str, amount: Any) -> None:
        echo, transport = self.echo, self.transport
        if what == "deliver":
            piece = STREAM[len(self.sent) : len(self.sent) + amount]
            if not transport._kernel.incoming_ended:
                self.sent += piece
                transport.deliver(piece)
        elif what == "take":
            transport.take(amount)
        elif what == "pass_time":
            self.clock.advance(amount)
        elif what == "end_input":
            transport.end_input()
        elif what == "reset":
            self.reset = self.reset or bool(transport.connected)
            transport.lose()
        elif not echo.reasons:
            getattr(echo, what)()
        assert transport.unsent <= MOST_UNSENT, "read on, though too much is unsent"

    def finish(self) -> None:
        """The peer sends no more, and takes what comes, until it is over."""
        steps = 200
        if not self.echo.reasons:
            self.echo.release()
        self.transport.end_input()
        for _ in range(steps):
            self.clock.advance(0)
            self.transport.take()
            if self.echo.reasons:
                break
            self.clock.advance(PATIENCE / steps)
        self.clock.advance(PATIENCE)

    def check(self) -> None:
        """Check that all has arrived, or that both ends know that it has not."""
        echo, transport = self.echo, self.transport
        assert not echo.complaints, echo.complaints[0]
        assert len(echo.reasons) == 1, "connectionLost is told once"
        assert self.clock.getDelayedCalls() == [], "something is pending"
        assert self.sent.startswith(echo.received), "other bytes than were sent"
        assert echo.written.startswith(transport.taken), "other than were written"
        in_order = bool(echo.reasons[0].check(ConnectionDone))
        if self.reset:
            assert not in_order, "a reset is told as an orderly end"
            return
        assert in_order == transport.output_ended, "the ends know different things"
        assert in_order != transport.aborted, "the ends know different things"
        if not in_order:
            return
        assert transport.taken == echo.written, "cut in silence, on its way to the peer"
        if echo.input_over or not echo.closed:
            assert echo.received == self.sent, (
                "cut in silence, on its way from the peer"
            )
            assert echo.input_over, "the end of the input is not told"


def converse(
    wrap: Callable[[IProtocolFactory], IProtocolFactory],
    clock: Clock,
    steps: Sequence[Step],
    *,
    header: bytes = b"",
) -> None:
    """
    Check that no byte is lost in silence, whatever the steps are.

    Args:
        wrap: wraps the echo's factory, with `clock`.
        clock: a new one.
        steps: what happens, in this order.
        header: what the peer sends first, that is not for the echo.
    """
    conversation = Conversation(wrap, clock)
    conversation.transport.deliver(header)
    for step in steps:
        conversation.step(*step)
    conversation.finish()
    conversation.check()


class WrapperProperties(_Case):
    """
    What holds for a wrapper however its calls come; beside `WrapperContract`.

    `wrap` is called anew for each example, and finds a new `clock`. The peer begins
    with the `header`, which is for a wrapper alone.
    """

    clock: Clock
    header: ClassVar[bytes] = b""

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        """Wrap a factory."""
        raise NotImplementedError

    def test_no_silent_cut(self) -> None:
        """All that is sent and written arrives, or both ends know that it did not."""

        # Inside, for an inherited property would belong to several classes at once.
        @given(before=STEPS, ends=ENDS, after=STEPS)
        @example(
            before=[("deliver", 65_537), ("hold", None), ("deliver", 1)],
            ends=[("end_input", None)],
            after=[("take", 3), ("pass_time", 0.01), ("release", None)],
        )
        @example(
            before=[("deliver", 100_000), ("deliver", 100_000)],
            ends=[("end_output", None), ("end_input", None)],
            after=[],
        )
        def check(before: list[Step], ends: list[Step], after: list[Step]) -> None:
            self._converse([*before, *ends, *after])

        check()

    def test_chopping(self) -> None:
        """However the input is chopped, and however little is taken, all arrives."""

        @given(st.lists(st.integers(0, 70_000), max_size=8), st.integers(1, 99))
        def check(pieces: list[int], most: int) -> None:
            steps: list[Step] = [("deliver", size) for size in pieces]
            self._converse([*steps, *[("take", most)] * 8])

        check()

    def _converse(self, steps: Sequence[Step]) -> None:
        self.clock = Clock()
        converse(self.wrap, self.clock, steps, header=self.header)


class NoWrapperPropertiesTests(WrapperProperties, SynchronousTestCase):
    """
    The properties ask no more than what there is without a wrapper.
    """

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        return inner


class PlainWrapperPropertiesTests(WrapperProperties, SynchronousTestCase):
    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        wrapped: IProtocolFactory = FactoryWrapper(FactoryWrapper(inner))
        return wrapped


class AccountPropertiesTests(WrapperProperties, SynchronousTestCase):
    class Accounts(FactoryWrapper[Any]):
        def wrap(self, inner: IProtocol) -> Any:
            return accountable(inner)

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        return self.Accounts(inner)


class ReadingHolderPropertiesTests(WrapperProperties, SynchronousTestCase):
    class Breather(ReadingHolder):
        """Takes a breath after each read."""

        call: Any = None

        def dataReceived(self, data: bytes) -> None:
            self.hold_reading()
            if self.call is None:
                self.call = self.factory.clock.callLater(0.02, self.breathe)
            super().dataReceived(data)

        def breathe(self) -> None:
            self.call = None
            self.release_reading()

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            if self.call is not None:
                self.call.cancel()
            super().connectionLost(reason)

    class Breathers(FactoryWrapper[Any]):
        clock: Clock

        def wrap(self, inner: IProtocol) -> Any:
            return ReadingHolderPropertiesTests.Breather(self, inner)

    def wrap(self, inner: IProtocolFactory) -> IProtocolFactory:
        wrapped = self.Breathers(inner)
        wrapped.clock = self.clock
        return wrapped


class _Cutter(ConnectionWrapper):
    """Lets its peer's output go when it is told to close."""

    def loseConnection(self) -> None:
        self.transport._tempDataBuffer.clear()
        self.transport._tempDataLen = 0
        self.transport.dataBuffer = b""
        self.transport.offset = 0
        self.transport.loseConnection()


class _Rusher(ConnectionWrapper):
    """Reads on, whatever its protocol says."""

    def pauseProducing(self) -> None:
        pass


class BiteTests(SynchronousTestCase):
    def check_bitten(
        self, wrap: Callable[[Any], Any], message: str, *steps: Step
    ) -> None:
        with self.assertRaises(AssertionError) as caught:
            converse(wrap, Clock(), steps)
        self.assertIn(message, str(caught.exception))

    def wrapped_in(self, kind: type[ConnectionWrapper]) -> Callable[[Any], Any]:
        class Wrapper(FactoryWrapper[Any]):
            def wrap(self, inner: IProtocol) -> Any:
                return kind(self, inner)

        return Wrapper

    def test_stock(self) -> None:
        """Twisted's wrapper cuts a half-closing peer off in silence."""
        self.check_bitten(
            WrappingFactory,
            "cut in silence, on its way to the peer",
            ("deliver", 1000),
            ("end_input", None),
        )

    def test_cut(self) -> None:
        """A wrapper is found out that drops what is unsent when it closes."""
        self.check_bitten(
            self.wrapped_in(_Cutter),
            "cut in silence, on its way to the peer",
            ("deliver", 1000),
            ("close", None),
        )

    def test_back_pressure(self) -> None:
        """A wrapper is found out that reads on while its protocol has paused."""
        self.check_bitten(
            self.wrapped_in(_Rusher),
            "read on, though the protocol has paused",
            ("hold", None),
            ("deliver", 1),
        )
