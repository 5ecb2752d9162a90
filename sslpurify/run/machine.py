"""``doctor``: what this machine offers."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from sslpurify.probes.faiss_device import gpu_works
from sslpurify.report import grid, versions
from sslpurify.run.answer import Answer

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, never written to
_ENOUGH = 1 << 30


def doctor() -> Answer:
    """Versions, devices, faiss, shared memory, and what a user should know about them."""
    cuda = torch.cuda.is_available()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    shared = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None
    data: dict[str, Any] = {
        "versions": dict(versions()),
        "devices": ["cpu", *(f"cuda:{i} {name}" for i, name in enumerate(devices))],
        "threads": torch.get_num_threads(),
        "faiss": "gpu" if cuda and gpu_works() else "cpu",
        "shared_memory_bytes": shared,
        "warnings": _warnings(shared),
    }
    facts = [[name, number] for name, number in data["versions"].items()]
    facts += [["device", device] for device in data["devices"]]
    facts += [["threads", str(data["threads"])], ["faiss searches on", data["faiss"]]]
    facts += [["shared memory", "none" if shared is None else f"{shared / 2**20:.0f} MiB free"]]
    facts += [["WARNING", warning] for warning in data["warnings"]]
    return Answer(data, grid([], facts))


def _warnings(shared: int | None) -> list[str]:
    found: list[str] = []
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        found.append(
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set: other programs on this machine may run code "
            "from checkpoints. sslpurify does not follow it; unset it"
        )
    if shared is not None and shared < _ENOUGH:
        found.append("little shared memory: training on several processes may fail")
    return found
