"""Where and in which precision networks run."""

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from sslpurify.errors import ConfigError
from sslpurify.processes import ALONE, Processes, join, local_rank
from sslpurify.synchronized import synchronize

N = TypeVar("N", bound=nn.Module)
Precision = Literal["auto", "fp32", "bf16"]
CPU = torch.device("cpu")
_EXHAUSTED = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Compute:
    """A device and the precision of its convolutions and matrix products.

    Args:
        device: Where networks live.
        bf16: Whether forward passes run under bfloat16 autocast. Weights stay float32.
        processes: Those that share the work, each with a device of its own.
    """

    device: torch.device = CPU
    bf16: bool = False
    processes: Processes = ALONE

    @property
    def precision(self) -> str:
        """``fp32`` or ``bf16``."""
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> torch.autocast:
        """The context for forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def place(self, network: N) -> N:
        """Moves a network here; channels last on a GPU, whose convolutions prefer it.

        Where processes share the work, the BatchNorm layers inside it see the rows of all.

        Not on a CPU: there torch 2.14.1 writes past its buffers in the backward pass of some small
        channels-last convolutions when it runs on several threads, and gains a tenth at most.
        """
        if self.processes.count > 1:
            network = synchronize(network, self.device)
        if self.device.type == "cpu":
            return network.to(self.device)
        return network.to(  # pyright: ignore[reportCallIssue] - torch's stubs lack memory_format
            device=self.device, memory_format=torch.channels_last
        )


PLAIN = Compute()
"""Float32 on the CPU."""


def choose(device: str = "auto", precision: Precision = "auto") -> Compute:
    """The device and precision asked for, and the processes that torchrun started this one among.

    Args:
        device: ``auto`` (a CUDA GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``. Under torchrun
            ``auto`` and ``cuda`` give each process of a machine a GPU of its own.
        precision: ``auto`` takes bfloat16 where the hardware multiplies it at full speed: on GPUs
            from Ampere on and on CPUs with AMX. CPUs that only have AVX-512 BF16 train ResNets
            slower with it than in float32.

    Raises:
        ConfigError: There is no such device here, or torchrun's variables contradict each other.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"no device is called {device!r}; use auto, cpu or cuda") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {device!r} is not supported; use auto, cpu or cuda")
    local = local_rank()
    if chosen.type == "cuda" and local is not None:
        if ":" in device:
            raise ConfigError(f"under torchrun each process takes a GPU of its own, not {device!r}")
        chosen = torch.device("cuda", local)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no {str(chosen)!r} here: {torch.cuda.device_count()} GPUs found"
        )
    fast = _multiplies_bf16(chosen) if precision == "auto" else precision == "bf16"
    if chosen.type == "cuda" and local is not None:
        torch.cuda.set_device(chosen)
    return Compute(chosen, fast, join(chosen.type))


def exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU, in its libraries or in the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = str(error)
    return isinstance(error, RuntimeError) and any(sign in told for sign in _EXHAUSTED)


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # torch.cpu.get_capabilities() says it in public, but only from torch 2.11 on.
    return torch.cpu._is_amx_tile_supported()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
