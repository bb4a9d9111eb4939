"""What a trained net says of held items one at a time and together, and what a step of its training costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.lab import Unsupported, count_step, eval_mode

TOGETHER = 1000  # items; of fewer, all


def measure_batches(held_part: Mapping[str, Any], solution: Any, ctx: Any) -> dict[str, float]:
    """Accuracy with each item alone in its batch, and with batches of 1,000 items, of held_part["x"].

    Equal for a net that looks at each item alone. Raises Unsupported for a solution without a module.
    """
    net = net_of(solution)
    like = next(net.parameters())
    x, y = held_part["x"].to(like.device, like.dtype), held_part["y"].to(like.device)
    return {
        "single_accuracy": accuracy(net, x, y, 1),
        "together_accuracy": accuracy(net, x, y, TOGETHER),
    }


def accuracy(net: nn.Module, x: Tensor, y: Tensor, batch: int) -> float:
    """The share of right answers, in batches of so many items."""
    with torch.no_grad(), eval_mode(net):
        right = [
            (net(items).argmax(dim=1) == labels).sum() for items, labels in zip(x.split(batch), y.split(batch), strict=True)
        ]
    return float(torch.stack(right).sum()) / len(x)


def measure_flops(held_part: Mapping[str, Any], solution: Any, ctx: Any) -> dict[str, float]:
    """FLOPs of training on one item: forward pass, loss and backward pass of a batch of the trial's size, over its items.

    Raises Unsupported for a solution without a module.
    """
    batch = int((ctx.train or {}).get("batch", 64))
    return {"item_flops": count_step(net_of(solution), tuple(held_part["x"].shape[1:]), batch).flops / batch}


def net_of(solution: Any) -> nn.Module:
    net = getattr(solution, "module", None)
    if not isinstance(net, nn.Module):
        raise Unsupported("the solution has no `module`; this probe is for components in a reference net")
    return net
