#!/usr/bin/env bash
# cornac 3.0.1, numpy 2.4.6.
# NDCG() and MRR() have no cut-off: they are defined over the ranking of all items. Their values change when a metric with
# a cut-off is in the same list: the evaluation asks the model for a ranking sorted up to the largest k of all metrics,
# and the items behind it are in the order that numpy's partition leaves. No score is tied here.
# Guess: a metric has the same value alone and beside others.
# Seen: of 200 users, 2,000 items and untied scores,
#   NDCG alone 0.17372; beside Recall@10 0.17149; the ranking sorted by hand 0.17372
#   MRR alone 0.01337; beside Recall@10 0.01335
# With BPR on MovieLens-100K NDCG is 0.4023 alone and 0.3999 beside Recall@10: more than many papers' gains.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
echo "torch==2.13.0" > "$folder/constraints.txt"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet -c "$folder/constraints.txt" cornac==3.0.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from cornac.data import Dataset
from cornac.eval_methods.base_method import ranking_eval
from cornac.metrics import MRR, NDCG, Recall
from cornac.models import Recommender

USERS, ITEMS = 200, 2000
rng = np.random.default_rng(0)
scores = rng.normal(size=(USERS, ITEMS))
# One event of training and three of the test part for each user; the test items tend to have high scores.
train = [(f"u{user}", f"i{item}", 5.0) for user in range(USERS) for item in range(user * 10, user * 10 + 10)]
relevant = [rng.choice(np.argsort(-row)[:800], 3, replace=False) for row in scores]
relevant = [[item for item in row if item // 10 != user] for user, row in enumerate(relevant)]
test = [(f"u{user}", f"i{item}", 5.0) for user, row in enumerate(relevant) for item in row]
users, items = {}, {}
train_set = Dataset.build(train, global_uid_map=users, global_iid_map=items)
test_set = Dataset.build(test, global_uid_map=users, global_iid_map=items)
assert list(items)[:3] == ["i0", "i1", "i2"] and list(users)[:2] == ["u0", "u1"]


class Given(Recommender):
    def score(self, user_idx, item_idx=None):
        return scores[user_idx]


model = Given("given").fit(train_set)


def values(*metrics):
    return ranking_eval(model, list(metrics), train_set, test_set)[0]


def by_hand():
    """NDCG over the sorted ranking of the items that are not in the user's training part."""
    result = []
    for user, row in enumerate(relevant):
        if row:
            order = [item for item in np.argsort(-scores[user]) if item // 10 != user]
            gains = [1 / np.log2(order.index(item) + 2) for item in row]
            result.append(sum(gains) / sum(1 / np.log2(place + 2) for place in range(len(row))))
    return np.mean(result)


alone, beside, sorted_by_hand = values(NDCG())[0], values(NDCG(), Recall(k=10))[0], by_hand()
print(f"NDCG alone {alone:.5f}; beside Recall@10 {beside:.5f}; the ranking sorted by hand {sorted_by_hand:.5f}")
print(f"MRR alone {values(MRR())[0]:.5f}; beside Recall@10 {values(MRR(), Recall(k=10))[0]:.5f}")
assert abs(alone - sorted_by_hand) < 1e-9
assert abs(alone - beside) > 1e-4
PYTHON
