"""One call for every probe that learns from a bank of labelled embeddings."""

from typing import Literal

from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sslpurify.probes.knn import KnnSettings, knn_predict
from sslpurify.probes.linear import LinearSettings, linear_predict
from sslpurify.probes.mlp import MlpSettings, mlp_predict

ProbeName = Literal["knn", "linear", "mlp"]
"""Probes that learn from a bank of labelled embeddings."""

Probe = Literal["knn", "linear", "mlp", "zeroshot"]
"""All of them; ``zeroshot`` learns from the names of the classes."""


class ProbeSettings(BaseModel):
    """The settings of every probe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    knn: KnnSettings = KnnSettings()
    linear: LinearSettings = LinearSettings()
    mlp: MlpSettings = MlpSettings()


def predict(
    probe: ProbeName,
    bank: Float[Tensor, "n d"],
    labels: Int[Tensor, " n_labels"],
    queries: Float[Tensor, "m e"],
    classes: int,
    seed: int,
    settings: ProbeSettings | None = None,
) -> Int[Tensor, " m"]:
    """The class of every query, as a probe learns it from the bank.

    Clean and triggered embeddings of one encoder are best asked for together, as one batch of
    queries: a trained probe is then trained once.

    Args:
        probe: Which probe.
        bank: Labelled embeddings.
        labels: Their classes, each in [0, classes).
        queries: Embeddings to classify.
        classes: Number of classes.
        seed: Of the probes that draw something (``mlp``).
        settings: Of all probes.

    Raises:
        DataError: When bank, labels and queries do not fit together, or k exceeds the bank.
        CheckpointError: When embeddings are not finite, zero, or collapsed.
        TrainingError: When a trained probe finds no solution.
    """
    settings = settings or ProbeSettings()
    match probe:
        case "knn":
            return knn_predict(
                bank,
                labels,
                queries,
                classes,
                k=settings.knn.k,
                temperature=settings.knn.temperature,
            )
        case "linear":
            return linear_predict(bank, labels, queries, classes, settings.linear)
        case "mlp":
            return mlp_predict(bank, labels, queries, classes, seed, settings.mlp)
