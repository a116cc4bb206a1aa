#!/usr/bin/env bash
# replay-rec 0.22.0, polars and pandas as it pins them.
# A recommender by counts gives many items the same score. For the same recommendations the coverage depends on the type
# of the table: with polars, Coverage takes the first k rows of a tie, with pandas those of the larger item ids, and with
# a dictionary the first ones of its list. Within polars, HitRate takes the larger ids, so HitRate and Coverage of one
# table look at different lists. No warning is given.
# Guess: one Coverage for a dictionary, a pandas table and a polars table, of the lists that HitRate also judges.
# Seen, k = 1, items 1, 2, 3 with equal scores for two users, in opposite orders:
#   dictionary: Coverage 0.667, HitRate of item 1 0.5; pandas: 0.333 and 0.0; polars: 0.667 and 0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
echo "torch==2.13.0" > "$folder/constraints.txt"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet -c "$folder/constraints.txt" replay-rec==0.22.0
"$folder/venv/bin/python" - <<'PYTHON'
import pandas as pd
import polars as pl
from replay.metrics import Coverage, HitRate

lists = {"u": [(1, 7.0), (2, 7.0), (3, 7.0)], "v": [(3, 7.0), (2, 7.0), (1, 7.0)]}
train, relevant = {"u": [1, 2], "v": [3]}, {"u": [1], "v": [1]}


def table(pairs):
    return pd.DataFrame(pairs, columns=["query_id", "item_id"])


frame = pd.DataFrame(
    [(user, *pair) for user, pairs in lists.items() for pair in pairs], columns=["query_id", "item_id", "rating"]
)
as_train, as_relevant = (table([(u, i) for u, row in each.items() for i in row]) for each in (train, relevant))
seen = {}
for name, rec, past, truth in (
    ("dictionary", lists, train, relevant),
    ("pandas", frame, as_train, as_relevant),
    ("polars", *(pl.from_pandas(each) for each in (frame, as_train, as_relevant))),
):
    seen[name] = Coverage(1)(rec, past)["Coverage@1"], HitRate(1)(rec, truth)["HitRate@1"]
    print(f"{name}: Coverage {seen[name][0]:.3f}, HitRate of item 1 {seen[name][1]}")
assert abs(seen["pandas"][0] - 1 / 3) < 1e-9 and abs(seen["polars"][0] - 2 / 3) < 1e-9
# No user's list starts with item 1 for HitRate, but one does for Coverage: it counts items 1 and 3.
assert seen["polars"][1] == 0.0 and seen["dictionary"][1] == 0.5
PYTHON
