"""
What rooms share: the debt of a connection, and who has one.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError

from hypothesis import given, strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from sockproto.echo import EchoProtocol
from sockproto.hello import HelloProtocol
from sockproto.interfaces import Debt, IOwing

BYTES = st.integers(0, 1000)
DEBTS = st.builds(Debt, BYTES, BYTES, BYTES, st.booleans())


class DebtTests(SynchronousTestCase):
    @given(debt=DEBTS)
    def test_truth(self, debt: Debt) -> None:
        """A debt is true if a single byte is owed, of whichever kind."""
        size = debt.unanswered + debt.unsent + debt.unread
        self.assertEqual(bool(debt), size > 0 or debt.held_up)

    @given(debts=st.lists(DEBTS))
    def test_sum(self, debts: list[Debt]) -> None:
        """Debts add up, each kind by itself."""
        self.assertEqual(
            sum(debts, Debt()),
            Debt(
                sum(debt.unanswered for debt in debts),
                sum(debt.unsent for debt in debts),
                sum(debt.unread for debt in debts),
                any(debt.held_up for debt in debts),
            ),
        )

    def test_words(self) -> None:
        """A debt says what is owed, and leaves out what is not."""
        for debt, words in {
            Debt(): "nothing",
            Debt(unanswered=7): "the answers to 7 bytes",
            Debt(unsent=5): "5 bytes not yet sent",
            Debt(7, 5): "the answers to 7 bytes and 5 bytes not yet sent",
            Debt(7, unread=3): "the answers to 10 bytes",
            Debt(unsent=5, held_up=True): (
                "5 bytes not yet sent and more that a rate holds up"
            ),
        }.items():
            self.assertEqual(str(debt), words)

    def test_value(self) -> None:
        """A debt is a value: equal by what it holds, and not to be changed."""
        self.assertEqual(Debt(1, 2), Debt(unanswered=1, unsent=2))
        with self.assertRaises(FrozenInstanceError):
            Debt().unsent = 1  # type: ignore[misc]


class OwingTests(SynchronousTestCase):
    def test_servers(self) -> None:
        """The connections of hello and echo can be asked what they owe."""
        for protocol in (HelloProtocol, EchoProtocol):
            self.assertTrue(verifyClass(IOwing, protocol))
