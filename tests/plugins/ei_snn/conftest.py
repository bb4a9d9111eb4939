"""Digits in [0, 1], small problems, and a real context in stage "solve" that keeps what is offered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from harness.context import Context
from harness.lab import Classify


@pytest.fixture
def make_ctx(tmp_path: Path) -> Callable[..., Context]:
    """(seed, dtype, budget units) -> context; `ctx.offered` counts the offers."""

    def make(seed: int = 0, dtype: str = "float32", **budget: float) -> Context:
        ctx: Any = Context(
            device="cpu", dtype=dtype, budget=budget, root_seed=0, seed=seed, task='["toy",{}]', scratch=tmp_path
        )
        ctx.stage = "solve"
        ctx.offered = 0

        def count(solution: Any, amounts: Any) -> None:
            ctx.offered += 1

        ctx._on_offer = count
        return ctx

    return make


@pytest.fixture(scope="session")
def digits() -> Tensor:
    """(128, 64), float32, grey levels in [0, 1]."""
    return torch.tensor(load_digits().data[:128] / 16, dtype=torch.float32)


@pytest.fixture
def clouds(rng: torch.Generator) -> Callable[..., Classify]:
    """(items, classes, inputs) -> clouds around one point for each class: easy to tell apart."""

    def make(items: int = 192, classes: int = 3, inputs: tuple[int, ...] = (12,)) -> Classify:
        centres = 3 * torch.randn(classes, *inputs, generator=rng)
        y = torch.arange(items) % classes
        return Classify(centres[y] + torch.randn(items, *inputs, generator=rng), y, classes, inputs)

    return make
