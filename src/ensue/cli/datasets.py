"""`ensue datasets`: the public datasets that are available by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ensue.cli.prepare import prepare_dataset
from ensue.errors import ConfigError
from ensue.terminal.output import Screen, table


def run(
    screen: Screen,
    name: Annotated[str | None, typer.Argument(help="A dataset to prepare; without a name, list all.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the store to write.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing store.")] = False,
) -> dict[str, Any]:
    """List the public datasets, or find, download and prepare one as the SASRec paper does."""
    if name is not None:
        if out is None:
            raise ConfigError(f"missing --out: the folder to write {name!r} to")
        return prepare_dataset(screen, name, out, {}, overwrite)
    from ensue.datasets.catalog import DATASETS, data_folder, folder_of, local_names

    listed = [
        {
            "name": dataset.name,
            "title": dataset.title,
            "counts": None
            if dataset.counts is None
            else dict(zip(("users", "items", "interactions"), dataset.counts, strict=True)),
            "licence": dataset.licence,
            "source": dataset.url,
            "found": None if (place := folder_of(dataset)) is None else str(place),
        }
        for dataset in DATASETS.values()
    ]
    rows = []
    for entry in listed:
        counts = entry["counts"]
        numbers = " / ".join(f"{count:,}" for count in counts.values()) if isinstance(counts, dict) else "not verified"
        rows.append((entry["name"], entry["title"], numbers, entry["found"] or "to download"))
    screen.show(table(("name", "what", "users / items / events", "location"), rows))
    for entry in listed:
        screen.say(f"{entry['name']}: {entry['source']}\n  {entry['licence']}", "dim")
    screen.say()
    folder = data_folder()
    own = [local for local in local_names() if local not in DATASETS]
    if own:
        screen.say(f"also in {folder}: {', '.join(own)}")
    if folder is None:
        screen.say("ENSUE_DATA is not set; it can name a folder that is searched first", style="dim")
    screen.next("ensue datasets ml-1m --out data/ml-1m")
    return {"datasets": listed, "folder": None if folder is None else str(folder), "local": own}
