"""
The hello conversation, both sides of it, without a socket.
"""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

from hypothesis import example, given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import (
    LineTooLong,
    NetstringMalformed,
    NetstringTooLong,
    PeerError,
    SettingError,
)
from sockproto.wire.framing import Framing, Opening, frame
from sockproto.wire.hello import (
    Answer,
    AnswerCame,
    Ended,
    Event,
    Exited,
    GreetingCame,
    HelloClientConversation,
    HelloConversation,
    Named,
    problem_with_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

HELLO = Answer(b"Hello, ", b"!")

SHORT = st.lists(st.sampled_from([b"a", b"b", b"aba", b"\n", b""])).map(b"".join)
ANSWERS = st.builds(Answer, SHORT, SHORT)

PIECES = st.sampled_from(
    [b"a", b"Bob", b"exit", b"\r", b"\n", b"\r\n", b"\n\n", b"4:exit,", b"1:a,", b"0:,"]
)

NAMES = st.one_of(
    st.binary(max_size=8),
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\0", b"exit"]), max_size=4).map(
        b"".join
    ),
    st.sampled_from([1023, 1024, 1025, 1026, 2048]).map(lambda size: b"x" * size),
)


def events_of(
    conversation: HelloConversation, reads: Iterable[bytes], *, eof: bool = True
) -> list[Event | type[PeerError]]:
    """All that happens in a conversation, the refusal that ends it included."""
    events: list[Event | type[PeerError]] = []
    reads = list(reads)
    most_possible = sum(map(len, reads)) + 1

    def take() -> None:
        while (event := conversation.next_event()) is not None:
            events.append(event)
            assert len(events) <= most_possible, "events without end"

    try:
        for read in reads:
            conversation.receive_data(read)
            take()
        if eof:
            conversation.receive_eof()
            take()
    except PeerError as error:
        events.append(type(error))
    return events


class AnswerTests(SynchronousTestCase):
    @given(answer=ANSWERS, name=st.one_of(SHORT, st.binary()))
    def test_round_trip(self, answer: Answer, name: bytes) -> None:
        """The name that was answered can be found in the answer."""
        self.assertEqual(answer.name_in(answer.to(name)), name)

    @given(answer=ANSWERS, text=st.one_of(SHORT, st.binary()))
    @example(answer=Answer(b"aba", b"aba"), text=b"ababa")
    def test_no_answer(self, answer: Answer, text: bytes) -> None:
        """A name is found only in what would be its answer, byte for byte."""
        name = answer.name_in(text)
        could_be = len(text) >= len(answer.to(b"")) and text == answer.to(
            text[len(answer.prefix) : len(text) - len(answer.suffix)]
        )
        self.assertEqual(name is not None, could_be)
        if name is not None:
            self.assertEqual(answer.to(name), text)

    def test_parse(self) -> None:
        """A template says what stands before the name, and what after it."""
        self.assertEqual(Answer.parse(b"Hello, NAME!"), HELLO)
        self.assertEqual(Answer.parse("Hello, NAME!"), HELLO)
        self.assertEqual(Answer.parse("NAME"), Answer(b"", b""))
        self.assertEqual(Answer.parse("\xe9 NAME"), Answer(b"\xc3\xa9 ", b""))
        self.assertEqual(Answer.parse("\udcff NAME"), Answer(b"\xff ", b""))

    def test_parse_lone_surrogate(self) -> None:
        """A template that cannot be sent as UTF-8 is refused by its name."""
        error = self.assertRaises(SettingError, Answer.parse, "\ud800 NAME")
        self.assertEqual(error.name, "answer")

    def test_parse_refuses(self) -> None:
        """A template without a NAME, or with two, is refused by name."""
        for template in (b"", b"Hello, name!", b"NAME NAME"):
            with self.assertRaises(SettingError) as caught:
                Answer.parse(template)
            self.assertEqual(caught.exception.name, "answer")
            self.assertEqual(caught.exception.seen, template)
            self.assertIn("NAME", caught.exception.allowed)

    def test_tells_itself(self) -> None:
        """An answer that is nothing but the name cannot be told from a name."""
        self.assertTrue(Answer(b"Hi ", b"").tells_itself)
        self.assertTrue(Answer(b"", b"!").tells_itself)
        self.assertFalse(Answer(b"", b"").tells_itself)


class HelloConversationTests(SynchronousTestCase):
    @given(
        reads=st.lists(st.lists(PIECES, max_size=4).map(b"".join), max_size=8),
        framing=st.sampled_from([Framing.LINE, Framing.NETSTRING]),
        max_name=st.integers(1, 9),
    )
    def test_chopping_changes_nothing(
        self, reads: list[bytes], framing: Framing, max_name: int
    ) -> None:
        """The same happens, and the same is refused, however the names arrive."""

        def happens(reads: list[bytes]) -> list[Event | type[PeerError]]:
            return events_of(
                HelloConversation(framing, HELLO, max_name=max_name), reads
            )

        self.assertEqual(happens(reads), happens([b"".join(reads)]))

    def test_answers(self) -> None:
        """Each name is owed an answer, framed as it came itself."""
        for framing, answer in {
            Framing.LINE: b"Hello, Bob!\n",
            Framing.CHUNK: b"Hello, Bob!",
            Framing.NETSTRING: b"11:Hello, Bob!,",
        }.items():
            self.assertEqual(
                events_of(
                    HelloConversation(framing, HELLO),
                    [frame(framing, b"Bob")],
                    eof=False,
                ),
                [Named(b"Bob", answer)],
            )

    def test_names_are_bytes(self) -> None:
        """A name comes back as it came, also where it is no text."""
        name = b"\xff\0\x1b[31m"
        self.assertEqual(
            events_of(HelloConversation(Framing.LINE, HELLO), [name + b"\r\n"]),
            [Named(name, b"Hello, " + name + b"!\n"), Ended()],
        )

    def test_exit(self) -> None:
        """After `exit` nothing happens any more, whatever else comes."""
        conversation = HelloConversation(Framing.LINE, HELLO, max_name=8)
        self.assertEqual(
            events_of(conversation, [b"Bob\nexit\nTim\n", b"x" * 99, b"\n"]),
            [Named(b"Bob", b"Hello, Bob!\n"), Exited()],
        )
        self.assertIsNone(conversation.next_event())

    def test_nothing_is_held_after_exit(self) -> None:
        """What follows `exit` costs no memory."""
        conversation = HelloConversation(Framing.LINE, HELLO)
        events_of(conversation, [b"exit\n"], eof=False)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(100):
            conversation.receive_data(b"x" * 10_000)
        self.assertLess(tracemalloc.get_traced_memory()[0], 100_000)

    def test_exit_is_exact(self) -> None:
        """Only `exit` itself ends a conversation."""
        for name in (b"EXIT", b"exit ", b"exits", b" exit"):
            self.assertEqual(
                events_of(HelloConversation(Framing.CHUNK, HELLO), [name], eof=False),
                [Named(name, HELLO.to(name))],
            )

    def test_end(self) -> None:
        """The end comes once, and after an unfinished last name."""
        conversation = HelloConversation(Framing.LINE, HELLO)
        self.assertEqual(
            events_of(conversation, [b"Bob\nTim"]),
            [
                Named(b"Bob", b"Hello, Bob!\n"),
                Named(b"Tim", b"Hello, Tim!\n"),
                Ended(),
            ],
        )
        self.assertIsNone(conversation.next_event())

    def test_end_without_names(self) -> None:
        """Who says nothing is owed nothing."""
        for framing in (Framing.LINE, Framing.CHUNK, Framing.NETSTRING):
            self.assertEqual(
                events_of(HelloConversation(framing, HELLO), []), [Ended()]
            )

    def test_too_long(self) -> None:
        """The names before one that is too long are answered first."""
        named = Named(b"Bob", b"Hello, Bob!\n")
        self.assertEqual(
            events_of(
                HelloConversation(Framing.LINE, HELLO, max_name=3), [b"Bob\nMike\n"]
            ),
            [named, LineTooLong],
        )
        self.assertEqual(
            events_of(
                HelloConversation(Framing.NETSTRING, HELLO, max_name=3),
                [b"3:Bob,4:Mike,"],
            ),
            [Named(b"Bob", b"11:Hello, Bob!,"), NetstringTooLong],
        )

    def test_bounds_unless_told_otherwise(self) -> None:
        """A name has at most 1,024 bytes."""
        name = b"x" * 1024
        self.assertEqual(
            events_of(
                HelloConversation(Framing.LINE, HELLO), [name + b"\n" + name + b"x\n"]
            ),
            [Named(name, HELLO.to(name) + b"\n"), LineTooLong],
        )


class HelloClientConversationTests(SynchronousTestCase):
    def happens(
        self, conversation: HelloClientConversation, reads: list[bytes]
    ) -> list[GreetingCame | AnswerCame]:
        events = []
        for read in reads:
            conversation.receive_data(read)
            while (event := conversation.next_event()) is not None:
                events.append(event)
        conversation.receive_eof()
        while (event := conversation.next_event()) is not None:
            events.append(event)
        return events

    def test_greeting_and_answers(self) -> None:
        """What comes first is the greeting; all that follows are answers."""
        for framing, reads in {
            Framing.CHUNK: [b"Hi!", b"Hello, a!", b"Hello, b!"],
            Framing.LINE: [b"Hi!\nHel", b"lo, a!\r\nHello, b!"],
            Framing.NETSTRING: [b"3:Hi!,9:", b"Hello, a!,9:Hello, b!,"],
        }.items():
            self.assertEqual(
                self.happens(HelloClientConversation(framing), reads),
                [
                    GreetingCame(b"Hi!"),
                    AnswerCame(b"Hello, a!"),
                    AnswerCame(b"Hello, b!"),
                ],
            )

    def test_no_greeting(self) -> None:
        """Where no greeting is awaited, what comes first is an answer."""
        self.assertEqual(
            self.happens(
                HelloClientConversation(Framing.CHUNK, greeted=False), [b"Hello, a!"]
            ),
            [AnswerCame(b"Hello, a!")],
        )

    def test_long_chunk_is_one_answer(self) -> None:
        """A read that is longer than a name may be is one answer nevertheless."""
        answer = HELLO.to(b"x" * 1024)
        self.assertEqual(
            self.happens(
                HelloClientConversation(Framing.CHUNK, greeted=False), [answer]
            ),
            [AnswerCame(answer)],
        )

    def test_refusals(self) -> None:
        """A server that breaks the framing is refused."""
        conversation = HelloClientConversation(Framing.LINE, max_message=4)
        conversation.receive_data(b"Hello")
        self.assertRaises(LineTooLong, conversation.next_event)
        conversation = HelloClientConversation(Framing.NETSTRING)
        conversation.receive_data(b"Welcome!")
        self.assertRaises(NetstringMalformed, conversation.next_event)


def arrives(framing: Framing, name: bytes) -> list[Event | type[PeerError]]:
    """
    What a name is at a server; one who sends chunks talks to one that decides.
    """
    data = frame(framing, name)
    settled: Framing | None = framing
    if framing is Framing.CHUNK:
        opening = Opening()
        settled = opening.receive_data(data) or opening.settle() or framing
    assert settled is not None
    if not data:
        return []
    return events_of(
        HelloConversation(settled, Answer(b"", b""), max_name=4096), [data], eof=False
    )


class ProblemWithNameTests(SynchronousTestCase):
    @given(
        framing=st.sampled_from([Framing.CHUNK, Framing.LINE, Framing.NETSTRING]),
        name=NAMES,
    )
    @example(framing=Framing.LINE, name=b"a\r")
    @example(framing=Framing.CHUNK, name=b"x" * 1025)
    def test_passes_what_arrives(self, framing: Framing, name: bytes) -> None:
        """A name passes if, and only if, it arrives as that one name."""
        events = arrives(framing, name)
        whole = len(events) == 1 and (
            isinstance(events[0], Named) and events[0].name == name
        )
        self.assertEqual(problem_with_name(framing, name) is None, whole)

    def test_problems(self) -> None:
        """The problem is said in words that help."""
        for framing, name, words in (
            (Framing.LINE, b"", "empty"),
            (Framing.NETSTRING, b"exit", "ends the conversation"),
            (Framing.LINE, b"a\nb", "line feed"),
            (Framing.LINE, b"a\r", "carriage return"),
            (Framing.CHUNK, b"a\nb", "netstring framing"),
            (Framing.CHUNK, b"x" * 1025, "1025 bytes"),
        ):
            self.assertIn(words, problem_with_name(framing, name) or "")


class AnswerAtOnceTests(SynchronousTestCase):
    """A read that is one name has the same answer by the short way."""

    @given(
        framing=st.sampled_from([Framing.CHUNK, Framing.LINE, Framing.NETSTRING]),
        answer=ANSWERS,
        reads=st.lists(st.lists(PIECES, min_size=1, max_size=3).map(b"".join)),
    )
    def test_the_same(
        self, framing: Framing, answer: Answer, reads: list[bytes]
    ) -> None:
        short = HelloConversation(framing, answer, max_name=4)
        long = HelloConversation(framing, answer, max_name=4)
        said: list[bytes] = []
        expected: list[bytes] = []
        for data in reads:
            at_once = None if short.pending else short.answer_at_once(data)
            if at_once is not None:
                said.append(at_once)
            else:
                said += answers_in(events_of(short, [data], eof=False))
            expected += answers_in(events_of(long, [data], eof=False))
        self.assertEqual(said, expected)
        self.assertEqual(short.pending, long.pending)

    def test_taken(self) -> None:
        """It is there for what clients send one at a time, and for no `exit`."""
        lines = HelloConversation(Framing.LINE, HELLO)
        self.assertEqual(lines.answer_at_once(b"Bob\n"), b"Hello, Bob!\n")
        self.assertIsNone(lines.answer_at_once(b"exit\n"))
        chunks = HelloConversation(Framing.CHUNK, HELLO)
        self.assertEqual(chunks.answer_at_once(b"Bob"), b"Hello, Bob!")
        chunks.receive_data(b"exit")
        self.assertEqual(chunks.next_event(), Exited())
        self.assertIsNone(chunks.answer_at_once(b"Bob"))


def answers_in(events: Iterable[Event | type[PeerError]]) -> list[bytes]:
    """What was said to names."""
    return [each.answer for each in events if isinstance(each, Named)]
