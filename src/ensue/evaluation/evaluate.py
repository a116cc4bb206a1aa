"""Evaluation: where the target stands among the candidates, for every user, and the means of that.

A standing is a pair of counts, items scored strictly higher and other items scored the same; metrics are expectations
over the places that ties leave open (see `ensue.evaluation.metrics`). Scores are computed for a few rows at a time, so
memory does not grow with the number of users, and stays bounded for a million items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch, history_batch
from ensue.config import Config
from ensue.data.arrays import gather_events
from ensue.data.split import Cases, Sequences
from ensue.data.transitions import fit_popularity
from ensue.errors import DataError, EnsueError
from ensue.evaluation.metrics import parse_metric
from ensue.models.base import Scorer
from ensue.objectives.negatives import SeenItems, distinct
from ensue.rng import hashed_uniform
from ensue.runtime.memory import keep_freed_memory

ProtocolName = Literal["full", "uniform-100", "popularity-100"]
SAMPLED = 100
# Draws in which a row must find its sampled items, or else in the next number of them.
DRAWS = (2 * SAMPLED, 10 * SAMPLED, 50 * SAMPLED, 250 * SAMPLED)
# Scores held at once, and rows: larger batches leave the cache (measured: 0.8 of the time of 512 rows).
CELLS = 4_000_000
ROWS = 128

CountProgress = Callable[[int, int], None]


class EvaluateConfig(Config):
    """The protocol and the metrics."""

    protocol: ProtocolName = Field("full", description="candidates: all items, or the target and 100 sampled ones")
    filter_seen: bool = Field(True, description="full: leave out the items of the history (never the target)")
    metrics: tuple[str, ...] = Field(
        ("hr@1", "hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr@10"), description="metrics to report"
    )
    evaluation_seed: int = Field(0, ge=0, description="seed of the sampled candidates")
    query_time: bool = Field(False, description="tell the model the request's time, the target's own; as the model's")

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Each metric once, under its name in lower case, so that two runs' figures have the same names."""
        if not names:
            raise ValueError("at least one metric is due, such as ndcg@10")
        return tuple(dict.fromkeys(str(parse_metric(name)).lower() for name in names))

    @property
    def key(self) -> str:
        """The protocol as results are filed under it: `full`, `full-with-seen`, `uniform-100+query-time`, ..."""
        return self._candidates + ("+query-time" if self.query_time else "")

    @property
    def _candidates(self) -> str:
        return "full-with-seen" if self.protocol == "full" and not self.filter_seen else self.protocol

    def label(self, metric: str) -> str:
        """The metric's name with its protocol: sampled figures never go under a full one's name."""
        marks = {"full": "", "full-with-seen": "|seen", "uniform-100": "|uni100", "popularity-100": "|pop100"}
        return metric + marks[self._candidates] + ("|qtime" if self.query_time else "")


@dataclass(frozen=True)
class Standings:
    """Where each case's target stands.

    Attributes:
        users_B: user numbers (0-based).
        targets_B: item numbers of the targets.
        better_B: candidates scored strictly higher.
        equal_B: other candidates scored the same.
        candidates_B: candidates, the target among them.
        repeated_B: whether the target was in the history too (a filter of seen items must spare it).
    """

    users_B: np.ndarray
    targets_B: np.ndarray
    better_B: np.ndarray
    equal_B: np.ndarray
    candidates_B: np.ndarray
    repeated_B: np.ndarray

    @property
    def rank_B(self) -> np.ndarray:
        """The expected rank, 1 + better + equal / 2."""
        rank: np.ndarray = 1.0 + self.better_B + self.equal_B / 2.0
        return rank

    def metric(self, name: str) -> np.ndarray:
        """The metric of each case, float64 [B]."""
        return parse_metric(name)(self.better_B, self.equal_B, self.candidates_B)

    def means(self, config: EvaluateConfig) -> dict[str, float]:
        """The mean over cases of every metric of the configuration, under its protocol's name."""
        return {config.label(name): float(self.metric(name).mean()) for name in config.metrics}


@torch.inference_mode()
def evaluate(
    model: Scorer, cases: Cases, config: EvaluateConfig, train: Sequences, progress: CountProgress | None = None
) -> Standings:
    """Rank every case's target.

    Args:
        model: any scorer; put into evaluation mode for the time being.
        cases: histories and targets.
        config: protocol and metrics.
        train: the training view, whose popularity `popularity-100` draws by.
        progress: called with (cases done, cases in all).

    Raises:
        EnsueError: there are no cases, or the model gives a score that is NaN or infinite.
        DataError: the times of the requests are asked for, and the data has no times.
    """
    if len(cases) == 0:
        raise EnsueError(
            "nothing to evaluate: the split holds no cases out (leave-one-out holds out the last of three events or "
            "more, user-holdout of two)"
        )
    if config.query_time and cases.store.times is None:
        raise DataError("query_time: the data has no times, so the time of a request is not known")
    keep_freed_memory()
    was_training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    is_full = config.protocol == "full"
    counts_N = np.zeros(0) if is_full else fit_popularity(train)
    width = cases.store.num_items if is_full else SAMPLED + 1
    better_B, equal_B = np.zeros(len(cases), dtype=np.int64), np.zeros(len(cases), dtype=np.int64)
    candidates_B, repeated_B = np.full(len(cases), width), np.zeros(len(cases), dtype=bool)
    done = 0
    try:
        for rows, batch in _batches(model, cases, width, config.query_time):
            asked = cases.take(rows)
            if is_full:
                better, equal, hidden = _rank_full(model, batch, asked, config.filter_seen)
                candidates_B[rows] -= hidden
            else:
                items_BC = torch.from_numpy(sample_candidates(asked, config, counts_N)).to(batch.items_P.device)
                scores = checked(model.score(batch, items_BC))
                better, equal = _count(scores, scores[:, :1])
            better_B[rows], equal_B[rows], repeated_B[rows] = better, equal, _repeated(asked)
            done += len(rows)
            if progress is not None:
                progress(done, len(cases))
    finally:
        if was_training and isinstance(model, nn.Module):
            model.train()
    return Standings(cases.users_B, cases.target_items_B, better_B, equal_B, candidates_B, repeated_B)


def model_device(model: object) -> torch.device:
    """Where a model's tensors are; the CPU for a model without tensors."""
    if isinstance(model, nn.Module):
        for tensor in chain(model.parameters(), model.buffers()):
            return tensor.device
    return torch.device("cpu")


def _batches(model: Scorer, cases: Cases, width: int, query_time: bool) -> Iterator[tuple[np.ndarray, SequenceBatch]]:
    """Cases in batches of similar length, few enough that [B, width] scores stay small."""
    device = model_device(model)
    for rows in by_length(cases.stop_B - cases.start_B, model.maxlen, width):
        yield rows, case_batch(cases, rows, model.maxlen, query_time).to(device)


def by_length(length_R: np.ndarray, maxlen: int, width: int) -> Iterator[np.ndarray]:
    """Row numbers in runs of similar length, longest first, few enough that [rows, width] scores stay small."""
    order = np.argsort(-np.minimum(length_R, maxlen), kind="stable")
    size = max(1, min(ROWS, CELLS // width))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def case_batch(cases: Cases, rows_B: np.ndarray, maxlen: int, query_time: bool) -> SequenceBatch:
    """The histories of the given cases, newest `maxlen` events, with the targets' times if the model may know them."""
    histories = Sequences(cases.store, cases.users_B, cases.start_B, cases.stop_B)
    times = cases.store.times
    asked_B = times[cases.target_B[rows_B]] if query_time and times is not None else None
    return history_batch(histories, rows_B, maxlen, asked_B)


def _repeated(cases: Cases) -> np.ndarray:
    """Whether each case's target is in its history too: bool [B]."""
    lengths_B = cases.stop_B - cases.start_B
    items_P = cases.store.items[gather_events(cases.start_B, cases.stop_B)]
    same_P = items_P == np.repeat(cases.target_items_B, lengths_B)
    row_P = np.repeat(np.arange(len(cases)), lengths_B)
    repeated_B: np.ndarray = np.bincount(row_P[same_P], minlength=len(cases)) > 0
    return repeated_B


def _rank_full(
    model: Scorer, batch: SequenceBatch, cases: Cases, filter_seen: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Better, equal and hidden items of the batch's cases."""
    scores = checked(model.score(batch))
    target_B = cases.target_items_B.astype(np.int64) - 1
    target_score = scores.gather(1, torch.from_numpy(target_B)[:, None].to(scores.device))
    better, equal = _count(scores, target_score)
    if not filter_seen:
        return better, equal, np.zeros(len(cases), dtype=np.int64)
    # Seen items are counted out: there are few of them, and one look at each is cheaper than a mask.
    seen_P = cases.store.items[gather_events(cases.start_B, cases.stop_B)].astype(np.int64) - 1
    row_P = np.repeat(np.arange(len(cases)), cases.stop_B - cases.start_B)
    seen_P, row_P = seen_P[seen_P != target_B[row_P]], row_P[seen_P != target_B[row_P]]
    place_K = distinct(row_P * scores.shape[1] + seen_P)
    row_K = place_K // scores.shape[1]
    score_K = scores.view(-1)[torch.from_numpy(place_K).to(scores.device)].cpu().numpy()
    target_K = target_score.view(-1).cpu().numpy()[row_K]
    better = better - np.bincount(row_K[score_K > target_K], minlength=len(cases))
    equal = equal - np.bincount(row_K[score_K == target_K], minlength=len(cases))
    return better, equal, np.bincount(row_K, minlength=len(cases))


def checked(scores: Tensor) -> Tensor:
    """Scores in float32, contiguous.

    Raises:
        EnsueError: a score is NaN or infinite; it would count as a hit or a miss without being either.
    """
    scores = scores.float().contiguous()
    if not bool(torch.isfinite(scores.sum())) and not bool(torch.isfinite(scores).all()):
        raise EnsueError("the model gave a score that is NaN or infinite; no rank can be told from it")
    return scores


def _count(scores: Tensor, target_score: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Candidates strictly above and others equal to the target, [B] each."""
    # As float32 the comparisons and sums are vectorised (for 128 x 23,715 1.5 ms, not 7.6) and exact to 2^24.
    above = torch.gt(scores, target_score, out=torch.empty_like(scores))
    better = above.sum(1).long()
    equal = torch.eq(scores, target_score, out=above).sum(1).long() - 1
    return better.cpu().numpy(), equal.cpu().numpy()


def sample_candidates(cases: Cases, config: EvaluateConfig, counts_N: np.ndarray) -> np.ndarray:
    """The target and 100 sampled items that the user has not interacted with: int64 [B, 101], target first.

    `uniform-100` draws uniformly with replacement, as SASRec; `popularity-100` by training count without repeats, as
    BERT4Rec. A case's draws depend on the seed and the number of its target event alone.

    Args:
        cases: the cases.
        config: the protocol and the seed.
        counts_N: training events of each item, which `popularity-100` draws by.

    Raises:
        EnsueError: for `popularity-100`, a user has fewer than 100 unseen items with a training event.
    """
    seen = SeenItems(Sequences(cases.store, cases.users_B, cases.start_B, cases.target_B + 1))
    target_B = cases.target_items_B.astype(np.int64)
    if config.protocol == "uniform-100":
        uniform = hashed_uniform(config.evaluation_seed, "uniform-100", cases.target_B, 0, SAMPLED)
        drawn = seen.draw_unseen(np.arange(len(cases)), target_B, uniform)
    else:
        drawn, open_rows = _popular_unseen(seen, counts_N, cases.target_B, config.evaluation_seed)
        if len(open_rows):
            user = cases.store.users.decode(cases.users_B[open_rows[:1]] + 1)[0]
            raise EnsueError(
                f"protocol popularity-100 needs {SAMPLED} unseen items with training events for every user, and user "
                f"{user!r} has fewer: use full"
            )
    return np.concatenate((target_B[:, None], drawn), axis=1)


def _popular_unseen(
    seen: SeenItems, counts_N: np.ndarray, keys_B: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """100 distinct unseen items per row, the first of draws by count, [B, 100]; and the rows that have fewer."""
    cumulative = np.cumsum(counts_N, dtype=np.float64)
    chosen = np.zeros((len(keys_B), SAMPLED), dtype=np.int64)
    open_rows = np.arange(len(keys_B))
    # Rows whose draws repeat too much are drawn anew, the same draws and more.
    for count in DRAWS:
        uniform = hashed_uniform(seed, "popularity-100", keys_B[open_rows], 0, count)
        drawn = np.searchsorted(cumulative, uniform * cumulative[-1], side="right") + 1
        fresh = _first_in_row(drawn) & ~seen.contains(open_rows, drawn)
        place = fresh.cumsum(1)
        enough = place[:, -1] >= SAMPLED
        chosen[open_rows[enough]] = drawn[enough][(fresh & (place <= SAMPLED))[enough]].reshape(-1, SAMPLED)
        open_rows = open_rows[~enough]
        if len(open_rows) == 0:
            break
    return chosen, open_rows


def _first_in_row(items_BK: np.ndarray) -> np.ndarray:
    """Whether each cell is the first of its row with its item: bool [B, K]."""
    order = np.argsort(items_BK, axis=1, kind="stable")
    ordered = np.take_along_axis(items_BK, order, axis=1)
    first = np.zeros(items_BK.shape, dtype=bool)
    np.put_along_axis(first, order, np.diff(ordered, axis=1, prepend=0) != 0, axis=1)
    return first
