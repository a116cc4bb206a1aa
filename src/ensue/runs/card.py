"""The card of a run: model, data, source of the weights, results and settings, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensue import __version__
from ensue.runs.config import RunConfig
from ensue.runs.log import Records, best_of, epochs_of

# The log records that name a source of weights, and the card's text for each. A record also has the file's SHA-256.
SOURCES = {"started from": "Training started from the weights of", "imported from": "Weights imported from"}


def model_card(config: RunConfig, num_items: int, fingerprint: str, results: Mapping[str, Any], log: Records) -> str:
    """The text of the card, in Markdown.

    Args:
        config: the run's settings.
        num_items: number of items in the catalogue.
        fingerprint: of the data the run was trained on.
        results: the evaluations, as in `metrics.json`.
        log: the records of training.
    """
    sources = [
        f"- {begins} `{record[key]}`, SHA-256 `{record['sha256']}`"
        for record in log
        for key, begins in SOURCES.items()
        if key in record
    ]
    lines = [
        f"# {config.model.name}",
        "",
        f"Made by ensue {__version__}. Recommends among {num_items:,} items.",
        "",
        f"- Data: fingerprint `{fingerprint}`",
        f"- Split: {config.split.split}",
        f"- Epochs trained: {len(epochs_of(log))}{_which(config, log)}",
        *sources,
        "",
        "## Results",
        "",
    ]
    for key, entry in results.items():
        lines += [f"{key}, {entry['cases']:,} cases", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in entry["metrics"].items()]
        lines.append("")
    if not results:
        lines += ["Not evaluated yet: `ensue evaluate FOLDER`.", ""]
    lines += ["## Settings", "", "```toml", config.to_toml().rstrip(), "```", ""]
    return "\n".join(lines)


def _which(config: RunConfig, log: Records) -> str:
    """Which epoch's state the run has, as the end of a sentence."""
    if best_of(log, config.validation_label) is not None:
        return f"; the state kept is the best by validation {config.validation_label}"
    return "; the last state is kept, since no validation case was held out" if epochs_of(log) else ""
