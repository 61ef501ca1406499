"""
The hello conversation's datagram form, without a socket.
"""

from __future__ import annotations

from hypothesis import given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.wire.datagram import LARGEST_DATAGRAM, answer_to, looks_like_answer
from sockproto.wire.hello import Answer

HELLO = Answer(b"Hello, ", b"!")
BARE = Answer(b"", b"")

ANSWERS = st.builds(Answer, st.binary(max_size=3), st.binary(max_size=3))


class DatagramTests(SynchronousTestCase):
    def test_answered(self) -> None:
        """A datagram is a name, whatever bytes it has, and gets one answer."""
        for name in (b"Michael", b"\xff\0\n", b"exit", b" ", b"Hello, ", b"!"):
            self.assertEqual(answer_to(HELLO, name), b"Hello, " + name + b"!")

    def test_empty(self) -> None:
        """An empty datagram is no name and gets no answer."""
        self.assertIsNone(answer_to(HELLO, b""))
        self.assertIsNone(answer_to(BARE, b""))

    def test_largest(self) -> None:
        """A datagram is answered whole, also where the answer will not fit one."""
        name = b"x" * LARGEST_DATAGRAM
        self.assertEqual(answer_to(HELLO, name), HELLO.to(name))

    def test_looks_like_answer(self) -> None:
        """What starts and ends as an answer is one, an empty name included."""
        self.assertTrue(looks_like_answer(HELLO, b"Hello, Bob!"))
        self.assertTrue(looks_like_answer(HELLO, b"Hello, !"))
        self.assertFalse(looks_like_answer(HELLO, b"Hello, Bob"))
        self.assertFalse(looks_like_answer(HELLO, b"hello, Bob!"))

    @given(answer=ANSWERS, name=st.binary(max_size=8))
    def test_no_loops(self, answer: Answer, name: bytes) -> None:
        """An answer that can be told from a name is never answered again."""
        if answer.tells_itself:
            self.assertTrue(looks_like_answer(answer, answer.to(name)))
            self.assertIsNone(answer_to(answer, answer.to(name)))

    @given(answer=ANSWERS, datagram=st.binary(max_size=8))
    def test_nothing_else_is_dropped(self, answer: Answer, datagram: bytes) -> None:
        """Only the empty and the answers go unanswered."""
        dropped = not datagram or looks_like_answer(answer, datagram)
        self.assertEqual(
            answer_to(answer, datagram), None if dropped else answer.to(datagram)
        )

    def test_bare_answer(self) -> None:
        """An answer of nothing but the name is not told from one: all get theirs."""
        self.assertFalse(looks_like_answer(BARE, b"Bob"))
        self.assertEqual(answer_to(BARE, b"Bob"), b"Bob")
