"""Recipes: strict YAML files that say everything a run needs."""

from sslpurify.recipe.reading import check, dump, load
from sslpurify.recipe.schema import (
    AttackRecipe,
    EvaluateRecipe,
    EncoderChoice,
    Measuring,
    PurifyRecipe,
)

__all__ = [
    "AttackRecipe",
    "EvaluateRecipe",
    "EncoderChoice",
    "Measuring",
    "PurifyRecipe",
    "check",
    "dump",
    "load",
]
