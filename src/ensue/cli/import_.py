"""`ensue import`: a `.pth` file of SASRec.pytorch or TiSASRec.pytorch becomes a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ensue.cli.hints import recommend_after_item
from ensue.cli.sources import open_data
from ensue.errors import ArtefactError, ConfigError
from ensue.terminal.output import Screen

if TYPE_CHECKING:
    from ensue.data.store import SequenceStore


def run(
    screen: Screen,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .pth file.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder to write; must be new or empty.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Store or log it was trained on; without it, items are 1..N.")
    ] = None,
    norm: Annotated[
        Literal["original", "post", "pre"] | None,
        typer.Option("--norm", help="SASRec.pytorch before May 2025: original; since: post, or pre (--norm_first)."),
    ] = None,
    norm_first: Annotated[bool, typer.Option("--norm-first", help="The same as --norm pre.")] = False,
    num_heads: Annotated[
        int | None, typer.Option("--num-heads", help="Attention heads; by default as the file's name says, else 1.")
    ] = None,
    time_unit: Annotated[
        int, typer.Option("--time-unit", help="TiSASRec: seconds of a unit; 0: each history's smallest gap.", min=0)
    ] = 0,
) -> dict[str, Any]:
    """Make a run folder of a .pth file of SASRec.pytorch or TiSASRec.pytorch, which gives the scores of its program.

    The file is read without running anything in it, and its names, shapes and values are checked. It does not say how
    layers are normalised, nor which external ids its items have.
    """
    from ensue.classic.artefact import save_import
    from ensue.classic.pth import PthOptions, read_pth

    if norm_first and norm not in (None, "pre"):
        raise ConfigError(f"--norm-first means --norm pre (got --norm {norm})")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtefactError(f"{out}: exists already; a run folder to be written must be new or empty")
    store: SequenceStore | None = None if data is None else open_data(data, screen)
    options = PthOptions("pre" if norm_first else norm, num_heads, None, time_unit)
    found = read_pth(file, options, None if store is None else store.item_ids)
    save_import(out, found, file, store)
    config = found.config.model_dump()
    screen.say(
        f"{file}: {found.origin}; norm {config['norm']}, {config['num_blocks']} blocks of width "
        f"{config['hidden_units']}, {config['num_heads']} heads, maxlen {config['maxlen']}"
    )
    if found.norm_assumed:
        screen.say(
            f"norm {config['norm']} is assumed, the file does not say: files of before May 2025 need --norm original, "
            "those trained with --norm_first need --norm-first",
            "yellow",
        )
    screen.say(f"written: {out}")
    if store is None:
        screen.next(*recommend_after_item(out, found.config, 1))
    else:
        screen.next("ensue evaluate", out, *([] if store.folder else ["--data", data]))
    return {
        "run": str(out),
        "origin": found.origin,
        "norm_assumed": found.norm_assumed,
        "model": config,
        "items": len(found.model.state_dict()["items.weight"]) - 1,
    }
