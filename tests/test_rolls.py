"""
Who is connected now.
"""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from sockproto.rolls import Roll, Rolls


class RollsTests(SynchronousTestCase):
    """Several rolls, as long as somebody has them."""

    def setUp(self) -> None:
        self.rolls = Rolls()

    def test_count(self) -> None:
        """All on all of them are counted; one that is there twice counts once."""
        kept = [Roll({1}), Roll(), Roll({2, 3})]
        for each in kept * 2:
            self.rolls.add(each)
        self.assertEqual(self.rolls.count(), 3)
        kept[1].update({4, 5})
        self.assertEqual(self.rolls.count(), 5)
        for roll, expected in zip(self.rolls, kept, strict=True):
            self.assertIs(roll, expected)

    def test_alike(self) -> None:
        """Two that have the same on them are two, also when one is forgotten."""
        first, second = Roll({1}), Roll({1})
        self.rolls.add(first)
        self.rolls.add(second)
        self.assertEqual(self.rolls.count(), 2)
        del second
        gc.collect()
        [left] = self.rolls
        self.assertIs(left, first)
        self.assertEqual(len(self.rolls._refs), 1)

    def test_forgotten_meanwhile(self) -> None:
        """One that is forgotten while they are gone through is left out."""
        kept = [Roll({1}), Roll({2})]
        for each in kept:
            self.rolls.add(each)
        del each
        seen = []
        for roll in self.rolls:
            seen.append(set(roll))
            del roll
            kept.clear()
            gc.collect()
        self.assertEqual(seen, [{1}])
        self.assertEqual(self.rolls.count(), 0)
