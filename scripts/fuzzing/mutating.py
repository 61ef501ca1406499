"""
Inputs that chance makes of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzzing.targets import LONGEST

if TYPE_CHECKING:
    from random import Random


def mutated(
    data: bytes, words: tuple[bytes, ...], pool: list[bytes], by: Random
) -> bytes:
    """Change an input in a few places."""
    changed = bytearray(data)
    for _ in range(by.randint(1, 6)):
        at = by.randrange(len(changed) + 1)
        end = min(len(changed), at + by.choice((0, 1, 1, 4, 16, 64)))
        part: bytes
        match by.randrange(5):
            case 0:
                part = by.randbytes(max(1, end - at))
            case 1:
                part = by.choice(words) if words else b"\0"
            case 2:
                part = b""
            case 3:
                part = bytes(changed[at:end]) * 2
            case _:
                other = by.choice(pool)
                start = by.randrange(len(other) + 1)
                part = other[start : start + by.randint(1, 64)]
        changed[at:end] = part
    return bytes(changed[:LONGEST])
