"""Recipes: named, complete settings, and the choice of one for a data set.

Each recipe's docstring states its source, its measured scores, and the command that measured them.
"""

from ensue.recipes import models, sessions
from ensue.recipes.planning import configure, fixed, plan, planned
from ensue.recipes.presets import RECIPES, Recipe, run_config

__all__ = ["RECIPES", "Recipe", "configure", "fixed", "models", "plan", "planned", "run_config", "sessions"]
