"""
What connections and ports are called: by addresses, and in the log.
"""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.python.log import ILogContext

__all__ = ["Logged", "address_of"]


class Logged:
    """
    What can be a context of Twisted's log, without a dictionary of its own.
    """

    __slots__ = ()

    def logPrefix(self) -> str:
        raise NotImplementedError

    def __getitem__(self, key: object) -> dict[str, object]:
        if key is ILogContext:
            return {"system": self.logPrefix(), "isError": 0}
        raise KeyError(key)


def address_of(name: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    """
    Have the Twisted address of what a socket calls its own or its peer's name.
    """
    if len(name) == 2:
        # Without its check of "TCP", which takes longer than all else.
        address = IPv4Address.__new__(IPv4Address)
        address.type = "TCP"
        address.host, address.port = name
        return address
    host = name[0]
    if name[3]:  # a link's own address: which link is a part of it
        flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        host = socket.getnameinfo(cast("Any", name), flags)[0]
    return IPv6Address("TCP", host, *name[1:])
