"""
Measures what the limits cost a message: server CPU, beside the bare protocol.

    python scripts/measure_limits.py [--rounds 5] [--seconds 1.5]

Each round starts the bare protocol, the services on loopback, on a place that faces
a network (the default limits), and with every limit on, one after the other, on one
core; 64 connections on the other ask and wait for the answer. The figure is the
processor time of the server a message, as a ratio to the bare one of the same round;
the median of the rounds counts. The machine should have nothing else to do. Linux.
"""

from __future__ import annotations

import argparse
import os
import selectors
import statistics
import sys
import time

from servers import KIB, LOOPBACK, SERVE, Row, Server, connected, print_rows

CONNECTIONS = 64

ASKED = b"x" * 64

BARE = """
import sys
from twisted.internet import reactor
from sockproto import EchoFactory, HelloFactory
make = {"echo": EchoFactory, "hello": HelloFactory}[sys.argv[1]]
more = {"hello": {"framing": "chunk", "greeting": ""}}.get(sys.argv[1], {})
port = reactor.listenTCP(0, make(reactor, log="none", **more), interface="127.0.0.1")
print(f"{sys.argv[1]} listens on 127.0.0.1:{port.getHost().port}.", flush=True)
reactor.run()
"""

EVERY_LIMIT = (
    "--max-connections=1000",
    "--max-per-peer=500",
    "--allow=127.0.0.0/8",
    "--deny=192.0.2.0/24",
    "--idle=100",
    "--stalled=50",
    "--rate=1G",
    "--total-rate=2G",
)

QUIET = ("--delay=0", "--framing=chunk", "--greeting=", "--log=none")

KINDS = {
    "bare": None,
    "loopback": (f"tcp:{{port}}:interface={LOOPBACK}",),
    "default": ("tcp:{port}",),
    "every limit": ("tcp:{port}", *EVERY_LIMIT),
}


def free_port() -> int:
    """
    Find a port that was free just now: without a log, a server tells none.
    """
    import socket

    with socket.create_server((LOOPBACK, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def load(server: Server, port: int, seconds: float) -> float:
    """
    Ask on all connections for so long; return microseconds of the server's a message.
    """
    connections = [connected(port) for _ in range(CONNECTIONS)]
    with selectors.DefaultSelector() as ready:
        for each in connections:
            each.setblocking(False)
            ready.register(each, selectors.EVENT_READ)

        def ask(until: float) -> int:
            answers = 0
            while time.monotonic() < until:
                for key, _ in ready.select():
                    connection = key.fileobj
                    connection.recv(4 * KIB)  # type: ignore[union-attr]
                    connection.send(ASKED)  # type: ignore[union-attr]
                    answers += 1
            return answers

        for each in connections:
            each.send(ASKED)
        ask(time.monotonic() + 0.3)  # warm
        before = server.cpu_seconds
        answers = ask(time.monotonic() + seconds)
        spent = server.cpu_seconds - before
    for each in connections:
        each.close()
    return spent / answers * 1e6


def measure(service: str, kind: str, seconds: float) -> float:
    """
    Start one server, load it, and end it.
    """
    options = KINDS[kind]
    if options is None:
        server = Server(command=(sys.executable, "-c", BARE, service))
    else:
        port = free_port()
        place, *limits = (each.format(port=port) for each in options)
        server = Server(f"--{service}={place}", *limits, *QUIET, command=SERVE)
    with server:
        os.sched_setaffinity(server.process.pid, {0})
        if options is None:
            port = server.port(service)
        else:
            wait_for(port)
        return load(server, port, seconds)


def wait_for(port: int) -> None:
    """
    Wait until somebody listens.
    """
    deadline = time.monotonic() + 30
    while True:
        try:
            connected(port).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    given = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = []
    for service in ("echo", "hello"):
        rounds = [
            {kind: measure(service, kind, given.seconds) for kind in KINDS}
            for _ in range(given.rounds)
        ]
        for kind, bound in zip(KINDS, (None, 1.05, 1.05, 1.25), strict=True):
            spent = statistics.median(each[kind] for each in rounds)
            ratio = statistics.median(each[kind] / each["bare"] for each in rounds)
            rows.append(
                Row(
                    f"{service}, {kind}",
                    f"{spent:.1f} us, {ratio:.3f} of bare",
                    "-" if bound is None else f"at most {bound}",
                    bound is None or ratio <= bound,
                )
            )
    return print_rows(rows)


if __name__ == "__main__":
    sys.exit(main())
