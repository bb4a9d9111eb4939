"""What the learners cost, counted from the declared layers: trained numbers, and FLOPs of one item's inference.

A multiply-add is 2. Counted as harness.lab counts: matrix products and convolutions, nothing elementwise. Nothing is built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness_papers.noprop.blocks import Blocks, BlockSpec, reads_item
from harness_papers.noprop.learners import spec_of
from harness_papers.noprop.method import Schedule

Cost = dict[str, Any]
# A match needs FLOPs of training, forward and backward, elements too: these are neither.
NO_FLOPS = "what is counted is inference, not training"


def cost_discrete(shape: Mapping[str, int], params: Any) -> Cost:
    return chain_cost(shape, params, params.blocks, extra=0)


def cost_first_block(shape: Mapping[str, int], params: Any) -> Cost:
    return chain_cost(shape, params, 1, extra=0)


def cost_chain(shape: Mapping[str, int], params: Any) -> Cost:
    return chain_cost(shape, params, params.blocks, extra=params.blocks)  # the gates


def cost_ensemble(shape: Mapping[str, int], params: Any) -> Cost:
    spec = spec_of(shape, params, inputs_of(shape), z=False)
    flops = params.blocks * sum(block_flops(spec))
    return {"params": params.blocks * block_params(spec), "inference_flops": flops, "no_flops": NO_FLOPS}


def cost_continuous(shape: Mapping[str, int], params: Any) -> Cost:
    return timed_cost(shape, params, extra=2 + 3 * Schedule.HIDDEN if params.learn_schedule else 0)


def cost_flow(shape: Mapping[str, int], params: Any) -> Cost:
    return timed_cost(shape, params, readout=params.embedding != "one-hot")


def cost_adjoint(shape: Mapping[str, int], params: Any) -> Cost:
    """A step is taken as one call of the block, as Euler's method has it."""
    return timed_cost(shape, params)


def chain_cost(shape: Mapping[str, int], params: Any, blocks: int, extra: int) -> Cost:
    spec = spec_of(shape, params, inputs_of(shape))
    return {
        "params": blocks * block_params(spec) + code_params(spec, params.embedding) + extra,
        "no_flops": NO_FLOPS,
        "inference_flops": blocks * (sum(block_flops(spec)) + mixing(spec, params.embedding)) + 2 * spec.classes * spec.dims,
    }


def timed_cost(shape: Mapping[str, int], params: Any, extra: int = 0, readout: bool = True) -> Cost:
    spec = spec_of(shape, params, inputs_of(shape), time=True)
    seen, head = block_flops(spec)
    return {
        "params": block_params(spec) + code_params(spec, params.embedding, readout) + extra,
        "no_flops": NO_FLOPS,
        "inference_flops": seen + params.steps * (head + mixing(spec, params.embedding)) + 2 * spec.classes * spec.dims,
    }


def inputs_of(shape: Mapping[str, int]) -> tuple[int, ...]:
    """Of one item, from the sizes that a task declares."""
    if {"channels", "height", "width"} <= set(shape):
        return shape["channels"], shape["height"], shape["width"]
    return (shape["inputs"],)


def block_params(spec: BlockSpec) -> int:
    return sum(p.numel() for p in Blocks(spec, 1, "meta").parameters())


def block_flops(spec: BlockSpec) -> tuple[int, int]:
    """What is done once for an item, and what is done for each z. Times are the same for all items: they cost nothing here."""
    once, each = 0, 0
    for name, (weight, _) in spec.layers().items():
        flops = 2 * math.prod(weight)
        if name.startswith("conv"):
            pixels = math.prod(spec.inputs[1:]) if name == "conv1" else math.prod(side // 2 for side in spec.inputs[1:])
            flops *= pixels
        if reads_item(name):
            once += flops
        elif name not in ("t", "head_t"):
            each += flops
    return once, each


def code_params(spec: BlockSpec, embedding: str, readout: bool = True) -> int:
    own = 0 if embedding == "one-hot" else spec.classes * spec.dims
    return own + (spec.classes * (spec.dims + 1) if readout else 0)


def mixing(spec: BlockSpec, embedding: str) -> int:
    return 0 if embedding == "one-hot" else 2 * spec.classes * spec.dims
