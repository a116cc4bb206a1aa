"""The evaluations of a run: `metrics.json`, and a per-user table for each evaluation.

Suffixes: `B` cases, `N` items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ensue.data.store import SequenceStore
from ensue.errors import ArtefactError
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.standings import Standings
from ensue.files import atomic_path, check_files, read_json, read_manifest, sha256
from ensue.runs.folder import KIND, METRICS, SCHEMA_VERSION


def write_table(
    folder: Path,
    store: SequenceStore,
    part: str,
    config: EvaluateConfig,
    standings: Standings,
    events_N: np.ndarray,
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write an evaluation's per-user table; return its entry for `metrics.json`, under `<part>/<config.key>`.

    Args:
        folder: the run folder.
        store: the data evaluated on.
        part: "test" or "validation".
        config: protocol and metrics.
        standings: the results.
        events_N: the number of training events of each item, [N].
        further: what else the entry says, as JSON values.
    """
    table = f"per_user-{part}-{config.key}.parquet"
    with atomic_path(folder / table) as path:
        per_user_table(store, config, standings).write_parquet(path)
    entry = {
        "part": part,
        "protocol": config.protocol,
        "settings": config.model_dump(mode="json"),
        "users": len(np.unique(standings.users_B)),
        "cases": len(standings.users_B),
        "targets_in_history": int(standings.repeated_B.sum()),
        "targets_untrained": int((events_N[standings.targets_B - 1] == 0).sum()),
        "tied": float((standings.equal_B > 0).mean()),
        "metrics": standings.means(config),
        "groups": standings.group_means(config),
        "fingerprint": store.fingerprint,
        "per_user": table,
        "per_user_sha256": sha256(folder / table),
        **(further or {}),
    }
    return {**entry, "sha256": _digest(f"{part}/{config.key}", entry)}


def per_user_table(store: SequenceStore, config: EvaluateConfig, standings: Standings) -> pl.DataFrame:
    """One row per case: user, target, better, equal, candidates, rank, every metric and every group."""
    columns: dict[str, Any] = {
        "user": pl.Series(store.users.decode(standings.users_B + 1)),
        "target": pl.Series(store.item_ids.decode(standings.targets_B)),
        "better": standings.better_B,
        "equal": standings.equal_B,
        "candidates": standings.candidates_B,
        "rank": standings.rank_B,
    }
    return pl.DataFrame(columns | standings.columns(config) | dict(standings.groups))


def read_metrics(folder: Path) -> dict[str, Any]:
    """The evaluations so far.

    An evaluation that was interrupted leaves `metrics.json` newer than the manifest. In that case an entry is valid if
    it and its per-user table match the hashes in it.

    Raises:
        ArtefactError: the file was altered and is not a JSON object.
    """
    if not (folder / METRICS).is_file():
        return {}
    results = read_json(folder / METRICS)
    if not isinstance(results, dict):
        raise ArtefactError(f"{folder / METRICS}: not a JSON object of evaluations")
    try:
        check_files(folder, read_manifest(folder, KIND, SCHEMA_VERSION), [METRICS])
    except ArtefactError:
        return {key: entry for key, entry in results.items() if _agrees(folder, key, entry)}
    return results


def kept_metrics(folder: Path, replaced: str | None) -> dict[str, Any]:
    """The evaluations so far, for writing them back; all must be valid, except one that will be `replaced`.

    Raises:
        ArtefactError: an evaluation was altered, and writing the others back would drop it.
    """
    valid = read_metrics(folder)
    recorded = read_json(folder / METRICS) if (folder / METRICS).is_file() else {}
    if lost := sorted(set(recorded) - valid.keys() - {replaced}):
        raise ArtefactError(
            f"{folder / METRICS}: was altered: {lost[0]!r} or its per-user table is not what ensue wrote. "
            "Run that evaluation again, or move the file away"
        )
    return valid


def table_path(folder: Path, entry: Mapping[str, Any]) -> Path:
    """The path of an evaluation's per-user table; always inside the run folder, whatever the entry says."""
    return folder / Path(entry["per_user"]).name


def _digest(key: str, entry: Mapping[str, Any]) -> str:
    """The SHA-256 of an evaluation's key and content."""
    content = {name: value for name, value in entry.items() if name != "sha256"}
    return hashlib.sha256(json.dumps([key, content], sort_keys=True).encode()).hexdigest()


def _agrees(folder: Path, key: str, entry: Any) -> bool:
    """Whether an evaluation and its per-user table match their hashes."""
    try:
        if entry["sha256"] != _digest(key, entry):
            return False
        return bool(sha256(table_path(folder, entry)) == entry["per_user_sha256"])
    except (KeyError, TypeError, AttributeError, OSError):
        return False
