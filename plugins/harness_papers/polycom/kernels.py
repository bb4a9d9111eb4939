"""PolyReLU and PolyNorm of order 3 fused: one pass forward, one backward, nothing kept but x. C on the CPU, Triton on CUDA.

`fused_polyrelu` and `fused_polynorm` compute what method.py's functions compute, with gradients of x, weight and bias. They
hold no memory beyond input, output and gradient. `why_eager` says where they do not apply: then method.py's code runs.

Which inputs are read where they lie: on the CPU and on CUDA every x that is a matrix of any two strides (a slice of the last
axis, every second element, a broadcast gradient); others, such as a channels-last map, are first copied. Outputs and gradients
of x are contiguous. The C code takes torch's number of threads where each has at least SHARE elements; sums of parameter
gradients are in double precision over threads and over blocks of 2048, so their bits depend on the number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from harness.lab import native
from harness_papers.polycom import PolyNormCase, polynorm_shape
from harness_papers.polycom.method import EPS, polynorm, polyrelu

Inputs = Mapping[str, Tensor]
SHARE = 1 << 18  # elements for each thread: below it, starting one costs more than it saves
CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

SOURCE = r"""
#include <math.h>
#include <pthread.h>
#include <stddef.h>

enum { BLOCK = 2048, MOST = 64 };  // floats handled at a time: they stay in the first-level cache; threads

typedef struct {
    const float *x, *g, *w, *b;
    float *out;
    ptrdiff_t rows, cols, x_row, x_col, g_row, g_col;
    double eps;
} Job;

typedef void Range(const Job *, ptrdiff_t begin, ptrdiff_t end, double sums[4]);

typedef struct {
    const Job *job;
    Range *range;
    ptrdiff_t begin, end;
    double sums[4];
} Share;

static long counts[4];

long polycom_calls(int which) { return __atomic_load_n(&counts[which], __ATOMIC_RELAXED); }

static void *run_share(void *given) {
    Share *share = given;
    share->range(share->job, share->begin, share->end, share->sums);
    return NULL;
}

// Over [0, items), in equal runs; a thread that does not start has its run done here.
static void split(const Job *job, Range *range, ptrdiff_t items, int threads, double sums[4]) {
    Share shares[MOST];
    pthread_t ids[MOST];
    char started[MOST];
    if (threads > MOST) threads = MOST;
    if (threads > items) threads = items ? (int)items : 1;
    for (int t = 0; t < threads; t++)
        shares[t] = (Share){job, range, items * t / threads, items * (t + 1) / threads, {0, 0, 0, 0}};
    for (int t = 1; t < threads; t++) started[t] = !pthread_create(&ids[t], NULL, run_share, &shares[t]);
    run_share(&shares[0]);
    for (int t = 1; t < threads; t++) {
        if (started[t]) pthread_join(ids[t], NULL);
        else run_share(&shares[t]);
    }
    for (int t = 0; t < threads; t++)
        for (int k = 0; k < 4; k++) sums[k] += shares[t].sums[k];
}

// n floats, `step` apart, as neighbours: where they lie, or gathered into room.
static const float *piece(const float *from, ptrdiff_t step, int n, float *room) {
    if (step == 1) return from;
    if (step == 2) for (int i = 0; i < n; i++) room[i] = from[2 * i];  // a constant step is made into vector code
    else for (int i = 0; i < n; i++) room[i] = from[i * step];
    return room;
}

static int least(ptrdiff_t a, int b) { return a < b ? (int)a : b; }

// PolyReLU: an item is a block of a row ------------------------------------------------------------------------------

static void relu_forward(const Job *j, ptrdiff_t begin, ptrdiff_t end, double sums[4]) {
    const ptrdiff_t blocks = (j->cols + BLOCK - 1) / BLOCK;
    const float w0 = j->w[0], w1 = j->w[1], w2 = j->w[2], b = j->b[0];
    float room[BLOCK];
    for (ptrdiff_t item = begin; item < end; item++) {
        const ptrdiff_t row = item / blocks, col = item % blocks * BLOCK;
        const int n = least(j->cols - col, BLOCK);
        const float *x = piece(j->x + row * j->x_row + col * j->x_col, j->x_col, n, room);
        float *restrict y = j->out + row * j->cols + col;
#pragma omp simd
        for (int i = 0; i < n; i++) {
            const float r = 0 > x[i] ? 0 : x[i];  // a NaN stays one
            y[i] = ((w0 * r + w1) * r + w2) * r + b;
        }
    }
}

static void relu_backward(const Job *j, ptrdiff_t begin, ptrdiff_t end, double sums[4]) {
    const ptrdiff_t blocks = (j->cols + BLOCK - 1) / BLOCK;
    const float w0 = 3 * j->w[0], w1 = 2 * j->w[1], w2 = j->w[2];
    float x_room[BLOCK], g_room[BLOCK];
    for (ptrdiff_t item = begin; item < end; item++) {
        const ptrdiff_t row = item / blocks, col = item % blocks * BLOCK;
        const int n = least(j->cols - col, BLOCK);
        const float *x = piece(j->x + row * j->x_row + col * j->x_col, j->x_col, n, x_room);
        const float *g = piece(j->g + row * j->g_row + col * j->g_col, j->g_col, n, g_room);
        float *restrict out = j->out + row * j->cols + col;
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (int i = 0; i < n; i++) {
            const float r = 0 > x[i] ? 0 : x[i], gr = g[i] * r, grr = gr * r;
            const float slope = (w0 * r + w1) * r + w2;
            out[i] = x[i] <= 0 ? 0 : g[i] * slope;
            s0 += grr * r;
            s1 += grr;
            s2 += gr;
            s3 += g[i];
        }
        sums[0] += s0, sums[1] += s1, sums[2] += s2, sums[3] += s3;
    }
}

// PolyNorm: an item is a row -----------------------------------------------------------------------------------------

static void norm_forward(const Job *j, ptrdiff_t begin, ptrdiff_t end, double sums[4]) {
    const float b = j->b[0];
    float room[BLOCK];
    for (ptrdiff_t row = begin; row < end; row++) {
        const float *from = j->x + row * j->x_row;
        double q1 = 0, q2 = 0, q3 = 0;
        for (ptrdiff_t col = 0; col < j->cols; col += BLOCK) {
            const int n = least(j->cols - col, BLOCK);
            const float *x = piece(from + col * j->x_col, j->x_col, n, room);
            float s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s1, s2, s3)
            for (int i = 0; i < n; i++) {
                const float q = x[i] * x[i], qq = q * q;
                s1 += q;
                s2 += qq;
                s3 += qq * q;
            }
            q1 += s1, q2 += s2, q3 += s3;
        }
        const float a1 = j->w[2] / sqrt(q1 / j->cols + j->eps), a2 = j->w[1] / sqrt(q2 / j->cols + j->eps),
                    a3 = j->w[0] / sqrt(q3 / j->cols + j->eps);
        for (ptrdiff_t col = 0; col < j->cols; col += BLOCK) {
            const int n = least(j->cols - col, BLOCK);
            // A row of one block is still at hand.
            const float *x = j->cols <= BLOCK && j->x_col != 1 ? room : piece(from + col * j->x_col, j->x_col, n, room);
            float *restrict y = j->out + row * j->cols + col;
#pragma omp simd
            for (int i = 0; i < n; i++) y[i] = ((a3 * x[i] + a2) * x[i] + a1) * x[i] + b;
        }
    }
}

// With p = x^k, r = 1 / sqrt(mean(p^2) + eps), m = mean(g p): d/dx_i of sum_j g_j r p_j is k x_i^(k-1) (r g_i - r^3 m p_i).
static void norm_backward(const Job *j, ptrdiff_t begin, ptrdiff_t end, double sums[4]) {
    float x_room[BLOCK], g_room[BLOCK];
    for (ptrdiff_t row = begin; row < end; row++) {
        const float *x_from = j->x + row * j->x_row, *g_from = j->g + row * j->g_row;
        double q1 = 0, q2 = 0, q3 = 0, m1 = 0, m2 = 0, m3 = 0, m0 = 0;
        for (ptrdiff_t col = 0; col < j->cols; col += BLOCK) {
            const int n = least(j->cols - col, BLOCK);
            const float *x = piece(x_from + col * j->x_col, j->x_col, n, x_room);
            const float *g = piece(g_from + col * j->g_col, j->g_col, n, g_room);
            float s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0;
#pragma omp simd reduction(+ : s1, s2, s3, t0, t1, t2, t3)
            for (int i = 0; i < n; i++) {
                const float q = x[i] * x[i], p = q * x[i];
                s1 += q;
                s2 += q * q;
                s3 += p * p;
                t0 += g[i];
                t1 += g[i] * x[i];
                t2 += g[i] * q;
                t3 += g[i] * p;
            }
            q1 += s1, q2 += s2, q3 += s3, m0 += t0, m1 += t1, m2 += t2, m3 += t3;
        }
        const double r1 = 1 / sqrt(q1 / j->cols + j->eps), r2 = 1 / sqrt(q2 / j->cols + j->eps),
                     r3 = 1 / sqrt(q3 / j->cols + j->eps);
        sums[0] += r3 * m3, sums[1] += r2 * m2, sums[2] += r1 * m1, sums[3] += m0;
        const double c1 = j->w[2] * r1, c2 = 2 * j->w[1] * r2, c3 = 3 * j->w[0] * r3;
        const float a1 = c1, a2 = c2, a3 = c3;
        const float b1 = c1 * r1 * r1 * m1 / j->cols, b2 = c2 * r2 * r2 * m2 / j->cols, b3 = c3 * r3 * r3 * m3 / j->cols;
        for (ptrdiff_t col = 0; col < j->cols; col += BLOCK) {
            const int n = least(j->cols - col, BLOCK);
            const float *x = piece(x_from + col * j->x_col, j->x_col, n, x_room);
            const float *g = piece(g_from + col * j->g_col, j->g_col, n, g_room);
            float *restrict out = j->out + row * j->cols + col;
#pragma omp simd
            for (int i = 0; i < n; i++) {
                const float q = x[i] * x[i];
                out[i] = g[i] * ((a3 * x[i] + a2) * x[i] + a1) - x[i] * ((b3 * q + b2) * q + b1);
            }
        }
    }
}

// What Python calls --------------------------------------------------------------------------------------------------

static ptrdiff_t blocks_of(ptrdiff_t rows, ptrdiff_t cols) { return rows * ((cols + BLOCK - 1) / BLOCK); }

void polyrelu_forward(const float *x, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t x_row, ptrdiff_t x_col, const float *w,
                      const float *b, float *y, int threads) {
    double sums[4] = {0, 0, 0, 0};
    const Job job = {x, NULL, w, b, y, rows, cols, x_row, x_col, 0, 0, 0};
    __atomic_fetch_add(&counts[0], 1, __ATOMIC_RELAXED);
    split(&job, relu_forward, blocks_of(rows, cols), threads, sums);
}

void polyrelu_backward(const float *x, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t x_row, ptrdiff_t x_col, const float *w,
                       const float *g, ptrdiff_t g_row, ptrdiff_t g_col, float *grad_x, float *grad_w, float *grad_b,
                       int threads) {
    double sums[4] = {0, 0, 0, 0};
    const Job job = {x, g, w, NULL, grad_x, rows, cols, x_row, x_col, g_row, g_col, 0};
    __atomic_fetch_add(&counts[1], 1, __ATOMIC_RELAXED);
    split(&job, relu_backward, blocks_of(rows, cols), threads, sums);
    for (int k = 0; k < 3; k++) grad_w[k] = sums[k];
    grad_b[0] = sums[3];
}

void polynorm_forward(const float *x, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t x_row, ptrdiff_t x_col, const float *w,
                      const float *b, float *y, int threads, double eps) {
    double sums[4] = {0, 0, 0, 0};
    const Job job = {x, NULL, w, b, y, rows, cols, x_row, x_col, 0, 0, eps};
    __atomic_fetch_add(&counts[2], 1, __ATOMIC_RELAXED);
    split(&job, norm_forward, rows, threads, sums);
}

void polynorm_backward(const float *x, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t x_row, ptrdiff_t x_col, const float *w,
                       const float *g, ptrdiff_t g_row, ptrdiff_t g_col, float *grad_x, float *grad_w, float *grad_b,
                       int threads, double eps) {
    double sums[4] = {0, 0, 0, 0};
    const Job job = {x, g, w, NULL, grad_x, rows, cols, x_row, x_col, g_row, g_col, eps};
    __atomic_fetch_add(&counts[3], 1, __ATOMIC_RELAXED);
    split(&job, norm_backward, rows, threads, sums);
    for (int k = 0; k < 3; k++) grad_w[k] = sums[k];
    grad_b[0] = sums[3];
}
"""
# -fopenmp-simd reads only the `simd` pragmas: it starts no OpenMP runtime beside torch's.
C_FLAGS = ("-fopenmp-simd", "-pthread", "-lm")
SYMBOLS = ("polyrelu_forward", "polyrelu_backward", "polynorm_forward", "polynorm_backward")


# The functions ----------------------------------------------------------------------------------------------------------


def fused_polyrelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`method.polyrelu` of order 3. Where `why_eager` has a reason, that function is called."""
    if why_eager(x, weight, bias):
        return polyrelu(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        return _FusedPolyReLU.apply(x, weight, bias)  # type: ignore[no-any-return]
    return _relu_forward(x, weight, bias)


def fused_polynorm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = EPS) -> Tensor:
    """`method.polynorm` of order 3 over the last axis. Where `why_eager` has a reason, that function is called."""
    if why_eager(x, weight, bias):
        return polynorm(x, weight, bias, eps)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        return _FusedPolyNorm.apply(x, weight, bias, eps)  # type: ignore[no-any-return]
    return _norm_forward(x, weight, bias, eps)


def why_eager(x: Tensor, weight: Tensor, bias: Tensor) -> str:
    """Why method.py's code runs for these inputs, "" where the fused code does."""
    if x.is_cpu:
        kinds = {x.dtype, weight.dtype, bias.dtype} - {torch.float32}
        reason = f"the C code is for float32, not {kinds.pop()}" if kinds else _no_library()
    elif x.is_cuda:
        reason = _no_triton() if x.dtype in CUDA_DTYPES else f"the Triton code is not for {x.dtype}"
    else:
        reason = f"there is no fused code for {x.device.type}"
    if not reason and (weight.numel() != 3 or bias.numel() != 1):
        reason = f"the fused code has 3 weights and a bias, not {weight.numel()} and {bias.numel()}"
    return reason


class _FusedPolyReLU(torch.autograd.Function):
    """Keeps x; the powers are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return _relu_forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is itself differentiated
            return _differentiable(polyrelu, (x, weight, bias), grad)
        return _relu_backward(x, weight, bias, grad)


class _FusedPolyNorm(torch.autograd.Function):
    """Keeps x; powers and norms are computed again in the backward pass, while the row is in the cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.eps = eps
        return _norm_forward(x, weight, bias, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable(lambda *inputs: polynorm(*inputs, ctx.eps), (x, weight, bias), grad), None
        return *_norm_backward(x, weight, bias, grad, ctx.eps), None


def _differentiable(formula: Any, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients as a graph, by method.py's formula."""
    wanted = [t for t in inputs if t.requires_grad]
    found = iter(torch.autograd.grad(formula(*inputs), wanted, grad, create_graph=True))
    return tuple(next(found) if t.requires_grad else None for t in inputs)


# One call of C or of Triton ---------------------------------------------------------------------------------------------


def _relu_forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x, row, col = _matrix(x)
    weight, y, (rows, cols) = weight.contiguous(), _room(x), _sizes(x, flat=x.is_contiguous())
    if x.is_cuda:
        _triton().polyrelu_forward(x, rows, cols, row, col, weight, bias, y)
    else:
        _library().polyrelu_forward(
            x.data_ptr(), rows, cols, row, col, weight.data_ptr(), bias.data_ptr(), y.data_ptr(), _threads(x)
        )
    return y


def _relu_backward(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, row, col = _matrix(x)
    grad, grad_row, grad_col = _matrix(grad)
    weight, (rows, cols) = weight.contiguous(), _sizes(x, flat=x.is_contiguous() and grad.is_contiguous())
    grad_x = _room(x)
    if x.is_cuda:
        sums = _triton().polyrelu_backward(x, rows, cols, row, col, weight, grad, grad_row, grad_col, grad_x)
        return grad_x, *_split_sums(sums, weight, bias)
    grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(bias)
    _library().polyrelu_backward(
        x.data_ptr(), rows, cols, row, col, weight.data_ptr(), grad.data_ptr(), grad_row, grad_col,
        grad_x.data_ptr(), grad_weight.data_ptr(), grad_bias.data_ptr(), _threads(x),
    )  # fmt: skip
    return grad_x, grad_weight, grad_bias


def _norm_forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    x, row, col = _matrix(x)
    weight, y, (rows, cols) = weight.contiguous(), _room(x), _sizes(x)
    if x.is_cuda:
        _triton().polynorm_forward(x, rows, cols, row, col, weight, bias, y, eps)
    else:
        _library().polynorm_forward(
            x.data_ptr(), rows, cols, row, col, weight.data_ptr(), bias.data_ptr(), y.data_ptr(), _threads(x), eps
        )
    return y


def _norm_backward(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    x, row, col = _matrix(x)
    grad, grad_row, grad_col = _matrix(grad)
    weight, (rows, cols) = weight.contiguous(), _sizes(x)
    grad_x = _room(x)
    if x.is_cuda:
        sums = _triton().polynorm_backward(x, rows, cols, row, col, weight, grad, grad_row, grad_col, grad_x, eps)
        return grad_x, *_split_sums(sums, weight, bias)
    grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(bias)
    _library().polynorm_backward(
        x.data_ptr(), rows, cols, row, col, weight.data_ptr(), grad.data_ptr(), grad_row, grad_col,
        grad_x.data_ptr(), grad_weight.data_ptr(), grad_bias.data_ptr(), _threads(x), eps,
    )  # fmt: skip
    return grad_x, grad_weight, grad_bias


def _split_sums(sums: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return sums[:3].to(weight.dtype), sums[3].to(bias.dtype).reshape(bias.shape)


def _matrix(x: Tensor) -> tuple[Tensor, int, int]:
    """x as rows of its last axis, with the strides of rows and columns; a copy where no two strides describe it."""
    if x.is_contiguous():
        return x, (x.shape[-1] if x.dim() else 1), 1
    try:
        row, col = x.view(-1, x.shape[-1]).stride()
    except RuntimeError:
        x = x.contiguous()
        row, col = x.shape[-1], 1
    return x, row, col


def _sizes(x: Tensor, flat: bool = False) -> tuple[int, int]:
    """Rows and columns; flat: all in one row, where rows mean nothing."""
    n = x.numel()
    if flat or not n:
        return 1 if n else 0, n
    cols = x.shape[-1] if x.dim() else 1
    return n // cols, cols


def _room(x: Tensor) -> Tensor:
    """Contiguous, of x's shape and dtype, not filled."""
    return torch.empty_like(x) if x.is_contiguous() else x.new_empty(x.shape)


def _threads(x: Tensor) -> int:
    n = x.numel()
    return min(torch.get_num_threads(), n // SHARE) if n >= 2 * SHARE else 1


@cache
def _library() -> ctypes.CDLL:
    """The compiled SOURCE, its argument types set. Raises NoCompiler."""
    library = native.load(SOURCE, flags=C_FLAGS)
    address, size, count, real = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_double
    forward = [address, size, size, size, size, address, address, address, count]
    backward = [address, size, size, size, size, address, address, size, size, address, address, address, count]
    library.polyrelu_forward.argtypes, library.polynorm_forward.argtypes = forward, [*forward, real]
    library.polyrelu_backward.argtypes, library.polynorm_backward.argtypes = backward, [*backward, real]
    for name in SYMBOLS:
        getattr(library, name).restype = None
    library.polycom_calls.argtypes, library.polycom_calls.restype = [count], ctypes.c_long
    return library


@cache
def _no_library() -> str:
    try:
        _library()
    except native.NoCompiler as exc:
        return str(exc)
    return ""


def calls() -> dict[str, int]:
    """How often each C function was called in this process. Raises NoCompiler."""
    return {name: _library().polycom_calls(index) for index, name in enumerate(SYMBOLS)}


@cache
def _triton() -> Any:
    """The module of the Triton code; importing it needs Triton."""
    from harness_papers.polycom import triton_kernels

    return triton_kernels


@cache
def _no_triton() -> str:
    try:
        _triton()
    except ImportError as exc:
        return f"Triton cannot be imported ({exc}); pip install triton"
    return ""


# What the declarations name ---------------------------------------------------------------------------------------------


def polyrelu_inputs(case: Any, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    return _inputs((case.elements,), generator, device, dtype)


def polynorm_inputs(
    case: PolyNormCase, generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    return _inputs(polynorm_shape(case), generator, device, dtype)


def _inputs(shape: tuple[int, ...], generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Standard normal x. The weights differ, so that an implementation that mixes them up is seen."""
    x = torch.randn(shape, generator=generator)
    weight = 1 / 3 + 0.1 * torch.randn(3, generator=generator)
    bias = 0.1 * torch.randn(1, generator=generator)
    made = {"x": x, "weight": weight, "bias": bias}
    return {name: t.to(device, dtype).requires_grad_() for name, t in made.items()}


def polyrelu_eager(inputs: Inputs, case: Any) -> Tensor:
    return polyrelu(inputs["x"], inputs["weight"], inputs["bias"])


def polyrelu_ours(inputs: Inputs, case: Any) -> Tensor:
    return fused_polyrelu(inputs["x"], inputs["weight"], inputs["bias"])


def polynorm_eager(inputs: Inputs, case: Any) -> Tensor:
    return polynorm(inputs["x"], inputs["weight"], inputs["bias"])


def polynorm_ours(inputs: Inputs, case: Any) -> Tensor:
    return fused_polynorm(inputs["x"], inputs["weight"], inputs["bias"])


def polynorm_liger(inputs: Inputs, case: Any) -> Tensor:
    """A peer's: https://github.com/linkedin/Liger-Kernel, which takes the bias as a scalar."""
    from liger_kernel.ops.poly_norm import LigerPolyNormFunction

    return LigerPolyNormFunction.apply(inputs["x"], inputs["weight"], inputs["bias"].reshape(()), EPS, False)


def fallback(inputs: Inputs, case: Any) -> str:
    return why_eager(inputs["x"], inputs["weight"], inputs["bias"])
