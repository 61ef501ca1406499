"""
Every knob, once: its type, unit, default and bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from sockproto.errors import SettingError
from sockproto.reporting import Log
from sockproto.wire.framing import DEFAULT_MAX_MESSAGE, Framing
from sockproto.wire.hello import DEFAULT_ANSWER, DEFAULT_GREETING, Answer

__all__ = ["Settings"]

Places = tuple[str, ...]

LARGEST_NAME = 65_536
"""Bytes: a name is held whole, within what a connection may cost."""

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
        log: how much is logged; a `Log` or its value.

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
    log: Log = Log.CONNECTIONS

    def __post_init__(self) -> None:
        for name in _PLACES:
            self._set(name, _places(name, getattr(self, name)))
        self._set("framing", _choice("framing", Framing, self.framing))
        self._set("log", _choice("log", Log, self.log))
        for name in ("greeting", "answer"):
            self._set(name, _as_bytes(name, getattr(self, name)))
        for name in ("delay", "drain"):
            self._set(name, _seconds(name, getattr(self, name)))
        _check_whole("max_name", self.max_name, 1, LARGEST_NAME)
        _check_whole("backlog", self.backlog, 1, 65_535)
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


def _choice(name: str, kind: type[Framing | Log], seen: object) -> object:
    try:
        return kind(seen)
    except ValueError:
        *first, last = (choice.value for choice in kind)
        raise SettingError(name, seen, f"{', '.join(first)} or {last}") from None


def _as_bytes(name: str, seen: object) -> bytes:
    if isinstance(seen, str):
        return seen.encode("utf-8", "surrogateescape")
    if isinstance(seen, bytes):
        return seen
    raise SettingError(name, seen, "bytes or a text")


def _seconds(name: str, seen: object) -> float:
    if (
        isinstance(seen, int | float)
        and not isinstance(seen, bool)
        and math.isfinite(seen)
        and seen >= 0
    ):
        return float(seen)
    raise SettingError(name, seen, "a number of seconds from 0 up")


def _check_whole(name: str, seen: object, lowest: int, highest: int) -> None:
    if (
        not isinstance(seen, int)
        or isinstance(seen, bool)
        or not lowest <= seen <= highest
    ):
        raise SettingError(name, seen, f"a whole number from {lowest} to {highest}")
