"""
Reads one HTTP/1.1 response, interim ones before it included (RFC 9112).

The exact grammar, with four leniences that a client can afford, because it
forwards nothing. In a head or in trailers, a line may end in a bare LF (section
2.2), and a value may be folded (section 5.2). What is indented before the first
field is dropped (section 2.2), and spaces may stand between a chunk's size and
its line end. Each is told in `HeadCame.notes` where it is in a head.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum

from sockproto.checks import whole_number
from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    CodingMalformed,
    HeadMalformed,
    NothingCame,
    SockprotoError,
)
from sockproto.wire.coding import KNOWN, LARGEST_RATIO, MOST_CODINGS

__all__ = [
    "BodyCame",
    "BodyFraming",
    "Event",
    "HeadCame",
    "InterimCame",
    "Limits",
    "ResponseEnded",
    "ResponseReader",
]

Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """
    How much is taken of what is not the body; curl's numbers, mostly.

    Attributes:
        head: bytes of its heads in all, interim ones included; of the trailers
            once more.
        line: bytes of one line of them, its end included.
        fields: of one head, and of the trailers.
        interim: responses of status 1xx.
        chunk_line: bytes of a line with a chunk's size, extensions included.
        chunk_digits: hexadecimal ones of that size; 16 are 64 bits.
        codings: on top of each other.
        ratio: times that a coded body may grow, once it is above 16 MiB.

    Raises:
        SettingError: one of them is no whole number from 0 up.
    """

    head: int = 300 * 1024
    line: int = 100 * 1024
    fields: int = 5000
    interim: int = 20
    chunk_line: int = 1024
    chunk_digits: int = 16
    codings: int = MOST_CODINGS
    ratio: int = LARGEST_RATIO

    def __post_init__(self) -> None:
        for name in self.__slots__:
            whole_number(name, getattr(self, name), 0, sys.maxsize)


DEFAULT_LIMITS = Limits()

LARGEST_LENGTH = 2**63 - 1
"""Bytes: what a file can have. Python would take more, and no peer has more."""

_JUDGED = 64
"""Bytes of what is no status line before it is called so without its end."""


class BodyFraming(StrEnum):
    """
    What ends a body (RFC 9112, section 6.3).
    """

    NONE = "none"
    LENGTH = "content-length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class InterimCame:
    """
    A 1xx response: the final one is still to come.
    """

    raw: bytes
    status: int


@dataclass(frozen=True, slots=True)
class HeadCame:
    """
    The head of the response.

    Attributes:
        raw: its bytes as received, the empty line at its end included.
        version: `1.1` or `1.0`.
        status, reason: of the status line; the reason's bytes as Latin-1.
        headers: as received and in order; a folded value is unfolded.
        framing: what ends the body.
        length: what Content-Length promises, in bytes, of a body that HEAD, 204
            and 304 leave out too; None without, and where it does not count.
        transfer_codings: those under `chunked`, in lower case, in the order in
            which they were applied.
        notes: what was odd and was taken nevertheless, in words.
    """

    raw: bytes
    version: str
    status: int
    reason: str
    headers: Fields
    framing: BodyFraming = BodyFraming.CLOSE
    length: int | None = None
    transfer_codings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def self_delimiting(self) -> bool:
        """Whether the body has an end of its own, not the connection's."""
        return self.framing != BodyFraming.CLOSE

    def values(self, name: bytes) -> list[bytes]:
        """The values of a field, in order; its name is given in lower case."""
        return [value for seen, value in self.headers if seen.lower() == name]


@dataclass(frozen=True, slots=True)
class BodyCame:
    """
    The next bytes of the body, their framing taken off.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """
    The response is complete. What follows on the connection is not part of it.
    """

    trailers: Fields = ()


Event = InterimCame | HeadCame | BodyCame | ResponseEnded
_Reading = Generator[Event | None, None, None]

_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9][0-9])(?: (.*))?", re.DOTALL)
_ANY_STATUS_LINE = re.compile(rb"HTTP/[0-9.]+ ")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(;[^\x00\r\n]*)?\r\n")
_DIGITS = re.compile(rb"[0-9]+")

BARE_LF = "a line ends in a bare LF"
FOLDED = "a value is folded"
INDENTED = "an indented field before the first one is dropped"
LENGTH_BESIDE_CODING = "Content-Length beside Transfer-Encoding is disregarded"
LENGTH_REPEATED = "Content-Length is repeated, and equal"
CHUNKED_REPEATED = "chunked is repeated, and taken once"


class ResponseReader:
    """
    Turns the bytes of a connection into the events of one response.

    Feed what comes to `receive_data` and `receive_eof`, and after each call
    `next_event` until it returns None. It reads as a generator, so the states
    of the grammar are places in its text; memory follows what was received, and
    never a number that the peer claims.

    Args:
        method: of the request: an answer to HEAD has no body.
        limits: what a head may weigh.
        raw: leave the framing of a chunked body in it.
    """

    def __init__(
        self, method: str = "GET", *, limits: Limits = DEFAULT_LIMITS, raw: bool = False
    ) -> None:
        self._method = method
        self._limits = limits
        self._raw = raw
        self._data: bytes = b""
        self._at = 0
        self._part = bytearray()  # of a line
        self._eof = False
        self._anything = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._left = 0  # of a body, or a chunk, of known size
        self._reading = self._response()
        self._over = False
        self.ended = False

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the connection."""
        if data and not self._over:
            self._anything = True
            rest = self._data[self._at :]
            self._data, self._at = (rest + data if rest else data), 0

    def receive_eof(self) -> None:
        """Take the end of the connection."""
        self._eof = True

    @property
    def behind(self) -> bytes:
        """What came, in the same read, behind the end of the response."""
        return self._data[self._at :] if self.ended else b""

    @property
    def plain_left(self) -> int:
        """Bytes of the body that come next for certain, all else being handed out."""
        return self._left if self._at == len(self._data) else 0

    def skip(self, size: int) -> None:
        """So many bytes of `plain_left` were taken off the connection by another."""
        assert size <= self.plain_left
        self._left -= size
        self._body_bytes += size

    def next_event(self) -> Event | None:
        """
        Hand out what happened next; None if that needs more bytes.

        Raises:
            NothingCame: the connection ended before a single byte.
            HeadMalformed: the head breaks the grammar or a limit, or is cut
                short.
            CodingMalformed: the body has a transfer coding that nobody asked for
                and that is not known.
            BodyMalformed: a chunk is broken, or the trailers are.
            BodyCutShort: the connection ended before the body did.
        """
        try:
            return next(self._reading, None)
        except SockprotoError:
            self._over = True
            raise

    # The grammar, from the top

    def _response(self) -> _Reading:
        interim = 0
        while isinstance(head := (yield from self._head()), InterimCame):
            interim += 1
            if interim > self._limits.interim:
                raise HeadMalformed(
                    f"more than {self._limits.interim} interim responses came"
                )
            yield head
        yield head
        trailers: Fields = ()
        if head.framing == BodyFraming.CHUNKED:
            trailers = yield from self._chunks()
        elif head.framing == BodyFraming.CLOSE:
            yield from self._to_the_end()
        elif head.length and head.framing == BodyFraming.LENGTH:
            yield from self._by_length(head.length, head.length)
        self.ended = self._over = True
        yield ResponseEnded(trailers)

    def _head(self) -> Generator[Event | None, None, InterimCame | HeadCame]:
        raw = bytearray()
        notes: dict[str, None] = {}
        line = yield from self._line(HeadMalformed, status=True)
        raw += line
        version, status, reason = _status_line(_content(line, notes))
        headers = yield from self._fields(HeadMalformed, raw, notes)
        if status == 101:
            raise HeadMalformed("101 switches to a protocol that was not asked for")
        if status < 200:
            return InterimCame(bytes(raw), status)
        if len(set(_values(headers, b"location"))) > 1:
            raise HeadMalformed("it has several Location fields, and they differ")
        length = _length(headers, notes)
        codings = _codings(headers, version, notes)
        framing = BodyFraming.CLOSE
        if self._method == "HEAD" or status in (204, 304):
            framing = BodyFraming.NONE
        elif codings is not None:
            framing = BodyFraming.CHUNKED
            if length is not None:
                notes[LENGTH_BESIDE_CODING] = None
        elif length is not None:
            framing = BodyFraming.LENGTH
        return HeadCame(
            bytes(raw),
            version,
            status,
            reason,
            headers,
            framing,
            length if codings is None else None,
            (codings or ()) if framing == BodyFraming.CHUNKED else (),
            tuple(notes),
        )

    def _fields(
        self,
        broken: type[HeadMalformed | BodyMalformed],
        raw: bytearray,
        notes: dict[str, None],
    ) -> Generator[Event | None, None, Fields]:
        """Field lines up to the empty line (RFC 9112, section 5)."""
        fields: list[tuple[bytes, list[bytes]]] = []
        while True:
            line = yield from self._line(broken)
            raw += line
            content = _content(line, notes)
            if not content:
                return tuple((name, b" ".join(parts)) for name, parts in fields)
            _add_field(fields, content, broken, notes)
            if len(fields) > self._limits.fields:
                raise broken(f"it has more than {self._limits.fields} fields")

    def _to_the_end(self) -> _Reading:
        while True:
            if self._at < len(self._data):
                yield self._take(len(self._data))
            elif self._eof:
                return
            else:
                yield None

    def _by_length(self, size: int, promised: int | None) -> _Reading:
        self._left = size
        while self._left:
            if self._at < len(self._data):
                came = self._take(self._left)
                self._left -= len(came.data)
                yield came
            elif self._eof:
                raise BodyCutShort(self._body_bytes, promised)
            else:
                yield None

    def _chunks(self) -> Generator[Event | None, None, Fields]:
        """The chunked coding and its trailers (RFC 9112, section 7.1)."""
        while True:
            line = yield from self._line(BodyMalformed, self._limits.chunk_line)
            if self._raw:
                yield BodyCame(line)
            size = _chunk_size(line, self._limits.chunk_digits)
            if not size:
                break
            yield from self._by_length(size, None)
            yield from self._chunk_end()
        raw = bytearray()
        self._head_bytes = 0
        trailers = yield from self._fields(BodyMalformed, raw, {})
        if self._raw:
            yield BodyCame(bytes(raw))
        return trailers

    def _chunk_end(self) -> _Reading:
        for expected in (b"\r", b"\n"):
            while self._at == len(self._data):
                if self._eof:
                    raise BodyCutShort(self._body_bytes, None)
                yield None
            seen = self._data[self._at : self._at + 1]
            if seen != expected:
                raise BodyMalformed(
                    f"{seen!r} is where a chunk's data should end in CRLF"
                )
            self._at += 1
        if self._raw:
            yield BodyCame(b"\r\n")

    # What the grammar is read from

    def _take(self, most: int) -> BodyCame:
        """Bytes of the body, all that there are; a whole read is not copied."""
        data = self._data
        if self._at or len(data) > most:
            data = data[self._at : self._at + most]
        self._at += len(data)
        self._body_bytes += len(data)
        return BodyCame(data)

    def _line(
        self,
        broken: type[HeadMalformed | BodyMalformed],
        longest: int | None = None,
        *,
        status: bool = False,
    ) -> Generator[Event | None, None, bytes]:
        """The next line with its LF, however it was chopped."""
        in_head = longest is None
        if longest is None:
            longest = self._limits.line
        while True:
            end = self._data.find(b"\n", self._at) + 1
            self._part += self._data[self._at : end or None]
            self._at = end or len(self._data)
            size = len(self._part)
            room = self._limits.head - self._head_bytes if in_head else longest
            most = min(longest, room)
            if status and (end or self._eof or size > min(most, _JUDGED - 1)):
                start = bytes(self._part[: min(most + 1, _JUDGED)])
                _judge_start(start, whole=bool(end) and size <= most)
            if size > most:
                # The smaller, so that chopping changes nothing.
                if room < longest:
                    raise broken(f"more than {self._limits.head} bytes of fields came")
                raise broken(f"a line is longer than the {longest} bytes allowed")
            if end:
                line = bytes(self._part)
                self._part.clear()
                if in_head:
                    self._head_bytes += size
                return line
            if self._eof:
                raise self._cut_short(broken)
            yield None

    def _cut_short(self, broken: type[HeadMalformed | BodyMalformed]) -> SockprotoError:
        if broken is BodyMalformed:
            return BodyCutShort(self._body_bytes, None)
        return HeadMalformed("it is cut short") if self._anything else NothingCame()


def _content(line: bytes, notes: dict[str, None]) -> bytes:
    if line.endswith(b"\r\n"):
        return line[:-2]
    notes[BARE_LF] = None
    return line[:-1]


def _judge_start(start: bytes, *, whole: bool) -> None:
    """Refuse what will never be a status line, be its end there or not."""
    if start and not (
        start.startswith(b"HTTP/") or (not whole and b"HTTP/".startswith(start))
    ):
        raise HeadMalformed(f"it does not begin with a status line but {_shown(start)}")


def _status_line(line: bytes) -> tuple[str, int, str]:
    """`HTTP/1.x SP 3DIGIT [SP reason]` (RFC 9112, section 4)."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        if _ANY_STATUS_LINE.match(line) and not line.startswith(
            (
                b"HTTP/1.0 ",
                b"HTTP/1.1 ",
            )
        ):
            raise HeadMalformed(
                f"its version is {_shown(line.split(b' ')[0])}, where HTTP/1.1"
                " and HTTP/1.0 are understood"
            )
        raise HeadMalformed(f"{_shown(line)} is no status line")
    version, status, reason = match.groups(b"")
    if b"\r" in reason or b"\0" in reason:
        raise HeadMalformed(f"a bare CR or a NUL is in {_shown(line)}")
    return (
        version.decode("ascii"),
        int(status),
        reason.strip(b" \t").decode("latin-1"),
    )


def _add_field(
    fields: list[tuple[bytes, list[bytes]]],
    content: bytes,
    broken: type[HeadMalformed | BodyMalformed],
    notes: dict[str, None],
) -> None:
    """Take one field line, or the rest of the one before it (section 5.2)."""
    if b"\r" in content or b"\0" in content:
        raise broken(f"a bare CR or a NUL is in {_shown(content)}")
    if content[:1] in (b" ", b"\t") and fields:
        notes[FOLDED] = None
        parts, folded = fields[-1][1], content.strip(b" \t")
        if folded:
            if not parts[0]:
                parts.clear()
            parts.append(folded)
        return
    name, colon, value = content.partition(b":")
    if not colon:
        raise broken(f"no colon is in the field line {_shown(content)}")
    if content[:1] in (b" ", b"\t"):
        notes[INDENTED] = None
        return
    if not _TOKEN.fullmatch(name):
        raise broken(f"{_shown(name)} is no field name")
    fields.append((name, [value.strip(b" \t")]))


def _values(fields: Fields, name: bytes) -> list[bytes]:
    return [value for seen, value in fields if seen.lower() == name]


def _length(headers: Fields, notes: dict[str, None]) -> int | None:
    """Content-Length: one number, or equal ones (RFC 9112, section 6.3, rule 5)."""
    sizes: list[int] = []
    for value in _values(headers, b"content-length"):
        for element in value.split(b","):
            digits = element.strip(b" \t")
            if not _DIGITS.fullmatch(digits):
                raise HeadMalformed(f"Content-Length is {_shown(value)}, no number")
            # Python refuses to convert thousands of digits.
            significant = digits.lstrip(b"0") or b"0"
            size = int(significant[:20])
            if len(significant) > 20 or size > LARGEST_LENGTH:
                raise HeadMalformed(
                    f"Content-Length is {_shown(value)}, above the"
                    f" {LARGEST_LENGTH} that a file can have"
                )
            sizes.append(size)
    if len(set(sizes)) > 1:
        seen = ", ".join(map(str, sizes[:5]))
        raise HeadMalformed(f"its Content-Lengths differ: {seen}")
    if len(sizes) > 1:
        notes[LENGTH_REPEATED] = None
    return sizes[0] if sizes else None


def _codings(
    headers: Fields, version: str, notes: dict[str, None]
) -> tuple[str, ...] | None:
    """
    The transfer codings under `chunked`; None without Transfer-Encoding.

    A response whose last coding is another than chunked would end with the
    connection (RFC 9112, section 6.3, rule 4); nobody sends that but to deceive.
    """
    values = _values(headers, b"transfer-encoding")
    if not values:
        return None
    said = b", ".join(values)
    if version == "1.0":
        # Section 6.1: the framing is faulty, even if there is a Content-Length.
        raise HeadMalformed("Transfer-Encoding is in a response of HTTP/1.0")
    codings = [
        coding.strip(b" \t").lower().decode("latin-1")
        for coding in said.split(b",")
        if coding.strip(b" \t")
    ]
    if not codings or codings[-1] != "chunked":
        raise HeadMalformed(f"Transfer-Encoding is {_shown(said)}, not chunked last")
    while codings and codings[-1] == "chunked":
        codings.pop()
        if codings and codings[-1] == "chunked":
            notes[CHUNKED_REPEATED] = None
    for coding in codings:
        if coding == "chunked":
            raise HeadMalformed(f"Transfer-Encoding is {_shown(said)}, twice chunked")
        if coding not in KNOWN:
            raise CodingMalformed(f"the transfer coding {coding[:64]!r} is not known")
    return tuple(codings)


def _chunk_size(line: bytes, most_digits: int) -> int:
    match = _CHUNK_LINE.fullmatch(line)
    if match is None:
        raise BodyMalformed(f"{_shown(line)} is no chunk size")
    if len(match[1]) > most_digits:
        raise BodyMalformed(
            f"the chunk size {_shown(match[1])} has more than {most_digits} digits"
        )
    return int(match[1], 16)


def _shown(data: bytes) -> str:
    return repr(data) if len(data) <= _JUDGED else f"{data[:_JUDGED]!r}..."
