"""What classify and regress tasks share: rows into parts, parts into standardised tensors, predictions in chunks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.builtin.tasks import Moons, Parity, Sines, set_name, sizes_of
from harness.context import Context
from harness.data.arrays import Array, Arrays
from harness.data.generated import draw
from harness.data.splits import Parts, split
from harness.data.store import load
from harness.errors import HarnessError
from harness.lab.problems import Predictor, Regressor

CHUNK = 1000  # items a call of `predict`: bounds the memory of a scoring


def arrays_of(name: str, params: Any, ctx: Context) -> Arrays:
    """The task's data: a set by name, or fresh rows of a generated one from the trial's stream "split/data"."""
    if isinstance(params, Moons | Sines):
        return draw(name, ctx.rng("split/data"), params.items, noise=params.noise)
    if isinstance(params, Parity):
        rng = ctx.rng("split/data")
        return draw(name, rng, params.items, bits=params.bits, order=params.order, noise=params.noise)
    return load(set_name(name, params))


def parts_of(name: str, params: Any, arrays: Arrays, ctx: Context) -> Parts:
    """The rows of each part, drawn by the stream "split", which is closed in solve."""
    labels = arrays.y if arrays.classes is not None else None
    return split(sizes_of(name, params), len(arrays.x), arrays.test_items, labels, ctx.rng("split"))


def inputs_of(arrays: Arrays, parts: Parts, standardize: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """x of each part that is not empty, on the CPU: raw, or scaled by the train part's mean and deviation."""
    scaled = scale_images if arrays.x.dtype == np.uint8 else scale_features
    named = {part: rows for part, rows in parts._asdict().items() if len(rows)}
    if not standardize:
        return {part: to_tensor(arrays.x[rows], dtype) for part, rows in named.items()}
    return scaled(arrays.x, named, dtype)


def scale_features(x: Array, parts: dict[str, Array], dtype: torch.dtype) -> dict[str, Tensor]:
    """(N, F): a mean and a deviation a feature; (N, C, H, W): a channel. Constant ones become 0."""
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    train = x[parts["train"]].astype(np.float64, copy=False)
    mean, deviation = train.mean(axis=axes, keepdims=True), train.std(axis=axes, keepdims=True)
    # Not `== 0`: the deviation of a constant column is a rounding error, and dividing by that would blow the column up.
    constant = deviation <= 1e-12 * np.maximum(np.abs(mean), 1.0)
    deviation = np.where(constant, 1.0, deviation)
    return {part: to_tensor((x[rows] - mean) / deviation, dtype) for part, rows in parts.items()}


def scale_images(x: Array, parts: dict[str, Array], dtype: torch.dtype) -> dict[str, Tensor]:
    """(N, C, H, W) uint8: a mean and a deviation a channel, exact from sums of integers.

    Never a float64 copy of all pixels: 60,000 colour images would take 1.5 GB.
    """
    precision = np.float64 if dtype == torch.float64 else np.float32
    train = x[parts["train"]]
    moments = np.array([level_moments(train[:, channel]) for channel in range(x.shape[1])], precision)
    mean, deviation = moments.T.reshape(2, -1, 1, 1)
    scaled = {}
    for part, rows in parts.items():
        levels: Array = x[rows].astype(precision)
        np.subtract(levels, mean, out=levels)
        np.divide(levels, deviation, out=levels)
        scaled[part] = to_tensor(levels, dtype)
    return scaled


def level_moments(levels: Array) -> tuple[float, float]:
    """Mean and deviation of uint8 levels; 1 for a deviation of 0, so that a constant channel becomes 0."""
    n, total = levels.size, int(levels.sum(dtype=np.int64))
    squares = int(np.square(levels, dtype=np.uint16).sum(dtype=np.int64))
    # In integers, so nothing is lost in the difference.
    variance = (n * squares - total**2) / n**2
    return total / n, math.sqrt(variance) or 1.0


def to_tensor(array: Array, dtype: torch.dtype) -> Tensor:
    """A CPU tensor; it shares the array's memory, which must be the caller's own."""
    return torch.from_numpy(array).to(dtype)


def predict_all(solution: Predictor | Regressor, x: Tensor, outputs: int, ctx: Context) -> Tensor:
    """(N, outputs) float64 on the trial's device, from chunks of x. Raises HarnessError for any other shape."""
    chunks = []
    for part in torch.split(x, CHUNK):
        predicted = solution.predict(part.to(ctx.device))
        if tuple(predicted.shape) != (len(part), outputs):
            raise HarnessError(
                f"predict gave shape {tuple(predicted.shape)} for {len(part)} items; give ({len(part)}, {outputs})"
            )
        chunks.append(predicted.detach().to(ctx.device, torch.float64))
    return torch.cat(chunks)
