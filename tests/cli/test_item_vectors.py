"""Vectors of items on the command line: stored by prepare, used by train."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from .conftest import SMALL, Run


def test_prepare_stores_vectors_and_train_uses_them(ensue: Run, csv_log: Path, tmp_path: Path) -> None:
    ids = pl.read_csv(csv_log)["movieId"].unique().sort()
    items = pl.DataFrame(
        {"movieId": ids, "title": [f"Film {i}" for i in ids], "poster": [[float(i), 1.0] for i in ids]}
    )
    items.write_parquet(tmp_path / "items.parquet")
    log = (csv_log, "--user", "userId", "--item", "movieId", "--time", "timestamp")
    wanted = ("--item-vectors", "poster", "--item-text", "title", "--text-encoder", "tfidf")
    done = ensue("prepare", *log, *wanted, "--out", tmp_path / "store")
    assert done.status == 2
    assert "--item-vectors names columns of the items: give their file with --items" in done.err
    done = ensue("prepare", *log, "--items", tmp_path / "items.parquet", *wanted, "--out", tmp_path / "store")
    assert done.status == 0
    shown = " ".join(done.out.split())
    assert f"note: item vectors 'poster': 2 numbers from the item file; {len(ids)} of {len(ids)} items" in shown
    assert "numbers of title, by TF-IDF of words and SVD" in shown
    words = ("--model", "sasrec", "--item-vectors", "frozen", *SMALL)
    assert ensue("train", tmp_path / "store", "--out", tmp_path / "run", *words).status == 0
    assert ensue("evaluate", tmp_path / "run").status == 0
