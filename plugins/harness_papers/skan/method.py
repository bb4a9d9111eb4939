"""S-KAN: layers that hold a pool of families, weigh them for each output, and keep one. arXiv:2408.08338.

The paper's gate, schedule and thresholds could not be read: what stands here and in training.py is a reconstruction, from its
abstract and a secondary summary (see the README).

In: x with its features on the last axis, (..., n), or (N, H, W, C) for convolutions. Out: (..., m), or (N, H', W', m). A pool
is one module for each family, all of the same interface (`harness_papers.kan.families.KanLayer`); a `SelectLayer` adds gates.
What a family no longer gives to any output is gone: its rows are cut from its weights, and one matrix product for each family
that is left makes the outputs that chose it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.lab import Linear
from harness_papers.kan.families import Family, KanLayer, draw, family_named, make_layer

POOL = ("b-spline", "fastkan", "rswaf", "chebyshev", "gram", "mexican-hat", "jacobi", "relu-kan")
Replaced = list[tuple[nn.Parameter, nn.Parameter | None, Tensor | None]]  # old, new, the rows of old that new has


# Convolution ------------------------------------------------------------------------------------------------------------


class ConvLayer(KanLayer):
    """(N, H, W, C) -> (N, H', W', out): the dense layer of a family on every patch, y_o = sum over the patch of phi_oi(x_i).

    The functions are evaluated once a pixel, not once a patch, and one convolution with C * size channels in does the rest:
    equal to unfolding, since edges share their functions and nothing is normalised over a patch. Around the image stand zeros
    (`same` padding unless padding is given), and the functions' values there, which are not 0.
    Source of the patch form: KANConv2d (SeriYann), KANConv2Dlayers.py.
    weight is (out, C * size, k, k), base (out, C, k, k), bias (out,).
    """

    def __init__(
        self, family: Family, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        self.family, self.in_features, self.out_features = family, in_channels, out_channels
        self.kernel, self.stride, self.padding = kernel, stride, kernel // 2 if padding is None else padding
        self.basis = family.basis()
        window = (kernel, kernel)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels * self.basis.size, *window))
        self.base = nn.Parameter(torch.empty(out_channels, in_channels, *window)) if family.base else None
        self.bias = nn.Parameter(torch.empty(out_channels)) if family.bias else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, *[self.padding] * 4))
        out = self._convolve(self.basis(x).flatten(-2), self.weight, self.bias)
        return out if self.base is None else out + self._convolve(F.silu(x), self.base, None)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # Permuting is free: (N, H, W, C) is the layout that convolutions call channels last.
        return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, self.stride).permute(0, 2, 3, 1)

    def by_output(self) -> dict[str, nn.Parameter]:
        named = {"weight": self.weight, "base": self.base, "bias": self.bias}
        return {name: parameter for name, parameter in named.items() if parameter is not None}

    def linear_in(self) -> tuple[str, ...]:
        return tuple(self.by_output())

    def reset(self, generator: torch.Generator) -> None:
        inputs = self.in_features * self.kernel**2
        draw(self.weight, self.family.std(inputs, self.basis.size), generator)
        with torch.no_grad():
            if self.base is not None:
                draw(self.base, 1 / math.sqrt(inputs), generator)
            if self.bias is not None:
                self.bias.zero_()

    def extra_repr(self) -> str:
        return f"{self.family.name}, {self.in_features} -> {self.out_features}, kernel={self.kernel}, padding={self.padding}"


# Selection --------------------------------------------------------------------------------------------------------------


class SelectLayer(nn.Module):
    """y_o = sum_a s_oa KAN_a(x)_o over the families that output o still has, s_o = softmax(theta_o / tau) over these.

    make: family name -> the layer of that family with all outputs.   theta is (m, A), 0 at first: all families weigh the same.
    alive is (m, A): which families an output has. `drop_smallest` takes from each output the family that weighs least, `choose`
    all but one. With one left, its weight is exactly 1, and theta is no longer a parameter.
    """

    def __init__(self, families: Sequence[str], make: Callable[[str], KanLayer], tau: float = 1.0) -> None:
        super().__init__()
        self.names, self.tau = tuple(families), tau
        self.layers = nn.ModuleDict({name: make(name) for name in families})
        self.out_features = next(iter(self._layers())).out_features
        theta = torch.zeros(self.out_features, len(self.names))
        self.theta: nn.Parameter | None = nn.Parameter(theta) if len(self.names) > 1 else None
        self.alive = nn.Buffer(torch.ones_like(theta, dtype=torch.bool))
        self.rows = nn.Buffer(torch.arange(self.out_features).repeat(len(self.names), 1), persistent=False)
        self.places = nn.Buffer(torch.arange(self.out_features), persistent=False)
        self.kept = [self.out_features] * len(self.names)

    def _layers(self) -> list[KanLayer]:
        return list(self.layers.values())

    def gates(self) -> Tensor:
        """s, (m, A): rows sum to 1; 0 where a family is gone."""
        if self.theta is None:
            return self.alive.to(next(self.parameters()).dtype)
        return torch.softmax((self.theta / self.tau).masked_fill(~self.alive, -math.inf), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        if self.theta is None:
            found = [self.layers[name](x) for name in self.layers]
            return found[0] if len(found) == 1 else torch.cat(found, dim=-1).index_select(-1, self.places)
        gates, total = self.gates(), None
        for a, name in enumerate(self.names):
            if not self.kept[a]:
                continue
            out, whole = self.layers[name](x), self.kept[a] == self.out_features
            rows = self.rows[a, : self.kept[a]]
            part = out * (gates[:, a] if whole else gates[rows, a])
            if total is None:
                total = part if whole else part.new_zeros(*part.shape[:-1], self.out_features).index_add(-1, rows, part)
            else:
                total = total + part if whole else total.index_add(-1, rows, part)
        assert total is not None
        return total

    def drop_smallest(self) -> Replaced:
        """Take from each output that has several families the one that weighs least; of equals the last in the pool."""
        if self.theta is None:
            return []
        weights = self.gates().detach().masked_fill(~self.alive, math.inf)
        several = self.alive.sum(dim=1) > 1
        least = weights.shape[1] - 1 - weights.flip(1).argmin(dim=1)
        alive = self.alive.clone()
        alive[several, least[several]] = False
        return self._leave(alive)

    def choose(self, families: Tensor) -> Replaced:
        """Leave each output one family: families is (m,), positions in the pool, among those that it still has."""
        one = F.one_hot(families, len(self.names)).bool().to(self.alive.device)
        if bool((one & ~self.alive).any()):
            raise ValueError("choose: an output would keep a family that it has lost; name one that is alive")
        return self._leave(one)

    def _leave(self, alive: Tensor) -> Replaced:
        """Cut every layer's weights to the outputs that still have its family."""
        replaced: Replaced = []
        order = []
        for a, name in enumerate(self.names):
            old = self.rows[a, : self.kept[a]]
            if self.kept[a]:
                stay = alive[old, a]
                positions = stay.nonzero().squeeze(1)
                if not len(positions):
                    replaced += [(p, None, None) for p in self.layers[name].parameters()]
                    del self.layers[name]
                elif len(positions) < len(old):
                    replaced += [(was, now, positions) for was, now in self.layers[name].keep(positions)]
                self.rows[a, : len(positions)] = old[positions]
                self.kept[a] = len(positions)
            order.append(self.rows[a, : self.kept[a]])
        self.alive.copy_(alive)
        if bool((alive.sum(dim=1) == 1).all()):
            if self.theta is not None:
                replaced.append((self.theta, None, None))
            self.theta = None
            self.places.copy_(torch.cat(order).argsort())
        return replaced

    def owner(self, output: int) -> tuple[str, KanLayer, int]:
        """The family that makes this output of a pruned layer, its layer, and the output's row there."""
        if self.theta is not None:
            raise ValueError("owner: the layer still mixes families; prune it first")
        row = int(self.places[output])
        for name, layer in zip(self.layers, self._layers(), strict=True):
            if row < layer.out_features:
                return name, layer, row
            row -= layer.out_features
        raise IndexError(f"owner: there is no output {output}")

    def chosen(self) -> list[str]:
        """The family that weighs most at each output."""
        return [self.names[a] for a in self.gates().argmax(dim=1).tolist()]

    @torch.no_grad()
    def normalise(self, x: Tensor) -> Tensor:
        """Scale each family's outputs to a mean square of 1 on x, in place; returns the layer's output on x.

        Families differ by orders of magnitude at first, and the gates would choose by that. The mean square, not the variance:
        functions that are nearly constant (switches) would come out with unit variance around a mean of 10 and more. Where an
        output is 0 on x, its scale stays as it is.
        """
        for layer in self._layers():
            size = layer(x).flatten(0, -2).square().mean(dim=0).sqrt()
            layer.scale_rows(torch.where(size > 1e-12, 1 / size.clamp_min(1e-12), 1.0))
        out: Tensor = self(x)
        return out

    def extra_repr(self) -> str:
        return f"{self.out_features} outputs, tau={self.tau}, kept={dict(zip(self.names, self.kept, strict=True))}"


# Nets -------------------------------------------------------------------------------------------------------------------


class DenseNet(nn.Module):
    """(N, d) -> (N, outputs): `SelectLayer`s of the given widths, d first, nothing between them.

    The first layer has no LayerNorm: it reads coordinates, and of two of them a norm would leave which is larger.
    """

    def __init__(self, families: Sequence[str], widths: Sequence[int], tau: float = 1.0) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.selects = nn.ModuleList(
            SelectLayer(families, dense_maker(n, m, norm=None if k else False), tau) for k, (n, m) in enumerate(pairs)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.selects:
            x = layer(x)
        return x

    def start(self, x: Tensor) -> None:
        """Normalise each layer on what the layers before it give for x."""
        for layer in self.selects:
            x = layer.normalise(x)


class ConvNet(nn.Module):
    """(N, C, H, W) -> (N, outputs): 3x3 KAN convolutions of the given channels, a mean over 2x2 behind each, an affine map.

    Families whose edges have functions of their own (wavelets) take the shared form here, a grid of shifts.
    """

    def __init__(
        self, families: Sequence[str], image: tuple[int, int, int], channels: Sequence[int], outputs: int, tau: float = 1.0
    ) -> None:
        super().__init__()
        sides = [image[0], *channels]
        self.selects = nn.ModuleList(SelectLayer(families, conv_maker(n, m), tau) for n, m in itertools.pairwise(sides))
        self.head = Linear(pooled_size(image, channels), outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        for layer in self.selects:
            x = halve(layer(x))
        return self.head(x.flatten(1))

    def start(self, x: Tensor) -> None:
        """Normalise each layer on what the layers before it give for x."""
        x = x.permute(0, 2, 3, 1)
        for layer in self.selects:
            x = halve(layer.normalise(x))


def halve(x: Tensor) -> Tensor:
    """Means over 2x2 pixels: (N, H, W, C) -> (N, H // 2, W // 2, C)."""
    return F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def pooled_size(image: tuple[int, int, int], channels: Sequence[int]) -> int:
    """Numbers that reach the affine map. Raises ValueError for an image too small to be halved so often."""
    side = min(image[1:]) >> len(channels)
    if side < 1:
        raise ValueError(f"{len(channels)} layers halve {image[1]}x{image[2]} pixels too often; give fewer channels")
    return channels[-1] * (image[1] >> len(channels)) * (image[2] >> len(channels))


def dense_maker(inputs: int, outputs: int, norm: bool | None) -> Callable[[str], KanLayer]:
    return lambda name: make_layer(name, inputs, outputs, norm)


def conv_maker(inputs: int, outputs: int) -> Callable[[str], KanLayer]:
    return lambda name: ConvLayer(family_named(name), inputs, outputs)


def select_layers(net: nn.Module) -> list[SelectLayer]:
    return [part for part in net.modules() if isinstance(part, SelectLayer)]


def reset(net: nn.Module, ctx: Any) -> None:
    """First weights of every layer of every family, each from a stream of its own: (layer, family), so that a pool and a single
    family start from the same ones."""
    for k, select in enumerate(select_layers(net)):
        for name, layer in select.layers.items():
            layer.reset(ctx.generator(f"init/{k}/{name}"))
    head = getattr(net, "head", None)
    if isinstance(head, nn.Linear):
        draw(head.weight, 1 / math.sqrt(head.in_features), ctx.generator("init/head"))
        with torch.no_grad():
            head.bias.zero_()
