"""An item as the input of a spiking net: scaled to [0, 1], then the same value at each step, or spikes.

In: x (B, ...). Out: (S, B, ...), S = T, or 1 where all T steps are equal. Nothing looks at the items beside an item.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Coding = Literal["direct", "rate", "latency"]


class Encoder(nn.Module):
    """Scales by the training part's lowest and highest value: of each channel of images (C, H, W), of each feature (F,).

    What lies beyond, in a held item, is cut off. A feature that is constant in training becomes 0.
    direct: the value itself, one step for all.   rate: a spike with the value as its probability.
    latency: one spike, the sooner the higher the value; none for 0.
    """

    def __init__(self, x: Tensor, steps: int, coding: Coding, generator: torch.Generator) -> None:
        """x: the training items.   generator: on the CPU, for the thresholds of `rate` outside of training."""
        super().__init__()
        self.steps, self.coding = steps, coding
        axes = (0, 2, 3) if x.ndim == 4 else (0,)
        low, high = x.amin(axes, keepdim=True)[0], x.amax(axes, keepdim=True)[0]
        self.low = nn.Buffer(low)
        self.scale = nn.Buffer(torch.where(high > low, 1 / (high - low).clamp_min(torch.finfo(x.dtype).tiny), 0.0))
        # The same for every item, so that a prediction is of the item alone and the same each time.
        drawn = torch.rand(steps, 1, *x.shape[1:], generator=generator) if coding == "rate" else torch.empty(0)
        self.thresholds = nn.Buffer(drawn.to(x.device, x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        x = ((x - self.low) * self.scale).clamp(0, 1).unsqueeze(0)
        if self.coding == "direct":
            return x
        if self.coding == "latency":
            return spike_times(x, self.steps)
        thresholds = torch.rand(self.steps, *x.shape[1:], dtype=x.dtype, device=x.device) if self.training else self.thresholds
        return (x > thresholds).to(x.dtype)


def spike_times(x: Tensor, steps: int) -> Tensor:
    """(1, B, ...) in [0, 1] -> (T, B, ...): 1 at step floor((1 - x) T), at the last one at the latest; never where x is 0."""
    at = ((1 - x) * steps).floor_().clamp_(max=steps - 1)
    step = torch.arange(steps, dtype=x.dtype, device=x.device).view(-1, *[1] * (x.ndim - 1))
    return ((step == at) & (x > 0)).to(x.dtype)
