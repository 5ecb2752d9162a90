"""The law every permutation must keep, checked on a user's own weights and images."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sslpurify.errors import TrainingError
from sslpurify.symmetry.permutation import Permutation
from sslpurify.types import State

_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}


def relative_error(result: Float[Tensor, "..."], expected: Float[Tensor, "..."]) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    difference = (result.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max().clamp_min(1e-300))


def require_invariant(
    forward: Callable[[State], Float[Tensor, "..."]], state: State, permutation: Permutation
) -> float:
    """Refuse a permutation that changes what the network computes.

    Args:
        forward: Outputs on one batch as a function of the weights, e.g. by
            ``torch.func.functional_call``, in eval mode.
        state: The weights before the permutation; not changed.
        permutation: To be checked.

    Returns:
        The relative error, which is rounding: sums run in another order.

    Raises:
        TrainingError: If the error exceeds what the outputs' precision explains (relative 1e-9 in
            float64, 1e-3 in float32, 5e-2 below that), or is not a number.
    """
    with torch.no_grad():
        expected = forward(state)
        error = relative_error(forward(permutation.apply(state)), expected)
    tolerance = _TOLERANCES.get(expected.dtype, 5e-2)
    if not error <= tolerance:
        raise TrainingError(
            f"permuting {len(permutation.steps)} groups changed the outputs by {error:.1e} of "
            f"their size, more than the {tolerance:.0e} that rounding explains: the permutation "
            "groups do not describe this network"
        )
    return error
