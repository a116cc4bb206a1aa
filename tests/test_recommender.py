"""The public face: what it refuses, in which words, and what it never overwrites."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ensue.data.store import SequenceStore
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, ConfigError, DataError, EnsueError, TrainingError
from ensue.models import model_config
from ensue.recommender import Recommender, read
from ensue.retrieval.request import moment
from ensue.train.loop import Trainer

SMALL: dict[str, Any] = {"hidden_units": 8, "num_blocks": 1, "maxlen": 10, "num_epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module", name="store")
def _store() -> SequenceStore:
    return ordered_sequences()


@pytest.fixture(scope="module", name="fitted")
def _fitted(store: SequenceStore) -> Recommender:
    return Recommender("markov").fit(store)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("history", ["91", b"91", 91, None])
def test_a_history_is_a_list(fitted: Recommender, history: Any) -> None:
    with pytest.raises(DataError, match="history must be a list of ids"):
        fitted.recommend(history)


def test_a_history_may_be_anything_to_go_through(fitted: Recommender) -> None:
    expected = fitted.recommend([9, 1, 999], times=[1, 2, 3])
    assert expected.unknown == (999,)
    assert fitted.recommend((item for item in (9, 1, 999)), times=(1, 2, 3)) == expected
    assert fitted.recommend(np.array([9, 1, 999]), times=np.array([1, 2, 3])) == expected


@pytest.mark.parametrize("times", ["12", ["a", "b"], [1, 10**30], [1, [2]], 7, [None, 1], [1, 2, 3]])
def test_times_are_seconds_one_for_each(fitted: Recommender, times: Any) -> None:
    with pytest.raises(DataError, match="times must"):
        fitted.recommend([9, 1], times=times)


@pytest.mark.parametrize("at", [10**400, -(10**400), 1.5, "3", True])
def test_the_time_of_a_request_is_in_seconds(at: Any) -> None:
    model = model_config({"name": "tisasrec", "query_time": True})
    with pytest.raises(DataError, match=r"^at\b.* seconds"):
        moment(at, None, model)
    assert moment(np.int64(7), 7, model) == 7


@pytest.mark.parametrize("k", [0, -1, 2.0, "3", None, True])
def test_k_is_a_whole_number(fitted: Recommender, k: Any) -> None:
    for call in (fitted.recommend, Recommender.similar.__get__(fitted)):
        with pytest.raises(EnsueError, match="k must be a whole number of 1 or more"):
            call([9, 1] if call == fitted.recommend else 9, k=k)
    assert len(fitted.recommend([9, 1], k=np.int64(3))) == 3


def test_evaluation_takes_what_fit_takes(fitted: Recommender, store: SequenceStore, tmp_path: Path) -> None:
    store.save(tmp_path / "store")
    expected = fitted.evaluate(store)[0]
    assert fitted.evaluate(str(tmp_path / "store"))[0] == expected
    log = "user,item\n" + "".join(f"{user},{item}\n" for user in range(9) for item in range(5))
    (tmp_path / "ratings.csv").write_text(log)
    own = Recommender("markov").fit(str(tmp_path / "ratings.csv"))
    assert own.evaluate(str(tmp_path / "ratings.csv"))[0] == own.evaluate(read(tmp_path / "ratings.csv"))[0]
    with pytest.raises(DataError, match="item numbers would differ"):
        fitted.evaluate(str(tmp_path / "ratings.csv"))
    with pytest.raises(ConfigError, match="unknown part 'tests': did you mean 'test'"):
        fitted.evaluate(store, part="tests")


def test_a_file_or_a_store_is_not_overwritten(fitted: Recommender, store: SequenceStore, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("years of work")
    store.save(tmp_path / "store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.toml").write_text("years of work")
    before = contents(tmp_path)
    for name, words in (("ratings.csv", "is a file"), ("store", "found kind 'store'"), ("mine", "did not create")):
        for model in ("markov", "sasrec"):
            settings = SMALL if model == "sasrec" else {}
            with pytest.raises(ArtefactError, match=words):
                Recommender(model, **settings).fit(store, tmp_path / name)
        with pytest.raises(ArtefactError, match=words):
            fitted.save(tmp_path / name)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("model", ["markov", "sasrec"])
def test_another_run_is_not_overwritten(store: SequenceStore, tmp_path: Path, model: str) -> None:
    settings = SMALL if model == "sasrec" else {}
    first = Recommender(model, **settings).fit(store, tmp_path)
    before = contents(tmp_path)
    other = ordered_sequences(seed=1)
    for recommender, data, words in (
        (Recommender("popularity"), store, "model.name: 'popularity' now"),
        (Recommender("sasrec", **SMALL, lr=0.5), store, "train.lr: 0.5 now"),
        (Recommender(model, **settings), other, "data: fingerprint"),
    ):
        with pytest.raises(TrainingError, match=words):
            recommender.fit(data, tmp_path)
        with pytest.raises(TrainingError, match=words):
            recommender.fit(data).save(tmp_path)
    assert contents(tmp_path) == before
    again = Recommender(model, **settings, checkpoint_minutes=9).fit(store, tmp_path)
    assert again.recommend([9, 1]) == first.recommend([9, 1])


def test_a_finished_count_is_not_counted_again(
    store: SequenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Recommender("markov").fit(store, tmp_path)
    monkeypatch.setattr("ensue.models.markov.Markov.fit", lambda *_: pytest.fail("counted again"))
    again = Recommender("markov").fit(store, tmp_path)
    assert again.recommend([9, 1]) == first.recommend([9, 1])


def test_a_finished_run_is_not_trained_again(
    store: SequenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Recommender("sasrec", **SMALL).fit(store, tmp_path)
    first.evaluate(store, folder=tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    before = contents(tmp_path)
    monkeypatch.setattr(Trainer, "run", lambda _: pytest.fail("trained again"))
    again = Recommender("sasrec", **SMALL).fit(store, tmp_path)
    assert again.recommend([9, 1]) == first.recommend([9, 1])
    assert again.log == first.log
    assert contents(tmp_path) == before


def test_reading_takes_what_describes_the_file(tmp_path: Path) -> None:
    rows = [("a", 1, 5), ("a", 2, 1), ("b", 1, 4), ("b", 3, 5)]
    (tmp_path / "plain.txt").write_text("".join(f"{u} {i} {n}\n" for n, (u, i, _) in enumerate(rows)))
    (tmp_path / "named.csv").write_text("who,what,stars\n" + "".join(f"{u},{i},{r}\n" for u, i, r in rows))
    plain = read(tmp_path / "plain.txt", format="space", header=False, time_unit="s")
    assert plain.num_events == 4
    liked = read(tmp_path / "named.csv", user="who", item="what", rating="stars", min_rating=4, features=("stars",))
    assert liked.features["stars"].tolist() == [5, 4, 5]
    with pytest.raises(ConfigError, match="unknown setting 'multi_line': did you mean 'multiline'"):
        read(tmp_path / "plain.txt", multi_line=False)


def test_a_run_finds_its_store_from_any_folder(
    store: SequenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(tmp_path / "data" / "store")
    monkeypatch.chdir(tmp_path)
    fitted = Recommender("popularity").fit(SequenceStore.open(Path("data/store")), "run")
    assert fitted.run is not None
    assert fitted.run.store == (tmp_path / "data" / "store").resolve()


def test_an_altered_store_is_found_before_it_is_used(tmp_path: Path) -> None:
    """Arrays too large to be hashed whenever a store is opened."""
    long = ordered_sequences(num_users=6600, num_items=50, length=40)
    long.save(tmp_path / "store")
    path = tmp_path / "store" / "items.npy"
    content = bytearray(path.read_bytes())
    assert len(content) > 1 << 20
    fitted = Recommender("popularity").fit(tmp_path / "store")
    opened = SequenceStore.open(tmp_path / "store")
    content[-4] = 1 + content[-4] % 40
    path.write_bytes(content)
    for use in (
        lambda: Recommender("popularity").fit(tmp_path / "store"),
        lambda: fitted.evaluate(opened),
        lambda: fitted.recommend_all(tmp_path / "store"),
    ):
        with pytest.raises(ArtefactError, match=r"items\.npy: altered or truncated"):
            use()


def test_newcomers_get_what_is_popular_by_the_models_own_window() -> None:
    rows = {"user": ["a"] * 6 + ["b"] * 6, "item": [1, 1, 1, 1, 2, 3] * 2, "time": [0, 1, 2, 3, 10**7, 10**7 + 1] * 2}
    data = read(pl.DataFrame(rows))
    everyone: dict[str, Any] = {"split": "user-holdout", "validation_fraction": 0, "test_fraction": 0}
    recent = Recommender("popularity", last_days=1, **everyone).fit(data)
    assert recent.recommend([], k=1).ids == recent.recommend([3], k=1, exclude_seen=False).ids
    assert recent.recommend([], k=1).ids != [1]
    overall = Recommender("markov", **everyone).fit(data)
    assert overall.recommend([], k=1).ids == [1]


def test_arguments_of_another_type_are_named(fitted: Recommender, store: SequenceStore) -> None:
    for call, name in (
        (lambda: fitted.recommend({9, 1}), "history"),  # type: ignore[arg-type]
        (lambda: fitted.recommend({9: 1}), "history"),
        (lambda: fitted.recommend([9], exclude_seen="no"), "exclude_seen"),  # type: ignore[arg-type]
        (lambda: fitted.recommend_all(store, exclude_seen=1), "exclude_seen"),  # type: ignore[arg-type]
        (lambda: fitted.evaluate(store, config="full"), "config"),  # type: ignore[arg-type]
        (lambda: fitted.evaluate(store, folder=5), "folder"),  # type: ignore[arg-type]
        (lambda: fitted.save(5), "folder"),  # type: ignore[arg-type]
        (lambda: Recommender.load(None), "folder"),  # type: ignore[arg-type]
        (lambda: Recommender("markov").fit(store, folder=5), "folder"),  # type: ignore[arg-type]
        (lambda: Recommender("markov").fit(store, watchers=5), "watchers"),  # type: ignore[arg-type]
        (lambda: Recommender("markov").fit(store, budget="1"), "budget"),  # type: ignore[arg-type]
        (lambda: Recommender(5), "model 5"),  # type: ignore[arg-type]
        (lambda: Recommender(""), "model ''"),
        (lambda: Recommender(preset=5), "preset 5"),  # type: ignore[arg-type]
        (lambda: Recommender(preset=""), "preset ''"),
    ):
        with pytest.raises(EnsueError, match=name):
            call()
