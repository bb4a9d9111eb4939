"""Supervised problems and what solves them: the `classify` and `regress` tracks' problem and solution types.

A problem is all that a method may see: the training part. Held parts stay with the task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Classify:
    """Training items with labels.

    x: (N, F) or (N, C, H, W), floating point, standardised by the task.   y: (N,), int64, labels in [0, classes).
    inputs: the shape of one item, (F,) or (C, H, W).
    """

    x: Tensor
    y: Tensor
    classes: int
    inputs: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_items("Classify", self.x, self.y, self.inputs)
        if self.y.ndim != 1 or self.y.dtype != torch.int64:
            raise ValueError(f"Classify: y has shape {tuple(self.y.shape)} and dtype {self.y.dtype}; give labels (N,), int64")

    @property
    def shape(self) -> dict[str, int]:
        """The sizes that a net is built from, named as in `Task.shape`."""
        return {**_input_shape(self.inputs), "outputs": self.classes, "train_items": len(self.x)}


@dataclass(frozen=True)
class Regress:
    """Training items with targets.

    x: (N, F) or (N, C, H, W), floating point.   y: (N, outputs), floating point.   inputs: the shape of one item.
    """

    x: Tensor
    y: Tensor
    inputs: tuple[int, ...]
    outputs: int

    def __post_init__(self) -> None:
        _check_items("Regress", self.x, self.y, self.inputs)
        if tuple(self.y.shape[1:]) != (self.outputs,) or not self.y.is_floating_point():
            raise ValueError(
                f"Regress: y has shape {tuple(self.y.shape)} and dtype {self.y.dtype}; give (N, {self.outputs}), floating point"
            )

    @property
    def shape(self) -> dict[str, int]:
        """The sizes that a net is built from, named as in `Task.shape`."""
        return {**_input_shape(self.inputs), "outputs": self.outputs, "train_items": len(self.x)}


@runtime_checkable
class Predictor(Protocol):
    """A solution of a Classify problem."""

    def predict(self, x: Tensor) -> Tensor:
        """Logits (N, classes) for x (N, ...); changes nothing that a later call could see."""
        ...


@runtime_checkable
class Regressor(Protocol):
    """A solution of a Regress problem."""

    def predict(self, x: Tensor) -> Tensor:
        """Targets (N, outputs) for x (N, ...); changes nothing that a later call could see."""
        ...


def image_shape(shape: Mapping[str, int]) -> tuple[int, int, int] | None:
    """(channels, height, width) where the task's items are images, else None."""
    if not {"channels", "height", "width"} <= set(shape):
        return None
    return shape["channels"], shape["height"], shape["width"]


def _input_shape(inputs: tuple[int, ...]) -> dict[str, int]:
    flat = {"inputs": math.prod(inputs)}
    if len(inputs) != 3:
        return flat
    return {**flat, **dict(zip(("channels", "height", "width"), inputs, strict=True))}


def _check_items(kind: str, x: Tensor, y: Tensor, inputs: tuple[int, ...]) -> None:
    if tuple(x.shape[1:]) != tuple(inputs):
        raise ValueError(f"{kind}: x has items of shape {tuple(x.shape[1:])}, inputs says {tuple(inputs)}; make them agree")
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{kind}: {len(x)} items in x, {len(y)} in y; give one y for each of at least one item")
