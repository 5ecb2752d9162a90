"""Initial weights as a function of a seed."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def seeded(make: Callable[[], N], seed: int) -> N:
    """What ``make`` makes, whose layers draw from torch's global generator, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # and not the GPUs', which are not forked
        return make()
