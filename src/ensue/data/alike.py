"""The settings that read another log of the same form in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ensue.data.dates import NUMBER_DIRECTIVES
from ensue.data.meanings import NONE, Choice
from ensue.data.table import NO_SHAPE, Table

if TYPE_CHECKING:
    from ensue.data.interactions import Columns


def settings_alike(columns: Columns, table: Table, chosen: Mapping[str, Choice], unit: str | None) -> dict[str, Any]:
    """The settings that were given and those that were chosen automatically: columns, shape and formats.

    Args:
        columns: what was said.
        table: the log.
        chosen: meaning -> its column.
        unit: how its times were read; None without times.
    """
    settings = columns.model_dump(mode="json", exclude_defaults=True)
    settings |= {meaning: choice.column for meaning, choice in chosen.items()}
    if "time" not in chosen:
        settings["time"] = NONE
    settings["shape"] = table.shape or NO_SHAPE
    if table.text and not table.shape:
        if columns.format == "auto" and table.separator:
            settings["separator"] = table.separator.replace("\t", "\\t")
        if not table.positional:
            # header=False is not recorded but determined again: another log might have a header.
            settings["header"] = True
    if unit in ("s", "ms", "us", "ns", "day") and columns.time_format is None:
        settings["time_unit"] = unit
    elif unit in NUMBER_DIRECTIVES:
        settings["time_format"] = NUMBER_DIRECTIVES[unit]
    elif unit in ("date, month first", "date, day first"):
        settings["date_order"] = unit.split()[1]
    return settings
