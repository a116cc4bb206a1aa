"""Commands to try next, with everything that they need to work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue.cli.flags import join_list

if TYPE_CHECKING:
    from ensue.data.store import SequenceStore
    from ensue.data.vocabulary import ExternalId
    from ensue.models import ModelConfig


def recommend_to_user(
    folder: Path, model: ModelConfig, store: SequenceStore, data: Path | None, user: ExternalId | None = None
) -> list[Any]:
    """`ensue recommend` for a user of the data, by default the first; for a model with query_time, at the last event.

    Args:
        folder: the run.
        model: its model.
        store: the data.
        data: where that is, if the run does not know it.
        user: the user's id.
    """
    chosen = store.users.decode([1])[0] if user is None else user
    words: list[Any] = ["ensue recommend", folder, "--user", chosen, *(["--data", data] if data is not None else [])]
    if getattr(model, "query_time", False) and store.times is not None:
        number = int(store.users.encode([chosen])[0])
        words += ["--at", int(store.times[store.offsets[number] - 1])]
    return words


def recommend_after_item(folder: Path, model: ModelConfig, item: ExternalId) -> list[Any]:
    """`ensue recommend` after a history of one item, for which no data is needed."""
    words: list[Any] = ["ensue recommend", folder, "--history", join_list([str(item)])]
    if hasattr(model, "time_unit") and getattr(model, "time", "timestamps") == "timestamps":
        words += ["--times", 0]
    return [*words, "--at", 0] if getattr(model, "query_time", False) else words
