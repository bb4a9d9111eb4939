"""What the learners cost: trained numbers, and FLOPs of training on one item, as harness.lab counts them for a net.

The real module and its loss run one step on the meta device, which computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from harness.lab import FlopCount, count_params
from harness_papers.noprop.baselines import Chain, Ensemble, NeuralODE
from harness_papers.noprop.learners import Continuous, Discrete, Flow, spec_of

Cost = dict[str, Any]


def cost_of(kind: Callable[..., Any], shape: Mapping[str, int], params: Any, *, time: bool = False, z: bool = True) -> Cost:
    """See `Learner.cost`. Raises Unsupported for parameters that do not go together."""
    inputs = inputs_of(shape)
    module = kind(spec_of(shape, params, inputs, time, z), params).to("meta", torch.float32).train()
    batch = min(params.batch, shape.get("train_items", params.batch))
    x = torch.zeros(batch, *inputs, device="meta")
    y = torch.zeros(batch, dtype=torch.int64, device="meta")
    with FlopCount() as count:
        module.loss(module(x), y).backward()
    return {
        "params": count_params(module), "flops": count.flops / batch, "counted": count.counted,
        "uncounted": sorted(count.uncounted),
    }  # fmt: skip


def cost_adjoint(shape: Mapping[str, int], params: Any) -> Cost:
    """Without FLOPs: the solver decides by values how it goes on, and the meta device has none."""
    module = NeuralODE(spec_of(shape, params, inputs_of(shape), time=True), params)
    return {"params": count_params(module), "no_flops": "torchdiffeq does not run on the meta device"}


def inputs_of(shape: Mapping[str, int]) -> tuple[int, ...]:
    """Of one item, from the sizes that a task declares."""
    if {"channels", "height", "width"} <= set(shape):
        return shape["channels"], shape["height"], shape["width"]
    return (shape["inputs"],)


cost_discrete = partial(cost_of, Discrete)
cost_first_block = partial(cost_of, partial(Discrete, trained=1))
cost_chain = partial(cost_of, Chain)
cost_continuous = partial(cost_of, Continuous, time=True)
cost_flow = partial(cost_of, Flow, time=True)
cost_ensemble = partial(cost_of, Ensemble, z=False)
