"""
The hello conversation's datagram form: one name in, one answer out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sockproto.wire.hello import Answer

__all__ = ["LARGEST_DATAGRAM", "answer_to", "looks_like_answer"]

LARGEST_DATAGRAM = 65_535
"""Bytes: what the length field of UDP can say (RFC 768), header included."""


def answer_to(answer: Answer, datagram: bytes) -> bytes | None:
    """
    Answer a datagram; None for those that get no answer.

    An empty one is no name. One that starts and ends as an answer does is
    taken for one: two services that answer each other would never stop.
    """
    if not datagram or looks_like_answer(answer, datagram):
        return None
    return answer.to(datagram)


def looks_like_answer(answer: Answer, datagram: bytes) -> bool:
    """Tell whether this could be an answer of a service like this one."""
    return answer.tells_itself and answer.name_in(datagram) is not None
