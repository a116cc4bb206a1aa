"""How much memory this process may use: the machine's, or the least of the limits on it."""

from __future__ import annotations

import os
import resource
from pathlib import Path, PurePosixPath

# Where Linux tells the control groups of a process, and where their limits lie; containers are such groups.
OWN_CGROUPS, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory() -> int:
    """Bytes that this process may have: the machine's memory or the least of the limits on it.

    The limits are that on its address space and those of its control groups.
    """
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits(OWN_CGROUPS, CGROUPS)]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(known if limit == resource.RLIM_INFINITY else [*known, limit])


def _cgroup_limits(own: Path, root: Path) -> list[int]:
    """Limits on the memory of this process's control groups and of those above them.

    Args:
        own: lines of `number:controllers:/path/of/the/group`; version 2 has no controllers there.
        root: where the groups are mounted. A container often finds its own group there, and nothing at the path.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        group = PurePosixPath(path.lstrip("/"))
        for place in (group, *group.parents):
            try:
                found.append(int((base / place / name).read_text(encoding="utf-8")))
            except (OSError, ValueError):  # not there, or "max"
                continue
    return found


def gpu_memory() -> int:
    """Bytes of the largest GPU; 0 without one."""
    import torch  # here, so that readers of logs learn the limits without it

    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return max((torch.cuda.get_device_properties(device).total_memory for device in devices), default=0)
