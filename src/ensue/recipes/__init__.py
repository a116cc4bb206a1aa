"""Named, complete settings, and which of them suit a data set.

Each recipe's docstring states its source, and what to expect of it.
"""

from ensue.recipes import models, sessions
from ensue.recipes.planning import configure, fixed, plan, planned
from ensue.recipes.presets import RECIPES, Recipe, run_config

__all__ = ["RECIPES", "Recipe", "configure", "fixed", "models", "plan", "planned", "run_config", "sessions"]
