"""Where a training writes: into the run folder, or into a subfolder until it replaces the run in the folder."""

from __future__ import annotations

from pathlib import Path

from ensue.errors import ConfigError, OtherRunError
from ensue.files import MANIFEST
from ensue.models import is_counted
from ensue.runs.checkpoint import copy_newest, numbered, read_state
from ensue.runs.config import RunConfig
from ensue.runs.folder import CHECKPOINTS, NEXT, check_same, check_writable, finished_settings, is_longer
from ensue.runs.swap import check_replaceable, claimed, is_swap_pending, remove, swap


def find_work(folder: Path, config: RunConfig, fingerprint: str, overwrite: bool, finish: bool) -> str | None:
    """Where in a run folder the training of these settings writes; an interrupted swap is completed first.

    Args:
        folder: the run folder.
        config: the settings.
        fingerprint: of the data.
        overwrite: whether to replace another run, or to train a finished one again from the start.
        finish: whether to end the training in its current state.

    Returns:
        "" for the folder itself, `NEXT` for the subfolder beside an existing run; None if the folder already contains
        the finished run.

    Raises:
        OtherRunError: the folder contains a run of other data or settings, or one that cannot be continued.
        ArtefactError: the folder is damaged, or contains files that ensue did not create.
    """
    check_writable(folder)
    if is_swap_pending(folder):
        with claimed(folder):
            swap(folder)
    if not (folder / MANIFEST).exists():
        is_own = not numbered(folder / CHECKPOINTS) or _is_begun(folder, config, fingerprint)
        if is_own or not overwrite:
            return ""
    elif not overwrite:
        then, then_fingerprint = finished_settings(folder)
        check_same(folder, config, fingerprint, then, then_fingerprint)
        state, resumes = read_state(folder / CHECKPOINTS), _is_begun(folder / NEXT, config, fingerprint)
        longer = not is_counted(config.model) and is_longer(config.train, then.train)
        if (finish and not resumes) or not (longer or (state is not None and not state["progress"]["finished"])):
            return None
        if state is None and not resumes:
            raise OtherRunError(
                f"{folder} contains a run with smaller limits ({then.train.num_epochs} epochs) but no checkpoint to "
                "continue from: use its settings, choose another folder, or replace the run (ensue train: --overwrite)"
            )
    check_replaceable(folder)
    return NEXT


def prepare_work(folder: Path, work: Path, config: RunConfig, fingerprint: str, overwrite: bool) -> None:
    """Prepare the subfolder of a training beside a run, unless it already contains a checkpoint of that training.

    Args:
        folder: the run folder.
        work: where the training writes; if it is `folder`, there is nothing to prepare.
        config: the settings.
        fingerprint: of the data.
        overwrite: whether to train from the start; otherwise continue from the newest checkpoint in the run folder.
    """
    if work == folder or _is_begun(work, config, fingerprint):
        return
    if work.exists():
        remove(work)
    if not overwrite:
        (work / CHECKPOINTS).mkdir(parents=True)
        copy_newest(folder / CHECKPOINTS, work / CHECKPOINTS)


def _is_begun(folder: Path, config: RunConfig, fingerprint: str) -> bool:
    """Whether a folder contains a checkpoint of this data and these settings."""
    state = read_state(folder / CHECKPOINTS)
    if state is None:
        return False
    try:
        then = RunConfig.parse(state["config"], f"checkpoint in {folder}")
        check_same(folder, config, fingerprint, then, state["fingerprint"])
    except (OtherRunError, ConfigError):
        return False
    return True
