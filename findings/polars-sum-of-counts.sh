#!/usr/bin/env bash
# polars 2.1.0, numpy 2.4.6.
# Group sizes (pl.len) are UInt32. Their sum stays UInt32 and wraps past 2**32
# without a word, while UInt8 sums are widened, mean is computed in float64, and
# numpy widens the same array. Counts of play logs pass this limit.
# Guess: the sum is widened, as for UInt8 and in numpy.
# Seen: 3e9 + 3e9 = 1705032704 in polars, 6000000000 in numpy; mean 3e9; UInt8 400.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1
python3 -m venv venv
venv/bin/pip install -q polars==2.1.0 numpy==2.4.6
venv/bin/python - <<'PY'
import polars as pl

size = pl.DataFrame({"u": [1]}).group_by("u").agg(n=pl.len()).schema["n"]
counts = pl.Series([3_000_000_000, 3_000_000_000], dtype=size)
wide = int(counts.to_numpy().sum())
small = pl.Series([200, 200], dtype=pl.UInt8).sum()
print(size, counts.sum(), wide, counts.mean(), small)
assert size == pl.UInt32
assert counts.sum() == 6_000_000_000 - 2**32
assert (wide, counts.mean(), small) == (6_000_000_000, 3e9, 400)
PY
