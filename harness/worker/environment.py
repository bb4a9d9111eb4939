"""The environment that a worker's process starts with: what malloc, OpenMP and CUDA read at exec or at import. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping

# With glibc's defaults every large result is mapped anew and unmapped: page faults, not arithmetic, then set the time.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
DEFAULTS = {
    **MALLOC,
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS is deterministic only with a fixed workspace
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # torch.cuda.is_available() must not start CUDA
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
HASH_SEED = {"PYTHONHASHSEED": "0"}
RECORDED = (*DEFAULTS, *THREADS, *HASH_SEED, "CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "LD_PRELOAD")


def worker_environment(threads: int, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """`base` (this process's, unless given) with what a worker needs. Settings that the user made himself stay, but for the
    number of threads and the hash seed: the first is a key of the trial, the second would change the order of sets."""
    base = os.environ if base is None else base
    return {**DEFAULTS, **base, **dict.fromkeys(THREADS, str(threads)), **HASH_SEED}


def is_worker_environment(threads: int) -> bool:
    """Whether this process was started with it."""
    return worker_environment(threads) == dict(os.environ)


def recorded() -> dict[str, str]:
    """The settings that can change a result or a time, as this process has them."""
    return {name: os.environ[name] for name in RECORDED if name in os.environ}
