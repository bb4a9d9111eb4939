"""Fixtures of the papers' tests: the installed declarations, and rules judged on made-up numbers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.catalogue import Catalogue, load_catalogue
from harness.claims.deciding import decide
from harness.context import Context
from harness.lab import Classify, ComponentUse, build_net, init_net, train_component
from harness.nets import Net, Train
from harness.rules import Cell, Rule, cells
from harness.specs import Claim, Component


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """What the installed plugins declare."""
    return load_catalogue()


SEEDS = 100


@pytest.fixture
def verdict() -> Callable[[Rule, Callable[[Cell], float | list[float]]], str]:
    """(rule, Cell -> made-up value, the same at every seed, or a few that repeat) -> the judge's word, with many seeds.

    It shows that a rule has its signs right and can come out both ways.
    """

    def judge(rule: Rule, value: Callable[[Cell], float | list[float]]) -> str:
        found = {cell: value(cell) for cell in cells(rule)}
        lists = {cell: v if isinstance(v, list) else [float(v)] for cell, v in found.items()}
        values = {cell: (v * SEEDS)[:SEEDS] for cell, v in lists.items()}
        return decide(rule, values, {}, SEEDS, alpha=0.05, effect=None)[0]

    return judge


@pytest.fixture
def unknown_names(catalogue: Catalogue) -> Callable[[Claim], list[str]]:
    """Claim -> what its cells name that no installed plugin declares, or that the reference net and learner refuse."""

    def find(claim: Claim) -> list[str]:
        return [f"{claim.name}: {wrong}" for cell in dict.fromkeys(cells(claim.rule)) for wrong in problems(catalogue, cell)]

    return find


def problems(catalogue: Catalogue, cell: Cell) -> list[str]:
    """What is wrong with one cell."""
    method, task = catalogue.method(cell.method).spec, catalogue.task(cell.task).spec
    track = catalogue.track(task.track).spec
    groups: dict[str, dict[str, object]] = {"net": {}, "train": {}, "method": {}, "budget": {}, "task": {}}
    for name, wanted in cell.given:
        where, _, key = name.partition(".")
        groups.setdefault(where, {})[key] = wanted
    probes = [p.spec for p in catalogue.probes if catalogue.track(p.spec.track).spec == track]
    metrics = {m.name for m in (*task.metrics, *(m for probe in probes for m in probe.metrics))}
    found = [] if cell.metric in metrics else [f"task {task.name!r} has no metric {cell.metric!r}"]
    found += [f"unknown group {where!r}" for where in groups.keys() - {"net", "train", "method", "budget", "task"}]
    found += [f"track {track.name!r} has no clock {unit!r}" for unit in groups["budget"].keys() - {*track.clocks, "wall_s"}]
    if isinstance(method, Component):
        Net(**groups["net"])  # raises for an unknown key or a value out of range
        Train(**groups["train"])
    method.params(**groups["method"])
    task.params(**groups["task"])
    return found


# Components in the reference nets ---------------------------------------------------------------------------------------

SHAPE = {"inputs": 64, "outputs": 10, "train_items": 64, "channels": 1, "height": 8, "width": 8}


@pytest.fixture
def in_the_lab(catalogue: Catalogue, tmp_path: Path, rng: torch.Generator) -> Callable[..., tuple[nn.Module, nn.Module]]:
    """(component, net, dtype, steps, batch, method parameters) -> the net before and after training by the reference learner.

    On 64 random images of 8x8 with random labels.
    """
    problem = Classify(
        x=torch.randn(64, 1, 8, 8, generator=rng),
        y=torch.randint(10, (64,), generator=rng),
        classes=10,
        inputs=(1, 8, 8),
    )

    def train(
        name: str, net: Net, dtype: str = "float32", steps: int = 3, batch: int = 16, **params: Any
    ) -> tuple[nn.Module, nn.Module]:
        spec = catalogue.method(name).spec
        assert isinstance(spec, Component)
        module, _, function = spec.build.partition(":")
        use = ComponentUse(
            spec.name, spec.kind, getattr(importlib.import_module(module), function), spec.params(**params), spec.init
        )
        settings = Train(batch=batch, warmup=0.0, schedule="constant").model_dump()
        ctx = Context(
            device="cpu", dtype=dtype, budget={"steps": steps}, root_seed=0, seed=0, task="t", scratch=tmp_path,
            net=net.model_dump(), train=settings,
        )  # fmt: skip
        ctx.stage = "solve"
        ctx._on_offer = lambda solution, at: None
        before = build_net(net, SHAPE, use, ctx.dtype)
        init_net(before, ctx, net.init, use)
        return before, train_component(problem, ctx, use).module

    return train
