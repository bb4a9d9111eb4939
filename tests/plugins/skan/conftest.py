"""A real context in stage "solve" that keeps what is offered, and float64 where a test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.context import Context
from harness.lab import Classify, Regress


@pytest.fixture
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


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
def curve(rng: torch.Generator) -> Regress:
    """200 points of a sine."""
    x = 2 * torch.rand(200, 1, generator=rng) - 1
    return Regress(x, torch.sin(3 * x), (1,), 1)


@pytest.fixture
def images(rng: torch.Generator) -> Classify:
    """96 images of 8x8 around one image for each of 3 classes."""
    y = torch.arange(96) % 3
    clear = 0.8 * torch.randn(3, 1, 8, 8, generator=rng)[y]
    return Classify(clear + 0.3 * torch.randn(96, 1, 8, 8, generator=rng), y, 3, (1, 8, 8))
