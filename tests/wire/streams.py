"""
What the tests of the machines share: streams, how they are chopped, what is heard.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from sockproto.wire.response import BodyCame, HeadCame, InterimCame, ResponseEnded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sockproto.errors import SockprotoError
    from sockproto.wire.exchange import Exchange
    from sockproto.wire.response import ResponseReader

__all__ = [
    "CHUNKED",
    "CONTINUE",
    "FIVE",
    "OK",
    "TO_CLOSE",
    "Heard",
    "Refusal",
    "chop",
    "chop_within",
    "chunk",
    "hear",
    "one_by_one",
]

OK = b"HTTP/1.1 200 OK\r\n"
FIVE = OK + b"Content-Length: 5\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TO_CLOSE = OK + b"\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Refusal(NamedTuple):
    """An error, as its kind and its words."""

    kind: type[SockprotoError]
    words: str


Heard = InterimCame | HeadCame | bytes | ResponseEnded | Refusal


def hear(machine: ResponseReader | Exchange, events: list[Heard]) -> None:
    """
    Append what a machine has to say, until it asks for more.

    The body is joined wherever its bytes stand together.
    """
    while (event := machine.next_event()) is not None:
        if not isinstance(event, BodyCame):
            events.append(event)
        elif events and isinstance(events[-1], bytes):
            events[-1] += event.data
        else:
            events.append(event.data)


def chop(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut a stream at these places, those beyond its end taken modulo."""
    return chop_within(stream, (cut % (len(stream) + 1) for cut in cuts))


def chop_within(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut a stream at these places, those beyond its end left out."""
    borders = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[start:end] for start, end in pairwise(borders)]


def one_by_one(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
