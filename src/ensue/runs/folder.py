"""The folder of a run: its files, and the checks that it contains the expected run."""

from __future__ import annotations

import math
import re
from pathlib import Path

from ensue.errors import ArtefactError, OtherRunError
from ensue.files import MANIFEST, check_files, read_manifest
from ensue.runs import checkpoint
from ensue.runs.config import RunConfig, TrainConfig, differences
from ensue.runs.lock import LOCK, is_marked

KIND, SCHEMA_VERSION = "run", 1
CONFIG, MODEL, VOCABULARY, ITEMS = "config.toml", "model.safetensors", "vocabulary.parquet", "items.parquet"
METRICS, LOG, CARD = "metrics.json", "log.jsonl", "card.md"
ARTEFACT = (CONFIG, MODEL, VOCABULARY, ITEMS)
# Only in the folder of a model that reads features.
FEATURES = "features.json"
CHECKPOINTS, TENSORBOARD, INSPECT, STORE = "checkpoints", "tensorboard", "inspect", "store"
# NEXT: an unfinished run that will replace the folder's own. READY: a finished one that is being moved into place.
NEXT, READY = "next", "ready"
# Settings that do not affect the result of a run, so they may differ when the same command is repeated.
FREE_TO_CHANGE = ("checkpoint_minutes",)
# Limits of a training, which a larger value continues. A patience or a time of 0 is no limit.
LIMITS = ("num_epochs", "patience", "patience_steps", "max_minutes")

_PICTURE = r"[a-z_]+\.(svg|png)"
_NAMED = "|".join(map(re.escape, (*ARTEFACT, FEATURES, METRICS, LOG, CARD, MANIFEST)))
_FILES = rf"{_NAMED}|per_user-[a-z0-9+-]+\.parquet"
# Temporary files of `atomic_path` and of safetensors.
TEMPORARY = re.compile(rf"\.({_FILES}|{_PICTURE})\.\d+\.tmp|\.tmp[A-Za-z0-9]{{6}}")
_FILE = re.compile(rf"{_FILES}|learning_curve\.(svg|png)|{TEMPORARY.pattern}")
_INSIDE = {
    CHECKPOINTS: re.compile(r"\d{10}|\.\d{10}\.tmp"),
    TENSORBOARD: re.compile(r"events\.out\.tfevents\..+"),
    INSPECT: re.compile(rf"inspect\.json|{_PICTURE}|\.(inspect\.json|{_PICTURE})\.\d+\.tmp"),
}


def check_writable(folder: Path) -> None:
    """Check that a run may be written into a folder: it is missing, empty, or contains a run (finished or not).

    Raises:
        ArtefactError: it is a file, or contains files that ensue did not create; the message names one.
    """
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise ArtefactError(f"{folder}: is a file, but a run is a folder: choose another path")
        return
    if (folder / MANIFEST).exists():
        try:
            read_manifest(folder, KIND, SCHEMA_VERSION)
        except ArtefactError as error:
            raise ArtefactError(f"{error}; nothing was written: choose another folder") from None
    elif not is_begun(folder):
        others = sorted(folder.iterdir())
        if others:
            raise ArtefactError(
                f"{folder} is not a run folder: ensue did not create {others[0].name}; choose a new or an empty one"
            )


def check_same(
    folder: Path | None, config: RunConfig, fingerprint: str, then: RunConfig, then_fingerprint: str
) -> None:
    """Check that a folder's run has this data and these settings, or the same with smaller limits.

    Args:
        folder: the folder, for the message; with several ranks only rank 0 may have one.
        config: the current settings.
        fingerprint: of the current data.
        then: the settings of the run in the folder; settings added to ensue since then have their defaults.
        then_fingerprint: of the data of the run in the folder.

    Raises:
        OtherRunError: they differ; the message names the differences.
    """
    same = [*FREE_TO_CHANGE, *(name for name in LIMITS if _limit(config.train, name) >= _limit(then.train, name))]
    then = then.replace(train=then.train.replace(**{name: getattr(config.train, name) for name in same}))
    changed = differences(config.model_dump(mode="json"), then.model_dump(mode="json"))
    if then_fingerprint != fingerprint:
        changed.insert(0, f"data: fingerprint {fingerprint} now, {then_fingerprint} then")
    if changed:
        raise OtherRunError(
            f"{folder} contains a run with other data or settings: {'; '.join(changed)}. "
            "Use the same ones, choose another folder, or replace the run (ensue train: --overwrite)."
        )


def is_longer(config: TrainConfig, then: TrainConfig) -> bool:
    """Whether a limit of the training is larger in `config` than in `then`; one that is not given is not."""
    given = [name for name in LIMITS if getattr(config, name) is not None]
    return any(_limit(config, name) > _limit(then, name) for name in given)


def _limit(config: TrainConfig, name: str) -> float:
    value = float(getattr(config, name) or 0)
    return math.inf if name in ("patience", "max_minutes") and value == 0 else value


def check_same_run(folder: Path, config: RunConfig, fingerprint: str) -> None:
    """`check_same` for the finished run in a folder, if there is one.

    Raises:
        OtherRunError: it has other data or settings.
        ArtefactError: it is damaged, or the folder is not a run folder.
    """
    if (folder / MANIFEST).exists():
        then, then_fingerprint = finished_settings(folder)
        check_same(folder, config, fingerprint, then, then_fingerprint)


def finished_settings(folder: Path) -> tuple[RunConfig, str]:
    """The settings of the finished run in a folder, and the fingerprint of its data.

    Raises:
        ArtefactError: it is damaged, or the folder is not a run folder.
    """
    about = read_manifest(folder, KIND, SCHEMA_VERSION)
    check_files(folder, about, [CONFIG])
    return RunConfig.read_toml(folder / CONFIG), str(about.get("fingerprint"))


def interrupted(folder: Path) -> str:
    """What repeating the command does after a signal ended a training: text for a message."""
    saved = checkpoint.numbered(folder / CHECKPOINTS) or checkpoint.numbered(folder / NEXT / CHECKPOINTS)
    return (
        "the same command resumes from the last checkpoint" if saved else "the same command starts from the beginning"
    )


def foreign(path: Path) -> Path | None:
    """The first file or folder at or below `path` that ensue did not create; None if there is none."""
    if path.is_symlink():
        return path
    if not path.is_dir():
        return None if _FILE.fullmatch(path.name) else path
    if path.name in (NEXT, READY):
        inside = (foreign(inner) for inner in sorted(path.iterdir()) if inner.name != LOCK)
        return next((inner for inner in inside if inner is not None), None)
    if (known := _INSIDE.get(path.name)) is None:
        return path
    return next((inner for inner in sorted(path.iterdir()) if not known.fullmatch(inner.name)), None)


def is_begun(folder: Path) -> bool:
    """Whether a training has written into the folder."""
    return is_marked(folder) or _has_checkpoint(folder)


def _has_checkpoint(folder: Path) -> bool:
    for path in checkpoint.numbered(folder / CHECKPOINTS):
        try:
            read_manifest(path, checkpoint.KIND, checkpoint.VERSION)
        except ArtefactError:
            continue
        return True
    return False
