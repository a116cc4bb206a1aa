"""Everything that the report of evaluated runs shows, as numbers and texts.

Suffixes: `B` cases, `N` items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensue.data.arrays import FloatArray
from ensue.data.featured import with_inputs
from ensue.data.split import make_split
from ensue.data.store import SequenceStore
from ensue.errors import DataError
from ensue.evaluation.conclusion import adjust, main_metric, sentence
from ensue.evaluation.contrast import contrast
from ensue.evaluation.protocol import EvaluateConfig
from ensue.recommender import Recommender
from ensue.report.breakdown import Breakdown, Estimate, breakdowns, estimate, periods
from ensue.report.cost import Cost, cost
from ensue.report.missed import Missed, missed
from ensue.runs.evaluated import Evaluated, check_comparable
from ensue.runs.log import Records, epochs_of


@dataclass(frozen=True, eq=False)
class Subject:
    """A run of the report: its folder, its evaluation, and the fitted model."""

    folder: Path
    evaluated: Evaluated
    recommender: Recommender


@dataclass(frozen=True)
class Row:
    """Some of the cases: their number, and the main metric of every run."""

    name: str
    cases: int
    estimates: list[Estimate]


@dataclass(frozen=True)
class Curve:
    """The learning curve of a run: a value per epoch of the loss and of the validation metric."""

    name: str
    epochs: list[int]
    loss: list[float]
    metric: str
    values: list[tuple[int, float]]


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        names: of the runs.
        models: name of each run's model.
        about: the data and the protocol in one line.
        conclusion: the comparisons in sentences.
        chief: the main metric.
        results: name of the metric -> the estimate of every run.
        parts: breakdowns, each with its rows.
        drift: the periods of the test part, oldest first: label of the axis, row.
        curves: of the runs that were trained in epochs.
        missed: the cases of the first run whose targets stood lowest.
        others: for each of these cases the rank by the other runs.
        costs: of every run.
    """

    names: list[str]
    models: list[str]
    about: str
    conclusion: list[str]
    chief: str
    results: dict[str, list[Estimate]]
    parts: list[tuple[Breakdown, list[Row]]]
    drift: list[tuple[str, Row]]
    curves: list[Curve]
    missed: list[Missed]
    others: list[list[float]]
    costs: list[Cost]


def collect(subjects: Sequence[Subject], store: SequenceStore, part: str, users: int) -> Report:
    """Collect the content of a report.

    Args:
        subjects: the runs; the first one's missed targets are explained.
        store: their data.
        part: "test" or "validation".
        users: number of users whose missed targets are shown.

    Raises:
        DataError: the runs were evaluated on different data, protocols or cases, or on other cases than the split has.
    """
    first = subjects[0]
    names = check_comparable([subject.evaluated for subject in subjects])
    chief, config = main_metric(names), EvaluateConfig.parse(first.evaluated.entry["settings"])
    run = first.recommender.run
    assert run is not None
    run.check_data(store)
    read = (first.recommender.reranking or run).features
    split = make_split(with_inputs(store, read), run.config.split)
    cases = (split.test if part == "test" else split.validation).packed
    table = first.evaluated.table
    if store.users.decode(cases.users_B + 1) != table["user"].to_list():
        raise DataError(f"{first.folder}: was evaluated on other cases than its split has: evaluate it again")
    users_B = cases.users_B
    values = [subject.evaluated.table[chief].to_numpy() for subject in subjects]

    def row(name: str, rows_B: np.ndarray) -> Row:
        return Row(name, len(rows_B), [estimate(values_B, users_B, rows_B) for values_B in values])

    trained_N = run.items["events"].to_numpy()
    parts = breakdowns(cases, split.train, trained_N)
    worst = missed(first.recommender, cases, split.train, config, table["rank"].to_numpy(), users)
    every_B = np.arange(len(cases))
    return Report(
        [str(subject.folder) for subject in subjects],
        [_model(subject) for subject in subjects],
        f"{len(cases):,} cases of {len(np.unique(users_B)):,} users, {store.num_items:,} items, {part} part, split "
        f"{run.config.split.split}, protocol {config.key}",
        _sentences(subjects, names, users_B),
        chief,
        {name: [estimate(_values(subject, name), users_B, every_B) for subject in subjects] for name in names},
        [(each, [row(one.name, one.rows_B) for one in each.slices]) for each in parts],
        [(label, row(one.name, one.rows_B)) for label, one in periods(cases)],
        [curve for subject in subjects if (curve := _curve(str(subject.folder), subject.recommender.log)) is not None],
        worst,
        [[float(subject.evaluated.table["rank"][each.case]) for subject in subjects[1:]] for each in worst],
        [_cost(subject, store, part) for subject in subjects],
    )


def _model(subject: Subject) -> str:
    name, reranking = subject.recommender.config.model.name, subject.recommender.reranking
    return name if reranking is None else f"{name}, re-ranked by {reranking.second.config.model.name}"


def _values(subject: Subject, name: str) -> FloatArray:
    return subject.evaluated.table[name].to_numpy()


def _sentences(subjects: Sequence[Subject], names: list[str], users_B: np.ndarray) -> list[str]:
    """The first run against each of the others; nothing if there is one run, or a single user."""
    first, *others = (subject.evaluated for subject in subjects)
    if len(np.unique(users_B)) < 2:
        return []
    contrasts = {
        (str(first.folder), str(other.folder)): {
            name: contrast([first.by_user(name)], [other.by_user(name)]) for name in names
        }
        for other in others
    }
    adjusted = adjust(contrasts, "t")
    return [sentence(*pair, metrics, adjusted[pair], "t") for pair, metrics in contrasts.items()]


def _curve(name: str, log: Records) -> Curve | None:
    epochs = epochs_of(log)
    if not epochs:
        return None
    keys = [key for record in epochs for key in record if key.startswith("validation ") and key != "validation seconds"]
    metric = keys[0] if keys else ""
    values = [(record["epoch"], float(record[metric])) for record in epochs if metric in record]
    return Curve(name, [each["epoch"] for each in epochs], [float(each["loss"]) for each in epochs], metric, values)


def _cost(subject: Subject, store: SequenceStore, part: str) -> Cost:
    run = subject.recommender.run
    assert run is not None
    read = (subject.recommender.reranking or run).features
    split = make_split(with_inputs(store, read), run.config.split)
    cases = (split.test if part == "test" else split.validation).packed
    config = EvaluateConfig.parse(subject.evaluated.entry["settings"])
    return cost(subject.recommender, cases, config, subject.folder)
