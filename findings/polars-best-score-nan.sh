#!/usr/bin/env bash
# polars 2.1.0.
# Four ways to ask for the best score of one column disagree when one model score
# is NaN: max and arg_max skip it, top_k_by and rank(descending=True) put it first.
# A recommendation list led by the NaN item and a metric computed from max differ
# without a warning. Guess: NaN is last, or treated alike by all four.
# Seen: max 0.9, arg_max row 2; top_k_by row 1 (NaN); rank 3, 1, 2.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1
python3 -m venv venv
venv/bin/pip install -q polars==2.1.0
venv/bin/python - <<'PY'
import polars as pl

scores = pl.DataFrame({"row": [0, 1, 2], "s": [0.5, float("nan"), 0.9]})
best, where = scores["s"].max(), scores["s"].arg_max()
top = scores.select(pl.col("row").top_k_by("s", 1)).item()
ranks = scores["s"].rank(descending=True).to_list()
print("max", best, "arg_max", where, "top_k_by", top, "rank", ranks)
assert (best, where, top, ranks) == (0.9, 2, 1, [3, 1, 2])
PY
