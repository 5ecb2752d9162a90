"""Multinomial logistic regression, solved to its one optimum."""

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from sslpurify.errors import TrainingError
from sslpurify.probes.features import prepare

_TOLERANCE = 1e-6  # of the largest entry of the gradient of the mean loss


class LinearSettings(BaseModel):
    """Settings of the linear probe.

    Attributes:
        inverse_penalty: scikit-learn's C: the summed loss is weighed by it against half the squared
            norm of the weights. Belongs to embeddings of unit length.
        max_iterations: L-BFGS iterations after which the solution counts as not found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inverse_penalty: float = Field(default=10.0, gt=0)
    max_iterations: int = Field(default=2000, ge=1)


def linear_predict(
    bank: Float[Tensor, "n d"],
    bank_labels: Int[Tensor, " n_labels"],
    queries: Float[Tensor, "m e"],
    classes: int,
    settings: LinearSettings | None = None,
) -> Int[Tensor, " m"]:
    """Classes by logistic regression on the bank.

    Embeddings are scaled to unit length, as the other probes see them, and not standardised.
    The objective is strictly convex in the weights and solved in float64 from a start at zero, so
    there is no randomness in it and the order of the bank does not matter.

    Args:
        bank: Embeddings to fit on.
        bank_labels: Their classes, each in [0, classes).
        queries: Embeddings to classify.
        classes: Number of classes.
        settings: Penalty and iterations.

    Raises:
        TrainingError: When L-BFGS does not find the optimum.
        DataError: When bank, labels and queries do not fit together.
        CheckpointError: When embeddings are not finite, zero, or collapsed.
    """
    settings = settings or LinearSettings()
    unit, unit_queries = prepare(bank, bank_labels, queries, classes)
    points = unit.double()
    # The intercept is free, so centring changes nothing but the number of iterations.
    centre = points.mean(dim=0)
    weight, bias = _solve(points - centre, bank_labels.cpu().long(), classes, settings)
    return F.linear(unit_queries.double() - centre, weight, bias).argmax(dim=1)


def _solve(
    points: Tensor, labels: Tensor, classes: int, settings: LinearSettings
) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(classes, points.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    penalty = 0.5 / (settings.inverse_penalty * len(points))
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=settings.max_iterations,
        max_eval=2 * settings.max_iterations,
        tolerance_grad=_TOLERANCE,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(points, weight, bias), labels)
        loss = loss + penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)
        objective()
    slope = max(float(p.grad.abs().max()) for p in (weight, bias) if p.grad is not None)
    if not slope <= 10 * _TOLERANCE:
        raise TrainingError(
            f"the linear probe did not converge in {settings.max_iterations} iterations (gradient "
            f"{slope:.1e}): raise linear.max_iterations or lower linear.inverse_penalty"
        )
    return weight.detach(), bias.detach()
