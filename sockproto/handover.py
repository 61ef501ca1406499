"""
What the parent of `--workers` hands to each worker, in its environment.

It imports nothing of Twisted, whose endpoints read the variables of systemd's
sockets when they are imported, and remove them: they have to be right before.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sockproto.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

__all__ = ["Handover"]

VARIABLE = "SOCKPROTO_WORKER"


@dataclass(frozen=True, slots=True)
class Handover:
    """
    What a worker has to know.

    Attributes:
        slot: which one it is, from 0.
        quiet: whether another has said already what is said at the start.
        ready: the descriptor on which it tells that it serves; it is open as long
            as it does.
        places: of each call of the reactor that listens, in their order, the call
            and the descriptors of its sockets: one for each slot, or one for all.
    """

    slot: int
    quiet: bool
    ready: int
    places: list[tuple[str, list[int]]]

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """
        Make a worker's environment.

        Args:
            ours: the parent's, as it was at its start.
        """
        # systemd is told by the parent alone.
        theirs = {name: ours[name] for name in ours if name != "NOTIFY_SOCKET"}
        return {**theirs, VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def take(cls, environ: MutableMapping[str, str] = os.environ) -> Handover | None:
        """
        Take what was handed over out of the environment; None if we are no worker.

        Raises:
            SettingError: it is not of our making.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            said = json.loads(text)
            handover = cls(
                int(said["slot"]),
                bool(said["quiet"]),
                int(said["ready"]),
                [(str(call), [int(n) for n in fds]) for call, fds in said["places"]],
            )
            os.fstat(handover.ready)
        except (ValueError, TypeError, KeyError, ArithmeticError, OSError) as error:
            raise SettingError(
                f"the variable {VARIABLE}", text, "nothing but what --workers gives it"
            ) from error
        if "LISTEN_FDS" in environ:
            # Sockets of systemd's are passed on under the same numbers.
            environ["LISTEN_PID"] = str(os.getpid())
        return handover
