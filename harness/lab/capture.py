"""What flows through a net: moments of the activations, layer by layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.lab.layers import Slot
from harness.lab.solution import eval_mode


class Moments(NamedTuple):
    """name: the slot's qualified name.   mean, var: over all items, positions and features of its output; var is biased."""

    name: str
    mean: float
    var: float


def layer_moments(module: nn.Module, x: Tensor) -> list[Moments]:
    """The moments behind every slot of a reference net, in the order of the forward pass, in eval mode on x (N, ...).

    Raises ValueError for a module without slots.
    """
    slots = {name: part for name, part in module.named_modules() if isinstance(part, Slot)}
    if not slots:
        raise ValueError(f"layer_moments: {type(module).__name__} has no slots; build it with harness.lab.build_net")
    found: list[Moments] = []

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            wide = output.double()
            found.append(Moments(name, float(wide.mean()), float(wide.var(unbiased=False))))

        return hook

    handles = [slot.register_forward_hook(keep(name)) for name, slot in slots.items()]
    try:
        with torch.no_grad(), eval_mode(module):
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return found
