"""What `--state_dict_path` names: a `.pth` file or a run folder, opened as a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ensue.classic.arguments import Arguments
from ensue.classic.data import in_user_units
from ensue.classic.pth import PthOptions, read_pth
from ensue.classic.settings import check_model
from ensue.data.split import Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, DataError, OtherRunError
from ensue.files import sha256
from ensue.models import ModelConfig
from ensue.nn.block import Norm
from ensue.runs.artefact import load_run
from ensue.runs.folder import MODEL
from ensue.runs.log import Records


@dataclass(frozen=True)
class Start:
    """A model that is there already.

    Attributes:
        model: the model.
        config: its settings.
        origin: where it is from, for people.
        file: the file that its weights are in.
        epoch: epochs it was trained for, where the file's name says so; else 0.
        norm_assumed: the file does not say its normalisation, and neither did the user.
        split: of the config's run; None for files, whose split is leave-one-out.
        own_times: the scores are those of its program only on times in that program's units.
    """

    model: nn.Module
    config: ModelConfig
    origin: str
    file: Path
    epoch: int = 0
    norm_assumed: bool = False
    split: SplitConfig | None = None
    own_times: bool = False

    def record(self) -> dict[str, Any]:
        """The line of a run's log that says which weights its training started from."""
        folder = self.file.resolve().parent.name
        name = f"{folder}/{MODEL}" if self.file.name == MODEL else self.file.name
        return {"started from": name, "sha256": sha256(self.file)}


def open_start(arguments: Arguments, path: Path, store: SequenceStore) -> Start:
    """Open `--state_dict_path` for the data.

    For evaluation a file of TiSASRec.pytorch gets intervals in that program's units (`in_user_units`).

    Raises:
        ArtefactError: it is neither a run nor a state dict of those programs.
        DataError: it is of other data.
        ConfigError: flags that were given ask for another model.
    """
    if path.is_dir():
        run = load_run(path)
        if run.item_ids != store.item_ids:
            raise DataError(f"{path}: was trained on {len(run.item_ids):,} items, which are not the data's")
        check_model(arguments, run.config.model)
        return Start(run.model, run.config.model, f"run {path}", path / MODEL, split=run.config.split)
    found = read_pth(path, _options(arguments), store.item_ids)
    own_times = found.config.name == "tisasrec-padded" and arguments.inference_only
    if own_times and arguments.time_unit:
        raise ConfigError(
            f"--time_unit={arguments.time_unit} and --inference_only: the intervals of {path} are in each user's "
            f"smallest gap, as in its program. For another unit: `ensue import {path} --time-unit "
            f"{arguments.time_unit} --out RUN`, and give --state_dict_path=RUN"
        )
    # Times that are in units already; for people the unit is the smallest gap.
    config = found.config.replace(time_unit=0) if own_times else found.config
    check_model(arguments, config)
    if own_times and store.times is None:
        raise DataError(f"{path}: is a TiSASRec, which needs timestamps, and the data has none")
    return Start(found.model, config, found.origin, path, found.epoch, found.norm_assumed, own_times=own_times)


def check_same_start(folder: Path, start: Start | None, records: Records) -> None:
    """Make sure that the training in a folder started from these weights.

    Args:
        folder: the folder.
        start: where this training starts from; None for random weights.
        records: the log of the training in the folder.

    Raises:
        OtherRunError: it started from others; both are named.
    """
    then = next((record for record in records if "started from" in record), None)
    now = None if start is None else start.record()
    if (then or {}).get("sha256") != (now or {}).get("sha256"):
        raise OtherRunError(
            f"{folder} holds a run that started from {_weights(then)}, and this one would start from {_weights(now)}. "
            "Give the same --state_dict_path, or choose another --train_dir."
        )


def _weights(record: dict[str, Any] | None) -> str:
    if record is None:
        return "random weights"
    return f"{record['started from']} (SHA-256 {record['sha256'][:12]}...)"


def split_for(start: Start, store: SequenceStore) -> Split:
    """The split to evaluate a start on."""
    return make_split(in_user_units(store) if start.own_times else store, start.split or SplitConfig())


def _options(arguments: Arguments) -> PthOptions:
    unit = 1 if arguments.inference_only else arguments.time_unit or 0
    return PthOptions("pre" if arguments.norm_first else None, arguments.num_heads, arguments.maxlen, unit)


def other_norms(arguments: Arguments, path: Path, store: SequenceStore) -> dict[Norm, nn.Module]:
    """The model of a file of SASRec.pytorch under the normalisations that are not assumed for it."""
    norms: tuple[Norm, ...] = ("original", "pre")
    options = _options(arguments)
    return {norm: read_pth(path, replace(options, norm=norm), store.item_ids).model for norm in norms}
