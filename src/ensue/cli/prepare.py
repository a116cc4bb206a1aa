"""`ensue prepare`: turn a log, or a public dataset by name, into a sequence store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensue.cli.doubts import settle
from ensue.cli.flags import Flag, flags_of, words_of
from ensue.cli.sources import Connect, Sql, query_of, report_table, source_words
from ensue.errors import ConfigError, DataError, nearest
from ensue.terminal.output import Screen, table

if TYPE_CHECKING:
    from ensue.data.item_vectors import ItemVectors
    from ensue.data.prepare import PrepareReport
    from ensue.data.queries import Query
    from ensue.data.sources import Parts
    from ensue.data.store import SequenceStore


Explain = Annotated[
    bool, typer.Option("--explain", help="Show the meaning assumed for each column; without --out, write nothing.")
]
Validation = Annotated[
    str | None, typer.Option("--validation", metavar="SOURCE", help="Events to validate on; SOURCE is to train on.")
]
Test = Annotated[str | None, typer.Option("--test", metavar="SOURCE", help="Events to test on; SOURCE is to train on.")]
Items = Annotated[str | None, typer.Option("--items", metavar="SOURCE", help="File of items: id, title, category.")]
Users = Annotated[str | None, typer.Option("--users", metavar="SOURCE", help="File of users: id, and columns of them.")]
# Field of `ItemVectors` -> the name of its flag.
VECTORS = {"columns": "item_vectors", "text": "item_text", "encoder": "text_encoder"}


def flags() -> list[Flag]:
    """The flags for the columns, the filters and the vectors of items."""
    from ensue.data.interactions import Columns
    from ensue.data.item_vectors import ItemVectors
    from ensue.data.prepare import PrepareConfig

    vectors = flags_of(ItemVectors, "Vectors of items", rename=VECTORS)
    return [*flags_of(Columns, "Columns"), *flags_of(PrepareConfig, "Filters"), *vectors]


def run(
    screen: Screen,
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="A log: files, a folder, a quoted pattern, an address, - for standard input; or the name of a dataset "
            "(see ensue datasets).",
        ),
    ] = None,
    *,
    settings: dict[str, Any],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the store to write.")] = None,
    explain: Explain = False,
    validation: Validation = None,
    test: Test = None,
    sql: Sql = None,
    connect: Connect = None,
    items: Items = None,
    users: Users = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing store.")] = False,
) -> dict[str, Any]:
    """Read a log and write a sequence store."""
    from ensue.data.interactions import Columns
    from ensue.data.prepare import PrepareConfig, prepare

    vectors = _vectors_of(items, settings)
    filters = {name: value for name, value in settings.items() if name in PrepareConfig.model_fields}
    columns = {name: value for name, value in settings.items() if name in Columns.model_fields}
    query = query_of(source, sql, connect)
    held_out = {name: given for name, given in (("validation", validation), ("test", test)) if given is not None}
    log = _log_of(source or [], query, held_out)
    if log is None:
        name = (source or [""])[0]
        files = {"items": items, "users": users, "explain": explain}
        _refuse_own(name, [*columns, *(what for what, value in files.items() if value)])
        return prepare_dataset(screen, name, _needed(out), filters, overwrite)
    config = PrepareConfig.parse(filters)
    explained: dict[str, Any] = {}
    if explain:
        explained, columns = show_explanation(screen, log, columns, items, users)
        if out is None:
            words = source_words(source, query)
            for flag, file in (("--items", items), ("--users", users)):
                words += [] if file is None else [flag, file]
            given = {name: value for name, value in settings.items() if name in VECTORS.values()}
            chosen = {**columns, **filters, **given}
            screen.next("ensue prepare", *words, *words_of(flags(), chosen), "--out", "data/log")
            return explained
    folder = _needed(out)

    def use(answers: dict[str, Any]) -> tuple[SequenceStore, PrepareReport]:
        with Stages(screen) as stage:
            read = Columns.parse({**columns, **answers})
            return prepare(log, folder, read, config, items, overwrite, stage, users, vectors)

    (store, report), _ = settle(screen, use)
    return {**shown(screen, folder, store, report.as_dict()), **explained}


def _refuse_own(name: str, given: list[str]) -> None:
    """Refuse settings that a dataset has of its own."""
    if given:
        wrong = ", ".join(f"--{each.replace('_', '-')}" for each in given)
        raise ConfigError(f"dataset {name!r} has its own columns and items: leave out {wrong}")


def _vectors_of(items: str | None, settings: dict[str, Any]) -> ItemVectors | None:
    """The vectors that the flags ask for; None for none."""
    from ensue.data.item_vectors import ItemVectors

    vectors = ItemVectors.parse({field: settings[flag] for field, flag in VECTORS.items() if flag in settings})
    named = next((VECTORS[field] for field in ("columns", "text") if getattr(vectors, field)), None)
    if named and items is None:
        raise ConfigError(f"--{named.replace('_', '-')} names columns of the items: give their file with --items")
    return vectors if named else None


def _needed(out: Path | None) -> Path:
    if out is None:
        raise ConfigError("missing --out: the folder of the store to write (--explain alone writes nothing)")
    return out


def show_explanation(
    screen: Screen, log: Parts, columns: dict[str, Any], items: str | None = None, users: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Print the assumed meaning of each column; return the object for --json and the settings of the columns."""
    from ensue.data.described import log_columns
    from ensue.data.explain import explain
    from ensue.data.interactions import Columns

    explanation, columns = settle(
        screen, lambda given: explain(log, log_columns(Columns.parse(given), items, users)), columns
    )
    if explanation.shape:
        screen.say(f"read as {explanation.shape}")
    rows = [(each.column, each.taken_for, each.why, ", ".join(each.samples)) for each in explanation.columns]
    screen.show(table(("column", "taken for", "why", "first values"), rows))
    return {"explanation": explanation.as_dict()}, columns


def _log_of(source: list[str], query: Query | None, held_out: dict[str, str]) -> Parts | None:
    """The log named on the command line; None for a dataset.

    Raises:
        DataError: there is neither such a log nor such a dataset.
    """
    from ensue.data.sources import is_log, parts_of
    from ensue.datasets import catalog

    if held_out:
        return parts_of({"train": source if query is None else query, **held_out})
    if query is not None:
        return parts_of(query)
    known = [*catalog.DATASETS, *catalog.local_names()]
    is_dataset = source[0] in known and not Path(source[0]).is_file()
    if len(source) > 1 or (is_log(source[0]) and not is_dataset):
        return parts_of(source)
    if not is_dataset:
        raise DataError(f"{source[0]}: no such file, and no dataset of this name: {nearest(source[0], known)}")
    return None


def prepare_dataset(screen: Screen, name: str, out: Path, filters: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Find or download a dataset, prepare it, with changes to its filters, and show the result."""
    from ensue.datasets.catalog import load_dataset

    with Stages(screen) as stage:
        store = load_dataset(name, out, overwrite, stage, stage.download, filters)
    return shown(screen, out, store, dict(store.made["report"]))


def shown(screen: Screen, out: Path, store: SequenceStore, report: dict[str, Any]) -> dict[str, Any]:
    """Print the report and the next command; return the object for --json."""
    screen.show(report_table(report))
    for note in report["notes"]:
        screen.say(f"note: {note}", "yellow")
    screen.say(f"written to {out}, fingerprint {store.fingerprint[:12]}")
    if store.num_events > store.num_users:
        is_marked = "split" in store.features and "split" not in store.made["columns"].get("features", ())
        split = ["--split", "predefined"] if is_marked else []
        screen.next("ensue train", out, *split, "--out", "runs/sasrec")
    else:
        screen.say("no user has two events, so there is no order to learn: only popularity can be used", "yellow")
        screen.next("ensue train", out, "--model", "popularity", "--out", "runs/popularity")
    return {**report, "store": str(out), "fingerprint": store.fingerprint}


class Stages:
    """Shows the name of the current stage, and the progress of a download.

    Nothing is drawn if standard output is not a terminal.
    """

    def __init__(self, screen: Screen) -> None:
        self.status = screen.console.status("read") if screen.live else None

    def __enter__(self) -> Stages:
        if self.status is not None:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is not None:
            self.status.stop()

    def __call__(self, stage: str) -> None:
        """A stage begins."""
        if self.status is not None:
            self.status.update(stage)

    def download(self, done: int, total: int | None) -> None:
        """Some bytes have arrived."""
        share = f" of {total / 1e6:.1f} MB" if total else " MB"
        self(f"download {done / 1e6:.1f}{share}")
