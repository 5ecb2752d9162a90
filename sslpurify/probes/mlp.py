"""The two-layer classifier that BadEncoder is measured with."""

from itertools import pairwise
from math import sqrt

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from sslpurify.data.images import epoch_batches
from sslpurify.errors import TrainingError
from sslpurify.probes.features import prepare
from sslpurify.rng import generator

_HIDDEN = (512, 256)
_DROPOUT = 0.5


class MlpSettings(BaseModel):
    """Settings of the MLP probe.

    Attributes:
        epochs: Passes over the bank. The paper's 500 gain nothing over 100 on CIFAR-10.
        learning_rate: Adam's.
        batch_size: Bank embeddings a step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    batch_size: int = Field(default=64, ge=1)


def mlp_predict(
    bank: Float[Tensor, "n d"],
    bank_labels: Int[Tensor, " n_labels"],
    queries: Float[Tensor, "m e"],
    classes: int,
    seed: int,
    settings: MlpSettings | None = None,
) -> Int[Tensor, " m"]:
    """Classes by BadEncoder's downstream network (S&P 2022): 512 and 256 hidden units, Adam.

    ReLU after both hidden layers, dropout of one half after the first, embeddings of unit length.

    Args:
        bank: Embeddings to train on.
        bank_labels: Their classes, each in [0, classes).
        queries: Embeddings to classify.
        classes: Number of classes.
        seed: Decides the start, the batches and the dropout.
        settings: Epochs, learning rate and batch size.

    Raises:
        TrainingError: When the loss stops being finite.
        DataError: When bank, labels and queries do not fit together.
        CheckpointError: When embeddings are not finite, zero, or collapsed.
    """
    settings = settings or MlpSettings()
    unit, unit_queries = prepare(bank, bank_labels, queries, classes)
    layers = _train(unit, bank_labels.cpu().long(), classes, seed, settings)
    with torch.no_grad():
        return _forward(layers, unit_queries, None).argmax(dim=1)


def _train(
    unit: Tensor, labels: Tensor, classes: int, seed: int, settings: MlpSettings
) -> list[Tensor]:
    layers = _start(unit.shape[1], classes, generator(seed, "mlp", "start"))
    dropout = generator(seed, "mlp", "dropout")
    optimizer = torch.optim.Adam(layers, lr=settings.learning_rate, fused=True)
    with torch.enable_grad():
        for epoch in range(settings.epochs):
            loss = torch.zeros(())
            for batch in epoch_batches(
                len(unit), settings.batch_size, seed, "mlp", epoch, drop_last=False
            ):
                optimizer.zero_grad()
                loss = F.cross_entropy(_forward(layers, unit[batch], dropout), labels[batch])
                loss.backward()
                optimizer.step()
            if not loss.isfinite():
                raise TrainingError(
                    f"the loss of the MLP probe is {float(loss.detach())} in epoch {epoch + 1}: "
                    f"lower mlp.learning_rate ({settings.learning_rate:g})"
                )
    return layers


def _start(dimension: int, classes: int, draw: torch.Generator) -> list[Tensor]:
    """Weight and bias of each layer, uniform within 1/sqrt(inputs) as torch.nn.Linear does."""
    sizes = (dimension, *_HIDDEN, classes)
    layers: list[Tensor] = []
    for inputs, outputs in pairwise(sizes):
        bound = 1 / sqrt(inputs)
        for shape in ((outputs, inputs), (outputs,)):
            values = torch.empty(shape).uniform_(-bound, bound, generator=draw)
            layers.append(values.requires_grad_())
    return layers


def _forward(layers: list[Tensor], points: Tensor, dropout: torch.Generator | None) -> Tensor:
    hidden = F.linear(points, layers[0], layers[1]).relu()
    if dropout is not None:
        keep = torch.rand(hidden.shape, generator=dropout) >= _DROPOUT
        hidden = hidden * keep / (1 - _DROPOUT)
    hidden = F.linear(hidden, layers[2], layers[3]).relu()
    return F.linear(hidden, layers[4], layers[5])
