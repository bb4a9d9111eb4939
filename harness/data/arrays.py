"""What a data set is once it is read: arrays, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set in memory; the arrays are read-only, because every trial of a server shares them.

    x: (N, F) float64 or (N, C, H, W) uint8 (float32 for a spectrogram), raw, not standardised; for a text (N,) uint8, the
    bytes in order.   y: (N,) int64 labels 0..classes-1, float64 targets where classes is None; empty for a text.
    test_items: so many rows at the end are the set's own test part; 0: it has none.
    """

    x: Array
    y: Array
    classes: int | None = None
    features: tuple[str, ...] = ()
    test_items: int = 0

    def __post_init__(self) -> None:
        for array in (self.x, self.y):
            array.setflags(write=False)

    @property
    def image(self) -> tuple[int, int, int] | None:
        """(channels, height, width), or None where rows are no images."""
        if self.x.ndim != 4:
            return None
        _, channels, height, width = self.x.shape
        return channels, height, width


def label_codes(labels: Array) -> tuple[Array, int]:
    """Labels as int64 codes 0..classes-1 in the order of their values, and how many classes there are."""
    values, codes = np.unique(labels, return_inverse=True)
    return codes.reshape(-1).astype(np.int64), len(values)
