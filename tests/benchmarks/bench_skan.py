"""What pruning and sharing save in S-KAN: `python -m tests.benchmarks.bench_skan [--quick] [--json]`.

pruned: a layer after pruning, outputs grouped by family, against the same layer as a hard gate over all eight families' layers,
one after the other. convolution: functions once a pixel and one convolution, against unfolding patches and the dense layer on
each.

A training step of the layer: forward and backward, input without gradient. One thread; process time, in turns (A B B A ...).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from harness_papers.kan.families import FAMILIES, BasisLayer, KanLayer
from harness_papers.skan.method import POOL, ConvLayer, SelectLayer, dense_maker
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.bench_noprop import Speed, in_turns, speed


def compare_pruned(inputs: int, outputs: int, batch: int, rounds: int) -> Speed:
    """Families drawn at random, as even as chance makes them."""
    generator = torch.Generator().manual_seed(0)
    grouped, gated = (SelectLayer(POOL, dense_maker(inputs, outputs, norm=None)) for _ in range(2))
    for a, b in zip(layers_of(grouped), layers_of(gated), strict=True):
        a.reset(generator)
        b.load_state_dict(a.state_dict())
    families = torch.randint(len(POOL), (outputs,), generator=generator)
    grouped.choose(families)
    hard = F.one_hot(families, len(POOL)).float()

    def one_after_the_other(x: Tensor) -> Tensor:
        return sum((layer(x) * hard[:, k] for k, layer in enumerate(layers_of(gated))), x.new_zeros(()))

    x = torch.randn(batch, inputs, generator=generator)
    torch.testing.assert_close(grouped(x), one_after_the_other(x), rtol=1e-4, atol=1e-4)
    what = f"pruned layer, {inputs} -> {outputs}, batch {batch}"
    return speed(what, *in_turns(stepper(gated, one_after_the_other, x), stepper(grouped, grouped, x), rounds), goal=None)


def compare_convolution(family: str, side: int, batch: int, rounds: int) -> Speed:
    """8 to 16 channels, 3x3, images of side x side."""
    generator = torch.Generator().manual_seed(0)
    conv = ConvLayer(FAMILIES[family], 8, 16)
    conv.reset(generator)
    dense = BasisLayer(conv.family, 72, 16, norm=False)
    with torch.no_grad():
        # Patches are ordered (channel, row, column), a channel's functions last.
        dense.weight.copy_(conv.weight.view(16, 8, -1, 9).transpose(2, 3).reshape(16, -1))
        for name in ("base", "bias"):
            if getattr(conv, name) is not None:
                getattr(dense, name).copy_(getattr(conv, name).flatten(1) if name == "base" else conv.bias)

    def unfolded(x: Tensor) -> Tensor:
        patches = F.unfold(x.permute(0, 3, 1, 2), 3, padding=1).transpose(1, 2)
        return dense(patches).view(*x.shape[:3], 16)

    x = torch.randn(batch, side, side, 8, generator=generator)
    torch.testing.assert_close(conv(x), unfolded(x), rtol=1e-4, atol=1e-4)
    what = f"convolution 8 -> 16 of {family}, {side}x{side}, batch {batch}"
    return speed(what, *in_turns(stepper(dense, unfolded, x), stepper(conv, conv, x), rounds), goal=None)


def layers_of(select: SelectLayer) -> list[KanLayer]:
    return list(select.layers.values())


def stepper(module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    def step() -> None:
        module.zero_grad(set_to_none=True)
        forward(x).square().sum().backward()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and two rounds, to see that it runs")
    parser.add_argument("--json", action="store_true", help="one object a line, for programs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        found = [compare_pruned(3, 4, 16, 2), compare_convolution("gram", 6, 2, 2)]
    else:
        found = [
            compare_pruned(8, 8, 1000, 40),
            compare_pruned(64, 64, 256, 20),
            compare_pruned(784, 64, 256, 10),
            *(compare_convolution(family, 14, 64, 10) for family in ("b-spline", "fastkan", "chebyshev")),
        ]
    for figure in found:
        if options.json:
            print(json.dumps(asdict(figure)))
            continue
        low, high = np.quantile(figure.ratios, [0.25, 0.75])
        times = f"{1e3 * figure.slow_s:.3g} -> {1e3 * figure.fast_s:.3g} ms"
        print(f"{figure.what}: {times}, {figure.ratio:.2f} times, quartiles {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
