"""A real context per test, and short names for the nets of the card."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_papers.lipsdp.problems import Array, Network
from harness_papers.lipsdp.tasks import random_network

from harness.context import Context


@pytest.fixture
def make_ctx(tmp_path: Path) -> Callable[..., Context]:
    """(seed, stage, budget) -> a worker's context; it keeps its offers in `offered` and calls recipes without a cache."""

    def make(seed: int = 0, stage: str = "solve", **budget: float) -> Context:
        return real_context(tmp_path, seed, stage, **budget)

    return make


def real_context(scratch: Path, seed: int = 0, stage: str = "solve", **budget: float) -> Context:
    ctx = Context(
        device="cpu", dtype="float32", budget=budget, root_seed=0, seed=seed, task="t", scratch=scratch, derive=call_recipe
    )
    ctx.stage = stage
    ctx.offered = []
    ctx._on_offer = lambda solution, at: ctx.offered.append(solution)
    ctx.clocks.start()
    return ctx


def call_recipe(ctx: Context, recipe: str, args: Any) -> Any:
    module, _, name = recipe.partition(":")
    return getattr(importlib.import_module(module), name)(ctx, **args)


def card_net(dims: str, activation: str = "relu") -> Network:
    """The random net of the card: weights from default_rng(0), layer by layer."""
    return random_network(tuple(map(int, dims.split("-"))), np.random.default_rng(0), activation)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)
