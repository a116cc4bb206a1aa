import io
import json

import numpy as np
import polars as pl
import pytest

from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ArtefactError, DataError
from ensue.files import write_manifest


def small(**changes):
    arrays = {
        "offsets": np.array([0, 3, 3, 5]),
        "items": np.array([2, 1, 3, 3, 1]),
        "times": np.array([10, 20, 20, 5, 6]),
        "features": {"event": np.array([1, 2, 1, 0, 1], dtype=np.int32), "price": np.ones(5)},
        "users": Vocabulary.from_ids(["a", "b", "c"]),
        "item_ids": Vocabulary.from_ids([10, 20, 30]),
        "item_table": pl.DataFrame({"id": [10, 20, 30], "title": ["x", None, "z"], "category": [["p", "q"], [], None]}),
        "feature_values": {"event": Vocabulary.from_ids(["buy", "view"])},
        "made": {"source": "test"},
    }
    return SequenceStore.from_arrays(**(arrays | changes))


@pytest.fixture
def folder(tmp_path):
    small().save(tmp_path / "store")
    return tmp_path / "store"


def test_what_is_saved_opens_equal_and_mapped(folder):
    store, original = SequenceStore.open(folder), small()
    store.verify()
    assert isinstance(store.items, np.memmap)
    for name in ("offsets", "items", "times"):
        assert np.array_equal(getattr(store, name), getattr(original, name))
    assert store.features.keys() == original.features.keys()
    assert np.array_equal(store.features["price"], original.features["price"])
    assert store.feature_values["event"].ids.to_list() == ["buy", "view"]
    assert (store.num_users, store.num_items, store.num_events) == (3, 3, 5)
    assert store.users == original.users
    assert store.titles == [None, "x", None, "z"]
    assert store.categories == [None, "p|q", "", None]
    assert store.fingerprint == original.fingerprint
    assert store.made == {"source": "test"}


def test_defaults_are_integers_from_one():
    store = SequenceStore.from_arrays(np.array([0, 2]), np.array([4, 2]))
    assert store.item_ids.ids.to_list() == [1, 2, 3, 4]
    assert store.users.ids.to_list() == [1]
    assert store.times is None
    assert store.titles is None


def test_an_empty_store_can_be_saved(tmp_path):
    SequenceStore.from_arrays(np.array([0]), np.array([], dtype=np.int32)).save(tmp_path / "s")
    SequenceStore.open(tmp_path / "s").verify()


@pytest.mark.parametrize(
    "changes",
    [
        {"items": np.array([2, 1, 3, 1, 3])},
        {"times": np.array([10, 20, 21, 5, 6])},
        {"times": None},
        {"offsets": np.array([0, 2, 3, 5]), "times": None},
        {"users": Vocabulary.from_ids(["a", "b", "d"])},
        {"feature_values": {"event": Vocabulary.from_ids(["buy", "look"])}},
    ],
)
def test_the_fingerprint_sees_every_part(changes):
    assert small(**changes).fingerprint != small().fingerprint


def test_titles_and_origin_are_no_part_of_the_fingerprint():
    assert small(item_table=pl.DataFrame({"id": [10, 20, 30]}), made={}).fingerprint == small().fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 3, 3, 4])}, "number of events"),
        ({"offsets": np.array([0, 4, 3, 5])}, "must not decrease"),
        ({"items": np.array([2, 1, 3, 3, 4])}, "1..3"),
        ({"items": np.array([0, 1, 3, 3, 1])}, "1..3"),
        ({"times": np.array([10, 9, 20, 5, 6])}, "user 'a'"),
        ({"times": np.array([10, 20, 20, 7, 6])}, "user 'c'"),
        ({"times": np.array([10, 20])}, "shape"),
        ({"features": {"x": np.array(["a"] * 5)}}, "number type"),
        ({"features": {"../x": np.ones(5)}}, "plain name"),
        ({"users": Vocabulary.of_range(2)}, "2 user ids"),
        ({"item_table": pl.DataFrame({"id": [10, 30, 20]})}, "item table"),
    ],
)
def test_broken_rules_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        small(**changes)


def npy(array, allow_pickle=False):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def huge_header():
    buffer = io.BytesIO()
    header = {"descr": "<i4", "fortran_order": False, "shape": (2**60,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + b"0" * 20


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        huge_header(),
        npy(np.array([{}] * 5, dtype=object), allow_pickle=True),
        npy(np.ones(5)),
        npy(np.ones(4, dtype=np.int32)),
        npy(np.ones((5, 1), dtype=np.int32)),
        npy(np.ones(5, dtype=np.int32))[:-1],
        npy(np.ones(5, dtype=np.int32)) + b"x",
    ],
)
def test_a_hostile_array_is_refused_by_name_even_with_a_fitting_manifest(folder, content):
    about = json.loads((folder / "manifest.json").read_text())
    (folder / "items.npy").write_bytes(content)
    names = list(about.pop("sha256"))
    write_manifest(folder, names, about)
    with pytest.raises(ArtefactError, match=r"items\.npy"):
        SequenceStore.open(folder)


def test_every_altered_or_missing_file_is_refused_by_name(folder):
    for path in sorted(folder.iterdir()):
        if path.name == "manifest.json":
            continue
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ArtefactError, match=path.name):
            SequenceStore.open(folder)
        path.unlink()
        with pytest.raises(ArtefactError, match=path.name):
            SequenceStore.open(folder)
        path.write_bytes(content)
    SequenceStore.open(folder)


def test_large_arrays_are_hashed_by_verify(tmp_path):
    events = 400_000
    SequenceStore.from_arrays(np.array([0, events]), np.ones(events)).save(tmp_path / "s")
    path = tmp_path / "s" / "items.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store = SequenceStore.open(tmp_path / "s")
    with pytest.raises(ArtefactError, match=r"items\.npy"):
        store.verify()


@pytest.mark.parametrize(
    "change",
    [
        {"counts": None},
        {"counts": {"users": -1, "items": 3, "events": 5}},
        {"counts": {"users": True, "items": 3, "events": 5}},
        {"features": {"../../x": "int32"}},
        {"features": {"price": "object"}},
        {"coded_features": ["nope"]},
        {"kind": "run"},
        {"schema_version": 2},
        {"fingerprint": 3},
    ],
)
def test_a_foreign_manifest_is_refused(folder, change):
    about = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(ArtefactError, match=r"manifest\.json"):
        SequenceStore.open(folder)


def test_a_false_fingerprint_is_found_by_verify(folder):
    about = json.loads((folder / "manifest.json").read_text()) | {"fingerprint": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(ArtefactError, match="fingerprint"):
        SequenceStore.open(folder).verify()


def test_a_folder_whose_name_looks_like_a_pattern(tmp_path):
    store = SequenceStore.from_arrays(np.array([0, 3]), np.array([1, 2, 1]))
    store.save(tmp_path / "my [store]*")
    assert SequenceStore.open(tmp_path / "my [store]*").fingerprint == store.fingerprint
