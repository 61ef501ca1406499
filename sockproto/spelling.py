"""
How bytes and addresses are spelled for people: in logs, on terminals, in options.

Whatever a peer sent goes through here before a person sees it.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address as _IPv6

__all__ = [
    "bytes_per_second",
    "counted",
    "host_and_port",
    "spell",
    "spell_for_terminal",
    "unescape",
]

_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.|$)", re.DOTALL)

LONGEST_SPELLED = 256
"""Bytes of a peer's that one log line shows: enough to recognise, too few to flood."""


def spell(data: bytes, longest: int = LONGEST_SPELLED) -> str:
    """
    Spell a peer's bytes in one line of printable text, as Python's `repr` does.

    Bytes beyond `longest` are left out, and their number is said instead.
    """
    if len(data) <= longest:
        return repr(data)
    return f"{data[:longest]!r} and {len(data) - longest} bytes more"


def spell_for_terminal(text: str) -> str:
    r"""
    Replace each control character except LF and TAB by its `\xNN` escape.

    That keeps a peer from moving the cursor, ringing the bell or renaming the
    window. The C1 controls and the bidirectional overrides are escaped too.
    """
    return "".join(
        c
        if c in "\n\t" or c.isprintable() or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def counted(count: int, noun: str) -> str:
    """
    Spell how many there are: `1 connection`, `2 connections`.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def host_and_port(host: str, port: int) -> str:
    """
    Spell an address as `HOST:PORT`, with an IPv6 host in brackets.

    An IPv4 address that came over an IPv6 socket (RFC 4291, section 2.5.5.2)
    is spelled as the IPv4 address it is.
    """
    if ":" not in host:
        return f"{host}:{port}"
    if host.lower().startswith("::ffff:"):
        with suppress(AddressValueError):  # a user's host may be no address
            mapped = _IPv6(host.partition("%")[0]).ipv4_mapped
            if mapped is not None:
                return f"{mapped}:{port}"
    return f"[{host}]:{port}"


def unescape(text: str) -> bytes:
    r"""
    Turn an option's text into bytes: UTF-8, with `\n \r \t \\ \xNN` as escapes.

    Raises:
        ValueError: for any other escape, and for a backslash at the end.
    """
    out = bytearray()
    last = 0
    for match in _ESCAPE.finditer(text):
        out += text[last : match.start()].encode("utf-8", "surrogateescape")
        escape = match[1]
        if len(escape) == 3:
            out.append(int(escape[1:], 16))
        elif escape in _ESCAPES:
            out += _ESCAPES[escape]
        else:
            raise ValueError(f"unknown escape {match[0]!r}")
        last = match.end()
    return bytes(out + text[last:].encode("utf-8", "surrogateescape"))


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def bytes_per_second(text: str) -> float:
    """
    Read a rate, such as `500`, `64K` or `1.5M`; K, M and G are powers of 1,024.

    Raises:
        ValueError: it is none.
    """
    number = text.rstrip("kKmMgG")
    unit = text[len(number) :].upper()
    if unit not in _UNITS:
        raise ValueError(f"{unit!r} is no unit; K, M and G are")
    return float(number) * _UNITS[unit]
