"""Evaluated runs side by side: their per-user tables, checked to be of the same cases, and grouped by seed.

Suffixes: `B` cases, `U` users.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import polars as pl

from ensue.data.arrays import FloatArray
from ensue.errors import ArtefactError, DataError, nearest
from ensue.evaluation.protocol import EvaluateConfig, ProtocolName
from ensue.evaluation.significance import by_user
from ensue.files import check_files, read_manifest, sha256
from ensue.runs.config import RunConfig
from ensue.runs.folder import CONFIG, FREE_TO_CHANGE, KIND, SCHEMA_VERSION
from ensue.runs.results import kept_metrics, read_metrics, table_path

CASES = ("user", "target")


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A run with one of its evaluations.

    Attributes:
        folder: the run folder.
        config: the run's settings.
        results: all its evaluations, from `read_metrics`.
        key: `<part>/<protocol>` of the chosen one.
        table: its table, a row for each case.
    """

    folder: Path
    config: RunConfig
    results: dict[str, Any]
    key: str
    table: pl.DataFrame

    @property
    def entry(self) -> dict[str, Any]:
        """The evaluation's entry in `metrics.json`."""
        entry: dict[str, Any] = self.results[self.key]
        return entry

    @property
    def metrics(self) -> list[str]:
        """The metrics that have a value for each case."""
        return [name for name in self.entry["metrics"] if name in self.table.columns]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that trainings of one group share: all but the seed."""
        return self.config.model_dump(mode="json", exclude={"evaluate": True, "train": {"seed", *FREE_TO_CHANGE}})

    def by_user(self, metric: str) -> FloatArray:
        """The metric of each user, [U]."""
        return by_user(self.table[metric].to_numpy(), self.table["user"].to_numpy())


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Runs with the same settings and different seeds; or a single run."""

    runs: tuple[Evaluated, ...]

    def __str__(self) -> str:
        name = str(self.runs[0].folder)
        return name if len(self.runs) == 1 else f"{name} ({len(self.runs)} seeds)"

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        return [run.config.train.seed for run in self.runs]

    def by_user(self, metric: str) -> list[FloatArray]:
        """For each seed the metric of every user, [U]."""
        return [run.by_user(metric) for run in self.runs]

    def is_repeat_of(self, other: SeedGroup) -> bool:
        """Whether both have the same settings and seeds, in one order."""
        return self.seeds == other.seeds and self.runs[0].settings == other.runs[0].settings


def read_evaluated(folder: Path, part: str, protocol: str) -> Evaluated:
    """Read one evaluation of a run.

    Raises:
        ArtefactError: the folder is not a run, has no such evaluation, or was altered.
    """
    check_files(folder, read_manifest(folder, KIND, SCHEMA_VERSION), [CONFIG])
    results, config = read_metrics(folder), RunConfig.read_toml(folder / CONFIG)
    key = f"{part}/{protocol}"
    if key not in results:
        _refuse_missing(folder, results, config, part, protocol)
    path = table_path(folder, results[key])
    if not path.is_file() or sha256(path) != results[key]["per_user_sha256"]:
        raise ArtefactError(f"{path}: missing, or not the table recorded in metrics.json")
    return Evaluated(folder, config, results, key, pl.read_parquet(path, glob=False))


def check_comparable(runs: Sequence[Evaluated]) -> list[str]:
    """Check that runs were evaluated on the same cases in the same way; return the metrics that all have.

    Raises:
        DataError: they differ in data, settings of the evaluation or cases, or share no metric.
    """
    first = runs[0]
    for other in runs[1:]:
        pair = f"{first.folder} and {other.folder}"
        for key in ("fingerprint", "settings"):
            one, two = (required(run.entry)[key] for run in (first, other))
            if one != two:
                raise DataError(f"{pair} were evaluated with different {key}: {one} and {two}")
        if not first.table.select(CASES).equals(other.table.select(CASES)):
            raise DataError(f"{pair} were evaluated on different cases")
    names = [name for name in first.metrics if all(name in run.metrics for run in runs)]
    if not names:
        lists = " and ".join(", ".join(run.metrics) for run in runs)
        raise DataError(f"{' and '.join(str(run.folder) for run in runs)} share no metric: {lists}")
    return names


def required(entry: dict[str, Any]) -> dict[str, Any]:
    """The properties that two evaluations must have in common to be compared."""
    settings = {name: value for name, value in entry["settings"].items() if name != "metrics"}
    return {"fingerprint": entry["fingerprint"], "settings": settings}


def group_by_seed(runs: Sequence[Evaluated]) -> list[SeedGroup]:
    """Group runs that differ in nothing but the seed.

    A run joins the first group with its settings that lacks its seed, so the same trainings named twice, as before and
    after a change of the code, are two groups. If all runs would be one group, each is compared by itself.
    """
    groups: list[list[Evaluated]] = []
    for run in runs:
        seed, settings = run.config.train.seed, run.settings
        for group in groups:
            if group[0].settings == settings and all(each.config.train.seed != seed for each in group):
                group.append(run)
                break
        else:
            groups.append([run])
    if len(groups) == 1:
        groups = [[run] for run in runs]
    return [SeedGroup(tuple(group)) for group in groups]


def _refuse_missing(folder: Path, results: dict[str, Any], config: RunConfig, part: str, protocol: str) -> None:
    kept_metrics(folder, None)  # raises if it was altered
    key, available = f"{part}/{protocol}", f"it has {', '.join(results)}" if results else "it was not evaluated"
    protocols = _protocols(config.evaluate)
    if protocol not in protocols:
        raise ArtefactError(f"{folder}: has no evaluation {key!r}: {nearest(protocol, protocols)}; {available}")
    words = ["ensue", "evaluate", str(folder), *(["--part", part] if part != "test" else []), *protocols[protocol]]
    raise ArtefactError(f"{folder}: has no evaluation {key!r}: {available}. Create it with: {shlex.join(words)}")


def _protocols(config: EvaluateConfig) -> dict[str, list[str]]:
    """The protocols available for a run with this configuration -> the flags of `ensue evaluate`."""
    flags = {config.replace(protocol=name).key: ["--protocol", name] for name in get_args(ProtocolName)}
    for flag, filter_seen in (("--filter-seen", True), ("--no-filter-seen", False)):
        full = config.replace(protocol="full", filter_seen=filter_seen)
        flags.setdefault(full.key, ["--protocol", "full", flag])
    return {**flags, config.key: []}
