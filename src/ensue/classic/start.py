"""Open the model named by `--state_dict_path`: a `.pth` file or a run folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ensue.classic.arguments import Arguments
from ensue.classic.data import in_user_units
from ensue.classic.pth import PthOptions, read_pth
from ensue.classic.settings import check_model
from ensue.data.split import Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, DataError, OtherRunError
from ensue.files import sha256
from ensue.models import Model, ModelConfig
from ensue.nn.block import Norm
from ensue.runs.folder import MODEL
from ensue.runs.load import load_run
from ensue.runs.log import Records


@dataclass(frozen=True)
class Start:
    """A given model, to evaluate or to start training from.

    Attributes:
        model: the model.
        config: its settings.
        origin: where it comes from, for messages.
        file: the file of its weights.
        epoch: the number of epochs it was trained for, from the file's name; 0 if unknown.
        norm_assumed: whether neither the file nor the user states where its layers are normalised.
        activation_assumed: whether neither the file nor the user states the activation of its feed-forward layers.
        split: the split of its run; None for `.pth` files, which use leave-one-out.
        own_times: whether it gives its program's scores only for times in that program's units.
    """

    model: Model
    config: ModelConfig
    origin: str
    file: Path
    epoch: int = 0
    norm_assumed: bool = False
    activation_assumed: bool = False
    split: SplitConfig | None = None
    own_times: bool = False

    def record(self) -> dict[str, Any]:
        """The log record that names the weights that training started from."""
        folder = self.file.resolve().parent.name
        name = f"{folder}/{MODEL}" if self.file.name == MODEL else self.file.name
        return {"started from": name, "sha256": sha256(self.file)}


def open_start(arguments: Arguments, path: Path, store: SequenceStore) -> Start:
    """Open `--state_dict_path` for the data.

    For evaluation, a file of TiSASRec.pytorch reads intervals in that program's units (`in_user_units`).

    Raises:
        ArtefactError: it is neither a run nor a state dict of those programs.
        DataError: it was trained on other data.
        ConfigError: the value of a flag differs from the model's.
    """
    if path.is_dir():
        run = load_run(path)
        if run.item_ids != store.item_ids:
            raise DataError(f"{path}: trained on {len(run.item_ids):,} items that are not those of the data")
        check_model(arguments, run.config.model)
        return Start(run.model, run.config.model, f"run {path}", path / MODEL, split=run.config.split)
    imported = read_pth(path, _options(arguments), store.item_ids)
    own_times = imported.config.name == "tisasrec-padded" and arguments.inference_only
    if own_times and arguments.time_unit:
        raise ConfigError(
            f"--inference_only of {path} measures intervals in each user's smallest gap, as its program does (got "
            f"--time_unit={arguments.time_unit}). For another unit: `ensue import {path} --time-unit "
            f"{arguments.time_unit} --out RUN`, then --state_dict_path=RUN"
        )
    # The model reads times that are in units already (time_unit 1); the unit to report is the smallest gap (0).
    config = imported.config.replace(time_unit=0) if own_times else imported.config
    check_model(arguments, config)
    if own_times and store.times is None:
        raise DataError(f"{path}: this TiSASRec needs timestamps, but the data has none")
    assumed = (imported.norm_assumed, imported.activation_assumed)
    return Start(imported.model, config, imported.origin, path, imported.epoch, *assumed, own_times=own_times)


def check_same_start(folder: Path, start: Start | None, records: Records) -> None:
    """Check that the training in a folder started from the given weights.

    Args:
        folder: the folder.
        start: the model that this training starts from; None for random weights.
        records: the log of the training in the folder.

    Raises:
        OtherRunError: it started from other weights; the message names both.
    """
    then = next((record for record in records if "started from" in record), None)
    now = None if start is None else start.record()
    if (then or {}).get("sha256") != (now or {}).get("sha256"):
        raise OtherRunError(
            f"{folder} contains a run that started from {_weights(then)}; this one would start from {_weights(now)}. "
            "Give the same --state_dict_path or choose another --train_dir"
        )


def _weights(record: dict[str, Any] | None) -> str:
    if record is None:
        return "random weights"
    return f"{record['started from']} (SHA-256 {record['sha256'][:12]}...)"


def split_for(start: Start, store: SequenceStore) -> Split:
    """Return the split to evaluate a start on."""
    return make_split(in_user_units(store) if start.own_times else store, start.split or SplitConfig())


def _options(arguments: Arguments) -> PthOptions:
    unit = 1 if arguments.inference_only else arguments.time_unit or 0
    norm: Norm | None = "pre" if arguments.norm_first else None
    return PthOptions(norm, num_heads=arguments.num_heads, maxlen=arguments.maxlen, time_unit=unit)


def other_norms(arguments: Arguments, path: Path, store: SequenceStore) -> dict[Norm, Model]:
    """Read a file of SASRec.pytorch with each normalisation that `read_pth` does not assume."""
    norms: tuple[Norm, ...] = ("original", "pre")
    options = _options(arguments)
    return {norm: read_pth(path, replace(options, norm=norm), store.item_ids).model for norm in norms}
