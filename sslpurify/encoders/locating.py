"""Finding an encoder in a state dict: from the file's keys to our names.

Prefixes are discovered, not guessed: whatever stands before *all* names of an architecture, with
the right shapes, is the prefix (``module.``, ``_orig_mod.model.backbone.``, ``encoder_q.``). It is
never cut out of the middle of a key, and a file that only partly fits is not used at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sslpurify.encoders.encoder import BACKBONE, HEAD, Encoder
from sslpurify.encoders.fits import Fit, best_of, fits_of, problems_of
from sslpurify.encoders.head import HeadLayout, find_head
from sslpurify.encoders.layout import Layout
from sslpurify.encoders.text import TextSide
from sslpurify.errors import CheckpointError
from sslpurify.statedict import listing
from sslpurify.types import State


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


def guess(tensors: State, encoders: Iterable[Encoder]) -> list[Candidate]:
    """The architectures of which a state dict holds anything, best first.

    Of equally good ones those come first whose text tower is there, then those of shorter names:
    many models share an image tower.

    Args:
        tensors: A state dict as the file has it.
        encoders: Those to look for.
    """
    found: list[Candidate] = []
    for encoder in encoders:
        fits = fits_of(tensors, encoder)
        complete = [fit for fit in fits if fit.confidence == 1]
        layout = _layout(tensors, encoder, complete) if len(best_of(complete)) == 1 else None
        best = max((fit.confidence for fit in fits), default=0.0)
        found += [Candidate(encoder.name, layout, best)] if best else []
    return sorted(found, key=_rank)


def _rank(candidate: Candidate) -> tuple[float, bool, int]:
    whole = candidate.layout is not None and candidate.layout.text is not None
    return (-candidate.confidence, not whole, len(candidate.architecture))


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
    fits = fits_of(tensors, encoder)
    complete = [fit for fit in fits if fit.confidence == 1]
    best = best_of(complete)
    if len(best) > 1:
        raise CheckpointError(
            f"holds {len(best)} encoders of type {encoder.name}, under "
            f"{listing([fit.prefix for fit in best])}, and their names do not say which one is "
            "used: save that one in a file of its own"
        )
    if not best:
        fit = max(fits, key=lambda fit: fit.confidence, default=None)
        problems = problems_of(fit, tensors, encoder.shapes)
        raise CheckpointError(
            f"holds no encoder of type {encoder.name}: {problems}. "
            f"{_advice(guess(tensors, others))}"
        )
    return _layout(tensors, encoder, complete)


def _layout(tensors: State, encoder: Encoder, complete: Sequence[Fit]) -> Layout:
    """The layout of the one best fit."""
    (fit,) = best_of(complete)
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


def _advice(candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return "No other known architecture has any of its tensors"
    best = candidates[0]
    return f"Best guess: {best.architecture} ({best.confidence:.0%} of its tensors fit)"
