"""
What a setting may be; anything else is refused by the setting's name.
"""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from enum import Enum
from typing import Any, TypeVar

from sockproto.errors import SettingError

__all__ = [
    "above_zero",
    "as_bytes",
    "choice",
    "clock",
    "instance",
    "rate",
    "seconds",
    "short_text",
    "whole_number",
]

_E = TypeVar("_E", bound=Enum)
_T = TypeVar("_T")


LARGEST = sys.float_info.max
SMALLEST = math.ulp(0.0)
"""The finite numbers above 0."""

HIGHEST_RATE = 1e12
"""More a second than any network carries, of bytes or datagrams."""


def choice(name: str, kind: type[_E], seen: object) -> _E:
    """
    Take a member of an enumeration, or its value.

    Raises:
        SettingError: it is neither.
    """
    try:
        return kind(seen)
    except ValueError:
        *first, last = (str(member.value) for member in kind)
        allowed = f"{', '.join(first)} or {last}"
        raise SettingError(name, seen, allowed) from None


def as_bytes(name: str, seen: object) -> bytes:
    """
    Take bytes, or a text as UTF-8; bytes that `os.fsdecode` escaped come back.

    Raises:
        SettingError: it is neither, or no UTF-8.
    """
    if isinstance(seen, bytes):
        return seen
    if isinstance(seen, str):
        with suppress(UnicodeEncodeError):
            return seen.encode("utf-8", "surrogateescape")
        raise SettingError(name, seen, "text that can be sent as UTF-8")
    raise SettingError(name, seen, "bytes or a text")


def short_text(name: str, seen: object, longest: int) -> bytes:
    """
    Take what `as_bytes` takes, up to so many bytes.

    Raises:
        SettingError: it is something else, or longer.
    """
    taken = as_bytes(name, seen)
    if len(taken) > longest:
        raise SettingError(name, seen, f"a text of at most {longest} bytes")
    return taken


def number(
    name: str, seen: object, lowest: float, highest: float, allowed: str
) -> float:
    """
    Take a number within its bounds, both included; `allowed` is for the error.

    Raises:
        SettingError: it is none.
    """
    if (
        isinstance(seen, int | float)
        and not isinstance(seen, bool)
        and lowest <= seen <= highest
    ):
        return float(seen)
    raise SettingError(name, seen, allowed)


def seconds(name: str, seen: object, *, above_zero: bool = False) -> float:
    """
    Take a finite number of seconds from 0 up.

    Raises:
        SettingError: it is none.
    """
    lowest, where = (SMALLEST, "above 0") if above_zero else (0, "from 0 up")
    return number(name, seen, lowest, LARGEST, f"a number of seconds {where}")


def clock(name: str, seen: object) -> Any:
    """
    Take what measures time: `IReactorTime`, as far as it is called.

    Raises:
        SettingError: it is none.
    """
    if all(callable(getattr(seen, each, None)) for each in ("callLater", "seconds")):
        return seen
    raise SettingError(name, seen, "a clock, such as the reactor,")


def instance(name: str, seen: object, kind: type[_T]) -> _T:
    """
    Take an instance of a class.

    Raises:
        SettingError: it is none.
    """
    if isinstance(seen, kind):
        return seen
    raise SettingError(name, seen, f"a {kind.__name__}")


def above_zero(name: str, seen: object) -> float:
    """
    Take a finite number above 0.

    Raises:
        SettingError: it is none.
    """
    return number(name, seen, SMALLEST, LARGEST, "a number above 0")


def rate(name: str, seen: object) -> float:
    """
    Take a number a second from 0 up; what is above 0 is from 1 to 10 to the 12th.

    Raises:
        SettingError: it is none.
    """
    if seen == 0 and not isinstance(seen, bool):
        return 0.0
    allowed = f"a number a second from 1 to {HIGHEST_RATE:.0e}, or 0 for no limit,"
    return number(name, seen, 1, HIGHEST_RATE, allowed)


def whole_number(name: str, seen: object, lowest: int, highest: int) -> int:
    """
    Take a whole number within its bounds.

    Raises:
        SettingError: it is none.
    """
    if (
        isinstance(seen, int)
        and not isinstance(seen, bool)
        and lowest <= seen <= highest
    ):
        return seen
    raise SettingError(name, seen, f"a whole number from {lowest} to {highest}")
