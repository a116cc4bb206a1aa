"""Suggestions of the next command, which can be run unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue.cli.flags import join_list
from ensue.cli.sources import data_words

if TYPE_CHECKING:
    from ensue.data.store import SequenceStore
    from ensue.data.vocabulary import ExternalId
    from ensue.models import ModelConfig


def recommend_to_user(
    folder: Path, model: ModelConfig, store: SequenceStore, data: list[str] | None, user: ExternalId | None = None
) -> list[Any]:
    """`ensue recommend` for a user in the data; with the time of the user's last event if the model reads that time.

    Args:
        folder: the run folder.
        model: the settings of its model.
        store: the data.
        data: the paths of the data, if the run does not name it.
        user: the user's id; by default the first user.
    """
    chosen = store.users.decode([1])[0] if user is None else user
    words: list[Any] = ["ensue recommend", folder, "--user", chosen, *data_words(data)]
    if model.reads_query_time and store.times is not None:
        number = int(store.users.encode([chosen])[0])
        words += ["--at", int(store.times[store.offsets[number] - 1])]
    return words


def recommend_after_item(folder: Path, model: ModelConfig, item: ExternalId) -> list[Any]:
    """`ensue recommend` after a history of one item, which needs no data."""
    words: list[Any] = ["ensue recommend", folder, "--history", join_list([str(item)])]
    if model.reads_times:
        words += ["--times", 0]
    return [*words, "--at", 0] if model.reads_query_time else words
