"""`ctx`: what a task's `load` and a method's `solve` are given besides the problem. Imports torch; used in workers only.

Three stages share the class: in "load" and "score" there is no budget and no offer; in "solve" the data streams are
closed and time runs on the trial's clocks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from harness.errors import BudgetSpent, HarnessError, Unsupported
from harness.identity import canonical, stream_seed

Stage = Literal["load", "solve", "score"]
CLOSED_IN_SOLVE = ("split", "held")
MAX_BLOB_BYTES = 16 << 20


class Clocks:
    """Amounts spent, and wall seconds that can be stopped. Nothing here touches the device."""

    def __init__(self, budget: Mapping[str, float], now: Callable[[], float] = time.perf_counter) -> None:
        self.budget = dict(budget)
        self.spent: dict[str, float] = {}
        self._now = now
        self._elapsed = 0.0
        self._since: float | None = None

    def start(self) -> None:
        self._since = self._now()

    def stop(self) -> None:
        if self._since is not None:
            self._elapsed += self._now() - self._since
            self._since = None

    @property
    def wall_s(self) -> float:
        return self._elapsed + (self._now() - self._since if self._since is not None else 0.0)

    def spend(self, units: Mapping[str, float]) -> None:
        """Count the units. Raises BudgetSpent, counting nothing, if they or the seconds so far exceed the budget."""
        for unit, amount in units.items():
            if self.spent.get(unit, 0.0) + amount > self.budget.get(unit, float("inf")):
                raise BudgetSpent(unit)
        if "wall_s" in self.budget and self.wall_s >= self.budget["wall_s"]:
            raise BudgetSpent("wall_s")
        for unit, amount in units.items():
            self.spent[unit] = self.spent.get(unit, 0.0) + amount

    def charge(self, seconds: float) -> None:
        """Add seconds that this process did not wait for: work that another trial did and this one profits from."""
        self._elapsed += seconds

    def left(self, unit: str) -> float:
        used = self.wall_s if unit == "wall_s" else self.spent.get(unit, 0.0)
        return self.budget.get(unit, float("inf")) - used

    def amounts(self) -> dict[str, float]:
        return {**self.spent, "wall_s": self.wall_s}


class Context:
    """See the module. Attributes for plugins: device, dtype, threads, budget, scratch; net and train (None for learners)."""

    def __init__(
        self,
        *,
        device: str,
        dtype: str,
        budget: Mapping[str, float],
        root_seed: int,
        seed: int,
        task: str,
        scratch: Path,
        threads: int = 1,
        net: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        derive: Callable[[Context, str, Mapping[str, Any]], Any] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.budget = dict(budget)
        self.scratch = scratch
        self.threads = threads
        self.net = net
        self.train = train
        self.stage: Stage = "load"
        self.clocks = Clocks(budget)
        self.diagnostics: dict[str, float | str] = {}
        self.blobs: list[dict[str, Any]] = []
        self._root_seed, self._seed, self._task = root_seed, seed, task
        self._derive = derive
        self._on_offer: Callable[[Any, Mapping[str, float]], None] | None = None
        self._region: Callable[[str], contextlib.AbstractContextManager[None]] | None = None

    # Randomness ---------------------------------------------------------------------------------------------------

    def stream_seed(self, stream: str) -> int:
        """The 63-bit seed of a named stream. The same for every method of a pair."""
        if self.stage == "solve" and stream.split("/")[0] in CLOSED_IN_SOLVE:
            raise HarnessError(f"stream {stream!r} belongs to the task's load and is closed in solve; use a name of your own")
        return stream_seed(self._root_seed, self._seed, self._task, stream)

    def draw_anew(self, purpose: str) -> None:
        """From here on every stream is another one, as if the task were another: only trials of this purpose draw the same."""
        self._task = canonical([self._task, purpose])

    def generator(self, stream: str, device: str | torch.device = "cpu") -> torch.Generator:
        """A torch generator of its own for a named stream: "order", "init/layers.0.weight", "noise" ..."""
        return torch.Generator(device=device).manual_seed(self.stream_seed(stream))

    def rng(self, stream: str) -> np.random.Generator:
        """The same for NumPy."""
        return np.random.default_rng(self.stream_seed(stream))

    # The budget and the offers ------------------------------------------------------------------------------------

    def spend(self, **units: float) -> None:
        """Call before each piece of work with what it will cost: ctx.spend(samples_seen=64, steps=1).

        Ends `solve` (BudgetSpent) where the budget would be exceeded; the last offer is then the result. Free in score.
        """
        if self.stage != "score":
            self.clocks.spend(units)

    def left(self, unit: str) -> float:
        """What is left of a budget unit; inf where the suite sets none."""
        return self.clocks.left(unit)

    def offer(self, solution: Any) -> None:
        """Say "you may score me here": clocks stop, the core scores the solution on the held parts, clocks go on."""
        if self.stage != "solve" or self._on_offer is None:
            raise HarnessError("ctx.offer is for solve only")
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the work so far belongs to the clock, the scoring does not
        self.clocks.stop()
        try:
            self._on_offer(solution, self.clocks.amounts())
        finally:
            self.clocks.start()

    @contextlib.contextmanager
    def region(self, name: str) -> Iterator[None]:
        """A piece of work with a name, "train_step" say: timed in timing trials, free in quality trials."""
        if self._region is None:
            yield
            return
        with self._region(name):
            yield

    # What else a method may leave or ask for ----------------------------------------------------------------------

    def log(self, **diagnostics: float | str) -> None:
        """The method's own word: kept and shown, never ranked. The last value of a name stays."""
        self.diagnostics.update({k: v if isinstance(v, str) else float(v) for k, v in diagnostics.items()})

    def save(self, name: str, content: bytes, media_type: str) -> None:
        """Keep an artefact (a circuit, a certificate, an SVG) with the record; 16 MiB at most."""
        if len(content) > MAX_BLOB_BYTES:
            raise HarnessError(f"ctx.save({name!r}): {len(content)} bytes; the limit is {MAX_BLOB_BYTES}")
        path = self.scratch / f"blob-{len(self.blobs)}"
        path.write_bytes(content)
        self.blobs.append({"name": name, "media_type": media_type, "path": str(path)})

    def derive(self, recipe: str, **args: Any) -> dict[str, torch.Tensor]:
        """Something costly that several trials share, made once per seed: recipe "module:function"(ctx, **args).

        The recipe returns tensors by name; they are cached under (its code, args, seed, dtype, device kind). Free in load,
        charged to the clocks in solve, also when it comes from the cache.
        """
        if self._derive is None:
            raise Unsupported("ctx.derive: this worker has no cache folder")
        return self._derive(self, recipe, args)  # type: ignore[no-any-return]
