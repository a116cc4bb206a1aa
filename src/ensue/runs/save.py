"""Write a run folder: its files, then their manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ensue import __version__
from ensue.files import atomic_path, sha256, write_json, write_manifest, write_text
from ensue.runs.card import model_card
from ensue.runs.folder import (
    ARTEFACT,
    CARD,
    CONFIG,
    FEATURES,
    ITEMS,
    KIND,
    LOG,
    METRICS,
    MODEL,
    SCHEMA_VERSION,
    VOCABULARY,
    check_same_run,
)
from ensue.runs.log import Records
from ensue.runs.results import kept_metrics
from ensue.runs.run import Run
from ensue.runs.swap import claimed
from ensue.runs.tensors import write_tensors


def save_run(folder: Path, run: Run, log: Records | None = None) -> None:
    """Write the run's files, then its manifest. Evaluations of the same model in the folder are kept.

    Args:
        folder: the folder; created if missing. It must be empty or contain a run of the same data and settings.
        run: the run.
        log: the records of training, for the card and `log.jsonl`; None keeps an existing log.

    Raises:
        ArtefactError: the folder contains files that ensue did not create, or an evaluation that was altered.
        OtherRunError: the folder contains a run of other data or settings.
        TrainingError: another training is writing into the folder.
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
        if run.features:
            write_json(folder / FEATURES, [feature.as_dict() for feature in run.features])
        if not (folder / LOG).exists() or log is not None:
            write_text(folder / LOG, "".join(json.dumps(record) + "\n" for record in log or []))
        write_json(folder / METRICS, results)
        write_card(folder, run, results, log or [])
        seal(folder, run)


def seal(folder: Path, run: Run) -> None:
    """Write the manifest of the run's files."""
    names = [*ARTEFACT, *([FEATURES] if run.features else []), METRICS, LOG, CARD]
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
            "users": run.num_users,
            "vectors": dict(run.vector_widths),
            "fingerprint": run.fingerprint,
            "store": None if run.store is None else str(run.store),
            "made": {name: run.made[name] for name in ("source", "columns", "config") if name in run.made},
        },
    )


def write_card(folder: Path, run: Run, results: dict[str, Any], log: Records) -> None:
    """Write the run's card."""
    write_text(folder / CARD, model_card(run.config, len(run.item_ids), run.fingerprint, results, log))
