"""The metrics of one library for the questions of `conventions.py`: JSON from standard input to standard output.

Run with the interpreter of the library's own environment; `python benchmarks/conventions.py` does that. A user has a
list of items, best first, with their scores, and relevant items. Users without a list, or without relevant items, are
passed to the library without it. A library that ranks the whole catalogue gets scores of all items instead of lists.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

# question -> name of the metric -> its value; see `conventions.py` for the questions.
Figures = dict[str, Any]
User = dict[str, Any]


def rows_of(users: dict[str, User], column: str) -> list[tuple[str, int]]:
    """Pairs of a user and an item of a list or of the relevant items."""
    return [(name, item) for name, user in users.items() for item in user[column]]


def ir_measures(users: dict[str, User], k: int, world: dict[str, Any]) -> Figures:
    import ir_measures
    from ir_measures import AP, RR, P, R, Success, nDCG

    measures = {"hr": Success @ k, "ndcg": nDCG @ k, "mrr": RR @ k, "map": AP @ k, "recall": R @ k, "precision": P @ k}
    qrels = [ir_measures.Qrel(name, str(item), 1) for name, item in rows_of(users, "relevant")]
    run = [
        ir_measures.ScoredDoc(name, str(item), score)
        for name, user in users.items()
        for item, score in zip(user["list"], user["scores"], strict=True)
    ]
    values = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
    return {name: values[measure] for name, measure in measures.items()}


def rectools(users: dict[str, User], k: int, world: dict[str, Any]) -> Figures:
    import pandas as pd
    from rectools import Columns, metrics

    ranks = [(name, item, place) for name, user in users.items() for place, item in enumerate(user["list"], 1)]
    reco = pd.DataFrame(ranks, columns=[Columns.User, Columns.Item, Columns.Rank])
    wanted = {
        "hr": metrics.HitRate(k),
        "ndcg": metrics.NDCG(k),
        "mrr": metrics.MRR(k),
        "map": metrics.MAP(k),
        "recall": metrics.Recall(k),
        "precision": metrics.Precision(k),
        "auc": metrics.PartialAUC(k),
    }
    if "train" not in world:
        truth = pd.DataFrame(rows_of(users, "relevant"), columns=[Columns.User, Columns.Item])
        return dict(metrics.calc_metrics(wanted, reco, truth))
    train = pd.DataFrame(rows_of(world["train"], "list"), columns=[Columns.User, Columns.Item])
    wanted = {
        "coverage": metrics.CatalogCoverage(k),
        "novelty": metrics.MeanInvUserFreq(k),
        "popularity": metrics.AvgRecPopularity(k),
    }
    return dict(metrics.calc_metrics(wanted, reco, prev_interactions=train, catalog=world["items"]))


def replay(users: dict[str, User], k: int, world: dict[str, Any]) -> Figures:
    from replay import metrics

    recommended = {name: list(zip(user["list"], user["scores"], strict=True)) for name, user in users.items()}
    recommended = {name: pairs for name, pairs in recommended.items() if pairs}
    if "train" not in world:
        relevant = {name: user["relevant"] for name, user in users.items() if user["relevant"]}
        names = {"hr": "HitRate", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "recall": "Recall"}
        names |= {"precision": "Precision", "auc": "RocAuc"}
    else:
        relevant = {name: user["list"] for name, user in world["train"].items()}
        names = {"coverage": "Coverage", "novelty": "Novelty", "surprisal": "Surprisal"}
    return {
        name: next(iter(getattr(metrics, metric)(k)(recommended, relevant).values())) for name, metric in names.items()
    }


def lenskit(users: dict[str, User], k: int, world: dict[str, Any]) -> Figures:
    from lenskit import metrics
    from lenskit.data import ItemList, ItemListCollection, Vocabulary
    from lenskit.metrics.ranking import AveragePrecision  # lenskit.metrics does not list it

    lists, truth = ItemListCollection(["user_id"]), ItemListCollection(["user_id"])
    for name, user in users.items():
        if user["list"] or world.get("empty"):
            lists.add(ItemList(user["list"], scores=user["scores"], ordered=True), user_id=name)
        if user["relevant"]:
            truth.add(ItemList(user["relevant"]), user_id=name)
    wanted = {"hr": metrics.Hit, "ndcg": metrics.NDCG, "mrr": metrics.RecipRank, "map": AveragePrecision}
    wanted |= {"recall": metrics.Recall, "precision": metrics.Precision}
    collector = metrics.MeasurementCollector()
    if "train" in world:
        collector.add_metric(metrics.ListGini(k, items=Vocabulary(world["items"])), "gini")
    else:
        for name, metric in wanted.items():
            collector.add_metric(metric(k), name)
    collector.add_collection_measurements(lists, truth)
    values = collector.summary_metrics()
    return {name: values.get(f"{name}.mean", values.get(name)) for name in collector.metric_names}


def cornac(users: dict[str, User], k: int, world: dict[str, Any]) -> Figures:
    import numpy as np
    from cornac import metrics
    from cornac.data import Dataset
    from cornac.eval_methods.base_method import ranking_eval
    from cornac.models import Recommender

    if "train" in world:
        return {}
    catalogue = [("trainer", str(item), 1.0) for item in world["items"]]
    ids: dict[str, dict[str, int]] = {"user": {}, "item": {}}
    train = Dataset.build(catalogue, global_uid_map=ids["user"], global_iid_map=ids["item"])
    pairs = [(name, str(item), 1.0) for name, item in rows_of(users, "relevant")]
    test = Dataset.build(pairs, global_uid_map=ids["user"], global_iid_map=ids["item"], exclude_unknowns=False)
    names = {number: name for name, number in ids["user"].items()}

    class Given(Recommender):
        def score(self, user_idx: int, item_idx: int | None = None) -> Any:
            scores = catalogue_scores(users[names[user_idx]], world["items"])
            return np.array([scores[int(item)] for item in ids["item"]])

    model = Given("given")
    model.fit(train)
    wanted = {"hr": metrics.HitRatio(k), "ndcg": metrics.NDCG(k), "recall": metrics.Recall(k)}
    wanted |= {"precision": metrics.Precision(k), "mrr": metrics.MRR(), "map": metrics.MAP(), "auc": metrics.AUC()}
    # One metric at a time: the rank of an item depends on the largest cut-off among the metrics of a call.
    return {
        name: ranking_eval(model, [metric], train, test, exclude_unknowns=False)[0][0]
        for name, metric in wanted.items()
    }


def catalogue_scores(user: User, items: list[int]) -> dict[int, float]:
    """Scores of all items: those that are not in the user's list are below it, in their order."""
    given: dict[int, float] = dict(zip(user["list"], user["scores"], strict=True))
    lowest = min(given.values(), default=0.0)
    return {item: given.get(item, lowest - place) for place, item in enumerate(items, 1)}


def recbole(users: dict[str, User], k: int, world: dict[str, Any]) -> Figures:
    import numpy as np
    import torch
    from recbole.config import Config
    from recbole.evaluator import Collector, Evaluator
    from recbole.evaluator.metrics import AveragePopularity, GiniIndex, ItemCoverage

    of_lists, items = "train" in world, world["items"]
    wanted = {"hr": "Hit", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "recall": "Recall"}
    wanted |= {"precision": "Precision", "auc": "GAUC"}
    metrics = ["ItemCoverage"] if of_lists else list(wanted.values())
    sys.argv = sys.argv[:1]
    options = {"metrics": metrics, "topk": [k], "metric_decimal_place": 12, "use_gpu": False}
    config = Config(model="Pop", dataset="given", config_dict=options)
    # Its data loader of a full evaluation has the users of the test part. Item 0 is padding and is scored -inf.
    tested = {name: user for name, user in users.items() if of_lists or user["relevant"]}
    scores = np.full((len(tested), len(items) + 1), -np.inf, dtype=np.float32)
    for row, user in enumerate(tested.values()):
        for item, score in catalogue_scores(user, items).items():
            scores[row, item] = score
    pairs = [(row, item) for row, user in enumerate(tested.values()) for item in user["relevant"]]
    relevant = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    collector = Collector(config)
    collector.eval_batch_collect(torch.from_numpy(scores), None, relevant[:, 0], relevant[:, 1])
    collected = collector.get_data_struct()
    if of_lists:
        # The numbers that its collector takes from the training part: items with the padding item, and counts.
        number, lists = len(items) + 1, collected.get("rec.items").numpy()
        counts = Counter(item for _, item in rows_of(world["train"], "list"))
        popularity = AveragePopularity(config)
        return {
            "coverage": ItemCoverage(config).get_coverage(lists, number),
            "gini": GiniIndex(config).get_gini(lists, number),
            "popularity": popularity.metric_info(popularity.get_pop(lists, counts))[:, -1].mean(),
        }
    values = Evaluator(config).evaluate(collected)
    lower = {metric.lower(): name for name, metric in wanted.items()}
    return {lower[key.partition("@")[0]]: float(value) for key, value in values.items()}


LIBRARIES: dict[str, Callable[[dict[str, User], int, dict[str, Any]], Figures]] = {
    "ir-measures": ir_measures,
    "rectools": rectools,
    "replay": replay,
    "lenskit": lenskit,
    "cornac": cornac,
    "recbole": recbole,
}


def answer(library: str, question: dict[str, Any]) -> Figures:
    """The library's figures, or the error that it raises."""
    try:
        figures = LIBRARIES[library](question["users"], question["k"], question["world"])
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {name: round(float(value), 12) if value == value else None for name, value in figures.items()}


def main() -> None:
    """Answer all questions."""
    warnings.filterwarnings("ignore")
    library, questions = sys.argv[1], json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # some of them print
        figures = {name: answer(library, each) for name, each in questions.items()}
    json.dump({"version": version({"replay": "replay-rec"}.get(library, library)), "figures": figures}, sys.stdout)


if __name__ == "__main__":
    main()
