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
from ensue.evaluation.protocol import EvaluateConfig
from ensue.files import sha256
from ensue.runs.config import RunConfig
from ensue.runs.run import Run, item_table
from ensue.runs.save import save_run


def save_import(folder: Path, imported: Imported, file: Path, store: SequenceStore | None = None) -> Run:
    """Write an imported model as a run folder.

    Args:
        folder: the folder to write.
        imported: the model.
        file: the `.pth` file. Without data, its hash replaces the data's fingerprint.
        store: the data it was trained on. Without it the items are 1..N, with a popularity of 0 each.

    Returns:
        The run.
    """
    config = RunConfig(model=imported.config, evaluate=EvaluateConfig(protocol="uniform-100", metrics=REPORTED))
    digest = sha256(file)
    if store is None:
        item_ids = Vocabulary.of_range(len(imported.model.state_dict()["items.weight"]) - 1)
        items = pl.DataFrame({"id": item_ids.ids, "events": np.zeros(len(item_ids), dtype=np.int64)})
        run = Run(config, imported.model, item_ids, items, f"file-{digest}", None)
    else:
        items = item_table(store, fit_popularity(make_split(store, SplitConfig()).train))
        run = Run(config, imported.model, store.item_ids, items, store.fingerprint, store.folder)
    save_run(folder, run, [{"imported from": file.name, "sha256": digest}])
    return run
