"""Recipes: strict YAML files that say everything a run needs."""

from sslpurify.recipe.reading import check, dump, load
from sslpurify.recipe.schema import (
    AttackRecipe,
    DemoRecipe,
    EncoderChoice,
    EvaluateRecipe,
    Measuring,
    Pairs,
    PretrainRecipe,
    PurifyRecipe,
    Run,
    StoredEncoder,
)

__all__ = [
    "AttackRecipe",
    "DemoRecipe",
    "EncoderChoice",
    "EvaluateRecipe",
    "Measuring",
    "Pairs",
    "PretrainRecipe",
    "PurifyRecipe",
    "Run",
    "StoredEncoder",
    "check",
    "dump",
    "load",
]
