"""Recent popularity: the events of a window that moves with time, with larger weights for newer events.

Suffixes: `E` training events in order of time, `P` events of all rows, `Q` asked events, `N` items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.data.split import Sequences
from ensue.errors import ArtefactError, DataError
from ensue.models.base import MODELS, ModelConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.nn.model import CountedModel

SECONDS_PER_DAY = 86_400


class RecentPopularityConfig(ModelConfig):
    """The window, and how events lose weight with age."""

    name: Literal["recent-popularity"] = "recent-popularity"
    span: float = Field(10_000, gt=0, description="length of the window, in events of all users or in days")
    span_unit: Literal["events", "days"] = Field("events", description="unit of span and half_life")
    half_life: float = Field(0, ge=0, description="age at which an event weighs half as much as a new one; 0: never")
    moment: Literal["training", "history", "request"] = Field(
        "training",
        description="where the window ends: at the newest training event, the newest of the history, or the request",
    )

    @property
    def reads_query_time(self) -> bool:
        """With `moment = "request"`."""
        return self.moment == "request"

    @property
    def reads_times(self) -> bool:
        """Where the window moves."""
        return self.moment != "training"


class RecentPopularity(CountedModel):
    """score(i) = sum of 2^(-age / half_life) over the training events of item i in the window.

    Ages and the window are in days before the moment, or in numbers of newer training events.
    """

    counts_events = True

    def __init__(self, config: RecentPopularityConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.reads_query_time)
        self.config = config
        self.items_E = np.zeros(0, dtype=np.int32)
        self.times_E = np.zeros(0, dtype=np.int64)

    def fit(self, train: Sequences) -> None:
        """Keep the training events in the order of their times; without times, that of the rows.

        Raises:
            DataError: the window needs times, and the data has none.
        """
        store, events_E = train.store, train.events_P
        if store.times is None:
            if self.config.span_unit == "days" or self.config.moment != "training":
                raise DataError(
                    "recent-popularity: the data has no times, so use span_unit = 'events' and moment = 'training'"
                )
            times_E = np.zeros(len(events_E), dtype=np.int64)
        else:
            times_E = store.times[events_E]
        order = np.argsort(times_E, kind="stable")
        self.items_E, self.times_E = store.items[events_E][order], times_E[order]
        if self.config.moment == "training":
            first = self._window(self.times_E[-1:])[0][0]
            self.items_E, self.times_E = self.items_E[first:], self.times_E[first:]

    def logits_of_all(self, batch: SequenceBatch) -> Tensor:
        """The weights of the events in the window of each asked event: [Q, N].

        Raises:
            DataError: the window moves, and the times that it moves with are not known.
        """
        if self.config.moment == "training":
            return self._at(self.times_E[-1:]).repeat(len(batch.asked_Q), 1)
        times_P = batch.times_P if self.config.moment == "history" else batch.query_times_P
        if times_P is None:
            flag = "times=, --times" if self.config.moment == "history" else "at=, --at"
            raise DataError(f"recent-popularity with moment = {self.config.moment!r} needs times: give them ({flag})")
        moments, row_Q = np.unique(times_P[batch.asked_Q].cpu().numpy(), return_inverse=True)
        return self._at(moments)[torch.from_numpy(row_Q)]

    def for_newcomers(self) -> Tensor:
        """The weights at the newest training event: [N]."""
        return self._at(self.times_E[-1:])[0]

    def _window(self, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first event of the window that ends at each moment, and the first event after it."""
        stop = np.searchsorted(self.times_E, moments, side="right")
        if self.config.span_unit == "days":
            return np.searchsorted(self.times_E, moments - self.config.span * SECONDS_PER_DAY, side="left"), stop
        return np.maximum(0, stop - int(np.ceil(self.config.span))), stop

    def _at(self, moments: np.ndarray) -> Tensor:
        """Scores at some moments, [moments, N]: events after a moment do not count."""
        config = self.config
        scores = torch.zeros(len(moments), self.num_items)
        for row, (first, last, moment) in enumerate(zip(*self._window(moments), moments, strict=True)):
            age_E = np.arange(last - first)[::-1]
            if config.span_unit == "days":
                age_E = (moment - self.times_E[first:last]) / SECONDS_PER_DAY
            weight_E = 0.5 ** (age_E / config.half_life) if config.half_life else np.ones(last - first)
            counts = np.bincount(self.items_E[first:last], weight_E, self.num_items + 1)
            scores[row] = torch.from_numpy(counts[1:]).float()
        return scores

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The training events that a window may reach."""
        return {"items": torch.from_numpy(self.items_E.copy()), "times": torch.from_numpy(self.times_E.copy())}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take the events that `state_dict` gave.

        Raises:
            ArtefactError: they are not events of this catalogue in the order of their times.
        """
        if state_dict.keys() != {"items", "times"}:
            raise ArtefactError(f"recent-popularity has the tensors items and times, not {sorted(state_dict)}")
        items_E, times_E = state_dict["items"].numpy(), state_dict["times"].numpy()
        if items_E.shape != times_E.shape or items_E.ndim != 1 or (np.diff(times_E) < 0).any():
            raise ArtefactError("recent-popularity: items and times must be as many, and times must not fall")
        if len(items_E) and not 1 <= items_E.min() <= items_E.max() <= self.num_items:
            raise ArtefactError(f"recent-popularity: an item is outside 1..{self.num_items}")
        self.items_E, self.times_E = items_E.astype(np.int32), times_E.astype(np.int64)


MODELS.register("recent-popularity")(ModelEntry(RecentPopularityConfig, RecentPopularity))
