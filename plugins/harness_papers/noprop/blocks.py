"""The paper's blocks, any number of them side by side: every parameter has a leading axis over the blocks.

In: items (B, ...), noised embeddings (T, d, B). Out: logits (T, classes, B). The items are the *last* axis, so that a layer of
all T blocks is one batched matrix product, their batch norms are one call, and nothing is copied between. T = 1 is one block.
Source: arXiv:2503.24322 v1, figure 6. Nothing here knows a loss or a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIME_FEATURES = 64
BN_MOMENTUM, EPS = 0.1, 1e-5

Part = Mapping[str, Tensor]  # parameters and buffers by name, each with the leading axis over blocks
Norm = Literal["batch", "layer", "none"]


def reads_item(name: str) -> bool:
    """Whether a layer or tensor of that name is used by `see`, once for an item, and by nothing else."""
    return name.startswith(("x", "conv", "head_x"))


@dataclass(frozen=True)
class BlockSpec:
    """One block. kind "image" is the paper's, for items (C, H, W); "mlp" has two affine layers in place of its convolutions.

    width: the paper's 256; the convolutions have width / 8, / 4 and / 2 channels, the last hidden layer width / 2 units.
    z: False leaves out all that reads z, which makes the block a plain classifier.   time: True reads a time too.
    """

    inputs: tuple[int, ...]
    classes: int
    dims: int
    width: int = 256
    kind: Literal["mlp", "image"] = "mlp"
    norm: Norm = "batch"
    dropout: float = 0.0
    z: bool = True
    time: bool = False

    def __post_init__(self) -> None:
        if self.width < 2 or (self.kind == "image" and self.width % 8):
            raise ValueError(f"width={self.width}: an image block needs a multiple of 8, an mlp block at least 2")
        if self.kind == "image" and (len(self.inputs) != 3 or min(self.inputs[1:]) < 4):
            raise ValueError(f"an image block needs items (C, H, W) of at least 4x4, got {self.inputs}; use block: mlp")

    def layers(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Name -> (shape of the weight, fan-in that its initial values go by)."""
        w = self.width
        if self.kind == "image":
            channels, height, rows = self.inputs
            c1, c2, c3 = w // 8, w // 4, w // 2
            flat = c3 * (height // 4) * (rows // 4)
            made = {"conv1": (c1, channels, 3, 3), "conv2": (c2, c1, 3, 3), "conv3": (c3, c2, 3, 3), "x": (w, flat)}
        else:
            made = {"x1": (w, math.prod(self.inputs)), "x": (w, w)}
        if self.z and self.time:
            made |= {"z": (w, self.dims), "t": (w, TIME_FEATURES)}
        elif self.z:
            made |= {"z": (w, self.dims), "z1": (w, w), "z2": (w, w)}
        # The head's first layer reads [x, z, t] joined. It is kept as one matrix for each, which add up to the same.
        joined = ["head_x"] + ["head_z"] * self.z + ["head_t"] * self.time
        fans = {name: math.prod(shape[1:]) for name, shape in made.items()} | {name: w * len(joined) for name in joined}
        made |= dict.fromkeys(joined, (w, w)) | {"head1": (w // 2, w), "head2": (self.classes, w // 2)}
        return {name: (shape, fans.get(name, math.prod(shape[1:]))) for name, shape in made.items()}

    def norms(self) -> dict[str, int]:
        """Name -> features of each norm."""
        if self.norm == "none":
            return {}
        after_z = {"z": self.width, "z1": self.width, "z2": self.width} if self.z and not self.time else {}
        return {"x": self.width, **after_z, "head": self.width, "head1": self.width // 2}


class Blocks(nn.Module):
    """`count` blocks of one spec. Parameters are named layer_weight, layer_bias, norm_scale, norm_shift."""

    def __init__(self, spec: BlockSpec, count: int) -> None:
        super().__init__()
        self.spec, self.count = spec, count
        for name, (shape, _) in spec.layers().items():
            self.register_parameter(f"{name}_weight", nn.Parameter(torch.empty(count, *shape)))
            if name not in ("head_z", "head_t"):
                self.register_parameter(f"{name}_bias", nn.Parameter(torch.empty(count, shape[0], 1)))
        for name, features in spec.norms().items():
            self.register_parameter(f"{name}_scale", nn.Parameter(torch.ones(count, features, 1)))
            self.register_parameter(f"{name}_shift", nn.Parameter(torch.zeros(count, features, 1)))
            if spec.norm == "batch":
                self.register_buffer(f"{name}_mean", torch.zeros(count, features))
                self.register_buffer(f"{name}_var", torch.ones(count, features))

    def draw(self, ctx: Any, first: int = 0) -> Blocks:
        """Fill weights and biases uniformly in +-1 / sqrt(fan-in), torch's default. A stream for each block and tensor.

        Block t starts alike whatever the number of blocks, and in every method that has the tensor. first: number of block 0.
        """
        with torch.no_grad():
            for name, (_, fan_in) in self.spec.layers().items():
                for kind in ("weight", "bias"):
                    tensor = getattr(self, f"{name}_{kind}", None)
                    for t in range(self.count if tensor is not None else 0):
                        generator = ctx.generator(f"init/block.{first + t}.{name}.{kind}")
                        drawn = torch.rand(tensor[t].shape, generator=generator)
                        tensor[t].copy_((2 * drawn - 1) / math.sqrt(fan_in))
        return self

    # Views ------------------------------------------------------------------------------------------------------------

    def all(self) -> dict[str, Tensor]:
        """Every parameter and buffer by name."""
        return {**self._parameters, **self._buffers}

    def each(self) -> list[dict[str, Tensor]]:
        """One part for each block: views with a leading axis of 1, whose gradients are gathered once."""
        columns = {name: tensor.unbind(0) for name, tensor in self.all().items()}
        return [{name: column[t].unsqueeze(0) for name, column in columns.items()} for t in range(self.count)]

    # Forward ----------------------------------------------------------------------------------------------------------

    def see(self, x: Tensor, p: Part | None = None) -> Tensor:
        """What the heads need of the items x (B, ...), computed once for all z and t: (T, width, B)."""
        p = self.all() if p is None else p
        h = self._convolve(x, p) if self.spec.kind == "image" else self._flat(x, p)
        return affine(p, "head_x", self._norm(affine(p, "x", h), "x", p))

    def logits(self, seen: Tensor, z: Tensor | None, timed: Tensor | None = None, p: Part | None = None) -> Tensor:
        """(T, classes, B) from `see`, z (T, d, B) and, for blocks with a time, `at`. Unscaled."""
        p = self.all() if p is None else p
        h = seen if z is None else torch.baddbmm(seen, p["head_z_weight"], self._read(z, p))
        if timed is not None:
            h = h + timed
        h = F.relu(self._norm(h, "head", p))
        h = F.relu(self._norm(affine(p, "head1", h), "head1", p))
        return affine(p, "head2", h)

    def at(self, t: Tensor) -> Tensor:
        """What the heads need of times t (n,) in [0, 1]: (T, width, n). For one time of all items, n = 1."""
        p = self.all()
        features = time_features(t).to(p["t_weight"].dtype).expand(self.count, -1, -1)
        return torch.bmm(p["head_t_weight"], F.relu(affine(p, "t", features)))

    def _read(self, z: Tensor, p: Part) -> Tensor:
        h = F.relu(self._norm(affine(p, "z", z), "z", p))
        if self.spec.time:
            return h
        branch = F.relu(self._norm(affine(p, "z1", h), "z1", p))
        return h + self._norm(affine(p, "z2", branch), "z2", p)

    def _flat(self, x: Tensor, p: Part) -> Tensor:
        # All blocks read the same items: one product for all.
        weight, bias = p["x1_weight"], p["x1_bias"]
        h = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), x.flatten(1).T).view(len(weight), -1, len(x))
        return self._drop(F.relu(h))

    def _convolve(self, x: Tensor, p: Part) -> Tensor:
        blocks = len(p["conv1_weight"])
        h = F.conv2d(x, p["conv1_weight"].flatten(0, 1), p["conv1_bias"].flatten(), padding=1)
        h = self._drop(F.max_pool2d(F.relu(h), 2))
        h = self._drop(F.relu(grouped(p, "conv2", h)))
        h = self._drop(F.max_pool2d(F.relu(grouped(p, "conv3", h)), 2))
        return h.reshape(len(x), blocks, -1).permute(1, 2, 0)

    def _drop(self, h: Tensor) -> Tensor:
        return F.dropout(h, self.spec.dropout, self.training) if self.spec.dropout else h

    def _norm(self, h: Tensor, name: str, p: Part) -> Tensor:
        """Over the items of a batch, or over the features of an item; h is (T, features, B)."""
        if self.spec.norm == "none":
            return h
        scale, shift = p[f"{name}_scale"], p[f"{name}_shift"]
        if self.spec.norm == "layer":
            var, mean = torch.var_mean(h, dim=1, keepdim=True, correction=0)
            return torch.addcmul(shift, (h - mean) * torch.rsqrt(var + EPS), scale)
        # Each feature of each block is a channel: one call normalises all.
        flat = F.batch_norm(
            h.reshape(1, -1, h.shape[2]), p[f"{name}_mean"].view(-1), p[f"{name}_var"].view(-1),
            scale.reshape(-1), shift.reshape(-1), self.training, BN_MOMENTUM, EPS,
        )  # fmt: skip
        return flat.view(h.shape)


def affine(p: Part, name: str, h: Tensor) -> Tensor:
    """Weight times h (T, in, B) plus bias."""
    return torch.baddbmm(p[f"{name}_bias"], p[f"{name}_weight"], h)


def grouped(p: Part, name: str, h: Tensor) -> Tensor:
    """A 3x3 convolution of (B, T * in, H, W), each block its own channels."""
    weight = p[f"{name}_weight"]
    return F.conv2d(h, weight.flatten(0, 1), p[f"{name}_bias"].flatten(), padding=1, groups=len(weight))


def time_features(t: Tensor) -> Tensor:
    """(64, n) sines and cosines of 1000 t at 32 frequencies from 1 to 1 / 10,000, in float32 or better."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device, dtype=t.dtype) / half)
    angles = 1000 * frequencies[:, None] * t[None]
    return torch.cat([angles.sin(), angles.cos()])
