"""The families of KAN layers under one interface: B-splines, and all whose functions are others.

A family says which functions of one input an edge combines, and what goes with them: a SiLU branch, a LayerNorm, first
weights. A `Basis` evaluates the functions that all edges share: (..., n) -> (..., n, size). `BasisLayer` is the dense layer
over one, `WaveletLayer` the dense layer whose edges each shift and stretch one wavelet, so that nothing is shared. Both start
uninitialised and draw no random number until `reset`; both can `keep` some of their outputs and forget the others.

Defaults are those of the layer file of the S-KAN authors, https://github.com/SeriYann/KANConv2d (MIT), convKAN/KANlayers.py,
which gathers FastKAN, FasterKAN, ChebyKAN, GRAM, Wav-KAN, JacobiKAN and ReLU-KAN. Left out are that file's norms and
activations behind a layer: they are no part of sum_i phi(x_i). The first weights of branches and wavelets, N(0, 1 / inputs),
are ours, and so are those of B-splines, Gram polynomials and bumps; what else differs stands at the family.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness_papers.kan.splines import Grid, bases

EPS = 1e-5  # of the LayerNorm in front of radial functions, torch's default


# Wavelets of one variable -----------------------------------------------------------------------------------------------


def mexican_hat(z: Tensor) -> Tensor:
    """2 / (sqrt(3) pi^(1/4)) (1 - z^2) exp(-z^2 / 2), of unit norm, elementwise. The authors' file has the opposite sign."""
    square = z * z
    return 2 / (math.sqrt(3) * math.pi**0.25) * (1 - square) * torch.exp(-0.5 * square)


def morlet(z: Tensor) -> Tensor:
    """cos(5 z) exp(-z^2 / 2), elementwise: the real part, without the tiny constant that would make its mean exactly 0."""
    return torch.cos(5.0 * z) * torch.exp(-0.5 * z * z)


def derivative_of_gaussian(z: Tensor) -> Tensor:
    """-z exp(-z^2 / 2), elementwise."""
    return -z * torch.exp(-0.5 * z * z)


def meyer(z: Tensor) -> Tensor:
    """sin(pi |z|) w(|z|), w falling smoothly from 1 at 1/2 to 0 at 1, elementwise.

    The form of Wav-KAN's code, made with Meyer's auxiliary polynomial; Meyer's wavelet itself has it in the frequencies.
    """
    v = z.abs()
    t = (2 * v - 1).clamp(0.0, 1.0)
    step = t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3)
    return torch.sin(math.pi * v) * torch.cos(0.5 * math.pi * step)


def shannon(z: Tensor) -> Tensor:
    """sinc(z / 2) cos(3 pi z / 2), elementwise, the real Shannon wavelet. The authors' file has sin(z) / z, which is none (its
    mean is not 0), under a Hamming window over the layer's inputs."""
    return torch.sinc(0.5 * z) * torch.cos(1.5 * math.pi * z)


WAVELETS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mexican-hat": mexican_hat,
    "morlet": morlet,
    "dog": derivative_of_gaussian,
    "meyer": meyer,
    "shannon": shannon,
}


# Shared functions -------------------------------------------------------------------------------------------------------


class Basis(nn.Module, ABC):
    """`size` functions of one input, the same for all of its edges: (..., n) -> (..., n, size), of x's dtype."""

    size: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The functions' values at x, any shape; they stand along a new last axis."""


class BSplines(Basis):
    """The B-splines of `harness_papers.kan.splines`: cubic, on 5 intervals of [-1, 1] unless given."""

    def __init__(self, grid: Grid | None = None) -> None:
        super().__init__()
        self.grid = grid or Grid()
        self.size = self.grid.bases

    def forward(self, x: Tensor) -> Tensor:
        return bases(x, self.grid)


class Gaussians(Basis):
    """exp(-((x - g_j) / h)^2), g_j evenly from low to high, h their distance. Source: FastKAN, arXiv:2405.06721."""

    def __init__(self, low: float = -2.0, high: float = 2.0, size: int = 8) -> None:
        super().__init__()
        self.size, self.width = at_least(size, 2, "Gaussians: size"), (high - low) / (size - 1)
        self.centres = nn.Buffer(torch.linspace(low, high, size))

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-(((x.unsqueeze(-1) - self.centres) / self.width).square()))


class Switches(Basis):
    """1 - tanh((x - g_j) slope)^2, reflectional switches, g_j evenly from low to high. Source: FasterKAN (RSWAF)."""

    def __init__(self, low: float = -1.2, high: float = 0.2, size: int = 8, slope: float = 0.5) -> None:
        super().__init__()
        self.size, self.slope = at_least(size, 1, "Switches: size"), slope
        self.centres = nn.Buffer(torch.linspace(low, high, size))

    def forward(self, x: Tensor) -> Tensor:
        return 1 - torch.tanh((x.unsqueeze(-1) - self.centres) * self.slope).square()


class Chebyshev(Basis):
    """T_0 .. T_degree at x clamped to [-1, 1], by T_k = 2 x T_(k-1) - T_(k-2).

    The gradient is 0 outside. Not cos(k arccos x), whose gradient is infinite at the ends. Source: ChebyKAN, arXiv:2405.07200.
    """

    def __init__(self, degree: int = 4) -> None:
        super().__init__()
        self.size = at_least(degree, 1, "Chebyshev: degree") + 1

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(-1.0, 1.0)
        return recurrence(x, x, [(2.0, 0.0, 1.0)] * (self.size - 2))


class Gram(Basis):
    """Monic discrete Gram polynomials p_0 .. p_degree at tanh(x): orthogonal over `points` even points of [-1, 1].

    p_(k+1) = t p_k - b_k p_(k-1), b_k = k^2 (N^2 - k^2) / ((4 k^2 - 1) (N - 1)^2). In the authors' file the b_k are learned,
    from nearly 0, and a SiLU is taken of each polynomial.
    """

    def __init__(self, degree: int = 3, points: int = 16) -> None:
        super().__init__()
        self.size = at_least(degree, 1, "Gram: degree") + 1
        at_least(points, degree + 1, f"Gram: points for degree {degree}")
        self.steps = [(1.0, 0.0, k * k * (points**2 - k * k) / ((4 * k * k - 1) * (points - 1) ** 2)) for k in range(1, degree)]

    def forward(self, x: Tensor) -> Tensor:
        t = torch.tanh(x)
        return recurrence(t, t, self.steps)


class Jacobi(Basis):
    """Jacobi polynomials P_0^(a,b) .. P_degree^(a,b) at tanh(x), by their three-term recurrence. Source: JacobiKAN."""

    def __init__(self, degree: int = 3, a: float = 1.0, b: float = 1.0) -> None:
        super().__init__()
        self.size, self.a, self.b = at_least(degree, 1, "Jacobi: degree") + 1, a, b
        if min(a, b) <= -1:
            raise ValueError(f"Jacobi: a={a}, b={b}; give numbers above -1")
        self.steps = [jacobi_step(k, a, b) for k in range(2, degree + 1)]

    def forward(self, x: Tensor) -> Tensor:
        t = torch.tanh(x)
        return recurrence(t, 0.5 * ((self.a - self.b) + (self.a + self.b + 2) * t), self.steps)


class ReluBumps(Basis):
    """(relu(h_j - x) relu(x - l_j) 4 / w^2)^2: bumps of height 1 and width w = (k + 1) cells.

    One for each B-spline of order k on `grid` cells of [low, high]. inputs: how many inputs have ends of their own, (inputs,
    size), that are trained; by default all edges share theirs, which stay. Source: ReLU-KAN, arXiv:2406.02075, there on [0, 1]
    and trained.
    """

    def __init__(self, grid: int = 5, order: int = 3, low: float = -1.0, high: float = 1.0, inputs: int | None = None) -> None:
        super().__init__()
        self.size = at_least(grid, 1, "ReluBumps: grid") + at_least(order, 0, "ReluBumps: order")
        cell = (high - low) / grid
        starts = low + cell * torch.arange(-order, grid)
        ends = starts + (order + 1) * cell
        if inputs is None:
            self.starts, self.ends = nn.Buffer(starts), nn.Buffer(ends)
        else:
            self.starts, self.ends = (nn.Parameter(place.expand(inputs, -1).clone()) for place in (starts, ends))
        self.scale = 4 / ((order + 1) * cell) ** 2

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(-1)
        return (torch.relu(self.ends - x) * torch.relu(x - self.starts) * self.scale).square()


class WaveletGrid(Basis):
    """One wavelet at `size` shifts, evenly from low to high, stretched by `scale`; their distance unless given.

    What a convolution can share, where the wavelets of `WaveletLayer` are each edge's own. The grid is ours.
    """

    def __init__(
        self, wavelet: str = "mexican-hat", low: float = -2.0, high: float = 2.0, size: int = 4, scale: float | None = None
    ) -> None:
        super().__init__()
        self.size, self.wavelet = at_least(size, 2, "WaveletGrid: size"), wavelet_named(wavelet)
        self.scale = (high - low) / (size - 1) if scale is None else scale
        if self.scale <= 0:
            raise ValueError(f"WaveletGrid: scale={scale}; give a number above 0")
        self.shifts = nn.Buffer(torch.linspace(low, high, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.wavelet((x.unsqueeze(-1) - self.shifts) / self.scale)


def recurrence(t: Tensor, first: Tensor, steps: list[tuple[float, float, float]]) -> Tensor:
    """1, first, and for each (a, b, c) of steps (a t + b) p - c q of the last two, along a new last axis."""
    values = [torch.ones_like(t), first]
    for a, b, c in steps:
        factor = a * t if a != 1.0 else t
        values.append((factor + b if b else factor) * values[-1] - c * values[-2])
    return torch.stack(values, dim=-1)


def jacobi_step(k: int, a: float, b: float) -> tuple[float, float, float]:
    """What makes P_k^(a,b) of the two before it, k >= 2. Source: Abramowitz and Stegun, 22.7.1."""
    s = 2 * k + a + b
    below = 2 * k * (k + a + b)
    return (
        s * (s - 1) / below,
        (s - 1) * (a * a - b * b) / (below * (s - 2)),
        2 * (k + a - 1) * (k + b - 1) * s / (below * (s - 2)),
    )


def wavelet_named(name: str) -> Callable[[Tensor], Tensor]:
    if name not in WAVELETS:
        raise ValueError(f"wavelet: got {name!r}; use one of {', '.join(WAVELETS)}")
    return WAVELETS[name]


def at_least(value: int, least: int, what: str) -> int:
    if value < least:
        raise ValueError(f"{what} is {value}; give {least} or more")
    return value


# Families ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """What a dense layer of the family is made of.

    basis: makes the shared functions.   base: a branch weight * silu(x) on each edge.   bias: a bias for each output, with it.
    norm: a LayerNorm (of its own scale and shift) over the inputs in front of the basis, never in front of the branch.
    std: (inputs, functions) -> deviation of the weights of the functions at first.
    edges: the name of the wavelet where every edge has a shift and a scale of its own; the basis then stands in for it where
    functions have to be shared, in convolutions.
    """

    name: str
    basis: Callable[[], Basis]
    std: Callable[[int, int], float]
    base: bool = False
    bias: bool = False
    norm: bool = False
    edges: str = ""


def a_tenth(inputs: int, size: int) -> float:
    """FastKAN's. The public layer cuts its normal at -2 and 2, twenty deviations away: nothing is cut."""
    return 0.1


def thin(inputs: int, size: int) -> float:
    """ChebyKAN's and JacobiKAN's."""
    return 1 / (inputs * size)


def even(inputs: int, size: int) -> float:
    """Unit variance of a sum of functions of unit size: where the authors' file has a rule that depends on the axes' order."""
    return 1 / math.sqrt(inputs * size)


def wavelets(name: str) -> Family:
    return Family(name, partial(WaveletGrid, name), even, base=True, edges=name)


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("b-spline", BSplines, even, base=True),
        Family("fastkan", Gaussians, a_tenth, base=True, bias=True, norm=True),
        Family("rswaf", Switches, a_tenth, norm=True),
        Family("chebyshev", Chebyshev, thin),
        Family("gram", Gram, even, base=True),
        Family("jacobi", Jacobi, thin, base=True),
        Family("relu-kan", ReluBumps, even),
        *map(wavelets, WAVELETS),
    )
}


def family_named(name: str) -> Family:
    """Raises ValueError for an unknown name."""
    if name not in FAMILIES:
        raise ValueError(f"family: got {name!r}; use one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


# Layers -----------------------------------------------------------------------------------------------------------------


class KanLayer(nn.Module, ABC):
    """(..., in_features) -> (..., out_features), y_o = sum_i phi_oi(x_i). Uninitialised until `reset`.

    Every tensor in `by_output` has one row for each output, and nothing else depends on which outputs there are: `keep` and
    `scale_rows` work on rows.
    """

    in_features: int
    out_features: int

    @abstractmethod
    def reset(self, generator: torch.Generator) -> None:
        """First values, drawn in float32 from a generator on the CPU."""

    @abstractmethod
    def by_output(self) -> dict[str, nn.Parameter]:
        """The parameters with a row for each output, by name."""

    @abstractmethod
    def linear_in(self) -> tuple[str, ...]:
        """Names of those in which the output is linear, all others fixed, without a rest."""

    def keep(self, rows: Tensor) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Keep the outputs `rows` (int64, (m,)), in this order, in place.

        The parameters become new, smaller ones: returned are the pairs (old, new), for an optimiser that holds the old.
        """
        pairs = []
        for name, parameter in self.by_output().items():
            kept = nn.Parameter(parameter.detach()[rows.to(parameter.device)].clone(), parameter.requires_grad)
            setattr(self, name, kept)
            pairs.append((parameter, kept))
        self.out_features = len(rows)
        return pairs

    def scale_rows(self, factors: Tensor) -> None:
        """Multiply output o by factors[o], in place."""
        with torch.no_grad():
            for name in self.linear_in():
                parameter = getattr(self, name)
                parameter.mul_(factors.to(parameter).view(-1, *[1] * (parameter.ndim - 1)))


class BasisLayer(KanLayer):
    """sum_ij weight[o, i, j] basis_j(x_i) + base[o, i] silu(x_i) + bias[o], as two matrix products.

    norm: the family's unless given. A LayerNorm over one input leaves nothing of it, over two only which is larger: it is off
    for one, as FastKAN requires, and a layer that reads coordinates should have none.
    weight is (out, in * size); base, where there is one, (out, in); bias (out,).
    """

    def __init__(self, family: Family, in_features: int, out_features: int, norm: bool | None = None) -> None:
        super().__init__()
        self.family, self.in_features, self.out_features = family, in_features, out_features
        self.basis = family.basis()
        self.norm = (family.norm if norm is None else norm) and in_features > 1
        self.weight = nn.Parameter(torch.empty(out_features, in_features * self.basis.size))
        self.base = nn.Parameter(torch.empty(out_features, in_features)) if family.base else None
        self.bias = nn.Parameter(torch.empty(out_features)) if family.bias else None
        self.norm_weight = nn.Parameter(torch.empty(in_features)) if self.norm else None
        self.norm_bias = nn.Parameter(torch.empty(in_features)) if self.norm else None

    def forward(self, x: Tensor) -> Tensor:
        z = F.layer_norm(x, (self.in_features,), self.norm_weight, self.norm_bias, EPS) if self.norm else x
        out = F.linear(self.basis(z).flatten(-2), self.weight, self.bias)
        return out if self.base is None else out + F.linear(F.silu(x), self.base)

    def by_output(self) -> dict[str, nn.Parameter]:
        named = {"weight": self.weight, "base": self.base, "bias": self.bias}
        return {name: parameter for name, parameter in named.items() if parameter is not None}

    def linear_in(self) -> tuple[str, ...]:
        return tuple(self.by_output())

    def edge(self, output: int, source: int, t: Tensor) -> Tensor:
        """phi of one edge at values t, (N,), of its input; behind a LayerNorm, of the normalised input, without the branch."""
        functions = self.basis(t[:, None].expand(-1, self.in_features))[:, source]
        found = functions @ self.weight[output].view(self.in_features, -1)[source]
        return found if self.base is None or self.norm else found + self.base[output, source] * F.silu(t)

    def reset(self, generator: torch.Generator) -> None:
        draw(self.weight, self.family.std(self.in_features, self.basis.size), generator)
        with torch.no_grad():
            if self.base is not None:
                draw(self.base, 1 / math.sqrt(self.in_features), generator)
            if self.bias is not None:
                self.bias.zero_()
            if self.norm_weight is not None and self.norm_bias is not None:
                self.norm_weight.fill_(1.0)
                self.norm_bias.zero_()

    def extra_repr(self) -> str:
        return f"{self.family.name}, {self.in_features} -> {self.out_features}, norm={self.norm}"


class WaveletLayer(KanLayer):
    """sum_i weight[o, i] psi((x_i - shift[o, i]) / scale[o, i]) + base[o, i] silu(x_i), all four (out, in) and learned.

    Elementwise over (..., out, in): no basis is shared. The authors' file has a batch norm behind it; here there is none, so an
    item's output never depends on the items beside it. Source: Wav-KAN, arXiv:2405.12832.
    """

    def __init__(self, family: Family, in_features: int, out_features: int) -> None:
        super().__init__()
        self.family, self.in_features, self.out_features = family, in_features, out_features
        self.wavelet = wavelet_named(family.edges)
        shape = (out_features, in_features)
        self.weight, self.base = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape))
        self.shift, self.scale = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape))

    def forward(self, x: Tensor) -> Tensor:
        z = (x.unsqueeze(-2) - self.shift) / self.scale
        return (self.wavelet(z) * self.weight).sum(dim=-1) + F.linear(F.silu(x), self.base)

    def by_output(self) -> dict[str, nn.Parameter]:
        return {"weight": self.weight, "base": self.base, "shift": self.shift, "scale": self.scale}

    def linear_in(self) -> tuple[str, ...]:
        return "weight", "base"

    def edge(self, output: int, source: int, t: Tensor) -> Tensor:
        """phi of one edge at values t, (N,), of its input."""
        at = output, source
        return self.weight[at] * self.wavelet((t - self.shift[at]) / self.scale[at]) + self.base[at] * F.silu(t)

    def reset(self, generator: torch.Generator) -> None:
        draw(self.weight, 1 / math.sqrt(self.in_features), generator)
        draw(self.base, 1 / math.sqrt(self.in_features), generator)
        with torch.no_grad():
            self.shift.zero_()
            self.scale.fill_(1.0)

    def extra_repr(self) -> str:
        return f"{self.family.name}, {self.in_features} -> {self.out_features}"


def make_layer(family: Family | str, in_features: int, out_features: int, norm: bool | None = None) -> KanLayer:
    """The dense layer of a family, by name or as given. norm: see `BasisLayer`. Raises ValueError for an unknown name."""
    family = family_named(family) if isinstance(family, str) else family
    if family.edges:
        return WaveletLayer(family, in_features, out_features)
    return BasisLayer(family, in_features, out_features, norm)


def draw(tensor: Tensor, std: float, generator: torch.Generator) -> None:
    """N(0, std^2) into the tensor, in place."""
    values = torch.empty(tensor.shape, dtype=torch.float32).normal_(generator=generator)
    with torch.no_grad():
        tensor.copy_(values * std)
