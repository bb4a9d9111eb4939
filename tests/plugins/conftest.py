"""Fixtures of the papers' tests: the installed declarations, and rules evaluated by hand on made-up numbers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import nn

from harness.catalogue import Catalogue, load_catalogue
from harness.context import Context
from harness.lab import Classify, ComponentUse, build_net, init_net, train_component
from harness.nets import Net, Train
from harness.rules import All, Cell, Diff, Number, Over, Rank, Ratio, Rule, Slope, Within, cells
from harness.specs import Claim, Component

HOW = {"mean": np.mean, "min": np.min, "max": np.max, "median": np.median}


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """What the installed plugins declare."""
    return load_catalogue()


@pytest.fixture
def verdict() -> Callable[[Rule, Callable[[Cell], float]], str]:
    """(rule, Cell -> made-up value, the same at every seed) -> "supported", "refuted".

    Not the judge: no intervals and no seeds. It shows that a rule has its signs right and can come out both ways.
    """

    def judge(rule: Rule, value: Callable[[Cell], float]) -> str:
        if isinstance(rule, All):
            return "supported" if all(judge(r, value) == "supported" for r in rule.rules) else "refuted"
        assert isinstance(rule, Within)
        return "supported" if rule.low < number(rule.node, value) < rule.high else "refuted"

    return judge


def number(node: Number, value: Callable[[Cell], float]) -> float:
    """The node's value at one seed."""
    match node:
        case Cell():
            return value(node)
        case Diff(a, b):
            return number(a, value) - number(b, value)
        case Ratio(a, b):
            return number(a, value) / number(b, value)
        case Over(nodes, how):
            return float(HOW[how]([number(n, value) for n in nodes]))
        case Rank(of, among, better):
            signed = [-value(c) if better == "higher" else value(c) for c in among]
            return float(rankdata(signed)[among.index(of)])
        case Slope(points, "log", "log"):
            sizes, values = zip(*((x, number(n, value)) for x, n in points), strict=True)
            return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
        case _:
            raise TypeError(f"no rule of these papers uses {type(node).__name__}; add it here")


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
