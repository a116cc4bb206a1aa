"""`ensue import`: convert a `.pth` file of SASRec.pytorch or TiSASRec.pytorch to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ensue.cli.hints import recommend_after_item
from ensue.cli.sources import data_words, open_data
from ensue.errors import ArtefactError, ConfigError
from ensue.terminal.output import Screen

if TYPE_CHECKING:
    from ensue.classic.pth import Imported
    from ensue.data.store import SequenceStore


def run(
    screen: Screen,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .pth file.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder to write; a new or empty folder.")],
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Store or log it was trained on; without it, items are 1..N.")
    ] = None,
    norm: Annotated[
        Literal["original", "post", "pre"] | None,
        typer.Option("--norm", help="SASRec.pytorch before May 2025: original; since: post, or pre (--norm_first)."),
    ] = None,
    activation: Annotated[
        Literal["relu", "none"] | None,
        typer.Option(
            "--activation",
            help="Feed-forward activation (none before 10 October 2020); default: as listed in the file, or relu.",
        ),
    ] = None,
    norm_first: Annotated[bool, typer.Option("--norm-first", help="The same as --norm pre.")] = False,
    num_heads: Annotated[
        int | None, typer.Option("--num-heads", help="Attention heads; default: `head=` of the file's name, or 1.")
    ] = None,
    time_unit: Annotated[
        int, typer.Option("--time-unit", help="TiSASRec: seconds per unit; 0: smallest gap of the events read.", min=0)
    ] = 0,
) -> dict[str, Any]:
    """Convert a .pth file of SASRec.pytorch or TiSASRec.pytorch to a run folder with the same scores.

    No code in the file is run, and its names, shapes and values are checked. A file does not record where layers are
    normalised, nor the external ids of its items.
    """
    from ensue.classic.artefact import save_import
    from ensue.classic.pth import PthOptions, read_pth

    if norm_first and norm not in (None, "pre"):
        raise ConfigError(f"--norm-first means --norm pre (got --norm {norm})")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtefactError(f"{out}: exists already; --out must be a new or empty folder")
    store: SequenceStore | None = None if not data else open_data(data, screen)
    options = PthOptions("pre" if norm_first else norm, activation, num_heads, None, time_unit)
    imported = read_pth(file, options, None if store is None else store.item_ids)
    save_import(out, imported, file, store)
    config = imported.config.model_dump()
    _describe(screen, file, imported)
    screen.say(f"written: {out}")
    if store is None:
        screen.next(*recommend_after_item(out, imported.config, 1))
    else:
        screen.next("ensue evaluate", out, *([] if store.folder else data_words(data)))
    return {
        "run": str(out),
        "origin": imported.origin,
        "norm_assumed": imported.norm_assumed,
        "activation_assumed": imported.activation_assumed,
        "model": config,
        "items": len(imported.model.state_dict()["items.weight"]) - 1,
    }


def _describe(screen: Screen, file: Path, imported: Imported) -> None:
    """Print the model's settings, and those that are assumed."""
    config = imported.config.model_dump()
    screen.say(
        f"{file}: {imported.origin}; norm {config['norm']}, activation {config['activation']}, {config['num_blocks']} "
        f"blocks of width {config['hidden_units']}, {config['num_heads']} heads, maxlen {config['maxlen']}"
    )
    if imported.norm_assumed:
        screen.say(
            f"assumed norm {config['norm']}, which the file does not record: files from before May 2025 need --norm "
            "original, and those trained with --norm_first need --norm-first",
            "yellow",
        )
    if imported.activation_assumed:
        screen.say(
            "assumed activation relu, since the file does not list its modules: files from before 10 October 2020 need "
            "--activation none",
            "yellow",
        )
