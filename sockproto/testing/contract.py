"""
What every wrapper keeps.
"""

from __future__ import annotations

from sockproto.testing.abilities import Abilities
from sockproto.testing.endings import Endings
from sockproto.testing.factories import Factories
from sockproto.testing.lives import Lives
from sockproto.testing.pressure import BackPressure

__all__ = ["WrapperContract"]


class WrapperContract(Lives, Endings, BackPressure, Abilities, Factories):
    """
    What a wrapper keeps of the factory, the protocols and the transports between
    which it stands, whatever else it does. Mix it into a `SynchronousTestCase`.

    A wrapper may delay what passes and hold up reading. It may close and abort, but
    neither in the first half minute nor where a byte passes every `patience`. It may
    refuse connections, but none of the few at a time that a test makes.

    Attributes:
        clock: a new one for each test; for `wrap` to hand to the wrapper.
        patience: seconds of the clock's in which it hands on 1 MiB, both ways.
    """
