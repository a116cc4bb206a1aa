"""The states of recent histories, so that a repeated history costs nothing and a longer one a single step.

Suffixes: `B` histories, `T` events of one history, `D` width, `L` layers, `P` events of all
histories.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch, query_times
from ensue.nn.model import Encoder
from ensue.retrieval.scores import checked


@dataclass(frozen=True, slots=True)
class History:
    """The events that a model reads.

    Attributes:
        items_T: item numbers, int64, at least one and at most the model's `maxlen`.
        times_T: seconds since the epoch, int64; None for a model that does not read them.
        at: the time of the request in seconds; None for a model that does not read it.
    """

    items_T: np.ndarray
    times_T: np.ndarray | None = None
    at: int | None = None

    @property
    def key(self) -> bytes:
        """The same for equal histories."""
        times = b"" if self.times_T is None else self.times_T.tobytes()
        return b"%d,%d;" % (len(self.items_T), self.at or 0) + self.items_T.tobytes() + times


def batch_of(histories: Sequence[History]) -> SequenceBatch:
    """The histories as one batch; the newest event of each is asked."""
    lengths_B = np.array([len(history.items_T) for history in histories])
    items_P = np.concatenate([history.items_T for history in histories])
    times = [history.times_T for history in histories if history.times_T is not None]
    times_P = np.concatenate(times) if times else None
    at = [history.at for history in histories if history.at is not None]
    query_P = None if times_P is None or not at else query_times(times_P, lengths_B, np.array(at))
    return SequenceBatch.from_numpy(items_P, lengths_B, times_P, query_P)


@runtime_checkable
class Advances(Protocol):
    """An encoder whose state after one more event follows from the state before and the event's item alone.

    A model that reads times is never advanced, whatever its methods: its `advance` needs the time of the event.
    """

    def states(self, batch: SequenceBatch) -> Tensor:
        """The states after the newest event of each row, [L, B, D]."""
        ...

    def advance(self, states_LBD: Tensor, items_B: Tensor) -> tuple[Tensor, Tensor]:
        """The states after one more event, and what `encode` returns for the longer histories, [B, D]."""
        ...


class States:
    """What `encode` returns for each history; the results of the last `size` different histories are kept.

    Args:
        model: the model, in evaluation mode.
        size: number of histories.
        reads_times: whether the model reads the times of events.

    Attributes:
        reused: number of histories whose state was known.
        advanced: number of histories whose state followed from that of the history without its newest event.
        computed: number of histories that were computed from their beginning.
    """

    def __init__(self, model: Encoder, size: int, reads_times: bool) -> None:
        self.model = model
        self.size = size
        self._advancing = model if isinstance(model, Advances) and not reads_times else None
        self.reused = self.advanced = self.computed = 0
        self._kept: OrderedDict[bytes, tuple[Tensor, Tensor | None]] = OrderedDict()

    def __call__(self, histories: Sequence[History]) -> Tensor:
        """The states, [B, D]."""
        keys = [history.key for history in histories]
        missing = {key: history for key, history in zip(keys, histories, strict=True) if key not in self._kept}
        self.reused += len(keys) - len(missing)
        new = self._advance(missing)
        new.update(self._compute({key: history for key, history in missing.items() if key not in new}))
        states_BD = torch.stack([new[key][0] if key in new else self._kept[key][0] for key in keys])
        self._keep(keys, new)
        return states_BD

    def _advance(self, missing: dict[bytes, History]) -> dict[bytes, tuple[Tensor, Tensor | None]]:
        """The histories that are a known one and one more event, within what the model reads."""
        model = self._advancing
        if model is None:
            return {}
        before = {}
        for key, history in missing.items():
            _, state_LD = self._kept.get(History(history.items_T[:-1]).key, (None, None))
            if state_LD is not None:
                before[key] = state_LD
        if not before:
            return {}
        items_B = torch.tensor([int(missing[key].items_T[-1]) for key in before], device=self.model.device)
        after_LBD, h_BD = model.advance(torch.stack(list(before.values()), 1), items_B)
        self.advanced += len(before)
        return {key: (h_BD[row], after_LBD[:, row]) for row, key in enumerate(before)}

    def _compute(self, missing: dict[bytes, History]) -> dict[bytes, tuple[Tensor, Tensor | None]]:
        if not missing:
            return {}
        model = self.model
        batch = batch_of(list(missing.values())).to(model.device)
        self.computed += len(missing)
        h_BD = checked(model.encode(batch))
        if self._advancing is None:
            return {key: (h_BD[row], None) for row, key in enumerate(missing)}
        states_LBD = self._advancing.states(batch)
        return {
            # The state of a history that fills the window does not lead to the next one, whose window starts later.
            key: (h_BD[row], states_LBD[:, row] if len(history.items_T) < model.maxlen else None)
            for row, (key, history) in enumerate(missing.items())
        }

    def _keep(self, keys: Sequence[bytes], new: dict[bytes, tuple[Tensor, Tensor | None]]) -> None:
        for key in keys:
            if key in new:
                self._kept[key] = new[key]
            self._kept.move_to_end(key)
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)
