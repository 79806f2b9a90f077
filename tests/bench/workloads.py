"""Real work in Python, counted in shared memory: workloads.py api|numpy|objects FILE.

The file has 16 bytes; in the first eight it counts what it has done. It says "ready" and goes on
until its input ends. SIGUSR1 starts tracemalloc, and stops it the next time; the second eight bytes
say whether it is on.
"""

from __future__ import annotations

import http.client
import json
import mmap
import select
import signal
import struct
import sys
import threading
import tracemalloc
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ORDER = {"customer": "c-17", "lines": [{"sku": f"s{n}", "price": n * 1.5} for n in range(40)]}


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        lines = [{**line, "tax": line["price"] * 0.2} for line in order["lines"]]
        answer = json.dumps({"total": sum(line["price"] for line in lines), "lines": lines})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *arguments: object) -> None:
        pass


def api() -> Callable[[], None]:
    """A JSON API, and a client on the loopback that waits for every answer."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = http.client.HTTPConnection("127.0.0.1", server.server_port)
    body = json.dumps(ORDER)

    def request() -> None:
        client.request("POST", "/orders", body, {"Content-Type": "application/json"})
        json.loads(client.getresponse().read())

    return request


def numpy() -> Callable[[], None]:
    """Arithmetic on arrays of 160 kB with a temporary in each step."""
    import numpy as np

    values = np.random.default_rng(1).random(20_000)

    def step() -> None:
        scaled = (values - values.mean()) / (values.std() + 1e-9)
        float(np.sort(scaled[:2_000])[1_000] + (scaled * scaled).sum())

    return step


def objects() -> Callable[[], None]:
    """Small objects of many kinds, made and dropped."""

    class Node:
        def __init__(self, name: str, below: list[Node]) -> None:
            self.name, self.below, self.seen = name, below, {name: len(below)}

    def step() -> None:
        leaves = [Node(f"leaf {n}", []) for n in range(50)]
        root = Node("root", [Node(str(n), leaves[n : n + 5]) for n in range(0, 50, 5)])
        sorted((node.name, len(node.below)) for node in root.below)

    return step


def main(name: str, path: str) -> None:
    step = {"api": api, "numpy": numpy, "objects": objects}[name]()
    with open(path, "r+b") as file:
        done = mmap.mmap(file.fileno(), 16)

    def toggle(number: int, frame: object) -> None:
        if tracemalloc.is_tracing():
            tracemalloc.stop()
        else:
            tracemalloc.start()
        struct.pack_into("=Q", done, 8, tracemalloc.is_tracing())

    signal.signal(signal.SIGUSR1, toggle)
    print("ready", flush=True)
    count = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(10):
            step()
        count += 10
        struct.pack_into("=Q", done, 0, count)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
