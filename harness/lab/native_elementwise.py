"""Elementwise activations from two lines of C: forward, backward and the gradient of one parameter, one pass each.

A plugin writes the formula and its derivatives as the bodies of C functions (`Formula`) and names its eager twin;
`Elementwise` compiles them on first use and is called like the eager function. What the C code cannot do (another device, or
another dtype than float32) runs eager, and `fallback` says why. Nothing is allocated but outputs and gradients.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.lab.native import load, why_not

FLAGS = ("-fopenmp-simd", "-pthread")  # the first only lets gcc vectorise sums: no OpenMP runtime is linked

# exp by n = round(t / ln 2), a polynomial on |r| <= ln(2) / 2, and the exponent field: libm's is a call for each element.
# The polynomial is a minimax fit of (exp(r) - 1 - r) / r^2: 4.4e-9 relative in exp(r), 0.07 of a unit in the last place.
EXPONENTIALS = r"""
#include <stdint.h>
#include <string.h>

typedef struct { float scale, rest; } power;  /* exp(t) = scale (1 + rest), scale a power of 2 */

static inline power split(float t) {
    const float magic = 12582912.0f;          /* 3 * 2^22: adding it rounds to an integer, kept in the low bits */
    float shifted = t * 0x1.715476p+0f + magic;
    float n = shifted - magic;
    float r = (t - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    float q = 0x1.6a2352p-10f;
    q = q * r + 0x1.123a6cp-7f;
    q = q * r + 0x1.5558f4p-5f;
    q = q * r + 0x1.555490p-3f;
    q = q * r + 0x1.fffffcp-2f;
    uint32_t bits;
    power made;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&made.scale, &bits, sizeof bits);
    made.rest = r * r * q + r;
    return made;
}

/* 0 below -87.33, where exp is no normal number; inf above 88.02; NaN for NaN; between: 2 units in the last place */
static inline float fast_exp(float t) {
    power e = split(t);
    float y = e.scale + e.scale * e.rest;
    y = t < -87.33f ? 0.0f : y;
    return t > 88.02f ? __builtin_inff() : y;
}

/* exp(t) - 1 without cancellation near 0; its ends as those of fast_exp */
static inline float fast_expm1(float t) {
    power e = split(t);
    float y = e.scale * e.rest + (e.scale - 1.0f);
    y = t < -87.33f ? -1.0f : y;
    return t > 88.02f ? __builtin_inff() : y;
}
"""

BODIES = """
static inline float value(float x, float p) { %s }
static inline void derive(float x, float p, float *slope, float *weight) { %s }
"""

# Steps are in elements: 1 for consecutive ones, 0 for one number expanded. Sums: float32 within a block, float64 between.
LOOPS = r"""
#include <pthread.h>

enum { BLOCK = 1024, MOST_THREADS = 64 };

typedef struct {
    const float *x, *g;
    float *out;
    int64_t x_step, g_step, from, to;
    float p;
    double sum;
} part;

static int64_t forwards, backwards;

static inline const float *gather(const float *from, int64_t step, int64_t at, int64_t n, float *room) {
    if (step == 1) return from + at;
    for (int64_t i = 0; i < n; i++) room[i] = from[(at + i) * step];
    return room;
}

static void *forward_part(void *given) {
    part *a = given;
    float room[BLOCK], p = a->p;
    for (int64_t at = a->from; at < a->to; at += BLOCK) {
        int64_t n = a->to - at < BLOCK ? a->to - at : BLOCK;
        const float *x = gather(a->x, a->x_step, at, n, room);
        float *out = a->out + at;
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = value(x[i], p);
    }
    return 0;
}

static void *backward_part(void *given) {
    part *a = given;
    float x_room[BLOCK], g_room[BLOCK], p = a->p;
    for (int64_t at = a->from; at < a->to; at += BLOCK) {
        int64_t n = a->to - at < BLOCK ? a->to - at : BLOCK;
        const float *x = gather(a->x, a->x_step, at, n, x_room), *g = gather(a->g, a->g_step, at, n, g_room);
        float *out = a->out + at, sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) {
            float slope, weight = 0;
            derive(x[i], p, &slope, &weight);
            out[i] = g[i] * slope;
            sum += g[i] * weight;
        }
        a->sum += sum;
    }
    return 0;
}

/* Equal parts, whole blocks each; the caller takes the first, and any for which no thread can be had. */
static double spread(void *(*run)(void *), part whole, int64_t n, int threads) {
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    pthread_t started[MOST_THREADS];
    int running[MOST_THREADS] = {0};
    part parts[MOST_THREADS];
    int64_t each = ((n + threads - 1) / threads + BLOCK - 1) / BLOCK * BLOCK;
    for (int k = threads - 1; k >= 0; k--) {
        parts[k] = whole;
        parts[k].from = k * each < n ? k * each : n;
        parts[k].to = (k + 1) * each < n ? (k + 1) * each : n;
        running[k] = k > 0 && pthread_create(&started[k], 0, run, &parts[k]) == 0;
        if (!running[k]) run(&parts[k]);
    }
    double sum = 0;
    for (int k = 0; k < threads; k++) {
        if (running[k]) pthread_join(started[k], 0);
        sum += parts[k].sum;
    }
    return sum;
}

void forward(const float *x, int64_t x_step, float *out, int64_t n, const float *p, int threads) {
    __atomic_fetch_add(&forwards, 1, __ATOMIC_RELAXED);
    part whole = {.x = x, .x_step = x_step, .out = out, .to = n, .p = p ? *p : 0};
    spread(forward_part, whole, n, threads);
}

void backward(const float *x, int64_t x_step, const float *g, int64_t g_step, float *grad_x, int64_t n, const float *p,
              float *grad_p, int threads) {
    __atomic_fetch_add(&backwards, 1, __ATOMIC_RELAXED);
    part whole = {.x = x, .g = g, .x_step = x_step, .g_step = g_step, .out = grad_x, .to = n, .p = p ? *p : 0};
    double sum = spread(backward_part, whole, n, threads);
    if (grad_p) *grad_p = sum;
}

int64_t forward_calls(void) { return __atomic_load_n(&forwards, __ATOMIC_RELAXED); }
int64_t backward_calls(void) { return __atomic_load_n(&backwards, __ATOMIC_RELAXED); }
"""
PLAIN = (Tensor, torch.nn.Parameter)
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # half precision is computed in float32
WORTH_THREADS = 1 << 18  # elements: below, starting a thread takes as long as its part of the work


class Backend(Protocol):
    """Forward and backward as plain functions on tensors; p: one element, or None. Returns gradients of x's and p's dtype."""

    def forward(self, x: Tensor, p: Tensor | None) -> Tensor: ...
    def backward(self, grad: Tensor, x: Tensor, p: Tensor | None) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True)
class Formula:
    """The bodies of two C functions of `float x` and `float p`; `fast_exp` and `fast_expm1` are there.

    value returns the activation. derivatives sets `*slope`, by x, and `*weight`, by p, where it has a parameter: together,
    since gcc 12 computes what two functions share twice.
    """

    value: str
    derivatives: str

    @property
    def source(self) -> str:
        return EXPONENTIALS + BODIES % (self.value, self.derivatives) + LOOPS


class NativeElementwise:
    """A formula in C on float32 tensors on the CPU. One thread each for parts of at least WORTH_THREADS elements.

    Inputs with one step throughout (contiguous, permuted, x[:, ::2], an expanded number) are read where they lie; others are
    copied first. Raises NoCompiler when called where there is no compiler: ask `why_not` before.
    """

    def __init__(self, formula: Formula) -> None:
        self._source = formula.source

    def why_not(self) -> str:
        return why_not(self._source, flags=FLAGS)

    def calls(self) -> tuple[int, int]:
        """How often this process called the C functions: forward, backward."""
        library = load(self._source, flags=FLAGS)
        library.forward_calls.restype = library.backward_calls.restype = ctypes.c_int64
        return library.forward_calls(), library.backward_calls()

    @cached_property
    def _functions(self) -> tuple[Any, Any]:
        address, count = ctypes.c_size_t, ctypes.c_int64
        library = load(self._source, flags=FLAGS)
        forward, backward = library.forward, library.backward
        forward.argtypes = [address, count, address, count, address, ctypes.c_int]
        backward.argtypes = [address, count, address, count, address, count, address, address, ctypes.c_int]
        forward.restype = backward.restype = None
        return forward, backward

    def forward(self, x: Tensor, p: Tensor | None) -> Tensor:
        out = torch.empty_like(x)
        n, step = x.numel(), 1
        if out.stride() != x.stride():
            x, step = stepped(x)
        at = 0 if p is None else p.data_ptr()
        self._functions[0](x.data_ptr(), step, out.data_ptr(), n, at, share(n))
        return out

    def backward(self, grad: Tensor, x: Tensor, p: Tensor | None) -> tuple[Tensor, Tensor | None]:
        out = torch.empty_like(x)
        n, step, grad_step = x.numel(), 1, 1
        if not out.stride() == x.stride() == grad.stride():
            if not out.is_contiguous():
                out = torch.empty_like(x, memory_format=torch.contiguous_format)
            (x, step), (grad, grad_step) = stepped(x), stepped(grad)
        grad_p = None if p is None else torch.empty_like(p)
        at, grad_at = (0, 0) if p is None or grad_p is None else (p.data_ptr(), grad_p.data_ptr())
        threads = share(n)
        self._functions[1](x.data_ptr(), step, grad.data_ptr(), grad_step, out.data_ptr(), n, at, grad_at, threads)
        return out, grad_p


def share(n: int) -> int:
    """Threads for n elements."""
    return 1 if n < 2 * WORTH_THREADS else min(torch.get_num_threads(), n // WORTH_THREADS)


def stepped(x: Tensor) -> tuple[Tensor, int]:
    """The tensor and the step, in elements, that leads through it in logical order; a contiguous copy where there is none."""
    step, expected = None, 0
    for size, stride in zip(reversed(x.shape), reversed(x.stride()), strict=True):
        if size == 1:
            continue
        if step is None:
            step = expected = stride
        if stride != expected:
            return x.contiguous(), 1
        expected *= size
    return x, 1 if step is None else step


class Elementwise:
    """An activation y = f(x) or f(x, p), p one learned number; autograd goes through it, twice too.

    eager: its plain torch twin: for what no backend can do, for second derivatives, and inside torch.compile, which fuses it.
    cuda: the module with the backend's functions for CUDA tensors, imported on first use; it may import triton.
    """

    def __init__(self, formula: Formula, eager: Callable[..., Tensor], cuda: str = "") -> None:
        self.native = NativeElementwise(formula)
        self._eager = eager
        self._cuda = cuda
        self._found: dict[tuple[object, ...], Backend | None] = {}

    def __call__(self, x: Tensor, p: Tensor | None = None) -> Tensor:
        x = x.resolve_neg()  # a lazy negation is a bit of the tensor, not in its memory
        backend = self._backend(x, p)
        if backend is None:
            return apply_eager(self._eager, x, p)
        if torch.is_grad_enabled() and (x.requires_grad or (p is not None and p.requires_grad)):
            result: Tensor = _OnePass.apply(x, p, backend, self._eager)  # type: ignore[no-untyped-call]
            return result
        return backend.forward(x, p)

    def fallback(self, x: Tensor, p: Tensor | None = None) -> str:
        """Why the eager twin runs for such tensors, "" where our code does."""
        if type(x) not in PLAIN or (p is not None and type(p) not in PLAIN):
            return "our kernels take plain tensors, no subclasses"
        if p is not None and p.numel() != 1:
            return f"our kernels take one parameter, not {p.numel()}"
        if p is not None and p.device != x.device:
            return f"the parameter is on {p.device}, the input on {x.device}"
        if x.is_cuda and self._cuda:
            return why_no_triton(self._cuda, x, p)
        if not x.is_cpu:
            return f"there is no kernel of ours for {x.device.type}"
        wrong = next((t.dtype for t in (x, p) if t is not None and t.dtype != torch.float32), None)
        return f"the C kernel computes in float32, not in {short(wrong)}" if wrong else self.native.why_not()

    def _backend(self, x: Tensor, p: Tensor | None) -> Backend | None:
        """What `fallback` decides, remembered: asked at each call it would take as long as 10,000 elements."""
        if torch.compiler.is_compiling():
            return None
        key: tuple[object, ...] = (type(x), x.dtype, x.device)
        if p is not None:
            key = (*key, type(p), p.dtype, p.device, p.numel())
        try:
            return self._found[key]
        except KeyError:
            found = None if self.fallback(x, p) else import_backend(self._cuda) if x.is_cuda else self.native
            self._found[key] = found
            return found


class _OnePass(torch.autograd.Function):
    """Keeps x and p alone; the graph of the eager formula would keep every intermediate result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: Tensor | None, backend: Backend, eager: Callable[..., Tensor]) -> Tensor:
        ctx.save_for_backward(x, p)
        ctx.backend, ctx.eager = backend, eager
        return backend.forward(x, p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, p = ctx.saved_tensors
        grad = grad.resolve_neg()
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            return *eager_gradients(ctx.eager, grad, x, p), None, None
        return *ctx.backend.backward(grad, x, p), None, None


def eager_gradients(
    eager: Callable[..., Tensor], grad: Tensor, x: Tensor, p: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by x and by p that can be differentiated again; None for what needs none."""
    # Views: p may itself be made from x, and that path is not this function's.
    near_x, near_p = x.view_as(x), None if p is None else p.view_as(p)
    wanted = [t for t in (near_x, near_p) if t is not None and t.requires_grad]
    made = iter(torch.autograd.grad(apply_eager(eager, near_x, near_p), wanted, grad, create_graph=True))
    found = [next(made) if t is not None and t.requires_grad else None for t in (near_x, near_p)]
    return found[0], found[1]


def apply_eager(eager: Callable[..., Tensor], x: Tensor, p: Tensor | None) -> Tensor:
    return eager(x) if p is None else eager(x, p)


def why_no_triton(module: str, x: Tensor, p: Tensor | None) -> str:
    """Why a module of Triton kernels cannot serve these tensors."""
    wrong = next((t.dtype for t in (x, p) if t is not None and t.dtype not in TRITON_DTYPES), None)
    if wrong:
        return f"the Triton kernel computes in float32, not in {short(wrong)}"
    try:
        import_backend(module)
    except ImportError as exc:
        return f"Triton cannot be imported ({exc}); install triton"
    return ""


def import_backend(module: str) -> Backend:
    found: Backend = importlib.import_module(module)  # a module's functions are its methods
    return found


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
