"""KANLayer as a module of (N, inputs) -> (N, outputs)."""

import torch
from kan.KANLayer import KANLayer
from torch import nn


class Layer(nn.Module):
    """The library's layer gives its inner values too; a net wants the outputs alone."""

    def __init__(self, inputs: int, outputs: int, grid: int, order: int, reach: float) -> None:
        super().__init__()
        # On the CPU whatever device is the default: it solves a least-squares problem when it is made.
        with torch.device("cpu"):
            self.layer = KANLayer(inputs, outputs, num=grid, k=order, grid_range=[-reach, reach])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


def build(in_features, out_features, params) -> nn.Module:
    return Layer(in_features, out_features, params.grid, params.order, params.reach)
