"""EvoNorm-S0 and -B0 on CUDA, by Triton: float32, bfloat16 and float16, any strides. Importing it imports Triton.

In: maps (N, C, H, W) and v, gamma, beta (C,). Out: as the layers of `method`, with the gradients of all four, computed in
float32. Sums go by program and then over the batch, in a fixed order: the same input gives the same bits. Not differentiable
twice. S0: a program has a group of one sample, which its second read finds in the cache. B0: a program has some maps of
one sample; x and dy are read from memory twice, since the whole batch must be summed before any output.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST_IN_TILE = 2048  # values of a map, or of several channels, that a program holds at a time


@triton.jit
def _pixels(at, width, row, step):
    """Offsets inside a map."""
    return (at // width) * row + (at % width) * step


@triton.jit
def _s0_forward(
    x, v, gamma, beta, y, stats, channels, group, size, width, eps,
    xn, xc, xh, xw, yn, yc, yh, yw, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    groups = channels // group
    sample, first = program // groups, program % groups * group
    j = tl.arange(0, CHANNELS)
    c = first + j
    x += sample * xn
    total = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (j < group)[:, None] & (at < size)[None, :]
        total += tl.sum(tl.load(x + c[:, None] * xc + _pixels(at, width, xh, xw)[None, :], inside, 0.0).to(tl.float32), 1)
    mean = tl.sum(total, 0) / (group * size)
    total = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (j < group)[:, None] & (at < size)[None, :]
        off = tl.load(x + c[:, None] * xc + _pixels(at, width, xh, xw)[None, :], inside, 0.0).to(tl.float32) - mean
        total += tl.sum(tl.where(inside, off * off, 0.0), 1)
    rstd = 1.0 / tl.sqrt(tl.sum(total, 0) / (group * size) + eps)
    tl.store(stats + 2 * program, mean)
    tl.store(stats + 2 * program + 1, rstd)
    v_c = tl.load(v + c, j < group, 0.0).to(tl.float32)[:, None]
    scale = tl.load(gamma + c, j < group, 0.0).to(tl.float32)[:, None] * rstd
    shift = tl.load(beta + c, j < group, 0.0).to(tl.float32)[:, None]
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (j < group)[:, None] & (at < size)[None, :]
        value = tl.load(x + c[:, None] * xc + _pixels(at, width, xh, xw)[None, :], inside, 0.0).to(tl.float32)
        value = value * tl.sigmoid(v_c * value) * scale + shift
        tl.store(y + sample * yn + c[:, None] * yc + _pixels(at, width, yh, yw)[None, :], value, inside)


@triton.jit
def _s0_backward(
    x, v, gamma, dy, stats, dx, sums, samples, channels, group, size, width,
    xn, xc, xh, xw, gn, gc, gh, gw, dn, dc, dh, dw, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    groups = channels // group
    sample, first = program // groups, program % groups * group
    j = tl.arange(0, CHANNELS)
    c = first + j
    x += sample * xn
    dy += sample * gn
    dx += sample * dn
    mean = tl.load(stats + 2 * program)
    rstd = tl.load(stats + 2 * program + 1)
    v_c = tl.load(v + c, j < group, 0.0).to(tl.float32)
    gamma_c = tl.load(gamma + c, j < group, 0.0).to(tl.float32)
    by_v = tl.zeros((CHANNELS,), tl.float32)
    by_gamma = tl.zeros((CHANNELS,), tl.float32)
    by_beta = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (j < group)[:, None] & (at < size)[None, :]
        value = tl.load(x + c[:, None] * xc + _pixels(at, width, xh, xw)[None, :], inside, 0.0).to(tl.float32)
        grad = tl.load(dy + c[:, None] * gc + _pixels(at, width, gh, gw)[None, :], inside, 0.0).to(tl.float32)
        s = tl.sigmoid(v_c[:, None] * value)
        by_v += tl.sum(grad * value * value * s * (1.0 - s), 1)
        by_gamma += tl.sum(grad * value * s, 1)
        by_beta += tl.sum(grad, 1)
    plane = samples.to(tl.int64) * channels
    kept = sample * channels + c
    tl.store(sums + kept, by_v * gamma_c * rstd, j < group)
    tl.store(sums + plane + kept, by_gamma * rstd, j < group)
    tl.store(sums + 2 * plane + kept, by_beta, j < group)
    slope = tl.sum(by_gamma * gamma_c, 0) * rstd * rstd * rstd / (group * size)
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (j < group)[:, None] & (at < size)[None, :]
        value = tl.load(x + c[:, None] * xc + _pixels(at, width, xh, xw)[None, :], inside, 0.0).to(tl.float32)
        grad = tl.load(dy + c[:, None] * gc + _pixels(at, width, gh, gw)[None, :], inside, 0.0).to(tl.float32)
        s = tl.sigmoid(v_c[:, None] * value)
        direct = gamma_c[:, None] * rstd * grad * (s + v_c[:, None] * value * s * (1.0 - s))
        out = direct - slope * (value - mean)
        tl.store(dx + c[:, None] * dc + _pixels(at, width, dh, dw)[None, :], out, inside)


@triton.jit
def _b0_statistics(
    x, means, variances, channels, blocks, size, width, xn, xc, xh, xw, CHANNELS: tl.constexpr, PIXELS: tl.constexpr
):
    program = tl.program_id(0).to(tl.int64)
    sample, c = program // blocks, program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    x += sample * xn
    total = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (c < channels)[:, None] & (at < size)[None, :]
        total += tl.sum(tl.load(x + c[:, None] * xc + _pixels(at, width, xh, xw)[None, :], inside, 0.0).to(tl.float32), 1)
    mean = total / size
    total = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (c < channels)[:, None] & (at < size)[None, :]
        off = tl.load(x + c[:, None] * xc + _pixels(at, width, xh, xw)[None, :], inside, 0.0).to(tl.float32) - mean[:, None]
        total += tl.sum(tl.where(inside, off * off, 0.0), 1)
    tl.store(means + sample * channels + c, mean, c < channels)
    tl.store(variances + sample * channels + c, total / size, c < channels)


@triton.jit
def _b0_forward(
    x, v, gamma, beta, stds, batch_stds, y, channels, blocks, size, width,
    xn, xc, xh, xw, yn, yc, yh, yw, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    sample, c = program // blocks, program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    v_c = tl.load(v + c, c < channels, 0.0).to(tl.float32)[:, None]
    scale = tl.load(gamma + c, c < channels, 0.0).to(tl.float32)[:, None]
    shift = tl.load(beta + c, c < channels, 0.0).to(tl.float32)[:, None]
    std = tl.load(stds + sample * channels + c, c < channels, 1.0)[:, None]
    batch_std = tl.load(batch_stds + c, c < channels, 1.0)[:, None]
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (c < channels)[:, None] & (at < size)[None, :]
        offsets = c[:, None] * xc + _pixels(at, width, xh, xw)[None, :]
        value = tl.load(x + sample * xn + offsets, inside, 0.0).to(tl.float32)
        divisor = tl.maximum(v_c * value + std, batch_std, propagate_nan=tl.PropagateNan.ALL)
        offsets = c[:, None] * yc + _pixels(at, width, yh, yw)[None, :]
        tl.store(y + sample * yn + offsets, scale * value / divisor + shift, inside)


@triton.jit
def _b0_sums(
    x, v, dy, stds, batch_stds, sums, samples, channels, blocks, size, width,
    xn, xc, xh, xw, gn, gc, gh, gw, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Of each sample and channel, without gamma: by v, gamma, beta, by the map's deviation and by the batch's."""
    program = tl.program_id(0).to(tl.int64)
    sample, c = program // blocks, program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    kept = sample * channels + c
    v_c = tl.load(v + c, c < channels, 0.0).to(tl.float32)[:, None]
    std = tl.load(stds + kept, c < channels, 1.0)[:, None]
    batch_std = tl.load(batch_stds + c, c < channels, 1.0)[:, None]
    by_v = tl.zeros((CHANNELS,), tl.float32)
    by_gamma = tl.zeros((CHANNELS,), tl.float32)
    by_beta = tl.zeros((CHANNELS,), tl.float32)
    by_map = tl.zeros((CHANNELS,), tl.float32)
    by_batch = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (c < channels)[:, None] & (at < size)[None, :]
        offsets = c[:, None] * xc + _pixels(at, width, xh, xw)[None, :]
        value = tl.load(x + sample * xn + offsets, inside, 0.0).to(tl.float32)
        offsets = c[:, None] * gc + _pixels(at, width, gh, gw)[None, :]
        grad = tl.load(dy + sample * gn + offsets, inside, 0.0).to(tl.float32)
        rival = v_c * value + std
        share = tl.where(rival == batch_std, 0.5, tl.where(rival > batch_std, 1.0, 0.0))
        u = 1.0 / tl.maximum(rival, batch_std, propagate_nan=tl.PropagateNan.ALL)
        by_scale = grad * value * u
        by_divisor = -by_scale * u
        by_v += tl.sum(share * by_divisor * value, 1)
        by_gamma += tl.sum(by_scale, 1)
        by_beta += tl.sum(grad, 1)
        by_map += tl.sum(share * by_divisor, 1)
        by_batch += tl.sum((1.0 - share) * by_divisor, 1)
    plane = samples.to(tl.int64) * channels
    tl.store(sums + kept, by_v, c < channels)
    tl.store(sums + plane + kept, by_gamma, c < channels)
    tl.store(sums + 2 * plane + kept, by_beta, c < channels)
    tl.store(sums + 3 * plane + kept, by_map, c < channels)
    tl.store(sums + 4 * plane + kept, by_batch, c < channels)


@triton.jit
def _b0_backward(
    x, v, gamma, dy, stds, batch_stds, means, batch_means, pulls, batch_pulls, dx, channels, blocks, size, width,
    xn, xc, xh, xw, gn, gc, gh, gw, dn, dc, dh, dw, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    sample, c = program // blocks, program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    kept = sample * channels + c
    v_c = tl.load(v + c, c < channels, 0.0).to(tl.float32)[:, None]
    scale = tl.load(gamma + c, c < channels, 0.0).to(tl.float32)[:, None]
    std = tl.load(stds + kept, c < channels, 1.0)[:, None]
    mean = tl.load(means + kept, c < channels, 0.0)[:, None]
    pull = tl.load(pulls + kept, c < channels, 0.0)[:, None]
    batch_std = tl.load(batch_stds + c, c < channels, 1.0)[:, None]
    batch_mean = tl.load(batch_means + c, c < channels, 0.0)[:, None]
    batch_pull = tl.load(batch_pulls + c, c < channels, 0.0)[:, None]
    for start in range(0, size, PIXELS):
        at = start + tl.arange(0, PIXELS)
        inside = (c < channels)[:, None] & (at < size)[None, :]
        offsets = c[:, None] * xc + _pixels(at, width, xh, xw)[None, :]
        value = tl.load(x + sample * xn + offsets, inside, 0.0).to(tl.float32)
        offsets = c[:, None] * gc + _pixels(at, width, gh, gw)[None, :]
        grad = tl.load(dy + sample * gn + offsets, inside, 0.0).to(tl.float32)
        rival = v_c * value + std
        share = tl.where(rival == batch_std, 0.5, tl.where(rival > batch_std, 1.0, 0.0))
        u = 1.0 / tl.maximum(rival, batch_std, propagate_nan=tl.PropagateNan.ALL)
        out = scale * grad * u * (1.0 - share * v_c * value * u) + pull * (value - mean) + batch_pull * (value - batch_mean)
        offsets = c[:, None] * dc + _pixels(at, width, dh, dw)[None, :]
        tl.store(dx + sample * dn + offsets, out, inside)


def tile(channels: int, pixels: int) -> tuple[int, int]:
    """Channels and values of each that a program holds at a time, powers of two: at most MOST_IN_TILE, or a value of each."""
    width = min(triton.next_power_of_2(pixels), MOST_IN_TILE)
    return min(triton.next_power_of_2(channels), max(1, MOST_IN_TILE // width)), width


def group_tile(group: int, pixels: int) -> tuple[int, int]:
    """The same for a whole group: a program has all of its channels."""
    height = triton.next_power_of_2(group)
    return height, min(triton.next_power_of_2(pixels), max(1, MOST_IN_TILE // height))


class S0(torch.autograd.Function):
    """(x, v, gamma, beta, channels a group, eps) -> y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, gamma: Tensor, beta: Tensor, group: int, eps: float) -> Tensor:
        v, gamma, beta = v.contiguous(), gamma.contiguous(), beta.contiguous()
        n, c, h, w = x.shape
        y = torch.empty_like(x)
        stats = torch.empty(n * (c // group), 2, dtype=torch.float32, device=x.device)
        if x.numel():
            _s0_forward[(n * (c // group),)](
                x, v, gamma, beta, y, stats, c, group, h * w, w, eps, *x.stride(), *y.stride(), *group_tile(group, h * w)
            )
        ctx.save_for_backward(x, v, gamma, stats)
        ctx.group = group
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, v, gamma, stats = ctx.saved_tensors
        n, c, h, w = x.shape
        dx = torch.empty_like(x)
        sums = torch.empty(3, n, c, dtype=torch.float32, device=x.device)
        if x.numel():
            _s0_backward[(n * (c // ctx.group),)](
                x, v, gamma, dy, stats, dx, sums, n, c, ctx.group, h * w, w, *x.stride(), *dy.stride(), *dx.stride(),
                *group_tile(ctx.group, h * w),
            )  # fmt: skip
        by_v, by_gamma, by_beta = sums.sum(1)
        return dx, by_v.to(v.dtype), by_gamma.to(gamma.dtype), by_beta.to(v.dtype), None, None


class B0(torch.autograd.Function):
    """(x, v, gamma, beta, eps) -> y, with the statistics of this batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        v, gamma, beta = v.contiguous(), gamma.contiguous(), beta.contiguous()
        n, c, h, w = x.shape
        y = torch.empty_like(x)
        means, variances = torch.empty(2, n, c, dtype=torch.float32, device=x.device)
        channels, pixels = tile(c, h * w)
        grid, blocks = (n * triton.cdiv(c, channels),), triton.cdiv(c, channels)
        if x.numel():
            _b0_statistics[grid](x, means, variances, c, blocks, h * w, w, *x.stride(), channels, pixels)
        batch_means = means.mean(0)
        stds = (variances + eps).sqrt()
        batch_stds = ((variances + (means - batch_means).square()).mean(0) + eps).sqrt()
        if x.numel():
            _b0_forward[grid](
                x, v, gamma, beta, stds, batch_stds, y, c, blocks, h * w, w, *x.stride(), *y.stride(), channels, pixels
            )
        ctx.save_for_backward(x, v, gamma, means, stds, batch_means, batch_stds)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, v, gamma, means, stds, batch_means, batch_stds = ctx.saved_tensors
        n, c, h, w = x.shape
        dx = torch.empty_like(x)
        sums = torch.empty(5, n, c, dtype=torch.float32, device=x.device)
        channels, pixels = tile(c, h * w)
        grid, blocks = (n * triton.cdiv(c, channels),), triton.cdiv(c, channels)
        if not x.numel():
            return dx, torch.zeros_like(v), torch.zeros_like(gamma), torch.zeros_like(v), None
        _b0_sums[grid](x, v, dy, stds, batch_stds, sums, n, c, blocks, h * w, w, *x.stride(), *dy.stride(), channels, pixels)
        wide = gamma.float()
        by_v, by_gamma, by_beta, _, by_batch = sums.sum(1)
        pulls = wide * sums[3] / (h * w * stds)
        batch_pulls = wide * by_batch / (n * h * w * batch_stds)
        _b0_backward[grid](
            x, v, gamma, dy, stds, batch_stds, means, batch_means, pulls, batch_pulls, dx, c, blocks, h * w, w,
            *x.stride(), *dy.stride(), *dx.stride(), channels, pixels,
        )  # fmt: skip
        return dx, (wide * by_v).to(v.dtype), by_gamma.to(gamma.dtype), by_beta.to(v.dtype), None
