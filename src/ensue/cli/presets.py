"""`ensue presets`: complete settings by name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ensue.terminal.output import Screen, table


def run(
    screen: Screen,
    name: Annotated[str | None, typer.Argument(help="A preset to print as TOML; without a name, list all.")] = None,
) -> dict[str, Any]:
    """List the presets with their expected score and time, or print one as TOML."""
    from ensue.recipes import RECIPES, run_config

    if name is not None:
        recipe, config = RECIPES[name], run_config(None, name, {})
        # Comment lines, so that `ensue presets NAME > mine.toml` gives a file for --config.
        screen.say(f"# {recipe.name}: {recipe.summary}")
        screen.say(f"# Expected: {recipe.expected}")
        screen.say(config.to_toml().rstrip())
        screen.say(f"\n# next: {recipe.command}")
        return {
            "name": recipe.name,
            "summary": recipe.summary,
            "expected": recipe.expected,
            "config": config.model_dump(mode="json"),
        }
    listed = [{"name": name, "summary": RECIPES[name].summary, "expected": RECIPES[name].expected} for name in RECIPES]
    screen.show(table(("preset", "what it is", "expected"), [tuple(entry.values()) for entry in listed]))
    screen.next(f"ensue presets {listed[0]['name']}")
    return {"presets": listed}
