"""
Policies keep what every wrapper keeps, in whichever order they stand around each other.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sockproto.guarding import Guard
from sockproto.places import StreamPlace
from sockproto.policies.admission import Admission, Gate
from sockproto.policies.draining import Drain, Draining
from sockproto.policies.idle import IdleTimeout
from sockproto.policies.proxied import BehindProxy
from sockproto.policies.rate import RateLimit, TotalRate
from sockproto.policies.stalled import StalledTimeout
from sockproto.policies.unsent import UnsentLimit
from sockproto.settings import Settings
from sockproto.testing import WrapperContract, connect
from sockproto.wrapping import FactoryWrapper, accountable
from tests.policies.test_proxied import HeaderKnown
from tests.test_wrapper_properties import (
    ENDS,
    STEPS,
    Step,
    WrapperProperties,
    converse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IProtocol

    Policy = Callable[[Any, Clock], Any]

SECONDS = 30.0
"""The deadlines: the contract lets nobody close earlier."""

RATE = 1_000_000
"""Bytes a second: the contract's patience is for a fifth of it."""

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 11 22\r\n"
"""What a proxy says first; its client has the address that is allowed."""

MOST_UNSENT = 2 * 65_536
"""Bytes: what `UnsentLimit` lets be unsent, and one read more."""

ALLOWED = "192.0.0.0/8"


def admission(inner: Any, clock: Clock) -> Any:
    crowd = Gate(clock, most=10)
    peers = Gate(clock, most_per_peer=10, allow=ALLOWED, deny="::/0")
    return Admission(inner, crowd, peers, clock=clock, last_words="Later.\r\n")


def draining(inner: Any, clock: Clock) -> Any:
    return Draining(inner, Drain(clock))


def idle(inner: Any, clock: Clock) -> Any:
    return IdleTimeout(inner, seconds=SECONDS, clock=clock)


def nothing(inner: Any, clock: Clock) -> Any:
    return FactoryWrapper(inner)


def rate(inner: Any, clock: Clock) -> Any:
    return RateLimit(inner, clock, rate=RATE, total=TotalRate(RATE, clock))


def stalled(inner: Any, clock: Clock) -> Any:
    return StalledTimeout(inner, seconds=SECONDS, clock=clock)


def unsent(inner: Any, clock: Clock) -> Any:
    return UnsentLimit(inner)


class Accounts(FactoryWrapper[Any]):
    """Has somebody count for each protocol, as a policy does that wants to know."""

    def wrap(self, inner: IProtocol) -> Any:
        return accountable(inner)


def header_known(inner: Any, clock: Clock) -> Any:
    return HeaderKnown(Accounts(inner), clock)


def header_comes(inner: Any, clock: Clock) -> Any:
    return BehindProxy(inner, clock)


POLICIES: dict[str, Policy] = {
    "Admission": admission,
    "BehindProxy": header_known,
    "Draining": draining,
    "FactoryWrapper": nothing,
    "IdleTimeout": idle,
    "RateLimit": rate,
    "StalledTimeout": stalled,
    "UnsentLimit": unsent,
}


def stack(policies: Iterable[Policy], inner: Any, clock: Clock) -> Any:
    """Put policies around a factory, the first of them outermost."""
    for policy in reversed(list(policies)):
        inner = policy(inner, clock)
    return inner


# Pairs


def _pair(outer: str, inner: str) -> type[SynchronousTestCase]:
    class Tests(WrapperContract, SynchronousTestCase):
        def wrap(self, factory: Any) -> Any:
            return stack((POLICIES[outer], POLICIES[inner]), factory, self.clock)

    Tests.__name__ = Tests.__qualname__ = f"{outer}Around{inner}Tests"
    Tests.__doc__ = f"What every wrapper keeps, {outer} keeps around {inner}."
    return Tests


# So that each pair is found, counted and run by itself.
for _outer, _inner in product(POLICIES, repeat=2):
    _tests = _pair(_outer, _inner)
    globals()[_tests.__name__] = _tests
del _tests


# What services run with


EVERY_LIMIT: dict[str, Any] = {
    "max_connections": 10,
    "max_per_peer": 10,
    "allow": (ALLOWED,),
    "deny": ("::/0",),
    "refusal": "Later.\r\n",
    "idle": SECONDS,
    "stalled": SECONDS,
    "rate": RATE,
    "total_rate": RATE,
}


def guarded(
    inner: Any,
    clock: Clock,
    *,
    faces_network: bool = False,
    behind_proxy: bool = False,
    **settings: Any,
) -> Any:
    """Put around a factory what a service puts there."""
    nobody_listens: Any = None
    place = StreamPlace(
        nobody_listens, behind_proxy=behind_proxy, faces_network=faces_network
    )
    return Guard(Settings(**settings), clock).around(inner, place)


class OnLoopback:
    clock: Clock

    def wrap(self, inner: Any) -> Any:
        return guarded(inner, self.clock)


class FacingNetwork(OnLoopback):
    def wrap(self, inner: Any) -> Any:
        return guarded(inner, self.clock, faces_network=True)


class EveryLimit(OnLoopback):
    def wrap(self, inner: Any) -> Any:
        return guarded(inner, self.clock, **EVERY_LIMIT)


class OnLoopbackContractTests(OnLoopback, WrapperContract, SynchronousTestCase):
    """A service on loopback, as it is unless told otherwise."""


class FacingNetworkContractTests(FacingNetwork, WrapperContract, SynchronousTestCase):
    """A service that faces a network, as it is unless told otherwise."""


class EveryLimitContractTests(EveryLimit, WrapperContract, SynchronousTestCase):
    """A service with every limit that there is."""


class EveryPolicyContractTests(WrapperContract, SynchronousTestCase):
    """All policies around each other."""

    def wrap(self, inner: Any) -> Any:
        return stack(POLICIES.values(), inner, self.clock)


# However calls come


def _alone(name: str, policy: Policy) -> type[SynchronousTestCase]:
    class Tests(WrapperProperties, SynchronousTestCase):
        header = HEADER if policy is header_comes else b""

        def wrap(self, inner: Any) -> Any:
            return policy(inner, self.clock)

    Tests.__name__ = Tests.__qualname__ = f"{name}PropertiesTests"
    Tests.__doc__ = f"No byte is lost in silence in {name}, however calls come."
    return Tests


COMMON = {**POLICIES, "BehindProxy": header_comes}
"""For peers that send a header, if there is who reads it."""

for _name, _policy in COMMON.items():
    _tests = _alone(_name, _policy)
    globals()[_tests.__name__] = _tests
del _tests


class OnLoopbackPropertiesTests(OnLoopback, WrapperProperties, SynchronousTestCase):
    """A service on loopback, as it is unless told otherwise."""


class FacingNetworkPropertiesTests(
    FacingNetwork, WrapperProperties, SynchronousTestCase
):
    """A service that faces a network, as it is unless told otherwise."""


class EveryLimitPropertiesTests(EveryLimit, WrapperProperties, SynchronousTestCase):
    """A service with every limit that there is."""


class EveryLimitBehindProxyPropertiesTests(WrapperProperties, SynchronousTestCase):
    """The same behind a proxy."""

    header = HEADER

    def wrap(self, inner: Any) -> Any:
        return guarded(inner, self.clock, behind_proxy=True, **EVERY_LIMIT)


class EveryPolicyPropertiesTests(WrapperProperties, SynchronousTestCase):
    """All policies around each other."""

    header = HEADER

    def wrap(self, inner: Any) -> Any:
        return stack(COMMON.values(), inner, self.clock)


class NaiveEcho(Protocol):
    """
    Sends back what it is sent, whether or not its peer takes it.
    """

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class AnyStackTests(SynchronousTestCase):
    """Policies in any order, some of them twice and more."""

    @given(
        names=st.lists(st.sampled_from(sorted(COMMON)), min_size=2, max_size=6),
        before=STEPS,
        ends=ENDS,
        after=STEPS,
    )
    def test_no_silent_cut(
        self, names: list[str], before: list[Step], ends: list[Step], after: list[Step]
    ) -> None:
        """All that is sent and written arrives, or both ends know that it did not."""
        clock = Clock()
        policies = [COMMON[name] for name in names]
        converse(
            lambda inner: stack(policies, inner, clock),
            clock,
            [*before, *ends, *after],
            header=HEADER * policies.count(header_comes),
        )

    @given(
        outside=st.lists(st.sampled_from(sorted(POLICIES)), max_size=3),
        inside=st.lists(st.sampled_from(sorted(POLICIES)), max_size=3),
        sizes=st.lists(st.integers(0, 150_000), max_size=10),
        taken=st.integers(0, 50_000),
    )
    def test_bounded(
        self, outside: list[str], inside: list[str], sizes: list[int], taken: int
    ) -> None:
        """`UnsentLimit` bounds what is unsent, wherever it stands; nothing is lost."""
        clock = Clock()
        policies = [POLICIES[name] for name in (*outside, "UnsentLimit", *inside)]
        inner = Factory.forProtocol(NaiveEcho)
        _, transport = connect(stack(policies, inner, clock), clock)
        for size in sizes:
            transport.deliver(b"x" * size)
            self.assertLessEqual(transport.unsent, MOST_UNSENT)
            transport.take(taken)
            clock.advance(0.01)
            self.assertLessEqual(transport.unsent, MOST_UNSENT)
        for _ in range(200):
            transport.take()
            clock.advance(0.05)
        self.assertEqual(len(transport.taken), sum(sizes))
        transport.lose()
        self.assertEqual(clock.getDelayedCalls(), [])
