"""data/<dataset>.txt in the forms of the classic programs."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ensue.classic.data import in_user_units, read_data
from ensue.data.store import SequenceStore
from ensue.errors import DataError


def write(folder: Path, text: str) -> Path:
    (folder / "log.txt").write_text(text)
    return folder


def histories(store: SequenceStore) -> dict[object, list[object]]:
    pairs = zip(store.offsets[:-1], store.offsets[1:], strict=True)
    users = store.users.decode(range(1, store.num_users + 1))
    return {user: list(store.item_ids.decode(store.items[a:b])) for user, (a, b) in zip(users, pairs, strict=True)}


def test_two_columns_keep_every_event_in_the_order_of_the_file(tmp_path: Path) -> None:
    store, what = read_data("log", write(tmp_path, "2 7\n1 9\n2 3\n2 7\n10 5\n"))
    assert store.times is None
    assert histories(store) == {1: [9], 2: [7, 3, 7], 10: [5]}
    assert "log.txt, 3 users, 4 items, 5 events, no timestamps, mean length 1.67" in what


# Items 1..5 of users 1..5 five times each; user 9 has four events, item 8 one; times run backwards in the file.
DENSE = [(user, item, 1_000 * user - 10 * item) for user in range(1, 6) for item in range(1, 6)]
EXTRA = [(9, item, item) for item in range(1, 5)] + [(1, 8, 5_000)]


@pytest.mark.parametrize("form", ["{}\t{}\t3\t{}", "{}\t{}\t{}", "{} {} {}", "{}::{}::4.5::{}.0"])
def test_timestamps_order_events_and_rare_ones_go(tmp_path: Path, form: str) -> None:
    rows = DENSE + EXTRA
    store, what = read_data("log", write(tmp_path, "\n".join(form.format(*row) for row in rows) + "\n"))
    assert store.times is not None
    assert histories(store) == {user: [5, 4, 3, 2, 1] for user in range(1, 6)}
    assert store.times[:5].tolist() == [950, 960, 970, 980, 990]
    assert "4 rows dropped: user with fewer than 5 events" in what
    assert "1 rows dropped: item with fewer than 5 events" in what


@pytest.mark.parametrize("text", ["1\n2\n", "1 2 3 4 5\n"])
def test_other_forms_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"log\.txt"):
        read_data("log", write(tmp_path, text))


def test_without_a_file_a_public_dataset_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSUE_DATA", str(tmp_path))
    (tmp_path / "ml-1m").mkdir()
    table = pl.DataFrame(DENSE, schema=["user_id", "item_id", "timestamp"], orient="row")
    table.write_parquet(tmp_path / "ml-1m" / "interactions.parquet")
    store, what = read_data("ml-1m", tmp_path / "none")
    assert (store.num_users, store.num_items) == (5, 5)
    assert "public dataset ml-1m, 5 users, 5 items, 25 events, timestamps" in what
    with pytest.raises(
        DataError, match=r"no file .*mine\.txt, and no public dataset of this name: unknown dataset 'mine'"
    ):
        read_data("mine", tmp_path / "none")


def test_times_in_user_units(make_store: object) -> None:
    store = SequenceStore.from_arrays(
        offsets=[0, 4, 6, 7], items=[1, 2, 3, 1, 2, 2, 3], times=[100, 100, 130, 175, 7, 7, 9]
    )
    units = in_user_units(store)
    assert units.times is not None
    # The smallest gap is 30; 75 / 30 rounds to the even neighbour, as in Python. One event, or ties alone: unit 1.
    assert units.times.tolist() == [1, 1, 2, 3, 1, 1, 1]
    assert units.fingerprint != store.fingerprint
