"""Registries: the names that a configuration can choose from, such as models, losses, negatives, residuals and splits.

A registry is also the type of a configuration field: `loss: Annotated[str, LOSSES] = "bce"` accepts only registered
names, and the command line lists them. An entry builds its object from the configuration, so no chain of conditions is
needed, and a user's own module adds a choice by registering it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ensue.errors import ConfigError, nearest

T = TypeVar("T")
# The hint of registries that users can add to.
OWN = ". A name of your own needs --model-module FILE.py, which registers it"


class Registry(Generic[T]):
    """A table from names to entries; an unknown name is an error that lists the known ones.

    Args:
        kind: the word for an entry in messages.
        modules: the module that registers each name; it is imported when the name is first looked up.
        hint: added to the message about an unknown name.

    >>> losses = Registry[int]("loss")
    >>> _ = losses.register("bce")(1)
    >>> losses["bce"]
    1
    """

    def __init__(self, kind: str, modules: Mapping[str, str] | None = None, hint: str = "") -> None:
        self.kind, self.hint = kind, hint
        self._modules = dict(modules or {})
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its argument under `name`.

        Raises:
            ConfigError: the name is registered already.
        """

        def put(entry: T) -> T:
            if name in self._entries:
                raise ConfigError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return put

    def check(self, name: str) -> str:
        """Return the name if it is registered.

        Raises:
            ConfigError: it is not registered; the message suggests the nearest name and lists all.
        """
        if not isinstance(name, str) or name not in self:
            raise ConfigError(f"unknown {self.kind} {name!r}: {nearest(str(name), self)}{self.hint}")
        return name

    def __getitem__(self, name: str) -> T:
        if self.check(name) not in self._entries:
            import_module(self._modules[name])
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._modules, *self._entries]))

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._modules

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate a field annotated with this registry: the value must be a registered name."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))
