"""What each verb does: the only room that wires the others together."""

from sslpurify.run.aggregation import aggregate
from sslpurify.run.answer import Answer
from sslpurify.run.demonstration import demo
from sslpurify.run.evaluation import evaluate
from sslpurify.run.inspection import inspect
from sslpurify.run.machine import doctor
from sslpurify.run.poisoning import attack
from sslpurify.run.pretraining import pretrain
from sslpurify.run.purification import purify
from sslpurify.run.recipes import check_recipes, copy_recipe, list_recipes, show_recipe

__all__ = [
    "Answer",
    "aggregate",
    "attack",
    "check_recipes",
    "copy_recipe",
    "demo",
    "doctor",
    "evaluate",
    "inspect",
    "list_recipes",
    "pretrain",
    "purify",
    "show_recipe",
]
