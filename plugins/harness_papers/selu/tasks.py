"""The task `rule-table` at work: load and score. Imports torch; resolved in workers only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from harness import Instance
from harness.data import part_sizes, split
from harness.lab import Classify
from harness_papers.selu.rule_tables import LABEL_NOISE, make_table
from harness_papers.selu.tabular import SIZES


def load_rule_table(params: Any, ctx: Any) -> Instance:
    """The named table, split in the shares of its classes, standardised by the train part; drawn tables anew for each seed.

    A table's label noise is on the train and validation parts only, drawn by the seed.
    """
    table, noise = SIZES[params.name], LABEL_NOISE.get(params.name, 0.0)
    x, y = make_table(params.name, ctx.rng("split/data"))
    parts = split(part_sizes(table.rows, test=params.test, validation=params.validation), table.rows, 0, y, ctx.rng("split"))
    mean, deviation = x[parts.train].mean(axis=0), x[parts.train].std(axis=0)
    scaled = (x - mean) / np.where(deviation > 0, deviation, 1.0)  # a code that the train part has once only: 0
    noisy = turn_over(y, np.concatenate([parts.train, parts.validation]), noise, table.classes, ctx.rng("split/noise"))
    inputs = {part: torch.from_numpy(scaled[rows]).to(ctx.dtype) for part, rows in parts._asdict().items() if len(rows)}
    labels = {part: torch.from_numpy(noisy[getattr(parts, part)]) for part in inputs}
    problem = Classify(inputs["train"].to(ctx.device), labels["train"].to(ctx.device), table.classes, (table.features,))
    held = {part: {"x": inputs[part], "y": labels[part]} for part in inputs if part != "train"}
    return Instance(problem, held)


def turn_over(y: np.ndarray, rows: np.ndarray, share: float, classes: int, rng: np.random.Generator) -> np.ndarray:
    """The labels, of which a share of the named rows, rounded, became another class at random."""
    y = y.copy()
    wrong = rng.choice(rows, round(share * len(rows)), replace=False)
    y[wrong] = (y[wrong] + rng.integers(1, classes, size=len(wrong))) % classes
    return y


def score(part: Mapping[str, Any], solution: Any, params: Any, ctx: Any) -> dict[str, float]:
    """accuracy, error and nll (nats an item) of a held part, from logits (N, classes) in float64; NaN for logits that are."""
    logits = solution.predict(part["x"].to(ctx.device)).detach().cpu().double()
    wanted = (len(part["x"]), SIZES[params.name].classes)
    if tuple(logits.shape) != wanted:
        raise ValueError(f"predict gave shape {tuple(logits.shape)}; give logits {wanted}")
    if bool((logits.isnan() | logits.isposinf()).any()):
        return dict.fromkeys(("accuracy", "error", "nll"), math.nan)
    accuracy = float((logits.argmax(dim=1) == part["y"]).double().mean())
    nll = float(torch.nn.functional.cross_entropy(logits, part["y"]))
    return {"accuracy": accuracy, "error": 1 - accuracy, "nll": nll}
