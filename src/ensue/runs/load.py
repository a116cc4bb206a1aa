"""Open a run folder. Files are checked against the manifest before anything in them is parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ensue.data.features import Feature, parse_features
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ArtefactError
from ensue.files import MANIFEST, check_files, read_json, read_manifest
from ensue.models import Catalogue, CountedModel, Model, build_model, features_of
from ensue.models.base import model_size
from ensue.models.size import LOADING
from ensue.runs.config import RunConfig
from ensue.runs.folder import (
    ARTEFACT,
    CONFIG,
    FEATURES,
    ITEMS,
    KIND,
    LOG,
    MODEL,
    SCHEMA_VERSION,
    VOCABULARY,
    is_begun,
)
from ensue.runs.run import Run
from ensue.runs.swap import claimed, is_swap_pending, swap
from ensue.runs.tensors import ENTRY_BYTES, read_tensors

# Seconds to wait while a run is being replaced.
PATIENCE = 30.0


def load_run(folder: str | Path) -> Run:
    """Open a run folder.

    Raises:
        ArtefactError: a file is missing, altered, truncated or foreign, or does not match the configuration.
        ConfigError: the model needs more memory than this machine has, or has too many tensors.
    """
    folder = Path(folder)
    if is_swap_pending(folder) and not (folder / MANIFEST).exists():
        with claimed(folder, PATIENCE):
            if is_swap_pending(folder):
                swap(folder)
    if not (folder / MANIFEST).exists() and is_begun(folder):
        raise ArtefactError(
            f"{folder}: the training has not finished: repeat the command to continue it, or add --finish "
            "(finish=True) to write the run from its best state so far"
        )
    about = read_manifest(folder, KIND, SCHEMA_VERSION)
    check_files(folder, about, [*ARTEFACT, LOG])
    config = RunConfig.read_toml(folder / CONFIG)
    item_ids = Vocabulary.read(folder / VOCABULARY)
    items = pl.read_parquet(folder / ITEMS, glob=False)
    if items.height != len(item_ids):
        raise ArtefactError(f"{folder / ITEMS}: {items.height} rows for {len(item_ids)} items of {VOCABULARY}")
    users = about.get("users", 0)
    if type(users) is not int or users < 0:
        raise ArtefactError(f"{folder / MANIFEST}: users must be a number of 0 or more (got {users!r})")
    features = _read_features(folder, about, config)
    widths = _vector_widths(folder, about)
    # The model's file contains the vectors; a view of one zero has their shape.
    zeros = {name: np.broadcast_to(np.float32(0), (len(item_ids), width)) for name, width in widths.items()}
    model = _read_model(folder / MODEL, config, Catalogue(len(item_ids), items, users, features, zeros))
    store, fingerprint = Path(about["store"]) if about.get("store") else None, str(about.get("fingerprint"))
    made = about["made"] if isinstance(about.get("made"), dict) else {}
    return Run(config, model, item_ids, items, fingerprint, store, users, features, widths, made)


def _read_features(folder: Path, about: dict[str, Any], config: RunConfig) -> tuple[Feature, ...]:
    """The features that the configured model reads."""
    names = [*parse_features(features_of(config.model))]
    if not names:
        return ()
    check_files(folder, about, [FEATURES])
    content = read_json(folder / FEATURES)
    features = tuple(Feature.from_dict(each) for each in content) if isinstance(content, list) else ()
    if [feature.name for feature in features] != names:
        raise ArtefactError(f"{folder / FEATURES}: does not describe the configured features {', '.join(names)}")
    return features


def _vector_widths(folder: Path, about: dict[str, Any]) -> dict[str, int]:
    widths = about.get("vectors", {})
    if not isinstance(widths, dict) or not all(type(width) is int and 0 < width < 1 << 20 for width in widths.values()):
        raise ArtefactError(f"{folder / MANIFEST}: the widths of vectors must be positive numbers (got {widths!r})")
    return widths


def _read_model(path: Path, config: RunConfig, catalogue: Catalogue) -> Model:
    size, in_file = model_size(config.model, catalogue), path.stat().st_size
    entries = size.tensors * ENTRY_BYTES
    if size.state_bytes + entries > in_file:
        raise ArtefactError(
            f"{path}: its {in_file:,} bytes cannot hold the configured model: {size.tensors:,} tensors of "
            f"{size.state_bytes:,} bytes in all"
        )
    model = build_model(config.model, catalogue, LOADING)
    tensors = read_tensors(path, None if isinstance(model, CountedModel) else model.state_dict())
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtefactError(f"{path}: does not match the configuration ({error})") from None
    return model.eval()
