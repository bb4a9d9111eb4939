"""What a net costs, found without allocating it: parameters, and FLOPs of a training step.

Counted are the forward pass, the loss and the backward pass of one batch of the real module (`harness.lab.flops` says how), on
the meta device. The optimiser's step is not: it is the same for all components but optimizers, which so have no FLOPs here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.lab.component import ComponentUse
from harness.lab.flops import FlopCount
from harness.lab.nets import build_net
from harness.lab.problems import image_shape
from harness.nets import Net, Train

Loss = Callable[[Tensor, Tensor], Tensor]
PROBE = 2  # items: the least that batch norm accepts in training


def cost_component(
    shape: Mapping[str, int],
    net: Net | Mapping[str, object],
    train: Train | Mapping[str, object],
    component: ComponentUse,
    *,
    labels: bool = True,
) -> dict[str, Any]:
    """{"params": trained numbers, "flops": FLOPs of training on one item, ...} of the net around a component.

    shape: as `Task.shape`.   net, train: these, or their fields; of train only `batch` is read.   labels: whether targets are
    class labels (cross-entropy) or numbers (squared error). "counted" and "uncounted": as in `FlopCount`. Where the step cannot
    be counted, "no_flops" says why in their place.
    Raises Unsupported as `build_net` does.
    """
    net = net if isinstance(net, Net) else Net.model_validate(dict(net))
    train = train if isinstance(train, Train) else Train.model_validate(dict(train))
    module = build_net(net, shape, component, device="meta")
    batch = min(train.batch, shape.get("train_items", train.batch))
    cost: dict[str, Any] = {"params": count_params(module)}
    if component.kind == "optimizer":
        return cost | {"no_flops": "an optimizer's own step is not counted"}
    loss = component.build(component.params) if component.kind == "loss" else None
    try:
        step = count_step(module, image_shape(shape) or (shape["inputs"],), batch, labels=labels, loss=loss)
    except Exception as exc:  # a component's code: its parameters are known all the same
        return cost | {"no_flops": f"{type(exc).__name__}: {exc}"}
    return cost | {"flops": step.flops / batch, "counted": step.counted, "uncounted": sorted(step.uncounted)}


cost_regressor = partial(cost_component, labels=False)


def count_params(module: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def forward_flops(module: nn.Module, inputs: tuple[int, ...]) -> int:
    """FLOPs of one item's forward pass. inputs: the shape of one item. The module may be on any device, meta included."""
    module = copy.deepcopy(module).to("meta")
    count = FlopCount()
    with torch.no_grad(), count:
        module(_items(module, inputs, PROBE))
    return count.flops // PROBE


def count_step(
    module: nn.Module, inputs: tuple[int, ...], batch: int, *, labels: bool = True, loss: Loss | None = None
) -> FlopCount:
    """Forward pass, loss and backward pass of one batch, on a copy of the module on the meta device.

    loss: (outputs, targets) -> scalar; cross-entropy or squared error unless given.
    """
    module = copy.deepcopy(module).to("meta").train()
    loss = copy.deepcopy(loss).to("meta") if isinstance(loss, nn.Module) else loss
    x = _items(module, inputs, batch)
    count = FlopCount()
    with count:
        out: Tensor = module(x)
        targets = torch.zeros(batch, dtype=torch.int64, device="meta") if labels else torch.empty_like(out)
        (loss or (F.cross_entropy if labels else F.mse_loss))(out, targets).backward()
    return count


def train_flops(
    module: nn.Module, inputs: tuple[int, ...], batch: int, *, labels: bool = True, loss: Loss | None = None
) -> int:
    """FLOPs of one training step, as `count_step` finds them: what a step spends on the clock `flops`."""
    return count_step(module, inputs, batch, labels=labels, loss=loss).flops


def _items(module: nn.Module, inputs: tuple[int, ...], batch: int) -> Tensor:
    first = next(module.parameters(), None)
    return torch.zeros(batch, *inputs, device="meta", dtype=None if first is None else first.dtype)
