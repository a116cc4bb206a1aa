#!/usr/bin/env bash
# rectools 0.19.0, replay-rec 0.22.0.
# Test events as they are in a log: the user bought item 1 twice. The recommended list has it at the first place. Both
# libraries take the table without a word, and their metrics leave the usual range in opposite directions: RecTools counts
# two hits for one place of the list (Precision@1 = 2), RePlay wants the item at two places, so the perfect list has
# NDCG@5 = 0.61 and MAP@5 = 0.5, while its Recall, Precision and MRR count the item once.
# Guess: relevant items are a set, so the metrics are those of a user who bought it once.
# Seen: RecTools Precision@1 2.0, and 1.0 for one event; RePlay NDCG@5 0.613, MAP@5 0.5, Recall@5 1.0, Precision@5 0.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "torch==2.13.0" > "$folder/constraints.txt"
for peer in rectools==0.19.0 replay-rec==0.22.0; do
  python3 -m venv "$folder/${peer%%==*}"
  "$folder/${peer%%==*}/bin/pip" --disable-pip-version-check install --quiet -c "$folder/constraints.txt" "$peer"
done
"$folder/rectools/bin/python" - <<'PYTHON'
import pandas as pd
from rectools.metrics import Precision, Recall

reco = pd.DataFrame({"user_id": [1, 1, 1], "item_id": [1, 2, 3], "rank": [1, 2, 3]})
once, twice = (pd.DataFrame({"user_id": [1] * n, "item_id": [1] * n}) for n in (1, 2))
print("RecTools Precision@1", [Precision(1).calc(reco, each) for each in (once, twice)], "Recall@1", Recall(1).calc(reco, twice))
assert Precision(1).calc(reco, once) == 1.0 and Precision(1).calc(reco, twice) == 2.0
PYTHON
"$folder/replay-rec/bin/python" - <<'PYTHON'
import pandas as pd
from replay.metrics import MAP, MRR, NDCG, Precision, Recall

reco = pd.DataFrame({"query_id": [1] * 5, "item_id": [1, 2, 3, 4, 5], "rating": [5.0, 4.0, 3.0, 2.0, 1.0]})
once, twice = (pd.DataFrame({"query_id": [1] * n, "item_id": [1] * n}) for n in (1, 2))
value = {(m.__name__, n): next(iter(m(5)(reco, each).values())) for m in (NDCG, MAP, MRR, Recall, Precision) for n, each in ((1, once), (2, twice))}
print("RePlay, one event and two:", {name: (value[name, 1], round(value[name, 2], 3)) for name, n in value if n == 1})
assert value["NDCG", 1] == value["MAP", 1] == 1.0
assert abs(value["NDCG", 2] - 1 / (1 + 0.6309297535714575)) < 1e-9 and value["MAP", 2] == 0.5
assert value["Recall", 2] == value["MRR", 2] == 1.0
PYTHON
