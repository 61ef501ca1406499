"""
Every knob, once: its type, unit, default and bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import partial

from sockproto.checks import as_bytes, choice, rate, seconds, short_text, whole_number
from sockproto.closing import LONGEST_LAST_WORDS
from sockproto.errors import SettingError
from sockproto.peers import Networks
from sockproto.reporting import Log
from sockproto.wire.framing import DEFAULT_MAX_MESSAGE, LARGEST_MESSAGE, Framing
from sockproto.wire.hello import DEFAULT_ANSWER, DEFAULT_GREETING, Answer

__all__ = ["FACING_NETWORK", "Limits", "Settings"]

Places = tuple[str, ...]

HIGHEST_COUNT = 1 << 31


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What limits a place where nothing else was set.

    Attributes:
        share: the part of all connections that one peer may have.
        idle: seconds; a person at a keyboard may take some minutes to think.
        stalled: seconds; TCP repeats itself several times within them.
        udp_rate: datagrams a second of one source, far above what people type.
        udp_total_rate: of all; a small machine answers ten times as many.
    """

    share: float
    idle: float
    stalled: float
    udp_rate: float
    udp_total_rate: float


FACING_NETWORK = Limits(
    share=1 / 4, idle=300.0, stalled=60.0, udp_rate=100.0, udp_total_rate=5_000.0
)

_BY_PLACE = {
    "max_connections",
    "max_per_peer",
    "idle",
    "stalled",
    "udp_rate",
    "udp_total_rate",
}
"""Those that may be left to what a place is."""

_WHOLE_NUMBERS = (
    ("max_name", 1, LARGEST_MESSAGE),
    ("backlog", 1, 65_535),
    ("max_connections", 0, HIGHEST_COUNT),
    ("max_per_peer", 0, HIGHEST_COUNT),
)

_PLACES = ("hello", "echo", "udp", "udp_echo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What runs, where, and how; all of it checked when it is made.

    Args:
        hello, echo: server endpoint descriptions, as of Twisted's
            `serverFromString`; one text, or several. An IPv6 interface is
            `interface=[::1]`, or as Twisted has it.
        udp, udp_echo: `udp:PORT[:interface=ADDRESS]`.
        delay: seconds from a name's arrival to its answer.
        framing: how names are told apart; a `Framing` or its value.
        max_name: bytes of the longest name.
        greeting: what hello says first; text is sent as UTF-8.
        answer: what it says to a name; holds `NAME` exactly once.
        backlog: connections that the kernel holds until they are accepted,
            where a place does not say its own.
        drain: seconds that connections get to end by themselves when the
            services stop; not below `delay`.
        udp_any_port: answer datagrams from source ports below 1024.
        max_connections: connections at once, in all; never more than the limit of
            open files has room for, which is what 0 and the default stand for.
        max_per_peer: connections at once of one IPv4 address or IPv6 /64; 0 for
            any number.
        allow, deny: networks (`192.0.2.0/24`), addresses, and `unix`; commas
            part them. If any is allowed, no other is; what is denied is so.
        refusal: what a refused peer gets before end of file, up to 4,096 bytes;
            nothing for a reset.
        idle: seconds without a byte after which a connection ends; 0 for never.
        stalled: seconds in which a peer may take nothing of what it is owed; 0
            for any time.
        rate: bytes a second of one connection, each way; 0 for any number.
        total_rate: bytes a second of all connections, each way; 0 as for `rate`.
        udp_rate: datagrams a second of one IPv4 address or IPv6 /64; 0 for any
            number.
        udp_total_rate: datagrams a second of all a place's sources; 0 likewise.
        log: how much is logged; a `Log` or its value.

    `max_per_peer`, `idle`, `stalled`, `udp_rate` and `udp_total_rate` are None unless
    they are set. Then a place that faces a network has a limit, and one on loopback
    or a unix socket has none: a quarter of all connections, `FACING_NETWORK.idle`
    and so on.

    Raises:
        SettingError: a value is out of its bounds. It has the name, what was
            seen and what is allowed.
    """

    hello: Places = ("tcp:9999:interface=127.0.0.1",)
    echo: Places = ("tcp:10000:interface=127.0.0.1",)
    udp: Places = ("udp:9999:interface=127.0.0.1",)
    udp_echo: Places = ()
    delay: float = 1.0
    framing: Framing = Framing.AUTO
    max_name: int = DEFAULT_MAX_MESSAGE
    greeting: bytes = DEFAULT_GREETING
    answer: bytes = DEFAULT_ANSWER
    backlog: int = 511
    drain: float = 10.0
    udp_any_port: bool = False
    max_connections: int | None = None
    max_per_peer: int | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    refusal: bytes = b""
    idle: float | None = None
    stalled: float | None = None
    rate: float = 0.0
    total_rate: float = 0.0
    udp_rate: float | None = None
    udp_total_rate: float | None = None
    log: Log = Log.CONNECTIONS

    def __post_init__(self) -> None:
        for name in _PLACES:
            self._set(name, _places(name, getattr(self, name)))
        self._set("framing", choice("framing", Framing, self.framing))
        self._set("log", choice("log", Log, self.log))
        for name in ("greeting", "answer"):
            self._set(name, as_bytes(name, getattr(self, name)))
        self._set("refusal", short_text("refusal", self.refusal, LONGEST_LAST_WORDS))
        for name in ("allow", "deny"):
            self._set(name, tuple(Networks(name, getattr(self, name))))
        for name in ("delay", "drain", "idle", "stalled"):
            self._check(name, seconds)
        for name in ("rate", "total_rate", "udp_rate", "udp_total_rate"):
            self._check(name, rate)
        if not isinstance(self.udp_any_port, bool):
            raise SettingError("udp_any_port", self.udp_any_port, "True or False")
        for name, lowest, highest in _WHOLE_NUMBERS:
            self._check(name, partial(whole_number, lowest=lowest, highest=highest))
        answer = Answer.parse(self.answer)
        if self.udp and not answer.tells_itself:
            raise SettingError(
                "answer", self.answer, "over UDP, a text with more than NAME"
            )
        if self.drain < self.delay:
            raise SettingError(
                "drain",
                self.drain,
                f"a number of seconds not below the delay ({self.delay:g})",
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check(self, name: str, check: Callable[[str, object], object]) -> None:
        seen = getattr(self, name)
        if seen is not None or name not in _BY_PLACE:
            self._set(name, check(name, seen))

    @classmethod
    def only(cls, **settings: object) -> Settings:
        """
        Make settings in which only those services run whose places are given.
        """
        if any(settings.get(name) for name in _PLACES):
            settings = {**dict.fromkeys(_PLACES, ()), **settings}
        known = {field.name for field in fields(cls)}
        assert known.issuperset(settings), settings
        return cls(**settings)  # type: ignore[arg-type]


def _places(name: str, seen: object) -> Places:
    if isinstance(seen, str):
        return (seen,)
    if isinstance(seen, Iterable):
        places = tuple(seen)
        if all(isinstance(place, str) for place in places):
            return places
    raise SettingError(name, seen, "an endpoint description, or several")
