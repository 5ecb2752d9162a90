"""Taking a backdoor out of weights, with clean images and nothing else."""

from sslpurify.purify.path import CurvePath, retrace
from sslpurify.purify.settings import TscSettings, resolved
from sslpurify.purify.stage import Purified, Stage, Trace
from sslpurify.purify.tsc import purify
from sslpurify.purify.workshop import permuted_groups

__all__ = [
    "CurvePath",
    "Purified",
    "Stage",
    "Trace",
    "TscSettings",
    "permuted_groups",
    "purify",
    "resolved",
    "retrace",
]
