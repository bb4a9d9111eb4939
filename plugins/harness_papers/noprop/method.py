"""NoProp's mathematics: signal levels, the chain's update, the classes' vectors, the prior's term, the noise of inference.

arXiv:2503.24322 v1; equation numbers are that version's. Tensors of vectors are (..., d, B), the items last, as in blocks.py.
abar_t is the share of signal at level t: near 0 at t = 0 (noise), near 1 at t = T, the other way round than in DDPM.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Embedding = Literal["one-hot", "learned", "prototype", "random"]


# Signal levels ----------------------------------------------------------------------------------------------------------


def cosine_signal(blocks: int, low: float = 1e-4, high: float = 0.99, s: float = 0.008) -> Tensor:
    """abar_0 .. abar_T in float64: cos^2 of an angle that falls to 0, clamped to [low, high].

    The paper says "cosine" and no more. high < 1 keeps SNR(T) finite; together with low it sets the scale of the loss.
    Raises ValueError where two levels would be clamped to one: the block between them would have nothing to learn.
    """
    left = 1 - torch.arange(blocks + 1, dtype=torch.float64) / blocks
    level = torch.cos((left + s) / (1 + s) * math.pi / 2) ** 2 / math.cos(s / (1 + s) * math.pi / 2) ** 2
    level = level.clamp(low, high)
    if not bool((level.diff() > 0).all()):
        raise ValueError(
            f"{blocks} blocks between signal levels {low} and {high}: some levels coincide; widen the range or take fewer"
        )
    return level


def snr(abar: Tensor) -> Tensor:
    """Signal over noise: abar / (1 - abar)."""
    return abar / (1 - abar)


class Update(NamedTuple):
    """z_t = a_t u_t + b_t z_{t-1} + sqrt(c_t) eps, for t = 1 .. T (index t - 1)."""

    a: Tensor
    b: Tensor
    c: Tensor


def update_coefficients(abar: Tensor) -> Update:
    """Of rising levels abar (T + 1,), abar_T < 1. Equations 3, 6 and 7."""
    before, after = abar[:-1], abar[1:]
    alpha = before / after
    a = after.sqrt() * (1 - alpha) / (1 - before)
    b = alpha.sqrt() * (1 - after) / (1 - before)
    c = (1 - after) * (1 - alpha) / (1 - before)
    return Update(a, b, c)


def noised(u: Tensor, abar: Tensor, eps: Tensor) -> Tensor:
    """A draw of q(z | y) = N(sqrt(abar) u, (1 - abar) I) from eps ~ N(0, I)."""
    return abar.sqrt() * u + (1 - abar).sqrt() * eps


def prior_term(u: Tensor, abar: Tensor | float) -> Tensor:
    """KL(q(z_0 | y) || N(0, I)) of each item, from u (d, B) and abar_0. 0 where abar_0 is 0; it moves u and abar only."""
    level = torch.as_tensor(abar, dtype=u.dtype, device=u.device)
    dims = u.shape[-2]
    return 0.5 * (level * u.square().sum(dim=-2) - dims * level - dims * torch.log1p(-level))


class Schedule(nn.Module):
    """gamma(t) = -log SNR(t) on [0, 1], falling from gamma(0) = g1 to gamma(1) = g0. Appendix B.

    Learned: a two-layer net with positive weights, scaled to go from 0 to 1; g0 and g1 - g0 > 0 are learned too. Else a line.
    """

    HIDDEN = 64

    def __init__(self, g0: float, g1: float, learned: bool) -> None:
        super().__init__()
        if g1 <= g0:
            raise ValueError(f"gamma must fall in t: give gamma1 > gamma0, got gamma0={g0}, gamma1={g1}")
        self.learned = learned
        ends = torch.tensor([g0, math.log(g1 - g0)])
        self.ends = nn.Parameter(ends) if learned else nn.Buffer(ends)
        if learned:
            # Sigmoids of one slope, spread over the interval: together they start as nearly a line.
            self.slope = nn.Parameter(torch.full((self.HIDDEN, 1), 4.0))
            self.place = nn.Parameter(-4.0 * torch.linspace(-0.5, 1.5, self.HIDDEN)[:, None])
            self.height = nn.Parameter(torch.zeros(self.HIDDEN, 1))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """gamma(t) and d gamma / dt for t (n,)."""
        g0, span = self.ends[0], self.ends[1].exp()
        if not self.learned:
            return g0 + span * (1 - t), -span.expand_as(t)
        slope, height = F.softplus(self.slope), F.softplus(self.height)
        at = torch.cat([t, t.new_tensor([0.0, 1.0])])
        bumps = torch.sigmoid(slope * at + self.place)
        level, rise = (height * bumps).sum(0), (height * slope * bumps * (1 - bumps)).sum(0)
        total = level[-1] - level[-2]
        share = (level[:-2] - level[-2]) / total
        return g0 + span * (1 - share), -span * rise[:-2] / total


# Classes ----------------------------------------------------------------------------------------------------------------


class Codes(nn.Module):
    """The classes as vectors, W (classes, d), and the linear readout f_out of noised ones.

    one-hot: the identity, fixed. learned: orthonormal rows at first. random: rows of about that length, not orthogonal.
    prototype: rows start as images of the training part. readout: False where nothing reads it.
    """

    def __init__(self, embedding: Embedding, classes: int, dims: int, readout: bool = True) -> None:
        super().__init__()
        self.embedding = embedding
        if embedding == "one-hot":
            self.weight = nn.Buffer(torch.eye(classes))
        else:
            self.weight = nn.Parameter(torch.empty(classes, dims))
        self.out_weight = nn.Parameter(torch.empty(classes, self.weight.shape[1])) if readout else None
        self.out_bias = nn.Parameter(torch.empty(classes, 1)) if readout else None

    @property
    def fixed(self) -> bool:
        return self.embedding == "one-hot"

    def draw(self, ctx: Any, x: Tensor, y: Tensor) -> Codes:
        """Initial values; x and y are the training part, for prototypes."""
        classes, dims = self.weight.shape
        with torch.no_grad():
            if self.embedding == "prototype":
                self.weight.copy_(prototypes(x.flatten(1), y, classes))
            elif not self.fixed:
                drawn = torch.randn(classes, dims, generator=ctx.generator("init/codes"))
                self.weight.copy_(orthonormal(drawn) if self.embedding == "learned" else drawn / math.sqrt(dims))
            for name in ("out_weight", "out_bias"):
                if (tensor := getattr(self, name)) is not None:
                    drawn = torch.rand(tensor.shape, generator=ctx.generator(f"init/{name}"))
                    tensor.copy_((2 * drawn - 1) / math.sqrt(dims))
        return self

    def of(self, y: Tensor) -> Tensor:
        """u_y: (d, B)."""
        return self.weight[y].T

    def mixture(self, logits: Tensor) -> Tensor:
        """The convex combination softmax(logits) W: (T, classes, B) -> (T, d, B)."""
        shares = logits.softmax(dim=-2)
        return shares if self.fixed else torch.matmul(self.weight.T, shares)

    def combination(self, logits: Tensor) -> Tensor:
        """logits W without softmax, as the vector fields have it."""
        return logits if self.fixed else torch.matmul(self.weight.T, logits)

    def read(self, z: Tensor) -> Tensor:
        """f_out: (..., d, B) -> class logits (..., classes, B)."""
        return torch.matmul(self.out_weight, z) + self.out_bias

    def nearest(self, z: Tensor) -> Tensor:
        """-|z - W_k|^2 / 2 + |z|^2 / 2: largest for the nearest class, (..., d, B) -> (..., classes, B)."""
        return torch.matmul(self.weight, z) - 0.5 * self.weight.square().sum(dim=1, keepdim=True)


def orthonormal(drawn: Tensor) -> Tensor:
    """Orthonormal rows (columns, where there are more rows than columns) from a matrix of normal draws."""
    tall = drawn if drawn.shape[0] >= drawn.shape[1] else drawn.T
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()
    return q if drawn.shape[0] >= drawn.shape[1] else q.T


def prototypes(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """Of each class the item with the smallest median distance to the others of its class. x (N, F) -> (classes, F).

    Raises ValueError for a class without an item.
    """
    found = []
    for label in range(classes):
        own = x[y == label]
        if not len(own):
            raise ValueError(f"prototype embeddings need an item of every class; class {label} has none in the training part")
        distances = torch.cdist(own, own)
        distances.fill_diagonal_(math.inf)
        # Its own distance is no part of the median; an only child has no others.
        medians = distances.sort(dim=1).values[:, : max(1, len(own) - 1)].median(dim=1).values
        found.append(own[int(medians.argmin())])
    return torch.stack(found)


# Noise of inference -----------------------------------------------------------------------------------------------------

MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)  # of splitmix64, as signed numbers
GOLDEN = 0x9E3779B97F4A7C15 - 2**64


class ItemNoise:
    """Standard normal noise that belongs to an item, whatever batch it stands in: a hash of its bits, a salt and a counter.

    So a prediction does not depend on the items beside it, a second call says the same, and draw 0, 1, 2 ... are independent.
    """

    def __init__(self, x: Tensor, salt: int, draw: int) -> None:
        as_integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
        bits = x.detach().flatten(1).contiguous().view(as_integers).long()
        weights = scramble(torch.arange(bits.shape[1], device=x.device)) | 1
        start = scramble(torch.tensor(salt, device=x.device) ^ scramble(torch.tensor(draw, device=x.device)))
        # Integers wrap around, so the sum is exact in any order.
        self.keys = scramble((bits * weights).sum(dim=1) + start)
        self.dtype = x.dtype

    def __call__(self, step: int, dims: int) -> Tensor:
        """(dims, B), for a step of the chain."""
        counters = torch.arange(step * dims, (step + 1) * dims, device=self.keys.device)
        hashed = scramble(self.keys[None] ^ scramble(counters)[:, None])
        uniform = (((hashed >> 11) & (2**53 - 1)).double() + 0.5) * 2.0**-53
        return (math.sqrt(2) * torch.erfinv(2 * uniform - 1)).to(self.dtype)


def scramble(v: Tensor) -> Tensor:
    """splitmix64's finaliser on int64, whose products wrap around. The masks make the shifts logical."""
    v = v + GOLDEN
    v = (v ^ ((v >> 30) & (2**34 - 1))) * MIX[0]
    v = (v ^ ((v >> 27) & (2**37 - 1))) * MIX[1]
    return v ^ ((v >> 31) & (2**33 - 1))
