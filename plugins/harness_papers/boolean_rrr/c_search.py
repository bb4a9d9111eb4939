"""The search of `method` in plain C: float64, one fused pass over (item, edge) an iteration, one thread a search.

The pass moves the variables of a node and eight items, projects what they became to A while they are in the level-one cache,
and adds it to the sums of the next projection to B. So an iteration reads and writes each variable once. The metric of the
next iteration depends on the mean gap, which is known only after the pass; as it is metric (1 - gamma) + gap gamma / mean, two
sums are kept, one weighted by the metric and one by the gap, and joined afterwards.

Each search is computed by itself in a fixed order: how many run side by side, and in how many threads, changes no bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from harness.lab import native
from harness_papers.boolean_rrr.problem import BooleanProblem, Weights
from harness_papers.boolean_rrr.start import HALF, Settings, Start, fan_ins, finite, input_values

LANES = 8  # as in the source
FLAGS = ("-fopenmp-simd", "-lm")

SOURCE = r"""
#include <math.h>
#include <stddef.h>
#include <string.h>

enum { LANES = 8 };                                     // items side by side
typedef double V __attribute__((vector_size(8 * LANES)));
#define EACH_LANE for (int l = 0; l < LANES; l++)
static const double HALF = 0.70710678118654752440;      // sqrt(1/2)

typedef struct {
    ptrdiff_t layers, items, blocks, gates, edges, feeding;
    double beta, gamma;
    const ptrdiff_t *widths;                            // layers + 1, inputs first
    const double *delta;                                // layers
} Net;

// Of one search; a block is LANES items. Edges go by layer, node, slot; slot 0 is the bias source.
typedef struct {
    V *edges;                                           // blocks, edges, 2: sum and difference of weight and input
    V *nodes;                                           // blocks, 1 + inputs + gates
    V *metric, *gap;                                    // blocks, gates; gap: squared, of the last step
    V *projected;                                       // blocks, gates, 3: factors on sum and difference, value
    V *copies;                                          // blocks, feeding, 2: sums over copies, by metric and by gap
    V *agreed;                                          // blocks, feeding: values of P_B
    V *totals;                                          // edges, 2: sums over items of weights, by metric and by gap
    const V *data, *labels, *real;                      // blocks by 1 + inputs, outputs, 1; real: 0 where there is no item
    double *weights, *used;                             // edges: weights of P_B over sqrt 2; those of the last step
} State;

static inline double across(V a) {
    double total = 0;
    EACH_LANE total += a[l];
    return total;
}

// As solve_shift of method.py: the same equation, start and steps.
static inline double shift(double near, double far, double delta) {
    double inverse = 1 / (delta + far), k = sqrt(near * inverse), share = far * inverse, rest = 1 - share;
    k = k < 1 ? k : 1;
    double t = 1 + (1 - k) / (1 + share * k);
    for (int step = 0; step < 3; step++) {
        double scaled = rest * t, square = scaled * t + share, slope = k * sqrt(square), left = 2 - t;
        t += (left * square - t * slope) / (square - left * scaled + slope);
    }
    return near - far < delta ? t - 1 : 0;
}

// As nearest_gate of method.py, for one node. sums, differences: squared lengths.
static inline void project(V sums, V differences, V y, double delta, V *projected) {
    V up, down, plus, minus, value;
    #pragma omp simd
    EACH_LANE up[l] = shift(0.5 * sums[l], 0.5 * differences[l], delta);
    #pragma omp simd
    EACH_LANE down[l] = shift(0.5 * differences[l], 0.5 * sums[l], delta);
    #pragma omp simd
    EACH_LANE {
        double grown_up = 1 + up[l], grown_down = 1 + down[l];
        double shrunk_up = 0.5 * differences[l] / (grown_up * grown_up);
        double shrunk_down = 0.5 * sums[l] / (grown_down * grown_down);
        double cost_up = up[l] * up[l] * (shrunk_up + shrunk_up + delta);
        double cost_down = down[l] * down[l] * (shrunk_down + shrunk_down + delta);
        int positive = cost_up - cost_down < 2 * y[l];
        double u = positive ? up[l] : -down[l];
        plus[l] = 1 / (1 - u);
        minus[l] = 1 / (1 + u);
        value[l] = positive ? 1 : -1;
    }
    projected[0] = plus;
    projected[1] = minus;
    projected[2] = value;
}

// v <- v + beta (b - a), then P_A of what it became and the sums of the next P_B; with beta = 0 and projections of 0 at the
// start. Returns the mean squared gap.
static double sweep(const Net *net, State *state) {
    ptrdiff_t outputs = net->widths[net->layers], nodes = net->feeding + outputs, first_gate = 1 + net->widths[0];
    V total = {0};
    memset(state->totals, 0, (size_t)(2 * net->edges) * sizeof(V));
    memset(state->copies, 0, (size_t)(2 * net->blocks * net->feeding) * sizeof(V));
    for (ptrdiff_t block = 0; block < net->blocks; block++) {
        V *v = state->edges + 2 * block * net->edges, *y = state->nodes + block * nodes, *totals = state->totals;
        V *copies = state->copies + 2 * block * net->feeding, *projected = state->projected + 3 * block * net->gates;
        V *metric = state->metric + block * net->gates, *gaps = state->gap + block * net->gates;
        const V *agreed = state->agreed + block * net->feeding, *data = state->data + block * first_gate;
        const V *labels = state->labels + block * outputs;
        const double *weight = state->weights;
        V real = state->real[block], beta = net->beta * real;
        for (ptrdiff_t n = 0; n < first_gate; n++) y[n] += beta * (agreed[n] - data[n]);
        y += first_gate;
        ptrdiff_t first_source = 1, gate = 0;
        for (ptrdiff_t layer = 0; layer < net->layers; layer++) {
            ptrdiff_t fan_in = 1 + net->widths[layer];
            for (ptrdiff_t n = 0; n < net->widths[layer + 1]; n++, gate++, y++, projected += 3) {
                V on_sum = projected[0], on_difference = projected[1], sums = {0}, differences = {0}, gap = {0};
                for (ptrdiff_t slot = 0; slot < fan_in; slot++) {
                    V x = HALF * agreed[slot ? first_source + slot - 1 : 0], s = v[2 * slot], d = v[2 * slot + 1];
                    V along_s = weight[slot] + x - on_sum * s, along_d = weight[slot] - x - on_difference * d;
                    gap += along_s * along_s;
                    gap += along_d * along_d;
                    s += beta * along_s;
                    d += beta * along_d;
                    sums += s * s;
                    differences += d * d;
                    v[2 * slot] = s;
                    v[2 * slot + 1] = d;
                }
                V along_y = (layer + 1 == net->layers ? labels[n] : agreed[first_gate + gate]) - projected[2];
                gap = (gap + along_y * along_y) * real;
                *y += beta * along_y;
                total += gap;
                gaps[gate] = gap;
                project(sums, differences, *y, net->delta[layer], projected);
                V by_metric = metric[gate], turn_s = 2 * projected[0] - 1, turn_d = 2 * projected[1] - 1;   // 2a - v
                for (ptrdiff_t slot = 0; slot < fan_in; slot++) {
                    V s = turn_s * v[2 * slot], d = turn_d * v[2 * slot + 1], w = s + d, x = s - d;
                    V *copy = copies + 2 * (slot ? first_source + slot - 1 : 0);
                    totals[2 * slot] += by_metric * w;
                    totals[2 * slot + 1] += gap * w;
                    copy[0] += by_metric * x;
                    copy[1] += gap * x;
                }
                v += 2 * fan_in;
                totals += 2 * fan_in;
                weight += fan_in;
            }
            first_source += net->widths[layer];
        }
    }
    return across(total) / (double)(net->items * net->gates);
}

// P_B out of the sums. The metric of the next step is keep * metric + take * gap.
static void agree(const Net *net, State *state, double keep, double take) {
    ptrdiff_t nodes = net->feeding + net->widths[net->layers], first_gate = 1 + net->widths[0];
    const V *totals = state->totals;
    double *weight = state->weights;
    memcpy(state->used, weight, (size_t)net->edges * sizeof(double));
    for (ptrdiff_t layer = 0; layer < net->layers; layer++) {
        ptrdiff_t fan_in = 1 + net->widths[layer];
        for (ptrdiff_t n = 0; n < net->widths[layer + 1]; n++) {
            double square = 0;
            for (ptrdiff_t slot = 0; slot < fan_in; slot++) {
                weight[slot] = across(keep * totals[2 * slot] + take * totals[2 * slot + 1]);
                square += weight[slot] * weight[slot];
            }
            double scale = HALF * sqrt((double)fan_in / square);
            for (ptrdiff_t slot = 0; slot < fan_in; slot++) weight[slot] *= scale;
            weight += fan_in;
            totals += 2 * fan_in;
        }
    }
    for (ptrdiff_t block = 0; block < net->blocks; block++) {
        V *metric = state->metric + block * net->gates, *agreed = state->agreed + block * net->feeding;
        const V *gap = state->gap + block * net->gates, *copies = state->copies + 2 * block * net->feeding;
        const V *data = state->data + block * first_gate, *y = state->nodes + block * nodes;
        const V *value = state->projected + 3 * block * net->gates + 2;
        V bias_mass = {0}, missing = 1 - state->real[block];    // where there is no item: 0 / 1
        ptrdiff_t gate = 0, node = 1;
        for (ptrdiff_t n = 0; n < net->gates; n++) metric[n] = keep * metric[n] + take * gap[n];
        for (ptrdiff_t layer = 0; layer < net->layers; layer++) {
            V mass = {0};
            for (ptrdiff_t n = 0; n < net->widths[layer + 1]; n++) mass += metric[gate++];
            bias_mass += mass;
            for (ptrdiff_t n = 0; n < net->widths[layer]; n++, node++) {
                V copied = HALF * (keep * copies[2 * node] + take * copies[2 * node + 1]);
                if (layer == 0) {
                    agreed[node] = (2 * data[node] - y[node] + copied) / (1 + mass);
                } else {
                    V own = metric[node - first_gate];
                    agreed[node] = (own * (2 * value[3 * (node - first_gate)] - y[node]) + copied) / (own + mass + missing);
                }
            }
        }
        V copied = HALF * (keep * copies[0] + take * copies[1]);
        agreed[0] = (2 * data[0] - y[0] + copied) / (1 + bias_mass);
    }
}

// Call once, before `advance`, with everything zero that the start does not give.
void begin(const Net *net, State *state) {
    Net still = *net;
    still.beta = 0;
    sweep(&still, state);
    agree(net, state, 1, 0);
}

// Steps of RRR and of the metric's relaxation; gaps gets the gap of each. Ends early where one is not finite.
void advance(const Net *net, State *state, ptrdiff_t steps, double *gaps) {
    for (ptrdiff_t step = 0; step < steps; step++) {
        double mean = sweep(net, state);
        gaps[step] = sqrt(mean);
        if (!isfinite(mean)) return;
        if (mean > 0) agree(net, state, 1 - net->gamma, net->gamma / mean);
        else agree(net, state, 1, 0);
    }
}
"""


class Net(ctypes.Structure):
    """As in the source."""

    _fields_ = [
        *((name, ctypes.c_ssize_t) for name in ("layers", "items", "blocks", "gates", "edges", "feeding")),
        *((name, ctypes.c_double) for name in ("beta", "gamma")),
        *((name, ctypes.c_void_p) for name in ("widths", "delta")),
    ]


PARTS = ("edges", "nodes", "metric", "gap", "projected", "copies", "agreed", "totals",
         "data", "labels", "real", "weights", "used")  # fmt: skip


class State(ctypes.Structure):
    """As in the source."""

    _fields_ = [(name, ctypes.c_void_p) for name in PARTS]


@cache
def library() -> ctypes.CDLL:
    """The compiled source. Raises NoCompiler."""
    lib = native.load(SOURCE, flags=FLAGS)
    lib.begin.argtypes, lib.begin.restype = [ctypes.POINTER(Net), ctypes.POINTER(State)], None
    lib.advance.argtypes = [ctypes.POINTER(Net), ctypes.POINTER(State), ctypes.c_ssize_t, ctypes.c_void_p]
    lib.advance.restype = None
    return lib


def why_not() -> str:
    """Why the C code cannot run here, "" where it can."""
    return native.why_not(SOURCE, flags=FLAGS)


class CSearch:
    """Searches side by side, as `method.Search`; each is a dict of arrays in `states`, whose last axis is LANES items."""

    def __init__(self, problem: BooleanProblem, settings: Settings, starts: Sequence[Start], threads: int = 1) -> None:
        self.problem = problem
        self._fan_ins = fan_ins(problem.widths)
        self._widths = np.array(problem.widths, dtype=np.intp)
        self._delta = np.array([(fan_in / settings.sigma) ** 0.5 for fan_in, _ in self._fan_ins])
        self._net = Net(
            len(self._fan_ins), problem.items, -(-problem.items // LANES), sum(problem.widths[1:]), problem.edges,
            1 + sum(problem.widths[:-1]), settings.beta, settings.gamma, self._widths.ctypes.data, self._delta.ctypes.data,
        )  # fmt: skip
        self.states = [self._allocate(start) for start in starts]
        self._pointers = [State(*(state[name].ctypes.data for name in PARTS)) for state in self.states]
        self._pool = ThreadPoolExecutor(min(threads, len(starts))) if min(threads, len(starts)) > 1 else None
        for pointers in self._pointers:
            library().begin(self._net, pointers)

    def step(self) -> NDArray[np.float64]:
        """One iteration. Returns the gaps (S,); raises Diverged where one is not finite."""
        return self.advance(1)[:, 0]

    def advance(self, steps: int) -> NDArray[np.float64]:
        """So many iterations of each search, in as many threads as were given. Returns the gaps (S, steps)."""
        gaps = np.zeros((len(self.states), steps))

        def move(number: int) -> None:  # ctypes lets other threads run meanwhile
            library().advance(self._net, self._pointers[number], steps, gaps[number].ctypes.data)

        numbers = range(len(self.states))
        for _ in map(move, numbers) if self._pool is None else self._pool.map(move, numbers):
            pass
        return finite(gaps)

    def weights(self, number: int) -> Weights:
        """The weights that a search last agreed on, by layer (width, 1 + width before it); column 0 is the bias source's."""
        used = self.states[number]["used"] / HALF
        ends = np.cumsum([fan_in * width for fan_in, width in self._fan_ins])[:-1]
        parts = zip(np.split(used, ends), self._fan_ins, strict=True)
        return tuple(part.reshape(width, fan_in) for part, (fan_in, width) in parts)

    def items(self, number: int, name: str) -> NDArray[np.float64]:
        """An array of a search with the items side by side: (items, ...)."""
        array = self.states[number][name]
        return np.moveaxis(array, -1, 1).reshape(-1, *array.shape[1:-1])[: self.problem.items]

    def _allocate(self, start: Start) -> dict[str, NDArray[np.float64]]:
        net = self._net
        data, labels = input_values(self.problem), self.problem.table.outputs.T.astype(float)
        edges = np.concatenate([part.reshape(2, -1, net.items) for part in start.edges], axis=1)
        # Where there is no item: sums and differences of 1, for which the projection is finite, and nothing weighs anything.
        given = {
            "edges": self._blocks(edges.swapaxes(0, 1), 1.0),
            "nodes": self._blocks(np.concatenate([data, start.hidden, labels])),
            "metric": self._blocks(np.ones((net.gates, net.items))),
            "data": self._blocks(data),
            "labels": self._blocks(labels),
            "real": self._blocks(np.ones((net.items,))),
        }
        shapes = {
            "gap": (net.blocks, net.gates, LANES),
            "projected": (net.blocks, net.gates, 3, LANES),
            "copies": (net.blocks, net.feeding, 2, LANES),
            "agreed": (net.blocks, net.feeding, LANES),
            "totals": (net.edges, 2, LANES),
            "weights": (net.edges,),
            "used": (net.edges,),
        }
        return given | {name: aligned(np.zeros(shape)) for name, shape in shapes.items()}

    def _blocks(self, values: NDArray[np.float64], missing: float = 0.0) -> NDArray[np.float64]:
        """(..., items) as (blocks, ..., LANES)."""
        room = [(0, 0)] * (values.ndim - 1) + [(0, self._net.blocks * LANES - self._net.items)]
        padded = np.pad(values, room, constant_values=missing)
        return aligned(np.moveaxis(padded.reshape(*values.shape[:-1], self._net.blocks, LANES), -2, 0))


def aligned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A copy that begins at a multiple of 64 bytes, as the vectors of the source must; torch aligns what it allocates."""
    room: NDArray[np.float64] = torch.empty(values.shape, dtype=torch.float64).numpy()
    room[...] = values
    return room
