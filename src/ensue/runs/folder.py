"""The folder of a run: what is in it, who may write there, and how a run is removed from it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ensue.errors import ArtefactError, OtherRunError
from ensue.files import MANIFEST, check_files, read_manifest
from ensue.runs import checkpoint
from ensue.runs.config import RunConfig, differences
from ensue.runs.lock import LOCK, is_marked, locked

KIND, SCHEMA_VERSION = "run", 1
CONFIG, MODEL, VOCABULARY, ITEMS = "config.toml", "model.safetensors", "vocabulary.parquet", "items.parquet"
METRICS, LOG, CARD = "metrics.json", "log.jsonl", "card.md"
ARTEFACT = (CONFIG, MODEL, VOCABULARY, ITEMS)
CHECKPOINTS, TENSORBOARD, INSPECT, STORE = "checkpoints", "tensorboard", "inspect", "store"
# Settings that do not change the course of a run, so the same command may have others.
FREE_TO_CHANGE = ("checkpoint_minutes",)

_PICTURE = r"[a-z_]+\.(svg|png)"
_FILES = rf"{'|'.join(map(re.escape, (*ARTEFACT, METRICS, LOG, CARD, MANIFEST)))}|per_user-[a-z0-9+-]+\.parquet"
_FILE = re.compile(rf"({_FILES}|learning_curve\.(svg|png))|\.({_FILES}|{_PICTURE})\.\d+\.tmp")
_INSIDE = {
    CHECKPOINTS: re.compile(r"\d{10}|\.\d{10}\.tmp"),
    TENSORBOARD: re.compile(r"events\.out\.tfevents\..+"),
    INSPECT: re.compile(rf"inspect\.json|{_PICTURE}|\.(inspect\.json|{_PICTURE})\.\d+\.tmp"),
}


def check_writable(folder: Path) -> None:
    """Make sure that a run may be written into a folder: it is a run's, begun or finished, or empty, or not there.

    Raises:
        ArtefactError: it is a file, or holds something that is no run's; that is named.
    """
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise ArtefactError(f"{folder}: is a file; a run is a folder")
        return
    if (folder / MANIFEST).exists():
        try:
            read_manifest(folder, KIND, SCHEMA_VERSION)
        except ArtefactError as error:
            raise ArtefactError(f"{error}; nothing was written there, choose another folder") from None
    elif not is_begun(folder):
        foreign = sorted(folder.iterdir())
        if foreign:
            raise ArtefactError(
                f"{folder} is not a run folder: ensue did not write {foreign[0].name}; choose a new or an empty one"
            )


@contextmanager
def claimed(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Make a folder a run's, and hold it against other writers, after waiting for them some seconds.

    Raises:
        ArtefactError: it holds something that is no run's.
        TrainingError: another training writes there.
    """
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, seconds):
        yield


def check_same(
    folder: Path | None, config: RunConfig, fingerprint: str, then: RunConfig, then_fingerprint: str
) -> None:
    """Make sure that what a folder holds is of this data and these settings.

    Args:
        folder: the folder, for the message; rank 0 alone may have one.
        config: the settings now.
        fingerprint: of the data now.
        then: the settings in the folder; what an earlier version did not know yet has its default there.
        then_fingerprint: of the data in the folder.

    Raises:
        OtherRunError: they differ; the differences are named.
    """
    free = {name: getattr(config.train, name) for name in FREE_TO_CHANGE}
    then = then.replace(train=then.train.replace(**free))
    changed = differences(config.model_dump(mode="json"), then.model_dump(mode="json"))
    if then_fingerprint != fingerprint:
        changed.insert(0, f"data: fingerprint {fingerprint} now, {then_fingerprint} then")
    if changed:
        raise OtherRunError(
            f"{folder} holds a run with other data or settings: {'; '.join(changed)}. "
            "Go on with the same ones, choose another folder, or remove it (ensue train: --overwrite)."
        )


def check_same_run(folder: Path, config: RunConfig, fingerprint: str) -> None:
    """`check_same` for the finished run in a folder, if there is one.

    Raises:
        OtherRunError: it is of other data or settings.
        ArtefactError: it is damaged, or something else.
    """
    if (folder / MANIFEST).exists():
        about = read_manifest(folder, KIND, SCHEMA_VERSION)
        check_files(folder, about, [CONFIG])
        check_same(folder, config, fingerprint, RunConfig.read_toml(folder / CONFIG), str(about.get("fingerprint")))


def remove_run(folder: Path) -> None:
    """Remove a run from its folder: what ensue wrote and nothing else. A store in it is data, and stays.

    Raises:
        ArtefactError: the folder is not a run's, or holds something else too; nothing is removed.
        TrainingError: a training writes there.
    """
    check_writable(folder)
    if not folder.is_dir():
        return
    with locked(folder):
        paths = [path for path in sorted(folder.iterdir()) if path.name not in (LOCK, STORE)]
        for path in paths:
            if (foreign := _foreign(path)) is not None:
                raise ArtefactError(f"{foreign}: ensue did not write this; nothing in {folder} was removed")
        # What is left of a removal cut short must not look like a run.
        for path in sorted(paths, key=lambda path: path.name != MANIFEST):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def interrupted(folder: Path) -> str:
    """What happens after Ctrl-C."""
    found = checkpoint.numbered(folder / CHECKPOINTS)
    kept = "goes on from its last checkpoint" if found else "starts anew (no checkpoint yet)"
    return f"interrupted; the same command {kept}"


def _foreign(path: Path) -> Path | None:
    """The first thing at or in a path of a run folder that ensue did not write."""
    if path.is_symlink():
        return path
    if not path.is_dir():
        return None if _FILE.fullmatch(path.name) else path
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
