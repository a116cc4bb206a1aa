"""Small runs, and services of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ensue.datasets.simulate import ordered_sequences
from ensue.recommender import Recommender, read
from ensue.serving.api import Access, create_app
from ensue.serving.engine import Served
from ensue.serving.events import EventLog
from ensue.serving.experiment import CONTROL, Experiment
from ensue.serving.service import Service

from .client import Client

SMALL: dict[str, Any] = {
    "gru4rec": {"hidden_units": 8, "maxlen": 6, "num_epochs": 2, "device": "cpu"},
    "sasrec": {"hidden_units": 8, "maxlen": 6, "num_blocks": 1, "num_epochs": 2, "device": "cpu"},
    "tisasrec": {"hidden_units": 8, "maxlen": 6, "num_blocks": 1, "num_epochs": 1, "device": "cpu"},
    "retention": {"hidden_units": 8, "maxlen": 6, "num_blocks": 1, "num_heads": 2, "num_epochs": 1, "device": "cpu"},
    "markov": {},
}
NUM_ITEMS = 40
EVIL = '<img src=x onerror="alert(1)">'


def titled(number: int) -> str:
    return f"Amélie {EVIL}" if number == 3 else f"The Book of {number}"


@pytest.fixture(scope="session")
def recommenders() -> Callable[[str], Recommender]:
    """A model's name -> a trained recommender of books with titles."""
    store = ordered_sequences(num_users=40, num_items=NUM_ITEMS, length=8)
    log = pl.DataFrame(
        {
            "user": [f"u{row // 8}" for row in range(320)],
            "item": store.item_ids.decode(store.items),
            "time": store.times,
        }
    )
    items = pl.DataFrame({"item": range(1, NUM_ITEMS + 1), "title": [titled(n) for n in range(1, NUM_ITEMS + 1)]})
    data = read(log, items=items)
    kept: dict[str, Recommender] = {}

    def get(name: str) -> Recommender:
        if name not in kept:
            kept[name] = Recommender(name, **SMALL[name]).fit(data)
        return kept[name]

    get.data = data  # type: ignore[attr-defined]
    return get


@pytest.fixture
def serve(recommenders: Callable[[str], Recommender], tmp_path: Path) -> Callable[..., Client]:
    """Model names, the first as control -> a client of a service with a log of events."""

    def start(*names: str, access: Access | None = None, **settings: Any) -> Client:
        variants = {}
        for place, name in enumerate(names or ("sasrec",)):
            run = recommenders(name).run
            assert run is not None
            variant = name if place else CONTROL
            variants[variant] = Served(variant, run, f"v-{name}")
        experiment = settings.pop("experiment", Experiment("default", {CONTROL: 1.0}))
        log = settings.pop("log", None) or EventLog(f"sqlite:///{tmp_path / 'events.db'}")
        service = Service(variants, experiment, log, **settings)
        return Client(create_app(service, access or Access(hosts=("127.0.0.1",))), service)

    return start


def together(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """The results of calls that are made at the same time."""

    async def run() -> list[Any]:
        return await asyncio.gather(*calls)

    return asyncio.run(run())


def one(call: Coroutine[Any, Any, Any]) -> Any:
    """The result of one call."""
    return together(call)[0]
