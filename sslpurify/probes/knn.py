"""Weighted nearest neighbours on cosine similarity, exact."""

from typing import Any

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslpurify.errors import DataError
from sslpurify.probes.faiss_device import gpu_works
from sslpurify.probes.features import prepare

_GPU_MAX_K = 2048  # a limit of faiss
_GPU_SCRATCH = 256 << 20  # faiss takes 1.5 GB by default, which torch beside it would miss


class KnnSettings(BaseModel):
    """Settings of the nearest-neighbour probe.

    Attributes:
        k: Neighbours that vote; never more than the bank holds.
        temperature: A neighbour of cosine similarity s votes with weight exp(s / temperature).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(default=200, ge=1)
    temperature: float = Field(default=0.1, gt=0)


def knn_predict(
    bank: Float[Tensor, "n d"],
    bank_labels: Int[Tensor, " n_labels"],
    queries: Float[Tensor, "m e"],
    classes: int,
    *,
    k: int = 200,
    temperature: float = 0.1,
) -> Int[Tensor, " m"]:
    """The class with the largest sum of votes exp(similarity / temperature) of k neighbours.

    The protocol of Wu et al. 2018 (instance discrimination). The result does not depend on the
    order of the bank, not even when neighbours tie; equal sums go to the class of smaller number.

    Args:
        bank: Embeddings that vote; any scale, compared by cosine.
        bank_labels: Their classes, each in [0, classes).
        queries: Embeddings to classify.
        classes: Number of classes.
        k: Neighbours that vote.
        temperature: Smaller lets the nearest ones decide.

    Raises:
        DataError: When k exceeds the bank, or bank, labels and queries do not fit together.
        CheckpointError: When embeddings are not finite, zero, or collapsed.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"k = {k} and temperature = {temperature} must be positive")
    require_neighbours(k, len(bank))
    unit, unit_queries = prepare(bank, bank_labels, queries, classes)
    order = _canonical_order(unit, bank_labels)
    similarity, neighbours = _search(unit[order], unit_queries, k)
    # The softmax scales all votes of a query alike, and a small temperature cannot overflow it.
    weights = (similarity / temperature).softmax(dim=1)
    votes = torch.zeros(len(unit_queries), classes, dtype=torch.float64)
    votes.scatter_add_(1, bank_labels.cpu().long()[order][neighbours], weights)
    return votes.argmax(dim=1)


def require_neighbours(k: int, bank: int) -> None:
    """Refuse more neighbours than a bank of so many images has.

    Raises:
        DataError: k exceeds the bank.
    """
    if k > bank:
        raise DataError(
            f"k = {k} neighbours were asked for but the bank holds {bank} images: "
            "take a smaller k (knn.k) or a larger bank"
        )


def _canonical_order(unit: Tensor, labels: Tensor) -> Tensor:
    """An order of the bank that depends on its members only: neighbours may tie at rank k."""
    rows = np.ascontiguousarray(unit.numpy()).view(np.uint8).reshape(len(unit), -1)
    tags = labels.cpu().long().numpy().astype(">i8").reshape(-1, 1).view(np.uint8)
    keys = np.ascontiguousarray(np.concatenate([rows, tags], axis=1))
    return torch.from_numpy(np.argsort(keys.view(f"V{keys.shape[1]}")[:, 0], kind="stable"))


def _search(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest inner products of every query, nearest first, and where they are."""
    index: Any = faiss.IndexFlatIP(bank.shape[1])
    if k <= _GPU_MAX_K and gpu_works() and _fits_gpu(bank):
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(_GPU_SCRATCH)
        index = faiss.index_cpu_to_gpu(resources, 0, index)
    index.add(bank.numpy())
    similarity, neighbours = index.search(queries.numpy(), k)
    return torch.from_numpy(similarity).double(), torch.from_numpy(neighbours)


def _fits_gpu(bank: Tensor) -> bool:
    free, _ = torch.cuda.mem_get_info()
    return free > bank.nbytes + 2 * _GPU_SCRATCH
