"""Where faiss may search: on the GPU only if a process that can be lost has shown that it works."""

import subprocess
import sys
import warnings
from functools import cache

import torch

# faiss aborts the process on a GPU its kernels were not built for, so a child tries first.
_TRIAL = """
import faiss, numpy
vectors = numpy.eye(8, dtype="float32")
resources = faiss.StandardGpuResources()
resources.setTempMemory(1 << 24)
index = faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatIP(8))
index.add(vectors)
found = index.search(vectors, 1)[1][:, 0]
raise SystemExit(0 if found.tolist() == list(range(8)) else 1)
"""
_TRIAL_SECONDS = 120


def survives(program: str, seconds: float = _TRIAL_SECONDS) -> bool:
    """Whether a Python program ends well in a process of its own, in time."""
    # -P: a file called faiss.py in the working directory must not be imported.
    command = [sys.executable, "-P", "-c", program]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)  # noqa: S603 — our own text
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def choose(cuda: bool, program: str = _TRIAL) -> bool:
    """Whether to search on the GPU; warns when there is one that faiss cannot use."""
    if not cuda:
        return False
    if survives(program):
        return True
    warnings.warn(
        "faiss does not work on this machine's GPU; nearest neighbours are searched on the CPU "
        "(same results, slower)",
        stacklevel=2,
    )
    return False


@cache
def gpu_works() -> bool:
    """Whether this process may search on the GPU; found out once."""
    return choose(torch.cuda.is_available())
