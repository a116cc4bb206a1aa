"""Another run takes the place of the served one, or is refused and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from ensue.cli import main
from ensue.errors import ArtefactError
from ensue.recommender import Recommender, read
from ensue.serving.api import Access, create_app
from ensue.serving.engine import Served
from ensue.serving.experiment import CONTROL
from ensue.serving.swap import Swapper, check, open_served

from .client import Client
from .conftest import one

Serve = Callable[..., Client]
Recommenders = Callable[[str], Recommender]


@pytest.fixture
def swapping(serve: Serve, recommenders: Recommenders, tmp_path: Path) -> tuple[Client, Swapper]:
    """A service of `runs/current`, a link to `runs/sasrec`, beside `runs/gru4rec` and a damaged run."""
    for name in ("sasrec", "gru4rec"):
        recommenders(name).save(tmp_path / "runs" / name)
    recommenders("sasrec").save(tmp_path / "runs" / "damaged")
    file = tmp_path / "runs" / "damaged" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    link = tmp_path / "runs" / "current"
    link.symlink_to("sasrec")
    service = serve().service
    service.variants = {CONTROL: open_served(CONTROL, link)}
    swapper = Swapper(service, {CONTROL: link}, link.parent)
    app = create_app(service, Access(admin_key="secret"), swapper)
    return Client(app, service), swapper


def point(swapper: Swapper, name: str) -> None:
    link = swapper.folders[CONTROL]
    link.unlink()
    link.symlink_to(name)


def model(client: Client) -> str:
    name: str = one(client.post("/recommend", {"history": [1]})).json["model"]["name"]
    return name


def test_a_changed_link_is_served(swapping: tuple[Client, Swapper], capsys: pytest.CaptureFixture[str]) -> None:
    client, swapper = swapping
    one(swapper.look())
    assert model(client) == "sasrec"
    point(swapper, "gru4rec")
    one(swapper.look())
    assert model(client) == "gru4rec"
    assert 'ensue_swaps_total{outcome="served"} 1.0' in one(client.get("/metrics")).body.decode()


def test_a_damaged_run_is_refused_once_and_the_old_one_stays(
    swapping: tuple[Client, Swapper], capsys: pytest.CaptureFixture[str]
) -> None:
    client, swapper = swapping
    point(swapper, "damaged")
    one(swapper.look())
    one(swapper.look())
    assert capsys.readouterr().out.count(": refused ") == 1
    assert model(client) == "sasrec"
    health = one(client.get("/health")).json
    assert health["status"] == "degraded"
    assert str(swapper.root) not in health["last_refused"]
    point(swapper, "gru4rec")
    one(swapper.look())
    assert model(client) == "gru4rec"
    assert one(client.get("/health")).json["status"] == "ok"


def test_a_missing_link_changes_nothing(swapping: tuple[Client, Swapper]) -> None:
    client, swapper = swapping
    swapper.folders[CONTROL].unlink()
    one(swapper.look())
    assert model(client) == "sasrec"
    assert one(client.get("/health")).json["status"] == "ok"


def test_an_administrator_names_a_run(swapping: tuple[Client, Swapper]) -> None:
    client, swapper = swapping
    right = {"authorization": "Bearer secret"}
    assert one(client.post("/admin/models", {"run": "gru4rec"})).status == 401
    answer = one(client.post("/admin/models", {"run": "gru4rec"}, **right))
    assert answer.json["models"][0]["name"] == "gru4rec"
    one(swapper.look())
    assert model(client) == "gru4rec"
    for name in ("none", "..", ".", "../runs/sasrec", "/etc", "damaged"):
        refused = one(client.post("/admin/models", {"run": name}, **right))
        assert (refused.status, refused.error["field"]) == (422, "run")
        assert str(swapper.root) not in refused.body.decode()
    assert one(client.post("/admin/models", {"run": "sasrec", "variant": "b"}, **right)).status == 422
    assert model(client) == "gru4rec"


def test_without_a_key_nobody_is_administrator(serve: Serve, tmp_path: Path) -> None:
    service = serve().service
    client = Client(create_app(service, Access(), Swapper(service, {}, tmp_path)), service)
    assert one(client.post("/admin/models", {"run": "x"}, authorization="Bearer ")).status == 403


def test_no_request_is_lost_or_mixed_by_swaps(swapping: tuple[Client, Swapper], recommenders: Recommenders) -> None:
    client, swapper = swapping
    expected = {name: recommenders(name).recommend([9, 1], k=40).ids for name in ("sasrec", "gru4rec")}

    async def ask(answers: list[Any], is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            answers.append(await client.post("/recommend", {"history": [9, 1], "k": 40}))

    async def run() -> list[Any]:
        answers: list[Any] = []
        is_over = asyncio.Event()
        askers = [asyncio.create_task(ask(answers, is_over)) for _ in range(8)]
        for name in ("gru4rec", "sasrec", "gru4rec"):
            await swapper.swap(CONTROL, swapper.root / name)
        is_over.set()
        await asyncio.gather(*askers)
        return answers

    answers = asyncio.run(run())
    assert {answer.status for answer in answers} == {200}
    assert {answer.json["model"]["name"] for answer in answers} == {"sasrec", "gru4rec"}
    for answer in answers:
        assert [each["item"] for each in answer.json["items"]] == expected[answer.json["model"]["name"]]


def test_a_model_without_finite_scores_fails_its_check(recommenders: Recommenders) -> None:
    run = Recommender("gru4rec", hidden_units=4, num_epochs=1, device="cpu").fit([[1, 2, 3, 4], [2, 3, 4, 1]] * 5).run
    assert run is not None
    check(Served(CONTROL, run, "v"), "run")
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ArtefactError, match="fails its check"):
        check(Served(CONTROL, run, "v"), "run")


def test_a_model_that_raises_fails_its_check(recommenders: Recommenders, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recommenders("sasrec").run
    assert run is not None
    served = Served(CONTROL, run, "v")

    def fail(*_: object) -> None:
        raise RuntimeError("wrong shape")

    monkeypatch.setattr(served, "answer", fail)
    with pytest.raises(ArtefactError, match="run: the model fails its check: RuntimeError: wrong shape"):
        check(served, "run")


@pytest.mark.parametrize(("of", "name"), [("event", "kind"), ("user", "town")])
def test_a_model_of_features_that_requests_lack_is_refused_at_start(
    of: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = [(user, item) for user in range(8) for item in range(6)]
    log = pl.DataFrame(
        {
            "user": [u for u, _ in numbers],
            "item": [(u + i) % 6 for u, i in numbers],
            "time": [i for _, i in numbers],
            "kind": [f"v{i % 2}" for _, i in numbers],
        }
    )
    users = pl.DataFrame({"user": range(8), "town": [f"t{number % 2}" for number in range(8)]})
    data = read(log, users=users, features=["kind"])
    recommender = Recommender("gru4rec", hidden_units=4, num_epochs=1, features=[name], device="cpu")
    recommender.fit(data, folder=tmp_path / "run")
    assert main(["serve", str(tmp_path / "run"), "--events", "none"]) == 2
    error = capsys.readouterr().err
    assert f"run: the model reads the {of} feature {name!r}" in " ".join(error.split())
    assert "Traceback" not in error
