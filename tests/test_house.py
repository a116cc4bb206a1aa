"""The rules of the house: floors, no pickle, sizes, docstrings. See docs/architecture.md."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ensue"
MODULES = sorted(SOURCE.rglob("*.py"))

# A module of ensue -> its floor; whatever is not listed stands on the top floor. So does the package itself: it
# shows the public face, and a lower module may take only the version from it.
FLOORS = {
    **dict.fromkeys(["errors", "files", "registry", "rng", "config", "modules", "runtime", "__version__"], 0),
    **dict.fromkeys(["data", "datasets", "doctor", "evaluation.metrics", "evaluation.significance"], 1),
    **dict.fromkeys(["batches", "nn", "objectives"], 2),
    **dict.fromkeys(["models"], 3),
    **dict.fromkeys(["train", "evaluation", "retrieval", "runs"], 4),
}
# The rooms of the lower floors that know torch: they measure the machine.
KNOWS_TORCH = {"runtime"}
TOP = 5
NO_TORCH = 1  # floors up to this one never import torch
MAX_LINES, MAX_FUNCTION_LINES = 400, 60
BENCHMARKS = sorted((SOURCE.parents[1] / "benchmarks").glob("*.py"))
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def dotted(path: Path) -> str:
    """src/ensue/data/store.py -> ensue.data.store; a package's __init__ is the package."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(module: str) -> int:
    """The floor of a dotted name inside ensue; the package itself is the public face."""
    parts = module.split(".")[1:]
    exact = FLOORS.get(".".join(parts[:2]))
    return exact if exact is not None else FLOORS.get(parts[0], TOP) if parts else TOP


def room(module: str) -> str:
    """The folder that a dotted name lies in, below `ensue`; a module of the top level is a room of its own."""
    parts = module.split(".")[1:]
    folders = parts if SOURCE.joinpath(*parts).is_dir() else parts[:-1]
    return ".".join(folders or parts)


def circles(edges: dict[str, set[str]]) -> list[str]:
    """The rooms that can be reached from themselves, each with the shortest way back."""
    result = []
    for start in edges:
        ways, seen = [[start]], {start}
        while ways:
            way = ways.pop(0)
            after = sorted(edges.get(way[-1], ()))
            if start in after:
                result.append(" -> ".join([*way, start]))
                break
            ways += [[*way, name] for name in after if name not in seen]
            seen.update(after)
    return result


def imported(node: ast.AST, module: str, is_package: bool) -> list[str]:
    """The dotted names that one import statement brings in (relative ones resolved); [] for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
        base = ".".join([*parts, base] if base else parts)
    # `from ensue import files` names a module, not an attribute of the package.
    return [f"{base}.{alias.name}" for alias in node.names] if base == "ensue" else [base]


def imports(source: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every import of a module, also those inside functions: (line, dotted name)."""
    for node in ast.walk(source):
        for name in imported(node, module, is_package):
            yield node.lineno, name


def floor_breaks(source: ast.Module, module: str, is_package: bool = False) -> list[str]:
    """What breaks the floors in one module: an import from a higher floor, or torch on the lower ones."""
    result = []
    for line, name in imports(source, module, is_package):
        top = name.split(".")[0]
        if top == "ensue" and floor(name) > floor(module):
            result.append(f"{module}:{line} (floor {floor(module)}) imports {name} (floor {floor(name)})")
        if top == "torch" and floor(module) <= NO_TORCH and room(module) not in KNOWS_TORCH:
            result.append(f"{module}:{line} (floor {floor(module)}) imports {name}")
    return result


def pickle_breaks(source: ast.Module) -> list[str]:
    """Ways for a file to run code when it is read: pickle modules, torch.load/save, allow_pickle=True.

    `torch.load(..., weights_only=True)` runs none; foreign .pth files are read so.
    """
    result = []
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call)]
    harmless = [call.func for call in calls if any(ast.unparse(word) == "weights_only=True" for word in call.keywords)]
    for node in ast.walk(source):
        for name in imported(node, "ensue", True):
            if name.split(".")[0] in PICKLES:
                result.append(f"line {node.lineno}: imports {name}")
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            result += [f"line {node.lineno}: torch.{n.name}" for n in node.names if n.name in {"load", "save"}]
        named = isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.save"}
        if named and node not in harmless:
            result.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            result.append(f"line {node.value.lineno}: allow_pickle")
    return result


def undocumented(source: ast.Module) -> list[str]:
    """Public functions, classes and methods without a docstring, and the module itself."""
    result = [] if ast.get_docstring(source) else ["the module"]
    scopes: list[tuple[str, list[ast.stmt]]] = [("", source.body)]
    while scopes:
        prefix, body = scopes.pop()
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            overload = any(ast.unparse(mark).split(".")[-1] in {"overload", "setter"} for mark in node.decorator_list)
            if not overload and not ast.get_docstring(node):
                result.append(f"line {node.lineno}: {prefix}{node.name}")
            if isinstance(node, ast.ClassDef):
                scopes.append((f"{prefix}{node.name}.", node.body))
    return result


SUFFIX = re.compile(r"[a-z][a-zA-Z0-9]*(?:_[a-z0-9]+)*_([A-Z][A-Za-z0-9]{0,4})")


def unexplained(source: ast.Module) -> list[str]:
    """The letters of shape suffixes that the legend in the module's docstring does not have."""
    _, _, legend = re.sub(r"\bSuffix(es)?:", "\0", ast.get_docstring(source) or "").partition("\0")
    words = {node.id for node in ast.walk(source) if isinstance(node, ast.Name)}
    words |= {node.arg for node in ast.walk(source) if isinstance(node, ast.arg)}
    words |= {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute)}
    suffixes = [match[1] for word in words if (match := SUFFIX.fullmatch(word))]
    letters = {letter for suffix in suffixes for letter in suffix if letter.isupper()}
    return sorted(letters - set(re.findall(r"\b[A-Z]\b", legend)))


def name_of(path: Path) -> str:
    return dotted(path)


def test_the_base_modules_exist() -> None:
    assert {"ensue.errors", "ensue.files", "ensue.config", "ensue.registry", "ensue.rng"} <= set(map(dotted, MODULES))


def test_the_oldest_versions_are_those_that_are_tested() -> None:
    """`make oldest` runs the tests with what pyproject.toml calls enough."""
    root = SOURCE.parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    tried = (root / "constraints-oldest.txt").read_text(encoding="utf-8").split()
    torch = (root / "constraints.txt").read_text(encoding="utf-8").split()
    oldest = {line.replace(">=", "==") for line in needed if not line.startswith("torch>=")}
    assert set(tried) == oldest | set(torch)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_import_downwards(path: Path) -> None:
    assert floor_breaks(tree(path), dotted(path), path.name == "__init__.py") == []


def test_no_circle_between_rooms() -> None:
    edges: dict[str, set[str]] = {}
    for path in MODULES:
        own = room(dotted(path))
        for _, name in imports(tree(path), dotted(path), path.name == "__init__.py"):
            if name.startswith("ensue.") and room(name) not in (own, "__version__"):
                edges.setdefault(own, set()).add(room(name))
    assert circles(edges) == []


def test_a_circle_is_caught() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b -> c -> b", "c -> b -> c"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_pickle(path: Path) -> None:
    assert pickle_breaks(tree(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_small(path: Path) -> None:
    result = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    lines = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in result}
    assert {name: count for name, count in lines.items() if count > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_names_have_docstrings(path: Path) -> None:
    assert undocumented(tree(path)) == []


@pytest.mark.parametrize("path", [*MODULES, *BENCHMARKS], ids=lambda path: path.stem)
def test_shape_suffixes_have_a_legend(path: Path) -> None:
    assert unexplained(tree(path)) == []


# The rules above are only worth something if they catch what they forbid.


@pytest.mark.parametrize(
    ("module", "is_package", "code"),
    [
        ("ensue.data.store", False, "import torch"),
        ("ensue.evaluation.metrics", False, "def f():\n    from torch import nn"),
        ("ensue.data.store", False, "from ensue.evaluation import evaluate"),
        ("ensue.data.store", False, "from ensue.models.protocol import Scorer"),
        ("ensue.data.store", False, "from ..nn.block import Block"),
        ("ensue.data", True, "from ..objectives.losses import bce"),
        ("ensue.objectives.losses", False, "import ensue.models.sasrec"),
        ("ensue.config", False, "from ensue.data.store import SequenceStore"),
        ("ensue.train.loop", False, "import ensue"),
    ],
)
def test_a_wrong_import_is_caught(module: str, is_package: bool, code: str) -> None:
    assert len(floor_breaks(ast.parse(code), module, is_package)) == 1


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (
            "ensue.data.store",
            "from ensue.data.vocabulary import Vocabulary\nfrom ensue import files\nimport numpy",
        ),
        ("ensue.data.store", "from .vocabulary import Vocabulary"),
        ("ensue.objectives.losses", "import torch\nfrom ensue.data.store import SequenceStore"),
        ("ensue.recommender", "from ensue.cli import main\nfrom ensue.evaluation import evaluate"),
        ("ensue.runs.save", "from ensue import __version__"),
    ],
)
def test_a_right_import_passes(module: str, code: str) -> None:
    assert floor_breaks(ast.parse(code), module) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.save(state, path)",
        "from torch import load",
        "numpy.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "import joblib",
    ],
)
def test_a_pickle_is_caught(code: str) -> None:
    assert pickle_breaks(ast.parse(code))


def test_a_missing_docstring_is_caught() -> None:
    code = '"""Doc."""\ndef f(): ...\nclass C:\n    """Doc."""\n    def g(self): ...\n    def _h(self): ...\n'
    assert undocumented(ast.parse(code)) == ["line 2: f", "line 5: C.g"]


def test_a_letter_without_legend_is_caught() -> None:
    code = "def f(x_BD, y_K1):\n    return x_BD.items_P"
    assert unexplained(ast.parse(code)) == ["B", "D", "K", "P"]
    assert unexplained(ast.parse('"""Text. A line.\n\nSuffixes: `B` rows, K others, P events.\n"""\n' + code)) == ["D"]


def test_lower_floors_run_without_torch() -> None:
    """Importing every module of floors 0 and 1 loads no torch, whatever `ensue/__init__.py` does."""
    names = [name for name in map(dotted, MODULES) if floor(name) <= NO_TORCH and room(name) not in KNOWS_TORCH]
    load = f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
    code = load + "sys.exit('torch' in sys.modules)"
    path = os.pathsep.join([str(SOURCE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == 0
