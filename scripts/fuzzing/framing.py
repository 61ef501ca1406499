"""
The machines that cut streams into messages.
"""

from __future__ import annotations

import re

from fuzzing.targets import Given, alike, target, told
from sockproto.errors import PeerError
from sockproto.wire import framing


def messages_of(
    splitter: framing.Splitter, reads: list[bytes], bound: int
) -> tuple[list[bytes], str]:
    """All messages, and what the error says or nothing."""
    said: list[bytes] = []
    try:
        for read in [*reads, None]:
            if read is None:
                splitter.receive_eof()
            else:
                splitter.receive_data(read)
            while (message := splitter.next_message()) is not None:
                said.append(message)
            assert splitter.pending <= bound, f"it holds {splitter.pending} bytes"
    except PeerError as error:
        return said, f"{type(error).__name__}: {told(error)}"
    assert not splitter.pending, "bytes are left at the end"
    return said, ""


@target(b"Michael\r\nTracy\nSarah", b"\r\n\n\r\r\nexit\n", words=(b"\r\n", b"\r"))
def lines(given: Given) -> None:
    """
    Lines are those of a plain split; no more than a line and its CR is held.
    """
    limit = given.other + 1
    heard = alike(
        given,
        given.stream,
        lambda reads: messages_of(framing.LineSplitter(limit), reads, limit + 1),
    )
    *whole, last = given.stream.split(b"\n")
    expected: list[bytes] = []
    broken = False
    for line in [*(each.removesuffix(b"\r") for each in whole), last]:
        if len(line) > limit:
            broken = True
            break
        if line:
            expected.append(line)
    assert (heard[0], bool(heard[1])) == (expected, broken), (heard, expected)


def netstrings_in(stream: bytes, limit: int) -> tuple[list[bytes], bool]:
    """The payloads by a grammar of their own, and whether it is broken."""
    found: list[bytes] = []
    at = 0
    while at < len(stream):
        head = re.compile(rb"(0|[1-9][0-9]{0,5}):").match(stream, at)
        if head is None or int(head[1]) > limit:
            return found, True
        end = head.end() + int(head[1])
        if stream[end : end + 1] != b",":
            return found, True
        if end > head.end():
            found.append(stream[head.end() : end])
        at = end + 1
    return found, False


@target(b"7:Michael,0:,5:Tracy,", b"1:,,", b"00:,", words=(b":", b",", b"9999"))
def netstrings(given: Given) -> None:
    """
    Netstrings are those of the grammar; no more than one and its length is held.
    """
    limit = given.other + 1
    bound = limit + len(str(limit)) + 1
    heard = alike(
        given,
        given.stream,
        lambda reads: messages_of(framing.NetstringSplitter(limit), reads, bound),
    )
    expected, broken = netstrings_in(given.stream, limit)
    assert (heard[0], bool(heard[1])) == (expected, broken), (heard, expected)


@target(b"MichaelTracy", b"x" * 600)
def chunks(given: Given) -> None:
    """
    Each read comes out whole, cut at the limit, with nothing lost or held.
    """
    limit = given.choice + 1
    reads = given.cut(given.stream)
    heard = messages_of(framing.ChunkSplitter(limit), reads, 0)
    expected = [
        read[at : at + limit] for read in reads for at in range(0, len(read), limit)
    ]
    assert heard == (expected, "")
