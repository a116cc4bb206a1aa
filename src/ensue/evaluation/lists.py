"""The lists that a model recommends for the cases of an evaluation: the input of list metrics.

Ranks need no lists (see `ensue.evaluation.evaluate`), so lists are retrieved only for metrics of lists.

Suffixes: `B` cases, `K` places of a list, `N` items.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ensue.data.split import Cases, Sequences
from ensue.data.transitions import fit_popularity
from ensue.errors import ConfigError, DataError
from ensue.evaluation.conventions import list_metric_of
from ensue.evaluation.list_metrics import OF_PROBABILITIES, Lists, parse_list_metric
from ensue.evaluation.metrics import propensity_weights
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.standings import Standings
from ensue.retrieval.retriever import Retriever, retrieve
from ensue.retrieval.scores import CountProgress


def recommended(
    retriever: Retriever, cases: Cases, config: EvaluateConfig, k: int, progress: CountProgress | None = None
) -> np.ndarray:
    """The k best items after the history of every case, as a user would get them.

    All items of the history are left out if the protocol filters them, also the target of a repeated event. Ranks keep
    such a target.

    Args:
        retriever: any retriever, exact or approximate; its model must be in evaluation mode.
        cases: the histories; the time of a request is that of the target.
        config: the protocol; its candidates are not used, since a list is of the whole catalogue.
        k: length of the lists.
        progress: called with (cases done, number of cases).

    Returns:
        int64 [B, K], item numbers, best first; 0 is an empty place. K is smaller than k in a smaller catalogue.

    Raises:
        DataError: the model reads the times of requests, but the data has no times.
        EnsueError: a score is NaN or infinite.
    """
    return _retrieved(retriever, cases, config, k, progress)[1]


def _retrieved(
    retriever: Retriever, cases: Cases, config: EvaluateConfig, k: int, progress: CountProgress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The scores and the items of `recommended`."""
    histories = Sequences(cases.store, cases.users_B, cases.start_B, cases.stop_B)
    times_B = None
    if config.query_time:
        if cases.store.times is None:
            raise DataError("query_time: the data has no times, so the time of a request is unknown")
        times_B = np.asarray(cases.store.times[cases.target_B])
    scores_BK, items_BK = retrieve(retriever, histories, k, config.filter_seen, times_B, progress)
    return scores_BK, np.where(np.isneginf(scores_BK), 0, items_BK)


def other_metrics(
    retriever: Retriever,
    cases: Cases,
    config: EvaluateConfig,
    train: Sequences,
    standings: Standings,
    probable: Callable[[], Retriever] | None = None,
) -> dict[str, np.ndarray]:
    """The metrics that a configuration requests beyond those of ranks.

    Args:
        retriever: the lists come from it; they are retrieved once, and only if a metric of lists is requested.
        cases: the cases.
        config: `list_metrics` and `propensity_power` say what to compute.
        train: the training part, for the popularity of items.
        standings: of the same cases.
        probable: gives a retriever whose scores are probabilities, if there is one.

    Returns:
        name -> a value for each case, [B], or one for all, without dimensions.

    Raises:
        ConfigError: a metric needs probabilities, but `probable` is not given.
        EnsueError: a metric needs probabilities, but the model does not predict any.
    """
    result: dict[str, np.ndarray] = {}
    if not config.list_metrics and not config.propensity_power:
        return result
    cases, popularity_N = cases.packed, fit_popularity(train)
    if config.propensity_power:
        weights_B = propensity_weights(
            standings.targets_B, popularity_N, config.propensity_power, config.propensity_floor
        )
        for name in config.metrics:
            result[f"{config.label(name)}|ips"] = standings.metric(name, config.convention) * weights_B
    parsed = [parse_list_metric(name) for name in config.list_metrics]
    for of_probabilities in (False, True):
        wanted = [(name, k) for name, k in parsed if (name in OF_PROBABILITIES) == of_probabilities]
        if not wanted:
            continue
        if of_probabilities:
            if probable is None:
                raise ConfigError(f"{wanted[0][0]} needs probabilities, which two stages do not give: omit it")
            retriever = probable()
        scores_BK, items_BK = _retrieved(retriever, cases, config, max(k for _, k in wanted))
        lists = Lists(items_BK, cases, train, popularity_N, config.list_attribute, scores_BK)
        tops = {k: lists.top(k) for _, k in wanted}
        for name, k in wanted:
            result[config.list_label(f"{name}@{k}")] = list_metric_of(name, config.convention)(tops[k])
    return result
