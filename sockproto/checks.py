"""
What a setting may be; anything else is refused by the setting's name.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from enum import Enum
from typing import TypeVar

from sockproto.errors import SettingError

__all__ = ["as_bytes", "choice", "seconds", "whole_number"]

_E = TypeVar("_E", bound=Enum)


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


def seconds(name: str, seen: object, *, above_zero: bool = False) -> float:
    """
    Take a finite number of seconds from 0 up.

    Raises:
        SettingError: it is none.
    """
    if (
        isinstance(seen, int | float)
        and not isinstance(seen, bool)
        and 0 <= seen <= sys.float_info.max
        and (seen or not above_zero)
    ):
        return float(seen)
    where = "above 0" if above_zero else "from 0 up"
    raise SettingError(name, seen, f"a number of seconds {where}")


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
