"""Memory that one call takes beyond its inputs and what it gives back. Counted by torch's allocators, not timed.

What C code allocates for itself is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.autograd import profiler

MEMORY = "[memory]"  # the profiler's name for an event of an allocator


def extra_bytes(act: Callable[[], Iterable[Tensor | None]], given: Sequence[Tensor], device: torch.device) -> float:
    """The peak within a call, less the tensors that it returns. given: its inputs."""
    peak, made = (peak_on_cuda if device.type == "cuda" else peak_on_cpu)(act, device)
    old = {t.untyped_storage().data_ptr() for t in given}
    new = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in made}
    return float(max(0, peak - sum(size for address, size in new.items() if address not in old)))


def peak_on_cpu(act: Callable[[], Iterable[Tensor | None]], device: torch.device) -> tuple[int, list[Tensor]]:
    with profiler.profile(profile_memory=True) as profile:
        made = [t for t in act() if t is not None]
    events = sorted((e.start_ns(), e.nbytes()) for e in profile.kineto_results.events() if e.name() == MEMORY)
    return max(0, *accumulate((size for _, size in events), initial=0)), made


def peak_on_cuda(act: Callable[[], Iterable[Tensor | None]], device: torch.device) -> tuple[int, list[Tensor]]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    made = [t for t in act() if t is not None]
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before, made
