"""
Tells systemd how the service is doing, as sd_notify(3) has it.

It is one datagram. The packages for it are no longer looked after, or need C.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from sockproto.errors import SettingError
from sockproto.reporting import log
from sockproto.spelling import spell

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["notify"]


def notify(*assignments: str, environ: Mapping[str, str] = os.environ) -> bool:
    """
    Send assignments such as `READY=1` to whoever started us, if they want them.

    They go together and without waiting. Where there is nobody to tell, nothing
    is done; what does not work is one line in the log.

    Args:
        assignments: `NAME=VALUE` each, one line each.
        environ: has `NOTIFY_SOCKET`, the socket's path, or `@` and the name of
            one that is in no folder.

    Returns:
        Whether they have been sent.

    Raises:
        SettingError: an assignment is none, or there is none at all.
    """
    for each in assignments or ("",):
        # systemd would take a second line for another assignment, and drops
        # whatever has a NUL in it.
        if each.find("=") < 1 or not {"\n", "\0"}.isdisjoint(each):
            raise SettingError("assignments", each, "NAME=VALUE, in one line each")
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False  # `vsock:` is for virtual machines as a whole
    # systemd takes UTF-8 alone; a path may be any bytes.
    datagram = "\n".join(assignments).encode("utf-8", "backslashreplace")
    try:
        path = os.fsencode(address)
        if path.startswith(b"@"):
            path = b"\0" + path[1:]
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        ) as sending:  # Python has it closed on exec
            sending.sendto(datagram, path)
    except (OSError, ValueError) as error:
        log.warn(
            "systemd at {address!r} is not told {said}: {error}.",
            address=address,
            said=spell(datagram),
            error=error,
        )
        return False
    return True
