"""
What is handed over from the parent to a worker.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import SettingError
from sockproto.handover import VARIABLE, Handover

HANDOVER = Handover(1, True, 1, [("tcp 9999 ''", [7, 8]), ("udp 9 '::1'", [9])])


class HandoverTests(SynchronousTestCase):
    def test_round(self) -> None:
        """What is put into the environment is taken out of it."""
        environment = HANDOVER.environment({"HOME": "/", "NOTIFY_SOCKET": "/run/n"})
        self.assertEqual(Handover.take(environment), HANDOVER)
        # systemd is told by the parent alone; a child of the worker is no worker.
        self.assertEqual(environment, {"HOME": "/"})

    def test_none(self) -> None:
        """Who is no worker has none, and an environment as it was."""
        environment = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
        self.assertIsNone(Handover.take(environment))
        self.assertEqual(environment["LISTEN_PID"], "1")

    def test_systemd(self) -> None:
        """Sockets of systemd's are meant for the worker."""
        ours = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
        environment = HANDOVER.environment(ours)
        Handover.take(environment)
        self.assertEqual(environment["LISTEN_PID"], str(os.getpid()))

    def test_malformed(self) -> None:
        """Whatever else somebody puts there is refused."""
        for text in (
            "",
            "x",
            "1",
            "[]",
            "{}",
            '{"slot": 0, "quiet": true, "ready": 1, "places": [1]}',
            '{"slot": 0, "quiet": true, "ready": 1, "places": [["x", ["y"]]]}',
            '{"slot": 0, "quiet": true, "ready": 999999, "places": []}',
            '{"slot": 0, "quiet": true, "ready": -1, "places": []}',
            '{"slot": 0, "quiet": true, "ready": 1e999, "places": []}',
        ):
            error = self.assertRaises(SettingError, Handover.take, {VARIABLE: text})
            self.assertIn(VARIABLE, str(error))
