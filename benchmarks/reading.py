"""Time and memory of `ensue prepare` beside polars and pandas reading and sorting the same log, in turn.

    python benchmarks/reading.py                       # 10 million rows of CSV, 3 rounds
    python benchmarks/reading.py --rows 50_000_000 --form parquet --programs ensue --rounds 1

Each run is a process of its own; its peak memory is the kernel's `ru_maxrss`. Other work on the machine slows all of
a round alike, so the ratios within a round are what counts. The log is a function of its size alone: users and items
by a power law, times in order, as servers write them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
POLARS = (
    "import sys, polars as pl; p = sys.argv[1]; f = pl.read_parquet(p) if p.endswith('parquet') else pl.read_csv(p); "
    "print(len(f.sort('user', 'timestamp', maintain_order=True)))"
)
PANDAS = (
    "import sys, pandas as pd; p = sys.argv[1]; f = pd.read_parquet(p) if p.endswith('parquet') else pd.read_csv(p); "
    "print(len(f.sort_values(['user', 'timestamp'], kind='stable')))"
)
RECOGNISE = (
    "import sys, time; from pathlib import Path; from ensue.data.interactions import Columns, columns_of; "
    "from ensue.data.logs import open_beginning; open_beginning(sys.argv[2], Columns().reading); "
    "read = lambda: int(Path('/proc/self/io').read_text().split()[1]); "
    "before, start, spent = read(), time.perf_counter(), time.process_time(); "
    "columns_of(open_beginning(sys.argv[1], Columns().reading), Columns()); "
    'print(\'{"seconds": %f, "cpu_seconds": %f, "bytes": %d}\' % '
    "(time.perf_counter() - start, time.process_time() - spent, read() - before))"
)
CHUNK = 5_000_000


def write_log(path: Path, rows: int) -> None:
    """Write a log of `rows` events: users and items by a power law, times in order."""
    users, items = max(rows // 50, 10), max(rows // 200, 10)
    parts = []
    for number, first in enumerate(range(0, rows, CHUNK)):
        size = min(CHUNK, rows - first)
        rng = np.random.default_rng([7, number])
        parts.append(
            pl.DataFrame(
                {
                    "user": 1 + (users * rng.random(size) ** 1.5).astype(np.int64),
                    "item": 1 + (items * rng.random(size) ** 3).astype(np.int64),
                    "timestamp": 1_500_000_000 + 3 * np.arange(first, first + size),
                }
            )
        )
    frame = pl.concat(parts)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path)


def measured(words: list[str], threads: int, source: Path) -> dict[str, Any]:
    """Seconds, processor seconds and peak megabytes of a program run as a child."""
    env = {**os.environ, "POLARS_MAX_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    env["PYTHONPATH"] = str(source)
    start = time.perf_counter()
    child = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(words[:4])} ended with {child.returncode}")
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1000,
        "out": out,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--form", choices=("csv", "parquet"), default="csv")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", default="polars,pandas,ensue", help="in the order of each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="the sources of ensue that are measured")
    parser.add_argument("--folder", type=Path, help="keeps the log there, and reads one that is there already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name)
        log = folder / f"log-{args.rows}.{args.form}"
        if not log.exists():
            write_log(log, args.rows)
        python = sys.executable
        programs = {
            "polars": [python, "-c", POLARS, str(log)],
            "pandas": [python, "-c", PANDAS, str(log)],
            "ensue": [python, "-m", "ensue", "prepare", str(log), "--overwrite", "--out", str(Path(name) / "store")],
        }
        runs: dict[str, list[dict[str, Any]]] = {each: [] for each in args.programs.split(",")}
        for _ in range(args.rounds):
            for each, done in runs.items():
                done.append(measured(programs[each], args.threads, args.source))
                print(f"{each:8}{done[-1]['seconds']:8.1f} s{done[-1]['peak_mb']:8.0f} MB", flush=True)
        print(f"\n{args.rows:,} rows of {args.form}, {log.stat().st_size / 1e6:.0f} MB, {args.threads} threads")
        for each, done in runs.items():
            line = f"{each:8}median {statistics.median(one['seconds'] for one in done):6.1f} s"
            line += f", {statistics.median(one['cpu_seconds'] for one in done):6.1f} s of processor"
            line += f", peak {max(one['peak_mb'] for one in done):6.0f} MB"
            if each != "polars" and "polars" in runs:
                for unit in ("seconds", "cpu_seconds"):
                    pairs = zip(done, runs["polars"], strict=True)
                    ratio = statistics.median(one[unit] / other[unit] for one, other in pairs)
                    line += f", {ratio:.2f} x polars by {unit}"
            print(line)
        if args.form == "csv":
            # What recognisers import is not counted: an export of a spreadsheet loads all of them first.
            other = Path(name) / "other.csv"
            other.write_text("nothing known\n" * 200_000)
            looked = json.loads(
                measured([python, "-c", RECOGNISE, str(log), str(other)], args.threads, args.source)["out"]
            )
            line = f"columns known after {looked['bytes'] / 1e6:.2f} MB, {looked['cpu_seconds']:.2f} s of processor"
            print(f"{line}, {looked['seconds']:.2f} s")


if __name__ == "__main__":
    main()
