"""`ensue bench`: train several models under one protocol, within a budget, and write one page of results."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensue.cli.doctor import SPLIT_NAMES
from ensue.cli.flags import Flag, flags_of, split_list, words_of
from ensue.cli.sources import data_words, open_data
from ensue.cli.train import Data
from ensue.errors import ConfigError, EnsueError, nearest
from ensue.terminal.output import Screen, duration, table

if TYPE_CHECKING:
    from ensue.data.store import SequenceStore
    from ensue.runs.config import RunConfig
    from ensue.train.fit import Fitted

# Settings of the training that all models share.
SHARED = ("amp", "device", "threads", "seed", "validation_users")
METRICS = ("hr@10", "ndcg@10", "mrr@10")


def flags() -> list[Flag]:
    """The flags of the split, of the protocol, and of the settings of training that all models share."""
    from ensue.data.split import SplitConfig
    from ensue.evaluation.protocol import EvaluateConfig
    from ensue.runs.config import TrainConfig

    others = [name for name in TrainConfig.model_fields if name not in SHARED]
    return [
        *flags_of(EvaluateConfig, "Protocol", skip={"query_time", "rerank"}),
        *flags_of(SplitConfig, "Split", rename=SPLIT_NAMES),
        *flags_of(TrainConfig, "Training", skip=others),
    ]


def run(
    screen: Screen,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The folder of the bench; an interrupted one in it goes on.")],
    settings: dict[str, Any],
    models: Annotated[
        str, typer.Option("--models", metavar="A,B,...", help="Models or presets; all is every model.")
    ] = "all",
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time for everything: 90s, 30m, 1.5h.")
    ] = "30m",
) -> dict[str, Any]:
    """Train each model with the recipe that suits the data, rank the test part, and write one page of results.

    The budget is shared out by what the models need. The same command resumes an interrupted bench.
    """
    from ensue.cli.training import fit_shown, interruption_reported
    from ensue.evaluation.protocol import EvaluateConfig
    from ensue.files import check_place, read_json
    from ensue.leaderboard.bench import Bench
    from ensue.leaderboard.budget import parse_duration
    from ensue.leaderboard.page import DATA, write_page
    from ensue.leaderboard.state import RUNS, open_state
    from ensue.recipes import run_config

    names, seconds = _names(models), parse_duration(budget)
    common: dict[str, Any] = {"metrics": METRICS, **settings}
    protocol = EvaluateConfig.parse({name: common[name] for name in EvaluateConfig.model_fields if name in common})
    common |= {name: getattr(protocol, name) for name in ("protocol", "filter_seen", "metrics", "evaluation_seed")}
    config = run_config("popularity", None, common)
    check_place(out)
    store = open_data(data, screen)
    state = open_state(out, _about(store, config), names)
    words = ["ensue", "bench", *data, *([] if models == "all" else ["--models", models]), "--budget", budget]
    command = shlex.join([*words, *words_of(flags(), settings), "--out", str(out)])

    def fit(config: RunConfig, store: SequenceStore, folder: Path) -> Fitted:
        return fit_shown(screen, config, store, folder)

    bench = Bench(store, out, state, common, seconds, fit, screen.say)
    with interruption_reported(lambda: f"the same command goes on: {command}"):
        bench.run(names)
    if all(row.status != "finished" for row in state.rows.values()):
        raise EnsueError("; ".join(f"{row.name}: {row.reason}" for row in state.rows.values()))
    order = write_page(out, state, " ".join(data), command)
    page = read_json(out / DATA)
    _show(screen, page)
    screen.say(f"written: {out / 'leaderboard.md'}, .json, .png and .svg; runs in {out / RUNS}", "dim")
    runs = [out / RUNS / name for name in order[:2]]
    if len(runs) > 1:
        screen.next("ensue compare", *runs, *([] if protocol.key == "full" else ["--protocol", protocol.key]))
    else:
        screen.next("ensue evaluate", *runs, *([] if store.folder is not None else data_words(data)))
    return dict(page)


def _names(models: str) -> list[str]:
    """The models and presets of --models.

    Raises:
        ConfigError: there is no model or preset of a name.
    """
    from ensue.recipes import RECIPES
    from ensue.recipes.suited import comparable

    names = comparable() if models == "all" else list(dict.fromkeys(split_list(models)))
    known = [*comparable(), *RECIPES]
    for name in names:
        if name not in known:
            raise ConfigError(f"--models: unknown model or preset {name!r}: {nearest(name, known)}")
    if not names:
        raise ConfigError("--models: name at least one model, or all")
    return names


def _about(store: SequenceStore, config: RunConfig) -> dict[str, Any]:
    """What all rows of a bench share."""
    return {
        "fingerprint": store.fingerprint,
        "users": store.num_users,
        "items": store.num_items,
        "events": store.num_events,
        "split": config.split.model_dump(mode="json"),
        "protocol": config.evaluate.key,
        "metrics": list(config.evaluate.metrics),
        "seed": config.train.seed,
    }


def _show(screen: Screen, page: dict[str, Any]) -> None:
    """Print the table of the finished rows and the reasons of the others."""
    from ensue.leaderboard.page import COVERAGE

    metrics = list(page["rows"][0]["scores"])
    heads = ("model", *metrics, COVERAGE, "training", "request ms", "parameters")
    marks = {"best": " *", "tie": " =", "worse": "  "}
    rows = [
        (
            row["name"],
            *(f"{row['scores'][metric]['mean']:.4f}{marks[row['scores'][metric]['mark']]}" for metric in metrics),
            f"{row['results'][COVERAGE]:.1%}",
            duration(row["results"]["train_seconds"]),
            f"{row['results']['request_ms']['p50']:.1f}",
            f"{row['results']['parameters']:,}",
        )
        for row in page["rows"]
    ]
    screen.show(table(heads, rows, title=f"{page['data']}, {page['protocol']}", right=heads[1:]))
    screen.say("*: best; =: not significantly different from the best (paired t-test, Holm)", "dim")
    for row in page["left_out"]:
        screen.say(f"left out: {row['name']}: {row['reason']}", "yellow")
