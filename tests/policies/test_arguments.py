"""
A bad argument of a policy raises when it is made, by name.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sockproto import (
    Admission,
    BehindProxy,
    DatagramAdmission,
    DatagramRateLimit,
    Drain,
    Draining,
    Gate,
    IdleTimeout,
    RateLimit,
    StalledTimeout,
    TotalRate,
)
from sockproto.errors import SettingError


class ArgumentTests(SynchronousTestCase):
    def test_clocks(self) -> None:
        """What is no clock is not taken for one."""
        inner: Any = Factory()
        datagrams = DatagramProtocol()
        for clock in (None, "x", object(), Factory):
            wrong: Any = clock
            for make in (
                lambda c: Admission(inner, clock=c),
                lambda c: BehindProxy(inner, c),
                lambda c: DatagramAdmission(datagrams, c),
                lambda c: DatagramRateLimit(datagrams, c, per_source=1, total=1),
                Drain,
                Gate,
                lambda c: IdleTimeout(inner, seconds=1, clock=c),
                lambda c: RateLimit(inner, c, rate=1),
                lambda c: StalledTimeout(inner, seconds=1, clock=c),
                lambda c: TotalRate(1, c),
            ):
                with self.assertRaises(SettingError) as caught:
                    make(wrong)
                self.assertEqual(caught.exception.name, "clock")

    def test_parts(self) -> None:
        """Nor is what is no gate, no drain, and no total."""
        inner: Any = Factory()
        clock: Any = Clock()
        for name, make in (
            ("gates", lambda: Admission(inner, clock, clock=clock)),
            ("drain", lambda: Draining(inner, clock)),
            ("total", lambda: RateLimit(inner, clock, total=100)),  # type: ignore[arg-type]
        ):
            with self.assertRaises(SettingError) as caught:
                make()
            self.assertEqual(caught.exception.name, name)
