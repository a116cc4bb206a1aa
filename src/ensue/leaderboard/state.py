"""The state of a bench in its folder, from which an interrupted bench goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ensue.errors import ArtefactError, OtherRunError
from ensue.files import read_json, write_json

STATE, RUNS, KIND, SCHEMA_VERSION = "bench.json", "runs", "bench", 1


@dataclass
class Row:
    """One model of a bench.

    Attributes:
        name: of the model or recipe.
        status: `waiting`; `begun`, with the settings of its training; `finished`; or `refused`, with the reason.
        recipe: the origin of its settings.
        reason: why it was refused.
        config: the settings of its training.
        results: the measurements of a finished row.
    """

    name: str
    status: Literal["waiting", "begun", "finished", "refused"] = "waiting"
    recipe: str = ""
    reason: str = ""
    config: dict[str, Any] | None = None
    results: dict[str, Any] = field(default_factory=dict)


@dataclass
class State:
    """A bench.

    Attributes:
        about: the data, the split and the protocol, which all rows share; they must stay the same when it goes on.
        spent: seconds used so far.
        rows: by name, in the order of the command line.
    """

    about: dict[str, Any]
    spent: float = 0.0
    rows: dict[str, Row] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the state into the bench's folder."""
        content = {"kind": KIND, "schema_version": SCHEMA_VERSION, "about": self.about, "spent": round(self.spent, 3)}
        write_json(folder / STATE, {**content, "rows": [asdict(row) for row in self.rows.values()]})


def open_state(folder: Path, about: dict[str, Any], names: list[str]) -> State:
    """The state in a folder, or a new one; rows of earlier names are kept.

    Raises:
        OtherRunError: the folder contains a bench of other data, another split or another protocol.
        ArtefactError: the folder contains something else, or the state is damaged.
    """
    if not (folder / STATE).exists():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise ArtefactError(f"{folder}: is not a bench: choose a new or an empty folder")
        return State(about, rows={name: Row(name) for name in names})
    content = read_json(folder / STATE)
    if not isinstance(content, dict) or (content.get("kind"), content.get("schema_version")) != (KIND, SCHEMA_VERSION):
        raise ArtefactError(f"{folder / STATE}: not the state of a bench that this release reads")
    changed = [key for key in about if content["about"].get(key) != about[key]]
    if changed:
        key = changed[0]
        raise OtherRunError(
            f"{folder} contains a bench with another {key}: {content['about'].get(key)} then, {about[key]} now. "
            "Use the same, or choose another folder"
        )
    rows = {row["name"]: Row(**row) for row in content["rows"]}
    return State(about, content["spent"], {**rows, **{name: Row(name) for name in names if name not in rows}})
