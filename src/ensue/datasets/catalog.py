"""Named public datasets: their publishers' addresses, and the preparation of the SASRec paper.

The package contains no data. A dataset is searched for in the folder named by the environment variable ENSUE_DATA
(`$ENSUE_DATA/<name>/`), then in the cache, and only then downloaded.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ensue.data.interactions import Columns
from ensue.data.prepare import PrepareConfig, Progress, prepare
from ensue.data.readers import open_table
from ensue.data.sources import Source
from ensue.data.store import SequenceStore
from ensue.datasets import publishers
from ensue.datasets.download import DownloadProgress, UnreachableError, check_download, download
from ensue.errors import ConfigError, DataError, nearest

# Section IV-A of the paper and data/DataProcessing.py of its code: at least five events, counted once.
SASREC = PrepareConfig(min_user_events=5, min_item_events=5, filter="single")
_AS_IS = PrepareConfig()
_GROUPLENS = "GroupLens: research use, no redistribution without permission, cite Harper & Konstan 2015"
_MCAULEY = "UCSD (McAuley): research use, cite McAuley et al. 2015"
_LOG, _ITEMS = "interactions.parquet", "items.parquet"


@dataclass(frozen=True)
class Dataset:
    """A published log.

    Attributes:
        name: name in ensue.
        title: short description.
        url: address of the publisher's file.
        file: name of that file on disk.
        licence: the terms, in one line.
        log: the file with the log: `file` itself, or a member of it.
        described: the file with titles, if any.
        members: the members to unpack if `file` is an archive.
        md5: the publisher's checksum of `file`; if none is published, the SHA-256 of the first download is stored
            beside the file instead.
        log_md5: the checksum of `log`, likewise.
        columns: the columns of `log`.
        read_log: reads `log` if the general reader cannot.
        prepared: folders of $ENSUE_DATA whose log is already filtered as in the paper.
        counts: users, items and interactions after the SASRec preparation, if verified or published.
    """

    name: str
    title: str
    url: str
    file: str
    licence: str
    log: str
    described: str | None = None
    members: tuple[str, ...] = ()
    md5: str | None = None
    log_md5: str | None = None
    columns: Columns = field(default_factory=Columns)
    read_log: Callable[[Path], pl.DataFrame] | None = None
    prepared: tuple[str, ...] = ()
    counts: tuple[int, int, int] | None = None


def _movielens(name: str, title: str, files: tuple[str, str], columns: Columns, **known: Any) -> Dataset:
    log, described = files
    return Dataset(
        name=name,
        title=title,
        url=f"https://files.grouplens.org/datasets/movielens/{name}.zip",
        file=f"{name}.zip",
        licence=_GROUPLENS,
        log=log,
        described=described,
        members=(f"{name}/{log}", f"{name}/{described}"),
        columns=columns,
        **known,
    )


def _amazon(name: str, title: str, category: str, counts: tuple[int, int, int], prepared: tuple[str, ...]) -> Dataset:
    file = f"ratings_{category}.csv"
    return Dataset(
        name=name,
        title=title,
        url=f"http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/{file}",
        file=file,
        licence=_MCAULEY,
        log=file,
        columns=Columns(format="csv", header=False),
        prepared=prepared,
        counts=counts,
    )


_ALL = (
    _movielens(
        "ml-1m", "MovieLens 1M: ratings of movies, 2000-2003", ("ratings.dat", "movies.dat"), Columns(format="::"),
        md5="c4d9eecfca2ab87c1945afe126590906", log_md5="a89aa3591bc97d6d4e0c89459ff39362",
        counts=(6_040, 3_416, 999_611),
    ),
    _movielens(
        "ml-100k", "MovieLens 100K: ratings of movies, 1997-1998", ("u.data", "u.item"),
        Columns(format="tsv", header=False), md5="0e33842e24a9c977be4e0107933c0723",
    ),
    _amazon("amazon-beauty", "Amazon Beauty reviews, to 2014", "Beauty", (52_024, 57_289, 394_908), ()),
    _amazon(
        "amazon-games", "Amazon Video Games reviews, to 2014", "Video_Games", (31_013, 23_715, 287_107),
        ("amazon-games-sasrec",),
    ),
    Dataset(
        name="steam",
        title="Steam reviews of games, 2010-2018",
        url="https://cseweb.ucsd.edu/~wckang/steam_reviews.json.gz",
        file="steam_reviews.json.gz",
        licence="UCSD (McAuley, Kang): research use, cite Kang & McAuley 2018",
        log="steam_reviews.json.gz",
        read_log=publishers.steam_reviews,
    ),
)  # fmt: skip
DATASETS = {dataset.name: dataset for dataset in _ALL}


def load_dataset(
    name: str,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    download_progress: DownloadProgress | None = None,
    changes: Mapping[str, Any] | None = None,
) -> SequenceStore:
    """Find or download a dataset and prepare it as the SASRec paper does.

    Args:
        name: a name of `DATASETS`, or a folder of $ENSUE_DATA with `interactions.parquet`; such a log is not filtered,
            and its event features event, split and period are kept.
        out: the folder of the store, or None to stay in memory.
        overwrite: as in `prepare`.
        progress: as in `prepare`.
        download_progress: as in `download`.
        changes: settings that differ from the dataset's own preparation.

    Raises:
        ConfigError: an unknown name or setting.
        DataError: the dataset is neither on this machine nor can it be downloaded.
        ArtefactError: a file differs from the published one, or `out` cannot be written or replaced.
    """
    out = None if out is None else Path(out)
    dataset = DATASETS.get(name)
    changes = changes or {}
    if (own := _own_folder(name)) is not None:
        log = own / _LOG
        chosen = _changed(_AS_IS if dataset is None else SASREC, changes)
        return prepare(log, out, _own_columns(log), chosen, _described(own), overwrite, progress)[0]
    if dataset is None:
        raise ConfigError(f"unknown dataset {name!r}: {nearest(name, [*DATASETS, *local_names()])}")
    if (filtered := _filtered_folder(dataset)) is not None:
        return load_dataset(filtered.name, out, overwrite, progress, changes=changes)
    with tempfile.TemporaryDirectory(prefix="ensue-") as scratch:
        source, items = _publisher_files(dataset, Path(scratch), download_progress)
        columns = dataset.columns if dataset.read_log is None else None
        return prepare(source, out, columns, _changed(SASREC, changes), items, overwrite, progress)[0]


def folder_of(dataset: Dataset) -> Path | None:
    """The folder from which `load_dataset` reads a dataset; None if it must be downloaded."""
    return _own_folder(dataset.name) or _filtered_folder(dataset) or _published(dataset)


def _changed(own: PrepareConfig, changes: Mapping[str, Any]) -> PrepareConfig:
    """A dataset's own preparation with some settings changed; filter "none" also removes its own minima."""
    if changes.get("filter") == "none":
        own = own.replace(min_user_events=1, min_item_events=1)
    return own.replace(**changes)


def data_folder() -> Path | None:
    """The folder named by ENSUE_DATA, if set."""
    named = os.environ.get("ENSUE_DATA")
    return Path(named) if named else None


def local_names() -> list[str]:
    """The folders of $ENSUE_DATA that `load_dataset` can prepare."""
    local = data_folder()
    return sorted(path.parent.name for path in local.glob(f"*/{_LOG}")) if local is not None else []


def _own_folder(name: str) -> Path | None:
    """The folder of $ENSUE_DATA with this name, if it contains a log."""
    local = data_folder()
    return local / name if local is not None and (local / name / _LOG).is_file() else None


def _filtered_folder(dataset: Dataset) -> Path | None:
    """The folder of $ENSUE_DATA with the dataset's filtered log, unless there is one under the dataset's own name."""
    local = data_folder()
    if local is None or (local / dataset.name).is_dir():
        return None
    return next((folder for name in dataset.prepared if (folder := _own_folder(name)) is not None), None)


def _own_columns(log: Path) -> Columns:
    present = open_table(log).names
    return Columns(
        user="user_id",
        item="item_id",
        time="timestamp" if "timestamp" in present else "-",
        features=tuple(name for name in ("event", "split", "period") if name in present),
    )


def _described(folder: Path) -> Path | None:
    return folder / _ITEMS if (folder / _ITEMS).is_file() else None


def _publisher_files(
    dataset: Dataset, scratch: Path, progress: DownloadProgress | None
) -> tuple[Source, Source | None]:
    """The log and the item table, from $ENSUE_DATA, from the cache, or from the publisher."""
    folder = _published(dataset) or _fetch(dataset, progress)
    if not (folder / dataset.log).is_file():
        check_download(folder / dataset.file, dataset.md5)
        publishers.unzip(folder / dataset.file, dataset.members, scratch)
        folder = scratch
    log = folder / dataset.log
    check_download(log, dataset.log_md5)
    items = None
    if dataset.described and (folder / dataset.described).is_file():
        items = folder / dataset.described
    return (dataset.read_log(log) if dataset.read_log is not None else log), items


def _places(dataset: Dataset) -> list[Path]:
    local = data_folder()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ensue" / dataset.name
    return [cache] if local is None else [local / dataset.name, cache]


def _published(dataset: Dataset) -> Path | None:
    """The folder with the publisher's log, or else with the archive that contains it."""
    held = ((file, folder) for file in (dataset.log, dataset.file) for folder in _places(dataset))
    return next((folder for file, folder in held if (folder / file).is_file()), None)


def _fetch(dataset: Dataset, progress: DownloadProgress | None) -> Path:
    """Download into $ENSUE_DATA if it is writable, otherwise into the cache."""
    places = _places(dataset)
    local = data_folder()
    writable = local is not None and os.access(local, os.W_OK)
    folder = places[0] if writable else places[-1]
    try:
        download(dataset.url, folder / dataset.file, dataset.md5, progress)
    except UnreachableError as error:
        raise DataError(
            f"{dataset.name}: {error}: put {dataset.file} from {dataset.url} into $ENSUE_DATA/{dataset.name}"
        ) from None
    except OSError as error:
        raise DataError(
            f"{dataset.name}: cannot write {folder / dataset.file} ({error.strerror or error}): name another folder in "
            "ENSUE_DATA or XDG_CACHE_HOME"
        ) from None
    return folder
