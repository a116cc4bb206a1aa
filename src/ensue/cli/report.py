"""`ensue report`: one HTML file about evaluated runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ensue.cli.flags import Flag
from ensue.cli.hints import recommend_to_user
from ensue.cli.sources import data_of_run
from ensue.errors import ConfigError
from ensue.terminal.output import Screen, table

if TYPE_CHECKING:
    from ensue.report.collect import Report, Subject

Folders = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Evaluated run folders; the first one's errors are explained.")
]


def flags() -> list[Flag]:
    """The flags of re-ranking, of the first run."""
    from ensue.cli import stages

    return stages.flags()


def run(
    screen: Screen,
    folders: Folders,
    settings: dict[str, Any],
    out: Annotated[Path, typer.Option("--out", help="The HTML file; another report in it is replaced.")] = Path(
        "report.html"
    ),
    data: Annotated[list[str] | None, typer.Option("--data", help="Store or log; by default the first run's.")] = None,
    part: Annotated[Literal["test", "validation"], typer.Option("--part", help="Which held-out events.")] = "test",
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="Which of the evaluations; default: the first run's.")
    ] = None,
    users: Annotated[int, typer.Option("--users", help="Number of users whose errors are explained.", min=0)] = 10,
) -> dict[str, Any]:
    """Write one self-contained HTML file: results, breakdowns, drift, learning curves, errors explained, and cost."""
    from ensue.cli.stages import add_second_stage
    from ensue.files import check_place, write_text
    from ensue.recommender import Recommender
    from ensue.report.collect import Subject, collect
    from ensue.report.page import page
    from ensue.runs.evaluated import read_evaluated

    if len(set(folders)) < len(folders):
        raise ConfigError(f"name each run once (got {', '.join(map(str, folders))})")
    _check_out(out)
    check_place(out)
    first = Recommender.load(folders[0])
    assert first.run is not None
    store = data_of_run(folders[0], first.run, data, screen)
    add_second_stage(first, settings)
    config = first.config.evaluate
    key = protocol or (config if first.reranking is None else first.reranking.protocol(config)).key
    subjects: list[Subject] = []
    for number, folder in enumerate(folders):
        recommender = first if number == 0 else Recommender.load(folder)
        subjects.append(Subject(folder, read_evaluated(folder, part, key), recommender))
    report = collect(subjects, store, part, users)
    write_text(out, page(report))
    _show(screen, report)
    screen.say(f"written: {out} ({out.stat().st_size / 1024:,.0f} KiB); open it in a browser")
    user = report.missed[0].user if report.missed else None
    screen.next(*recommend_to_user(folders[0], first.config.model, store, data, user))
    return {
        "written": str(out),
        "part": part,
        "protocol": key,
        "metrics": {
            name: {n: each.mean for n, each in zip(report.names, row, strict=True)}
            for name, row in report.results.items()
        },
        "conclusion": " ".join(report.conclusion),
        "missed": [
            {"user": each.user, "target": each.target.item, "rank": each.rank, "why": " ".join(each.why)}
            for each in report.missed
        ],
    }


def _check_out(out: Path) -> None:
    """Refuse to replace a file that is not a report.

    Raises:
        ConfigError: it exists and is something else.
    """
    from ensue.report.page import MARK

    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder, but the report is a file: name a file such as report.html")
    if out.exists() and MARK.encode() not in out.read_bytes()[:1000]:
        raise ConfigError(f"--out {out} exists and is not a report of ensue: choose another name")


def _show(screen: Screen, report: Report) -> None:
    """The results in a table, and the conclusion."""
    heads = ("metric", *report.names)
    rows = [(name, *(f"{each.mean:.4f}" for each in row)) for name, row in report.results.items()]
    screen.show(table(heads, rows, title=report.about, right=heads[1:]))
    for line in report.conclusion:
        screen.say(line, "bold")
