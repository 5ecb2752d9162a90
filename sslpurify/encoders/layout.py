"""Where an encoder lies in a state dict: from the file's keys to our names, and back.

Prefixes are discovered, not guessed: whatever stands before *all* names of an architecture, with
the right shapes, is the prefix (``module.``, ``_orig_mod.model.backbone.``, ``encoder_q.``). It is
never cut out of the middle of a key, and a file that only partly fits is not used at all.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslpurify.checkpoint import Checkpoint, replace
from sslpurify.encoders.encoder import BACKBONE, HEAD, Encoder, Spelling
from sslpurify.encoders.head import COUNTER, HeadLayout, find_head
from sslpurify.encoders.text import TextSide
from sslpurify.errors import CheckpointError
from sslpurify.statedict import identical, listing
from sslpurify.symmetry.spec import Shapes
from sslpurify.types import State

_MAX_COPIES = 8
_FIRST = {"online", "query", "q", "student", "base"}
_COUNTED = "position_ids"
"""0, 1, 2, ...: transformers before 4.31 wrote it into files."""
_LAST = {"target", "key", "k", "teacher", "momentum", "ema", "averaged", "swa", "shadow"}


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


@dataclass(frozen=True)
class Candidate:
    """How well an architecture fits a state dict.

    Args:
        architecture: Its name.
        layout: Where it lies, or None where something is missing or does not fit.
        confidence: Share of its tensors found with the right shape under the best prefix, in
            [0, 1], lowered by tensors of the backbone that it does not have; 1 is a complete fit.
    """

    architecture: str
    layout: Layout | None
    confidence: float


@dataclass(frozen=True)
class _Fit:
    """What of an architecture lies under one prefix, by one spelling of its names."""

    prefix: str
    spelling: Spelling
    matched: int
    missing: tuple[str, ...]
    misshaped: tuple[str, ...]
    surplus: tuple[str, ...]

    @property
    def confidence(self) -> float:
        wrong = len(self.missing) + len(self.misshaped) + len(self.surplus)
        return self.matched / (self.matched + wrong)


def guess(tensors: State, encoders: Iterable[Encoder]) -> list[Candidate]:
    """The architectures of which a state dict holds anything, best first.

    Args:
        tensors: A state dict as the file has it.
        encoders: Those to look for.
    """
    found: list[Candidate] = []
    for encoder in encoders:
        fits = _fits(tensors, encoder)
        complete = [fit for fit in fits if fit.confidence == 1]
        layout = _layout(tensors, encoder, complete) if len(_best(complete)) == 1 else None
        best = max((fit.confidence for fit in fits), default=0.0)
        found += [Candidate(encoder.name, layout, best)] if best else []
    return sorted(found, key=lambda candidate: -candidate.confidence)


def locate(tensors: State, encoder: Encoder, others: Iterable[Encoder]) -> Layout:
    """Finds an encoder of a given architecture in a state dict.

    Of several complete encoders the one that was trained is taken (``online``, ``query``,
    ``student``), not its moving average (``target``, ``key``, ``teacher``).

    Args:
        tensors: A state dict as the file has it.
        encoder: The architecture.
        others: Architectures to look for when this one does not fit, so that the message names one.

    Raises:
        CheckpointError: Something is missing or of another shape; or two encoders are complete and
            neither is the trained one by its name.
    """
    fits = _fits(tensors, encoder)
    complete = [fit for fit in fits if fit.confidence == 1]
    best = _best(complete)
    if len(best) > 1:
        raise CheckpointError(
            f"holds {len(best)} encoders of type {encoder.name}, under "
            f"{listing([fit.prefix for fit in best])}, and their names do not say which one is "
            "used: save that one in a file of its own"
        )
    if not best:
        fit = max(fits, key=lambda fit: fit.confidence, default=None)
        raise CheckpointError(
            f"holds no encoder of type {encoder.name}: {_problems(fit, tensors, encoder.shapes)}. "
            f"{_advice(guess(tensors, others))}"
        )
    return _layout(tensors, encoder, complete)


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


def _fits(tensors: State, encoder: Encoder) -> list[_Fit]:
    """How the architecture fits under the few prefixes that match most of its names."""
    found: list[_Fit] = []
    for spelling in ({}, *encoder.spellings):
        expected = {spelling.get(name, name): shape for name, shape in encoder.shapes.items()}
        depth = max(name.count(".") for name in expected) + 1
        counts = Counter(
            prefix for key in tensors for prefix, name in _splits(key, depth) if name in expected
        )
        found += [
            _fit(tensors, expected, prefix, spelling)
            for prefix, _ in counts.most_common(_MAX_COPIES)
        ]
    return found


def _splits(key: str, depth: int) -> Iterator[tuple[str, str]]:
    """Every way to take a key apart into a prefix and a name of at most ``depth`` parts."""
    parts = key.split(".")[-depth:]
    for start in range(len(parts)):
        name = ".".join(parts[start:])
        yield key[: len(key) - len(name)], name


def _fit(tensors: State, expected: Shapes, prefix: str, spelling: Spelling) -> _Fit:
    stages = {name.partition(".")[0] for name in expected}
    names = [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]
    shaped = {name: tuple(tensors[prefix + name].shape) for name in names if name in expected}
    return _Fit(
        prefix=prefix,
        spelling=spelling,
        matched=sum(shape == expected[name] for name, shape in shaped.items()),
        missing=tuple(
            name for name in expected if name not in shaped and not name.endswith(COUNTER)
        ),
        misshaped=tuple(name for name, shape in shaped.items() if shape != expected[name]),
        surplus=tuple(
            name
            for name in names
            if name not in expected
            and name.partition(".")[0] in stages
            and not name.endswith(_COUNTED)
        ),
    )


def _best(complete: Sequence[_Fit]) -> list[_Fit]:
    """Those of several complete encoders whose name says most clearly that it is the one in use."""
    ranks = [_rank(fit.prefix) for fit in complete]
    return [fit for fit, rank in zip(complete, ranks, strict=True) if rank == min(ranks)]


def _rank(prefix: str) -> int:
    words = set(re.split(r"[._]", prefix.lower()))
    return 2 if words & _LAST else 0 if words & _FIRST else 1


def _layout(tensors: State, encoder: Encoder, complete: Sequence[_Fit]) -> Layout:
    """The layout of the one best fit."""
    (fit,) = _best(complete)
    wanted = {BACKBONE + n: fit.prefix + fit.spelling.get(n, n) for n in encoder.shapes}
    head: HeadLayout | None = None
    if encoder.head is not None:
        names, head = find_head(tensors, fit.prefix, encoder.embedding_dim)
        wanted |= {HEAD + name: key for name, key in names.items()}
    keys = {name: key for name, key in wanted.items() if key in tensors}
    text = None if encoder.text is None else _text(tensors, encoder.text, fit.prefix)
    used = {*keys.values(), *(text or {}).values()}
    return Layout(
        prefix=fit.prefix,
        keys=keys,
        absent=tuple(name for name in wanted if name not in keys),
        head=head,
        copies=tuple(other.prefix for other in complete if other is not fit),
        ignored=tuple(key for key in tensors if key not in used),
        text=text,
    )


def _text(tensors: State, side: TextSide, prefix: str) -> dict[str, str] | None:
    """Where the whole text tower lies, beside the image tower or one level above it."""
    parent = prefix[: prefix.removesuffix(".").rfind(".") + 1]
    for place in dict.fromkeys((prefix, parent)):
        for form in (0, -1):
            keys = {name: place + side.names(name)[form] for name in side.shapes}
            if all(_holds(tensors, key, side.shapes[name]) for name, key in keys.items()):
                return keys
    return None


def _holds(tensors: State, key: str, shape: tuple[int, ...]) -> bool:
    found = tensors.get(key)
    if found is None:
        return False
    return tuple(found.shape) == shape or (shape == () and found.numel() == 1)


def _problems(fit: _Fit | None, tensors: State, expected: Shapes) -> str:
    if fit is None:
        return f"none of its names is there, the file begins with {listing(tensors, 3)}"
    shapes = (
        f"{name!r} is {tuple(tensors[fit.prefix + name].shape)} and not {expected[name]}"
        for name in fit.misshaped[:3]
    )
    more = len(fit.misshaped) - 3
    problems = (
        f"under the prefix {fit.prefix[:80]!r} {fit.matched} of {len(expected)} tensors fit",
        *([f"missing are {listing(fit.missing, 3)}"] if fit.missing else []),
        *shapes,
        *([f"{more} more are of another shape"] if more > 0 else []),
        *([f"{listing(fit.surplus, 3)} do not belong to it"] if fit.surplus else []),
    )
    return "; ".join(problems)


def _advice(candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return "No other known architecture has any of its tensors"
    best = candidates[0]
    return f"Best guess: {best.architecture} ({best.confidence:.0%} of its tensors fit)"
