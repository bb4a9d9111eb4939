"""Small networks to try `harness certify` on: untrained, the same each time."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaxMin(nn.Module):
    """Each pair of neighbouring units in descending order."""

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.reshape(len(x), -1, 2)
        return torch.stack([pairs.amax(2), pairs.amin(2)], dim=2).reshape(x.shape)


def relu_net() -> nn.Module:
    """8-16-16-4."""
    return drawn(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)))


def maxmin_net() -> nn.Module:
    """The same sizes with MaxMin."""
    return drawn(nn.Sequential(nn.Linear(8, 16), MaxMin(), nn.Linear(16, 16), MaxMin(), nn.Linear(16, 4)))


def convolutional_net() -> nn.Module:
    """On 1 x 6 x 6 images: two convolutions, average pooling, a linear layer."""
    body = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    return drawn(nn.Sequential(*body, nn.Flatten(), nn.Linear(36, 3)))


def drawn(net: nn.Module) -> nn.Module:
    """Weights of a generator of their own, whatever was seeded outside."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            inputs = p[0].numel() if p.ndim > 1 else 1
            p.copy_(torch.randn(p.shape, generator=generator) / inputs**0.5 * (1.0 if p.ndim > 1 else 0.1))
    return net
