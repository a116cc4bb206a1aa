"""The cases whose target stood lowest, and why it was not shown.

Suffixes: `B` cases, `E` events of a history or of training, `P` the latter, `R` training rows, `K` places of a list,
`N` items, `C` candidates, `1` a dimension of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch, case_batch, newest_events
from ensue.data.split import Cases, Sequences
from ensue.data.vocabulary import ExternalId
from ensue.errors import counted
from ensue.evaluation.lists import recommended
from ensue.evaluation.protocol import EvaluateConfig
from ensue.recommender import Recommender
from ensue.retrieval.index import Pairs, top_k
from ensue.retrieval.scores import checked
from ensue.retrieval.two_stage import TwoStage

SHOWN, EVENTS, LENGTH = 10, 12, 10


@dataclass(frozen=True)
class Item:
    """An item by id, with its title if it is known."""

    item: ExternalId
    title: str | None


@dataclass(frozen=True)
class Missed:
    """A case whose target was far down.

    Attributes:
        user: external id.
        case: its number among the cases.
        history: the newest events, oldest first.
        length: number of events of the whole history.
        shown: the list that the user would have got.
        target: what came.
        rank: its expected rank in the evaluation.
        why: the reason that it was not shown, as sentences.
    """

    user: ExternalId
    case: int
    history: list[Item]
    length: int
    shown: list[Item]
    target: Item
    rank: float
    why: list[str]


def worst(rank_B: np.ndarray, popularity_B: np.ndarray, users_B: np.ndarray, count: int) -> np.ndarray:
    """The cases to show: one per user, lowest first; at most a fifth of them with a target that training never had."""
    order_B = np.argsort(-rank_B, kind="stable")
    _, first = np.unique(users_B[order_B], return_index=True)
    order_B = order_B[np.sort(first)]
    is_cold_B = popularity_B[order_B] == 0
    cold = order_B[is_cold_B][: count // 5]
    rows_B: np.ndarray = np.concatenate([order_B[~is_cold_B][: count - len(cold)], cold])
    return rows_B


@torch.inference_mode()
def missed(
    recommender: Recommender, cases: Cases, train: Sequences, config: EvaluateConfig, rank_B: np.ndarray, count: int
) -> list[Missed]:
    """Explain the cases whose target stood lowest.

    Args:
        recommender: a fitted recommender, with its second stage if the evaluation had one.
        cases: all cases of the evaluation.
        train: the training part.
        config: the protocol.
        rank_B: the expected rank of each target.
        count: number of users.
    """
    run = recommender.run
    assert run is not None
    if count == 0:
        return []
    trained_N = run.items["events"].to_numpy()
    rows_B = worst(rank_B, trained_N[cases.target_items_B - 1], cases.users_B, count)
    few = cases.take(rows_B)
    lists_BK = recommended(recommender.retriever, few, config, LENGTH)
    users = cases.store.users.decode(few.users_B + 1)

    def named(numbers: np.ndarray) -> list[Item]:
        known = [int(number) for number in numbers if number]
        titles = run.titles or [None] * (len(run.item_ids) + 1)
        return [Item(item, titles[n]) for item, n in zip(run.item_ids.decode(known), known, strict=True)]

    result = []
    for place, row in enumerate(rows_B):
        history_E = cases.store.items[few.start_B[place] : few.stop_B[place]]
        target = int(few.target_items_B[place])
        why = [*_reason(recommender, few, place, config), *_training(train, int(history_E[-1]), target, trained_N)]
        one = Missed(
            users[place],
            int(row),
            named(history_E[-EVENTS:]),
            len(history_E),
            named(lists_BK[place]),
            named(np.array([target]))[0],
            float(rank_B[row]),
            why,
        )
        result.append(one)
    return result


def _reason(recommender: Recommender, cases: Cases, row: int, config: EvaluateConfig) -> list[str]:
    """The stage that lost the target, with its rank and score there."""
    target = int(cases.target_items_B[row])
    retriever = recommender.retriever
    batch = case_batch(cases, np.array([row]), retriever.model.maxlen, config.query_time).to(retriever.model.device)
    seen = np.unique(cases.store.items[cases.start_B[row] : cases.stop_B[row]])
    hidden = torch.from_numpy(
        seen[seen != target].astype(np.int64) if config.filter_seen else seen[:0].astype(np.int64)
    )
    exclude = (torch.zeros_like(hidden), hidden)
    first = retriever.retriever if isinstance(retriever, TwoStage) else retriever
    scores_N = checked(first.model.logits(newest_events(batch, first.model.maxlen)))[0].cpu()
    scores_N[hidden - 1] = float("-inf")
    rank, own = _rank(scores_N, target)
    tenth = float(scores_N.topk(min(LENGTH, len(scores_N))).values[-1])
    total = int(torch.isfinite(scores_N).sum())
    sentences = []
    if config.filter_seen and target in seen:
        sentences.append("It is in the history, and such items are left out of the list.")
    if isinstance(retriever, TwoStage):
        return [*sentences, *_stages(retriever, batch, scores_N, target, exclude, rank)]
    sentences.append(
        f"Its score is {own:.4g}, rank {rank:,.4g} of {total:,}; the item in place {LENGTH} has the score {tenth:.4g}."
    )
    return sentences


def _stages(
    stages: TwoStage, batch: SequenceBatch, scores_N: Tensor, target: int, exclude: Pairs, rank: float
) -> list[str]:
    scores_1C, items_1C = top_k(scores_N[None].clone(), stages.candidates, exclude)
    among = (items_1C[0] == target) & torch.isfinite(scores_1C[0])
    if not among.any():
        return [
            f"Lost by retrieval: rank {rank:,.4g} there, so it is not among the {stages.candidates:,} candidates, and "
            "the second stage never scored it."
        ]
    ranked_C = stages.rank(batch, scores_1C.to(stages.model.device), items_1C.to(stages.model.device))[0].cpu()
    own = ranked_C[among][0]
    place = 1 + int((ranked_C > own).sum()) + int((ranked_C == own).sum() - 1) / 2
    return [
        f"Lost by re-ranking: rank {rank:,.4g} in retrieval, {place:,.4g} of {stages.candidates:,} candidates after "
        f"re-ranking, with the score {float(own):.4g}."
    ]


def _rank(scores_N: Tensor, target: int) -> tuple[float, float]:
    """The expected rank and the score of an item."""
    own = scores_N[target - 1]
    return 1 + int((scores_N > own).sum()) + (int((scores_N == own).sum()) - 1) / 2, float(own)


def _training(train: Sequences, newest: int, target: int, trained_N: np.ndarray) -> list[str]:
    """What training had of the target."""
    count = int(trained_N[target - 1])
    if count == 0:
        return ["It has no training event, so a model of item ids cannot know it."]
    items_E, row_E = train.items_P, np.repeat(np.arange(len(train)), train.lengths_R)
    follows = (items_E[:-1] == newest) & (items_E[1:] == target) & (row_E[:-1] == row_E[1:])
    more = float((trained_N > count).mean())
    return [
        f"It has {counted(count, 'training event')}; {more:.0%} of the items have more. It came directly after the "
        f"newest event of this history {counted(int(follows.sum()), 'time')} in training."
    ]
