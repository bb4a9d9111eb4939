"""A real context in stage "solve" that keeps what is offered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.context import Context


@pytest.fixture
def make_ctx(tmp_path: Path) -> Callable[..., Context]:
    """(seed, stage, dtype, budget units) -> context; `ctx.offered` holds (solution, clocks) in order."""

    def make(seed: int = 0, stage: str = "solve", dtype: str = "float64", **budget: float) -> Context:
        ctx: Any = Context(
            device="cpu", dtype=dtype, budget=budget, root_seed=0, seed=seed, task='["boolean",{}]', scratch=tmp_path
        )
        ctx.stage = stage
        ctx.offered = []
        ctx._on_offer = lambda solution, amounts: ctx.offered.append((solution, amounts))
        return ctx

    return make
