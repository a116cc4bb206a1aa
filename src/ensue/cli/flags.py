"""One flag per field of a configuration: type, range, choices and description come from the class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from ensue.config import Config
from ensue.errors import ConfigError, nearest
from ensue.registry import Registry

ConfigClass = type[Config]
_ENTRY = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s",][^,\r\n]*?)?)\s*(?:,|\Z)')


@dataclass(frozen=True)
class Flag:
    """A command-line flag.

    Attributes:
        name: the setting's flat name; the flag is `--` and the name with dashes.
        panel: the section of the help.
        help: the description.
        metavar: the kind of value.
        default: the default, as it is written on a command line; "" without one.
        limits: the range of values, such as `>= 0, < 1`; "" without one.
        choices: the allowed values, if they are a list or the names of a registry.
        switch: whether it is a yes-or-no flag, `--x` and `--no-x`.
        many: whether it takes several values, separated by commas.
        hidden: whether it is accepted but not listed in the help.
    """

    name: str
    panel: str
    help: str
    metavar: str
    default: str
    limits: str = ""
    choices: tuple[str, ...] | Registry[Any] = ()
    switch: bool = False
    many: bool = False
    hidden: bool = False

    @property
    def option(self) -> str:
        """The flag as written on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def description(self) -> str:
        """The text in the command's help. Typer's column for choices is too narrow, and it shows no ranges."""
        choices = f"one of {', '.join(self.choices)}" if self.choices else ""
        numbers = ", ".join(part for part in (f"default {self.default}" if self.default else "", self.limits) if part)
        facts = "; ".join(part for part in (choices, numbers) if part)
        return f"{self.help} ({facts})" if facts else self.help

    def parameter(self) -> Parameter:
        """The flag as a keyword parameter for Typer, whose value is None if it is not given."""
        names = f"{self.option}/--no-{self.option[2:]}" if self.switch else self.option
        info = typer.Option(
            None,
            names,
            help=escape(self.description),
            metavar=None if self.switch else self.metavar,
            show_default=False,
            rich_help_panel=self.panel,
            hidden=self.hidden,
        )
        annotation = bool | None if self.switch else str | None
        return Parameter(f"set_{self.name}", Parameter.KEYWORD_ONLY, default=info, annotation=annotation)

    def value(self, given: str | bool) -> Any:
        """The given text as a value for the configuration, which checks its type and range.

        Raises:
            ConfigError: it is not one of the choices; the message names the nearest.
        """
        if isinstance(given, bool):
            return given
        if self.many:
            return split_list(given)
        if given.lower() == "none" and not self.default:
            return None
        if self.choices and given not in self.choices:
            hint = self.choices.hint if isinstance(self.choices, Registry) else ""
            raise ConfigError(f"{self.option}: unknown value {given!r}: {nearest(given, self.choices)}{hint}")
        return given

    def words(self, value: Any) -> list[str]:
        """The flag with a value, as words of a command line."""
        if self.switch:
            return [self.option if value else f"--no-{self.option[2:]}"]
        return [self.option, join_list(value) if self.many else "none" if value is None else str(value)]


def split_list(text: str) -> list[str]:
    """`a,b,"c,d"` -> a, b and c,d. Blanks around an entry are removed, except in quotes; an empty text has no entries.

    Raises:
        ConfigError: a quote is not closed, or an entry without quotes contains a line break.
    """
    if not text.strip():
        return []
    entries: list[str] = []
    place = 0
    while True:
        entry = _ENTRY.match(text, place)
        if entry is None:
            raise ConfigError(
                f"{text!r} is not a list: separate entries by commas, and put an entry that contains a comma or a line "
                'break in double quotes (write "" for a quote in it)'
            )
        quoted, plain = entry.groups()
        entries.append((plain or "") if quoted is None else quoted.replace('""', '"'))
        place = entry.end()
        if not entry.group().endswith(","):
            return entries


def join_list(entries: Iterable[str]) -> str:
    """The text that `split_list` splits into these entries.

    >>> join_list(["a", "b,c", " d"])
    'a,"b,c"," d"'
    """
    return ",".join(
        '"' + entry.replace('"', '""') + '"' if not entry or re.search(r'^[\s"]|[,\r\n]|\s\Z', entry) else entry
        for entry in entries
    )


def flags_of(
    config: ConfigClass, panel: str, skip: Iterable[str] = (), rename: Mapping[str, str] | None = None
) -> list[Flag]:
    """The flags of a configuration's fields.

    Args:
        config: the class.
        panel: the help's section.
        skip: fields without a flag.
        rename: field -> flat name, for fields where they differ.
    """
    text = descriptions(config)
    return [
        _flag((rename or {}).get(name, name), field, panel, text[name])
        for name, field in config.model_fields.items()
        if name not in set(skip)
    ]


def descriptions(config: ConfigClass) -> dict[str, str]:
    """Field -> description, from the field itself or the class's `Attributes:` section; "" if neither has one."""
    attributes: dict[str, str] = {}
    _, _, section = (config.__doc__ or "").partition("Attributes:\n")
    for name, text in re.findall(r"^ {8}(\w+): (.*(?:\n {9,}.*)*)", section, flags=re.MULTILINE):
        attributes[name] = " ".join(text.split())
    return {name: field.description or attributes.get(name, "") for name, field in config.model_fields.items()}


def _flag(name: str, field: FieldInfo, panel: str, text: str) -> Flag:
    kinds = _kinds(field.annotation)
    registry = next((rule for rule in field.metadata if isinstance(rule, Registry)), None)
    choices = tuple(str(kind) for kind in kinds if not isinstance(kind, type)) if registry is None else registry
    many = tuple in kinds
    switch = bool in kinds
    metavar = "NAME" if choices else "A,B,..." if many else _number_or_text(kinds)
    default = "" if switch and field.default is None else _written(field.default)
    return Flag(name, panel, text, metavar, default, _limits(field), choices, switch, many)


def _kinds(annotation: Any) -> list[Any]:
    """The types of an annotation, with unions split, `tuple` for any tuple, and the values of a Literal."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    if origin is Literal:
        return list(get_args(annotation))
    if origin is tuple:
        return [tuple]
    return [] if annotation is NoneType else [annotation]


def _number_or_text(kinds: list[Any]) -> str:
    return "FLOAT" if float in kinds else "INT" if int in kinds else "TEXT"


def _limits(field: FieldInfo) -> str:
    """The range, such as `0 <= x < 1`; "" without one."""
    low = high = ""
    for rule in field.metadata:
        for attribute, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            bound = getattr(rule, attribute, None)
            if bound is None:
                continue
            if attribute[0] == "g":
                low = f"{sign} {bound}"
            else:
                high = f"{sign} {bound}"
    return ", ".join(part for part in (low, high) if part)


def _written(default: Any) -> str:
    """A default as written on a command line; "" if there is none to show."""
    if default is None:
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ",".join(str(value) for value in default)
    return str(default)


def settings_of(flags: Iterable[Flag], given: Mapping[str, Any]) -> dict[str, Any]:
    """Flat name -> value, for the flags that were given.

    Raises:
        ConfigError: a value is not one of its flag's choices.
    """
    by_name = {flag.name: flag for flag in flags}
    return {name: by_name[name].value(value) for name, value in given.items() if value is not None}


def words_of(flags: Iterable[Flag], settings: Mapping[str, Any]) -> list[str]:
    """The words of a command line for the settings that have a flag."""
    return [word for flag in flags if flag.name in settings for word in flag.words(settings[flag.name])]
