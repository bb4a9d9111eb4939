"""Reference nets around a component: mlp, cnn, resnet8, vit. No random number is drawn and no data is read.

What a component replaces: an activation stands where the net's activation stood, behind the net's norm; a norm stands in
front of each activation (in the vit: where the LayerNorms stood), with the net's activation; a norm_act replaces both;
linear and conv replace every such layer. Optimizers and losses leave the net as it is. All other layers keep their names and
shapes, biases included, so swapping components leaves the other parameters bit-equal.

In resnet8 a norm_act component is asked for Place(activated=False) in front of the residual addition (it may normalise, or
return an affine map) and for Place(role="join") behind it, where activation and norm components leave an activation alone.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import Unsupported
from harness.lab.component import ComponentUse, Place, Role
from harness.lab.layers import Conv, Linear, PerToken, Positions, Slot, make_activation, make_norm
from harness.lab.problems import image_shape
from harness.nets import Net

MLP_RATIO = 2  # hidden units of a vit block's MLP over its token dimension
# Torch's layers that read the axes of their input in one way only: put elsewhere they fail late, or mix up axes in silence.
DIMS_OF = {nn.BatchNorm1d: 0, nn.BatchNorm2d: 2, nn.InstanceNorm2d: 2, nn.LocalResponseNorm: 2, nn.Dropout2d: 2}


def build_net(
    net: Net,
    shape: Mapping[str, int],
    component: ComponentUse | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """The net around the component, (N, ...) -> (N, outputs), in train mode; the lab's own layers are uninitialised.

    shape: "inputs" and "outputs", for images also "channels", "height", "width" (as `Task.shape`).
    device "meta" allocates nothing: enough to count parameters and FLOPs.
    Raises Unsupported where the component has no place in the net, or the net none for the task.
    """
    with torch.device(device), _default_dtype(dtype):
        parts = Parts(net, component)
        module = BUILDERS[net.arch](net, shape, parts)
    parts.check_used()
    # A component may have made tensors of a dtype of its own; the net's dtype is the trial's.
    return module.to(dtype)


@dataclass
class Parts:
    """Makes the layers and slots of one net, each from the component where it is of that kind."""

    net: Net
    component: ComponentUse | None
    places: int = 0
    used: bool = False

    def kind(self, *kinds: str) -> bool:
        return self.component is not None and self.component.kind in kinds

    def linear(self, in_features: int, out_features: int, dims: int = 0) -> nn.Module:
        if not self.kind("linear"):
            return Linear(in_features, out_features)
        layer = self._build(in_features, out_features)
        return PerToken(layer) if dims == 1 else layer

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Module:
        if not self.kind("conv"):
            return Conv(in_channels, out_channels, kernel_size, stride)
        return self._build(in_channels, out_channels, kernel_size, stride)

    def slot(self, features: int, dims: int, role: Role = "hidden") -> Slot:
        """Norm and activation behind a layer; no activation in front of an addition, no norm behind one."""
        place = self._next_place(features, dims, role)
        slot = Slot()
        if self.kind("norm_act"):
            slot.add_module("norm_act", self._place(place))
            return slot
        if role != "join":
            self._add_norm(slot, place)
        if place.activated:
            slot.add_module("act", self._place(place) if self.kind("activation") else make_activation(self.net.activation))
        return slot

    def pre_norm(self, features: int) -> nn.Module:
        """A transformer's norm in front of attention, MLP and head."""
        place = self._next_place(features, 1, "pre")
        return self._place(place) if self.kind("norm") else nn.LayerNorm(features)

    def check_used(self) -> None:
        if self.component is None or self.used or self.kind("optimizer", "loss"):
            return
        raise Unsupported(
            f"{self._where()} has no place: the net has no layer of kind {self.component.kind!r}; use another arch"
        )

    def _add_norm(self, slot: Slot, place: Place) -> None:
        if self.kind("norm") and not (self.net.arch == "vit" and self.net.norm == "none"):
            slot.add_module("norm", self._place(place))
        elif self.net.norm != "none":
            slot.add_module("norm", make_norm(self.net.norm, place))

    def _next_place(self, features: int, dims: int, role: Role) -> Place:
        self.places += 1
        return Place(features, dims, activated=role in ("hidden", "join"), index=self.places - 1, role=role)

    def _place(self, place: Place) -> nn.Module:
        module = self._build(place)
        for part in [module, *(module.children() if isinstance(module, nn.Sequential) else ())]:
            if DIMS_OF.get(type(part), place.dims) != place.dims:
                raise Unsupported(
                    f"{self._where()}: {type(part).__name__} cannot stand at {place}: it reads its input's axes otherwise; "
                    "let `build` choose by place.dims"
                )
        return module

    def _build(self, *where: Place | int) -> nn.Module:
        assert self.component is not None
        self.used = True
        try:
            module = self.component.build(*where, self.component.params)
        except Unsupported as exc:
            raise Unsupported(f"{self._where()}: {exc}") from exc
        if not isinstance(module, nn.Module):
            raise TypeError(f"{self._where()}: build returned {type(module).__name__}; return a torch.nn.Module")
        return module

    def _where(self) -> str:
        assert self.component is not None
        return f"component {self.component.name!r} in net.arch {self.net.arch!r}"


# The nets -------------------------------------------------------------------------------------------------------------


def build_mlp(net: Net, shape: Mapping[str, int], parts: Parts) -> nn.Module:
    """`depth` hidden layers of `width` units on the flattened input."""
    widths = [shape["inputs"], *[net.width] * net.depth]
    hidden = nn.Sequential()
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        hidden.add_module(str(index), _block(parts.linear(before, after), parts.slot(after, dims=0)))
    body = nn.Sequential()
    body.add_module("flat", nn.Flatten())
    body.add_module("hidden", hidden)
    body.add_module("head", parts.linear(widths[-1], shape["outputs"]))
    return body


def build_cnn(net: Net, shape: Mapping[str, int], parts: Parts) -> nn.Module:
    """`depth` blocks of a 3x3 convolution and a slot; all but the first halve the map and double the channels."""
    channels, height, width = _image("cnn", shape)
    if min(height, width) < 2 ** (net.depth - 1):
        raise Unsupported(
            f"net.depth={net.depth}: a cnn halves the map depth - 1 times, too often for {height}x{width} pixels; use less"
        )
    stages = nn.Sequential()
    for index in range(net.depth):
        features = net.width * 2**index
        conv = parts.conv(channels, features, stride=min(index, 1) + 1)
        stages.add_module(str(index), _block(conv, parts.slot(features, dims=2)))
        channels = features
    return _with_pool(stages, parts.linear(channels, shape["outputs"]))


def build_resnet8(net: Net, shape: Mapping[str, int], parts: Parts) -> nn.Module:
    """A 3x3 stem and three basic blocks of width, 2 width and 4 width channels, strides 1, 2, 2 (`depth` is not used).

    Source: the block of He et al. 2015, arXiv:1512.03385, with projection shortcuts (their option B).
    """
    channels, _, _ = _image("resnet8", shape)
    stages = nn.Sequential()
    stages.add_module("stem", _block(parts.conv(channels, net.width), parts.slot(net.width, dims=2)))
    before = net.width
    for index in range(3):
        after = net.width * 2**index
        stages.add_module(str(index), BasicBlock(before, after, stride=min(index, 1) + 1, parts=parts))
        before = after
    return _with_pool(stages, parts.linear(before, shape["outputs"]))


def build_vit(net: Net, shape: Mapping[str, int], parts: Parts) -> nn.Module:
    """A micro vision transformer: patches, learned positions, `depth` pre-norm blocks, mean over the tokens, head."""
    channels, height, width = _image("vit", shape)
    if height % net.patch or width % net.patch:
        raise Unsupported(f"net.patch={net.patch} does not divide {height}x{width} pixels; use a common divisor")
    if net.width % net.heads:
        raise Unsupported(f"net.heads={net.heads} does not divide net.width={net.width}; use a multiple of the heads as width")
    tokens = (height // net.patch) * (width // net.patch)
    body = nn.Sequential()
    body.add_module("patches", Patches(net.patch))
    body.add_module("embed", parts.linear(channels * net.patch**2, net.width, dims=1))
    body.add_module("positions", Positions(tokens, net.width))
    body.add_module("blocks", nn.Sequential(*(VitBlock(net, parts) for _ in range(net.depth))))
    body.add_module("norm", parts.pre_norm(net.width))
    body.add_module("pool", MeanTokens())
    body.add_module("head", parts.linear(net.width, shape["outputs"]))
    return body


BUILDERS = {"mlp": build_mlp, "cnn": build_cnn, "resnet8": build_resnet8, "vit": build_vit}


# Their modules --------------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """(N, C, H, W) -> (N, C', H / stride, W / stride): two 3x3 convolutions around a slot, plus the shortcut, then the join."""

    def __init__(self, before: int, after: int, stride: int, parts: Parts) -> None:
        super().__init__()
        self.conv1 = parts.conv(before, after, 3, stride)
        self.slot1 = parts.slot(after, dims=2)
        self.conv2 = parts.conv(after, after)
        self.slot2 = parts.slot(after, dims=2, role="residual")
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = _block(parts.conv(before, after, 1, stride), parts.slot(after, dims=2, role="shortcut"))
        self.join = parts.slot(after, dims=2, role="join")

    def forward(self, x: Tensor) -> Tensor:
        branch = self.slot2(self.conv2(self.slot1(self.conv1(x))))
        return self.join(branch + self.shortcut(x))  # type: ignore[no-any-return]


class VitBlock(nn.Module):
    """(N, T, C) -> (N, T, C): self-attention and an MLP with the slot, each behind a norm and added to its input."""

    def __init__(self, net: Net, parts: Parts) -> None:
        super().__init__()
        features = net.width
        self.heads = net.heads
        self.norm1 = parts.pre_norm(features)
        self.qkv = parts.linear(features, 3 * features, dims=1)
        self.out = parts.linear(features, features, dims=1)
        self.norm2 = parts.pre_norm(features)
        self.up = parts.linear(features, MLP_RATIO * features, dims=1)
        self.slot = parts.slot(MLP_RATIO * features, dims=1)
        self.down = parts.linear(MLP_RATIO * features, features, dims=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.norm1(x))
        return x + self.down(self.slot(self.up(self.norm2(x))))  # type: ignore[no-any-return]

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Patches(nn.Module):
    """(N, C, H, W) -> (N, T, C * patch * patch), row by row."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        p = self.patch
        n, c, h, w = x.shape
        cut = x.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(n, (h // p) * (w // p), c * p * p)


class MeanTokens(nn.Module):
    """(N, T, C) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


class MeanPixels(nn.Module):
    """(N, C, H, W) -> (N, C): global average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def _block(layer: nn.Module, slot: Slot) -> nn.Sequential:
    block = nn.Sequential()
    block.add_module("layer", layer)
    block.add_module("slot", slot)
    return block


def _with_pool(stages: nn.Sequential, head: nn.Module) -> nn.Sequential:
    body = nn.Sequential()
    body.add_module("stages", stages)
    body.add_module("pool", MeanPixels())
    body.add_module("head", head)
    return body


def _image(arch: str, shape: Mapping[str, int]) -> tuple[int, int, int]:
    image = image_shape(shape)
    if image is None:
        raise Unsupported(f"net.arch {arch!r} needs images; the task has {shape['inputs']} flat inputs; use arch 'mlp'")
    return image


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    # A component writes torch.tensor(0.01): made in float32 and cast later, a float64 trial would carry float32's rounding.
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
