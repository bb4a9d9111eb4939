"""What turns a circuit's sums into currents, in one pass each way: subtract, fill zeros, divide, gain, bias. C on the CPU.

I = g_E (I_EE - I_EI) / I_sh + b_E with the zeros of I_sh filled as `layers.stabilised` does, adaptively. Torch's operations
take the time of some thirty copies for this, forward and back, and make a tensor for each sign of the formula; here nothing
is made but results. `why_eager` says where the formula runs instead.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from harness.lab import native
from harness.lab.native_elementwise import share
from harness_papers.ei_snn.c_kernels import FLAGS, REALS
from harness_papers.ei_snn.fused import PLAIN, rows

# A row is an item at a step: n units of P positions. Sums over rows are kept in float64.
SOURCE = r"""
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

typedef REAL real;
enum { MOST_THREADS = 64 };

// E: rows e_step elements apart; G: g_step. M: (N, 2 n P), I_EI then I_sh. out: (N, n P), currents or the gradient of E.
typedef struct {
    const real *E, *M, *G, *gain, *bias;
    real *out, *out_m;
    double *sums;  // (2, n): the gradients of gain and bias
    int64_t e_step, g_step, n, P, from, to;
    int through;
} Job;

// The smallest of d that is not 0; 1 where there is none.
static real least_of(const real *restrict d, int64_t size) {
    real least = __builtin_inf();
    #pragma omp simd reduction(min : least)
    for (int64_t i = 0; i < size; i++) {
        real v = d[i] == 0 ? (real)__builtin_inf() : d[i];
        least = v < least ? v : least;
    }
    return __builtin_isinf(least) ? 1 : least;
}

static void *forward_part(void *given) {
    const Job *a = given;
    const int64_t size = a->n * a->P;
    for (int64_t row = a->from; row < a->to; row++) {
        const real *e = a->E + row * a->e_step, *s = a->M + row * 2 * size, *d = s + size;
        real *out = a->out + row * size;
        const real least = least_of(d, size);
        if (a->P == 1) {
            #pragma omp simd
            for (int64_t i = 0; i < size; i++)
                out[i] = a->gain[i] * (e[i] - s[i]) / (d[i] == 0 ? least : d[i]) + a->bias[i];
            continue;
        }
        for (int64_t j = 0; j < a->n; j++) {
            const real gain = a->gain[j], bias = a->bias[j];
            #pragma omp simd
            for (int64_t i = j * a->P; i < (j + 1) * a->P; i++)
                out[i] = gain * (e[i] - s[i]) / (d[i] == 0 ? least : d[i]) + bias;
        }
    }
    return 0;
}

#define GRADIENTS(gain) \
    real r = 1 / (d[i] == 0 ? least : d[i]), q = (e[i] - s[i]) * r, t = G[i] * gain * r; \
    de[i] = t; \
    ds[i] = -t; \
    dd[i] = d[i] == 0 && !through ? 0 : -(t * q);

static void *backward_part(void *given) {
    const Job *a = given;
    const int64_t size = a->n * a->P;
    const int through = a->through;
    double *gains = a->sums, *biases = a->sums + a->n;
    for (int64_t row = a->from; row < a->to; row++) {
        const real *e = a->E + row * a->e_step, *s = a->M + row * 2 * size, *d = s + size, *G = a->G + row * a->g_step;
        real *de = a->out + row * size, *ds = a->out_m + row * 2 * size, *dd = ds + size;
        const real least = least_of(d, size);
        if (a->P == 1) {
            #pragma omp simd
            for (int64_t i = 0; i < size; i++) {
                GRADIENTS(a->gain[i])
                gains[i] += G[i] * q;
                biases[i] += G[i];
            }
            continue;
        }
        for (int64_t j = 0; j < a->n; j++) {
            const real gain = a->gain[j];
            real of_gain = 0, of_bias = 0;
            #pragma omp simd reduction(+ : of_gain, of_bias)
            for (int64_t i = j * a->P; i < (j + 1) * a->P; i++) {
                GRADIENTS(gain)
                of_gain += G[i] * q;
                of_bias += G[i];
            }
            gains[j] += of_gain;
            biases[j] += of_bias;
        }
    }
    return 0;
}

// Equal parts; the caller takes the first, and any for which no thread can be had. each: (threads, 2, n) of sums, or NULL.
static void spread(void *(*run)(void *), Job whole, int64_t rows, int threads, double *each) {
    pthread_t started[MOST_THREADS];
    int running[MOST_THREADS] = {0};
    Job parts[MOST_THREADS];
    const int64_t share = (rows + threads - 1) / threads;
    for (int k = threads - 1; k >= 0; k--) {
        parts[k] = whole;
        parts[k].from = k * share < rows ? k * share : rows;
        parts[k].to = (k + 1) * share < rows ? (k + 1) * share : rows;
        if (each) parts[k].sums = each + k * 2 * whole.n;
        running[k] = k > 0 && pthread_create(&started[k], 0, run, &parts[k]) == 0;
        if (!running[k]) run(&parts[k]);
    }
    for (int k = 0; k < threads; k++)
        if (running[k]) pthread_join(started[k], 0);
}

void normalise(
    const real *E, int64_t e_step, const real *M, const real *gain, const real *bias, real *out, int64_t N, int64_t n,
    int64_t P, int threads
) {
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    Job whole = {.E = E, .e_step = e_step, .M = M, .gain = gain, .bias = bias, .out = out, .n = n, .P = P};
    spread(forward_part, whole, N, threads, 0);
}

// Returns 1 where there is no memory for the sums.
int differentiate(
    const real *E, int64_t e_step, const real *M, const real *gain, const real *G, int64_t g_step, real *out, real *out_m,
    real *of_gain, real *of_bias, int64_t N, int64_t n, int64_t P, int through, int threads
) {
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    double *each = calloc(threads * 2 * n + 1, sizeof *each);
    if (!each) return 1;
    Job whole = {.E = E, .e_step = e_step, .M = M, .gain = gain, .G = G, .g_step = g_step, .out = out, .out_m = out_m, .n = n,
                 .P = P, .through = through};
    spread(backward_part, whole, N, threads, each);
    for (int64_t j = 0; j < n; j++) {
        double gains = 0, biases = 0;
        for (int k = 0; k < threads; k++) {
            gains += each[k * 2 * n + j];
            biases += each[(k * 2 + 1) * n + j];
        }
        of_gain[j] = gains;
        of_bias[j] = biases;
    }
    free(each);
    return 0;
}
"""


def why_eager(*given: Tensor) -> str:
    """Why the formula runs for such tensors, "" where the C code does."""
    if torch.compiler.is_compiling():
        return "torch.compile is given the formula"
    if any(type(t) not in PLAIN for t in given):
        return "the C code takes plain tensors, no subclasses"
    if not given[0].numel():
        return "there are no rows"
    if not all(t.is_cpu for t in given):
        return f"there is no fused code for {given[0].device.type}"
    dtypes = {t.dtype for t in given}
    return _why_not(dtypes.pop()) if len(dtypes) == 1 else "the tensors are of several dtypes"


@cache
def _why_not(dtype: torch.dtype) -> str:
    if dtype not in REALS:
        return f"the C code is for float32 and float64, not {str(dtype).removeprefix('torch.')}"
    return native.why_not(SOURCE, flags=_flags(dtype))


def _flags(dtype: torch.dtype) -> tuple[str, ...]:
    return (*FLAGS, f"-DREAL={REALS[dtype]}")


@cache
def _functions(dtype: torch.dtype) -> tuple[Any, Any]:
    library = native.load(SOURCE, flags=_flags(dtype))
    address, count, number = ctypes.c_size_t, ctypes.c_int64, ctypes.c_int
    forward, backward = library.normalise, library.differentiate
    forward.argtypes = [address, count, *[address] * 4, *[count] * 3, number]
    backward.argtypes = [address, count, *[address] * 3, count, *[address] * 4, *[count] * 3, number, number]
    forward.restype, backward.restype = None, number
    return forward, backward


def normalised(
    excited: Tensor, mixed: Tensor, gain: Tensor, bias: Tensor, through: bool, eager: Callable[..., Tensor]
) -> Tensor:
    """Currents (N, n, ...), of tensors for which `why_eager` is "".

    excited: I_EE (N, n, ...).   mixed: I_EI above I_sh, (N, 2 n, ...).   gain, bias: (n,).   through: see `layers.stabilised`.
    eager: the formula, of the same five, for second derivatives.
    """
    return cast(Tensor, Normalise.apply(excited, mixed, gain, bias, through, eager))


class Normalise(torch.autograd.Function):
    """Keeps its inputs; the filled divisor is made again."""

    @staticmethod
    def forward(
        ctx: Any, excited: Tensor, mixed: Tensor, gain: Tensor, bias: Tensor, through: bool, eager: Callable[..., Tensor]
    ) -> Tensor:
        (excited, step), mixed, gain, bias = rows(excited), mixed.contiguous(), gain.contiguous(), bias.contiguous()
        ctx.save_for_backward(excited, mixed, gain, bias)
        ctx.step, ctx.through, ctx.eager = step, through, eager
        made = torch.empty_like(excited, memory_format=torch.contiguous_format)
        run, _ = _functions(excited.dtype)
        run(
            excited.data_ptr(), step, mixed.data_ptr(), gain.data_ptr(), bias.data_ptr(), made.data_ptr(), *sizes(excited),
            share(excited.numel()),
        )  # fmt: skip
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        excited, mixed, gain, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is itself differentiated
            near = [t.view_as(t) for t in (excited, mixed, gain, bias)]
            wanted = [t for t in near if t.requires_grad]
            made = iter(torch.autograd.grad(ctx.eager(*near, ctx.through), wanted, grad, create_graph=True))
            return *(next(made) if t.requires_grad else None for t in near), None, None
        grad, grad_step = rows(grad)
        found = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (excited, mixed, gain, bias)]
        _, run = _functions(excited.dtype)
        failed = run(
            excited.data_ptr(), ctx.step, mixed.data_ptr(), gain.data_ptr(), grad.data_ptr(), grad_step,
            *(t.data_ptr() for t in found), *sizes(excited), ctx.through, share(excited.numel()),
        )  # fmt: skip
        if failed:
            raise MemoryError("circuit: no memory for the sums of the gradients of gain and bias")
        return *found, None, None


def sizes(x: Tensor) -> tuple[int, int, int]:
    """N, n and P of (N, n, ...)."""
    return x.shape[0], x.shape[1], x[0, 0].numel()  # which is 1 of (N, n)
