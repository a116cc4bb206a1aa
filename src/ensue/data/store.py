"""`SequenceStore`: every user's events in order, as flat arrays that are memory-mapped from disk.

Suffixes: `U` users, `E` events, `N` items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ensue.data.arrays import is_feature_name, map_array, write_array
from ensue.data.features import Inputs
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ArtefactError, DataError
from ensue.files import atomic_path, check_files, read_manifest, write_manifest

KIND, SCHEMA_VERSION = "store", 1
# A file up to this size is hashed whenever a store is opened; larger ones by `verify`.
HASHED_AT_OPEN = 1 << 20
_FEATURE_DTYPES = frozenset({"bool", "int8", "int16", "int32", "int64", "float32", "float64"})


@dataclass(frozen=True, eq=False)
class SequenceStore:
    """The prepared log: U users' events, each user's oldest first, in CSR form.

    Attributes:
        offsets: int64 [U+1]; user u (0-based) owns the events offsets[u]:offsets[u+1].
        items: int32 [E], item numbers 1..N.
        times: int64 [E], seconds since the epoch, non-decreasing within a user; None if only the order is known.
        features: name -> [E] per-event numbers; strings are coded by `feature_values`.
        users: external ids; user u has the number u + 1.
        item_ids: external ids of the items 1..N.
        item_table: N rows, item number i in row i - 1: column `id`, then the known properties of items (`title`,
            `category` and so on).
        feature_values: name -> the values of the feature's codes 1..n (0 is missing).
        user_table: U rows, user u in row u: column `id`, then the known properties of users; without columns if none
            are known.
        is_target: bool [E], the events that may be asked as targets; None for all.
        inputs: the features that a model reads, which batches carry; None unless `with_inputs` added them.
        made: how the store was created, as JSON values.
        folder: the folder from which it is mapped; None in memory.
        recorded: the fingerprint in the manifest of a mapped store.
        vectors: name -> float32 [N, D], a vector for each item from its text or pictures; zero for items without one.
    """

    offsets: np.ndarray
    items: np.ndarray
    times: np.ndarray | None
    features: Mapping[str, np.ndarray]
    users: Vocabulary
    item_ids: Vocabulary
    item_table: pl.DataFrame
    feature_values: Mapping[str, Vocabulary] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    recorded: str | None = None
    user_table: pl.DataFrame = field(default_factory=pl.DataFrame)
    inputs: Inputs | None = None
    is_target: np.ndarray | None = None
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.item_ids)

    @property
    def num_events(self) -> int:
        """E."""
        return len(self.items)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [U]: events of each user."""
        return np.diff(self.offsets)

    @cached_property
    def titles(self) -> list[str | None] | None:
        """`titles[number]` is the item's title (None at 0 and where unknown); None without titles."""
        return self._item_column("title")

    @cached_property
    def categories(self) -> list[str | None] | None:
        """`categories[number]` is the item's category, as `titles`."""
        return self._item_column("category")

    def _item_column(self, name: str) -> list[str | None] | None:
        if name not in self.item_table.columns:
            return None
        return [None, *as_text(self.item_table[name]).to_list()]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 that identifies the data: arrays, features, vectors and both vocabularies (not titles, not paths).

        Of a mapped store it is the one recorded in the manifest; `verify` checks it against the content.
        """
        return self._compute_fingerprint() if self.recorded is None else self.recorded

    def _compute_fingerprint(self) -> str:
        parts = [f"ensue store {SCHEMA_VERSION}", self.users.digest, self.item_ids.digest]
        for name, array in (self._arrays() | self._vector_arrays()).items():
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            parts.append(f"{name} {array.dtype.name} {hashlib.sha256(little.data).hexdigest()}")
        parts += [f"{name} {values.digest}" for name, values in sorted(self.feature_values.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"offsets": self.offsets, "items": self.items}
        if self.times is not None:
            arrays["times"] = self.times
        return arrays | {f"feature_{name}": self.features[name] for name in sorted(self.features)}

    def _vector_arrays(self) -> dict[str, np.ndarray]:
        return {f"vectors_{name}": self.vectors[name].reshape(-1) for name in sorted(self.vectors)}

    @classmethod
    def from_arrays(
        cls,
        offsets: np.ndarray,
        items: np.ndarray,
        times: np.ndarray | None = None,
        features: Mapping[str, np.ndarray] | None = None,
        users: Vocabulary | None = None,
        item_ids: Vocabulary | None = None,
        item_table: pl.DataFrame | None = None,
        feature_values: Mapping[str, Vocabulary] | None = None,
        made: Mapping[str, Any] | None = None,
        user_table: pl.DataFrame | None = None,
    ) -> SequenceStore:
        """A store in memory. Without vocabularies the external ids are the integers 1..U and 1..max(items).

        Args:
            offsets: [U+1], from 0 to E, non-decreasing.
            items: [E], 1..N.
            times: [E] seconds, non-decreasing within a user.
            features: name -> [E].
            users: U external ids.
            item_ids: N external ids.
            item_table: N rows with the column `id` equal to `item_ids.ids`.
            feature_values: values of coded features.
            made: how the data was created, for the manifest.
            user_table: U rows with the column `id` equal to `users.ids`.

        Raises:
            DataError: a shape, a range, the order of times or a feature's type breaks its rule.
        """
        items = np.ascontiguousarray(items, dtype=np.int32)
        offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        if item_ids is None:
            item_ids = Vocabulary.of_range(int(items.max(initial=0)))
        store = cls(
            offsets=offsets,
            items=items,
            times=None if times is None else np.ascontiguousarray(times, dtype=np.int64),
            features={name: np.ascontiguousarray(array) for name, array in (features or {}).items()},
            users=Vocabulary.of_range(len(offsets) - 1) if users is None else users,
            item_ids=item_ids,
            item_table=item_ids.ids.to_frame() if item_table is None else item_table,
            feature_values=dict(feature_values or {}),
            made=dict(made or {}),
            user_table=pl.DataFrame() if user_table is None else user_table,
        )
        store.check()
        return store

    def check(self) -> None:
        """Check every rule of the class's description on the whole content.

        Raises:
            DataError: the first rule that is broken.
        """
        offsets, events = self.offsets, self.num_events
        if offsets.ndim != 1 or len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != events:
            raise DataError(f"offsets must be one row that starts at 0 and ends at the number of events, {events}")
        if (np.diff(offsets) < 0).any():
            raise DataError("offsets must not decrease")
        if len(self.users) != self.num_users:
            raise DataError(f"{self.num_users} users in the arrays, but {len(self.users)} user ids")
        if events and not 1 <= self.items.min() <= self.items.max() <= self.num_items:
            raise DataError(f"item numbers must be 1..{self.num_items}, got {self.items.min()}..{self.items.max()}")
        for name, array in self._arrays().items():
            if name != "offsets" and array.shape != (events,):
                raise DataError(f"{name} must have one value for each of {events} events (got shape {array.shape})")
        for name, array in self.features.items():
            if not is_feature_name(name) or array.dtype.name not in _FEATURE_DTYPES:
                raise DataError(f"feature {name!r} must have a plain name and a number type (got {array.dtype})")
        for name, array in self.vectors.items():
            if not is_feature_name(name) or array.dtype != np.float32 or array.shape[:1] != (self.num_items,):
                raise DataError(f"vectors {name!r} must be float32 with a row for each of {self.num_items} items")
            if not np.isfinite(array).all():
                raise DataError(f"vectors {name!r} contain NaN or infinite numbers")
        if not self.item_table["id"].equals(self.item_ids.ids):
            raise DataError("the item table's rows do not follow the item vocabulary")
        if self.user_table.width and not self.user_table["id"].equals(self.users.ids):
            raise DataError("the user table's rows do not follow the user vocabulary")
        if self.times is not None and events > 1:
            falls = np.diff(self.times) < 0
            starts = offsets[1:-1]
            falls[starts[(starts > 0) & (starts < events)] - 1] = False
            if falls.any():
                event = int(np.flatnonzero(falls)[0]) + 1
                user = self.users.decode([int(np.searchsorted(offsets, event, side="right"))])[0]
                raise DataError(f"user {user!r}: times must not decrease within the sequence (at event {event})")

    def renumbered(self, item_ids: Vocabulary) -> SequenceStore:
        """The same log with the item numbers of another vocabulary; events of items that are not in it are dropped.

        All users are kept, including those without remaining events. The item table is not kept.
        """
        number_N = np.concatenate(([0], item_ids.encode(self.item_ids.ids)))
        items = number_N[self.items]
        kept = items > 0
        offsets = np.concatenate(([0], np.cumsum(kept)))[self.offsets]
        return SequenceStore.from_arrays(
            offsets,
            items[kept],
            None if self.times is None else self.times[kept],
            {name: array[kept] for name, array in self.features.items()},
            self.users,
            item_ids,
            feature_values=self.feature_values,
            user_table=self.user_table,
        )

    def save(self, folder: Path) -> None:
        """Write the store into `folder` (created if missing): arrays, vocabularies, and finally the manifest.

        A folder without a manifest is not a store, so the result of an interrupted save cannot be opened. `prepare`
        additionally makes the folder appear whole or not at all.
        """
        folder.mkdir(parents=True, exist_ok=True)
        names = []
        for name, array in (self._arrays() | self._vector_arrays()).items():
            write_array(folder / f"{name}.npy", array)
            names.append(f"{name}.npy")
        tables = {"users": self.user_table if self.user_table.width else self.users.ids.to_frame()}
        for name, table in (tables | {"items": self.item_table}).items():
            with atomic_path(folder / f"{name}.parquet") as temporary:
                table.write_parquet(temporary)
        names += ["users.parquet", "items.parquet"]
        for name, values in self.feature_values.items():
            values.write(folder / f"values_{name}.parquet")
            names.append(f"values_{name}.parquet")
        about = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "counts": {"users": self.num_users, "items": self.num_items, "events": self.num_events},
            "times": self.times is not None,
            "features": {name: array.dtype.name for name, array in self.features.items()},
            "coded_features": list(self.feature_values),
            "vectors": {name: array.shape[1] for name, array in self.vectors.items()},
            "made": dict(self.made),
            "fingerprint": self._compute_fingerprint(),
        }
        write_manifest(folder, names, about)

    @classmethod
    def open(cls, folder: Path) -> SequenceStore:
        """Map a store from disk, without reading the events.

        Checked at once: the manifest, each array's header (type, shape) and exact file size, the SHA-256 of
        every Parquet file and of every file up to 1 MiB, and that the offsets match the events. Larger arrays
        are hashed by `verify`.

        Raises:
            ArtefactError: a file is missing, altered, truncated or foreign; the message names it.
        """
        # A run stores this path, and may be used from another folder.
        folder = Path(folder).resolve()
        about = read_manifest(folder, KIND, SCHEMA_VERSION)
        counts, features, coded, widths = _read_layout(folder, about)
        names = list(about["sha256"])
        check_files(folder, about, [name for name in names if _is_small(folder / name)])
        events = counts["events"]
        items = map_array(folder / "items.npy", "int32", events)
        offsets = np.asarray(map_array(folder / "offsets.npy", "int64", counts["users"] + 1))
        if offsets[0] != 0 or offsets[-1] != events or (np.diff(offsets) < 0).any():
            raise ArtefactError(f"{folder / 'offsets.npy'}: does not match {events} events")
        item_ids = Vocabulary.read(folder / "items.parquet")
        users = Vocabulary.read(folder / "users.parquet")
        for name, ids, key in (("items.parquet", item_ids, "items"), ("users.parquet", users, "users")):
            if len(ids) != counts[key]:
                raise ArtefactError(f"{folder / name}: {len(ids)} ids, but the manifest says {counts[key]}")
        return cls(
            offsets=offsets,
            items=items,
            times=map_array(folder / "times.npy", "int64", events) if about["times"] else None,
            features={n: map_array(folder / f"feature_{n}.npy", d, events) for n, d in features.items()},
            users=users,
            item_ids=item_ids,
            item_table=pl.read_parquet(folder / "items.parquet", glob=False),
            feature_values={n: Vocabulary.read(folder / f"values_{n}.parquet") for n in coded},
            made=about["made"],
            folder=folder,
            recorded=about["fingerprint"],
            user_table=_described(folder / "users.parquet"),
            vectors={n: _map_vectors(folder, n, counts["items"], width) for n, width in widths.items()},
        )

    def verify_once(self) -> None:
        """Call `verify` once, before a mapped store is read whole, which takes about as long anyway.

        Raises:
            ArtefactError: as `verify`.
            DataError: as `verify`.
        """
        if self.folder is not None and "_verified" not in vars(self):
            self.verify()
            vars(self)["_verified"] = True

    def verify(self) -> None:
        """Read a mapped store whole: every file's SHA-256, every rule of the content, the fingerprint.

        Raises:
            ArtefactError: a file was altered, or the fingerprint does not match the content.
            DataError: the content breaks a rule.
        """
        if self.folder is not None:
            check_files(self.folder, read_manifest(self.folder, KIND, SCHEMA_VERSION))
        self.check()
        if self._compute_fingerprint() != self.fingerprint:
            raise ArtefactError(f"{self.folder}: the fingerprint in the manifest does not match the data")


def _described(path: Path) -> pl.DataFrame:
    """The table of users; without columns if it has only the ids."""
    is_described = len(pl.scan_parquet(path, glob=False).collect_schema()) > 1
    return pl.read_parquet(path, glob=False) if is_described else pl.DataFrame()


def as_text(column: pl.Series) -> pl.Series:
    """A column of the item table as text; the entries of a list are joined by "|"."""
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.String)).list.join("|")
    return column.cast(pl.String)


def _is_small(path: Path) -> bool:
    return path.suffix == ".parquet" or not path.is_file() or path.stat().st_size <= HASHED_AT_OPEN


def _map_vectors(folder: Path, name: str, items: int, width: int) -> np.ndarray:
    return map_array(folder / f"vectors_{name}.npy", "float32", items * width).reshape(items, width)


def _read_layout(
    folder: Path, about: dict[str, Any]
) -> tuple[dict[str, int], dict[str, str], list[str], dict[str, int]]:
    """The manifest's counts, features, coded features and widths of vectors, with every value's type checked."""
    counts, features, coded = about.get("counts"), about.get("features"), about.get("coded_features")
    widths = about.get("vectors", {})
    sound = (
        isinstance(counts, dict)
        and all(type(counts.get(key)) is int and counts[key] >= 0 for key in ("users", "items", "events"))
        and isinstance(features, dict)
        and all(is_feature_name(name) and dtype in _FEATURE_DTYPES for name, dtype in features.items())
        and isinstance(coded, list)
        and all(name in features for name in coded)
        and isinstance(widths, dict)
        and all(is_feature_name(name) and type(width) is int and width > 0 for name, width in widths.items())
        and isinstance(about.get("times"), bool)
        and isinstance(about.get("made"), dict)
        and isinstance(about.get("fingerprint"), str)
    )
    if not sound:
        raise ArtefactError(f"{folder / 'manifest.json'}: not the manifest of an ensue store")
    assert isinstance(counts, dict)
    assert isinstance(features, dict)
    assert isinstance(coded, list)
    arrays = ["offsets", "items", *(["times"] if about["times"] else []), *(f"feature_{n}" for n in features)]
    arrays += [f"vectors_{name}" for name in widths]
    expected = [*(f"{name}.npy" for name in arrays), "users.parquet", "items.parquet"]
    expected += [f"values_{name}.parquet" for name in coded]
    if missing := sorted(set(expected) - set(about["sha256"])):
        raise ArtefactError(f"{folder / 'manifest.json'}: does not list the file {missing[0]!r}")
    return counts, features, coded, widths
