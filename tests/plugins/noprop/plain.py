"""The paper's blocks in torch's own layers, one module a block, items first: the oracle, and the loop to be faster than.

Written from the figure, not from the plugin's code. `plain_copies` gives them the values of a stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from harness_papers.noprop.blocks import Blocks, BlockSpec
from torch import Tensor, nn

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "none": lambda features: nn.Identity(),
}


class PlainBlock(nn.Module):
    """(x, z, t) -> logits (B, classes). t (B,) only where the spec has a time."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        w, norm = spec.width, NORMS[spec.norm]
        self.spec = spec
        drop = nn.Dropout(spec.dropout)
        if spec.kind == "image":
            channels, height, rows = spec.inputs
            c1, c2, c3 = w // 8, w // 4, w // 2
            self.see = nn.Sequential(
                nn.Conv2d(channels, c1, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), drop,
                nn.Conv2d(c1, c2, 3, padding=1), nn.ReLU(), drop,
                nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), drop,
                nn.Flatten(), nn.Linear(c3 * (height // 4) * (rows // 4), w), norm(w),
            )  # fmt: skip
        else:
            self.see = nn.Sequential(
                nn.Flatten(), nn.Linear(math.prod(spec.inputs), w), nn.ReLU(), drop, nn.Linear(w, w), norm(w)
            )
        if spec.time:
            self.read = nn.Sequential(nn.Linear(spec.dims, w), nn.ReLU())
            self.branch = None
            self.clock = nn.Sequential(nn.Linear(64, w), nn.ReLU())
        else:
            self.read = nn.Sequential(nn.Linear(spec.dims, w), norm(w), nn.ReLU())
            self.branch = nn.Sequential(nn.Linear(w, w), norm(w), nn.ReLU(), nn.Linear(w, w), norm(w))
        joined = (3 if spec.time else 2) * w
        self.head = nn.Sequential(
            nn.Linear(joined, w), norm(w), nn.ReLU(),
            nn.Linear(w, w // 2), norm(w // 2), nn.ReLU(),
            nn.Linear(w // 2, spec.classes),
        )  # fmt: skip

    def forward(self, x: Tensor, z: Tensor, t: Tensor | None = None) -> Tensor:
        read = self.read(z)
        if self.branch is not None:
            read = read + self.branch(read)
        parts = [self.see(x), read]
        if t is not None:
            angles = 1000 * t[:, None] * torch.exp(-math.log(10_000) * torch.arange(32, dtype=t.dtype) / 32)
            parts.append(self.clock(torch.cat([angles.sin(), angles.cos()], dim=1)))
        return self.head(torch.cat(parts, dim=1))


def layers_of(block: PlainBlock) -> dict[str, nn.Module]:
    """The layers with parameters, by the names of the stack; the head's first is three there."""
    weighted = [m for m in block.see if isinstance(m, nn.Conv2d | nn.Linear)]
    names = ["conv1", "conv2", "conv3", "x"] if block.spec.kind == "image" else ["x1", "x"]
    found: dict[str, nn.Module] = dict(zip(names, weighted, strict=True))
    found |= {"z": block.read[0], "head1": block.head[3], "head2": block.head[6]}
    if block.branch is None:
        return found | {"t": block.clock[0]}
    return found | {"z1": block.branch[0], "z2": block.branch[3]}


def norms_of(block: PlainBlock) -> dict[str, nn.Module]:
    """The norms by the names of the stack."""
    if block.spec.norm == "none":
        return {}
    found = {"x": block.see[-1], "head": block.head[1], "head1": block.head[4]}
    if block.branch is None:
        return found
    return found | {"z": block.read[1], "z1": block.branch[1], "z2": block.branch[4]}


def values_of(block: PlainBlock, read: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """read(parameter), the value or its gradient, of each tensor, in the shapes and under the names of the stack."""
    w = block.spec.width
    made = {}
    for name, layer in layers_of(block).items():
        made |= {f"{name}_weight": read(layer.weight), f"{name}_bias": read(layer.bias)[:, None]}
    joined = read(block.head[0].weight).split(w, dim=1)
    made |= dict(zip(("head_x_weight", "head_z_weight", "head_t_weight"), joined, strict=False))
    made["head_x_bias"] = read(block.head[0].bias)[:, None]
    for name, norm in norms_of(block).items():
        made |= {f"{name}_scale": read(norm.weight)[:, None], f"{name}_shift": read(norm.bias)[:, None]}
    return made


def plain_copies(blocks: Blocks) -> list[PlainBlock]:
    """One plain block for each of the stack, with its values."""
    made = []
    for t in range(blocks.count):
        block = PlainBlock(blocks.spec).to(next(blocks.parameters()).dtype)
        with torch.no_grad():
            for name, own in values_of(block, lambda p: p).items():
                source = getattr(blocks, name)[t]
                own.copy_(source)
        made.append(block)
    return made
