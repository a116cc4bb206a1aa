"""The inspection of a run: all measurements, on a sample of histories from its data.

Suffixes: `B` cases, `P` events of all rows, `L` blocks, `H` heads, `T` events of one history.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ensue.batches.batch import SequenceBatch, case_batch
from ensue.data.featured import with_inputs
from ensue.data.split import Cases, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import ExternalId
from ensue.errors import DataError
from ensue.introspect.attention import AttentionReport, attention_maps, attention_report
from ensue.introspect.gains import GainReport, gain_report
from ensue.introspect.intervals import TimeReport, time_report
from ensue.introspect.transformer import transformer_of
from ensue.nn.trunk import TrunkConfig
from ensue.rng import stream
from ensue.runs.run import Run

ROWS = 32
# Maximum length of the history whose maps are drawn; longer ones cannot be labelled legibly.
EXAMPLE_EVENTS = 24
DIGITS = 6


@dataclass(frozen=True)
class Example:
    """One history, and the attention of every block between its events.

    Attributes:
        user: external id of the user.
        items: external ids of the items of its newest events, oldest first, [T].
        titles: their titles; None where unknown.
        maps: a tensor [H, T, T] for each block; row: query, column: key.
    """

    user: ExternalId
    items: list[ExternalId]
    titles: list[str | None]
    maps: list[torch.Tensor]


@dataclass(frozen=True)
class Inspection:
    """All measurements.

    Attributes:
        model: name of the model.
        residual: name of its residual.
        histories: number of histories in the sample.
        gains: residual streams.
        attention: attention of the newest events, by age.
        time: the same by interval; None for a model that reads no intervals.
        example: attention maps of one history.
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
        values: dict[str, Any] = {
            "model": self.model,
            "residual": self.residual,
            "histories": self.histories,
            "gains": asdict(self.gains),
            "attention": asdict(self.attention),
            "time": None if self.time is None else asdict(self.time),
            "example": {"user": self.example.user, "items": self.example.items, "titles": self.example.titles},
        }
        rounded: dict[str, Any] = _rounded(values)
        return rounded


def inspect_run(run: Run, store: SequenceStore, users: int = 256, seed: int = 0) -> Inspection:
    """Measure a run on the histories that the model reads when its test part is evaluated.

    Args:
        run: a run of a transformer model.
        store: the data it was trained on.
        users: number of users to sample; all if there are fewer.
        seed: seed of the sample of users.

    Raises:
        ConfigError: the model has no transformer blocks.
        DataError: the store is not the run's, lacks the times that the model reads, or the split has no test case.
    """
    transformer_of(run.model)
    run.check_data(store)
    cases = make_split(with_inputs(store, run.features), run.config.split).test.packed
    rows_B = _sample(cases, users, seed)
    config = run.config.model
    starts = range(0, len(rows_B), ROWS)
    batches = [_histories(run, cases, rows_B[start : start + ROWS], config.maxlen) for start in starts]
    return Inspection(
        config.name,
        config.residual if isinstance(config, TrunkConfig) else "plain",
        len(rows_B),
        gain_report(run.model, *batches),
        attention_report(run.model, *batches),
        time_report(run.model, *batches),
        _example(run, cases, rows_B, min(config.maxlen, EXAMPLE_EVENTS)),
    )


def _sample(cases: Cases, users: int, seed: int) -> np.ndarray:
    """Draw users and return the newest case of each, longest history first."""
    _, reversed_first = np.unique(cases.users_B[::-1], return_index=True)
    rows = len(cases) - 1 - reversed_first
    rows = rows[cases.stop_B[rows] > cases.start_B[rows]]
    if len(rows) == 0:
        raise DataError("nothing to inspect: the split has no test case with a history")
    chosen = stream(seed, "inspect").choice(rows, min(users, len(rows)), replace=False)
    lengths = cases.stop_B[chosen] - cases.start_B[chosen]
    sampled_B: np.ndarray = chosen[np.lexsort((chosen, -lengths))]
    return sampled_B


def _histories(run: Run, cases: Cases, rows_B: np.ndarray, events: int) -> SequenceBatch:
    """The newest events of some cases' histories."""
    return case_batch(cases, rows_B, events, run.model.query_time).to(run.model.device)


def _example(run: Run, cases: Cases, rows_B: np.ndarray, events: int) -> Example:
    """The newest `events` events of the shortest history that has that many, or else of the longest history."""
    lengths = cases.stop_B[rows_B] - cases.start_B[rows_B]
    row = rows_B[np.flatnonzero(lengths >= events)[-1]] if (lengths >= events).any() else rows_B[0]
    batch = _histories(run, cases, np.array([row]), events)
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
