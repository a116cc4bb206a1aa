"""Add an evaluation to a run folder: the per-user table, the means, the card and the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ensue.data.store import SequenceStore
from ensue.errors import ArtefactError
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.standings import Standings
from ensue.files import check_files, check_place, read_manifest, write_json
from ensue.runs.config import RunConfig
from ensue.runs.folder import ARTEFACT, CONFIG, KIND, LOG, METRICS, MODEL, SCHEMA_VERSION
from ensue.runs.load import load_run
from ensue.runs.log import read_log
from ensue.runs.results import kept_metrics, read_metrics, write_table
from ensue.runs.run import Run
from ensue.runs.save import seal, write_card
from ensue.runs.swap import claimed
from ensue.runs.tensors import digest

# Seconds to wait while another process adds an evaluation.
PATIENCE = 30.0


def check_evaluated(folder: Path, run: Run, key: str) -> None:
    """Check that an evaluation can be added to a folder: it contains this run, and no earlier results would be lost.

    Args:
        folder: the run folder.
        run: the run that is evaluated.
        key: `<part>/<config.key>` of the evaluation.

    Raises:
        ArtefactError: the folder contains no run, a damaged run or another run; `metrics.json` was altered; or the
            folder is not writable.
        TrainingError: a training is writing into the folder.
    """
    about = read_manifest(folder, KIND, SCHEMA_VERSION)
    check_files(folder, about, [*ARTEFACT, LOG])
    config = RunConfig.read_toml(folder / CONFIG)
    same_settings = (run.config.to_toml(), run.fingerprint) == (config.to_toml(), about.get("fingerprint"))
    if not (same_settings and _is_same_model(folder, about["sha256"][MODEL], run)):
        raise ArtefactError(f"{folder}: contains another run than the one that was evaluated: evaluate it again")
    kept_metrics(folder, key)
    check_place(folder / METRICS)
    with claimed(folder, PATIENCE):
        pass


def _is_same_model(folder: Path, recorded: str, run: Run) -> bool:
    """Whether the run's tensors equal those in the folder, by hash or, failing that, by value.

    Another version of safetensors may write the same tensors as different bytes.
    """
    own = run.model.state_dict()
    if digest(own) == recorded:
        return True
    kept = load_run(folder).model.state_dict()
    return own.keys() == kept.keys() and all(torch.equal(tensor.cpu(), kept[name]) for name, tensor in own.items())


def save_evaluation(
    folder: Path,
    run: Run,
    store: SequenceStore,
    part: str,
    config: EvaluateConfig,
    standings: Standings,
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the per-user table and add the means to `metrics.json`, to the card, and to the manifest.

    Args:
        folder: the run folder.
        run: the run.
        store: the data evaluated on.
        part: "test" or "validation".
        config: protocol and metrics.
        standings: the results.
        further: what else the entry says, as JSON values.

    Returns:
        The entry added to `metrics.json` under `<part>/<config.key>`.

    Raises:
        ArtefactError: as `check_evaluated`.
        TrainingError: a training is writing into the folder.
    """
    with claimed(folder, PATIENCE):
        check_evaluated(folder, run, f"{part}/{config.key}")
        entry = write_table(folder, store, part, config, standings, run.items["events"].to_numpy(), further)
        results = {**read_metrics(folder), f"{part}/{config.key}": entry}
        write_json(folder / METRICS, results)
        write_card(folder, run, results, read_log(folder / LOG))
        seal(folder, run)
    return entry
