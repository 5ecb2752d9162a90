"""Taking a backdoor out of weights, with clean images and nothing else."""

from sslpurify.purify.settings import TscSettings, resolved
from sslpurify.purify.stage import Purified, Stage
from sslpurify.purify.tsc import permuted_groups, purify

__all__ = ["Purified", "Stage", "TscSettings", "permuted_groups", "purify", "resolved"]
