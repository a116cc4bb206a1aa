"""Sequential recommendation: predict the next item in a person's history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ensue.recommender import Recommendation, Recommendations, Recommender, read

__all__ = ["Recommendation", "Recommendations", "Recommender", "__version__", "read"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `import ensue` does not load torch."""
    if name in __all__:
        from ensue import recommender

        return getattr(recommender, name)
    raise AttributeError(f"module 'ensue' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, including public ones that are not imported yet."""
    return sorted({*globals(), *__all__})
