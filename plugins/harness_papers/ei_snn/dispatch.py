"""The probe `spiking-kernel`: by which code the neurons of a net are computed. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness_papers.ei_snn.fused import why_eager
from harness_papers.ei_snn.nets import Neuron
from harness_papers.ei_snn.neuron import neuron_of

ITEMS = 2


def measure_kernel(held_part: Mapping[str, Any], solution: Any, ctx: Any) -> dict[str, float]:
    """{"fused_neurons", "loop_neurons"}: how many layers' neurons the fused code, or the loop, computes for these inputs.

    Both are 0 for a solution that has none, so that a suite may measure them beside other methods.
    """
    net = getattr(solution, "module", None)
    found = [part for part in net.modules() if isinstance(part, Neuron)] if isinstance(net, nn.Module) else []
    reasons: list[str] = []
    if not found:
        return {"fused_neurons": 0.0, "loop_neurons": 0.0}
    assert net is not None

    def note(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(layer, Neuron)
        reasons.append(why_eager(given[0], neuron_of(**layer.settings)))

    handles = [layer.register_forward_hook(note) for layer in found]
    try:
        first = next(net.parameters())
        with torch.no_grad():
            net(held_part["x"][:ITEMS].to(first.device, first.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return {"fused_neurons": float(sum(not r for r in reasons)), "loop_neurons": float(sum(bool(r) for r in reasons))}
