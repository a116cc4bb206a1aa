"""`ensue demo`: the simulated data end to end, compared with the best possible score on it.

Suffix: `B` cases.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ensue.cli.prepare import Stages
from ensue.cli.recommend import items_table
from ensue.cli.sources import report_table
from ensue.errors import DataError, OtherRunError
from ensue.terminal.output import Screen, bar, duration, table

if TYPE_CHECKING:
    from ensue.data.split import Cases
    from ensue.data.store import SequenceStore
    from ensue.datasets.simulate import Simulation
    from ensue.evaluation.standings import Standings
    from ensue.recommender import Recommender

README = "README.txt"
ABOUT = "Created by `ensue demo`, which may replace everything in this folder.\n"
MODELS = (("popularity", None), ("markov", None), ("sasrec", "demo"))
LABELS = {
    "popularity": "popularity",
    "markov": "Markov chain",
    "sasrec": "SASRec",
    "best": "best possible",
}
REPORTED = ("ndcg@10", "hr@10")
HISTORY_SHOWN = 8


def run(
    screen: Screen,
    out: Annotated[Path, typer.Option("--out", help="Folder for data and runs.")] = Path("ensue-demo"),
    users: Annotated[int, typer.Option("--users", help="Number of readers to simulate.", min=100)] = 2_000,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Maximum epochs of SASRec; by default the preset's.", min=1)
    ] = None,
) -> dict[str, Any]:
    """Simulate a book club, prepare its log, train three models, and compare them with the best possible score.

    If run again, it uses the models that are already trained; with other sizes it trains them again.
    """
    from ensue.data.split import make_split
    from ensue.datasets.simulate import SimulateConfig, simulate
    from ensue.evaluation.evaluate import evaluate
    from ensue.evaluation.protocol import EvaluateConfig

    began = time.monotonic()
    claim(out)
    world = simulate(SimulateConfig(num_users=users))
    store = write_and_prepare(screen, world, out)
    _order_line(screen, store)
    config = EvaluateConfig(metrics=REPORTED)
    standings: dict[str, Standings] = {}
    for name, preset in MODELS:
        settings = {"num_epochs": epochs} if epochs is not None and name == "sasrec" else {}
        recommender = trained(screen, name, preset, settings, store, out / "runs" / name)
        standings[name] = recommender.evaluate(store, "test", config, out / "runs" / name)[1]
    split = make_split(store, recommender.config.split)
    from ensue.cli.best import BestPossible

    standings["best"] = evaluate(BestPossible(world, store), split.test, config, split.train)
    means = {name: each.means(config) for name, each in standings.items()}
    _scores(screen, means, len(split.test))
    example = one_reader(screen, recommender, split.test, standings["sasrec"])
    screen.say(f"done in {duration(time.monotonic() - began)}; everything is in {out}", "dim")
    history = ",".join(str(item) for item in example["history"][-3:])
    screen.next("ensue recommend", out / "runs" / "sasrec", "--history", history)
    screen.next("ensue serve", out / "runs" / "sasrec")
    screen.next("ensue report", *(out / "runs" / name for name, _ in reversed(MODELS)), "--out", out / "report.html")
    return {"out": str(out), "protocol": "full", "users": len(split.test), "metrics": means, "example": example}


def claim(out: Path) -> None:
    """Create the demo's folder, or check that an existing one is the demo's.

    Raises:
        DataError: the folder contains something else.
    """
    mark = out / README
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not _is_mark(mark):
        raise DataError(f"{out}: exists and was not created by ensue demo; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.write_bytes(ABOUT.encode())


def _is_mark(path: Path) -> bool:
    """Whether a file is the demo's own README.txt; other folders may have one too."""
    return path.is_file() and path.stat().st_size == len(ABOUT.encode()) and path.read_bytes() == ABOUT.encode()


def write_and_prepare(screen: Screen, world: Simulation, out: Path) -> SequenceStore:
    """Write log and items as CSV, and prepare them like any other log."""
    from ensue.data.prepare import prepare

    log, items = out / "log.csv", out / "items.csv"
    world.interactions.write_csv(log)
    world.items.write_csv(items)
    screen.say(f"a simulated book club: {log}, {items}", "bold")
    with Stages(screen) as stage:
        store, report = prepare(log, out / "store", items=items, overwrite=True, progress=stage)
    screen.show(report_table(report.as_dict()))
    return store


def _order_line(screen: Screen, store: SequenceStore) -> None:
    """Print the doctor's finding on order in one line."""
    from ensue.doctor.check import check

    report = check(store)
    screen.say(f"doctor: {report['order'].text}")


def trained(
    screen: Screen, name: str, preset: str | None, settings: dict[str, Any], store: SequenceStore, folder: Path
) -> Recommender:
    """The model, trained into the folder; a run of other data or settings in it is replaced."""
    from ensue.cli.training import FitOptions, fit_shown
    from ensue.recipes import run_config
    from ensue.recommender import Recommender

    screen.say()
    config = run_config(name, preset, settings)
    try:
        fitted = fit_shown(screen, config, store, folder)
    except OtherRunError:
        screen.say(f"{folder} was trained with other sizes: training {name} again")
        fitted = fit_shown(screen, config, store, folder, FitOptions(overwrite=True))
    if not fitted.is_new:
        screen.say(f"{name}: already trained, in {folder}")
    return Recommender.from_run(fitted.run, fitted.log)


def _scores(screen: Screen, means: dict[str, dict[str, float]], cases: int) -> None:
    top = means["best"]["ndcg@10"]
    rows = [
        (
            LABELS[name],
            f"{values['ndcg@10']:.4f}",
            f"{values['hr@10']:.4f}",
            Text(bar(values["ndcg@10"] / top), style="green" if name == "best" else "cyan"),
            f"{values['ndcg@10'] / top:.0%}",
        )
        for name, values in means.items()
    ]
    screen.say()
    screen.show(
        table(
            ("model", "NDCG@10", "HR@10", "NDCG@10 relative to the best possible", "share"),
            rows,
            title=f"The next book among all unread ones, {cases:,} readers",
            right=("NDCG@10", "HR@10", "share"),
        )
    )


def one_reader(screen: Screen, recommender: Recommender, cases: Cases, standings: Standings) -> dict[str, Any]:
    """Show the history, recommendations and next book of the first reader whose next book is among the ten."""
    hits = (standings.rank_B <= 10).nonzero()[0]
    case = int(hits[0]) if len(hits) else 0
    store = cases.store
    events = slice(int(cases.start_B[case]), int(cases.stop_B[case]))
    history = store.item_ids.decode(store.items[events])
    times = None if store.times is None else store.times[events].tolist()
    target = int(cases.target_items_B[case])
    answer = recommender.recommend(history, k=10, times=times)
    titles = store.titles or [None] * (store.num_items + 1)
    screen.say(
        f"One of the {len(hits):,} readers (of {len(cases):,}) whose next book is among the ten. History, newest last:",
        "bold",
    )
    numbers = store.items[events][-HISTORY_SHOWN:]
    if len(history) > HISTORY_SHOWN:
        screen.say(f"  ... {len(history) - HISTORY_SHOWN} before these")
    for number in numbers:
        screen.say(f"  {titles[int(number)]}")
    screen.show(items_table(answer.items))
    (came,) = store.item_ids.decode([target])
    rank = float(standings.rank_B[case])
    screen.say(f"Actual next book: {titles[target]} (item {came}, rank {rank:g})", "bold")
    return {
        "user": store.users.decode([int(cases.users_B[case]) + 1])[0],
        "history": history,
        "recommended": answer.ids,
        "next": came,
        "rank": rank,
    }
