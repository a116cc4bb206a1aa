"""Evaluation of two stages: where the target stands after the first, and after the second.

A target among the candidates stands where the ranker puts it. One that the first stage does not find keeps its place
behind all candidates, so the standings are those of all items. Their protocol has a name of its own, `full+rerank-200`.

Suffixes: `B` cases, `N` items, `C` candidates, `S` the two stages, `1` a dimension of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ensue.batches.batch import case_batch, newest_events
from ensue.data.split import Cases, Sequences
from ensue.errors import ConfigError
from ensue.evaluation.evaluate import check_cases, count_scores, rank_scores, repeated_targets
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.standings import Standings
from ensue.retrieval.index import top_k
from ensue.retrieval.retriever import seen_pairs
from ensue.retrieval.scores import CountProgress, by_length, checked
from ensue.retrieval.two_stage import TwoStage
from ensue.runtime.memory import keep_freed_memory


@dataclass(frozen=True)
class StagedStandings:
    """The standings of each case's target.

    Attributes:
        first: after the first stage alone.
        second: after re-ranking.
        is_candidate_B: whether the first stage found the target.
    """

    first: Standings
    second: Standings
    is_candidate_B: np.ndarray

    @property
    def recall(self) -> float:
        """Share of the cases whose target is a candidate."""
        return float(self.is_candidate_B.mean())


@torch.inference_mode()
def evaluate_stages(
    two_stage: TwoStage, cases: Cases, config: EvaluateConfig, progress: CountProgress | None = None
) -> StagedStandings:
    """Rank every case's target, by the first model alone and by both.

    Args:
        two_stage: the two models, in evaluation mode. The first scores all items, whatever its index.
        cases: histories and targets.
        config: protocol and metrics.
        progress: called with (cases done, number of cases).

    Raises:
        ConfigError: the protocol has sampled candidates.
        EnsueError: there are no cases, or a score is NaN or infinite.
        DataError: a model reads the times of requests, but the data has no times.
    """
    if config.protocol != "full":
        raise ConfigError(f"re-ranking is evaluated on all items: set protocol full (got {config.protocol})")
    check_cases(cases, config)
    keep_freed_memory()
    cases = cases.packed
    count, width = len(cases), cases.store.num_items
    better_SB, equal_SB = np.zeros((2, count), dtype=np.int64), np.zeros((2, count), dtype=np.int64)
    candidates_B, repeated_B = np.full(count, width), np.zeros(count, dtype=bool)
    is_candidate_B = np.zeros(count, dtype=bool)
    done = 0
    for rows in by_length(cases.stop_B - cases.start_B, two_stage.model.maxlen, width):
        few = cases.take(rows)
        batch = case_batch(cases, rows, two_stage.model.maxlen, config.query_time).to(two_stage.model.device)
        first = two_stage.retriever.model
        scores_BN = checked(first.logits(newest_events(batch, first.maxlen)))
        better, equal, hidden = rank_scores(scores_BN, few, config.filter_seen)
        exclude = _unasked(few, two_stage.model.device) if config.filter_seen else None
        scores_BC, items_BC = top_k(scores_BN, two_stage.candidates, exclude)
        ranked_BC = two_stage.rank(batch, scores_BC, items_BC)
        is_candidate, ranked_better, ranked_equal = _among(ranked_BC, items_BC, few)
        behind = np.maximum(better, np.isfinite(scores_BC.cpu().numpy()).sum(1))
        better_SB[:, rows] = better, np.where(is_candidate, ranked_better, behind)
        equal_SB[:, rows] = equal, np.where(is_candidate, ranked_equal, np.maximum(0, better + equal - behind))
        candidates_B[rows] -= hidden
        is_candidate_B[rows], repeated_B[rows] = is_candidate, repeated_targets(few)
        done += len(rows)
        if progress is not None:
            progress(done, count)
    first_stage, second_stage = (
        Standings(cases.users_B, cases.target_items_B, better_B, equal_B, candidates_B, repeated_B)
        for better_B, equal_B in zip(better_SB, equal_SB, strict=True)
    )
    return StagedStandings(first_stage, second_stage, is_candidate_B)


def _unasked(cases: Cases, device: torch.device) -> tuple[Tensor, Tensor]:
    """The items of the histories without the targets, as pairs of a row and an item number."""
    histories = Sequences(cases.store, cases.users_B, cases.start_B, cases.stop_B)
    row, item = seen_pairs(histories, np.arange(len(cases)), device)
    is_other = item != torch.from_numpy(cases.target_items_B.astype(np.int64)).to(device)[row]
    return row[is_other], item[is_other]


def _among(ranked_BC: Tensor, items_BC: Tensor, cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether the target is a candidate, and the candidates that stand above it and beside it."""
    target_B = torch.from_numpy(cases.target_items_B.astype(np.int64)).to(items_BC.device)
    is_target_BC = (items_BC == target_B[:, None]) & ranked_BC.isfinite()
    own_B1 = ranked_BC.masked_fill(~is_target_BC, float("-inf")).amax(1, keepdim=True)
    better, equal = count_scores(ranked_BC, own_B1)
    return is_target_BC.any(1).cpu().numpy(), better, equal
