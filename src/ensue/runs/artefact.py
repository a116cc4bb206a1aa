"""The run folder: everything that serving needs, under one manifest.

`config.toml, model.safetensors, vocabulary.parquet, items.parquet, metrics.json, log.jsonl, card.md, manifest.json`.
Files are checked against the manifest before anything in them is parsed; tensors are checked against the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ensue import __version__
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ArtefactError, DataError
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.standings import Standings
from ensue.files import (
    MANIFEST,
    atomic_path,
    check_files,
    check_place,
    read_manifest,
    sha256,
    write_json,
    write_manifest,
    write_text,
)
from ensue.models import Catalogue, CountedModel, Model, build_model
from ensue.models.base import model_size
from ensue.models.popularity import Popularity
from ensue.models.size import LOADING
from ensue.runs.card import model_card
from ensue.runs.checkpoint import write_tensors
from ensue.runs.config import RunConfig
from ensue.runs.folder import (
    ARTEFACT,
    CARD,
    CONFIG,
    ITEMS,
    KIND,
    LOG,
    METRICS,
    MODEL,
    SCHEMA_VERSION,
    VOCABULARY,
    check_same_run,
    claimed,
    is_begun,
)
from ensue.runs.log import Records, read_log
from ensue.runs.results import kept_metrics, read_metrics, write_table

# The least and the most that the header says of a tensor: {"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}, and
# a name of 100 letters with a shape and offsets of the largest numbers.
ENTRY_BYTES, ENTRY_LIMIT = 48, 256
# The header's bytes for a model whose tensors the configuration does not tell: one that counts, of few.
HEADER_LIMIT = 1 << 20
# What the models of this release are made of.
KINDS = (torch.float32, torch.float64, torch.int32, torch.int64)
# Seconds that an evaluation waits for another one that is being added.
PATIENCE = 30.0


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model with what belongs to it.

    Attributes:
        config: the run's settings.
        model: the scorer, in evaluation mode.
        item_ids: external ids of the items 1..N.
        items: N rows: id, title, category and more where known, and `events`, the item's training events.
        fingerprint: of the data it was trained on.
        store: the folder of that data, as it was given; None if it was in memory.
    """

    config: RunConfig
    model: Model
    item_ids: Vocabulary
    items: pl.DataFrame
    fingerprint: str
    store: Path | None

    @cached_property
    def titles(self) -> list[str | None] | None:
        """`titles[number]` is the item's title (None at 0 and where unknown); None without titles."""
        return [None, *self.items["title"].to_list()] if "title" in self.items.columns else None

    @cached_property
    def popularity_N(self) -> Tensor:
        """What newcomers are served by: training events of every item, float32 [N]; a popularity model's own."""
        if isinstance(self.model, Popularity):
            return self.model.counts_N.float()
        return torch.from_numpy(self.items["events"].to_numpy().astype(np.float32))

    def check_data(self, store: SequenceStore) -> None:
        """Refuse data that this run was not trained on.

        Raises:
            DataError: the fingerprints differ.
        """
        if store.fingerprint != self.fingerprint:
            raise DataError(
                f"this run was trained on data {self.fingerprint[:12]}..., and this store is {store.fingerprint[:12]}: "
                "item numbers would not agree"
            )


def save_run(folder: Path, run: Run, log: Records | None = None) -> None:
    """Write the run's files and, last, its manifest. An interrupted save leaves no manifest, or the old one's mismatch.

    Evaluations of the same model that are in the folder stay.

    Args:
        folder: where to; made if missing. It must be new, empty, or a run's of the same data and settings.
        run: what to write.
        log: the records of training, for the card and `log.jsonl` if that is not there yet.

    Raises:
        ArtefactError: the folder holds something that is no run's, or an evaluation that was altered.
        OtherRunError: the folder holds a run of other data or settings.
        TrainingError: a training writes there.
    """
    with claimed(folder):
        check_same_run(folder, run.config, run.fingerprint)
        before = sha256(folder / MODEL) if (folder / MODEL).is_file() else None
        run.config.write_toml(folder / CONFIG)
        with atomic_path(folder / MODEL) as path:
            write_tensors(run.model.state_dict(), path)
        results = kept_metrics(folder, None) if sha256(folder / MODEL) == before else {}
        run.item_ids.write(folder / VOCABULARY)
        with atomic_path(folder / ITEMS) as path:
            run.items.write_parquet(path)
        if not (folder / LOG).exists() or log is not None:
            write_text(folder / LOG, "".join(json.dumps(record) + "\n" for record in log or []))
        write_json(folder / METRICS, results)
        _write_card(folder, run, results, log or [])
        _seal(folder, run)


def load_run(folder: str | Path) -> Run:
    """Open a run folder.

    Raises:
        ArtefactError: a file is missing, altered, truncated or foreign, or does not fit the configuration.
        ConfigError: the model needs more memory than there is, or has too many tensors.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists() and is_begun(folder):
        raise ArtefactError(f"{folder}: a training there has not finished yet; the same command goes on with it")
    about = read_manifest(folder, KIND, SCHEMA_VERSION)
    check_files(folder, about, [*ARTEFACT, LOG])
    config = RunConfig.read_toml(folder / CONFIG)
    item_ids = Vocabulary.read(folder / VOCABULARY)
    items = pl.read_parquet(folder / ITEMS, glob=False)
    if items.height != len(item_ids):
        raise ArtefactError(f"{folder / ITEMS}: {items.height} rows for {len(item_ids)} items of {VOCABULARY}")
    model = _read_model(folder / MODEL, config, Catalogue(len(item_ids), items))
    store = about.get("store")
    return Run(config, model, item_ids, items, str(about.get("fingerprint")), Path(store) if store else None)


def finished_run(folder: Path, config: RunConfig, fingerprint: str) -> Run | None:
    """The run in a folder, if it is complete and of this data and these settings; None if there is none.

    Raises:
        OtherRunError: it is of other data or settings; the differences are named.
        ArtefactError: it is damaged, or something else.
    """
    check_same_run(folder, config, fingerprint)
    return load_run(folder) if (folder / MANIFEST).exists() else None


def _read_model(path: Path, config: RunConfig, catalogue: Catalogue) -> Model:
    size, there = model_size(config.model, catalogue), path.stat().st_size
    entries = size.tensors * ENTRY_BYTES
    if size.state_bytes + entries > there:
        raise ArtefactError(
            f"{path}: its {there:,} bytes cannot hold the configured model: {size.tensors:,} tensors of "
            f"{size.state_bytes:,} bytes in all"
        )
    model = build_model(config.model, catalogue, LOADING)
    tensors = read_tensors(path, None if isinstance(model, CountedModel) else model.state_dict())
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtefactError(f"{path}: does not fit the configuration ({error})") from None
    return model.eval()


def read_tensors(path: Path, expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Read a safetensors file whose names, shapes and types must be those of `expected`.

    Args:
        path: the file.
        expected: tensors of the right names, shapes and types; None for a model whose tensors vary in size.

    Raises:
        ArtefactError: not such a file, or a value that is NaN or infinite.
    """
    with path.open("rb") as handle:
        header = int.from_bytes(handle.read(8), "little")
    most = HEADER_LIMIT if expected is None else ENTRY_LIMIT * len(expected)
    if not 2 <= header <= min(most, path.stat().st_size - 8):
        raise ArtefactError(f"{path}: a header of {header:,} bytes; not a model of this release, or truncated")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ArtefactError(f"{path}: not valid safetensors ({error})") from None
    if expected is not None:
        if tensors.keys() != expected.keys():
            odd = sorted(tensors.keys() ^ expected.keys())
            raise ArtefactError(f"{path}: its tensors are not those of the configured model; they differ in {odd[:5]}")
        for name, tensor in tensors.items():
            want = expected[name]
            if tensor.shape != want.shape or tensor.dtype != want.dtype:
                raise ArtefactError(
                    f"{path}: tensor {name!r} is {list(tensor.shape)} {tensor.dtype}, the configuration says "
                    f"{list(want.shape)} {want.dtype}"
                )
    for name, tensor in tensors.items():
        if tensor.dtype not in KINDS:
            raise ArtefactError(f"{path}: tensor {name!r} is {tensor.dtype}, which no model of this release is made of")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtefactError(f"{path}: tensor {name!r} has a value that is NaN or infinite")
    return tensors


def item_table(store: SequenceStore, events_N: np.ndarray) -> pl.DataFrame:
    """The store's item table with the column `events`, training events of each item [N]."""
    return store.item_table.with_columns(pl.Series("events", events_N.astype(np.int64)))


def check_evaluated(folder: Path, run: Run, key: str) -> None:
    """Make sure that an evaluation may be added to a folder: it holds this very run, and no results would be lost.

    Args:
        folder: the run folder.
        run: the run that is evaluated.
        key: `<part>/<config.key>` of the evaluation.

    Raises:
        ArtefactError: the folder holds no run, a damaged or another one; `metrics.json` was altered; or nothing may be
            written there.
        TrainingError: a training writes there.
    """
    there = load_run(folder)
    here, kept = run.model.state_dict(), there.model.state_dict()
    same = (run.config.to_toml(), run.fingerprint) == (there.config.to_toml(), there.fingerprint)
    same = same and here.keys() == kept.keys()
    if not (same and all(torch.equal(tensor.cpu(), kept[name]) for name, tensor in here.items())):
        raise ArtefactError(f"{folder}: holds another run than the one that is evaluated")
    kept_metrics(folder, key)
    check_place(folder / METRICS)
    with claimed(folder, PATIENCE):
        pass


def save_evaluation(
    folder: Path, run: Run, store: SequenceStore, part: str, config: EvaluateConfig, standings: Standings
) -> dict[str, Any]:
    """Write the per-user table and add the means to `metrics.json`, to the card, and to the manifest.

    Args:
        folder: the run folder.
        run: the run.
        store: the data evaluated on.
        part: "test" or "validation".
        config: protocol and metrics.
        standings: the results.

    Returns:
        What was added to `metrics.json` under `<part>/<config.key>`.

    Raises:
        ArtefactError: as `check_evaluated`.
        TrainingError: a training writes into the folder.
    """
    check_evaluated(folder, run, f"{part}/{config.key}")
    with claimed(folder, PATIENCE):
        return _add_evaluation(folder, run, store, part, config, standings)


def _add_evaluation(
    folder: Path, run: Run, store: SequenceStore, part: str, config: EvaluateConfig, standings: Standings
) -> dict[str, Any]:
    entry = write_table(folder, store, part, config, standings)
    results = {**read_metrics(folder), f"{part}/{config.key}": entry}
    write_json(folder / METRICS, results)
    _write_card(folder, run, results, read_log(folder / LOG))
    _seal(folder, run)
    return entry


def _seal(folder: Path, run: Run) -> None:
    names = [*ARTEFACT, METRICS, LOG, CARD]
    write_manifest(
        folder,
        names,
        {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "ensue": __version__,
            "torch": torch.__version__,
            "model": run.config.model.name,
            "items": len(run.item_ids),
            "fingerprint": run.fingerprint,
            "store": None if run.store is None else str(run.store),
        },
    )


def _write_card(folder: Path, run: Run, results: dict[str, Any], log: Records) -> None:
    write_text(folder / CARD, model_card(run.config, len(run.item_ids), run.fingerprint, results, log))
