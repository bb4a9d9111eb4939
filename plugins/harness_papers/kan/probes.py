"""The probe `kan-kernel`: by which code the B-spline layers of a net are computed. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness_papers.kan.layers import KANLinear

ITEMS = 2


def measure_kernel(held_part: Mapping[str, Any], solution: Any, ctx: Any) -> dict[str, float]:
    """{"fused_layers", "formula_layers"}: how many B-spline layers the fused code, or the formula, computes for these inputs.

    Both are 0 for a solution that has none, so that a suite may measure them beside other methods.
    """
    net = getattr(solution, "module", None)
    layers = [part for part in net.modules() if isinstance(part, KANLinear)] if isinstance(net, nn.Module) else []
    reasons: list[str] = []
    if layers:
        assert net is not None

        def note(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            assert isinstance(layer, KANLinear)
            reasons.append(layer.why_eager(given[0].flatten(0, -2)))

        handles = [layer.register_forward_hook(note) for layer in layers]
        try:
            first = next(layers[0].parameters())
            with torch.no_grad():
                net(held_part["x"][:ITEMS].to(first.device, first.dtype))
        finally:
            for handle in handles:
                handle.remove()
    return {"fused_layers": float(sum(not r for r in reasons)), "formula_layers": float(sum(bool(r) for r in reasons))}
