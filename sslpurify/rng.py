"""Randomness as an argument: every draw is a function of a seed and a named stream.

Nothing in the package uses or sets global random state, so a run can be resumed at any step, and
two pieces of work never share a stream by accident.
"""

import hashlib

import torch


def stream_seed(seed: int, *stream: str | int) -> int:
    """A 63-bit seed for the named stream of ``seed``; the same on every machine.

    Args:
        seed: The run's seed.
        stream: Names and counters of the stream, e.g. ``("views", epoch, step)``.
    """
    text = "\x1f".join(str(part) for part in (seed, *stream))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *stream: str | int) -> torch.Generator:
    """A fresh CPU generator for the named stream of ``seed``."""
    return torch.Generator().manual_seed(stream_seed(seed, *stream))
