"""Evaluation: the standing of the target among the candidates, for every case.

A standing is a pair of counts: candidates scored strictly higher, and other candidates scored the same. Metrics are
expectations over the ranks that ties allow (see `ensue.evaluation.metrics`). Scores are computed for a few rows at a
time, so memory does not grow with the number of users and stays bounded for a million items.

Suffixes: `B` cases, `P` events of their histories, `C` candidates, `K` seen items, `N` items.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch, case_batch
from ensue.data.arrays import gather_events
from ensue.data.split import Cases, Sequences
from ensue.data.transitions import fit_popularity
from ensue.errors import DataError, EnsueError
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.sampled import SAMPLED, sample_candidates
from ensue.evaluation.standings import Standings
from ensue.nn.model import Encoder, Model
from ensue.nn.native.ranking import Ranking
from ensue.objectives.negatives import distinct
from ensue.retrieval.scores import CountProgress, NotRankedError, by_length, checked, ranking_of
from ensue.runtime.memory import keep_freed_memory

NONE = np.zeros(0, dtype=np.int64)


@torch.inference_mode()
def evaluate(
    model: Model, cases: Cases, config: EvaluateConfig, train: Sequences, progress: CountProgress | None = None
) -> Standings:
    """Rank every case's target.

    Args:
        model: any model; switched to evaluation mode for the duration of the call.
        cases: histories and targets.
        config: protocol and metrics.
        train: the training view; `popularity-100` draws by its item counts.
        progress: called with (cases done, number of cases).

    Raises:
        EnsueError: there are no cases, or a score is NaN or infinite.
        DataError: the model reads the times of requests, but the data has no times.
    """
    check_cases(cases, config)
    keep_freed_memory()
    cases = cases.packed
    was_training = model.training
    model.eval()
    is_full = config.protocol == "full"
    counts_N = np.zeros(0) if is_full else fit_popularity(train)
    width = cases.store.num_items if is_full else SAMPLED + 1
    ranking = ranking_of(model) if is_full else None
    better_B, equal_B = np.zeros(len(cases), dtype=np.int64), np.zeros(len(cases), dtype=np.int64)
    candidates_B, repeated_B = np.full(len(cases), width), np.zeros(len(cases), dtype=bool)
    done = 0
    try:
        for rows in by_length(cases.stop_B - cases.start_B, model.maxlen, width):
            batch = case_batch(cases, rows, model.maxlen, config.query_time).to(model.device)
            few = cases.take(rows)
            if is_full:
                if ranking is None:
                    better, equal, hidden = rank_scores(checked(model.logits(batch)), few, config.filter_seen)
                else:
                    better, equal, hidden = _rank_natively(ranking, model, batch, few, config.filter_seen)
                candidates_B[rows] -= hidden
            else:
                items_BC = torch.from_numpy(sample_candidates(few, config, counts_N)).to(model.device)
                scores = checked(model.logits(batch, items_BC))
                better, equal = count_scores(scores, scores[:, :1])
            better_B[rows], equal_B[rows], repeated_B[rows] = better, equal, repeated_targets(few)
            done += len(rows)
            if progress is not None:
                progress(done, len(cases))
    finally:
        model.train(was_training)
    return Standings(cases.users_B, cases.target_items_B, better_B, equal_B, candidates_B, repeated_B)


def check_cases(cases: Cases, config: EvaluateConfig) -> None:
    """Check that there is something to evaluate.

    Raises:
        EnsueError: there are no cases.
        DataError: the model reads the times of requests, but the data has no times.
    """
    if len(cases) == 0:
        raise EnsueError(
            "nothing to evaluate: the split holds out no cases (leave-one-out needs users with 3 or more events, "
            "user-holdout with 2 or more; split none holds out nothing)"
        )
    if config.query_time and cases.store.times is None:
        raise DataError("query_time: the data has no times, so the time of a request is unknown")


def repeated_targets(cases: Cases) -> np.ndarray:
    """Whether each case's target also occurs in its history: bool [B]."""
    lengths_B = cases.stop_B - cases.start_B
    items_P = cases.store.items[gather_events(cases.start_B, cases.stop_B)]
    same_P = items_P == np.repeat(cases.target_items_B, lengths_B)
    row_P = np.repeat(np.arange(len(cases)), lengths_B)
    repeated_B: np.ndarray = np.bincount(row_P[same_P], minlength=len(cases)) > 0
    return repeated_B


def _rank_natively(
    ranking: Ranking, model: Model, batch: SequenceBatch, cases: Cases, filter_seen: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `rank_scores` returns, without storing the scores."""
    assert isinstance(model, Encoder)
    target_B = cases.target_items_B.astype(np.int64) - 1
    row_K, seen_K = _seen(cases, target_B, ranking.items) if filter_seen else (NONE, NONE)
    counted = ranking.standings(model.encode(batch), target_B, row_K, seen_K)
    if counted is None:
        raise NotRankedError
    return *counted, np.bincount(row_K, minlength=len(cases))


def rank_scores(scores: Tensor, cases: Cases, filter_seen: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Better, equal and hidden items of some cases, from the scores of all items, [B, N]."""
    target_B = cases.target_items_B.astype(np.int64) - 1
    target_score = scores.gather(1, torch.from_numpy(target_B)[:, None].to(scores.device))
    better, equal = count_scores(scores, target_score)
    if not filter_seen:
        return better, equal, np.zeros(len(cases), dtype=np.int64)
    # Seen items are few, so counting and subtracting them is cheaper than a mask.
    row_K, seen_K = _seen(cases, target_B, scores.shape[1])
    score_K = scores.view(-1)[torch.from_numpy(row_K * scores.shape[1] + seen_K).to(scores.device)].cpu().numpy()
    target_K = target_score.view(-1).cpu().numpy()[row_K]
    better = better - np.bincount(row_K[score_K > target_K], minlength=len(cases))
    equal = equal - np.bincount(row_K[score_K == target_K], minlength=len(cases))
    return better, equal, np.bincount(row_K, minlength=len(cases))


def _seen(cases: Cases, target_B: np.ndarray, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """The items of each case's history except its target, counted from 0: cases, ascending, and items, ascending."""
    seen_P = cases.store.items[gather_events(cases.start_B, cases.stop_B)].astype(np.int64) - 1
    row_P = np.repeat(np.arange(len(cases)), cases.stop_B - cases.start_B)
    is_other_P = seen_P != target_B[row_P]
    place_K = distinct(row_P[is_other_P] * num_items + seen_P[is_other_P])
    return place_K // num_items, place_K % num_items


def count_scores(scores: Tensor, target_score: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Candidates strictly above and others equal to the target, [B] each."""
    # In float32 the comparisons and sums are vectorised (1.5 ms instead of 7.6 for 128 x 23,715) and exact up to 2^24.
    above = torch.gt(scores, target_score, out=torch.empty_like(scores))
    better = above.sum(1).long()
    equal = torch.eq(scores, target_score, out=above).sum(1).long() - 1
    return better.cpu().numpy(), equal.cpu().numpy()
