"""A quadratic Bezier curve through weight space (Garipov et al. 2018)."""

from dataclasses import dataclass

from torch import Tensor

from sslpurify.statedict import combine, lerp, require_same_keys
from sslpurify.types import State


def basis(t: float) -> tuple[float, float, float]:
    """Bernstein polynomials of degree 2 at ``t``: the weights of start, bend and end.

    Args:
        t: Position on the curve, in [0, 1].

    Raises:
        ValueError: ``t`` is outside [0, 1].

    >>> basis(0.5)
    (0.25, 0.5, 0.25)
    """
    if not 0.0 <= t <= 1.0:
        raise ValueError(f"t must be in [0, 1], not {t}")
    return (1.0 - t) ** 2, 2.0 * t * (1.0 - t), t**2


@dataclass(frozen=True)
class BezierCurve:
    """The curve (1-t)² start + 2t(1-t) bend + t² end over parameters.

    Args:
        start: Parameters at t = 0.
        bend: Parameters of the control point that the curve leans to but does not pass.
        end: Parameters at t = 1. All three have the same names and shapes; buffers are no part of
            a curve: BatchNorm statistics of a mixture are not the mixture of statistics.
    """

    start: State
    bend: State
    end: State

    def __post_init__(self) -> None:
        require_same_keys(self.start, self.bend)
        require_same_keys(self.start, self.end)

    def at(self, t: float) -> dict[str, Tensor]:
        """The parameters at ``t`` in [0, 1]; at 0 and at 1 the ends' own tensors, not copies."""
        if t in (0.0, 1.0):
            return dict(self.end if t else self.start)
        return combine(list(zip(basis(t), (self.start, self.bend, self.end), strict=True)))


def midpoint_bend(start: State, end: State) -> dict[str, Tensor]:
    """The bend that makes the curve a straight line, where training begins."""
    return lerp(start, end, 0.5)
