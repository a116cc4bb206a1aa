#!/usr/bin/env bash
# polars 2.1.0.
# select and drop on an eager frame are usually free: columns are shared, not copied. After one column
# is added from a Series (a row number, a computed id) to a frame whose columns are in several chunks,
# as read_csv and concat leave them, the same select or drop copies every column that it returns.
# A log of 10 million rows of text grew by 383 MB when one column was dropped to save memory.
# Guess: select and drop of an eager frame never copy.
# Seen: chunks of "time" before / after select: 4 / 4 without the new column, 4 / 1 with it;
# drop_in_place leaves them at 4.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1
python3 -m venv venv
venv/bin/pip install -q polars==2.1.0
venv/bin/python - <<'PY'
import polars as pl


def log() -> pl.DataFrame:
    """A log in four chunks, as read_csv leaves larger ones."""
    parts = [pl.DataFrame({"user": range(i, i + 100), "time": range(100)}) for i in range(4)]
    return pl.concat(parts, rechunk=False)


def chunks(frame: pl.DataFrame) -> int:
    return frame["time"].n_chunks()


plain, numbered, kept = log(), log(), log()
numbered = numbered.with_columns(pl.int_range(400, eager=True).alias("row"))
kept = kept.with_columns(pl.int_range(400, eager=True).alias("row"))
kept.drop_in_place("user")
seen = {
    "before": (chunks(plain), chunks(numbered)),
    "select": (chunks(plain.select("time")), chunks(numbered.select("time"))),
    "drop": (chunks(plain.drop("user")), chunks(numbered.drop("user"))),
    "drop_in_place": chunks(kept),
}
print(seen)
assert seen == {"before": (4, 4), "select": (4, 1), "drop": (4, 1), "drop_in_place": 4}, seen
PY
