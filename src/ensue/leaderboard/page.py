"""The page of a bench: results with intervals and paired tests, as Markdown and JSON.

Suffix: `B` cases.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from ensue import __version__
from ensue.evaluation.conclusion import LEVEL, main_metric
from ensue.evaluation.significance import bootstrap_interval, by_user, holm, paired_t
from ensue.files import write_json, write_text
from ensue.leaderboard.measure import LENGTH
from ensue.leaderboard.state import RUNS, Row, State
from ensue.plots.leaderboard import draw_leaderboard
from ensue.runs.results import read_metrics, table_path
from ensue.runtime.limits import memory
from ensue.terminal.output import duration

PAGE, DATA = "leaderboard.md", "leaderboard.json"
COVERAGE = f"coverage@{LENGTH}"


def tables_of(folder: Path, state: State) -> dict[str, pl.DataFrame]:
    """The per-user table of every finished row."""
    key = f"test/{state.about['protocol']}"
    return {
        row.name: pl.read_parquet(table_path(run, read_metrics(run)[key]), glob=False)
        for row in state.rows.values()
        if row.status == "finished" and (run := folder / RUNS / row.name)
    }


def compared(tables: Mapping[str, pl.DataFrame], metrics: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric -> row -> mean, interval, and the paired test against the best row.

    The tests are paired by user; p-values are adjusted by Holm's method over the rows of a metric.

    Args:
        tables: per-user tables of the same cases.
        metrics: their columns to compare.

    Returns:
        For each metric and row `mean`, `low`, `high` (95 % bootstrap interval over users), `p_holm` (None for the best)
        and `mark`: `best`, `tie` (not significantly worse than the best) or `worse`.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for metric in metrics:
        values = {name: table[metric].to_numpy() for name, table in tables.items()}
        users_B = next(iter(tables.values()))["user"].to_numpy()
        sign = -1 if metric.startswith("rank") else 1
        best = max(values, key=lambda name: sign * float(values[name].mean()))
        others = [name for name in values if name != best]
        p = holm([paired_t(each := by_user(values[best] - values[name], users_B), 0 * each) for name in others])
        adjusted = dict(zip(others, p.tolist(), strict=True))
        result[metric] = {}
        for name, values_B in values.items():
            interval = bootstrap_interval(by_user(values_B, users_B))
            p_holm = adjusted.get(name)
            mark = "best" if p_holm is None else "tie" if p_holm >= LEVEL else "worse"
            own = {"mean": interval.estimate, "low": interval.low, "high": interval.high}
            result[metric][name] = {**own, "p_holm": p_holm, "mark": mark}
    return result


def write_page(folder: Path, state: State, title: str, command: str) -> list[str]:
    """Write `leaderboard.md`, `.json`, `.png` and `.svg` of the finished rows.

    Args:
        folder: of the bench.
        state: its rows; at least one is finished.
        title: the name of the data.
        command: the command line, for the page.

    Returns:
        The names of the finished rows, best first.
    """
    tables = tables_of(folder, state)
    labels = next(iter(tables.values())).columns
    wanted = state.about["metrics"]
    metrics = [name for name in labels if name.partition("|")[0] in wanted and not name.endswith("|ips")]
    results = compared(tables, metrics)
    chief = main_metric(metrics)
    sign = 1 if chief.startswith("rank") else -1
    order = sorted(tables, key=lambda name: sign * results[chief][name]["mean"])
    machine = (
        f"{os.cpu_count()} {platform.machine()} cores, {memory() / 2**30:.0f} GiB memory, Python "
        f"{platform.python_version()}, torch {version('torch')}, ensue {__version__}"
    )
    about = {**state.about, "command": command, "machine": machine, "seconds": round(state.spent, 1)}
    rows = [{**_public(state.rows[name]), "scores": {m: results[m][name] for m in metrics}} for name in order]
    refused = [row for row in state.rows.values() if row.status == "refused"]
    left_out = [{"name": row.name, "recipe": row.recipe, "reason": row.reason} for row in refused]
    write_json(folder / DATA, {"data": title, **about, "main_metric": chief, "rows": rows, "left_out": left_out})
    write_text(folder / PAGE, _markdown(title, about, chief, rows, left_out))
    draw_leaderboard(
        [(row["name"], row["scores"][chief], row["results"]["train_seconds"]) for row in rows], chief, folder
    )
    return order


def _public(row: Row) -> dict[str, Any]:
    return {"name": row.name, "recipe": row.recipe, "results": row.results, "config": row.config}


def _markdown(title: str, about: dict[str, Any], chief: str, rows: list[Any], left_out: list[Any]) -> str:
    metrics = list(rows[0]["scores"])
    lines = [
        f"# Leaderboard: {title}",
        "",
        f"{about['users']:,} users, {about['items']:,} items, {about['events']:,} events; data fingerprint "
        f"`{about['fingerprint'][:16]}`. Split {about['split']['split']}, protocol {about['protocol']}, "
        f"{rows[0]['results']['cases']:,} test cases, seed {about['seed']}; state chosen on validation.",
        f"Command: `{about['command']}`. Time in all: {duration(about['seconds'])} on {about['machine']}.",
        "",
        f"Rows are ordered by {chief}. Brackets: 95 % bootstrap interval over users. **Bold**: best of its column; "
        f"`=`: not significantly different from the best (t-test paired by user, Holm's correction over the rows, "
        f"{LEVEL:.0%}).",
        "",
        _line(["model", "settings", *metrics, COVERAGE]),
        _line(["---", "---", *["---:"] * (len(metrics) + 1)]),
    ]
    for row in rows:
        cells = [_score(row["scores"][metric]) for metric in metrics]
        lines.append(_line([row["name"], row["recipe"], *cells, f"{row['results'][COVERAGE]:.1%}"]))
    heads = ["epochs", "training", "ranking all cases", "one request (p50 / p99)", "peak memory", "parameters", "disk"]
    lines += ["", _line(["model", *heads]), _line(["---", *["---:"] * len(heads)])]
    lines += [_line([row["name"], *_costs(row["results"], row["config"])]) for row in rows]
    if left_out:
        lines += ["", "Not in the table:", ""]
        lines += [f"- {row['name']}: {row['reason']}" for row in left_out]
    return "\n".join([*lines, ""])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _score(score: dict[str, Any]) -> str:
    mean = f"{score['mean']:.4f}"
    if score["mark"] == "best":
        mean = f"**{mean}**"
    return f"{mean} [{score['low']:.4f}, {score['high']:.4f}]" + (" =" if score["mark"] == "tie" else "")


def _costs(results: dict[str, Any], config: dict[str, Any]) -> list[str]:
    epochs, request = results["epochs"], results["request_ms"]
    planned = config["train"]["num_epochs"]
    return [
        f"{epochs} of {planned}" if epochs else "counted",
        seconds(results["train_seconds"]),
        seconds(results["rank_seconds"]),
        f"{request['p50']:.1f} / {request['p99']:.1f} ms",
        f"{results['peak_bytes'] / 2**20:,.0f} MiB",
        f"{results['parameters']:,}",
        f"{results['disk_bytes'] / 2**20:.1f} MiB",
    ]


def seconds(value: float) -> str:
    """A time: `0.42 s`, `12 s` or `2:05`."""
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s" if value < 100 else duration(value)
