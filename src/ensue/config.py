"""Typed, frozen settings, read from and written to TOML; an unknown key or a value out of range is a clear error."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from ensue.errors import ConfigError, nearest
from ensue.files import write_text


class Config(BaseModel):
    """Base class of all configurations: frozen, no unknown keys, compared by value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def __init__(self, /, **values: Any) -> None:
        """Check `values` as `parse` does.

        Raises:
            ConfigError: as `parse`.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(type(self), error, "")) from None

    # Pydantic also calls an overridden constructor for nested settings; its errors would not name the outer key. With
    # this mark, pydantic treats the constructor as its own and validates nested settings directly.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "") -> Self:
        """Check `values` against this configuration.

        Args:
            values: key -> value, as read from TOML or the command line.
            where: the file or section that each message begins with.

        Raises:
            ConfigError: a key is unknown (the nearest known one is named) or a value breaks its rule.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_explain(cls, error, where)) from None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked again.

        Raises:
            ConfigError: as `parse`.
        """
        return self.parse({**self.model_dump(), **changes})

    @classmethod
    def read_toml(cls, path: Path) -> Self:
        """Read a TOML file.

        Raises:
            ConfigError: the file is missing, is not TOML, or breaks a rule.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML ({error})") from None
        return cls.parse(values, str(path))

    def to_toml(self) -> str:
        """Return the settings as TOML, defaults included; fields that are None are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def write_toml(self, path: Path) -> None:
        """Write the settings as TOML, atomically."""
        write_text(path, self.to_toml())


def _explain(cls: type[BaseModel], error: ValidationError, where: str) -> str:
    lines = []
    prefix = f"{where}: " if where else ""
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or cls.__name__
        if item["type"] == "extra_forbidden":
            lines.append(
                f"{prefix}unknown setting {key!r}: {nearest(str(item['loc'][-1]), _fields_at(cls, item['loc']))}"
            )
            continue
        message = item["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        cause = item.get("ctx", {}).get("error")
        is_section = item["type"] == "value_error" and isinstance(item["input"], dict | BaseModel)
        if is_section and (isinstance(cause, ConfigError) or not item["loc"]):
            # The message already names the settings, or the section was parsed alone and `where` names it.
            lines += [prefix + line for line in message.splitlines()]
        elif is_section:
            lines.append(f"{prefix}[{key}]: {message}")
        elif isinstance(cause, ConfigError):
            lines.append(f"{prefix}setting {key!r}: {message}")
        else:
            lines.append(f"{prefix}setting {key!r}: {message} (got {item['input']!r})")
    return "\n".join(lines)


def _fields_at(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the (possibly nested) configuration that `loc` points into."""
    for part in loc[:-1]:
        field = cls.model_fields.get(str(part))
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            cls = field.annotation
    return list(cls.model_fields)
