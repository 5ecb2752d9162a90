"""What was found in a checkpoint and decided about it, for people and for programs."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from sslpurify.checkpoint.checkpoint import Checkpoint
from sslpurify.checkpoint.tree import key_text
from sslpurify.statedict import listing

_NAMED = 50


@dataclass(frozen=True)
class LoadReport:
    """How a checkpoint was read.

    Args:
        format: Its container; of a folder that of its weight files.
        files: The number of its weight files.
        wrapper: The keys that lead to the state dict, joined by dots; empty where it is one itself.
        tensors: The number of its tensors.
        parameters: The number of their elements.
        dtypes: Number of tensors of each dtype.
        decisions: What could have been done otherwise, one sentence each.
        warnings: What looks wrong with weights that can be used nevertheless.
    """

    format: str
    files: int
    wrapper: str
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    decisions: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Its fields as JSON has them."""
        return {**asdict(self), "decisions": [*self.decisions], "warnings": [*self.warnings]}


def load_report(checkpoint: Checkpoint) -> LoadReport:
    """How a checkpoint was read."""
    tensors = checkpoint.tensors
    kinds = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return LoadReport(
        format=checkpoint.container,
        files=len(checkpoint.parts) or 1,
        wrapper=".".join(checkpoint.wrapper).encode("utf-8", "backslashreplace").decode(),
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        dtypes=dict(sorted(kinds.items())),
        decisions=tuple(_decisions(checkpoint)),
        warnings=tuple(_warnings(checkpoint)),
    )


def _decisions(checkpoint: Checkpoint) -> list[str]:
    decisions = [f"left out {entry}" for entry in checkpoint.left_out[:_NAMED]]
    if checkpoint.siblings:
        taken = listing([".".join(checkpoint.wrapper)]) if checkpoint.wrapper else "the top level"
        decisions.append(
            f"of several state dicts {taken} is used; {listing(checkpoint.siblings)} stays as it is"
        )
    if beside := _beside(checkpoint):
        decisions.append(f"beside the weights, and left as it is: {listing(beside, _NAMED)}")
    if checkpoint.inert:
        inert = listing(checkpoint.inert, _NAMED)
        decisions.append(f"kept as data, nothing was made of it: {inert}")
    if checkpoint.container == "torchscript":
        decisions.append(
            "a TorchScript archive, read because of --allow-torchscript: the program around the "
            "weights was not run, and stays as it is"
        )
    return decisions


def _beside(checkpoint: Checkpoint) -> list[str]:
    """What stands on the way to the state dict: an optimizer, settings, a counter."""
    beside: list[str] = []
    tree: Any = checkpoint.tree
    for depth, taken in enumerate(checkpoint.wrapper):
        others = (key_text(key) for key in tree if key != taken)
        beside += [".".join((*checkpoint.wrapper[:depth], other)) for other in others]
        tree = tree[taken]
    return [place for place in beside if place not in checkpoint.siblings]


def _warnings(checkpoint: Checkpoint) -> list[str]:
    """Matrices of zeros: biases and scales may start at zero, a layer that was trained does not."""
    zero = [
        name
        for name, tensor in checkpoint.tensors.items()
        if tensor.ndim > 1 and tensor.is_floating_point() and tensor.numel() and not tensor.any()
    ]
    return [f"weight matrices of nothing but zeros: {listing(zero, _NAMED)}"] if zero else []
