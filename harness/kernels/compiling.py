"""`torch.compile` for the implementations that ask for it: fresh, fixed shapes, its first calls timed, its cache watched."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

MISSES, HITS = "fxgraph_cache_miss", "fxgraph_cache_hit"


@dataclass(frozen=True)
class Compiled:
    """run: compiles at its first call in each mode of autograd."""

    run: Callable[..., Any]
    _before: Counter[str]

    def first_calls(self, acts: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
        """Seconds of one call of each. Compiled in this thread: no compiler processes that outlive the trial."""
        import torch._inductor.config

        waits = {}
        with torch._inductor.config.patch(compile_threads=1):
            for name, act in acts.items():
                began = time.perf_counter()
                act()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                waits[name] = time.perf_counter() - began
        return waits

    def cache(self) -> Literal["cold", "warm", "off"]:
        """How the cache on disk met what was compiled until now."""
        return cache_state(inductor_counts() - self._before)


def compile_run(run: Callable[..., Any]) -> Compiled:
    """Forget what was compiled before; nothing is compiled yet."""
    import torch._functorch.config

    torch._dynamo.reset()
    # They forbid a second backward pass through one graph, which the check and the region `backward` make.
    torch._functorch.config.donated_buffer = False
    return Compiled(torch.compile(run, dynamic=False), inductor_counts())


def inductor_counts() -> Counter[str]:
    from torch._dynamo.utils import counters

    return Counter({name: counters["inductor"][name] for name in (MISSES, HITS)})


def cache_state(counts: Counter[str]) -> Literal["cold", "warm", "off"]:
    """cold: at least one graph was compiled anew; warm: all came from the cache; off: it was not asked."""
    if counts[MISSES]:
        return "cold"
    return "warm" if counts[HITS] else "off"
