"""Paired comparison of speed and memory with a peer: alternating runs of ours and the peer, and the ratio of each pair.

python benchmarks/speed.py --data ml-1m-sasrec --peer rectools --pairs 3

Runs on a busy machine are useless: with other work on the same cores, a two-thread epoch takes several times as long.
Therefore the script refuses to start while other processes use more than `--max-others` cores, watches them during each
run, and writes no result if they used more. Each run is a separate process; its peak memory is `ru_maxrss`. Results are
written to docs/results/speed.json (every run) and docs/results/speed.md (the table).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measure import SETTINGS
from peers import REQUIREMENTS, ROOT, python

RUNNERS = {"ours": "ours.py", **{peer: f"peer_{peer}.py" for peer in REQUIREMENTS}}
RESULTS = ROOT / "docs" / "results"

# The comparisons: (label, our piece of work, the peer's). RecBole evaluates, but has no top-10 of all users.
PIECES = {
    "rectools": [
        ("training epoch", "epoch", "epoch"),
        ("top-10 of all users", "top10", "top10"),
        ("full-ranking evaluation; the peer only its top-10", "evaluation", "top10"),
    ],
    "recbole": [
        ("training epoch", "epoch", "epoch"),
        ("full-ranking evaluation", "evaluation", "evaluation"),
    ],
}


class Others:
    """Measure how many cores other processes use, from the kernel's counters (Linux)."""

    def __init__(self) -> None:
        self.wall, self.busy, self.own = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        # The fields of the first line: user nice system idle iowait irq softirq steal guest guest_nice.
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.perf_counter(), busy, sum(usage.ru_utime + usage.ru_stime for usage in own)

    def cores(self) -> float:
        """The mean number of cores that other processes have used since the start."""
        wall, busy, own = self._now()
        return round(max(0.0, (busy - self.busy) - (own - self.own)) / (wall - self.wall), 3)


def run(library: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one runner and read its JSON line."""
    command = [str(python(library)), str(Path(__file__).with_name(RUNNERS[library])), "--data", options.data]
    command += ["--epochs", str(options.epochs), "--threads", str(options.threads)]
    if library == "recbole":
        command += ["--steps", str(options.steps)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(options.threads),
        "MKL_NUM_THREADS": str(options.threads),
    }
    watch = Others()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{library} failed:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "other_cores": watch.cores()}


def value(result: dict[str, Any], piece: str) -> float:
    """Seconds of a piece of work: the median of its repetitions within the run."""
    return float(statistics.median(result["seconds"][piece]))


def compare(name: str, ours: list[float], theirs: list[float], unit: str) -> dict[str, Any]:
    """The medians of both sides and the ratio peer / ours of each pair."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "what": name,
        "unit": unit,
        "ours": ours,
        "peer": theirs,
        "ratio_by_pair": [round(ratio, 3) for ratio in ratios],
        "ratio_median": round(statistics.median(ratios), 3),
    }


def machine() -> str:
    """A description of the machine, without its name."""
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    python_version = platform.python_version()
    return f"{os.cpu_count()} {platform.machine()} cores, {gib:.0f} GiB memory, Python {python_version}"


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All pairs of one data set and one peer."""
    pairs = [(run("ours", options), run(options.peer, options)) for _ in range(options.pairs)]
    rows = [
        compare(label, [value(a, mine) for a, _ in pairs], [value(b, theirs) for _, b in pairs], "s")
        for label, mine, theirs in PIECES[options.peer]
    ]
    peaks = [(max(a["peak_mib"].values()), max(b["peak_mib"].values())) for a, b in pairs]
    rows.append(compare("peak memory", [a for a, _ in peaks], [b for _, b in peaks], "MiB"))
    return {
        "data": options.data,
        "peer": options.peer,
        "command": "python " + " ".join(["benchmarks/speed.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "rows": rows,
        "runs": [{"ours": a, options.peer: b} for a, b in pairs],
    }


def table(result: dict[str, Any]) -> str:
    """One benchmark as Markdown: setting, versions, then medians and ratios."""
    ours, theirs = (result["runs"][0][name] for name in ("ours", result["peer"]))
    setting = ", ".join(f"{key} {value}" for key, value in ours["setting"].items() if key != "data")
    versions = [", ".join(f"{k} {v}" for k, v in side["versions"].items()) for side in (ours, theirs)]
    steps = theirs.get("extrapolated_from_steps")
    lines = [
        f"## {result['data']}: ensue and {result['peer']}",
        "",
        f"`{result['command']}`, {result['date']}; {result['machine']}, {ours['threads']} threads.",
        f"Setting: {setting}. Ours: {versions[0]}; peer: {versions[1]}.",
        *([f"The peer's epoch is extrapolated from {steps} steps."] if steps else []),
        "",
        f"| | ours (median) | {result['peer']} (median) | ratio by pair | median ratio |",
        "|---|---:|---:|---|---:|",
    ]
    for row in result["rows"]:
        mine, other = (statistics.median(row[side]) for side in ("ours", "peer"))
        ratios = ", ".join(f"{ratio:.2f}" for ratio in row["ratio_by_pair"])
        cells = [row["what"], f"{mine:.2f} {row['unit']}", f"{other:.2f} {row['unit']}", ratios]
        lines.append(f"| {' | '.join(cells)} | {row['ratio_median']:.2f} |")
    return "\n".join(lines) + "\n"


def write(result: dict[str, Any]) -> None:
    """Replace an earlier result of the same data and peer, and write the page of all results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "speed.json"
    kept = json.loads(path.read_text()) if path.is_file() else []
    kept = [old for old in kept if (old["data"], old["peer"]) != (result["data"], result["peer"])]
    kept = sorted([*kept, result], key=lambda each: (each["peer"], each["data"]), reverse=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")
    head = "# Speed and memory\n\nEach ratio is peer / ours for a pair of consecutive runs.\n\n"
    (RESULTS / "speed.md").write_text(head + "\n".join(table(each) for each in kept))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=sorted(SETTINGS), default="ml-1m-sasrec")
    parser.add_argument("--peer", choices=sorted(REQUIREMENTS), default="rectools")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="epochs in each run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30, help="RecBole: steps to time and extrapolate from")
    parser.add_argument("--max-others", type=float, default=0.15, help="cores that other work may keep busy")
    options = parser.parse_args()
    watch = Others()
    time.sleep(5)
    if watch.cores() > options.max_others:
        sys.exit(f"the machine is busy: others use {watch.cores()} cores (--max-others {options.max_others})")
    result = benchmark(options)
    print(table(result))
    busiest = max(side["other_cores"] for pair in result["runs"] for side in pair.values())
    if busiest > options.max_others:
        sys.exit(f"nothing written: others used {busiest} cores in a run (--max-others {options.max_others})")
    write(result)


if __name__ == "__main__":
    main()
