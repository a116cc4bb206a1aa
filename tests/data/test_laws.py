"""Laws of reading: rows add up, their order does not matter without ties, nor does the program that wrote them."""

import csv

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
from hypothesis import given
from hypothesis import strategies as st

from ensue.data.interactions import Columns, read_interactions
from ensue.data.prepare import prepare

IDS = st.sampled_from(["u1", "b", "007", "NA", "x y", "1e5"])
EVENTS = st.lists(
    st.tuples(IDS, IDS, st.integers(10**9, 2 * 10**9)), min_size=1, max_size=12, unique_by=lambda row: row[2]
)
NAMES = ["user", "item", "time"]


@given(st.lists(st.lists(st.sampled_from(["a", "b", "", "7", "1600000000", "soon"]), max_size=5), max_size=12))
def test_rows_in_are_kept_and_dropped(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "law.csv"
    path.write_text("\n".join(",".join(row) for row in [NAMES, *rows]) + "\n")
    log = read_interactions(path, Columns(max_dropped=1, time_unit="s"))
    assert log.rows_in == sum(len(row) > 1 or bool(row and row[0]) for row in rows)
    assert log.rows_in == log.frame.height + sum(log.dropped.values())


@given(EVENTS, st.randoms())
def test_rows_without_ties_may_come_in_any_order(rows, rng):
    shuffled = rng.sample(rows, len(rows))
    stores = [prepare(pl.DataFrame(each, schema=NAMES, orient="row"))[0] for each in (rows, shuffled)]
    assert stores[0].fingerprint == stores[1].fingerprint


@given(EVENTS)
def test_the_program_that_wrote_a_file_does_not_matter(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp()
    frame = pl.DataFrame(rows, schema=NAMES, orient="row")
    frame.write_csv(folder / "polars.csv")
    pd.DataFrame(rows, columns=NAMES).to_csv(folder / "pandas.csv", index=False)
    pyarrow.csv.write_csv(pa.table({name: frame[name].to_list() for name in NAMES}), folder / "pyarrow.csv")
    with (folder / "csv.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([NAMES, *rows])
    prints = {prepare(folder / f"{name}.csv")[0].fingerprint for name in ("polars", "pandas", "pyarrow", "csv")}
    assert len(prints) == 1
