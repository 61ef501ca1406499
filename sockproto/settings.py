"""
Every knob, once: its type, unit, default and bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from sockproto.checks import as_bytes, choice, seconds, whole_number
from sockproto.errors import SettingError
from sockproto.reporting import Log
from sockproto.wire.framing import DEFAULT_MAX_MESSAGE, LARGEST_MESSAGE, Framing
from sockproto.wire.hello import DEFAULT_ANSWER, DEFAULT_GREETING, Answer

__all__ = ["Settings"]

Places = tuple[str, ...]

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
        self._set("framing", choice("framing", Framing, self.framing))
        self._set("log", choice("log", Log, self.log))
        for name in ("greeting", "answer"):
            self._set(name, as_bytes(name, getattr(self, name)))
        for name in ("delay", "drain"):
            self._set(name, seconds(name, getattr(self, name)))
        if not isinstance(self.udp_any_port, bool):
            raise SettingError("udp_any_port", self.udp_any_port, "True or False")
        whole_number("max_name", self.max_name, 1, LARGEST_MESSAGE)
        whole_number("backlog", self.backlog, 1, 65_535)
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
