"""
Echo and hello as protocols of asyncio's, with nothing added.

    python asyncio_bare.py echo|hello|udp PORT [--loop=asyncio|uvloop]
"""

from __future__ import annotations

import argparse
import asyncio

BACKLOG = 511
LOOPBACK = "127.0.0.1"


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Hello(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.write(b"Welcome!")

    def data_received(self, data: bytes) -> None:
        if data == b"exit":
            self.transport.close()
        else:
            self.transport.write(b"Hello, " + data + b"!")


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.transport.sendto(data, address)


async def serve(service: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    place = (LOOPBACK, port)
    if service == "udp":
        await loop.create_datagram_endpoint(DatagramEcho, local_addr=place)
    else:
        protocol = Echo if service == "echo" else Hello
        await loop.create_server(protocol, *place, backlog=BACKLOG)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("service", choices=("echo", "hello", "udp"))
    parser.add_argument("port", type=int)
    parser.add_argument("--loop", default="asyncio", choices=("asyncio", "uvloop"))
    given = parser.parse_args()
    new_loop = None
    if given.loop == "uvloop":
        import uvloop

        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(given.service, given.port))


if __name__ == "__main__":
    main()
