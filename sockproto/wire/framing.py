"""
Where one message ends and the next begins, in a stream that has no messages.

A splitter is given bytes as they come (`receive_data`), is told when no more
will come (`receive_eof`), and hands out one message a call (`next_message`),
so that its consumer can stop between two and go on later. What it holds are
bytes, never a queue of objects: 64 KiB of one-letter names are 32,768
messages, and would weigh 2 MiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from sockproto.errors import LineTooLong, NetstringMalformed, NetstringTooLong

__all__ = [
    "CHUNK_SIZE",
    "DEFAULT_MAX_MESSAGE",
    "LARGEST_MESSAGE",
    "OPENING_SIZE",
    "ChunkSplitter",
    "Framing",
    "LineSplitter",
    "NetstringSplitter",
    "Opening",
    "Splitter",
    "answering",
    "frame",
    "splitter",
]

CHUNK_SIZE = 1024
"""Bytes: the tutorials read with `recv(1024)`."""

OPENING_SIZE = CHUNK_SIZE + 2
"""Bytes that a longest line can have with its CRLF: beyond it, no LF will help."""

DEFAULT_MAX_MESSAGE = CHUNK_SIZE
"""Bytes of a message; what is not bounded is memory that a peer can take."""

LARGEST_MESSAGE = 65_536
"""Bytes: a message is held whole, within what a connection may cost."""


class Framing(Enum):
    """
    How a conversation marks its messages; the values are the options' words.
    """

    AUTO = "auto"
    CHUNK = "chunk"
    LINE = "line"
    NETSTRING = "netstring"


Answering = Callable[[bytes], "bytes | None"]
"""Answers a read that is one message; None where there is more to think of."""


def no_answer(data: bytes) -> None:
    """Stand where one stood that answered."""


class Splitter(Protocol):
    """
    Cuts a byte stream into messages.
    """

    def receive_data(self, data: bytes, /) -> None:
        """Take the next bytes of the stream."""

    def receive_eof(self) -> None:
        """Take the end of the stream; no `receive_data` after it."""

    @property
    def pending(self) -> int:
        """Bytes that were taken and not handed out yet."""

    def next_message(self) -> bytes | None:
        """
        Hand out the next message; None if more bytes are needed for it.

        Raises:
            PeerError: after the messages before the broken one. The stream
                cannot be resynchronised: close the connection.
        """


class LineSplitter:
    """
    Cuts a stream into lines that end in CRLF (RFC 854), or in a bare LF,
    because netcat sends that.

    An empty line is no message. An unfinished last line is one.
    """

    def __init__(self, limit: int = DEFAULT_MAX_MESSAGE) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._searched = 0  # no LF before here: bytes that trickle in cost no square
        self._ended = False

    def receive_data(self, data: bytes, /) -> None:
        self._pending += data

    def receive_eof(self) -> None:
        self._ended = True

    @property
    def pending(self) -> int:
        return len(self._pending)

    def next_message(self) -> bytes | None:
        pending = self._pending
        while (end := pending.find(b"\n", self._searched)) >= 0:
            line = bytes(pending[:end]).removesuffix(b"\r")
            del pending[: end + 1]
            self._searched = 0
            self._check(len(line))
            if line:
                return line
        self._searched = len(pending)
        if not self._ended:
            # The last byte may be the CR of a CRLF.
            self._check(len(pending) - pending.endswith(b"\r"))
            return None
        self._check(len(pending))
        line = bytes(pending)
        pending.clear()
        self._searched = 0
        return line or None

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise LineTooLong(self._limit)


class NetstringSplitter:
    """
    Cuts a stream of netstrings (D. J. Bernstein, 1997): `5:hello,`.

    An empty netstring is no message. The grammar is kept exactly: no leading
    zero, no white space, a comma at the end.
    """

    def __init__(self, limit: int = DEFAULT_MAX_MESSAGE) -> None:
        self._limit = limit
        self._digits = len(str(limit)) + 1  # one more proves it is too long
        self._pending = bytearray()
        self._ended = False

    def receive_data(self, data: bytes, /) -> None:
        self._pending += data

    def receive_eof(self) -> None:
        self._ended = True

    @property
    def pending(self) -> int:
        return len(self._pending)

    def next_message(self) -> bytes | None:
        pending = self._pending
        while (start := self._payload_start()) is not None:
            end = start + int(pending[: start - 1])
            if len(pending) <= end:
                break
            if pending[end] != ord(","):
                raise NetstringMalformed(bytes(pending[end : end + 1]), "a comma")
            payload = bytes(pending[start:end])
            del pending[: end + 1]
            if payload:
                return payload
        if self._ended and pending:
            raise NetstringMalformed(bytes(pending[:32]), "a whole one")
        return None

    def _payload_start(self) -> int | None:
        """Find where the payload starts; judge only what no further byte can mend."""
        head = bytes(self._pending[: self._digits + 1])
        digits = head[: self._digits].partition(b":")[0]
        for at, byte in enumerate(digits):
            if byte not in b"0123456789":
                raise NetstringMalformed(head[at : at + 1], "a digit or a colon")
            if at == 1 and digits.startswith(b"0"):
                raise NetstringMalformed(digits[:2], "no leading zero")
            if int(digits[: at + 1]) > self._limit:
                raise NetstringTooLong(self._limit, int(digits[: at + 1]))
        if not digits and head:
            raise NetstringMalformed(head[:1], "a digit")
        return len(digits) + 1 if len(digits) < len(head) else None


class ChunkSplitter:
    """
    Takes each read for a message, as the tutorials do, cut every `limit` bytes.

    TCP keeps no such borders: two writes may be one read, and one write two.
    """

    def __init__(self, limit: int = CHUNK_SIZE) -> None:
        self._limit = limit
        self._reads: deque[bytes] = deque()
        self._at = 0

    def receive_data(self, data: bytes, /) -> None:
        self._reads.append(data)

    def receive_eof(self) -> None:
        pass

    @property
    def pending(self) -> int:
        return sum(map(len, self._reads)) - self._at

    def next_message(self) -> bytes | None:
        if not self._reads:
            return None
        read, start = self._reads[0], self._at
        self._at += self._limit
        if self._at >= len(read):
            self._reads.popleft()
            self._at = 0
        return read[start : start + self._limit]


class Opening:
    """
    Decides once whether an `auto` conversation is one of lines or of chunks.

    It is one of lines if an LF is among the first 1,026 bytes; one of chunks
    once 1,027 bytes have come without, or the peer has paused after some bytes
    without one (`settle`), or has ended its input (`receive_eof`). The quiet
    that makes a pause is for the owner of a clock to measure.

    Attributes:
        run: what came before the decision, the deciding read included. It is
            one read for the splitter that goes on from here.
    """

    def __init__(self) -> None:
        self.run = b""

    def receive_data(self, data: bytes) -> Framing | None:
        """Take the next bytes; return the framing if they decide it."""
        start = len(self.run)
        self.run += data
        if self.run.find(b"\n", start, OPENING_SIZE) >= 0:
            return Framing.LINE
        return Framing.CHUNK if len(self.run) > OPENING_SIZE else None

    def settle(self) -> Framing | None:
        """Take that the peer has paused; None if it has sent nothing yet."""
        return Framing.CHUNK if self.run else None

    receive_eof = settle


def splitter(framing: Framing, limit: int) -> Splitter:
    """
    Make the splitter for a settled framing; messages have at most `limit` bytes.
    """
    if framing is Framing.LINE:
        return LineSplitter(limit)
    if framing is Framing.NETSTRING:
        return NetstringSplitter(limit)
    assert framing is Framing.CHUNK, "auto is settled by an Opening first"
    return ChunkSplitter(min(limit, CHUNK_SIZE))


def answering(
    framing: Framing, limit: int, prefix: bytes, suffix: bytes, *, unless: bytes
) -> Answering:
    """
    Have a function that takes a read that is one message, where nothing is pending.

    It returns the message between `prefix` and `suffix`. None if the message is
    `unless`, or if that the read is one is not to be seen at a glance: it is for a
    splitter then.
    """
    if framing is Framing.LINE:

        def answer(data: bytes) -> bytes | None:
            if data.find(b"\n") != len(data) - 1:
                return None
            line = data[:-1].removesuffix(b"\r")
            if line == unless or not 0 < len(line) <= limit:
                return None
            return prefix + line + suffix

        return answer
    if framing is Framing.NETSTRING:
        return no_answer
    limit = min(limit, CHUNK_SIZE)

    def answer_chunk(data: bytes) -> bytes | None:
        if data == unless or not 0 < len(data) <= limit:
            return None
        return prefix + data + suffix

    return answer_chunk


def frame(framing: Framing, message: bytes) -> bytes:
    """
    Put a message on the wire: bare, with an LF, or as a netstring.

    In `auto` it goes out bare, since nobody knows yet.
    """
    if framing is Framing.LINE:
        return message + b"\n"
    if framing is Framing.NETSTRING:
        return b"%d:%s," % (len(message), message)
    return message
