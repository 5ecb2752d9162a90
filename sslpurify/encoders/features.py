"""Embeddings of an image set: computed once per (weights, images) and shared by all who ask."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sslpurify.compute import CPU, exhausted, reason
from sslpurify.data import ImageSet
from sslpurify.encoders.encoder import Network
from sslpurify.errors import TrainingError
from sslpurify.processes import ALONE, Processes
from sslpurify.types import Listener, Step, silent

Transform = Callable[[Tensor], Tensor]
"""A function on images (n, 3, h, w) in [0, 1], such as a trigger."""


def embed(
    network: Network,
    images: ImageSet,
    *,
    batch_size: int = 512,
    transform: Transform | None = None,
    device: torch.device = CPU,
    processes: Processes = ALONE,
    listener: Listener = silent,
    stage: str = "embedding",
) -> Float[Tensor, "n d"]:
    """The embeddings of all images, in their order, float32 on the CPU.

    Args:
        network: In evaluation mode on ``device``.
        images: All of them are embedded.
        batch_size: Images of a batch in each process. It is halved when memory runs out.
        transform: Applied to images before they are normalized.
        device: Where the network is.
        processes: Those that share the images; all get the embeddings of all.
        listener: Told about every batch, as often in every process.
        stage: What is running, for people.

    Raises:
        TrainingError: The memory is not even enough for one image.
    """
    batches = torch.arange(len(images)).split(batch_size * processes.count)
    parts: list[Tensor] = []
    show = _Halving(network, transform, device, batch_size)
    with torch.inference_mode():
        for number, indices in enumerate(batches, 1):
            mine = indices[processes.span(len(indices))]
            # Who has no image of the last batch embeds one for its shape.
            some = show(images.batch(mine if len(mine) else indices[:1]))
            parts.append(some[: len(mine)])
            listener(Step(stage, number, len(batches), len(indices)))
    return _in_order(torch.cat(parts), batches, processes)


class _Halving:
    """Embeds batches, after memory ran out in smaller and smaller pieces."""

    def __init__(
        self, network: Network, transform: Transform | None, device: torch.device, most: int
    ) -> None:
        self._network, self._transform, self._device, self._most = network, transform, device, most

    def __call__(self, batch: Tensor) -> Tensor:
        shown = batch if self._transform is None else self._transform(batch)
        while True:
            try:
                return torch.cat([self._embed(part) for part in shown.split(self._most)])
            except (RuntimeError, MemoryError) as error:
                if not exhausted(error):
                    raise
                told = reason(error)
            # Here the failed pass's tensors, which the error held on to, are gone.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if (size := min(self._most, len(shown))) == 1:
                raise TrainingError(
                    f"memory is exhausted by a single image ({told}); free memory on "
                    f"{self._device}, or run with --device cpu"
                )
            self._most = size // 2

    def _embed(self, images: Tensor) -> Tensor:
        return self._network(images.to(self._device)).embedding.float().cpu()


def _in_order(own: Tensor, batches: Sequence[Tensor], processes: Processes) -> Tensor:
    """The rows of all processes as if one had had all batches."""
    if processes.count == 1:
        return own
    everyone = [
        part.split([processes.lengths(len(batch))[rank] for batch in batches])
        for rank, part in enumerate(processes.gather(own))
    ]
    return torch.cat([part for batch in zip(*everyone, strict=True) for part in batch])
