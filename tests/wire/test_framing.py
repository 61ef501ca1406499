"""
Streams are cut into the same messages, however the network chopped them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import example, given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import (
    LineTooLong,
    NetstringMalformed,
    NetstringTooLong,
    PeerError,
)
from sockproto.wire.framing import (
    CHUNK_SIZE,
    OPENING_SIZE,
    ChunkSplitter,
    Framing,
    LineSplitter,
    NetstringSplitter,
    Opening,
    Splitter,
    answering,
    frame,
    splitter,
)
from tests.wire.streams import chop_within, one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Refusal = tuple[type[PeerError], tuple[object, ...]]

LIMITS = st.integers(1, 12)

LINE_PIECES = st.sampled_from(
    [b"a", b"bcd", b"\0", b"\xff", b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\n"]
)
NETSTRING_PIECES = st.one_of(
    st.sampled_from(
        [b"0", b"1", b"2", b"9", b"10", b"00", b":", b",", b"a", b"\n", b" ", b"-"]
    ),
    st.binary(max_size=14).map(lambda data: b"%d:%s," % (len(data), data)),
)


def streams(pieces: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Streams as reads, each of several pieces of a grammar, or of none."""
    return st.lists(st.lists(pieces, max_size=4).map(b"".join), max_size=10)


def split(
    machine: Splitter,
    reads: Iterable[bytes],
    *,
    eof: bool = True,
    greed: Sequence[int] = (),
) -> tuple[list[bytes], Refusal | None]:
    """
    Feed a splitter; return its messages, and why it went no further.

    `greed` says how many messages are taken after each read; all, beyond it.
    """
    messages: list[bytes] = []
    reads = list(reads)
    most_possible = sum(map(len, reads))

    def take(most: int | None = None) -> None:
        left = most
        while left is None or left > 0:
            message = machine.next_message()
            if message is None:
                break
            messages.append(message)
            assert len(messages) <= most_possible, "messages without end"
            left = None if left is None else left - 1

    try:
        for at, read in enumerate(reads):
            machine.receive_data(read)
            take(greed[at] if at < len(greed) else None)
        take()
        if eof:
            machine.receive_eof()
            take()
    except PeerError as error:
        return messages, (type(error), error.args)
    return messages, None


def lines_of(stream: bytes, limit: int) -> tuple[list[bytes], Refusal | None]:
    """What is expected of a line splitter, said in another way."""
    *complete, last = stream.split(b"\n")
    messages: list[bytes] = []
    for line in [*(each.removesuffix(b"\r") for each in complete), last]:
        if len(line) > limit:
            return messages, (LineTooLong, (limit,))
        if line:
            messages.append(line)
    return messages, None


class LineSplitterTests(SynchronousTestCase):
    @given(reads=streams(LINE_PIECES), limit=LIMITS, eof=st.booleans())
    def test_chopping_changes_nothing(
        self, reads: list[bytes], limit: int, eof: bool
    ) -> None:
        """The same lines and the same refusal come out, however it arrives."""
        stream = b"".join(reads)
        came = split(LineSplitter(limit), reads, eof=eof)
        self.assertEqual(came, split(LineSplitter(limit), [stream], eof=eof))
        self.assertEqual(came, split(LineSplitter(limit), one_by_one(stream), eof=eof))

    @given(reads=streams(LINE_PIECES), limit=LIMITS)
    @example(reads=[b"bcd\r"], limit=3)
    @example(reads=[b"bcd\r\r\n"], limit=3)
    def test_grammar(self, reads: list[bytes], limit: int) -> None:
        """Lines end in LF or CRLF, and what is neither is part of the line."""
        self.assertEqual(
            split(LineSplitter(limit), reads), lines_of(b"".join(reads), limit)
        )

    @given(
        reads=streams(LINE_PIECES),
        limit=LIMITS,
        greed=st.lists(st.integers(0, 2), max_size=10),
    )
    def test_left_and_resumed(
        self, reads: list[bytes], limit: int, greed: list[int]
    ) -> None:
        """A consumer that stops between two lines loses none of them."""
        self.assertEqual(
            split(LineSplitter(limit), reads, greed=greed),
            split(LineSplitter(limit), reads),
        )

    def test_longest_line(self) -> None:
        """A line may have as many bytes as the limit says, and its CRLF on top."""
        for end in (b"\n", b"\r\n", b""):
            self.assertEqual(split(LineSplitter(4), [b"abcd" + end]), ([b"abcd"], None))
            self.assertEqual(
                split(LineSplitter(4), [b"ok\nabcde" + end]),
                ([b"ok"], (LineTooLong, (4,))),
            )

    def test_refused_before_its_end(self) -> None:
        """An overlong line is refused as soon as no further byte can mend it."""
        machine = LineSplitter(4)
        self.assertEqual(
            split(LineSplitter(4), [b"abcde"], eof=False), ([], (LineTooLong, (4,)))
        )
        self.assertEqual(split(machine, [b"abcd\r"], eof=False), ([], None))
        machine.receive_data(b"\r")
        with self.assertRaises(LineTooLong) as caught:
            machine.next_message()
        self.assertEqual(caught.exception.limit, 4)

    def test_default_limit(self) -> None:
        """Unless told otherwise a line has at most 1,024 bytes."""
        line = b"x" * 1024
        self.assertEqual(split(LineSplitter(), [line + b"\n"]), ([line], None))
        self.assertEqual(
            split(LineSplitter(), [line + b"x"]), ([], (LineTooLong, (1024,)))
        )

    def test_end_is_told_once(self) -> None:
        """An unfinished last line is handed out once."""
        machine = LineSplitter()
        self.assertEqual(split(machine, [b"Michael"]), ([b"Michael"], None))
        self.assertIsNone(machine.next_message())


class NetstringSplitterTests(SynchronousTestCase):
    @given(reads=streams(NETSTRING_PIECES), limit=LIMITS, eof=st.booleans())
    def test_chopping_changes_nothing(
        self, reads: list[bytes], limit: int, eof: bool
    ) -> None:
        """The same messages and the same refusal come out, however it arrives."""
        stream = b"".join(reads)
        came = split(NetstringSplitter(limit), reads, eof=eof)
        self.assertEqual(came, split(NetstringSplitter(limit), [stream], eof=eof))
        self.assertEqual(
            came, split(NetstringSplitter(limit), one_by_one(stream), eof=eof)
        )

    @given(
        reads=streams(NETSTRING_PIECES),
        limit=LIMITS,
        greed=st.lists(st.integers(0, 2), max_size=10),
    )
    def test_left_and_resumed(
        self, reads: list[bytes], limit: int, greed: list[int]
    ) -> None:
        """A consumer that stops between two messages loses none of them."""
        self.assertEqual(
            split(NetstringSplitter(limit), reads, greed=greed),
            split(NetstringSplitter(limit), reads),
        )

    @given(messages=st.lists(st.binary(max_size=1100)))
    def test_round_trip(self, messages: list[bytes]) -> None:
        """Whatever bytes were framed come out again; empty ones are no message."""
        stream = b"".join(frame(Framing.NETSTRING, each) for each in messages)
        self.assertEqual(
            split(NetstringSplitter(1100), [stream]),
            ([each for each in messages if each], None),
        )

    @given(
        head=st.binary(min_size=1, max_size=4), limit=st.sampled_from([1, 9, 10, 250])
    )
    def test_grammar(self, head: bytes, limit: int) -> None:
        """A message is taken if its length is written as it must be, else refused."""
        size = int(head) if head.isdigit() else -1
        exact = head == b"%d" % size
        messages, refusal = split(
            NetstringSplitter(limit), [head, b":", b"x" * max(size, 0), b","]
        )
        if exact and size <= limit:
            self.assertEqual((messages, refusal), ([b"x" * size] if size else [], None))
        else:
            self.assertEqual(messages, [])
            self.assertIsNotNone(refusal)

    def test_refusals(self) -> None:
        """A refusal says what was seen, and what is allowed there."""
        malformed = NetstringMalformed
        for stream, refusal in {
            b"x": (malformed, (b"x", "a digit or a colon")),
            b":": (malformed, (b":", "a digit")),
            b" 1:a,": (malformed, (b" ", "a digit or a colon")),
            b"1 :a,": (malformed, (b" ", "a digit or a colon")),
            b"+1:a,": (malformed, (b"+", "a digit or a colon")),
            b"01:a,": (malformed, (b"01", "no leading zero")),
            b"00:,": (malformed, (b"00", "no leading zero")),
            b"1:a\n": (malformed, (b"\n", "a comma")),
            b"0:x": (malformed, (b"x", "a comma")),
            b"6": (NetstringTooLong, (5, 6)),
            b"12345": (NetstringTooLong, (5, 12)),
            b"1": (malformed, (b"1", "a whole one")),
            b"3:ab": (malformed, (b"3:ab", "a whole one")),
            b"3:abc": (malformed, (b"3:abc", "a whole one")),
        }.items():
            self.assertEqual(
                split(NetstringSplitter(5), [b"2:ok,", stream]), ([b"ok"], refusal)
            )

    def test_too_long_is_refused_at_its_length(self) -> None:
        """A message above the limit is refused before any of its bytes is held."""
        self.assertEqual(
            split(NetstringSplitter(), [b"1025"], eof=False),
            ([], (NetstringTooLong, (1024, 1025))),
        )
        self.assertEqual(split(NetstringSplitter(), [b"1024:"], eof=False), ([], None))

    def test_what_a_refusal_shows_is_bounded(self) -> None:
        """A message that is cut short is shown by its first 32 bytes."""
        stream = b"1000:" + b"x" * 900
        self.assertEqual(
            split(NetstringSplitter(), [stream]),
            ([], (NetstringMalformed, (stream[:32], "a whole one"))),
        )


class ChunkSplitterTests(SynchronousTestCase):
    @given(
        reads=st.lists(st.binary(min_size=1, max_size=40)),
        limit=LIMITS,
        greed=st.lists(st.integers(0, 2), max_size=10),
    )
    def test_cuts(self, reads: list[bytes], limit: int, greed: list[int]) -> None:
        """Each read is a message by itself, cut every so many bytes."""
        self.assertEqual(
            split(ChunkSplitter(limit), reads, greed=greed),
            (
                [
                    read[at : at + limit]
                    for read in reads
                    for at in range(0, len(read), limit)
                ],
                None,
            ),
        )

    def test_tutorial_size(self) -> None:
        """Unless told otherwise a read is cut as the tutorials' `recv(1024)` has it."""
        read = bytes(range(256)) * 10
        self.assertEqual(
            split(ChunkSplitter(), [read]),
            ([read[:1024], read[1024:2048], read[2048:]], None),
        )


class OpeningTests(SynchronousTestCase):
    @given(
        before=st.integers(0, 1100),
        after=st.integers(0, 1100),
        fed=st.booleans(),
        cuts=st.lists(
            st.one_of(st.integers(1, 2200), st.integers(1020, 1030)), max_size=8
        ),
    )
    @example(before=3, after=0, fed=True, cuts=[3])
    @example(before=1025, after=9, fed=True, cuts=[1025, 1026])
    @example(before=1026, after=9, fed=True, cuts=[1026])
    def test_chopping_changes_nothing(
        self, before: int, after: int, fed: bool, cuts: list[int]
    ) -> None:
        """The same byte decides the same framing, however it arrives."""
        stream = b"x" * before + b"\n" * fed + b"y" * after
        lf = stream.find(b"\n", 0, 1026)
        decision, size = None, len(stream)
        if lf >= 0:
            decision, size = Framing.LINE, lf + 1
        elif len(stream) >= 1027:
            decision, size = Framing.CHUNK, 1027
        opening = Opening()
        came = 0
        for read in chop_within(stream, cuts):
            framing = opening.receive_data(read)
            came += len(read)
            self.assertEqual(opening.run, stream[:came])
            self.assertIs(framing, decision if came >= size else None)
            if framing:
                break

    @given(
        stream=st.lists(LINE_PIECES, max_size=12).map(b"".join),
        padding=st.sampled_from([0, 0, 1010, 1024, 2100]),
        cuts=st.lists(st.integers(1, 2200), max_size=8),
    )
    def test_same_messages(self, stream: bytes, padding: int, cuts: list[int]) -> None:
        """What came up to the decision is the same messages, however it arrived."""
        stream = b"z" * padding + stream

        def messages(reads: list[bytes]) -> object:
            opening = Opening()
            for at, read in enumerate(reads, 1):
                framing = opening.receive_data(read)
                if framing:
                    return framing, split(
                        splitter(framing, 1024), [opening.run, *reads[at:]]
                    )
            framing = opening.receive_eof()
            return framing, framing and split(splitter(framing, 1024), [opening.run])

        if stream.find(b"\n", 0, 1026) < 0:
            # After it, in chunk framing, each read is a name: cut only before it.
            cuts = [cut for cut in cuts if cut < OPENING_SIZE]
        self.assertEqual(messages(chop_within(stream, cuts)), messages([stream]))

    def test_longest_line_is_a_line(self) -> None:
        """A name of 1,024 bytes and its CRLF are a line; one byte more are chunks."""
        self.assertIs(Opening().receive_data(b"x" * 1024 + b"\r\n"), Framing.LINE)
        self.assertIs(Opening().receive_data(b"x" * 1026 + b"\n"), Framing.CHUNK)
        waiting = Opening()
        self.assertIsNone(waiting.receive_data(b"x" * 1026))
        self.assertIs(waiting.receive_data(b"\n"), Framing.CHUNK)
        self.assertEqual(len(waiting.run), 1027)

    def test_undecided(self) -> None:
        """Up to 1,026 bytes without an LF decide nothing."""
        self.assertEqual(OPENING_SIZE, 1026)
        self.assertIsNone(Opening().receive_data(b"x" * 1026))
        self.assertIs(Opening().receive_data(b"x" * 1027), Framing.CHUNK)

    def test_pause_and_end(self) -> None:
        """A pause, or the end of input, makes chunks of what has come, if anything."""
        for settle in (Opening.settle, Opening.receive_eof):
            opening = Opening()
            self.assertIsNone(settle(opening))
            opening.receive_data(b"Michael")
            self.assertIs(settle(opening), Framing.CHUNK)
            self.assertEqual(opening.run, b"Michael")


class FramingTests(SynchronousTestCase):
    def test_frames(self) -> None:
        """A message goes out bare, with an LF, or as a netstring."""
        self.assertEqual(
            {each: frame(each, b"Hi, a!") for each in Framing},
            {
                Framing.AUTO: b"Hi, a!",
                Framing.CHUNK: b"Hi, a!",
                Framing.LINE: b"Hi, a!\n",
                Framing.NETSTRING: b"6:Hi, a!,",
            },
        )

    def test_limit_holds_in_every_framing(self) -> None:
        """No message is longer than the limit, whatever the framing."""
        self.assertEqual(
            split(splitter(Framing.LINE, 3), [b"abcd"]), ([], (LineTooLong, (3,)))
        )
        self.assertEqual(
            split(splitter(Framing.NETSTRING, 3), [b"4:abcd,"]),
            ([], (NetstringTooLong, (3, 4))),
        )
        self.assertEqual(
            split(splitter(Framing.CHUNK, 3), [b"abcd"]), ([b"abc", b"d"], None)
        )

    def test_chunks_stay_those_of_the_tutorials(self) -> None:
        """A limit above 1,024 lets longer lines pass, and cuts reads as before."""
        data = b"x" * 3000
        messages, _ = split(splitter(Framing.CHUNK, 4000), [data])
        self.assertEqual([len(each) for each in messages], [CHUNK_SIZE] * 2 + [952])
        self.assertEqual(split(splitter(Framing.LINE, 4000), [data]), ([data], None))


class OnlyMessageTests(SynchronousTestCase):
    """A read that is one message is that message by the short way too."""

    @given(
        framing=st.sampled_from([Framing.CHUNK, Framing.LINE, Framing.NETSTRING]),
        limit=LIMITS,
        data=st.lists(LINE_PIECES, max_size=4).map(b"".join),
    )
    def test_the_same(self, framing: Framing, limit: int, data: bytes) -> None:
        message = answering(framing, limit, b"", b"", unless=b"exit")(data)
        if message is not None:
            long = splitter(framing, limit)
            self.assertEqual(split(long, [data], eof=False), ([message], None))
            self.assertEqual(long.pending, 0)

    def test_taken(self) -> None:
        """It is there for what clients send one at a time."""
        for framing, read in ((Framing.LINE, b"Bob\r\n"), (Framing.CHUNK, b"Bob")):
            answer = answering(framing, 9, b"<", b">", unless=b"exit")
            self.assertEqual(answer(read), b"<Bob>")
            self.assertIsNone(answer(read.replace(b"Bob", b"exit")))
