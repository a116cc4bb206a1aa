"""The outcome of a search: the best trial against its start on validation and on test, and the page.

Suffix: `B` cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensue import __version__
from ensue.data.store import SequenceStore
from ensue.errors import EnsueError, counted
from ensue.evaluation.significance import Comparison, by_user, compare
from ensue.files import write_json, write_text
from ensue.plots.tuning import draw_importance, draw_trials
from ensue.recommender import Recommender
from ensue.runs.config import RunConfig
from ensue.terminal.output import duration
from ensue.tuning.space import Space, changed
from ensue.tuning.trials import BEST, DATA, PAGE, Trial, best_of, run_of


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        trials: all trials.
        best: the best of them on validation.
        config: its settings.
        metric: the metric of the search, such as `ndcg@10`.
        validation: best minus start, paired by user, on validation; None if the start is best or was not completed.
        p_adjusted: p-value of `validation`, times the number of trials that the best was chosen from (Bonferroni).
        test: best minus start on test, where nothing was chosen; None as `validation`.
        test_means: the metrics of the best on test.
        importance: share of the variance of the trials' values that each setting explains; empty if too few.
    """

    trials: Sequence[Trial]
    best: Trial
    config: RunConfig
    metric: str
    validation: Comparison | None
    p_adjusted: float | None
    test: Comparison | None
    test_means: dict[str, float]
    importance: dict[str, float]

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        cost = f"{counted(len(self.trials), 'trial')} in {duration(sum(trial.seconds for trial in self.trials))}"
        if self.best.number == 0:
            return f"After {cost}, nothing is better on validation than the start of the search."
        if self.validation is None or self.test is None:
            return (
                f"After {cost}, trial {self.best.number} is the best on validation ({self.metric} "
                f"{self.best.value:.4f}); the start of the search was not completed, so there is no comparison with it."
            )
        is_sure = self.test.effect.low > 0
        verdict = "is better than the start" if is_sure else "is not reliably better than the start"
        return (
            f"After {cost}, trial {self.best.number} {verdict}: on test {self.metric} {self.test.mean_a:.4f} against "
            f"{self.test.mean_b:.4f}, difference {self.test.effect}; on validation, where it was chosen, "
            f"{self.validation.mean_a:.4f} against {self.validation.mean_b:.4f}, p {self.p_adjusted:.2g} after "
            f"correction for {counted(len(self.trials), 'trial')}."
        )

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {
            "metric": self.metric,
            "best": self.best.as_dict(),
            "settings": self.config.model_dump(mode="json"),
            "validation": None if self.validation is None else self.validation.as_dict(),
            "p_adjusted": self.p_adjusted,
            "test": None if self.test is None else self.test.as_dict(),
            "test_means": self.test_means,
            "importance": self.importance,
            "trials": [trial.as_dict() for trial in self.trials],
        }


def conclude(
    folder: Path,
    store: SequenceStore,
    config: RunConfig,
    space: Space,
    done: Sequence[Trial],
    importance: dict[str, float],
) -> Outcome:
    """Evaluate the best trial and the start on test, once each, and write `best.toml`, the page and the plots.

    Args:
        folder: of the search.
        store: the data.
        config: the settings that the search started from.
        space: what was varied.
        done: the trials.
        importance: of each setting, from the sampler's study.

    Raises:
        EnsueError: no trial was completed.
    """
    best = best_of(done)
    if best is None:
        reasons = "; ".join(sorted({trial.reason for trial in done if trial.reason}))
        raise EnsueError(f"{folder}: no trial was completed: {reasons or 'raise --budget'}")
    start = next((trial for trial in done if trial.number == 0 and trial.state == "complete"), None)
    chosen = changed(config, best.settings)
    metric = config.train.validation_metric
    judged, means = _values(folder, store, best, metric)
    validation = test = None
    p = None
    if start is not None and start.number != best.number:
        others, _ = _values(folder, store, start, metric)
        validation, test = compare(judged[0], others[0]), compare(judged[1], others[1])
        p = min(1.0, validation.p * len(done))
    outcome = Outcome(done, best, chosen, config.validation_label, validation, p, test, means, importance)
    chosen.write_toml(folder / BEST)
    complete = [trial for trial in done if trial.value is not None]
    rows = [(trial.settings, float(trial.value or 0)) for trial in complete]
    plots = [*draw_trials(rows, outcome.metric, folder), *draw_importance(importance, folder)]
    write_json(folder / DATA, {"kind": "tune", "version": __version__, "data": store.fingerprint, **outcome.as_dict()})
    write_text(folder / PAGE, _page(outcome, space, plots))
    return outcome


def _values(folder: Path, store: SequenceStore, trial: Trial, metric: str) -> tuple[list[Any], dict[str, float]]:
    """The metric by user on validation and on test, and all metrics on test, which are added to the trial's run."""
    run = run_of(folder, trial)
    recommender = Recommender.load(run)
    _, validation = recommender.evaluate(store, "validation", recommender.config.validation)
    means, test = recommender.evaluate(store, "test", folder=run)
    return [by_user(part.metric(metric), part.users_B) for part in (validation, test)], means


def _page(outcome: Outcome, space: Space, plots: Sequence[Path]) -> str:
    """The page in Markdown, with the plots that were written."""
    names = list(space)
    lines = ["# Search for settings", "", outcome.sentence, "", "| setting | searched | start | best | importance |"]
    lines.append("|---|---|---:|---:|---:|")
    start = min(outcome.trials, key=lambda trial: trial.number)
    for name in names:
        share = f"{outcome.importance[name]:.0%}" if name in outcome.importance else ""
        ends = [_shown(trial.settings.get(name)) for trial in (start, outcome.best)]
        lines.append(f"| `{name}` | {space[name]} | {ends[0]} | {ends[1]} | {share} |")
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in outcome.test_means.items())
    lines += ["", f"The best on test: {metrics}."]
    for plot in plots:
        if plot.suffix == ".png":
            lines += ["", f"![{plot.stem}]({plot.name})"]
    lines += ["", f"| trial | {' | '.join(names)} | validation {outcome.metric} | ended | time |"]
    lines.append("|---:|" + "---:|" * len(names) + "---:|---|---:|")
    for trial in sorted(outcome.trials, key=lambda each: -(each.value or 0.0)):
        cells = " | ".join(_shown(trial.settings.get(name)) for name in names)
        value = "" if trial.value is None else f"{trial.value:.4f}"
        lines.append(f"| {trial.number} | {cells} | {value} | {trial.state} | {duration(trial.seconds)} |")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
