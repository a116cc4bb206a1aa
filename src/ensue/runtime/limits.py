"""The memory that this process may use: the machine's, or the lowest limit on it."""

from __future__ import annotations

import os
import resource
from pathlib import Path, PurePosixPath

# Where Linux lists the control groups of a process, and where it keeps their limits; containers are control groups.
OWN_CGROUPS, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory() -> int:
    """The number of bytes that this process may use: the machine's memory or the lowest limit.

    The limits are that on the address space and those of the control groups.
    """
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits(OWN_CGROUPS, CGROUPS)]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(known if limit == resource.RLIM_INFINITY else [*known, limit])


def _cgroup_limits(own: Path, root: Path) -> list[int]:
    """The memory limits of this process's control groups and of their parents.

    Args:
        own: a file with lines `number:controllers:/path/of/the/group`; version 2 has no controllers.
        root: where the groups are mounted. Inside a container this is often its own group, and the path does not exist.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        group = PurePosixPath(path.lstrip("/"))
        for place in (group, *group.parents):
            try:
                limits.append(int((base / place / name).read_text(encoding="utf-8")))
            except (OSError, ValueError):  # missing, or "max"
                continue
    return limits


def gpu_memory() -> int:
    """The memory of the largest GPU in bytes; 0 without a GPU."""
    import torch  # imported here, so that reading logs does not need it

    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return max((torch.cuda.get_device_properties(device).total_memory for device in devices), default=0)
