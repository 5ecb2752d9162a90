"""The processes that share a piece of work, as ``torchrun`` starts them.

All of them run the same program on the same inputs and draw the same random numbers; what is split
among them are the rows of a batch. Every method here but `Processes.span` and `Processes.lengths`
is collective: all processes must call it, in the same order.
"""

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from sslpurify.errors import ConfigError

_BUCKET = 2**25  # bytes that are reduced together: a reduction costs a round of messages
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is.

    Args:
        rank: Number of this process, from 0.
        count: Number of processes, at least 1.
    """

    rank: int = 0
    count: int = 1

    def span(self, length: int) -> slice:
        """Which of ``length`` rows are this process's: neighbours, as many as the others' or one.

        The rows of all processes, one after the other, are all rows; of fewer rows than processes
        some have none.
        """
        return self._span(self.rank, length)

    def lengths(self, length: int) -> list[int]:
        """How many of ``length`` rows each process has."""
        spans = (self._span(rank, length) for rank in range(self.count))
        return [span.stop - span.start for span in spans]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Puts the sum over all processes into each tensor, in place; the same bits everywhere."""
        if self.count > 1:
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
                distributed.all_reduce(flat)
                parts = flat.split([tensor.numel() for tensor in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.detach().copy_(part.view_as(tensor))

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Puts the first process's values into each tensor, in place."""
        if self.count > 1:
            for tensor in tensors:
                sent = tensor.detach().contiguous()
                distributed.broadcast(sent, src=0)
                tensor.detach().copy_(sent)

    def gather(self, rows: Tensor) -> list[Tensor]:
        """The rows of every process, in the order of their ranks; no gradient flows back.

        Args:
            rows: (n, ...), of which n may differ between processes.
        """
        if self.count == 1:
            return [rows]
        lengths = rows.new_zeros(self.count, dtype=torch.int64)
        lengths[self.rank] = len(rows)
        distributed.all_reduce(lengths)
        most = int(lengths.max())
        sent = rows.new_zeros(most, *rows.shape[1:])  # messages of all must have one size
        sent[: len(rows)] = rows.detach()
        received = [torch.empty_like(sent) for _ in range(self.count)]
        distributed.all_gather(received, sent)
        return [part[:length] for part, length in zip(received, lengths.tolist(), strict=True)]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in at least one process."""
        if self.count == 1:
            return flag
        seen = torch.tensor(int(flag))
        distributed.all_reduce(seen)
        return bool(seen)

    def wait(self) -> None:
        """Returns when all processes have come here."""
        self.any(flag=False)

    def _span(self, rank: int, length: int) -> slice:
        size, more = divmod(length, self.count)
        start = rank * size + min(rank, more)
        return slice(start, start + size + (rank < more))


ALONE = Processes()
"""One process, which shares with nobody."""


def join(device: str) -> Processes:
    """The processes that ``torchrun`` started this one among; joins them at the first call.

    The group is left when the program ends, or by `leave`.

    Args:
        device: ``cpu`` or ``cuda``. Tensors on a CPU travel by gloo, those on GPUs by NCCL.

    Raises:
        ConfigError: The variables that torchrun sets are not all there, or contradict each other.
    """
    if distributed.is_available() and distributed.is_initialized():
        return Processes(distributed.get_rank(), distributed.get_world_size())
    if (started := _started()) is None or started[1] == 1:
        return ALONE
    rank, count, _ = started
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, rank=rank, world_size=count)
    except ValueError as error:  # a missing MASTER_ADDR or MASTER_PORT
        raise ConfigError(
            f"{count} processes cannot find each other ({error}); start them with torchrun"
        ) from error
    atexit.register(leave)
    return Processes(rank, count)


def leave() -> None:
    """Ends this process's part in the group; does nothing where it has joined none."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def local_rank() -> int | None:
    """Number of this process among those of its machine; None where torchrun did not start it.

    Raises:
        ConfigError: As `join`.
    """
    started = _started()
    return None if started is None else started[2]


def _started() -> tuple[int, int, int] | None:
    """Rank, number of processes and local rank, from torchrun's variables."""
    found = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if not {"RANK", "WORLD_SIZE"} & set(found):  # others set LOCAL_RANK alone
        return None
    said = ", ".join(f"{name}={value!r}" for name, value in found.items())
    fix = "start with torchrun, or unset them"
    if missing := [name for name in _VARIABLES if name not in found]:
        raise ConfigError(f"the environment has {said} but no {' and no '.join(missing)}: {fix}")
    try:
        rank, count, local = (int(found[name]) for name in _VARIABLES)
    except ValueError:
        raise ConfigError(f"the environment has {said}, which are not all numbers: {fix}") from None
    if not 0 <= local <= rank < count:
        raise ConfigError(f"the environment has {said}, which contradict each other: {fix}")
    return rank, count, local


def _buckets(tensors: Iterable[Tensor]) -> Iterable[Sequence[Tensor]]:
    """Neighbours of one kind, together no larger than a bucket if they are more than one."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        alike = bucket and (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or size + tensor.nbytes > _BUCKET):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket
