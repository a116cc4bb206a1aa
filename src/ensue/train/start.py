"""A training that starts from the weights of a finished run."""

from __future__ import annotations

from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, DataError
from ensue.models import Model
from ensue.runs.load import load_run


def take_weights(folder: str, model: Model, store: SequenceStore) -> None:
    """Copy the weights of a run into a model that has the same ones.

    Args:
        folder: the run folder.
        model: the model to be trained.
        store: the data to be trained on, with the features that the model reads.

    Raises:
        ArtefactError: the folder contains no finished run, or a damaged one.
        DataError: the run numbers items or the values of features in another way than the data.
        ConfigError: the run's model has other weights; the message names the first difference.
    """
    run = load_run(folder)
    if run.item_ids.digest != store.item_ids.digest:
        raise DataError(
            f"start_from {folder}: the run has {len(run.item_ids):,} items and the data {store.num_items:,}, and they "
            "are not the same ones in the same order: train on the data of the run, or without start_from"
        )
    if run.features != (() if store.inputs is None else store.inputs.features):
        raise DataError(
            f"start_from {folder}: the run read other features or other values of them: use those of the run, or train "
            "without start_from"
        )
    # With the codes of items, random features and other tensors that the weights were trained with.
    state = run.model.state_dict()
    shapes, own = ({name: list(x.shape) for name, x in each.items()} for each in (state, model.state_dict()))
    for name in sorted(shapes.keys() | own.keys()):
        if shapes.get(name) != own.get(name):
            raise ConfigError(
                f"start_from {folder}: the weight {name} is {own.get(name, 'absent')} in this model and "
                f"{shapes.get(name, 'absent')} in the run's {run.config.model.name}: use the settings of that run "
                f"(--config {folder}/config.toml)"
            )
    model.load_state_dict(state)
