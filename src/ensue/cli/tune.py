"""`ensue tune`: search for better settings on validation, and evaluate the best on test once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ensue.cli.flags import Flag
from ensue.cli.hints import recommend_to_user
from ensue.cli.sources import open_data
from ensue.cli.train import Data, ModelName, Preset, SettingsFile
from ensue.cli.train import flags as train_flags
from ensue.terminal.output import Screen, duration, table

if TYPE_CHECKING:
    from ensue.data.store import SequenceStore
    from ensue.runs.config import RunConfig
    from ensue.runs.log import Watcher
    from ensue.train.fit import Fitted
    from ensue.tuning.outcome import Outcome

Searched = Annotated[
    list[str] | None,
    typer.Option(
        "--search", help="A setting to vary: NAME, NAME=LOW..HIGH or NAME=A,B,...; may be given several times."
    ),
]
Sampler = Annotated[
    Literal["tpe", "gp", "random", "grid", "population"],
    typer.Option("--sampler", help="How settings are proposed."),
]
Prune = Annotated[
    Literal["median", "halving", "none"],
    typer.Option("--prune", help="When a trial stops early by its curve on validation."),
]
# Rows of the table on the terminal; the page has all.
SHOWN = 10


def flags(words: Sequence[str]) -> list[Flag]:
    """The flags of `ensue train`: where the search starts."""
    return train_flags(words)


def run(
    screen: Screen,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The folder of the search; an interrupted one in it goes on.")],
    settings: dict[str, Any],
    model: ModelName = None,
    preset: Preset = None,
    config: SettingsFile = None,
    search: Searched = None,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time of all trials together: 90s, 30m, 1.5h.")
    ] = "1h",
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="The largest number of trials.")] = None,
    sampler: Sampler = "tpe",
    prune: Prune = "median",
) -> dict[str, Any]:
    """Search for better settings on validation, starting from the given ones, and evaluate the best on test once.

    Several processes may run the same command at once. The same command resumes an interrupted search.
    """
    from ensue.cli.training import fit_shown, interruption_reported
    from ensue.files import check_place
    from ensue.leaderboard.budget import parse_duration
    from ensue.recipes import configure
    from ensue.tuning.outcome import conclude
    from ensue.tuning.search import searched
    from ensue.tuning.space import space_of

    seconds = parse_duration(budget)
    configured = configure(model, preset, settings, config)
    check_place(out)
    store = open_data(data, screen)
    choice = configured(store, None)
    screen.say(f"start: {choice.what}" if choice.what else "start: the given settings")
    space = space_of(choice.config, search or ())
    screen.say("\n".join(f"searched: {name}, {axis}" for name, axis in space.items()))

    def fit(config: RunConfig, store: SequenceStore, folder: Path, watchers: Iterable[Watcher]) -> Fitted:
        return fit_shown(screen, config, store, folder, watchers=watchers)

    search_ = searched(sampler, prune, store, choice.config, space, out, fit, screen.say)
    with interruption_reported(lambda: "the same command goes on"):
        done = search_.run(seconds, trials)
    outcome = conclude(out, store, choice.config, space, done, search_.importance())
    _show(screen, outcome, out)
    words = None if store.folder is not None else data
    screen.next(*recommend_to_user(out / outcome.best.run, outcome.config.model, store, words))
    return {"out": str(out), **outcome.as_dict()}


def _show(screen: Screen, outcome: Outcome, out: Path) -> None:
    """Print the best trials, the outcome and the files."""
    names = list(outcome.best.settings)
    best = sorted(outcome.trials, key=lambda trial: -(trial.value or 0.0))[:SHOWN]
    rows = [
        (
            trial.number,
            *(f"{value:.4g}" if isinstance(value, float) else value for value in map(trial.settings.get, names)),
            "" if trial.value is None else f"{trial.value:.4f}",
            trial.state,
            duration(trial.seconds),
        )
        for trial in best
    ]
    heads = ("trial", *names, f"validation {outcome.metric}", "ended", "time")
    screen.show(table(heads, rows, right=heads))
    screen.say(outcome.sentence)
    screen.say(f"written: {out / 'best.toml'}, tune.md, tune.json and plots; runs in {out / 'trials'}", "dim")
