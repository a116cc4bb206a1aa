"""Session-parallel batches: histories follow one another in lanes, and each step reads the next events of every lane.

Suffixes: `W` windows, `B` rows of a batch, `P` events of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ensue.batches.batch import Lanes, SequenceBatch
from ensue.batches.tasks import Windows, batch_of_events
from ensue.rng import stream


@dataclass(frozen=True, slots=True)
class LaneLoader:
    """Session-parallel mini-batches (Hidasi et al., ICLR 2016, section 3.1.1), with every pair once in an epoch.

    In each epoch the windows, in an order keyed by (seed, epoch), form one stream of pairs of input and target, which
    is cut into lanes of equal length. A step reads the next `lane_steps` pairs of every lane. A row of its batch is the
    part of one window; its model continues from the state of the lane if the window began in an earlier step.

    The authors give the next session to the first free lane and drop what is left at the end of an epoch. Equal lanes
    drop nothing and give every epoch the same number of steps; at most one window per lane is cut where the lane
    begins, and starts there without a state.
    """

    windows: Windows
    lane_steps: int
    lanes: int
    seed: int

    @property
    def steps(self) -> int:
        """Number of batches in an epoch; the last may be smaller."""
        return -(-self._pairs_per_lane // self.lane_steps)

    @property
    def _pairs_per_lane(self) -> int:
        pairs = int((self.windows.stop_W - self.windows.start_W - 1).sum())
        return -(-pairs // self.lanes)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[int, np.ndarray, SequenceBatch]]:
        """Yield (step, training row of each batch row, batch) from `first_step` on."""
        windows, per_lane = self.windows, self._pairs_per_lane
        order_W = stream(self.seed, "order", epoch).permutation(len(windows))
        stop_W = np.cumsum((windows.stop_W - windows.start_W - 1)[order_W])
        first_W = np.append(0, stop_W[:-1])
        for step in range(first_step, self.steps):
            begin, end = step * self.lane_steps, min((step + 1) * self.lane_steps, per_lane)
            # Places in the stream, lane by lane.
            place_P = (np.arange(self.lanes)[:, None] * per_lane + np.arange(begin, end)).ravel()
            place_P = place_P[place_P < stop_W[-1]]
            lane_P, window_P = place_P // per_lane, np.searchsorted(stop_W, place_P, side="right")
            is_first_P = (np.diff(lane_P, prepend=-1) != 0) | (np.diff(window_P, prepend=-1) != 0)
            first_B = np.flatnonzero(is_first_P)
            lengths_B = np.diff(first_B, append=len(place_P))
            chosen_B = order_W[window_P[first_B]]
            events_P = windows.start_W[order_W[window_P]] + place_P - first_W[window_P]
            batch = batch_of_events(windows, chosen_B, events_P, lengths_B, np.arange(len(events_P)))
            is_new_B = (place_P[first_B] == first_W[window_P[first_B]]) | (place_P[first_B] % per_lane == 0)
            lanes = Lanes(self.lanes, torch.from_numpy(lane_P[first_B]), torch.from_numpy(is_new_B))
            yield step, windows.row_W[chosen_B], replace(batch, lanes=lanes)
