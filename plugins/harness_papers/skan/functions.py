"""The seven functions, as tasks of the track `regress`. NumPy and SciPy make the data, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.special import j0

from harness import HarnessError, Instance
from harness.lab import Regress

Array = np.ndarray[Any, np.dtype[np.float64]]


def smooth(x: Array) -> Array:
    """exp(sin(pi x1) + x2^2)."""
    return np.exp(np.sin(np.pi * x[:, 0]) + x[:, 1] ** 2)


def oscillating(x: Array) -> Array:
    """sin(20 x)."""
    return np.sin(20 * x[:, 0])


def piecewise(x: Array) -> Array:
    """|x| + sign(x - 0.2): a kink and a step."""
    return np.abs(x[:, 0]) + np.sign(x[:, 0] - 0.2)


def localised(x: Array) -> Array:
    """exp(-200 (x - 0.3)^2)."""
    return np.exp(-200 * (x[:, 0] - 0.3) ** 2)


def product(x: Array) -> Array:
    """x1 x2 x3."""
    return x.prod(axis=1)


def rational(x: Array) -> Array:
    """1 / (1 + 25 x^2), Runge's function."""
    return 1 / (1 + 25 * x[:, 0] ** 2)


def bessel(x: Array) -> Array:
    """J0(20 x), the Bessel function of the first kind."""
    return j0(20 * x[:, 0])


FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "smooth": smooth,
    "oscillating": oscillating,
    "piecewise": piecewise,
    "localised": localised,
    "product": product,
    "rational": rational,
    "bessel": bessel,
}


def load(params: Any, ctx: Any) -> Instance:
    """x uniform on [-1, 1]^d, drawn anew for each seed; y scaled by mean and deviation of the exact train targets.

    Noise is normal, its deviation a share `noise` of that deviation, and stands on the train targets alone: rmse is the
    distance from the function itself, in deviations of the target.
    """
    function, inputs = FUNCTIONS[params.function], params.inputs
    sizes = {"train": params.items, "validation": params.items, "test": params.items}
    rng = ctx.rng("split/data")
    x = {part: rng.uniform(-1, 1, (n, inputs)) for part, n in sizes.items()}
    y = {part: function(rows)[:, None] for part, rows in x.items()}
    mean, deviation = y["train"].mean(), y["train"].std()
    y = {part: (values - mean) / deviation for part, values in y.items()}
    y["train"] = y["train"] + params.noise * rng.standard_normal(y["train"].shape)
    made = {part: {"x": tensor(x[part], ctx), "y": tensor(y[part], ctx)} for part in sizes}
    train = made.pop("train")
    return Instance(Regress(train["x"].to(ctx.device), train["y"].to(ctx.device), (inputs,), outputs=1), made)


def tensor(array: Array, ctx: Any) -> torch.Tensor:
    return torch.from_numpy(array).to(ctx.dtype)


def score(part: Mapping[str, Any], solution: Any, params: Any, ctx: Any) -> dict[str, float]:
    """rmse of a held part in float64, in deviations of the target; NaN where a prediction is not finite."""
    predicted = solution.predict(part["x"].to(ctx.device)).double()
    targets = part["y"].to(predicted.device, torch.float64)
    if predicted.shape != targets.shape:
        raise HarnessError(f"predict gave shape {tuple(predicted.shape)}; give {tuple(targets.shape)}")
    return {"rmse": float((predicted - targets).square().mean().sqrt())}
