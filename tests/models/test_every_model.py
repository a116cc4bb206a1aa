"""A registered model without a test file of its own is held to the contract all the same."""

from __future__ import annotations

from pathlib import Path

from ensue.models import MODELS
from ensue.testing import ModelContract

# Those of the package, not those that other tests register.
OWN = [name for name in MODELS if MODELS[name].config.__module__.startswith("ensue.")]
OTHERS = [name for name in OWN if not (Path(__file__).parent / f"test_{name.replace('-', '_')}.py").is_file()]

for _name in OTHERS:
    _class = f"Test{_name.title().replace('-', '')}"
    _config = MODELS[_name].config.parse({"name": _name, "maxlen": 16})
    globals()[_class] = type(_class, (ModelContract,), {"config": _config})


def test_the_contract_reaches_every_model() -> None:
    own = {path.stem.removeprefix("test_").replace("_", "-") for path in Path(__file__).parent.glob("test_*.py")}
    assert set(OWN) <= own | set(OTHERS)
    assert {"sasrec", "popularity", "markov"} <= set(OWN)
