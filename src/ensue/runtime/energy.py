"""The energy that the processors used, where the machine tells (RAPL on Linux)."""

from __future__ import annotations

from pathlib import Path

COUNTERS = Path("/sys/class/powercap")


class EnergyMeter:
    """Measures from its creation on.

    Args:
        folder: of the counters. Only the packages (`intel-rapl:0`, ...) are read, since their parts are in them.
    """

    def __init__(self, folder: Path = COUNTERS) -> None:
        self.folder = folder
        self._before = self._read()

    def joules(self) -> float | None:
        """The energy of all packages so far; None if there are no counters, or this user may not read them."""
        now = self._read()
        if not now or now.keys() != self._before.keys():
            return None
        total = 0.0
        for name, (microjoules, limit) in now.items():
            used = microjoules - self._before[name][0]
            total += used if used >= 0 else used + limit  # a counter starts again at 0 after its limit
        return total / 1e6

    def _read(self) -> dict[str, tuple[int, int]]:
        """Package -> its counter and the counter's limit, in microjoules."""
        counters = {}
        try:
            for path in sorted(self.folder.glob("intel-rapl:*")):
                if path.name.count(":") == 1:
                    used, limit = ((path / f"{name}").read_text() for name in ("energy_uj", "max_energy_range_uj"))
                    counters[path.name] = int(used), int(limit)
        except (OSError, ValueError):
            return {}
        return counters
