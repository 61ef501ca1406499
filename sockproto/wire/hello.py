"""
The hello conversation: a welcome, an answer to each name, and `exit`.

Both sides of it over a stream, and its datagram form, which has neither
welcome nor `exit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sockproto.checks import as_bytes
from sockproto.errors import SettingError
from sockproto.wire.framing import (
    CHUNK_SIZE,
    DEFAULT_MAX_MESSAGE,
    Answering,
    Framing,
    Splitter,
    answering,
    frame,
    no_answer,
    splitter,
)

__all__ = [
    "DEFAULT_ANSWER",
    "DEFAULT_GREETING",
    "EXIT",
    "Answer",
    "AnswerCame",
    "Ended",
    "Event",
    "Exited",
    "GreetingCame",
    "HelloClientConversation",
    "HelloConversation",
    "Named",
    "problem_with_name",
]

EXIT = b"exit"
DEFAULT_GREETING = b"Welcome!"
DEFAULT_ANSWER = b"Hello, NAME!"

_PLACEHOLDER = b"NAME"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What is said to a name: `prefix`, the name as it came, `suffix`.
    """

    prefix: bytes
    suffix: bytes

    @classmethod
    def parse(cls, template: bytes | str) -> Answer:
        """
        Read a template such as `Hello, NAME!`.

        Raises:
            SettingError: unless it holds `NAME` exactly once, and is UTF-8.
        """
        template = as_bytes("answer", template)
        if template.count(_PLACEHOLDER) != 1:
            raise SettingError("answer", template, "a text with NAME exactly once")
        prefix, _, suffix = template.partition(_PLACEHOLDER)
        return cls(prefix, suffix)

    def to(self, name: bytes) -> bytes:
        """Say it to this name."""
        return self.prefix + name + self.suffix

    def name_in(self, answer: bytes) -> bytes | None:
        """Find the name that this is the answer to; None if it is no answer."""
        if (
            len(answer) >= len(self.prefix) + len(self.suffix)
            and answer.startswith(self.prefix)
            and answer.endswith(self.suffix)
        ):
            return answer[len(self.prefix) : len(answer) - len(self.suffix)]
        return None

    @property
    def tells_itself(self) -> bool:
        """Whether an answer can be told from a name: it has more than the name."""
        return bool(self.prefix or self.suffix)


@dataclass(frozen=True, slots=True)
class Named:
    """
    The client gave a name, and is owed `answer`, which is framed.
    """

    name: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class Exited:
    """
    The client said `exit`: close without a farewell. What follows is discarded.
    """


@dataclass(frozen=True, slots=True)
class Ended:
    """
    The client has ended its input, and has been answered in all it asked.
    """


Event = Named | Exited | Ended


@lru_cache
def _answering_names(framing: Framing, answer: Answer, max_name: int) -> Answering:
    """One function for all conversations that are alike: each message looks at it."""
    suffix = answer.suffix + (b"\n" if framing is Framing.LINE else b"")
    return answering(framing, max_name, answer.prefix, suffix, unless=EXIT)


class HelloConversation:
    """
    The server's side of one conversation whose framing is settled.

    Feed it with `receive_data` and `receive_eof`; after each, call `next_event`
    until it returns None. It can be left between two events and resumed.

    Attributes:
        answer_at_once: takes the next bytes if they are one name, and answers it,
            framed. None if that is not so, or not to be seen at a glance: give
            them to `receive_data` then. It is only for when nothing is `pending`.
    """

    answer_at_once: Answering

    def __init__(
        self,
        framing: Framing,
        answer: Answer,
        *,
        max_name: int = DEFAULT_MAX_MESSAGE,
    ) -> None:
        self._framing = framing
        self._answer = answer
        self._splitter: Splitter = splitter(framing, max_name)
        self.answer_at_once = _answering_names(framing, answer, max_name)
        self._input_ended = False
        self._over = False

    @property
    def pending(self) -> int:
        """Bytes that were taken and not handed out as names yet."""
        return 0 if self._over else self._splitter.pending

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the stream; in chunk framing, one read."""
        if not self._over:
            self._splitter.receive_data(data)

    def receive_eof(self) -> None:
        """Take the end of the client's input."""
        self._input_ended = True
        self._splitter.receive_eof()

    def next_event(self) -> Event | None:
        """
        Hand out what happened next; None if that needs more bytes.

        Raises:
            PeerError: a name is too long, or its frame is broken. Close, after
                the answers to the names before it.
        """
        if self._over:
            return None
        name = self._splitter.next_message()
        if name is None:
            if not self._input_ended:
                return None
            self._end()
            return Ended()
        if name == EXIT:
            self._end()
            return Exited()
        return Named(name, frame(self._framing, self._answer.to(name)))

    def _end(self) -> None:
        self._over = True
        self.answer_at_once = no_answer


@dataclass(frozen=True, slots=True)
class GreetingCame:
    """
    The server's welcome, without its frame.
    """

    greeting: bytes


@dataclass(frozen=True, slots=True)
class AnswerCame:
    """
    The answer to the oldest name that has none yet, without its frame.
    """

    answer: bytes


class HelloClientConversation:
    """
    The client's side: tells the greeting from the answers.

    In chunk framing each read is a message, since nothing else marks one: give
    it one name at a time. In the others, names may be sent at will.

    Args:
        framing: not `auto`: the client is the one who chooses.
        greeted: whether the server welcomes before it answers.
        max_message: bytes of a greeting or an answer.
    """

    def __init__(
        self, framing: Framing, *, greeted: bool = True, max_message: int = 65_536
    ) -> None:
        self._chunks = framing is Framing.CHUNK
        self._splitter: Splitter = splitter(framing, max_message)
        self._reads: list[bytes] = []
        self._awaits_greeting = greeted

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the stream; in chunk framing, one read."""
        if self._chunks:
            self._reads.append(data)  # whole, also where it is above CHUNK_SIZE
        else:
            self._splitter.receive_data(data)

    def receive_eof(self) -> None:
        """Take the end of the server's output."""
        self._splitter.receive_eof()

    def next_event(self) -> GreetingCame | AnswerCame | None:
        """
        Hand out what happened next; None if that needs more bytes.

        Raises:
            PeerError: a line or netstring is too long, or broken.
        """
        if self._chunks:
            message = self._reads.pop(0) if self._reads else None
        else:
            message = self._splitter.next_message()
        if message is None:
            return None
        if self._awaits_greeting:
            self._awaits_greeting = False
            return GreetingCame(message)
        return AnswerCame(message)


def problem_with_name(framing: Framing, name: bytes) -> str | None:
    """
    Say why this name would not arrive as one name; None if it will.
    """
    if not name:
        return "it is empty, and an empty name gets no answer"
    if name == EXIT:
        return "it ends the conversation"
    if framing is Framing.LINE and b"\n" in name:
        return "it holds a line feed, which ends a name in line framing"
    if framing is Framing.LINE and name.endswith(b"\r"):
        return "it ends in a carriage return, which line framing takes off"
    if framing is Framing.CHUNK and b"\n" in name:
        return (
            "it holds a line feed, which makes it a conversation of lines;"
            " use netstring framing"
        )
    if framing is Framing.CHUNK and len(name) > CHUNK_SIZE:
        return f"its {len(name)} bytes are read as several names; {CHUNK_SIZE} are not"
    return None
