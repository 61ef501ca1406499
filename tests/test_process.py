"""
What a process of ours does beside serving.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from sockproto.process import RESERVED_FILES, room_for_connections, use_steady_clock

FILES = """
import resource, sys
from sockproto.process import room_for_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
print(*room_for_connections(int(sys.argv[2])))
"""


class SteadyClockTests(SynchronousTestCase):
    def test_steady(self) -> None:
        """A reactor that nothing waits for yet measures by a clock nobody sets."""
        reactor = MemoryReactorClock()
        reactor.running = False
        use_steady_clock(reactor)
        self.assertIs(reactor.seconds, time.monotonic)

    def test_too_late(self) -> None:
        """Where something waits already, or all is running, it is left as it is."""
        waiting = MemoryReactorClock()
        waiting.running = False
        waiting.callLater(1, print)
        running = MemoryReactorClock()
        running.running = True
        for reactor in (waiting, running):
            use_steady_clock(reactor)
            self.assertEqual(reactor.seconds(), 0)


class RoomTests(SynchronousTestCase):
    def room(self, limit: int, backlog: int) -> tuple[int, int]:
        """Ask in a process that has this limit."""
        asked = subprocess.run(
            [sys.executable, "-c", FILES, str(limit), str(backlog)],
            capture_output=True,
            check=True,
            timeout=30,
        )
        seen, room = map(int, asked.stdout.split())
        return seen, room

    def test_room(self) -> None:
        """As many as may wait stay free, and some for everything else."""
        limit, room = self.room(1_000, 100)
        self.assertEqual(limit, 1_000)
        free = 1_000 - RESERVED_FILES - 100
        self.assertTrue(free - 20 < room < free, room)

    def test_low_limit(self) -> None:
        """Half of a low limit is for connections all the same."""
        _, room = self.room(128, 511)
        self.assertTrue(50 <= room <= 64, room)

    def test_here(self) -> None:
        """What is open already counts."""
        here = room_for_connections(0)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.assertEqual(here[0], limit)
        opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
        for each in opened:
            self.addCleanup(os.close, each)
        self.assertLess(room_for_connections(0)[1], here[1])
