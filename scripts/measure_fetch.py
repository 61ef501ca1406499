"""
Measures fetch beside curl, wget, HTTPie, requests, httpx and treq, in one run.

    python scripts/measure_fetch.py [--mib 1024] [--small 2000] [--rounds 3]

From an nginx of its own on loopback, on one core, to each client on the other:
one large body to a file (CPU seconds, peak memory), many small ones through each
library (a connection each), and the command from start to exit. Peers that are
not installed are left out; this Python has those that are libraries.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port} backlog=1024; root {folder}/www; }}
}}
"""

# Each fetches URL so many times, with a connection each, and prints the seconds.
LIBRARIES = {
    "requests": """
import requests
start = time.perf_counter()
for _ in range(times):
    answer = requests.get(url, headers={"Connection": "close"})
    assert len(answer.content) == size
""",
    "httpx": """
import httpx
start = time.perf_counter()
for _ in range(times):
    answer = httpx.get(url, headers={"Connection": "close"}, trust_env=False)
    assert len(answer.content) == size
""",
    "treq": """
import treq
from twisted.internet.task import react
async def main(reactor):
    global start
    start = time.perf_counter()
    for _ in range(times):
        answer = await treq.get(url, persistent=False)
        assert len(await treq.content(answer)) == size
try:
    react(main)
except SystemExit:
    pass
""",
    "sockproto": """
from sockproto import fetch
from twisted.internet.task import react
async def main(reactor):
    global start
    start = time.perf_counter()
    for _ in range(times):
        answer = await fetch(reactor, url)
        assert len(answer.body) == size
try:
    react(main)
except SystemExit:
    pass
""",
}

STREAMS = {
    "sockproto.uvreactor": """
from sockproto.uvreactor import install
reactor = install()
from sockproto import fetch
reactor.callWhenRunning(
    lambda: fetch(reactor, url, to=out).addBoth(lambda _: reactor.stop())
)
reactor.run()
""",
    "requests": """
import requests
with requests.get(url, stream=True) as answer, open(out, "wb") as file:
    for piece in answer.iter_content(262144):
        file.write(piece)
""",
    "httpx": """
import httpx
with httpx.stream("GET", url, trust_env=False) as answer, open(out, "wb") as file:
    for piece in answer.iter_bytes():
        file.write(piece)
""",
    "treq": """
import treq
from twisted.internet.task import react
async def main(reactor):
    with open(out, "wb") as file:
        answer = await treq.get(url, persistent=False, unbuffered=True)
        await treq.collect(answer, file.write)
react(main)
""",
}


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept


def run(command: list[str], core: str) -> tuple[float, float, float, str]:
    """Seconds of wall time and of CPU, MiB of peak memory, standard output."""
    start = time.perf_counter()
    child = subprocess.Popen(
        ["taskset", "-c", core, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if child.returncode:
        raise SystemExit(f"exit {child.returncode}: {' '.join(command)[:200]}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, printed


def with_script(script: str, **values: object) -> list[str]:
    head = "import time\n" + "".join(f"{k} = {v!r}\n" for k, v in values.items())
    return [sys.executable, "-c", head + script]


def commands(url: str, out: str) -> dict[str, list[str]]:
    beside = Path(sys.executable).parent
    known = {
        "curl": [shutil.which("curl"), "-q", "-s", "-o", out, url],
        "wget": [shutil.which("wget"), "-q", "-O", out, url],
        "HTTPie": [
            shutil.which("http", path=str(beside)),
            *("--ignore-stdin", "--download", "--output", out, url),
        ],
        "sockproto": [
            shutil.which("sockproto", path=str(beside)),
            *("fetch", "-o", out, url),
        ],
    }
    return {
        name: [part for part in command if part is not None]
        for name, command in known.items()
        if command[0] is not None
    }


def installed(name: str) -> bool:
    return not subprocess.run(
        [sys.executable, "-c", f"import {name}"], stderr=subprocess.DEVNULL, check=False
    ).returncode


def interleaved(peers: dict[str, list[str]], rounds: int) -> list[tuple[int, str]]:
    return [
        (number, name)
        for number in range(rounds)
        for name in random.sample(sorted(peers), len(peers))
    ]


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def large(url: str, folder: Path, rounds: int) -> None:
    out = folder / "out"
    peers = commands(url, str(out))
    for name, script in STREAMS.items():
        if installed(name):
            peers[name] = with_script(script, url=url, out=str(out))
    expected = digest(folder / "www" / "large")
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in peers}
    for _, name in interleaved(peers, rounds):
        wall, cpu, peak, _ = run(peers[name], "0")
        if digest(out) != expected:
            raise SystemExit(f"{name} saved other bytes")
        out.unlink()
        seen[name].append((wall, cpu, peak))
    print("\na large body to a file: median seconds of CPU, ratio to curl (paired),")
    print("wall seconds, peak MiB")
    for name, rows in seen.items():
        ratios = [
            row[1] / curl[1] for row, curl in zip(rows, seen["curl"], strict=True)
        ]
        wall, cpu, peak = (statistics.median(c) for c in zip(*rows, strict=True))
        print(
            f"{name:20} {cpu:7.3f} {statistics.median(ratios):6.2f}"
            f" {wall:7.3f} {peak:7.1f}"
        )


def small(url: str, times: int, rounds: int) -> None:
    peers = {
        name: with_script(
            script + '\nprint("SECONDS", time.perf_counter() - start)',
            url=url,
            times=times,
            size=1024,
        )
        for name, script in LIBRARIES.items()
        if installed(name)
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for _, name in interleaved(peers, rounds):
        _, cpu, _, printed = run(peers[name], "0")
        seen[name].append((float(printed.split("SECONDS")[1]), cpu))
    print(f"\n{times} bodies of 1 KiB through the library: median microseconds each")
    print("(without start), seconds of CPU (with it)")
    for name, rows in seen.items():
        wall, cpu = (statistics.median(c) for c in zip(*rows, strict=True))
        print(f"{name:10} {wall / times * 1e6:7.0f} {cpu:7.2f}")


def start_to_exit(url: str, rounds: int) -> None:
    peers = commands(url, os.devnull)
    if "HTTPie" in peers:
        peers["HTTPie"] = [peers["HTTPie"][0], "--ignore-stdin", "--body", url]
    if installed("treq"):
        peers["treq"] = with_script(STREAMS["treq"], url=url, out=os.devnull)
    seen: dict[str, list[float]] = {name: [] for name in peers}
    for _, name in interleaved(peers, rounds):
        seen[name].append(run(peers[name], "0")[0])
    print("\n1 KiB from start to exit: median milliseconds, least")
    for name, walls in seen.items():
        print(
            f"{name:10} {statistics.median(walls) * 1e3:7.1f} {min(walls) * 1e3:7.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="large,small,start")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "www").mkdir()
        folder.chmod(0o755)
        (folder / "www" / "small").write_bytes(b"x" * 1024)
        if "large" in options.parts:
            with (folder / "www" / "large").open("wb") as file:
                for _ in range(options.mib):
                    file.write(os.urandom(1 << 20))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        user = "user root;" if os.getuid() == 0 else ""
        conf = folder / "nginx.conf"
        conf.write_text(NGINX.format(folder=folder, port=port, user=user))
        nginx = subprocess.Popen(
            ["taskset", "-c", "1", "nginx", "-p", name, "-c", str(conf)],
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            url = f"http://127.0.0.1:{port}"
            if "large" in options.parts:
                large(f"{url}/large", folder, options.rounds)
            if "small" in options.parts:
                small(f"{url}/small", options.small, options.rounds)
            if "start" in options.parts:
                start_to_exit(f"{url}/small", options.rounds * 7)
        finally:
            nginx.send_signal(signal.SIGTERM)
            nginx.wait(10)


if __name__ == "__main__":
    main()
