"""Import of a user's own modules, which register models, losses and other entries."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

from ensue.errors import ConfigError

FLAG = "--model-module"
# The environment variable that passes the modules of a command to the ranks that it starts.
VARIABLE = "ENSUE_MODEL_MODULES"


def import_model_module(name: str) -> None:
    """Import a module that registers models; importing it again does nothing.

    Args:
        name: the path of a Python file, or the dotted name of an installed module.

    Raises:
        ConfigError: there is no such file or module, or importing it fails.
    """
    try:
        if not name.endswith(".py"):
            import_module(name)
            return
        path = Path(name).resolve()
        if not path.is_file():
            raise ConfigError(f"{FLAG} {name}: no such file")
        if path.stem in sys.modules:
            file = getattr(sys.modules[path.stem], "__file__", None)
            # Python itself imports a module by a link's own name.
            if file is None or path != Path(file).resolve():
                raise ConfigError(f"{FLAG} {name}: a module called {path.stem!r} is imported already; rename the file")
            return
        spec = spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{FLAG} {name}: not a Python file")
        module = module_from_spec(spec)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{FLAG} {name}: cannot be imported: {type(error).__name__}: {error}") from error


def import_named(words: Sequence[str]) -> None:
    """Import the modules named on a command line, and those of the command that started this process.

    The environment then names all of them, for the processes that this one starts.

    Raises:
        ConfigError: one cannot be imported.
    """
    given = [word.partition("=")[2] for word in words if word.startswith(f"{FLAG}=")]
    given += [value for word, value in pairwise(words) if word == FLAG]
    before = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    for name in (*before, *given):
        import_model_module(name)
    if given:
        # The paths are absolute, since those processes may run in another folder.
        files = [str(Path(name).resolve()) if name.endswith(".py") else name for name in given]
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*before, *files]))
