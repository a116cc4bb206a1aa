"""Named, complete settings. Each recipe's docstring states its source, and what to expect of it."""

from ensue.recipes.presets import RECIPES, Recipe, run_config

__all__ = ["RECIPES", "Recipe", "run_config"]
