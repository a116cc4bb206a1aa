"""Names for the things a configuration can choose: models, losses, splits, negatives, recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

from ensue.errors import ConfigError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from name to thing; an unknown name is an error that lists the known ones.

    Args:
        kind: what the things are called in messages.
        modules: names whose module registers them; it is imported when the name is first used.

    >>> losses = Registry[int]("loss")
    >>> _ = losses.register("bce")(1)
    >>> losses["bce"]
    1
    """

    def __init__(self, kind: str, modules: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._modules = dict(modules or {})
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its argument under `name`. A name is given once."""

        def put(entry: T) -> T:
            if name in self._entries:
                raise ConfigError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return put

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise ConfigError(f"unknown {self.kind} {name!r}: {nearest(name, self)}")
        if name not in self._entries:
            import_module(self._modules[name])
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._modules, *self._entries]))

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._modules
