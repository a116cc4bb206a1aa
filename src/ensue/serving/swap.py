"""Another run becomes the served one: loaded, checked and warmed up beside the old one, then exchanged at once.

Suffixes: `T` events of one history, `N` items.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ensue.errors import ArtefactError, ConfigError, EnsueError
from ensue.files import MANIFEST
from ensue.runs.load import load_run
from ensue.runs.run import Run
from ensue.serving.engine import Query, Served
from ensue.serving.refusal import RequestError
from ensue.serving.requests import history_of
from ensue.serving.schemas import Health
from ensue.serving.service import Service

POLL_SECONDS = 1.0
VERSION_LETTERS = 12
# Largest difference of a score computed alone and in a batch, relative to the largest score.
TOLERANCE = 1e-3
CHECKED_LENGTHS = (1, 2, 5, 9, 3)
FIRST_TIME, GAP = 1_600_000_000, 3_600


def open_served(variant: str, folder: Path) -> Served:
    """Load a run, check it and warm it up.

    Raises:
        ArtefactError: the folder is not a run, or its model fails the check.
        ConfigError: the model reads features that requests do not have, or does not fit into memory.
    """
    # A link that changes meanwhile must not give the version of one run and the model of another.
    folder = folder.resolve()
    version = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:VERSION_LETTERS] if _has(folder) else ""
    run = load_run(folder)
    needed = [f"{feature.of} feature {feature.name!r}" for feature in run.features if feature.of != "item"]
    if needed:
        raise ConfigError(
            f"{folder.name}: the model reads the {', '.join(needed)}, and requests to the server have no features of "
            "events or users: serve a run that was trained without them"
        )
    served = Served(variant, run, version)
    check(served, folder.name)
    return served


def check(served: Served, name: str) -> None:
    """Compare answers to histories computed together and alone; this also warms the model up.

    Raises:
        ArtefactError: the model raises an error, a score is not finite, nothing is recommended, or the answers differ.
    """
    queries = [_example(served.run, length) for length in CHECKED_LENGTHS]
    try:
        together = served.answer(queries)
        fresh = Served(served.model.variant, served.run, served.model.version)
        alone = [fresh.answer([query])[0] for query in queries]
    except Exception as error:
        # Models of users' own modules raise anything; such a run must not end the search for the next one.
        cause = str(error) if isinstance(error, EnsueError) else f"{type(error).__name__}: {error}"
        raise ArtefactError(f"{name}: the model fails its check: {cause}") from None
    for first, second in zip(together, alone, strict=True):
        scores, others = ([entry.score for entry in answer.items] for answer in (first, second))
        if not scores:
            raise ArtefactError(f"{name}: the model fails its check: it recommends nothing after a short history")
        if not np.allclose(scores, others, rtol=0, atol=TOLERANCE * max(1.0, max(map(abs, scores)))):
            raise ArtefactError(f"{name}: the model fails its check: scores in a batch differ from those alone")


def _example(run: Run, length: int) -> Query:
    """A history of popular items."""
    order = np.argsort(-run.popularity_N.numpy(), kind="stable") + 1
    numbers_T = np.resize(order, length).astype(np.int64)
    times = (FIRST_TIME + GAP * np.arange(length)).tolist()
    return Query(history_of(run, numbers_T, times, None), 5, np.empty(0, np.int64))


@dataclass
class Swapper:
    """Exchanges the served runs.

    Attributes:
        service: the service.
        folders: variant -> its run folder, or a link to it, which is watched.
        root: the folder in which `POST /admin/models` looks up names of runs.
    """

    service: Service
    folders: dict[str, Path]
    root: Path
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _seen: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen = {variant: _signature(folder) for variant, folder in self.folders.items()}

    async def swap(self, variant: str, folder: Path) -> None:
        """Serve another run under a variant's name. If it is refused, the old run stays.

        Raises:
            EnsueError: the run is refused.
            OSError: its files cannot be read.
        """
        async with self._lock:
            try:
                served = await asyncio.to_thread(open_served, variant, folder)
            except (EnsueError, OSError) as error:
                self.service.metrics.swaps.labels("refused").inc()
                self.service.refused = f"{variant}: {folder.name} was refused; the old model is still served"
                print_line(f"{variant}: refused {folder}: {error}")
                raise
            self.service.exchange(variant, served)
            self.service.metrics.swaps.labels("served").inc()
            self.service.refused = None
            print_line(f"{variant}: now serves {folder}, version {served.model.version}")

    async def swap_named(self, name: str, variant: str) -> Health:
        """Serve the run folder of this name beside the served one.

        Raises:
            RequestError: the name is not that of a run, or the run is refused (422).
        """
        self.service.served(variant)
        folder = self.root / name
        if name in (".", "..") or Path(name).name != name or not _has(folder):
            raise RequestError(422, "run", "must be the name of a run folder beside the served one", name)
        try:
            await self.swap(variant, folder)
        except (EnsueError, OSError):
            raise RequestError(
                422, "run", "was refused, and the old model is still served: see the log of the server", name
            ) from None
        # Until the link changes again, the choice of the administrator stays.
        self._seen[variant] = _signature(self.folders[variant])
        return self.service.health()

    async def watch(self) -> None:
        """Look for changes of the folders and links until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Serve the runs whose folder or link has changed."""
        for variant, folder in self.folders.items():
            signature = _signature(folder)
            if signature in (self._seen[variant], ("", 0)):
                continue
            self._seen[variant] = signature
            try:
                await self.swap(variant, folder)
            except (EnsueError, OSError):
                continue


def print_line(text: str) -> None:
    """Print one line of the server's log."""
    print(f"ensue: {text}", flush=True)


def _has(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _signature(folder: Path) -> tuple[str, int]:
    """What changes when a run is replaced; ("", 0) while there is none."""
    try:
        return str(folder.resolve()), (folder / MANIFEST).stat().st_mtime_ns
    except OSError:
        return "", 0
