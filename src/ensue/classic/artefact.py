"""The run folder of an imported `.pth` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ensue.classic.pth import Imported
from ensue.classic.settings import REPORTED
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.transitions import fit_popularity
from ensue.data.vocabulary import Vocabulary
from ensue.evaluation.evaluate import EvaluateConfig
from ensue.files import sha256
from ensue.runs.artefact import Run, item_table, save_run
from ensue.runs.config import RunConfig


def save_import(folder: Path, found: Imported, file: Path, store: SequenceStore | None = None) -> Run:
    """Write a run folder.

    Args:
        folder: where to.
        found: the model.
        file: the `.pth` file; without data its hash stands for the data's fingerprint.
        store: the data it was trained on. Without it the items are 1..N, and none is more popular than another.

    Returns:
        The run that was written.
    """
    config = RunConfig(model=found.config, evaluate=EvaluateConfig(protocol="uniform-100", metrics=REPORTED))
    digest = sha256(file)
    if store is None:
        item_ids = Vocabulary.of_range(len(found.model.state_dict()["items.weight"]) - 1)
        items = pl.DataFrame({"id": item_ids.ids, "events": np.zeros(len(item_ids), dtype=np.int64)})
        run = Run(config, found.model, item_ids, items, f"file-{digest}", None)
    else:
        items = item_table(store, fit_popularity(make_split(store, SplitConfig()).train))
        run = Run(config, found.model, store.item_ids, items, store.fingerprint, store.folder)
    save_run(folder, run, [{"imported from": file.name, "sha256": digest}])
    return run
