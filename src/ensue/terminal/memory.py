"""Memory that ran out, told in one line. Torch has no class for it that all devices and the CPU's allocator share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ensue.errors import TrainingError

# Of torch's allocators (CPU, CPU on Windows, GPUs), of C++, of cuBLAS.
_WORDS = re.compile(r"can't allocate memory|not enough memory|out of memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED")
_ASKED = re.compile(r"(?:tried|unable) to allocate ([\d.]+) (\w+)", re.IGNORECASE)


@contextmanager
def memory_told(advice: str) -> Iterator[None]:
    """Let a failed allocation end as an error that says what to lower; every other error passes.

    Args:
        advice: what to lower, as the command spells it.

    Raises:
        TrainingError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or _WORDS.search(str(error))):
            raise
        asked = _ASKED.search(str(error))
        size = f" ({asked[1]} {asked[2]} more were asked for)" if asked else ""
        raise TrainingError(f"memory ran out{size}: {advice}") from error
