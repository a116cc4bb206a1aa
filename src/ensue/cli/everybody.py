"""`ensue recommend --all`: write recommendations for all users of the data to a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue.cli.hints import recommend_to_user
from ensue.cli.sources import data_of_run
from ensue.errors import ConfigError
from ensue.files import atomic_path, check_place
from ensue.terminal.output import Screen, duration, table

if TYPE_CHECKING:
    import polars as pl

    from ensue.recommender import Recommender

WRITERS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    ".parquet": lambda frame, path: frame.write_parquet(path),
    ".csv": lambda frame, path: frame.write_csv(path),
    ".jsonl": lambda frame, path: frame.write_ndjson(path),
}
SHOWN = 5


def recommend_all(
    screen: Screen,
    recommender: Recommender,
    folder: Path,
    out: Path | None,
    data: list[str] | None,
    k: int,
    keep_seen: bool,
    at: int | None,
    overwrite: bool,
) -> dict[str, Any]:
    """Write the file and show its first rows.

    Raises:
        ConfigError: no file is named, its ending is unknown, or it exists already.
        ArtefactError: it cannot be written.
    """
    if out is None:
        raise ConfigError(f"--all needs --out FILE with one of the endings {', '.join(WRITERS)}")
    if (write := WRITERS.get(out.suffix)) is None:
        raise ConfigError(f"--out {out}: must end in one of {', '.join(WRITERS)}")
    if out.exists() and not (overwrite and out.is_file()):
        raise ConfigError(f"--out {out} exists: choose another name{' or --overwrite it' if out.is_file() else ''}")
    check_place(out)
    assert recommender.run is not None
    store = data_of_run(folder, recommender.run, data, screen)
    began = time.monotonic()
    with screen.counting("recommend") as counted:
        answers = recommender.recommend_all(store, k, exclude_seen=not keep_seen, at=at, progress=counted)
    took = time.monotonic() - began
    with atomic_path(out) as path:
        write(answers, path)
    newcomers = answers.filter(history=0)["user"].n_unique()
    shown = [name for name in ("user", "rank", "item", "title", "score") if name in answers.columns]
    rows = [(*row[:-1], f"{row[-1]:.3f}") for row in answers.head(SHOWN).select(shown).iter_rows()]
    screen.show(table(shown, rows, right=("rank", "score")))
    if newcomers:
        screen.say(f"{newcomers:,} users have no item that this model knows: they get the most popular ones", "yellow")
    rate = f"{store.num_users / max(took, 1e-9):,.0f} users per second"
    screen.say(f"written: {out}: {answers.height:,} rows for {store.num_users:,} users in {duration(took)}, {rate}")
    screen.next(*recommend_to_user(folder, recommender.config.model, store, data))
    return {"written": str(out), "users": store.num_users, "newcomers": newcomers, "rows": answers.height, "k": k}
