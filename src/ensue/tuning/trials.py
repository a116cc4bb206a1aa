"""The trials of a search, and its state: which settings were tried, and what they reached on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ensue.data.store import SequenceStore
from ensue.errors import OtherRunError
from ensue.runs.config import RunConfig, differences
from ensue.runs.log import Watcher
from ensue.train.fit import Fitted
from ensue.tuning.space import Space

# Files and folders of a search.
JOURNAL, TRIALS, PAGE, DATA, BEST = "study.journal", "trials", "tune.md", "tune.json", "best.toml"
Ended = Literal["complete", "pruned", "failed", "running"]


Tell = Callable[[str], None]
Fit = Callable[[RunConfig, SequenceStore, Path, Iterable[Watcher]], Fitted]


@dataclass
class Search:
    """A search on one data set.

    Attributes:
        store: the data.
        config: the settings that the search starts from, its trial 0.
        space: what is varied.
        folder: of the search.
        fit: trains into a folder with watchers, or resumes there.
        tell: prints a line.
    """

    store: SequenceStore
    config: RunConfig
    space: Space
    folder: Path
    fit: Fit
    tell: Tell

    def about(self) -> dict[str, Any]:
        """What must not change when the search goes on."""
        start = self.config.model_dump(mode="json")
        space = {name: str(axis) for name, axis in self.space.items()}
        return {"data": self.store.fingerprint, "start": start, "space": space}


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Attributes:
        number: 0 is the start of the search: the settings that were given or are usual.
        settings: the varied settings, by flat names.
        value: best value on validation; None if there is none.
        state: `pruned` is stopped early because its curve was below the others'; `failed` has a `reason`.
        seconds: of its training.
        run: its run folder, relative to the search's.
        reason: why it failed.
    """

    number: int
    settings: dict[str, Any]
    value: float | None
    state: Ended
    seconds: float
    run: str
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The trial as JSON values."""
        return asdict(self)


def check_about(folder: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that a folder's search is that of now.

    Raises:
        OtherRunError: it is another; the message names the difference.
    """
    for name, value in now.items():
        if then.get(name) != value:
            changed = (
                differences(value, then[name]) if isinstance(value, dict) else [f"{value} now, {then.get(name)} then"]
            )
            raise OtherRunError(
                f"{folder} contains a search with another {name}: {'; '.join(changed)}. "
                "Use the same, or choose another folder"
            )


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the best value, the earliest among equals; None without one."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def run_of(folder: Path, trial: Trial) -> Path:
    """The run folder of a trial."""
    return folder / trial.run
