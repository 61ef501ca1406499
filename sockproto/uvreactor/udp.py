"""
UDP by descriptors, as Twisted has it, with less between the socket and the protocol.
"""

from __future__ import annotations

import socket
from errno import EAGAIN, ECONNREFUSED, EINTR, EMSGSIZE, EWOULDBLOCK
from typing import Any

from twisted.internet import udp
from twisted.internet.error import MessageLengthError
from twisted.python import log

__all__ = ["DatagramPort"]

MOST_AT_ONCE = 1_000
"""Datagrams that are taken in a turn, so that others have theirs."""


class DatagramPort(udp.Port):
    """
    Twisted's port; an address that has just come is not looked at again.
    """

    reactor: Any

    _came_from: Any = None

    def doRead(self) -> None:
        receive, size = self.socket.recvfrom, self.maxPacketSize
        is_ipv6 = self.addressFamily == socket.AF_INET6
        most = self.maxThroughput
        read = 0
        for _ in range(MOST_AT_ONCE):
            try:
                data, address = receive(size)
            except OSError as error:
                if error.errno in (EAGAIN, EINTR, EWOULDBLOCK):
                    return
                if error.errno != ECONNREFUSED:
                    raise
                self.reactor.loop.call_soon(self._listen_again)
                if self._connectedAddr:
                    self.protocol.connectionRefused()
                return
            if is_ipv6:
                address = address[:2]
            self._came_from = address
            try:
                self.protocol.datagramReceived(data, address)
            except BaseException:
                log.err()
            read += len(data)
            if read >= most or self.maxThroughput < 0:
                return

    def _listen_again(self) -> None:
        """uvloop forgets a descriptor that had an error, whoever has taken that."""
        if self in self.reactor.getReaders():
            self.stopReading()
            self.startReading()

    def write(self, datagram: bytes, addr: Any = None) -> Any:
        if addr is None or addr is not self._came_from or self._connectedAddr:
            return super().write(datagram, addr)
        try:
            return self.socket.sendto(datagram, addr)
        except OSError as error:
            if error.errno == EMSGSIZE:
                raise MessageLengthError("message too long") from error
            if error.errno == EINTR:
                return self.write(datagram, addr)
            if error.errno != ECONNREFUSED:
                raise
            return None
