"""The regress track's tasks at work: load and score. Imports torch; resolved in workers only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from harness.builtin.supervised import arrays_of, inputs_of, parts_of, predict_all, scale_features, to_tensor
from harness.context import Context
from harness.errors import Unsupported
from harness.lab.problems import Regress, Regressor
from harness.specs import Instance


def load(name: str, params: Any, ctx: Context) -> Instance:
    """The named task. problem on the trial's device; held parts {"x", "y"} on the CPU, ready to be sealed.

    Targets (N, 1) are scaled like inputs where `standardize` is set: rmse is then in deviations of the train targets.
    Raises DataError where the data are absent or not what they should be.
    """
    arrays = arrays_of(name, params, ctx)
    parts = parts_of(name, params, arrays, ctx)
    x = inputs_of(arrays, parts, params.standardize, ctx.dtype)
    targets = arrays.y[:, None]
    rows = {part: getattr(parts, part) for part in x}
    if params.standardize:
        y = scale_features(targets, rows, ctx.dtype)
    else:
        y = {part: to_tensor(targets[chosen], ctx.dtype) for part, chosen in rows.items()}
    problem = Regress(x["train"].to(ctx.device), y["train"].to(ctx.device), tuple(x["train"].shape[1:]), outputs=1)
    return Instance(problem, {part: {"x": x[part], "y": y[part]} for part in x if part != "train"})


load_diabetes = partial(load, "diabetes")
load_sines = partial(load, "sines")


def score(part: Mapping[str, Any], solution: Regressor, params: Any, ctx: Context) -> dict[str, float]:
    """rmse, and r2 cut off at -1, of a held part, in float64. Both are NaN where a prediction is not finite.

    r2 = 1 - (mean squared error) / (variance of the part's targets); Unsupported where they are all equal.
    """
    predicted = predict_all(solution, part["x"], part["y"].shape[1], ctx)
    targets = part["y"].to(predicted.device, torch.float64)
    if not bool(predicted.isfinite().all()):
        return {"rmse": float("nan"), "r2": float("nan")}
    mse = (predicted - targets).square().mean()
    variance = targets.var(dim=0, unbiased=False).mean()
    if variance <= 0:
        raise Unsupported("r2 needs targets that differ; this part's are all equal")
    rmse, r2 = torch.stack([mse.sqrt(), (1 - mse / variance).clamp(min=-1.0)]).tolist()
    return {"rmse": rmse, "r2": r2}
