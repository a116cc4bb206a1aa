"""A run looked into: a sample of its own histories, and all that can be measured on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ensue.batches.batch import SequenceBatch, case_batch
from ensue.data.split import Cases, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import ExternalId
from ensue.errors import DataError
from ensue.introspect.attention import AttentionReport, attention_maps, attention_report
from ensue.introspect.gains import GainReport, gain_report
from ensue.introspect.intervals import TimeReport, time_report
from ensue.introspect.tally import trunk_of
from ensue.rng import stream
from ensue.runs.artefact import Run

ROWS = 32
# Events of the history whose maps are drawn: as many as can be labelled.
EXAMPLE_EVENTS = 24
DIGITS = 6


@dataclass(frozen=True)
class Example:
    """One history, and every block's attention over it.

    Attributes:
        user: whose it is.
        items: external ids of its newest events, oldest first, [T].
        titles: their titles, None where unknown.
        maps: [L] tensors [H, T, T]; row: query, column: key.
    """

    user: ExternalId
    items: list[ExternalId]
    titles: list[str | None]
    maps: list[torch.Tensor]


@dataclass(frozen=True)
class Inspection:
    """All that was measured.

    Attributes:
        model: the model's name.
        residual: its residual's name.
        histories: histories of the sample.
        gains: its residual streams.
        attention: where the newest events' attention lies, by age.
        time: by interval; None for a model that reads no times.
        example: one history's attention maps.
    """

    model: str
    residual: str
    histories: int
    gains: GainReport
    attention: AttentionReport
    time: TimeReport | None
    example: Example

    def payload(self) -> dict[str, Any]:
        """Everything but the maps, for JSON; numbers to six digits."""
        found: dict[str, Any] = {
            "model": self.model,
            "residual": self.residual,
            "histories": self.histories,
            "gains": asdict(self.gains),
            "attention": asdict(self.attention),
            "time": None if self.time is None else asdict(self.time),
            "example": {"user": self.example.user, "items": self.example.items, "titles": self.example.titles},
        }
        rounded: dict[str, Any] = _rounded(found)
        return rounded


def inspect_run(run: Run, store: SequenceStore, users: int = 256, seed: int = 0) -> Inspection:
    """Look into a run, on histories as the evaluation of its test part gives them to the model.

    Args:
        run: a run of a transformer model.
        store: the data it was trained on.
        users: how many people's histories; all if there are fewer.
        seed: the draw of people.

    Raises:
        ConfigError: the model has no blocks to look into.
        DataError: the store is not the run's, lacks the times that the model reads, or the split holds no case out.
    """
    trunk_of(run.model)
    run.check_data(store)
    cases = make_split(store, run.config.split).test
    rows_B = _sample(cases, users, seed)
    maxlen = run.config.model.maxlen
    query_time = run.config.evaluate.query_time
    starts = range(0, len(rows_B), ROWS)
    batches = [_histories(run, cases, rows_B[start : start + ROWS], maxlen, query_time) for start in starts]
    return Inspection(
        run.config.model.name,
        getattr(run.config.model, "residual", "plain"),
        len(rows_B),
        gain_report(run.model, *batches),
        attention_report(run.model, *batches),
        time_report(run.model, *batches),
        _example(run, cases, rows_B, min(maxlen, EXAMPLE_EVENTS), query_time),
    )


def _sample(cases: Cases, users: int, seed: int) -> np.ndarray:
    """The newest case of each of some users, longest history first."""
    _, reversed_first = np.unique(cases.users_B[::-1], return_index=True)
    rows = len(cases) - 1 - reversed_first
    rows = rows[cases.stop_B[rows] > cases.start_B[rows]]
    if len(rows) == 0:
        raise DataError("nothing to look at: the split holds no case with a history out")
    chosen = stream(seed, "inspect").choice(rows, min(users, len(rows)), replace=False)
    lengths = cases.stop_B[chosen] - cases.start_B[chosen]
    sampled_B: np.ndarray = chosen[np.lexsort((chosen, -lengths))]
    return sampled_B


def _histories(run: Run, cases: Cases, rows_B: np.ndarray, maxlen: int, query_time: bool) -> SequenceBatch:
    return case_batch(cases, rows_B, maxlen, query_time).asking_all().to(run.model.device)


def _example(run: Run, cases: Cases, rows_B: np.ndarray, events: int, query_time: bool) -> Example:
    """The shortest history that fills the picture, or the longest if none does; its newest events as a history."""
    lengths = cases.stop_B[rows_B] - cases.start_B[rows_B]
    row = rows_B[np.flatnonzero(lengths >= events)[-1]] if (lengths >= events).any() else rows_B[0]
    batch = _histories(run, cases, np.array([row]), events, query_time)
    numbers = batch.items_P.cpu().numpy()
    titles: list[str | None] = [None if run.titles is None else run.titles[number] for number in numbers]
    (user,) = cases.store.users.decode([int(cases.users_B[row]) + 1])
    return Example(user, run.item_ids.decode(numbers), titles, attention_maps(run.model, batch))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
