"""`ensue compare`: test whether the difference of two runs is significant."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from ensue.cli.hints import recommend_after_item
from ensue.errors import ArtefactError, DataError, nearest
from ensue.terminal.output import Screen, table

if TYPE_CHECKING:
    from ensue.evaluation.protocol import EvaluateConfig

CASES = ("user", "target")


def run(
    screen: Screen,
    a: Annotated[Path, typer.Argument(metavar="RUN", help="An evaluated run folder.")],
    b: Annotated[Path, typer.Argument(metavar="RUN", help="Another run folder with the same data.")],
    part: Annotated[Literal["test", "validation"], typer.Option("--part", help="Which held-out events.")] = "test",
    protocol: Annotated[str, typer.Option("--protocol", help="Which of the evaluations.")] = "full",
    test: Annotated[Literal["t", "wilcoxon", "permutation"], typer.Option("--test", help="The paired test.")] = "t",
) -> dict[str, Any]:
    """Compare two evaluated runs with a paired test per metric."""
    import polars as pl

    from ensue.evaluation.significance import compare, holm
    from ensue.runs.config import RunConfig
    from ensue.runs.folder import CONFIG
    from ensue.runs.results import table_path

    results = [_results(folder) for folder in (a, b)]
    entries = [_entry(folder, own, part, protocol) for folder, own in zip((a, b), results, strict=True)]
    for key in ("fingerprint", "settings"):
        differ = [_asked(entry)[key] for entry in entries]
        if differ[0] != differ[1]:
            raise DataError(f"{a} and {b} were evaluated with different {key}: {differ[0]} and {differ[1]}")
    one, two = (
        pl.read_parquet(table_path(folder, entry), glob=False) for folder, entry in zip((a, b), entries, strict=True)
    )
    if not one.select(CASES).equals(two.select(CASES)):
        raise DataError(f"{a} and {b} were evaluated on different cases")
    names = [name for name in entries[0]["metrics"] if name in entries[1]["metrics"]]
    if not names:
        lists = [", ".join(entry["metrics"]) for entry in entries]
        raise DataError(f"{a} and {b} share no metric: {lists[0]} and {lists[1]}")
    compared = {name: compare(one[name].to_numpy(), two[name].to_numpy(), test) for name in names}
    adjusted = dict(zip(names, holm([compared[name].p for name in names]), strict=True))
    rows = [
        (name, f"{each.mean_a:.4f}", f"{each.mean_b:.4f}", str(each.effect), f"{each.p:.2g}", f"{adjusted[name]:.2g}")
        for name, each in compared.items()
    ]
    heads = ("metric", f"a: {a}", f"b: {b}", "a - b [95%]", "p", "p (Holm)")
    screen.show(table(heads, rows, title=f"{part} part, {protocol}, {one.height:,} cases", right=heads[1:]))
    turned = reversals(results[0], results[1], part, protocol)
    for other, means in turned.items():
        figures = ", ".join(f"{name} {one:.4f} and {two:.4f}" for name, (one, two) in means.items())
        screen.say(f"under {other} the order is reversed: {figures}", "yellow")
    screen.next(*recommend_after_item(a, RunConfig.read_toml(a / CONFIG).model, one["target"][0]))
    return {
        "a": str(a),
        "b": str(b),
        "part": part,
        "protocol": protocol,
        "metrics": {name: {**each.as_dict(), "p_holm": float(adjusted[name])} for name, each in compared.items()},
        "reversed": {
            other: {name: {"mean_a": one, "mean_b": two} for name, (one, two) in means.items()}
            for other, means in turned.items()
        },
    }


def reversals(
    a: dict[str, Any], b: dict[str, Any], part: str, protocol: str
) -> dict[str, dict[str, tuple[float, float]]]:
    """The protocols under which the order of two runs differs from that under `protocol`; sampling can cause this.

    Only evaluations of the same data with the same settings are compared. Krichene and Rendle (KDD 2020) explain why
    sampled metrics can reorder models.

    Args:
        a: the evaluations of a run, from `read_metrics`.
        b: the evaluations of the other run.
        part: the evaluated part.
        protocol: the protocol to compare the others with.

    Returns:
        Other protocol -> name of the metric -> the two means; only where the order is reversed.
    """
    turned: dict[str, dict[str, tuple[float, float]]] = {}
    here = _means(a, b, f"{part}/{protocol}")
    for key in a:
        where, _, other = key.partition("/")
        if where != part or other == protocol or key not in b or _asked(a[key]) != _asked(b[key]):
            continue
        for metric, (name, mean_a, mean_b) in _means(a, b, key).items():
            _, here_a, here_b = here.get(metric, (name, 0.0, 0.0))
            if (here_a - here_b) * (mean_a - mean_b) < 0:
                turned.setdefault(other, {})[name] = (mean_a, mean_b)
    return turned


def _means(a: dict[str, Any], b: dict[str, Any], key: str) -> dict[str, tuple[str, float, float]]:
    """Metric without its protocol's mark -> full name, and the means of both runs."""
    one, two = a[key]["metrics"], b[key]["metrics"]
    return {name.partition("|")[0]: (name, one[name], two[name]) for name in one if name in two}


def _asked(entry: dict[str, Any]) -> dict[str, Any]:
    """The properties that two evaluations must have in common."""
    settings = {name: value for name, value in entry["settings"].items() if name != "metrics"}
    return {"fingerprint": entry["fingerprint"], "settings": settings}


def _results(folder: Path) -> dict[str, Any]:
    """The evaluations of a run.

    Raises:
        ArtefactError: the folder is not a run, or was altered.
    """
    from ensue.files import check_files, read_manifest
    from ensue.runs.folder import CONFIG, KIND, SCHEMA_VERSION
    from ensue.runs.results import read_metrics

    check_files(folder, read_manifest(folder, KIND, SCHEMA_VERSION), [CONFIG])
    return read_metrics(folder)


def _entry(folder: Path, results: dict[str, Any], part: str, protocol: str) -> dict[str, Any]:
    """One evaluation of a run, with its per-user table checked.

    Raises:
        ArtefactError: there is no such evaluation, or an evaluation or the table was altered.
    """
    from ensue.files import sha256
    from ensue.runs.config import RunConfig
    from ensue.runs.folder import CONFIG
    from ensue.runs.results import kept_metrics, table_path

    key = f"{part}/{protocol}"
    if key not in results:
        kept_metrics(folder, None)  # raises if it was altered
        available = f"it has {', '.join(results)}" if results else "it was not evaluated"
        protocols = _protocols(RunConfig.read_toml(folder / CONFIG).evaluate)
        if protocol not in protocols:
            raise ArtefactError(f"{folder}: has no evaluation {key!r}: {nearest(protocol, protocols)}; {available}")
        words = ["ensue", "evaluate", str(folder), *(["--part", part] if part != "test" else []), *protocols[protocol]]
        raise ArtefactError(f"{folder}: has no evaluation {key!r}: {available}. Create it with: {shlex.join(words)}")
    entry: dict[str, Any] = results[key]
    path = table_path(folder, entry)
    if not path.is_file() or sha256(path) != entry["per_user_sha256"]:
        raise ArtefactError(f"{path}: missing, or not the table recorded in metrics.json")
    return entry


def _protocols(config: EvaluateConfig) -> dict[str, list[str]]:
    """The protocols available for a run with this configuration -> the flags of `ensue evaluate`."""
    from ensue.evaluation.protocol import ProtocolName

    flags = {config.replace(protocol=name).key: ["--protocol", name] for name in get_args(ProtocolName)}
    for flag, filter_seen in (("--filter-seen", True), ("--no-filter-seen", False)):
        full = config.replace(protocol="full", filter_seen=filter_seen)
        flags.setdefault(full.key, ["--protocol", "full", flag])
    return {**flags, config.key: []}
