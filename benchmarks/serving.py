"""Requests per second and latency of `ensue serve` beside the plainest FastAPI handler around the same model.

python benchmarks/serving.py runs/sasrec data/ml-1m --seconds 10 --rounds 3

The plain handler checks the body with pydantic and calls `Recommender.recommend`, as a tutorial would. Both run under
the same uvicorn, each in a process of its own with one thread for the model, and take turns. A client in a third
process keeps a number of connections busy on the loopback address (closed loop): each sends the next request when it
has the answer to the last. Every request is the history of another user of the run's data, cut at a random event, so
that no state is known before; with `--returning`, the same users come back with one more event each time.

A small load of one connection gives the latency of a lone request. The results are printed as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

LIMIT_SECONDS = 60


class PlainRequest(BaseModel):
    history: list[int]
    k: int = 10


def plain_app(run: Path) -> Any:
    """The plainest handler around a run."""
    from fastapi import FastAPI

    from ensue.recommender import Recommender

    recommender = Recommender.load(run)
    app = FastAPI()

    @app.post("/recommend")
    def recommend(request: PlainRequest) -> dict[str, Any]:
        answer = recommender.recommend(request.history, k=request.k)
        return {"items": [{"item": entry.item, "score": entry.score, "title": entry.title} for entry in answer]}

    return app


def serve_plain(run: Path) -> None:
    import torch
    import uvicorn

    torch.set_num_threads(1)
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}: plain", flush=True)
    config = uvicorn.Config(plain_app(run), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def histories(data: Path, count: int, seed: int) -> list[list[int]]:
    """Histories of users of a store, each cut at a random event."""
    from ensue.data.store import SequenceStore

    store = SequenceStore.open(data)
    rng = np.random.default_rng(seed)
    users = rng.integers(store.num_users, size=count)
    result = []
    for user in users.tolist():
        start, stop = int(store.offsets[user]), int(store.offsets[user + 1])
        end = start + int(rng.integers(1, stop - start + 1))
        result.append([int(item) for item in store.item_ids.decode(store.items[start:end])])
    return result


def message(history: list[int]) -> bytes:
    body = json.dumps({"history": history, "k": 10}).encode()
    head = "POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


async def connection(port: int, messages: list[bytes], until: float, seconds: list[float]) -> int:
    """Send requests one after another until a time; returns the number of failed ones."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    failed = 0
    while messages and time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(messages.pop())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
        failed += not head.startswith(b"HTTP/1.1 200")
    writer.close()
    return failed


async def load(port: int, messages: list[bytes], connections: int, duration: float) -> dict[str, float]:
    """Requests per second and latencies in milliseconds."""
    seconds: list[float] = []
    began = time.perf_counter()
    calls = [connection(port, messages, began + duration, seconds) for _ in range(connections)]
    failed = sum(await asyncio.gather(*calls))
    taken = time.perf_counter() - began
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99]).tolist()
    return {"rps": len(seconds) / taken, "p50_ms": p50, "p99_ms": p99, "requests": len(seconds), "failed": failed}


def client(options: argparse.Namespace) -> None:
    """The client's process: print one JSON line."""
    rows = histories(options.data, options.count, options.seed)
    if options.returning:
        users = rows[: max(1, len(rows) // 50)]
        rows = [user[: len(user) - 50 + visit] or user[:1] for visit in range(50) for user in users]
    messages = [message(row) for row in reversed(rows)]
    warm = [messages.pop() for _ in range(min(20, len(messages) // 2))]
    asyncio.run(load(options.port, warm, 1, 5))
    result = asyncio.run(load(options.port, messages, options.connections, options.seconds))
    print(json.dumps(result))


class Server:
    """A server in a process of its own."""

    def __init__(self, words: list[str]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "http://" in line)
        self.port = int(line.split("http://127.0.0.1:")[1].split(":")[0].split()[0])

    def cpu_seconds(self) -> float:
        """Processor time of the process so far, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def measured(port: int, options: argparse.Namespace, connections: int, seed: int) -> dict[str, float]:
    words = [
        sys.executable,
        __file__,
        str(options.run),
        str(options.data),
        "--as-client",
        "--port",
        str(port),
        "--seed",
        str(seed),
    ]
    words += ["--connections", str(connections), "--seconds", str(options.seconds), "--count", str(options.count)]
    words += ["--returning"] if options.returning else []
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=options.seconds + LIMIT_SECONDS)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def server_side(port: int) -> dict[str, float]:
    """The median time of a stage inside the server, in milliseconds: the upper end of its bucket."""
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    result = {}
    for label in ('ensue_request_seconds_bucket{le="', 'ensue_stage_seconds_bucket{le="'):
        buckets: dict[str, list[tuple[float, float]]] = {}
        for line in lines:
            if line.startswith(label):
                edge, _, rest = line.removeprefix(label).partition('"')
                name = rest.split('"')[1]
                buckets.setdefault(name, []).append((float(edge), float(line.rsplit(" ", 1)[1])))
        for name, pairs in buckets.items():
            result[name] = 1000 * next(edge for edge, count in pairs if count >= pairs[-1][1] / 2)
    return result


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Both servers in turn."""
    own = [sys.executable, "-m", "ensue", "serve", str(options.run), "--port", "0", "--events", "none"]
    plain = [sys.executable, __file__, str(options.run), str(options.data), "--as-plain"]
    rounds: dict[str, list[dict[str, Any]]] = {"plain": [], "ensue": []}
    for number in range(options.rounds):
        for name, words in (("plain", plain), ("ensue", own)):
            server = Server(words)
            try:
                alone = measured(server.port, options, 1, 1000 + number)
                inside = server_side(server.port) if name == "ensue" else {}
                before = server.cpu_seconds()
                busy = measured(server.port, options, options.connections, number)
                busy["cpu_ms"] = 1000 * (server.cpu_seconds() - before) / (busy["requests"] + busy["failed"])
            finally:
                server.close()
            rounds[name].append({"alone": alone, "busy": busy, "server_p50_ms": inside})
            print(name, json.dumps(rounds[name][-1]), file=sys.stderr)
    ratios = [
        own["busy"]["rps"] / other["busy"]["rps"] for own, other in zip(rounds["ensue"], rounds["plain"], strict=True)
    ]
    return {
        "run": options.run.name,
        "returning": options.returning,
        "connections": options.connections,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_before": os.getloadavg()[0],
        "rounds": rounds,
        "median_ratio": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=lambda text: Path(text).absolute())
    parser.add_argument("data", type=lambda text: Path(text).absolute(), help="the store of the run")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--count", type=int, default=20_000, help="different histories")
    parser.add_argument("--returning", action="store_true", help="users come back with one more event")
    parser.add_argument("--as-plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--as-client", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_plain:
        serve_plain(options.run)
    elif options.as_client:
        client(options)
    else:
        print(json.dumps(compare(options), indent=1))


if __name__ == "__main__":
    main()
