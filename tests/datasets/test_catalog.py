import errno
import gzip
import hashlib
import http.client
import io
import os
import urllib.error
import zipfile
from dataclasses import replace
from email.message import Message
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ensue.datasets import catalog
from ensue.datasets.catalog import DATASETS, folder_of, load_dataset, local_names
from ensue.datasets.download import check_download, download
from ensue.errors import ArtefactError, ConfigError, DataError

REAL = Path(os.environ.get("ENSUE_DATA", Path(__file__).parents[3] / "shared" / "data"))
EVERYTHING = {"filter": "none"}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty $ENSUE_DATA and cache, and no network."""
    monkeypatch.setenv("ENSUE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(url, timeout):
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def put(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


class Answer(io.BytesIO):
    """What a server sends, and the error that breaks it off."""

    def __init__(self, content=b"", length=None, error=None):
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}
        self.error = error

    def read(self, size):
        if self.error is not None:
            raise self.error
        return super().read(size)


@pytest.mark.parametrize("name", list(DATASETS))
def test_without_network_the_error_says_what_to_put_where(empty, name):
    with pytest.raises(DataError, match=rf"no network.*put {DATASETS[name].file} .*\$ENSUE_DATA/{name}"):
        load_dataset(name)


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (urllib.error.URLError("unreachable"), r"no network \(unreachable\): put"),
        (ConnectionResetError(104, "Connection reset"), r"no network \(.*Connection reset\): put"),
        (http.client.IncompleteRead(b""), r"no network \(IncompleteRead.*\): put"),
        (
            urllib.error.HTTPError("http://x", 404, "Not Found", Message(), None),
            "the server answers 404 Not Found: put",
        ),
    ],
)
@pytest.mark.parametrize("when", ["asked", "read"])
def test_a_failed_download_is_reported(empty, monkeypatch, error, reported, when):
    def answer(url, timeout):
        if when == "asked":
            raise error
        return Answer(error=error)

    monkeypatch.setattr("urllib.request.urlopen", answer)
    with pytest.raises(
        DataError, match=rf"^steam: {reported} steam_reviews.json.gz from http.* into \$ENSUE_DATA/steam$"
    ):
        load_dataset("steam")
    assert not list(empty.rglob("*.gz*"))


def test_a_place_that_cannot_be_written_is_no_missing_network(monkeypatch, tmp_path):
    monkeypatch.delenv("ENSUE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    asked = r"^steam: cannot write /dev/null/ensue/steam/steam_reviews.json.gz \(Not a directory\): name another folder"
    with pytest.raises(DataError, match=asked):
        load_dataset("steam")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: Answer(b"content"))

    def full(self, mode="r"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=rf"cannot write {tmp_path}/ensue/steam/.* \(No space left on device\)"):
        load_dataset("steam")


def test_a_download_that_is_cut_off_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: Answer(b"1234", length=9))
    with pytest.raises(DataError, match="ended after 4 of 9 bytes"):
        download("http://x", tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_dataset_is_the_one_it_is_prepared_from(empty, tmp_path):
    games = DATASETS["amazon-games"]
    cache = tmp_path / "cache" / "ensue" / games.name
    assert folder_of(games) is None
    # In the cache a log of one's own is not looked for.
    put(cache, "interactions.parquet", b"")
    assert folder_of(games) is None
    put(cache, games.file, b"A1,a,4.0,1369699200\nA1,b,2.0,1369699200\n")
    assert folder_of(games) == cache
    frame = pl.DataFrame({"user_id": [1, 1, 1], "item_id": [5, 6, 7]})
    for folder, events in ((None, 2), (empty / "amazon-games-sasrec", 3), (empty / games.name, 3)):
        if folder is not None:
            folder.mkdir()
            frame.write_parquet(folder / "interactions.parquet")
            assert folder_of(games) == folder
        assert load_dataset(games.name, changes=EVERYTHING).num_events == events


def test_unknown_names_are_answered_with_the_known(empty):
    with pytest.raises(ConfigError, match="did you mean 'ml-1m'"):
        load_dataset("ml-1n")


def test_movielens_files_are_read_as_published(empty, monkeypatch):
    log = b"1::10::5::978300760\n1::20::3::978300761\n2::10::4::978300762\n"
    movies = "10::Am\xe9lie (2001)::Comedy|Romance\n20::Heat (1995)::Action\n".encode("latin-1")
    put(empty / "ml-1m", "ratings.dat", log)
    put(empty / "ml-1m", "movies.dat", movies)
    with pytest.raises(ArtefactError, match=r"ratings\.dat: differs from the published"):
        load_dataset("ml-1m", changes=EVERYTHING)
    known = replace(DATASETS["ml-1m"], log_md5=hashlib.md5(log).hexdigest())
    monkeypatch.setitem(catalog.DATASETS, "ml-1m", known)
    store = load_dataset("ml-1m", changes=EVERYTHING)
    assert store.titles == [None, "Am\xe9lie (2001)", "Heat (1995)"]
    assert store.categories[1] == "Comedy|Romance"
    assert (store.num_users, store.num_items, store.num_events) == (2, 2, 3)


def test_an_archive_is_checked_and_unpacked(empty, monkeypatch, tmp_path):
    item = "7|Film (1990)|01-Jan-1990||http://x|" + "|".join("0100000000000000001") + "\n"
    (empty / "ml-100k").mkdir()
    archive = empty / "ml-100k" / "ml-100k.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("ml-100k/u.data", "1\t7\t3\t881250949\n2\t7\t4\t881250950\n")
        packed.writestr("ml-100k/u.item", item)
    with pytest.raises(ArtefactError, match=r"ml-100k\.zip"):
        load_dataset("ml-100k", changes=EVERYTHING)
    known = replace(DATASETS["ml-100k"], md5=hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setitem(catalog.DATASETS, "ml-100k", known)
    store = load_dataset("ml-100k", tmp_path / "out", changes=EVERYTHING)
    assert store.titles == [None, "Film (1990)"]
    assert store.categories == [None, "Action|Western"]
    assert store.times.tolist() == [881250949, 881250950]


def test_amazon_and_steam_files_are_read_as_published(empty):
    put(
        empty / "amazon-beauty",
        "ratings_Beauty.csv",
        b"A1,0205616461,4.0,1369699200\nA1,B001,2.0,1369699200\n",
    )
    store = load_dataset("amazon-beauty", changes=EVERYTHING)
    assert store.item_ids.ids.to_list() == ["0205616461", "B001"]
    lines = b"{u'username': u'Ch\\xe9', u'date': u'2017-12-17', u'product_id': u'7', u'text': u'\"'}\n"
    put(empty / "steam", "steam_reviews.json.gz", gzip.compress(lines))
    store = load_dataset("steam", changes=EVERYTHING)
    assert store.users.ids.to_list() == ["Ch\xe9"]
    assert store.times.tolist() == [1513468800]
    put(empty / "steam", "steam_reviews.json.gz", gzip.compress(lines + b"__import__('os')\n"))
    with pytest.raises(DataError, match="line 2 is not a review"):
        load_dataset("steam", changes=EVERYTHING)


def test_damaged_files_of_publishers_are_named(empty, monkeypatch):
    lines = "".join(
        repr({"username": f"u{number * 7919 % 10007}", "date": "2017-12-17", "product_id": str(number)}) + "\n"
        for number in range(500)
    )
    packed = gzip.compress(lines.encode(), mtime=0)
    assert load_steam(empty, packed).num_events == 500
    for damaged in (packed[:200], packed[:12] + b"\xff" + packed[13:], packed[:-6] + b"\0" + packed[-5:]):
        with pytest.raises(DataError, match=r"steam_reviews\.json\.gz: cannot be read \("):
            load_steam(empty, damaged)
    (empty / "ml-1m").mkdir()
    archive = empty / "ml-1m" / "ml-1m.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in ("ratings.dat", "movies.dat"):
            zipped.writestr(f"ml-1m/{name}", lines)
    content = bytearray(archive.read_bytes())
    content[60:90] = b"\xff" * 30
    archive.write_bytes(content)
    known = replace(DATASETS["ml-1m"], md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(catalog.DATASETS, "ml-1m", known)
    with pytest.raises(DataError, match=r"ml-1m\.zip: cannot be unpacked"):
        load_dataset("ml-1m")


def load_steam(folder, content):
    put(folder / "steam", "steam_reviews.json.gz", content)
    return load_dataset("steam", changes=EVERYTHING)


def test_any_prepared_folder_is_a_dataset(empty):
    (empty / "mine").mkdir()
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": [5, 6], "period": [0, 1], "split": ["train", "test"]})
    frame.write_parquet(empty / "mine" / "interactions.parquet")
    assert local_names() == ["mine"]
    store = load_dataset("mine")
    assert store.times is None
    assert store.features["period"].tolist() == [0, 1]
    assert store.feature_values["split"].ids.to_list() == ["test", "train"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_a_damaged_folder_of_ones_own_is_named(empty, content):
    put(empty / "mine", "interactions.parquet", content)
    with pytest.raises(DataError, match=r"mine/interactions\.parquet"):
        load_dataset("mine")


def test_changes_are_of_the_datasets_own_preparation(empty):
    rows = {"user_id": [1, 1, 2, 2, 3], "item_id": [5, 5, 6, 6, 5], "timestamp": [1, 2, 3, 4, 5]}
    for folder in ("mine", "amazon-games-sasrec", "ml-1m"):
        (empty / folder).mkdir()
        pl.DataFrame(rows).write_parquet(empty / folder / "interactions.parquet")
    for name in ("mine", "amazon-games"):
        store = load_dataset(name, changes={"duplicates": "keep"})
        assert store.fingerprint == load_dataset(name).fingerprint
        assert store.num_events == 5
        assert load_dataset(name, changes={"duplicates": "first"}).num_events == 3
        assert load_dataset(name, changes={"min_user_events": "2"}).num_events == 4
    with pytest.raises(DataError, match="user with fewer than 5 events"):
        load_dataset("ml-1m", changes={"duplicates": "keep"})
    changed = load_dataset("ml-1m", changes={"min_user_events": 2, "min_item_events": 1})
    assert (changed.num_events, changed.made["config"]["filter"]) == (4, "single")
    with pytest.raises(ConfigError, match="did you mean 'duplicates'"):
        load_dataset("mine", changes={"duplicate": "keep"})


def test_changes_reach_the_files_of_the_publisher(empty):
    put(empty / "amazon-beauty", "ratings_Beauty.csv", b"A1,a,4.0,1369699200\nA1,b,2.0,1369699200\n")
    with pytest.raises(DataError, match="fewer than 5 events"):
        load_dataset("amazon-beauty")
    store = load_dataset("amazon-beauty", changes={"filter": "none"})
    assert store.num_events == 2
    # What is recorded is what was done.
    assert {store.made["config"][name] for name in ("min_user_events", "min_item_events")} == {1}
    with pytest.raises(ConfigError, match="min_user_events 3 and filter 'none'"):
        load_dataset("amazon-beauty", changes={"filter": "none", "min_user_events": 3})


def test_download_is_checked_and_remembered(tmp_path):
    origin, target = tmp_path / "origin", tmp_path / "cache" / "file"
    origin.write_bytes(b"content")
    seen = []
    download(origin.as_uri(), target, progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == b"content"
    assert seen == [(7, 7)]
    check_download(target)
    target.write_bytes(b"other")
    with pytest.raises(ArtefactError, match="remove it"):
        check_download(target)
    with pytest.raises(DataError, match="MD5"):
        download(origin.as_uri(), tmp_path / "cache" / "wrong", md5="0" * 32)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["file", "file.sha256"]


def real(name):
    return pytest.mark.skipif(not (REAL / name).is_dir(), reason=f"{name} is not here (ENSUE_DATA)")


@real("ml-1m")
def test_ml_1m_is_prepared_exactly_as_sasrec(monkeypatch, tmp_path):
    monkeypatch.setenv("ENSUE_DATA", str(REAL))
    store = load_dataset("ml-1m", tmp_path / "ml-1m")
    assert (store.num_users, store.num_items, store.num_events) == DATASETS["ml-1m"].counts
    # 77.4 % share their second with another rating of the user (52.9 % with the one just before).
    assert store.made["report"]["tie_share"] == pytest.approx(0.77385, abs=5e-6)
    same = np.diff(store.times) == 0
    same[store.offsets[1:-1] - 1] = False
    assert same.sum() / store.num_events == pytest.approx(0.52886, abs=5e-6)
    published = pl.read_parquet(REAL / "ml-1m-sasrec" / "interactions.parquet")
    published = published.sort("orig_user_id", maintain_order=True)
    assert np.array_equal(np.repeat(store.users.ids.to_numpy(), store.lengths), published["orig_user_id"])
    assert np.array_equal(store.item_ids.ids.to_numpy()[store.items - 1], published["orig_item_id"])
    assert np.array_equal(store.times, published["timestamp"])
    assert store.titles[1] == "Toy Story (1995)"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        pytest.param("ml-1m-sasrec", (6_040, 3_416, 999_611), marks=real("ml-1m-sasrec")),
        pytest.param("amazon-games", (31_013, 23_715, 287_107), marks=real("amazon-games-sasrec")),
        pytest.param("amazon-beauty-5core", (22_363, 12_101, 198_502), marks=real("amazon-beauty-5core")),
        pytest.param("diginetica-srgnn", (202_633, 43_097, 982_961), marks=real("diginetica-srgnn")),
        pytest.param("yoochoose-ader", (816_019, 25_958, 3_370_578), marks=real("yoochoose-ader")),
    ],
)
def test_filtered_sets_keep_every_row(monkeypatch, name, counts):
    monkeypatch.setenv("ENSUE_DATA", str(REAL))
    store = load_dataset(name)
    assert (store.num_users, store.num_items, store.num_events) == counts
