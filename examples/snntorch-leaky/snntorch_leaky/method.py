"""A neuron of snntorch, driven by a constant input for some time steps; its firing rate is the activation."""

import snntorch
import torch
from snntorch.surrogate import ATan
from torch import nn


def surrogate(x: torch.Tensor) -> torch.Tensor:
    """The library's default gradient. Its own `atan()` is a function inside a function, and such a net cannot be pickled."""
    return ATan.apply(x, 2.0)


class FiringRate(nn.Module):
    """x -> spikes / steps, elementwise, in [0, 1]; gradients by snntorch's surrogate. Keeps x's shape, dtype and device."""

    def __init__(self, beta: float, threshold: float, steps: int) -> None:
        super().__init__()
        # On the CPU whatever device is the default: when it is made, the library asks a tensor for its value.
        with torch.device("cpu"):
            self.neuron = snntorch.Leaky(beta=beta, threshold=threshold, spike_grad=surrogate)
        self.steps = steps
        self.forget()

    def forget(self) -> None:
        """The library keeps the last potential, of the last batch's shape, among the weights: it is no weight."""
        self.neuron.mem = self.neuron.threshold.new_zeros(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        potential, spikes = torch.zeros_like(x), torch.zeros_like(x)
        for _ in range(self.steps):
            spike, potential = self.neuron(x, potential)
            spikes = spikes + spike
        self.forget()
        return spikes / self.steps


def build(place, params) -> nn.Module:
    return FiringRate(params.beta, params.threshold, params.steps)
