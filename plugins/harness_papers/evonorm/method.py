"""EvoNorm B0, B1, B2 (with batch statistics) and S0, S1, S2 (without): one layer for normalisation and activation.

In: feature maps (N, C, H, W). Out: the same shape and dtype. Statistics are biased and are taken in float32 where the maps
are half precision. arXiv:2004.02967; B1, B2, S1, S2 as in timm/layers/evo_norm.py, whose values the tests hold.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.lab import Unsupported

MAPS = (2, 3)
MOMENTUM = 0.1
GROUP_SIZE, MOST_GROUPS = 8, 32
BForm = Literal["b0", "b1", "b2"]
SForm = Literal["s0", "s1", "s2"]


# The layers as functions -----------------------------------------------------------------------------------------------
# x is (N, C, H, W), floating; batch_var, v, gamma, beta are (C,); eps goes on the variance, under the root.


def evonorm_b0(x: Tensor, batch_var: Tensor, v: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-3) -> Tensor:
    """x / max(sqrt(batch_var + eps), v x + std over H, W of each map) * gamma + beta."""
    return _divide(x, batch_var, _per_channel(v, x) * x + _root(instance_variance(x), eps, x), gamma, beta, eps)


def evonorm_b1(x: Tensor, batch_var: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    """x / max(sqrt(batch_var + eps), (x + 1) * root mean square over H, W of each map) * gamma + beta."""
    return _divide(x, batch_var, (x + 1) * _root(instance_mean_square(x), eps, x), gamma, beta, eps)


def evonorm_b2(x: Tensor, batch_var: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    """x / max(sqrt(batch_var + eps), root mean square over H, W of each map - x) * gamma + beta."""
    return _divide(x, batch_var, _root(instance_mean_square(x), eps, x) - x, gamma, beta, eps)


def evonorm_s0(x: Tensor, v: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    """x sigmoid(v x) / std over each group of C / groups channels and H, W * gamma + beta. groups divides C."""
    return _scale(x * torch.sigmoid(_per_channel(v, x) * x), group_variance(x, groups), gamma, beta, eps)


def evonorm_s1(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    """x sigmoid(x) / std over each group of C / groups channels and H, W * gamma + beta: S0 without v."""
    return _scale(F.silu(x), group_variance(x, groups), gamma, beta, eps)


def evonorm_s2(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    """x sigmoid(x) / root mean square over each group of C / groups channels and H, W * gamma + beta."""
    return _scale(F.silu(x), group_mean_square(x, groups), gamma, beta, eps)


def _divide(x: Tensor, batch_var: Tensor, rival: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    # `rival` is signed: where it is negative the batch's deviation wins, so the denominator stays positive.
    denominator = torch.maximum(_root(_per_channel(batch_var), eps, x), rival)
    return torch.addcmul(_per_channel(beta, x), x / denominator, _per_channel(gamma, x))


def _scale(activated: Tensor, power: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    # gamma / std is small, (N, C, 1, 1): dividing there leaves one pass over the maps.
    scale = _per_channel(gamma).to(power.dtype) * torch.rsqrt(power + eps)
    return torch.addcmul(_per_channel(beta, activated), activated, scale.to(activated.dtype))


# The statistics ---------------------------------------------------------------------------------------------------------


def batch_variance(x: Tensor) -> Tensor:
    """(C,): biased variance over N, H, W; float32 for half precision."""
    return _widen(x).var(dim=(0, 2, 3), unbiased=False)


def instance_variance(x: Tensor) -> Tensor:
    """(N, C, 1, 1): biased variance over H, W. Biased, so that a 1 x 1 map has variance 0 and not NaN."""
    return _widen(x).var(dim=MAPS, unbiased=False, keepdim=True)


def instance_mean_square(x: Tensor) -> Tensor:
    """(N, C, 1, 1): mean of x^2 over H, W; not centred."""
    return _widen(x).square().mean(dim=MAPS, keepdim=True)


def group_variance(x: Tensor, groups: int) -> Tensor:
    """(N, C, 1, 1): biased variance over H, W and the channels of the group that each channel is in."""
    return _to_channels(_in_groups(x, groups).var(dim=2, unbiased=False), x.shape[1])


def group_mean_square(x: Tensor, groups: int) -> Tensor:
    """(N, C, 1, 1): mean of x^2 over H, W and the channels of the group; not centred."""
    return _to_channels(_in_groups(x, groups).square().mean(dim=2), x.shape[1])


def _in_groups(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    if c % groups:
        raise ValueError(f"evonorm: groups={groups} does not divide C={c}; {mend('groups', c)}")
    return _widen(x).reshape(n, groups, c // groups * h * w)  # no -1: the batch may be empty


def _to_channels(per_group: Tensor, channels: int) -> Tensor:
    return per_group.repeat_interleave(channels // per_group.shape[1], dim=1)[:, :, None, None]


def _root(power: Tensor, eps: float, like: Tensor) -> Tensor:
    return torch.sqrt(power + eps).to(like.dtype)


def _per_channel(p: Tensor, like: Tensor | None = None) -> Tensor:
    p = p.view(1, -1, 1, 1)
    return p if like is None else p.to(like.dtype)


def _widen(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# The layers as modules -------------------------------------------------------------------------------------------------


class Affine(nn.Module):
    """gamma x + beta, a pair a channel, gamma starting at `gamma`: what an EvoNorm becomes where it must not activate."""

    def __init__(self, features: int, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((features,), gamma))
        self.beta = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(_per_channel(self.beta, x), _per_channel(self.gamma, x), x)


class EvoNormB(nn.Module):
    """B0, B1 or B2. Training divides by the batch's variance and keeps a running one, which evaluation uses.

    running_var starts at 1 and moves by `momentum` towards the unbiased variance of each batch; the layer itself uses the
    biased one. Training raises ValueError on a single value a channel, whose unbiased variance does not exist.
    """

    running_var: Tensor

    def __init__(self, features: int, form: BForm, eps: float, momentum: float = MOMENTUM) -> None:
        super().__init__()
        self.form, self.eps, self.momentum = form, eps, momentum
        self.gamma = nn.Parameter(torch.ones(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.v = nn.Parameter(torch.ones(features)) if form == "b0" else None
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        batch_var = self._follow(x) if self.training else self.running_var
        if self.v is not None:
            return evonorm_b0(x, batch_var, self.v, self.gamma, self.beta, self.eps)
        layer = evonorm_b1 if self.form == "b1" else evonorm_b2
        return layer(x, batch_var, self.gamma, self.beta, self.eps)

    def _follow(self, x: Tensor) -> Tensor:
        count = x.shape[0] * x.shape[2] * x.shape[3]
        if count < 2:
            raise ValueError(
                f"evonorm-{self.form}: x is {tuple(x.shape)}, one value a channel; train with a batch of 2 or more"
            )
        variance = batch_variance(x)
        unbiased = variance.detach() * (count / (count - 1))
        # No graph holds the buffer (the root of a sum saves its result), so writing to it in place spoils no gradient.
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return variance

    def extra_repr(self) -> str:
        return f"{self.form}, {self.gamma.numel()}, eps={self.eps}, momentum={self.momentum}"


class EvoNormS(nn.Module):
    """S0, S1 or S2: the same in training and evaluation, each sample by itself."""

    def __init__(self, features: int, form: SForm, groups: int, eps: float) -> None:
        super().__init__()
        self.form, self.groups, self.eps = form, groups, eps
        self.gamma = nn.Parameter(torch.ones(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.v = nn.Parameter(torch.ones(features)) if form == "s0" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.v is not None:
            return evonorm_s0(x, self.v, self.gamma, self.beta, self.groups, self.eps)
        layer = evonorm_s1 if self.form == "s1" else evonorm_s2
        return layer(x, self.gamma, self.beta, self.groups, self.eps)

    def extra_repr(self) -> str:
        return f"{self.form}, {self.gamma.numel()}, groups={self.groups}, eps={self.eps}"


# The components ---------------------------------------------------------------------------------------------------------


def choose_groups(channels: int, groups: int | None = None, group_size: int | None = None) -> int:
    """How many groups `channels` fall into: as asked, else C // 8 of them, at least 1 and at most 32.

    From 256 channels on this is the paper's 32. The nets here are narrower: 32 groups of 16 channels do not exist, and
    groups of one channel would have variance 0 on a 1 x 1 map.
    Raises Unsupported, with the numbers that work, where the channels do not divide; ValueError where both are given.
    """
    if groups is not None and group_size is not None:
        raise ValueError(f"evonorm: groups={groups} and group_size={group_size}; give one of the two")
    if group_size is not None:
        if channels % group_size:
            raise Unsupported(f"evonorm: group_size={group_size} does not divide C={channels}; {mend('group_size', channels)}")
        return channels // group_size
    wanted = min(max(channels // GROUP_SIZE, 1), MOST_GROUPS) if groups is None else groups
    if channels % wanted:
        asked = f"the default of {wanted} groups (C // {GROUP_SIZE})" if groups is None else f"groups={groups}"
        raise Unsupported(f"evonorm: {asked} does not divide C={channels}; {mend('groups', channels)}, or change net.width")
    return wanted


def mend(key: str, channels: int) -> str:
    """The numbers that divide the channels, for messages: write groups: 1, 2, 3 or 6."""
    fits = [str(d) for d in range(1, channels + 1) if channels % d == 0]
    return f"write {key}: " + (f"{', '.join(fits[:-1])} or {fits[-1]}" if len(fits) > 1 else fits[0])


def build_b0(place: Any, params: Any) -> nn.Module:
    return _build_b(place, params, "b0")


def build_b1(place: Any, params: Any) -> nn.Module:
    return _build_b(place, params, "b1")


def build_b2(place: Any, params: Any) -> nn.Module:
    return _build_b(place, params, "b2")


def build_s0(place: Any, params: Any) -> nn.Module:
    return _build_s(place, params, "s0")


def build_s1(place: Any, params: Any) -> nn.Module:
    return _build_s(place, params, "s1")


def build_s2(place: Any, params: Any) -> nn.Module:
    return _build_s(place, params, "s2")


def _build_b(place: Any, params: Any, form: BForm) -> nn.Module:
    _require_maps(place, form)
    return _without_norm(place, params) or EvoNormB(place.features, form, params.eps, params.momentum)


def _build_s(place: Any, params: Any, form: SForm) -> nn.Module:
    _require_maps(place, form)
    groups = choose_groups(place.features, params.groups, params.group_size)
    return _without_norm(place, params) or EvoNormS(place.features, form, groups, params.eps)


def _without_norm(place: Any, params: Any) -> nn.Module | None:
    """What stands around a residual addition, as in the authors' ResNet; None where an EvoNorm stands.

    In front of it an affine map, in the residual branch with gamma = 0 at the start, so that each block begins as its
    shortcut; behind it a ReLU. Source: github.com/tensorflow/tpu, models/official/resnet/resnet_model.py.
    """
    if place.role == "join":
        return nn.ReLU()
    if not place.activated:
        return Affine(place.features, params.residual_gamma if place.role == "residual" else 1.0)
    return None


def _require_maps(place: Any, form: str) -> None:
    if place.dims != 2:
        shape = {0: "(N, C)", 1: "(N, T, C)"}.get(place.dims, f"{place.dims} dims")
        raise Unsupported(
            f"evonorm-{form} needs feature maps (N, C, H, W); this place has {shape}: use net.arch cnn or resnet8"
        )
