"""The task `formula` at work: load and score. Imports torch; resolved in workers only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from harness import Instance, Unsupported
from harness.lab import Regress
from harness_papers.kan_assessment.formulas import draw

SMALLEST = 1e-16  # of rmse: no logarithm of 0


def load_formula(params: Any, ctx: Any) -> Instance:
    """Points drawn anew for each seed, x in [-1, 1]^d; targets (N, 1) in deviations of the train targets without their noise.

    Noise is added to train and validation targets; the test part has the formula's own values.
    """
    rng = ctx.rng("split/data")
    sizes = {"train": params.train, "validation": params.validation, "test": params.test}
    x, y = draw(params.name, rng, sum(sizes.values()))
    noise = rng.standard_normal(len(y))
    y = (y - y[: params.train].mean()) / y[: params.train].std()
    y[: params.train + params.validation] += params.noise * noise[: params.train + params.validation]
    inputs, targets = (
        torch.from_numpy(array).to(ctx.dtype).split(list(sizes.values())) for array in (x, y[:, None])
    )  # fmt: skip
    problem = Regress(inputs[0].to(ctx.device), targets[0].to(ctx.device), (x.shape[1],), outputs=1)
    held = {part: {"x": inputs[i], "y": targets[i]} for i, part in enumerate(sizes) if part != "train" and sizes[part]}
    return Instance(problem, held)


def score(part: Mapping[str, Any], solution: Any, params: Any, ctx: Any) -> dict[str, float]:
    """rmse of a held part in float64, its decimal logarithm cut off at 0, and r2 cut off at -1. NaN for predictions that are.

    An rmse of 1 is what the mean of the train targets scores.
    """
    targets = part["y"].double()
    predicted = solution.predict(part["x"].to(ctx.device)).detach().cpu().double()
    if predicted.shape != targets.shape:
        raise ValueError(f"predict gave shape {tuple(predicted.shape)} for targets {tuple(targets.shape)}; make them equal")
    if not bool(predicted.isfinite().all()):
        return dict.fromkeys(("rmse", "log_rmse", "r2"), math.nan)
    mse = float((predicted - targets).square().mean())
    variance = float(targets.var(unbiased=False))
    if variance <= 0:
        raise Unsupported("r2 needs targets that differ; this part's are all equal")
    rmse = math.sqrt(mse)
    return {"rmse": rmse, "log_rmse": min(math.log10(max(rmse, SMALLEST)), 0.0), "r2": max(1 - mse / variance, -1.0)}
