"""Errors of memory that ran out, in one line. Torch has no error class for them that covers the CPU and all devices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ensue.errors import TrainingError

# Messages of torch's allocators (CPU, CPU on Windows, GPUs), of C++ and of cuBLAS.
_WORDS = re.compile(r"can't allocate memory|not enough memory|out of memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED")
_REQUESTED = re.compile(r"(?:tried|unable) to allocate ([\d.]+) (\w+)", re.IGNORECASE)


@contextmanager
def explain_memory_errors(advice: str) -> Iterator[None]:
    """Replace the error of a failed allocation by one that says what to reduce; other errors pass unchanged.

    Args:
        advice: what to reduce, with the flags of the command.

    Raises:
        TrainingError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or _WORDS.search(str(error))):
            raise
        requested = _REQUESTED.search(str(error))
        size = f" ({requested[1]} {requested[2]} more were requested)" if requested else ""
        raise TrainingError(f"memory ran out{size}: {advice}") from error
