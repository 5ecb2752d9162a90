"""Recipes: strict YAML files that say everything a run needs."""

from sslpurify.recipe.reading import check, dump, load
from sslpurify.recipe.schema import (
    AttackRecipe,
    DemoRecipe,
    EncoderChoice,
    EvaluateRecipe,
    PurifyRecipe,
)

__all__ = [
    "AttackRecipe",
    "DemoRecipe",
    "EncoderChoice",
    "EvaluateRecipe",
    "PurifyRecipe",
    "check",
    "dump",
    "load",
]
