"""Points on the curves of a purification, under way and afterwards.

The ends of a curve follow from the weights that its round began with and from a permutation, so
the bend is all that has to be kept of a curve to walk it again (docs/decisions/0007-traces.md).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from sslpurify.compute import PLAIN, Compute
from sslpurify.curves import BezierCurve
from sslpurify.data import ImageSet
from sslpurify.encoders import CleanSet, Encoder, Guide, Network
from sslpurify.errors import CheckpointError
from sslpurify.journal import FORGETFUL
from sslpurify.purify.settings import TscSettings, resolved
from sslpurify.purify.stage import Trace
from sslpurify.purify.workshop import Workshop, permuted_groups
from sslpurify.symmetry import Permutation
from sslpurify.types import Listener, State, silent


@dataclass(frozen=True, eq=False)
class CurvePath:
    """A curve of a finished purification.

    Args:
        name: Of its stage.
        taken: The t of the point that was taken.
        at: t in [0, 1] -> the network there, placed, in evaluation mode, with BatchNorm statistics
            of its own.
    """

    name: str
    taken: float
    at: Callable[[float], Network]


def retrace(
    encoder: Encoder,
    state: State,
    images: ImageSet,
    traces: Sequence[Trace],
    settings: TscSettings | None = None,
    *,
    seed: int = 0,
    compute: Compute = PLAIN,
    listener: Listener = silent,
) -> Iterator[CurvePath]:
    """The curves of a purification once more, bit for bit, one after the other.

    Args:
        encoder: As it was given to `purify`.
        state: The suspicious weights that were purified; not changed.
        images: The clean images: BatchNorm statistics are measured on them.
        traces: What was kept.
        settings: As of the purification; for a CLIP purified without captions, `resolved` so.
        seed: As of the purification.
        compute: Device and precision.
        listener: Told about every step.

    Raises:
        CheckpointError: The traces are not of this encoder.
        DataError: Fewer images than one batch takes.
    """
    settings = resolved(settings or TscSettings(), encoder.family)
    spec, weights, first = permuted_groups(encoder, settings), encoder.completed(state), None
    for trace in traces:
        guide = Guide(trace.turn.views, _no_loss)
        clean = CleanSet(
            images, guide, settings.views, settings.batch_size, settings.micro_batch, seed, compute
        )
        workshop = Workshop(encoder, clean, settings, compute, FORGETFUL, listener)
        began = {name: its for name, its in trace.start.items() if name in weights}  # no head
        weights = {**weights, **began}
        moved = Permutation.from_json(spec, trace.turn.permutation).apply(weights)
        start, end = (weights, moved) if trace.turn.sense == "misalign" else (moved, first)
        curve = _curve(trace, start, end)
        first = curve.at(trace.turn.t)
        yield CurvePath(
            trace.name,
            trace.turn.t,
            partial(point, workshop, curve, buffers=start, name=trace.name),
        )


def point(workshop: Workshop, curve: BezierCurve, t: float, buffers: State, name: str) -> Network:
    """The network at ``t``, with BatchNorm statistics of its own."""
    network = workshop.load({**buffers, **curve.at(t)})
    workshop.settle(network, name)
    return network


def _curve(trace: Trace, start: State, end: State | None) -> BezierCurve:
    try:
        ends = [{key: state[key] for key in trace.bend} for state in (start, end or {})]
        return BezierCurve(ends[0], trace.bend, ends[1])
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"the trace of {trace.name!r} does not fit the encoder: {error}"
        ) from None


def _no_loss(*_: object) -> NoReturn:
    raise ValueError("a curve that is walked again is not trained")
