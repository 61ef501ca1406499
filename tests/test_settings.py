"""
Every knob is checked when it is set, and says what it would have taken.
"""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

from hypothesis import example, given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import SettingError
from sockproto.reporting import Log
from sockproto.settings import Settings
from sockproto.wire.framing import Framing

NO_NUMBERS: list[Any] = [None, True, "1", b"1", [], 1j]


class SettingsTests(SynchronousTestCase):
    def refused(self, name: str, value: Any, **others: Any) -> SettingError:
        """Check that a value is refused by name; return the refusal."""
        with self.assertRaises(SettingError) as caught:
            Settings(**{name: value}, **others)
        error: SettingError = caught.exception
        self.assertEqual(error.name, name)
        self.assertTrue(error.seen is value or error.seen == value, error)
        self.assertTrue(error.allowed)
        return error

    def test_defaults(self) -> None:
        """Unless told otherwise, the tutorials' three services run on loopback."""
        settings = Settings()
        self.assertEqual(settings.hello, ("tcp:9999:interface=127.0.0.1",))
        self.assertEqual(settings.echo, ("tcp:10000:interface=127.0.0.1",))
        self.assertEqual(settings.udp, ("udp:9999:interface=127.0.0.1",))
        self.assertEqual(settings.udp_echo, ())
        self.assertEqual(settings.delay, 1)
        self.assertIs(settings.framing, Framing.AUTO)
        self.assertEqual(settings.max_name, 1024)
        self.assertEqual(settings.greeting, b"Welcome!")
        self.assertEqual(settings.answer, b"Hello, NAME!")
        self.assertEqual(settings.backlog, 511)
        self.assertEqual(settings.drain, 10)
        self.assertFalse(settings.udp_any_port)
        self.assertIs(settings.log, Log.CONNECTIONS)

    def test_places(self) -> None:
        """A place is one text, or several in anything that can be gone through."""
        for name in ("hello", "echo", "udp", "udp_echo"):
            for given_places, places in (
                ("tcp:1", ("tcp:1",)),
                (["tcp:1", "tcp:2"], ("tcp:1", "tcp:2")),
                ((place for place in ["tcp:1"]), ("tcp:1",)),
                ((), ()),
            ):
                settings = Settings(**{name: given_places})  # type: ignore[arg-type]
                self.assertEqual(getattr(settings, name), places)

    def test_no_places(self) -> None:
        """What is no text is no place."""
        for name in ("hello", "echo", "udp", "udp_echo"):
            for value in (None, 9999, b"tcp:1", ["tcp:1", 9999]):
                self.refused(name, value)

    @given(
        name=st.sampled_from(["max_name", "backlog"]),
        value=st.one_of(st.integers(), st.sampled_from([0, 1, 65_535, 65_536, 65_537])),
    )
    def test_whole_numbers(self, name: str, value: int) -> None:
        """A whole number within its bounds is taken, any other is refused."""
        highest = {"max_name": 65_536, "backlog": 65_535}[name]
        if 1 <= value <= highest:
            self.assertEqual(getattr(Settings(**{name: value}), name), value)  # type: ignore[arg-type]
        else:
            error = self.refused(name, value)
            self.assertEqual(error.allowed, f"a whole number from 1 to {highest}")

    @given(value=st.one_of(st.floats(), st.integers(-(10**6), 10**6)))
    @example(value=math.inf)
    @example(value=math.nan)
    @example(value=-0.0)
    def test_seconds(self, value: float) -> None:
        """A finite number of seconds from 0 up is taken, any other is refused."""
        if math.isfinite(value) and value >= 0:
            settings = Settings(delay=value, drain=value)
            self.assertEqual((settings.delay, settings.drain), (value, value))
        else:
            self.refused("delay", value)
            self.refused("drain", value)

    def test_too_many_seconds(self) -> None:
        """A number that no clock can count to is refused as any other."""
        self.refused("delay", 10**400)
        self.refused("drain", 10**400)

    def test_no_numbers(self) -> None:
        """What is no number is refused, a truth value and a text included."""
        for name in ("delay", "drain", "max_name", "backlog"):
            for value in NO_NUMBERS:
                self.refused(name, value)
        for name in ("max_name", "backlog"):
            self.refused(name, 5.0)

    def test_choices(self) -> None:
        """A choice is its value or the option's word."""
        self.assertIs(
            Settings(framing="line").framing,  # type: ignore[arg-type]
            Framing.LINE,
        )
        self.assertIs(Settings(framing=Framing.CHUNK).framing, Framing.CHUNK)
        self.assertIs(
            Settings(log="none").log,  # type: ignore[arg-type]
            Log.NONE,
        )
        for name, allowed in (
            ("framing", "auto, chunk, line or netstring"),
            ("log", "none, connections or messages"),
        ):
            values: list[Any] = ["lines", "", None, [], 0]
            for value in values:
                self.assertEqual(self.refused(name, value).allowed, allowed)

    def test_texts(self) -> None:
        """Greeting and answer are bytes, or text that is sent as UTF-8."""
        settings = Settings(
            greeting="Gr\xfc\xdf",  # type: ignore[arg-type]
            answer="Gr\xfc\xdf NAME",  # type: ignore[arg-type]
        )
        self.assertEqual(settings.greeting, "Gr\xfc\xdf".encode())
        self.assertEqual(settings.answer, "Gr\xfc\xdf NAME".encode())
        self.assertEqual(Settings(greeting=b"\xff").greeting, b"\xff")
        for name in ("greeting", "answer", "refusal"):
            for value in (None, 5, ["NAME"]):
                self.refused(name, value)

    def test_text_that_is_none(self) -> None:
        """A text that cannot be sent as UTF-8 is refused by name."""
        self.refused("greeting", "\ud800")
        self.refused("answer", "\ud800 NAME")

    def test_answer(self) -> None:
        """An answer holds NAME exactly once."""
        for value in (b"", b"Hello!", b"NAME and NAME"):
            self.refused("answer", value)

    def test_bare_answer(self) -> None:
        """Over UDP an answer must be told from a name, lest two services loop."""
        self.refused("answer", b"NAME")
        self.assertEqual(Settings(answer=b"NAME", udp=()).answer, b"NAME")

    def test_limits_by_place(self) -> None:
        """Unless they are set, limits are left to what a place is, or off."""
        settings = Settings()
        for name in (
            "max_connections",
            "max_per_peer",
            "idle",
            "stalled",
            "udp_rate",
            "udp_total_rate",
        ):
            self.assertIsNone(getattr(settings, name))
        self.assertEqual((settings.rate, settings.total_rate), (0, 0))
        self.assertEqual((settings.allow, settings.deny), ((), ()))
        self.assertEqual(settings.refusal, b"")

    def test_limits(self) -> None:
        """A limit is a number, and 0 is none."""
        for name in ("idle", "stalled"):
            for value in (0, 0.5, 10**6):
                self.assertEqual(getattr(Settings(**{name: value}), name), value)  # type: ignore[arg-type]
            self.refused(name, -1)
        for name in ("rate", "total_rate", "udp_rate", "udp_total_rate"):
            for value in (0, 1, 1.5, 10**9):
                self.assertEqual(getattr(Settings(**{name: value}), name), value)  # type: ignore[arg-type]
            none: list[Any] = [-1, 0.5, 1e13, math.inf, math.nan, "1", True]
            for seen in none:
                self.refused(name, seen)
        for name in ("rate", "total_rate"):
            self.refused(name, None)
        self.assertEqual(Settings(max_per_peer=0).max_per_peer, 0)
        self.assertEqual(Settings(max_connections=0).max_connections, 0)
        self.refused("max_connections", -1)
        self.refused("max_per_peer", -1)
        self.refused("max_connections", 1.0)

    def test_networks(self) -> None:
        """Networks are one text with commas, or several; each is checked."""
        settings = Settings(
            allow="192.0.2.0/24, ::1",  # type: ignore[arg-type]
            deny=["192.0.2.7", "unix"],  # type: ignore[arg-type]
        )
        self.assertEqual(settings.allow, ("192.0.2.0/24", "::1/128"))
        self.assertEqual(settings.deny, ("192.0.2.7/32", "unix"))
        self.assertEqual(Settings(refusal="x" * 4096).refusal, b"x" * 4096)  # type: ignore[arg-type]
        self.refused("refusal", "x" * 4097)
        for name in ("allow", "deny"):
            with self.assertRaises(SettingError) as caught:
                Settings(**{name: "192.0.2.7/24"})  # type: ignore[arg-type]
            self.assertEqual(caught.exception.name, name)
            self.assertIn("192.0.2.0/24", caught.exception.allowed)

    def test_drain_and_delay(self) -> None:
        """A drain shorter than the delay is refused: no answer could be given."""
        self.assertEqual(Settings(drain=2, delay=2).drain, 2)
        error = self.refused("drain", 1.5, delay=2)
        self.assertIn("2", error.allowed)

    def test_flag(self) -> None:
        """A flag is a truth value; a text that says no is not taken for a yes."""
        self.assertTrue(Settings(udp_any_port=True).udp_any_port)
        self.refused("udp_any_port", "no")

    def test_only(self) -> None:
        """Where any place is given, only the services of those places run."""
        settings = Settings.only(echo="tcp:1", delay=0)
        self.assertEqual(
            (settings.hello, settings.echo, settings.udp, settings.udp_echo),
            ((), ("tcp:1",), (), ()),
        )
        self.assertEqual(settings.delay, 0)
        self.assertEqual(Settings.only(delay=0), Settings(delay=0))
        self.assertEqual(Settings.only(hello=()), Settings(hello=()))

    def test_value(self) -> None:
        """Settings are a value: equal by what they hold, and not to be changed."""
        self.assertEqual(Settings(delay=1), Settings())
        self.assertEqual(hash(Settings(hello=["tcp:1"])), hash(Settings(hello="tcp:1")))  # type: ignore[arg-type]
        with self.assertRaises(FrozenInstanceError):
            Settings().delay = 2  # type: ignore[misc]
