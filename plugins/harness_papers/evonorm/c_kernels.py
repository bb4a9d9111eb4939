"""EvoNorm-S0 and -B0 on the CPU: plain C, forward and backward, float32, any strides, in one thread whatever torch uses.

In: maps (N, C, H, W) and v, gamma, beta (C,), float32 on the CPU. Out: as the layers of `method`, with the gradients of all
four. Besides what goes in and comes out, only statistics of groups, maps and channels take memory; maps whose values do not
follow each other go through 8 KB on the stack, and no copy is made. Not differentiable twice.
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.lab import native

PLAN_SIZE = 5 + 4 * 4  # sizes, and the strides of four tensors
FLAGS = ("-fopenmp-simd",)  # sums may be reordered where the source says so; nothing is linked

SOURCE = r"""
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TILE = 2048 };                       // floats: 8 KB, which a level-one cache holds
#define MIN(a, b) ((a) < (b) ? (a) : (b))

typedef struct { ptrdiff_t sample, channel, row, step; } Strides;
// A map is `rows` runs of `length` values; one run where its rows follow each other.
typedef struct { ptrdiff_t samples, channels, group, rows, length; Strides x, y, dy, dx; } Plan;
typedef struct { double count, mean, squares; } Moments;    // squares: sum of squared deviations from the mean

unsigned long long calls = 0;

// exp to 2 units in the last place, as 2^n exp(r), |r| <= ln 2 / 2. Below -87.3 it stays at exp(-87.3), above 88 at exp(88).
// The polynomial is 1 + r + r^2 q(r), q minimising the largest relative error (3e-9).
static inline float exponential(float x) {
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.3f ? -87.3f : x;
    const float magic = 12582912.0f;        // 1.5 * 2^23: adding it rounds to whole numbers, in the low bits
    float shifted = x * 1.44269504f + magic;
    float n = shifted - magic;
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float q = 0.00138145996f;
    q = q * r + 0.0083687169f;
    q = q * r + 0.041668388f;
    q = q * r + 0.166665206f;
    q = q * r + 0.499999934f;
    float p = q * (r * r) + r + 1.0f;
    int32_t bits, scale;
    memcpy(&bits, &shifted, sizeof bits);
    scale = (bits << 23) + 0x3f800000;
    float power;
    memcpy(&power, &scale, sizeof power);
    return p * power;
}

static inline float logistic(float z) { return 1.0f / (1.0f + exponential(-z)); }

static inline float root(double square) { return (float)__builtin_sqrt(square); }

// Runs that do not lie one value after the other go through a tile on the stack.
static inline const float *gathered(const float *from, ptrdiff_t step, ptrdiff_t count, float *tile) {
    if (step == 1) return from;
    for (ptrdiff_t i = 0; i < count; i++) tile[i] = from[i * step];
    return tile;
}

static inline void scattered(float *to, ptrdiff_t step, ptrdiff_t count, const float *tile) {
    if (to == tile) return;
    for (ptrdiff_t i = 0; i < count; i++) to[i * step] = tile[i];
}

static inline Moments together(Moments a, Moments b) {
    if (a.count == 0) return b;
    double count = a.count + b.count, off = b.mean - a.mean, share = b.count / count;
    return (Moments){count, a.mean + off * share, a.squares + b.squares + off * off * a.count * share};
}

// The mean first, then deviations from it: both from the level-one cache, and nothing cancels.
static inline Moments of_run(const float *x, ptrdiff_t count) {
    float sum = 0, off = 0, squares = 0;
    #pragma omp simd reduction(+ : sum)
    for (ptrdiff_t i = 0; i < count; i++) sum += x[i];
    float mean = sum / (float)count;
    #pragma omp simd reduction(+ : off, squares)
    for (ptrdiff_t i = 0; i < count; i++) {
        float d = x[i] - mean;
        off += d;
        squares += d * d;
    }
    double rest = (double)off / (double)count;   // what rounding the mean left
    return (Moments){(double)count, (double)mean + rest, (double)squares - rest * (double)off};
}

// Not inlined: gcc 12 then makes of its loops code that is three times slower.
__attribute__((noinline))
static Moments of_rows(const float *x, ptrdiff_t rows, ptrdiff_t length, ptrdiff_t row, ptrdiff_t step) {
    float tile[TILE];
    Moments all = {0, 0, 0};
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t at = 0; at < length; at += TILE) {
            ptrdiff_t count = MIN(TILE, length - at);
            all = together(all, of_run(gathered(x + r * row + at * step, step, count, tile), count));
        }
    return all;
}

// The channels of one group of one sample; one run where they follow each other.
static Moments of_group(const float *x, const Plan *p) {
    if (p->rows == 1 && p->x.channel == p->length * p->x.step)
        return of_rows(x, 1, p->group * p->length, 0, p->x.step);
    Moments all = {0, 0, 0};
    for (ptrdiff_t j = 0; j < p->group; j++)
        all = together(all, of_rows(x + j * p->x.channel, p->rows, p->length, p->x.row, p->x.step));
    return all;
}

#define EACH_TILE(plan, row, at, count) \
    for (ptrdiff_t row = 0; row < (plan)->rows; row++) \
        for (ptrdiff_t at = 0, count; count = MIN(TILE, (plan)->length - at), at < (plan)->length; at += TILE)
#define AT(tensor, strides, row, at) ((tensor) + (row) * (strides).row + (at) * (strides).step)

// S0 ----------------------------------------------------------------------------------------------------------------------

// statistics: of each sample and group, mean and 1 / std.
void s0_forward(const Plan *p, const float *x, const float *v, const float *gamma, const float *beta, double eps,
                float *y, float *statistics) {
    float in[TILE], out[TILE];
    calls++;
    for (ptrdiff_t i = 0; i < p->samples; i++)
        for (ptrdiff_t first = 0; first < p->channels; first += p->group) {
            const float *x_group = x + i * p->x.sample + first * p->x.channel;
            Moments all = of_group(x_group, p);
            float rstd = 1.0f / root(all.squares / all.count + eps);
            *statistics++ = (float)all.mean;
            *statistics++ = rstd;
            for (ptrdiff_t j = 0; j < p->group; j++) {
                ptrdiff_t c = first + j;
                float v_c = v[c], scale = gamma[c] * rstd, shift = beta[c];
                EACH_TILE(p, row, at, count) {
                    float *y_at = AT(y + i * p->y.sample + c * p->y.channel, p->y, row, at);
                    const float *x_at = AT(x_group + j * p->x.channel, p->x, row, at);
                    x_at = gathered(x_at, p->x.step, count, in);
                    float *to = p->y.step == 1 ? y_at : out;
                    #pragma omp simd
                    for (ptrdiff_t e = 0; e < count; e++)
                        to[e] = x_at[e] / (1.0f + exponential(-v_c * x_at[e])) * scale + shift;
                    scattered(y_at, p->y.step, count, to);
                }
            }
        }
}

// d: gradients of v, gamma, beta, C each, zero at the start.
void s0_backward(const Plan *p, const float *x, const float *v, const float *gamma, const float *dy,
                 const float *statistics, float *dx, double *d) {
    float in[TILE], grad[TILE], out[TILE];
    double *dv = d, *dgamma = dv + p->channels, *dbeta = dgamma + p->channels;
    double size = (double)(p->group * p->rows * p->length);
    calls++;
    for (ptrdiff_t i = 0; i < p->samples; i++)
        for (ptrdiff_t first = 0; first < p->channels; first += p->group) {
            float mean = *statistics++, rstd = *statistics++;
            double pull = 0;    // the gradient of rstd
            // First what comes without the statistics; dx of a group is still in the cache when the rest is added.
            for (ptrdiff_t j = 0; j < p->group; j++) {
                ptrdiff_t c = first + j;
                float v_c = v[c], scale = gamma[c] * rstd;
                double by_v = 0, by_gamma = 0, by_beta = 0;
                EACH_TILE(p, row, at, count) {
                    const float *x_at = AT(x + i * p->x.sample + c * p->x.channel, p->x, row, at);
                    const float *dy_at = AT(dy + i * p->dy.sample + c * p->dy.channel, p->dy, row, at);
                    x_at = gathered(x_at, p->x.step, count, in);
                    dy_at = gathered(dy_at, p->dy.step, count, grad);
                    float *dx_at = AT(dx + i * p->dx.sample + c * p->dx.channel, p->dx, row, at);
                    float *to = p->dx.step == 1 ? dx_at : out;
                    float some_v = 0, some_gamma = 0, some_beta = 0;
                    #pragma omp simd reduction(+ : some_v, some_gamma, some_beta)
                    for (ptrdiff_t e = 0; e < count; e++) {
                        float x_e = x_at[e], g = dy_at[e];
                        float s = logistic(v_c * x_e);
                        float slope = x_e * (s - s * s);        // of s by v
                        some_v += g * x_e * slope;
                        some_gamma += g * x_e * s;
                        some_beta += g;
                        to[e] = scale * g * (s + v_c * slope);
                    }
                    scattered(dx_at, p->dx.step, count, to);
                    by_v += (double)some_v;
                    by_gamma += (double)some_gamma;
                    by_beta += (double)some_beta;
                }
                dv[c] += by_v * (double)scale;
                dgamma[c] += by_gamma * (double)rstd;
                dbeta[c] += by_beta;
                pull += by_gamma * (double)gamma[c];
            }
            float slope = (float)(pull * (double)rstd * (double)rstd * (double)rstd / size);
            for (ptrdiff_t j = 0; j < p->group; j++) {
                ptrdiff_t c = first + j;
                EACH_TILE(p, row, at, count) {
                    const float *x_at = AT(x + i * p->x.sample + c * p->x.channel, p->x, row, at);
                    float *dx_at = AT(dx + i * p->dx.sample + c * p->dx.channel, p->dx, row, at);
                    ptrdiff_t x_step = p->x.step, dx_step = p->dx.step;
                    if (x_step == 1 && dx_step == 1)
                        for (ptrdiff_t e = 0; e < count; e++) dx_at[e] -= slope * (x_at[e] - mean);
                    else
                        for (ptrdiff_t e = 0; e < count; e++) dx_at[e * dx_step] -= slope * (x_at[e * x_step] - mean);
                }
            }
        }
}

// B0 ----------------------------------------------------------------------------------------------------------------------
// Two sweeps over the whole batch. Channel by channel, with a channel kept in the cache, less would be read from memory, yet
// it took longer: a map here and a map there is what the processor's prefetching cannot guess.

// of_maps: of each sample and channel, mean and std. of_channels: of each channel, the same. work: 3 C, zero at the start.
void b0_forward(const Plan *p, const float *x, const float *v, const float *gamma, const float *beta, double eps,
                float *y, float *of_maps, float *of_channels, double *work) {
    float in[TILE], out[TILE];
    Moments *batch = (Moments *)work;
    calls++;
    for (ptrdiff_t i = 0; i < p->samples; i++)
        for (ptrdiff_t c = 0; c < p->channels; c++) {
            const float *map = x + i * p->x.sample + c * p->x.channel;
            Moments one = of_rows(map, p->rows, p->length, p->x.row, p->x.step);
            float *kept = of_maps + 2 * (i * p->channels + c);
            kept[0] = (float)one.mean;
            kept[1] = root(one.squares / one.count + eps);
            batch[c] = together(batch[c], one);
        }
    for (ptrdiff_t c = 0; c < p->channels; c++) {
        of_channels[2 * c] = (float)batch[c].mean;
        of_channels[2 * c + 1] = root(batch[c].squares / batch[c].count + eps);
    }
    for (ptrdiff_t i = 0; i < p->samples; i++)
        for (ptrdiff_t c = 0; c < p->channels; c++) {
            float std = of_maps[2 * (i * p->channels + c) + 1], batch_std = of_channels[2 * c + 1];
            // Where the batch's deviation is NaN every value is, whichever arm it would take.
            float v_c = v[c], scale = batch_std == batch_std ? gamma[c] : batch_std, shift = beta[c];
            EACH_TILE(p, row, at, count) {
                const float *x_at = AT(x + i * p->x.sample + c * p->x.channel, p->x, row, at);
                float *y_at = AT(y + i * p->y.sample + c * p->y.channel, p->y, row, at);
                x_at = gathered(x_at, p->x.step, count, in);
                float *to = p->y.step == 1 ? y_at : out;
                #pragma omp simd
                for (ptrdiff_t e = 0; e < count; e++) {
                    float rival = v_c * x_at[e] + std;
                    to[e] = scale * x_at[e] / (rival <= batch_std ? batch_std : rival) + shift;
                }
                scattered(y_at, p->y.step, count, to);
            }
        }
}

// Where the rival wins: 1; where it ties, half, as in torch.maximum.
static inline float won(float rival, float batch_std) {
    float share = rival > batch_std ? 1.0f : 0.0f;
    return rival == batch_std ? 0.5f : share;
}

// pulls: a float for each sample and channel. d: gradients of v, gamma, beta and the batch's deviations, zero at the start.
void b0_backward(const Plan *p, const float *x, const float *v, const float *gamma, const float *dy,
                 const float *of_maps, const float *of_channels, float *dx, float *pulls, double *d) {
    float in[TILE], grad[TILE], out[TILE];
    ptrdiff_t channels = p->channels;
    double *dv = d, *dgamma = dv + channels, *dbeta = dgamma + channels, *of_batch = dbeta + channels;
    double size = (double)(p->rows * p->length);
    calls++;
    for (ptrdiff_t i = 0; i < p->samples; i++)
        for (ptrdiff_t c = 0; c < channels; c++) {
            float std = of_maps[2 * (i * channels + c) + 1], batch_std = of_channels[2 * c + 1], v_c = v[c];
            double by_v = 0, by_gamma = 0, by_beta = 0, by_map = 0, by_batch = 0;
            EACH_TILE(p, row, at, count) {
                const float *x_at = AT(x + i * p->x.sample + c * p->x.channel, p->x, row, at);
                const float *dy_at = AT(dy + i * p->dy.sample + c * p->dy.channel, p->dy, row, at);
                x_at = gathered(x_at, p->x.step, count, in);
                dy_at = gathered(dy_at, p->dy.step, count, grad);
                float some_v = 0, some_gamma = 0, some_beta = 0, some_map = 0, some_batch = 0;
                #pragma omp simd reduction(+ : some_v, some_gamma, some_beta, some_map, some_batch)
                for (ptrdiff_t e = 0; e < count; e++) {
                    float x_e = x_at[e], g = dy_at[e];
                    float rival = v_c * x_e + std;
                    float share = won(rival, batch_std);
                    float u = 1.0f / (rival <= batch_std ? batch_std : rival);
                    float by_scale = g * x_e * u, by_divisor = by_scale * u, by_rival = share * by_divisor;
                    some_gamma += by_scale;
                    some_beta += g;
                    some_map += by_rival;
                    some_batch += by_divisor - by_rival;
                    some_v += by_rival * x_e;
                }
                by_v += (double)some_v;
                by_gamma += (double)some_gamma;
                by_beta += (double)some_beta;
                by_map += (double)some_map;
                by_batch += (double)some_batch;
            }
            double gamma_c = (double)gamma[c];
            dv[c] -= gamma_c * by_v;
            dgamma[c] += by_gamma;
            dbeta[c] += by_beta;
            of_batch[c] -= gamma_c * by_batch;
            pulls[i * channels + c] = (float)(-gamma_c * by_map / (size * (double)std));
        }
    for (ptrdiff_t i = 0; i < p->samples; i++)
        for (ptrdiff_t c = 0; c < channels; c++) {
            const float *map = of_maps + 2 * (i * channels + c), *batch = of_channels + 2 * c;
            float mean = map[0], std = map[1], batch_mean = batch[0], batch_std = batch[1];
            float v_c = v[c], scale = batch_std == batch_std ? gamma[c] : batch_std, pull = pulls[i * channels + c];
            float batch_pull = (float)(of_batch[c] / (size * (double)p->samples * (double)batch_std));
            EACH_TILE(p, row, at, count) {
                const float *x_at = AT(x + i * p->x.sample + c * p->x.channel, p->x, row, at);
                const float *dy_at = AT(dy + i * p->dy.sample + c * p->dy.channel, p->dy, row, at);
                x_at = gathered(x_at, p->x.step, count, in);
                dy_at = gathered(dy_at, p->dy.step, count, grad);
                float *dx_at = AT(dx + i * p->dx.sample + c * p->dx.channel, p->dx, row, at);
                float *to = p->dx.step == 1 ? dx_at : out;
                #pragma omp simd
                for (ptrdiff_t e = 0; e < count; e++) {
                    float x_e = x_at[e];
                    float rival = v_c * x_e + std;
                    float u = 1.0f / (rival <= batch_std ? batch_std : rival);
                    float direct = scale * dy_at[e] * u * (1.0f - won(rival, batch_std) * v_c * x_e * u);
                    to[e] = direct + pull * (x_e - mean) + batch_pull * (x_e - batch_mean);
                }
                scattered(dx_at, p->dx.step, count, to);
            }
        }
}
"""


@cache
def library() -> ctypes.CDLL:
    """The compiled source, its functions' arguments declared. Raises NoCompiler."""
    lib = native.load(SOURCE, flags=FLAGS)
    address, real = ctypes.c_void_p, ctypes.c_double
    for name, arguments in {
        "s0_forward": [address] * 5 + [real] + [address] * 2,
        "s0_backward": [address] * 8,
        "b0_forward": [address] * 5 + [real] + [address] * 4,
        "b0_backward": [address] * 10,
    }.items():
        function = getattr(lib, name)
        function.argtypes, function.restype = arguments, None
    return lib


def count_calls() -> int:
    """How often our C code was entered in this process: it counts itself."""
    return ctypes.c_ulonglong.in_dll(library(), "calls").value


def why_not() -> str:
    """Why the C code cannot run here, "" where it can."""
    return native.why_not(SOURCE, flags=FLAGS)


@lru_cache(maxsize=256)
def make_plan(shape: tuple[int, ...], group: int, *strides: tuple[int, ...]) -> Any:
    """The sizes and strides as `Plan` of the source holds them. group: channels a group.

    strides: of x and y forward; of x, x, dy and dx backward.
    """
    n, c, h, w = shape
    steps = [_step(h, w, row, step) for *_, row, step in strides]
    if None in steps:
        rows, length = h, w
    else:  # one run a map in every tensor, as long as it can be
        rows, length = 1, h * w
        strides = tuple((sample, channel, 0, step) for (sample, channel, _, _), step in zip(strides, steps, strict=True))
    numbers = [n, c, group, rows, length, *(s for four in strides for s in four)]
    numbers += [0] * (PLAN_SIZE - len(numbers))
    return (ctypes.c_ssize_t * PLAN_SIZE)(*numbers)


def _step(height: int, width: int, row: int, step: int) -> int | None:
    """From one value of a map to the next; None where its rows do not follow each other."""
    if height * width == 1:
        return 1
    if height == 1:
        return step
    if width == 1:
        return row
    return step if row == width * step else None


class S0(torch.autograd.Function):
    """(x, v, gamma, beta, channels a group, eps) -> y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, gamma: Tensor, beta: Tensor, group: int, eps: float) -> Tensor:
        v, gamma, beta = v.contiguous(), gamma.contiguous(), beta.contiguous()
        y = torch.empty_like(x)
        plan = make_plan(x.shape, group, x.stride(), y.stride())
        statistics = x.new_empty(2 * x.shape[0] * (x.shape[1] // group))
        library().s0_forward(
            plan, x.data_ptr(), v.data_ptr(), gamma.data_ptr(), beta.data_ptr(), eps, y.data_ptr(), statistics.data_ptr()
        )
        ctx.save_for_backward(x, v, gamma, statistics)
        ctx.group = group
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, v, gamma, statistics = ctx.saved_tensors
        dx = torch.empty_like(x)
        plan = make_plan(x.shape, ctx.group, x.stride(), x.stride(), dy.stride(), dx.stride())
        sums = torch.zeros(3, x.shape[1], dtype=torch.float64)
        library().s0_backward(
            plan, x.data_ptr(), v.data_ptr(), gamma.data_ptr(), dy.data_ptr(), statistics.data_ptr(), dx.data_ptr(),
            sums.data_ptr(),
        )  # fmt: skip
        return dx, *sums.float().unbind(), None, None


class B0(torch.autograd.Function):
    """(x, v, gamma, beta, eps) -> y, with the statistics of this batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        v, gamma, beta = v.contiguous(), gamma.contiguous(), beta.contiguous()
        y = torch.empty_like(x)
        plan = make_plan(x.shape, 1, x.stride(), y.stride())
        n, c = x.shape[:2]
        of_maps, of_channels = x.new_empty(2 * n * c), x.new_empty(2 * c)
        work = torch.zeros(3 * c, dtype=torch.float64)
        library().b0_forward(
            plan, x.data_ptr(), v.data_ptr(), gamma.data_ptr(), beta.data_ptr(), eps, y.data_ptr(), of_maps.data_ptr(),
            of_channels.data_ptr(), work.data_ptr(),
        )  # fmt: skip
        ctx.save_for_backward(x, v, gamma, of_maps, of_channels)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, v, gamma, of_maps, of_channels = ctx.saved_tensors
        dx = torch.empty_like(x)
        plan = make_plan(x.shape, 1, x.stride(), x.stride(), dy.stride(), dx.stride())
        n, c = x.shape[:2]
        pulls, sums = x.new_empty(n * c), torch.zeros(4, c, dtype=torch.float64)
        library().b0_backward(
            plan, x.data_ptr(), v.data_ptr(), gamma.data_ptr(), dy.data_ptr(), of_maps.data_ptr(), of_channels.data_ptr(),
            dx.data_ptr(), pulls.data_ptr(), sums.data_ptr(),
        )  # fmt: skip
        return dx, *sums[:3].float().unbind(), None
