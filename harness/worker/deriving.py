"""`ctx.derive`: something costly that several trials share, made once and kept as safetensors beside what it cost.

A derived value depends on its recipe alone: the code around it, its arguments, root seed, seed, dtype and device kind. The
recipe gets a context of its own, with streams named after the recipe and not after the task, so who asks first does not
matter. What is made in `load`, where data is open, is kept apart from what is made in `solve`, where it is not: a method
cannot fetch from the cache what it could not have made.
"""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.context import Context
from harness.errors import HarnessError
from harness.identity import CORE, canonical, digest, digest_folder
from harness.worker.resolving import resolve


class Deriver:
    """What `Context` calls: one for a trial, over one cache folder."""

    def __init__(self, cache_dir: Path, root_seed: int, seed: int) -> None:
        self._folder = cache_dir / "derived"
        self._root_seed, self._seed = root_seed, seed

    def __call__(self, ctx: Context, recipe: str, args: Mapping[str, Any]) -> dict[str, Tensor]:
        """The recipe's tensors on ctx.device. In solve its cost is charged, also when it comes from the cache."""
        path = self._folder / f"{self._key(ctx, recipe, args)}.safetensors"
        in_solve = ctx.stage == "solve"
        if in_solve:
            ctx.clocks.stop()  # neither waiting for the lock nor reading the cache is work; what the work cost is charged below
        try:
            tensors, cost = self._fetch(ctx, recipe, args, path)
        finally:
            if in_solve:
                ctx.clocks.start()
        if in_solve:
            ctx.clocks.charge(cost["wall_s"])
            ctx.spend(**cost["spent"])
        return {name: t.to(ctx.device) for name, t in tensors.items()}

    def _fetch(
        self, ctx: Context, recipe: str, args: Mapping[str, Any], path: Path
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            # The cost is written last: where it is, the tensors are whole.
            if not path.with_suffix(".json").exists():
                self._make(ctx, recipe, args, path)
        return load_file(path), json.loads(path.with_suffix(".json").read_text())

    def _make(self, ctx: Context, recipe: str, args: Mapping[str, Any], path: Path) -> None:
        own = Context(
            device=str(ctx.device), dtype=str(ctx.dtype).removeprefix("torch."), budget={}, root_seed=self._root_seed,
            seed=self._seed, task=canonical(["derive", recipe, dict(args)]), scratch=ctx.scratch, threads=ctx.threads,
            derive=self,
        )  # fmt: skip
        own.stage = ctx.stage
        own.clocks.start()
        made = resolve(recipe, "ctx.derive")(own, **args)
        if own.device.type == "cuda":
            torch.cuda.synchronize(own.device)
        own.clocks.stop()
        if not isinstance(made, dict) or not all(isinstance(t, Tensor) for t in made.values()):
            raise HarnessError(f"ctx.derive: recipe {recipe!r} gave {type(made).__name__}; return a dict of names to tensors")
        cost = {"wall_s": own.clocks.wall_s, "spent": own.clocks.spent, "recipe": recipe, "made_at": time.time()}
        # Cloned: safetensors refuses tensors that share memory.
        plain = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in made.items()}
        write_whole(path, lambda at: save_file(plain, at))
        write_whole(path.with_suffix(".json"), lambda at: at.write_text(json.dumps(cost)))

    def _key(self, ctx: Context, recipe: str, args: Mapping[str, Any]) -> str:
        try:
            canonical(dict(args))
        except (TypeError, ValueError) as exc:
            raise HarnessError(f"ctx.derive({recipe!r}): arguments must be plain JSON values: {exc}") from exc
        return digest(
            {
                "recipe": recipe, "args": dict(args), "code": code_digest(recipe), "torch": torch.__version__,
                "root_seed": self._root_seed, "seed": self._seed, "dtype": str(ctx.dtype), "device": ctx.device.type,
                "data": "closed" if ctx.stage == "solve" else "open",
            }
        )  # fmt: skip


@lru_cache(maxsize=256)
def code_digest(recipe: str) -> str:
    """The recipe's own folder, harness.lab and harness.data: what its result can depend on."""
    resolve(recipe, "ctx.derive")
    module = sys.modules[recipe.partition(":")[0]]
    source = Path(inspect.getfile(module))
    own = source.parent if module.__package__ else source  # a lone module: its folder may hold all that is installed
    return digest([digest_folder(folder) for folder in (own, CORE / "lab", CORE / "data")])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Exclusive between processes; the kernel lets go of it when the holder dies, however it dies."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_whole(path: Path, write: Any) -> None:
    """Whole or not at all, however the process ends."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    temporary.replace(path)
