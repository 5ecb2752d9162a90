"""Where an encoder lies in a state dict, and its state taken out and put back."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sslpurify.checkpoint import Checkpoint, replace
from sslpurify.encoders.head import COUNTER, HeadLayout
from sslpurify.errors import CheckpointError
from sslpurify.statedict import identical, listing
from sslpurify.types import State


@dataclass(frozen=True)
class Layout:
    """Where an encoder lies in a state dict.

    Args:
        prefix: What stands before the backbone's names in the file.
        keys: Our name to the file's key. The backbone is complete, but for the BatchNorm counters
            that torch did not keep before version 0.4.1; the head is there or not at all.
        absent: Our names of those counters that the file does not have.
        head: The projection head's shape, or None where the file has none that fits.
        copies: Prefixes under which the file holds further complete encoders (a momentum encoder,
            a teacher). They are not touched: what is wrong with them stays.
        ignored: The file's keys that do not belong to the encoder.
        text: Our name of a text tower's tensor to the file's key; None where the file does not
            hold the whole tower.
    """

    prefix: str
    keys: dict[str, str]
    absent: tuple[str, ...]
    head: HeadLayout | None
    copies: tuple[str, ...]
    ignored: tuple[str, ...]
    text: Mapping[str, str] | None = None

    @property
    def has_head(self) -> bool:
        """Whether the file holds the encoder's projection head."""
        return self.head is not None


def extract(checkpoint: Checkpoint, layout: Layout) -> dict[str, Tensor]:
    """An encoder's state under our names: float32, counters int64 (0 where the file has none)."""
    state = {
        name: _widened(name, checkpoint.tensors[key]).clone() for name, key in layout.keys.items()
    }
    return state | {name: torch.zeros((), dtype=torch.int64) for name in layout.absent}


def extract_text(checkpoint: Checkpoint, keys: Mapping[str, str]) -> dict[str, Tensor]:
    """A text tower's state under our names, in float32; ``keys`` as `Layout.text`."""
    state = {name: _widened(name, checkpoint.tensors[key]) for name, key in keys.items()}
    return {name: tensor.reshape(()) if _is_scalar(name) else tensor.clone()
            for name, tensor in state.items()}  # fmt: skip


def restore(
    checkpoint: Checkpoint, layout: Layout, state: State, text: State | None = None
) -> Checkpoint:
    """A checkpoint whose encoder has a new state, in the file's keys and dtypes.

    A tensor that is as ``extract`` gave it keeps the file's own bits, whatever its dtype. A head
    that the file does not have is left out, and so are counters.

    Args:
        checkpoint: Stays as it is.
        layout: Where the encoder lies in it.
        state: The new state.
        text: The new state of the text tower; None: as it was.

    Raises:
        CheckpointError: ``state`` lacks one of the encoder's tensors, or one of another shape.
    """
    missing = [name for name in layout.keys if name not in state]
    if missing:
        raise CheckpointError(f"the new weights lack {listing(missing)}")
    wanted = {key: (name, state[name]) for name, key in layout.keys.items()}
    if text is not None and layout.text is not None:
        wanted |= {key: (name, text[name]) for name, key in layout.text.items()}
    changed: dict[str, Tensor] = {}
    for key, (name, tensor) in wanted.items():
        old = _widened(name, checkpoint.tensors[key])
        shaped = tensor.reshape(old.shape) if _is_scalar(name) else tensor
        if not identical(shaped, old):
            changed[key] = shaped
    return replace(checkpoint, changed)


def _is_scalar(name: str) -> bool:
    """CLIP's scale and bias, which some files keep with one axis and some with none."""
    return name in ("logit_scale", "logit_bias")


def _widened(name: str, tensor: Tensor) -> Tensor:
    if name.endswith(COUNTER):
        return tensor.to(torch.int64)
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
