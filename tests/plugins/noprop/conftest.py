"""Parameters, modules and a real context in stage "solve" that keeps what is offered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.context import Context
from harness.lab import Classify


@pytest.fixture
def make_ctx(tmp_path: Path) -> Callable[..., Context]:
    """(seed, dtype, budget units) -> context; `ctx.offered` holds (solution, clocks) in order."""

    def make(seed: int = 0, dtype: str = "float32", **budget: float) -> Context:
        ctx: Any = Context(
            device="cpu", dtype=dtype, budget=budget, root_seed=0, seed=seed, task='["toy",{}]', scratch=tmp_path
        )
        ctx.stage = "solve"
        ctx.offered = []
        ctx._on_offer = lambda solution, amounts: ctx.offered.append((solution, dict(amounts)))
        return ctx

    return make


@pytest.fixture
def blobs(rng: torch.Generator) -> Callable[..., Classify]:
    """(items, classes, inputs) -> clouds around one point for each class: easy to tell apart."""

    def make(items: int = 96, classes: int = 3, inputs: tuple[int, ...] = (6,)) -> Classify:
        centres = 3 * torch.randn(classes, *inputs, generator=rng)
        y = torch.arange(items) % classes
        return Classify(centres[y] + torch.randn(items, *inputs, generator=rng), y, classes, inputs)

    return make
