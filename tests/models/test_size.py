"""A model that is too large is refused by its settings, before anything of its size is allocated."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from ensue.errors import ConfigError
from ensue.models import MODELS, Catalogue, Model, build_model, model_config
from ensue.models.base import model_size
from ensue.models.size import LOADING, TENSOR_LIMIT, TRAINING
from ensue.nn.block import Norm
from ensue.nn.embedding import Positions
from ensue.nn.relations import Buckets, Relation
from ensue.nn.residual import RESIDUALS
from ensue.runtime.limits import memory

SMALL = {"hidden_units": 8, "num_heads": 2, "maxlen": 7}
NUM_ITEMS = 11


def every_setting() -> Iterator[dict[str, Any]]:
    """Each model with each of the settings that decide which tensors it has, one at a time, shallow and deep."""
    choices: dict[str, tuple[Any, ...]] = {
        "norm": get_args(Norm),
        "residual": tuple(RESIDUALS),
        "positions": get_args(Positions),
        "relation": get_args(Relation),
        "buckets": get_args(Buckets),
        "query_time": (False, True),
        "user_state": ("init", "all"),
        "session_attention": (False, True),
        "memory_slots": (0, 3),
    }
    for name in MODELS:
        fields = MODELS[name].config.model_fields
        small = {key: value for key, value in SMALL.items() if key in fields}
        yield {"name": name, **small}
        depths = [{"num_blocks": blocks} for blocks in (1, 5)] if "num_blocks" in fields else [{}]
        for key, values in choices.items():
            for value, depth in product(values, depths):
                if key in fields:
                    yield {"name": name, **small, key: value, **depth}


def test_the_size_is_that_of_the_model_whatever_the_settings() -> None:
    seen = set()
    for settings in every_setting():
        config = model_config(settings)
        model = build_model(config, Catalogue(NUM_ITEMS))
        state = nn.Module.state_dict(model).values()
        buffers = sum(buffer.nbytes for buffer in model.buffers())
        size = model_size(config, Catalogue(NUM_ITEMS))
        assert size.tensors == len(state), settings
        assert size.state_bytes == sum(tensor.nbytes for tensor in state), settings
        assert size.total_bytes == sum(p.nbytes for p in model.parameters()) + buffers, settings
        assert all(tensor.device.type == "cpu" for tensor in state)
        seen.add(size)
    assert len(seen) > 20


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"maxlen": 10**9}, "maxlen (got 1000000000)"),
        ({"hidden_units": 10**9}, "hidden_units (got 1000000000)"),
        ({"num_blocks": 10**9}, "num_blocks (got 1000000000)"),
        ({"maxlen": 10**9, "positions": "sinusoidal"}, "maxlen"),
        ({"name": "tisasrec", "time_span": 10**9}, "time_span"),
        ({"name": "tisasrec", "time_span": 10**9, "time_unit": 86400}, "time_span"),
        ({"name": "sasrec-padded", "maxlen": 10**9}, "maxlen"),
        ({"name": "tisasrec-padded", "maxlen": 10**9, "hidden_units": 64}, "maxlen"),
        *(({"maxlen": 10**power}, "maxlen") for power in (18, 30, 400)),
        *(({"hidden_units": 10**power}, "hidden_units") for power in (12, 18, 30, 400)),
        ({"maxlen": 10**30, "hidden_units": 10**30}, "hidden_units"),
    ],
)
def test_a_model_beyond_memory_is_refused(
    settings: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensue.models.size.memory", lambda: 16 << 30)
    with pytest.raises(ConfigError, match=r"GiB of memory .*, but only 16\.0 GiB are available: lower ") as caught:
        build_model(model_config({"name": "sasrec", **settings}), Catalogue(1000))
    assert f"lower {named}" in str(caught.value)


def test_a_large_catalogue_is_reported_with_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensue.models.size.memory", lambda: 16 << 30)
    with pytest.raises(
        ConfigError, match=r"the model of 1,000,000,000 items .* 745\.1 GiB .* lower hidden_units \(got 50\)"
    ):
        build_model(model_config({"name": "sasrec"}), Catalogue(10**9))


def test_training_takes_more_than_loading_and_a_gpu_may_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = model_config({"name": "sasrec"})
    size = model_size(config, Catalogue(1000)).total_bytes
    monkeypatch.setattr("ensue.models.size.memory", lambda: TRAINING * size)
    build_model(config, Catalogue(1000))
    monkeypatch.setattr("ensue.models.size.memory", lambda: TRAINING * size - 1)
    monkeypatch.setattr("ensue.models.size.gpu_memory", lambda: 0)
    build_model(config, Catalogue(1000), LOADING)
    with pytest.raises(ConfigError, match="Adam"):
        build_model(config, Catalogue(1000))
    monkeypatch.setattr("ensue.models.size.gpu_memory", lambda: TRAINING * size)
    build_model(config, Catalogue(1000))
    monkeypatch.setattr("ensue.models.size.memory", lambda: size - 1)
    with pytest.raises(ConfigError, match="Adam"):
        build_model(config, Catalogue(1000))


def test_a_limit_on_the_process_counts() -> None:
    code = (
        "import resource as r; from ensue.runtime.limits import memory; r.setrlimit(r.RLIMIT_AS, (SIZE, -1))".replace(
            "SIZE", str(1 << 33)
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(memory())"], capture_output=True, text=True, check=True
    )
    here = memory()
    assert int(done.stdout) == min(here, 1 << 33)


GROUPS = "9:name=systemd:/\n4:cpu,memory:/outer/inner\n0::/a/b\n"
UNLIMITED = "9223372036854771712"


@pytest.mark.parametrize(
    ("files", "least"),
    [
        ({}, None),
        ({"memory.max": "max", "a/memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": UNLIMITED}, None),
        # A container's own group, which it finds at the root.
        ({"memory.max": "4096\n"}, 4096),
        ({"memory/memory.limit_in_bytes": "8192\n"}, 8192),
        # The least of a group and those above it.
        ({"a/b/memory.max": "300", "a/memory.max": "200", "memory.max": "max"}, 200),
        ({"memory/outer/inner/memory.limit_in_bytes": "100", "memory/outer/memory.limit_in_bytes": "200"}, 100),
        ({"memory/memory.limit_in_bytes": UNLIMITED, "a/memory.max": "70"}, 70),
        # Groups of others.
        ({"other/memory.max": "1", "memory/a/b/memory.limit_in_bytes": "1", "outer/memory.max": "1"}, None),
    ],
)
def test_limits_of_containers_count(
    files: dict[str, str], least: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensue.runtime.limits.OWN_CGROUPS", tmp_path / "nowhere")
    here = memory()
    (tmp_path / "own").write_text(GROUPS)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr("ensue.runtime.limits.OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr("ensue.runtime.limits.CGROUPS", tmp_path / "groups")
    assert memory() == (here if least is None else least)


def test_a_model_beyond_the_containers_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "memory.max").write_text(str(1 << 20))
    monkeypatch.setattr("ensue.runtime.limits.OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr("ensue.runtime.limits.CGROUPS", tmp_path)
    with pytest.raises(ConfigError, match=r"but only 0\.0 GiB are available: lower maxlen"):
        build_model(model_config({"name": "sasrec", "maxlen": 10_000}), Catalogue(10))


def test_a_thousand_blocks_have_few_enough_tensors_whatever_their_kind() -> None:
    for name, residual in product(("sasrec", "tisasrec"), tuple(RESIDUALS)):
        config = model_config({"name": name, "hidden_units": 4, "residual": residual, "num_blocks": 1000})
        assert model_size(config, Catalogue(5)).tensors < TENSOR_LIMIT


def test_too_many_tensors_for_a_runs_file_are_refused_unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    entry, built = MODELS["sasrec"], []

    def build(config: Any, catalogue: Catalogue) -> Model:
        built.append(config.num_blocks)
        return entry.build(config, catalogue)

    monkeypatch.setattr("ensue.models.base.MODELS", {"sasrec": type(entry)(entry.config, build)})
    with pytest.raises(
        ConfigError,
        match=r"has 120,004 tensors, but a run's file may have at most 32,768: lower num_blocks \(got 10000\)",
    ):
        build_model(model_config({"name": "sasrec", "hidden_units": 1, "num_blocks": 10_000}), Catalogue(5))
    assert sorted(set(built)) == [1, 2]


def test_measuring_loads_nothing_more_of_torch() -> None:
    """Filling tensors of the meta device would load its compiler: a second for every command."""
    code = (
        "import sys, torch.distributed; from ensue.models import Catalogue, MODELS, build_model, model_config\n"
        "before = set(sys.modules)\n"
        "for name in MODELS: build_model(model_config({'name': name}), Catalogue(5))\n"
        "print(len([name for name in set(sys.modules) - before if name.startswith('torch')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10


def test_an_error_of_a_model_of_another_kind_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object, catalogue: Catalogue) -> Model:
        raise RuntimeError("shapes do not match")

    entry = MODELS["sasrec"]
    monkeypatch.setattr("ensue.models.base.MODELS", {"sasrec": type(entry)(entry.config, fail)})
    with pytest.raises(RuntimeError, match="shapes"):
        build_model(model_config({"name": "sasrec"}), Catalogue(5))


def test_a_deep_model_is_measured_in_steps_of_two() -> None:
    shallow, deep = (
        model_size(model_config({"name": "sasrec", "num_blocks": blocks}), Catalogue(5)) for blocks in (2, 10**12)
    )
    assert math.isclose(deep.tensors / shallow.tensors, 10**12 / 2, rel_tol=0.2)
    assert torch.get_default_device().type == "cpu"
