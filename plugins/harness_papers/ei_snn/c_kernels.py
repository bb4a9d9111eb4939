"""The C of fused.py: all time steps of a LIF neuron forward, and back. One library for a dtype, a reset and a surrogate.

A tile of neurons goes through all steps before the next tile, so that their potentials stay in a cache; STEPS steps at a time
stay in registers. What the backward pass needs of u is made again from the currents: the forward pass keeps v in front of
every STEPS steps but the first, a quarter of a tensor, where keeping u would be a whole one written and read. Operations and
their order are those of neuron.py, so u and the spikes have its bits. Threads share the neurons, which changes no bit.
Tensors that lie alike in their pages slow a walk through the neurons in one of its two directions: `walk_down` takes the other.

The sigmoid's slope in float32 is alpha / (2 + 2 cosh y), y = alpha x, without an exponential: with E(z) = 2 cosh z - 2,
E(2 z) = E (E + 4), so E(y) comes from E(y / 4), which a polynomial gives, fitted by us for the least error of the slope: under
2e-7 of its peak alpha / 4 (relative: 2e-5 at y = 8, 3e-2 at y = 16, where the slope is 5e-7 of the peak); no y overflows into
anything but 0.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache
from typing import Any

import torch

from harness.lab import native

SURROGATES = ("sigmoid", "arctan", "triangular", "straight-through")  # their numbers in the code
STEPS = 4  # what stays in registers; v is kept in front of so many steps

SOURCE = r"""
#include <pthread.h>
#include <stdint.h>
#include <string.h>

typedef REAL real;
enum { SIGMOID, ARCTAN, TRIANGULAR, STRAIGHT };
enum { TILE = 8192, STEPS = 4, MOST_THREADS = 64, LINE = 64 / sizeof(real) };
#define INLINE static inline __attribute__((always_inline))

#if WIDE
typedef uint64_t word;
#define ABS __builtin_fabs
#ifdef __FP_FAST_FMA
#define MULTIPLY_ADD(a, b, c) __builtin_fma(a, b, c)
#endif
#else
typedef uint32_t word;
#define ABS __builtin_fabsf
#ifdef __FP_FAST_FMAF
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#endif
#endif
#ifndef MULTIPLY_ADD
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

// I, g: steps of i_step and g_step elements (0 where all steps are one); kept: (ceil(T / STEPS) - 1, N), or NULL: no backward
// pass comes, or it needs no u; the others: (T, N). CALL in Python is its start; the rest is filled in here.
typedef struct {
    const real *I, *g;
    real *kept, *out;
    int64_t i_step, g_step, T, N;
    double leak, theta, alpha;
    int threads, down;  // down: whether neurons are walked from the last to the first
    int64_t from, to;
} Job;

#if WIDE
INLINE real sigmoid_slope(real x, real alpha) {
    // e = exp(-|alpha x|) = 2^n 2^f; a Taylor series of 2^f for |f| <= 1/2, 2e-16 at its end
    real y = ABS(x) * (alpha * -0x1.71547652b82fep+0);
    y = y > -1022 ? y : -1022;
    const real magic = 0x1.8p52;
    real shifted = y + magic, f = (y - (shifted - magic)) * 0x1.62e42fefa39efp-1;
    real q = 1.0 / 479001600;
    q = q * f + 1.0 / 39916800;
    q = q * f + 1.0 / 3628800;
    q = q * f + 1.0 / 362880;
    q = q * f + 1.0 / 40320;
    q = q * f + 1.0 / 5040;
    q = q * f + 1.0 / 720;
    q = q * f + 1.0 / 120;
    q = q * f + 1.0 / 24;
    q = q * f + 1.0 / 6;
    q = q * f + 0.5;
    q = q * f + 1;
    q = q * f + 1;
    uint64_t n, bits;
    memcpy(&n, &shifted, sizeof n);
    memcpy(&bits, &q, sizeof bits);
    bits += n << 52;
    real e;
    memcpy(&e, &bits, sizeof e);
    e = x == x ? e : x;
    return alpha * e / ((1 + e) * (1 + e));
}
#else
INLINE real sigmoid_slope(real x, real alpha) {
    real y = x * (alpha * 0.25f), z = y * y;
    real E = ((0x1.c05bf4p-15f * z + 0x1.6b4418p-9f) * z + 0x1.5557c6p-4f) * (z * z) + z;
    E = E * (E + 4);
    E = E * (E + 4);
    return alpha / (E + 4);
}
#endif

INLINE real slope(real x, real alpha) {
    if (SURROGATE == SIGMOID) return sigmoid_slope(x, alpha);
    if (SURROGATE == ARCTAN) {
        real y = (real)1.57079632679489661923 * alpha * x;
        return alpha * (real)0.5 / (1 + y * y);
    }
    if (SURROGATE == TRIANGULAR) {
        real y = 1 - alpha * ABS(x);
        return y < 0 ? 0 : alpha * y;
    }
    return alpha;
}

// v after u. As whole numbers without a sign, the bits of x = u - theta are above those of u just where x < 0: a minimum does
// what a comparison and a selection would.
INLINE real after(real u, real theta) {
    if (HARD) return u >= theta ? 0 : u;
    real x = u - theta;
    word of_x, of_u;
    memcpy(&of_x, &x, sizeof x);
    memcpy(&of_u, &u, sizeof u);
    of_x = of_x < of_u ? of_x : of_u;
    memcpy(&x, &of_x, sizeof x);
    return x;
}

#define FORWARDS(STEP) STEP(0) STEP(1) STEP(2) STEP(3)
#define BACKWARDS(STEP) STEP(3) STEP(2) STEP(1) STEP(0)

// n neurons, two vectors at a time, upwards or downwards (see walk_down), then the rest.
#define WALK(STEPS_OF) \
    const int64_t whole = n / (2 * LINE) * (2 * LINE); \
    for (int64_t done = 0; done < whole; done += 2 * LINE) { \
        const int64_t from = a->down ? whole - 2 * LINE - done : done; \
        _Pragma("omp simd") \
        for (int64_t i = 0; i < LINE; i++) { STEPS_OF(from, i); STEPS_OF(from + LINE, i); } \
    } \
    _Pragma("omp simd") \
    for (int64_t i = 0; i < n - whole; i++) STEPS_OF(whole, i);

INLINE void forward_steps(
    int64_t i, const real *restrict I, int64_t i_step, real *restrict s, int64_t N, real *restrict kept, real *restrict v,
    int k, int first, int keep, real leak, real theta
) {
    real w = first ? 0 : v[i];
    if (keep) kept[i] = w;
#define STEP(j) if (j < k) { \
        real u = MULTIPLY_ADD(leak, w, I[j * i_step + i]); \
        s[j * N + i] = u >= theta ? 1 : 0; \
        w = after(u, theta); \
    }
    FORWARDS(STEP)
#undef STEP
    v[i] = w;
}

// k steps of n neurons. first: v is 0 and not read. keep: write what v was before.
INLINE void forward_block(const Job *a, int64_t t, int64_t at, int64_t n, real *restrict v, int k, int first, int keep) {
    const real *restrict I = a->I + t * a->i_step + at;
    real *restrict s = a->out + t * a->N + at, *restrict kept = keep ? a->kept + (t / STEPS - 1) * a->N + at : 0;
    const real leak = a->leak, theta = a->theta;
    const int64_t i_step = a->i_step, N = a->N;
#define STEPS_OF(o, i) forward_steps(i, I + (o), i_step, s + (o), N, kept + (o), v + (o), k, first, keep, leak, theta)
    WALK(STEPS_OF)
#undef STEPS_OF
}

INLINE void backward_steps(
    int64_t i, const real *restrict I, int64_t i_step, const real *restrict g, int64_t g_step, real *restrict out, int64_t N,
    const real *restrict v, real *restrict later, int k, int first, int last, real leak, real theta, real alpha
) {
    real w = first ? 0 : v[i], d = last ? 0 : later[i], u0 = 0, u1 = 0, u2 = 0, u3 = 0;
#define STEP(j) if (j < k) { \
        u##j = MULTIPLY_ADD(leak, w, I[j * i_step + i]); \
        w = after(u##j, theta); \
    }
    FORWARDS(STEP)
#undef STEP
#define STEP(j) if (j < k) { \
        real u = u##j, b = slope(u - theta, alpha), above = g[j * g_step + i]; \
        real through = HARD ? (u < theta ? leak * d : 0) : leak * d; \
        if (!DETACH) above -= HARD ? u * (leak * d) : (leak * theta) * d; \
        d = MULTIPLY_ADD(above, b, through); \
        out[j * N + i] = d; \
    }
    BACKWARDS(STEP)
#undef STEP
    if (!last) later[i] = d;
}

// k steps back. v: in front of them, not read if first. later: the gradient of the current after them, then of the first of
// them; not touched if last. With d of the step after, dL/dv is leak d, and this step's is g ds/du + (dv/du) leak d.
INLINE void backward_block(
    const Job *a, int64_t t, int64_t at, int64_t n, const real *restrict v, real *restrict later, int k, int first, int last
) {
    const real *restrict I = a->I + t * a->i_step + at, *restrict g = a->g + t * a->g_step + at;
    real *restrict out = a->out + t * a->N + at;
    const real leak = a->leak, theta = a->theta, alpha = a->alpha;
    const int64_t i_step = a->i_step, g_step = a->g_step, N = a->N;
#define STEPS_OF(o, i) backward_steps( \
    i, I + (o), i_step, g + (o), g_step, out + (o), N, v + (o), later + (o), k, first, last, leak, theta, alpha)
    WALK(STEPS_OF)
#undef STEPS_OF
}

static void *forward_part(void *given) {
    const Job *a = given;
    real v[TILE];
    const int64_t T = a->T, whole = T / STEPS * STEPS;
    for (int64_t at = a->from; at < a->to; at += TILE) {
        const int64_t n = a->to - at < TILE ? a->to - at : TILE;
        int64_t t = 0;
        if (whole) forward_block(a, 0, at, n, v, STEPS, 1, 0);
        else memset(v, 0, sizeof v);
        for (t = STEPS; t < whole; t += STEPS) {
            if (a->kept) forward_block(a, t, at, n, v, STEPS, 0, 1);
            else forward_block(a, t, at, n, v, STEPS, 0, 0);
        }
        if (whole && T > whole && a->kept) memcpy(a->kept + (whole / STEPS - 1) * a->N + at, v, n * sizeof *v);
        switch (T - whole) {
            case 1: forward_block(a, whole, at, n, v, 1, 0, 0); break;
            case 2: forward_block(a, whole, at, n, v, 2, 0, 0); break;
            case 3: forward_block(a, whole, at, n, v, 3, 0, 0); break;
        }
    }
    return 0;
}

static void *backward_part(void *given) {
    const Job *a = given;
    static const real nothing[TILE];
    real later[TILE];
    const int64_t T = a->T, whole = T / STEPS * STEPS;
    for (int64_t at = a->from; at < a->to; at += TILE) {
        const int64_t n = a->to - at < TILE ? a->to - at : TILE;
        if (T == STEPS) {
            backward_block(a, 0, at, n, nothing, later, STEPS, 1, 1);
            continue;
        }
#define BEFORE(t) ((t) && a->kept ? a->kept + ((t) / STEPS - 1) * a->N + at : nothing)
        memset(later, 0, sizeof later);
        switch (T - whole) {
            case 1: backward_block(a, whole, at, n, BEFORE(whole), later, 1, 0, 0); break;
            case 2: backward_block(a, whole, at, n, BEFORE(whole), later, 2, 0, 0); break;
            case 3: backward_block(a, whole, at, n, BEFORE(whole), later, 3, 0, 0); break;
        }
        for (int64_t t = whole - STEPS; t >= 0; t -= STEPS) backward_block(a, t, at, n, BEFORE(t), later, STEPS, 0, 0);
    }
    return 0;
}

// Whether to walk downwards. A CPU first compares a load with the stores before it by the last 12 bits of the address, and
// waits where they agree. Tensors lie as malloc puts them, often a few cache lines above one another in their pages: a walk
// upwards then loads what it seems to have stored just before. Where out lies between I and g one of the two has to wait.
static int walk_down(const Job *a) {
    const uintptr_t over = (uintptr_t)a->out - (uintptr_t)a->I, other = a->g ? (uintptr_t)a->out - (uintptr_t)a->g : over;
    const uintptr_t up = over % 4096 < other % 4096 ? over % 4096 : other % 4096;
    const uintptr_t down = -over % 4096 < -other % 4096 ? -over % 4096 : -other % 4096;
    return up < down;
}

// Equal parts of whole cache lines; the caller takes the first, and any for which no thread can be had.
static void spread(void *(*run)(void *), Job whole) {
    int threads = whole.threads;
    whole.down = walk_down(&whole);
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    pthread_t started[MOST_THREADS];
    int running[MOST_THREADS] = {0};
    Job parts[MOST_THREADS];
    const int64_t each = ((whole.N + threads - 1) / threads + LINE - 1) / LINE * LINE;
    for (int k = threads - 1; k >= 0; k--) {
        parts[k] = whole;
        parts[k].from = k * each < whole.N ? k * each : whole.N;
        parts[k].to = (k + 1) * each < whole.N ? (k + 1) * each : whole.N;
        running[k] = k > 0 && pthread_create(&started[k], 0, run, &parts[k]) == 0;
        if (!running[k]) run(&parts[k]);
    }
    for (int k = 0; k < threads; k++)
        if (running[k]) pthread_join(started[k], 0);
}

void lif_forward(const Job *given) {
    spread(forward_part, *given);
}

void lif_backward(const Job *given) {
    spread(backward_part, *given);
}
"""
FLAGS = ("-fopenmp-simd", "-pthread")  # the first only lets gcc vectorise: no OpenMP runtime is linked
SCHEDULE = "-fschedule-insns"  # before registers are given out: what two vectors need is computed side by side
REALS = {torch.float32: "float", torch.float64: "double"}


def flags_of(dtype: torch.dtype, hard: bool, detach: bool, surrogate: str) -> tuple[str, ...]:
    """What makes SOURCE the code of one neuron."""
    named = {
        "REAL": REALS[dtype], "WIDE": int(dtype == torch.float64), "HARD": int(hard), "DETACH": int(detach),
        "SURROGATE": SURROGATES.index(surrogate),
    }  # fmt: skip
    return (*FLAGS, SCHEDULE, *(f"-D{name}={value}" for name, value in named.items()))


# I, g, kept, out; i_step, g_step, T, N; leak, theta, alpha; threads. g, g_step and alpha are not read forward. Packed, for
# ctypes converts each argument: a step through autograd takes 2 microseconds less than with twelve.
CALL = struct.Struct("4P4q3di20x")


@cache
def functions(dtype: torch.dtype, hard: bool, detach: bool, surrogate: str) -> tuple[Any, Any]:
    """`lif_forward` and `lif_backward`, of bytes that CALL packed. Raises NoCompiler."""
    library = native.load(SOURCE, flags=flags_of(dtype, hard, detach, surrogate))
    forward, backward = library.lif_forward, library.lif_backward
    forward.argtypes = backward.argtypes = [ctypes.c_char_p]
    forward.restype = backward.restype = None
    return forward, backward


@cache
def why_not(dtype: torch.dtype, hard: bool, detach: bool, surrogate: str) -> str:
    """Why this code cannot run here, "" where it can."""
    if dtype not in REALS:
        return f"the C code is for float32 and float64, not {str(dtype).removeprefix('torch.')}"
    return native.why_not(SOURCE, flags=flags_of(dtype, hard, detach, surrogate))
