"""How much a trained spiking net fires, what that costs, and its two drawings. Probes of the `classify` track."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import Series
from harness.lab import Unsupported, eval_mode
from harness_papers.ei_snn.layers import Circuit, Weights, project
from harness_papers.ei_snn.nets import Net, Spiking
from harness_papers.ei_snn.pictures import draw_raster, draw_rates

CHUNK = 256  # items a forward pass
DRAWN_ITEMS, DRAWN_UNITS = 10, 24  # of a raster, and of each layer in it


@dataclass
class Activity:
    """Of one layer of neurons. rates: (units,), spikes a step and item; a unit of a convolution is a channel at a position.

    silent: the share of units, of channels in a convolution, that never fired.
    """

    name: str
    rates: Tensor
    silent: float

    @property
    def rate(self) -> float:
        return self.rates.mean().item()


def measure_activity(held_part: Mapping[str, Any], solution: Any, ctx: Any) -> dict[str, float | Series]:
    """Of all items of held_part["x"], in evaluation.

    firing_rate: spikes a unit, step and item; layer_rate: of each layer. dead_units: the share of units (of channels in
    convolutions) that no item makes fire; layer_dead: of each layer. synaptic_ops: additions that an item's spikes make at
    synapses; macs: products of real numbers an item: of the first layer where its input is no spike, counted once where all
    steps are equal, of means over spikes, which pools make, and of W_EI. above_chance: 1 where more than twice as many items
    are right as by chance.
    Raises Unsupported for a solution that is no net of this paper.
    """
    net = net_of(solution)
    layers, (events, macs) = look(net, held_part["x"])
    logits = solution.predict(held_part["x"])
    accuracy = (logits.argmax(dim=1) == held_part["y"].to(logits.device)).double().mean().item()
    units = [len(layer.rates) for layer in layers]
    axis = tuple(range(1, len(layers) + 1))
    return {
        "firing_rate": sum(layer.rates.sum().item() for layer in layers) / sum(units),
        "dead_units": sum(layer.silent * n for layer, n in zip(layers, units, strict=True)) / sum(units),
        "synaptic_ops": events,
        "macs": macs,
        "above_chance": float(accuracy > 2 / held_part["classes"]),
        "layer_rate": Series("layer", axis, tuple(layer.rate for layer in layers)),
        "layer_dead": Series("layer", axis, tuple(layer.silent for layer in layers)),
    }


def draw_activity(held_part: Mapping[str, Any], solution: Any, ctx: Any) -> dict[str, float]:
    """Keep raster.svg, of a few items, and firing-rates.svg, of all, with the record, once a trial.

    raster_spikes: spikes in the raster. Raises Unsupported as `measure_activity` does.
    """
    net, x = net_of(solution), held_part["x"]
    rows = [(name, spread(spikes)) for name, spikes in spikes_of(net, x[:DRAWN_ITEMS])]
    if not any(blob["name"] == "raster.svg" for blob in ctx.blobs):
        layers, _ = look(net, x)
        ctx.save("raster.svg", draw_raster(rows, net.encoder.steps).encode(), "image/svg+xml")
        told = [(layer.name, sorted(layer.rates.tolist()), layer.silent) for layer in layers]
        ctx.save("firing-rates.svg", draw_rates(told).encode(), "image/svg+xml")
    return {"raster_spikes": float(sum(spikes.sum().item() for _, spikes in rows))}


def net_of(solution: Any) -> Net:
    module = getattr(solution, "module", None)
    if not isinstance(module, Net):
        raise Unsupported("this probe reads the spikes of ei-snn, bn-snn and plain-snn; the solution is none of these nets")
    return module


# Looking ----------------------------------------------------------------------------------------------------------------


def look(net: Net, x: Tensor) -> tuple[list[Activity], tuple[float, float]]:
    """What each layer of neurons does on items x (N, ...), and (synaptic_ops, macs) of an item."""
    totals: dict[str, Tensor] = {}
    ever: dict[str, Tensor] = {}
    spent = torch.zeros(2, dtype=torch.float64)
    for part in x.split(CHUNK):
        with OperationCount(net) as work:
            for name, spikes in spikes_of(net, part):
                fired = spikes.double().sum(dim=(0, 1))
                totals[name] = totals.get(name, 0) + fired
                channel = fired.flatten(1).sum(dim=1) if fired.ndim > 1 else fired
                ever[name] = ever.get(name, False) | (channel > 0)
        spent += work.spent
    draws = len(x) * net.encoder.steps
    layers = [Activity(name, fired.flatten() / draws, 1 - ever[name].double().mean().item()) for name, fired in totals.items()]
    events, macs = (spent / len(x)).tolist()
    return layers, (events, macs)


def spikes_of(net: Net, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(name, spikes (T, B, ...)) of each layer of neurons for items x, one forward pass; in the order of the pass."""
    kept: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda part, given, out: kept.append(out)) for layer in net.spiking_layers()]
    like = next(net.parameters())
    try:
        with torch.no_grad(), eval_mode(net):
            net(x.to(like.device, like.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    yield from ((f"layer {number}", spikes) for number, spikes in enumerate(kept, 1))


class OperationCount:
    """Inside `with OperationCount(net) as work:` work.spent (synaptic_ops, macs) grows by what the net's synapses do."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.spent = torch.zeros(2, dtype=torch.float64)

    def __enter__(self) -> OperationCount:
        real = first_synapses(self.net) if self.net.encoder.coding == "direct" else None
        self.hooks = [
            part.register_forward_pre_hook(lambda part, given: self.add(part, given[0], part is real))
            for part in self.net.modules()
            if isinstance(part, Weights | Circuit)
        ]
        return self

    def __exit__(self, *told: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def add(self, layer: Weights | Circuit, x: Tensor, real: bool) -> None:
        additions, products = operations(layer, x)
        self.spent += torch.tensor([0.0, additions + products] if real else [additions, products], dtype=torch.float64)


def first_synapses(net: Net) -> nn.Module:
    """What the encoder feeds."""
    return next(part.synapses for part in net.layers.modules() if isinstance(part, Spiking))


def operations(layer: Weights | Circuit, x: Tensor) -> tuple[float, float]:
    """(additions, products) of one layer on rows x: synapses that a spike reaches; those that another number but 0 reaches.

    With the latter, products of W_EI, once for each use of it.
    """
    weight = layer.inputs if isinstance(layer, Circuit) else layer.weight
    spikes, numbers = x == 1, (x != 0) & (x != 1)
    if x.ndim > 2:
        window = torch.ones(1, 1, *weight.shape[2:], dtype=x.dtype, device=x.device)
        spikes, numbers = (
            project(found.to(x.dtype).sum(dim=1, keepdim=True), window, layer.stride) for found in (spikes, numbers)
        )
    mixed = 0
    if isinstance(layer, Circuit):
        positions = len(x) if x.ndim == 2 else spikes.numel()
        mixed = positions * layer.inhibitory * layer.excitatory * (1 if layer.output else 2)
    additions, products = (found.double().sum().item() * len(weight) for found in (spikes, numbers))
    return additions, products + float(mixed)


def spread(spikes: Tensor) -> Tensor:
    """(T, B, ...) -> (units, B T): some units, evenly chosen, with the items one after the other."""
    flat = spikes.flatten(2)
    chosen = torch.linspace(0, flat.shape[2] - 1, min(DRAWN_UNITS, flat.shape[2])).round().long().to(flat.device)
    return flat[:, :, chosen].permute(2, 1, 0).flatten(1).cpu()
