"""The build hook: compile the native library into the package, if this machine has a C++ compiler."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeLibrary(BuildHookInterface):
    """Adds the libraries to the wheel, which then is one of this platform; without a compiler it is one of any."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is filled; an editable install uses the libraries in the source folder."""
        native = Path(self.root) / "src" / "ensue" / "nn" / "native"
        spec = importlib.util.spec_from_file_location("ensue_native_build", native / "build.py")
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        try:
            libraries = build.build()
        except build.BuildError as error:
            self.app.display_warning(f"ensue is installed without its native library: {error}")
            return
        build_data["artifacts"] += [f"/{path.relative_to(self.root).as_posix()}" for path in libraries]
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
