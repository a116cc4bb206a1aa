"""`ensue compare`: is the difference of two runs more than luck?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ensue.cli.output import Screen, table
from ensue.errors import ArtefactError, DataError, nearest

CASES = ("user", "target")


def run(
    screen: Screen,
    a: Annotated[Path, typer.Argument(metavar="RUN", help="An evaluated run folder.")],
    b: Annotated[Path, typer.Argument(metavar="RUN", help="Another, of the same data.")],
    part: Annotated[Literal["test", "validation"], typer.Option("--part", help="Which held-out events.")] = "test",
    protocol: Annotated[str, typer.Option("--protocol", help="Which of the evaluations.")] = "full",
    test: Annotated[Literal["t", "wilcoxon", "permutation"], typer.Option("--test", help="The paired test.")] = "t",
) -> dict[str, Any]:
    """Compare two evaluated runs user by user, metric by metric."""
    import polars as pl

    from ensue.significance import compare, holm

    entries = [_entry(folder, f"{part}/{protocol}") for folder in (a, b)]
    for key in ("fingerprint", "settings"):
        differ = [entry[key] for entry in entries]
        if key == "settings":
            differ = [{name: value for name, value in each.items() if name != "metrics"} for each in differ]
        if differ[0] != differ[1]:
            raise DataError(f"{a} and {b} were evaluated with different {key}: {differ[0]} and {differ[1]}")
    one, two = (pl.read_parquet(folder / entry["per_user"]) for folder, entry in zip((a, b), entries, strict=True))
    if not one.select(CASES).equals(two.select(CASES)):
        raise DataError(f"{a} and {b} were not asked the same cases")
    names = [name for name in entries[0]["metrics"] if name in entries[1]["metrics"]]
    found = {name: compare(one[name].to_numpy(), two[name].to_numpy(), test) for name in names}
    adjusted = dict(zip(names, holm([found[name].p for name in names]), strict=True))
    rows = [
        (name, f"{each.mean_a:.4f}", f"{each.mean_b:.4f}", str(each.effect), f"{each.p:.2g}", f"{adjusted[name]:.2g}")
        for name, each in found.items()
    ]
    heads = ("metric", f"a: {a}", f"b: {b}", "a - b [95%]", "p", "p (Holm)")
    screen.show(table(heads, rows, title=f"{part} part, {protocol}, {one.height:,} cases", right=heads[1:]))
    return {
        "a": str(a),
        "b": str(b),
        "part": part,
        "protocol": protocol,
        "metrics": {name: {**each.as_dict(), "p_holm": float(adjusted[name])} for name, each in found.items()},
    }


def _entry(folder: Path, key: str) -> dict[str, Any]:
    """One evaluation of a run, with its per-user table checked.

    Raises:
        ArtefactError: not a run, not evaluated so, or the table was altered.
    """
    from ensue.artefact import KIND, SCHEMA_VERSION, read_metrics
    from ensue.files import read_manifest, sha256

    read_manifest(folder, KIND, SCHEMA_VERSION)
    results = read_metrics(folder)
    if key not in results:
        others = nearest(key, results) if results else "it was not evaluated"
        raise ArtefactError(f"{folder}: has no evaluation {key!r}: {others}. Make it with: ensue evaluate {folder}")
    entry: dict[str, Any] = results[key]
    table_path = folder / Path(entry["per_user"]).name
    if not table_path.is_file() or sha256(table_path) != entry["per_user_sha256"]:
        raise ArtefactError(f"{table_path}: missing, or not the table that metrics.json speaks of")
    return entry
