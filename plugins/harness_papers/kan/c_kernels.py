"""The C of fused.py: a B-spline layer forward and backward that touches only the splines which are not 0. One order a library.

At an input of a grid with equal intervals the base function and k + 1 splines are not 0, out of G + k + 1 functions. The code
takes one input feature after the other. The rows of the batch (up to BLOCK of them) are put in the order of the interval
their input lies in; then the k + 2 weights of an interval, for up to 64 outputs, stay in registers for all its rows, and each
row costs k + 2 fused multiply-adds a vector of outputs with nothing to look up. The weights' gradient has the same form: the
k + 2 sums of an interval stay in registers. So forward and backward run at the processor's rate of multiply-adds, and the
largest thing in memory beside input, weights and output is a tile of BLOCK x 64 outputs.

Weights are read where they lie, (out, in, G + k) in any strides, and turned over tile by tile into rows of outputs.
Forward, threads share the rows; backward, the features: the bits do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
from functools import cache

from harness.lab import native
from harness.lab.native_elementwise import EXPONENTIALS

MAX_ORDER = 5  # above, the closed forms on an interval lose digits in float32, and the registers run out
MAX_CELLS = 255  # an interval's number is a byte

SOURCE = (
    r"""
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
"""
    + EXPONENTIALS
    + r"""
#if defined(__AVX512F__)
#define LANES 16
#define REGISTERS 32
#elif defined(__AVX__)
#define LANES 8
#define REGISTERS 16
#else
#define LANES 4
#define REGISTERS 32
#endif
#ifdef __AVX512VBMI2__
#include <immintrin.h>
#endif

enum {
    TERMS = ORDER + 2,                      // functions that are not 0 at an input: the base, then ORDER + 1 splines
    BLOCK = 256,                            // rows at a time: a row's number is a byte
    FEATURES = 16,                          // inputs at a time: as many floats as a line of the cache
    VECTORS = (REGISTERS - 3) / (TERMS + 1),  // of outputs: for each, TERMS weights and a sum are in registers
    WIDEST = VECTORS > 4 ? 4 : VECTORS < 1 ? 1 : VECTORS,
    WIDTH = WIDEST * LANES,                 // outputs of a tile
    MOST_CELLS = 255,
    MOST_SUMS = 1 << 16,                    // floats of weight gradients that are summed at a time, where it can be done
    MOST_THREADS = 64
};

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define V(p) (*(vec *)(p))

// Strides are in floats. Pointers that are NULL are not wanted. y, dx and the gradients of weights are contiguous.
typedef struct {
    ptrdiff_t rows, in, out, bases, x_row, x_col, base_out, base_in, weight_out, weight_in, weight_basis, scaler_out, scaler_in,
        g_row, g_col;
} Sizes;

typedef struct {
    const Sizes *s;
    const float *x, *base, *weight, *scaler, *g;
    float *y, *dx, *dbase, *dweight, *dscaler;
    float low, per_step;  // the first knot; 1 / the width of an interval
    ptrdiff_t rows_each;  // forward: rows of an item of work
} Job;

// Of one feature, for the rows of a block: the functions' values and slopes; the rows in the order of their cells.
typedef struct {
    float value[TERMS][BLOCK], slope[TERMS][BLOCK];
    uint16_t start[MOST_CELLS + 1];
    uint8_t row[BLOCK + 64];
} Bases;

static ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t vectors_of(ptrdiff_t outputs) { return (outputs + LANES - 1) / LANES; }

// Packed weights of a feature: the base's, ORDER rows of 0, the splines', ORDER rows of 0; so cell c has rows c + 1 ... .
static ptrdiff_t packed_rows(const Sizes *s) { return 1 + s->bases + 2 * ORDER; }

// Turning over --------------------------------------------------------------------------------------------------------

// For each step of `turn` the lanes of two vectors that make up the first and the second of the new ones. Constants: built
// from a loop they would be built anew for every vector.
#if LANES == 16
#define EVERY(f, s) f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s), f(8, s), f(9, s), f(10, s), \
    f(11, s), f(12, s), f(13, s), f(14, s), f(15, s)
#elif LANES == 8
#define EVERY(f, s) f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s)
#else
#define EVERY(f, s) f(0, s), f(1, s), f(2, s), f(3, s)
#endif
#define FIRST(l, s) ((l) & (s) ? LANES + (l) - (s) : (l))
#define SECOND(l, s) ((l) & (s) ? LANES + (l) : (l) + (s))
static const ints first_of[] = {{EVERY(FIRST, 1)}, {EVERY(FIRST, 2)}, {EVERY(FIRST, 4)}, {EVERY(FIRST, 8)}};
static const ints second_of[] = {{EVERY(SECOND, 1)}, {EVERY(SECOND, 2)}, {EVERY(SECOND, 4)}, {EVERY(SECOND, 8)}};

// r[i][j] becomes r[j][i].
INLINE void turn(vec r[LANES]) {
    UNROLL
    for (int k = 0; 1 << k < LANES; k++) {
        UNROLL
        for (int i = 0; i < LANES; i++)
            if (!(i >> k & 1)) {
                const vec a = r[i], b = r[i + (1 << k)];
                r[i] = __builtin_shuffle(a, b, first_of[k]);
                r[i + (1 << k)] = __builtin_shuffle(a, b, second_of[k]);
            }
    }
}

// to[j][i] = from[i][j] for i < n, j < m; columns from n to the next multiple of LANES become 0.
static void read_columns(const float *from, ptrdiff_t row, ptrdiff_t col, int n, int m, float *to, ptrdiff_t to_row) {
    int j = 0;
    for (; col == 1 && j + LANES <= m; j += LANES)
        for (int i = 0; i < n; i += LANES) {
            vec r[LANES];
            UNROLL
            for (int l = 0; l < LANES; l++) r[l] = i + l < n ? V(from + (i + l) * row + j) : (vec){0};
            turn(r);
            UNROLL
            for (int l = 0; l < LANES; l++) V(to + (j + l) * to_row + i) = r[l];
        }
    for (; j < m; j++)
        for (int i = 0; i < (n + LANES - 1) / LANES * LANES; i++) to[j * to_row + i] = i < n ? from[i * row + j * col] : 0;
}

// to[i][j] = from[j][i] for i < n, j < m. Each row of `from` has room for a multiple of LANES.
static void write_columns(const float *from, ptrdiff_t from_row, int n, int m, float *to, ptrdiff_t row) {
    int j = 0;
    for (; j + LANES <= m; j += LANES)
        for (int i = 0; i < n; i += LANES) {
            vec r[LANES];
            UNROLL
            for (int l = 0; l < LANES; l++) r[l] = V(from + (j + l) * from_row + i);
            turn(r);
            UNROLL
            for (int l = 0; l < LANES; l++)
                if (i + l < n) V(to + (i + l) * row + j) = r[l];
        }
    for (; j < m; j++)
        for (int i = 0; i < n; i++) to[i * row + j] = from[j * from_row + i];
}

// A walk over the splines of all features of a group as if they were one axis.
typedef struct { int feature, basis; } Place;

INLINE Place after(Place p, int bases) {
    p.basis++;
    if (p.basis == bases) p.basis = 0, p.feature++;
    return p;
}

INLINE float *packed_at(float *packed, ptrdiff_t size, int wide, Place p) {
    return packed + p.feature * size + (1 + ORDER + p.basis) * wide;
}

// The weights of m features from `feature` on and of n outputs from `o` on, as `packed_rows` says, rows of `wide`.
static void pack(const Job *j, ptrdiff_t feature, int m, ptrdiff_t o, int n, int wide, const float *scaler, float *to) {
    const Sizes *s = j->s;
    const ptrdiff_t size = packed_rows(s) * wide;
    const int bases = (int)s->bases;
    const float *weight = j->weight + o * s->weight_out + feature * s->weight_in;
    read_columns(j->base + o * s->base_out + feature * s->base_in, s->base_out, s->base_in, n, m, to, size);
    for (int f = 0; f < m; f++) {
        memset(to + f * size + wide, 0, sizeof(float) * ORDER * wide);
        memset(to + f * size + (1 + ORDER + bases) * wide, 0, sizeof(float) * ORDER * wide);
    }
    Place place = {0, 0};
    int p = 0;
    if (s->weight_basis == 1 && s->weight_in == bases)
        for (; p + LANES <= m * bases; p += LANES) {
            Place next = place;
            for (int i = 0; i < n; i += LANES) {
                vec r[LANES];
                UNROLL
                for (int l = 0; l < LANES; l++) r[l] = i + l < n ? V(weight + (i + l) * s->weight_out + p) : (vec){0};
                turn(r);
                next = place;
                UNROLL
                for (int l = 0; l < LANES; l++) {
                    V(packed_at(to, size, wide, next) + i) = r[l];
                    next = after(next, bases);
                }
            }
            place = next;
        }
    for (; p < m * bases; p++, place = after(place, bases)) {
        const float *from = weight + place.feature * s->weight_in + place.basis * s->weight_basis;
        float *row = packed_at(to, size, wide, place);
        for (int i = 0; i < wide; i++) row[i] = i < n ? from[i * s->weight_out] : 0;
    }
    if (!scaler) return;
    float factors[FEATURES * WIDTH];
    read_columns(scaler + o * s->scaler_out + feature * s->scaler_in, s->scaler_out, s->scaler_in, n, m, factors, wide);
    for (int f = 0; f < m; f++)
        for (int b = 0; b < bases; b++) {
            float *row = packed_at(to, size, wide, (Place){f, b});
#pragma omp simd
            for (int i = 0; i < wide; i++) row[i] *= factors[f * wide + i];
        }
}

// The gradients of these weights, to where they belong. sums: packed, and scaled here; room: packed weights, for the scaler.
static void unpack(const Job *j, ptrdiff_t feature, int m, ptrdiff_t o, int n, int wide, float *sums, float *room) {
    const Sizes *s = j->s;
    const ptrdiff_t size = packed_rows(s) * wide;
    const int bases = (int)s->bases;
    if (j->dbase) write_columns(sums, size, n, m, j->dbase + o * s->in + feature, s->in);
    if (j->scaler) {
        float factors[FEATURES * WIDTH], along[FEATURES * WIDTH];
        read_columns(j->scaler + o * s->scaler_out + feature * s->scaler_in, s->scaler_out, s->scaler_in, n, m, factors, wide);
        if (j->dscaler) pack(j, feature, m, o, n, wide, NULL, room);
        for (int f = 0; f < m; f++) {
            memset(along + f * wide, 0, sizeof(float) * wide);
            for (int b = 0; b < bases; b++) {
                float *sum = packed_at(sums, size, wide, (Place){f, b});
                const float *weight = packed_at(room, size, wide, (Place){f, b});
                if (j->dscaler)
                    for (int i = 0; i < wide; i++) along[f * wide + i] += weight[i] * sum[i];
                for (int i = 0; i < wide; i++) sum[i] *= factors[f * wide + i];
            }
        }
        if (j->dscaler) write_columns(along, wide, n, m, j->dscaler + o * s->in + feature, s->in);
    }
    if (!j->dweight) return;
    const ptrdiff_t row = s->in * bases;
    float *to = j->dweight + o * row + feature * bases;
    Place place = {0, 0};
    int p = 0;
    for (; p + LANES <= m * bases; p += LANES) {
        Place next = place;
        for (int i = 0; i < n; i += LANES) {
            vec r[LANES];
            next = place;
            UNROLL
            for (int l = 0; l < LANES; l++) {
                r[l] = V(packed_at(sums, size, wide, next) + i);
                next = after(next, bases);
            }
            turn(r);
            UNROLL
            for (int l = 0; l < LANES; l++)
                if (i + l < n) V(to + (i + l) * row + p) = r[l];
        }
        place = next;
    }
    for (; p < m * bases; p++, place = after(place, bases))
        for (int i = 0; i < n; i++) to[i * row + p] = packed_at(sums, size, wide, place)[i];
}

// Bases ---------------------------------------------------------------------------------------------------------------

static void find_silu(const float *x, int n, Bases *b) {
#pragma omp simd
    for (int r = 0; r < n; r++) b->value[0][r] = x[r] / (1 + fast_exp(-x[r]));
}

static void find_silu_slope(const float *x, int n, Bases *b) {
#pragma omp simd
    for (int r = 0; r < n; r++) {
        const float s = 1 / (1 + fast_exp(-x[r]));
        b->slope[0][r] = s * (1 + x[r] * (1 - s));
    }
}

// De Boor's recursion on equal intervals: order p from order p - 1, with u in [0, 1) the place in the cell.
INLINE void find_splines(const Job *j, const float *x, int n, int slopes, Bases *b, uint8_t *cell) {
    const float cells = (float)(j->s->bases + ORDER);
    for (int r = 0; r < n; r += LANES) {
        vec t = (V(x + r) - j->low) * j->per_step;
        const ints inside = (t >= 0.0f) & (t < cells);  // beyond the knots, and for NaN, all splines are 0
        t = (vec)((ints)t & inside);
        const ints c = __builtin_convertvector(t, ints);
        const vec u = t - __builtin_convertvector(c, vec);
        V(b->value[1] + r) = (vec)((ints)((vec){0} + 1.0f) & inside);
        *(bytes *)(cell + r) = __builtin_convertvector(c, bytes);
        vec v[ORDER + 1];
        v[0] = V(b->value[1] + r);
        UNROLL
        for (int p = 1; p <= ORDER; p++) {
            vec carried = {0};
            if (slopes && p == ORDER) {
                UNROLL
                for (int i = 0; i <= ORDER; i++)
                    V(b->slope[1 + i] + r) = j->per_step * ((i ? v[i - 1] : carried) - (i < ORDER ? v[i] : carried));
            }
            UNROLL
            for (int i = 0; i < p; i++) {
                const vec share = v[i] * (1.0f / p);
                v[i] = carried + ((float)(i + 1) - u) * share;
                carried = (u + (float)(p - 1 - i)) * share;
            }
            v[p] = carried;
        }
        UNROLL
        for (int i = 0; i <= ORDER; i++) V(b->value[1 + i] + r) = v[i];
    }
}

#ifdef __AVX512VBMI2__
// A pass over the numbers of all rows for each cell: 64 of them are compared and pressed together at once.
static void sort_rows(const uint8_t *cell, int n, int cells, Bases *b) {
    __m512i held[BLOCK / 64], rows[BLOCK / 64];
    __mmask64 real[BLOCK / 64];
    const int parts = (n + 63) / 64;
    uint8_t first[64];
    for (int i = 0; i < 64; i++) first[i] = (uint8_t)i;
    for (int q = 0; q < parts; q++) {
        held[q] = _mm512_loadu_si512(cell + 64 * q);
        rows[q] = _mm512_add_epi8(_mm512_loadu_si512(first), _mm512_set1_epi8((char)(64 * q)));
        real[q] = n - 64 * q >= 64 ? ~0ULL : (1ULL << (n - 64 * q)) - 1;
    }
    int at = 0;
    for (int c = 0; c < cells; c++) {
        b->start[c] = (uint16_t)at;
        if (at == n) continue;
        const __m512i wanted = _mm512_set1_epi8((char)c);
        for (int q = 0; q < parts; q++) {
            const __mmask64 same = _mm512_mask_cmpeq_epi8_mask(real[q], held[q], wanted);
            _mm512_storeu_si512(b->row + at, _mm512_maskz_compress_epi8(same, rows[q]));
            at += (int)_mm_popcnt_u64(same);
        }
    }
    b->start[cells] = (uint16_t)at;
}
#else
static void sort_rows(const uint8_t *cell, int n, int cells, Bases *b) {
    uint16_t at[MOST_CELLS];
    memset(at, 0, sizeof(uint16_t) * cells);
    for (int r = 0; r < n; r++) at[cell[r]]++;
    uint16_t sum = 0;
    for (int c = 0; c < cells; c++) {
        const uint16_t count = at[c];
        b->start[c] = at[c] = sum;
        sum += count;
    }
    b->start[cells] = sum;
    for (int r = 0; r < n; r++) b->row[at[cell[r]]++] = (uint8_t)r;
}
#endif

static void find_bases(const Job *j, const float *x, int n, int slopes, Bases *b) {
    uint8_t cell[BLOCK];
    find_silu(x, n, b);
    if (slopes) {
        find_silu_slope(x, n, b);
        find_splines(j, x, n, 1, b, cell);
    } else find_splines(j, x, n, 0, b, cell);
    sort_rows(cell, n, (int)j->s->bases + ORDER, b);
}

// One feature, one tile of N vectors of outputs ------------------------------------------------------------------------

#define EACH(i, n) UNROLL for (int i = 0; i < n; i++)

// y += values of the functions times their weights w.
INLINE void add_outputs(const Bases *b, int cells, const float *w, float *y, const int N) {
    const int wide = N * LANES;
    vec k[TERMS][WIDEST], sum[WIDEST];
    EACH(v, N) k[0][v] = V(w + v * LANES);
    for (int c = 0; c < cells; c++) {
        if (b->start[c] == b->start[c + 1]) continue;
        EACH(i, ORDER + 1) EACH(v, N) k[i + 1][v] = V(w + (c + i + 1) * wide + v * LANES);
        for (int p = b->start[c]; p < b->start[c + 1]; p++) {
            const int r = b->row[p];
            EACH(v, N) sum[v] = V(y + r * wide + v * LANES);
            EACH(i, TERMS) EACH(v, N) sum[v] += b->value[i][r] * k[i][v];
            EACH(v, N) V(y + r * wide + v * LANES) = sum[v];
        }
    }
}

// The weights' gradient: w += values of the functions times the gradient g of the outputs. A cell is summed up on its own
// first: a sum of sums has less rounding than one long sum.
INLINE void add_weights(const Bases *b, int cells, const float *g, float *w, const int N) {
    const int wide = N * LANES;
    vec base[WIDEST], k[ORDER + 1][WIDEST], above[WIDEST];
    EACH(v, N) base[v] = (vec){0};
    for (int c = 0; c < cells; c++) {
        if (b->start[c] == b->start[c + 1]) continue;
        EACH(i, ORDER + 1) EACH(v, N) k[i][v] = (vec){0};
        for (int p = b->start[c]; p < b->start[c + 1]; p++) {
            const int r = b->row[p];
            EACH(v, N) above[v] = V(g + r * wide + v * LANES);
            EACH(v, N) base[v] += b->value[0][r] * above[v];
            EACH(i, ORDER + 1) EACH(v, N) k[i][v] += b->value[i + 1][r] * above[v];
        }
        EACH(i, ORDER + 1) EACH(v, N) V(w + (c + i + 1) * wide + v * LANES) += k[i][v];
    }
    EACH(v, N) V(w + v * LANES) += base[v];
}

// The input's gradient: dx += the sum over outputs of g times slopes of the functions times their weights w. room: of BLOCK
// vectors: a row's lanes are not added up one row at a time but, turned over, for LANES rows at once.
INLINE void add_inputs(const Bases *b, int cells, const float *w, const float *g, float *dx, float *room, const int N) {
    const int wide = N * LANES;
    vec k[TERMS][WIDEST];
    int n = 0;
    EACH(v, N) k[0][v] = V(w + v * LANES);
    for (int c = 0; c < cells; c++) {
        if (b->start[c] == b->start[c + 1]) continue;
        EACH(i, ORDER + 1) EACH(v, N) k[i + 1][v] = V(w + (c + i + 1) * wide + v * LANES);
        for (n = b->start[c]; n < b->start[c + 1]; n++) {
            const int r = b->row[n];
            vec all = {0};
            EACH(v, N) {
                vec slope = b->slope[0][r] * k[0][v];
                EACH(i, ORDER + 1) slope += b->slope[i + 1][r] * k[i + 1][v];
                all += slope * V(g + r * wide + v * LANES);
            }
            V(room + n * LANES) = all;
        }
    }
    for (int p = 0; p < n; p += LANES) {
        vec r[LANES], sum = {0};
        EACH(l, LANES) r[l] = V(room + (p + l) * LANES);
        turn(r);
        EACH(l, LANES) sum += r[l];
        for (int l = 0; l < LANES && p + l < n; l++) dx[b->row[p + l]] += sum[l];
    }
}

#define FOR_WIDTH(vectors, call) \
    switch (vectors) { \
    case 1: { enum { N = 1 }; call; break; } \
    case 2: { enum { N = WIDEST < 2 ? WIDEST : 2 }; call; break; } \
    case 3: { enum { N = WIDEST < 3 ? WIDEST : 3 }; call; break; } \
    default: { enum { N = WIDEST }; call; } \
    }

static void outputs(const Bases *b, int cells, const float *w, float *y, int vectors) {
    FOR_WIDTH(vectors, add_outputs(b, cells, w, y, N))
}
static void weights(const Bases *b, int cells, const float *g, float *w, int vectors) {
    FOR_WIDTH(vectors, add_weights(b, cells, g, w, N))
}
static void inputs(const Bases *b, int cells, const float *w, const float *g, float *dx, float *room, int vectors) {
    FOR_WIDTH(vectors, add_inputs(b, cells, w, g, dx, room, N))
}

// All features, all tiles ----------------------------------------------------------------------------------------------

typedef struct {
    Bases *bases;                      // of a group of features; of one, where one tile holds all outputs
    float *x, *dx, *tile, *packed, *sums, *lanes;
} Room;

static ptrdiff_t tiles_of(const Sizes *s) { return (s->out + WIDTH - 1) / WIDTH; }

// Features whose weights' gradients are summed at a time.
static ptrdiff_t features_each(const Sizes *s) {
    const ptrdiff_t fit = MOST_SUMS / (packed_rows(s) * vectors_of(s->out) * LANES);
    return fit < 1 ? 1 : least(fit, FEATURES);
}

// What a thread needs, in floats; with room, its parts.
static ptrdiff_t lay_out(const Sizes *s, int backward, float *at, Room *room) {
    const ptrdiff_t group = tiles_of(s) == 1 ? 1 : FEATURES, size = packed_rows(s) * WIDTH;
    float *const begin = at;
    room->bases = (Bases *)at, at += (group * sizeof(Bases) / sizeof(float) + 15) / 16 * 16;
    room->x = at, at += FEATURES * BLOCK;
    room->tile = at, at += BLOCK * WIDTH;
    room->packed = at, at += FEATURES * size;
    if (backward) {
        room->dx = at, at += FEATURES * BLOCK;
        room->lanes = at, at += LANES * BLOCK;
        room->sums = at, at += features_each(s) * packed_rows(s) * vectors_of(s->out) * LANES;
    }
    return at - begin;
}

// Items: rows_each rows of the batch each.
static void forward_items(const Job *j, ptrdiff_t begin, ptrdiff_t end, float *scratch) {
    const Sizes *s = j->s;
    const ptrdiff_t tiles = tiles_of(s), high = packed_rows(s);
    const int cells = (int)s->bases + ORDER;
    Room room;
    lay_out(s, 0, scratch, &room);
    for (ptrdiff_t item = begin; item < end; item++) {
        const ptrdiff_t row = item * j->rows_each;
        const int n = (int)least(s->rows - row, j->rows_each);
        for (ptrdiff_t feature = 0; feature < s->in; feature += FEATURES) {
            const int m = (int)least(s->in - feature, FEATURES);
            read_columns(j->x + row * s->x_row + feature * s->x_col, s->x_row, s->x_col, n, m, room.x, BLOCK);
            if (tiles > 1)
                for (int f = 0; f < m; f++) find_bases(j, room.x + f * BLOCK, n, 0, &room.bases[f]);
            for (ptrdiff_t o = 0; o < s->out; o += WIDTH) {
                const int wanted = (int)least(s->out - o, WIDTH), vectors = (int)vectors_of(wanted), wide = vectors * LANES;
                float *y = j->y + row * s->out + o;
                pack(j, feature, m, o, wanted, wide, j->scaler, room.packed);
                memset(room.tile, 0, sizeof(float) * n * wide);
                for (int f = 0; f < m; f++) {
                    if (tiles == 1) find_bases(j, room.x + f * BLOCK, n, 0, room.bases);
                    outputs(&room.bases[tiles == 1 ? 0 : f], cells, room.packed + f * high * wide, room.tile, vectors);
                }
                // In two steps: a sum of sums has a tenth of the rounding of one long sum.
                for (int r = 0; r < n; r++) {
                    float *restrict to = y + r * s->out;
                    const float *sum = room.tile + r * wide;
                    if (!feature) memcpy(to, sum, sizeof(float) * wanted);
                    else
#pragma omp simd
                        for (int i = 0; i < wanted; i++) to[i] += sum[i];
                }
            }
        }
    }
}

static void read_tile(const float *from, ptrdiff_t row, ptrdiff_t col, int n, int wanted, int wide, float *to) {
    for (int r = 0; r < n; r++, to += wide, from += row) {
        if (col == 1) memcpy(to, from, sizeof(float) * wanted);
        else
            for (int i = 0; i < wanted; i++) to[i] = from[i * col];
        for (int i = wanted; i < wide; i++) to[i] = 0;
    }
}

// Items: features_each features each.
static void backward_items(const Job *j, ptrdiff_t begin, ptrdiff_t end, float *scratch) {
    const Sizes *s = j->s;
    const ptrdiff_t tiles = tiles_of(s), each = features_each(s), high = packed_rows(s);
    const int cells = (int)s->bases + ORDER, summed = j->dbase || j->dweight || j->dscaler;
    ptrdiff_t held = -1;  // the tile that room.tile holds
    Room room;
    lay_out(s, 1, scratch, &room);
    for (ptrdiff_t item = begin; item < end; item++) {
        const ptrdiff_t feature = item * each;
        const int m = (int)least(s->in - feature, each);
        if (summed) memset(room.sums, 0, sizeof(float) * m * high * vectors_of(s->out) * LANES);
        for (ptrdiff_t row = 0; row < s->rows; row += BLOCK) {
            const int n = (int)least(s->rows - row, BLOCK);
            read_columns(j->x + row * s->x_row + feature * s->x_col, s->x_row, s->x_col, n, m, room.x, BLOCK);
            if (tiles > 1)
                for (int f = 0; f < m; f++) find_bases(j, room.x + f * BLOCK, n, j->dx != NULL, &room.bases[f]);
            if (j->dx) memset(room.dx, 0, sizeof(float) * FEATURES * BLOCK);
            for (ptrdiff_t o = 0; o < s->out; o += WIDTH) {
                const int wanted = (int)least(s->out - o, WIDTH), vectors = (int)vectors_of(wanted), wide = vectors * LANES;
                const ptrdiff_t tile = row / BLOCK * tiles + o / WIDTH;
                if (held != tile) {
                    held = tile;
                    read_tile(j->g + row * s->g_row + o * s->g_col, s->g_row, s->g_col, n, wanted, wide, room.tile);
                }
                if (j->dx) pack(j, feature, m, o, wanted, wide, j->scaler, room.packed);
                for (int f = 0; f < m; f++) {
                    const Bases *b = &room.bases[tiles == 1 ? 0 : f];
                    if (tiles == 1) find_bases(j, room.x + f * BLOCK, n, j->dx != NULL, room.bases);
                    if (summed) weights(b, cells, room.tile, room.sums + m * high * o + f * high * wide, vectors);
                    const float *packed = room.packed + f * high * wide;
                    if (j->dx) inputs(b, cells, packed, room.tile, room.dx + f * BLOCK, room.lanes, vectors);
                }
            }
            if (j->dx) write_columns(room.dx, BLOCK, n, m, j->dx + row * s->in + feature, s->in);
        }
        for (ptrdiff_t o = 0; summed && o < s->out; o += WIDTH) {
            const int wanted = (int)least(s->out - o, WIDTH), wide = (int)vectors_of(wanted) * LANES;
            unpack(j, feature, m, o, wanted, wide, room.sums + m * high * o, room.packed);
        }
    }
}

// Threads --------------------------------------------------------------------------------------------------------------

typedef void Range(const Job *, ptrdiff_t begin, ptrdiff_t end, float *scratch);
typedef struct { const Job *job; Range *range; ptrdiff_t begin, end; float *scratch; } Share;

static void *run_share(void *given) {
    const Share *mine = given;
    mine->range(mine->job, mine->begin, mine->end, mine->scratch);
    return NULL;
}

// Over [0, items), in equal runs; a thread that does not start has its run done here. Returns 0, or 1 without memory.
static int share(const Job *job, Range *range, ptrdiff_t items, int threads, int backward) {
    Share shares[MOST_THREADS];
    pthread_t ids[MOST_THREADS];
    char started[MOST_THREADS];
    Room none;
    void *scratch;
    threads = (int)least(threads, least(MOST_THREADS, items));
    if (threads < 1) threads = 1;
    const ptrdiff_t size = lay_out(job->s, backward, NULL, &none);
    if (posix_memalign(&scratch, 64, sizeof(float) * size * threads)) return 1;
    for (int t = 0; t < threads; t++)
        shares[t] = (Share){job, range, items * t / threads, items * (t + 1) / threads, (float *)scratch + t * size};
    for (int t = 1; t < threads; t++) started[t] = !pthread_create(&ids[t], NULL, run_share, &shares[t]);
    run_share(&shares[0]);
    for (int t = 1; t < threads; t++) {
        if (started[t]) pthread_join(ids[t], NULL);
        else run_share(&shares[t]);
    }
    free(scratch);
    return 0;
}

static long counts[2];

long kan_calls(int which) { return __atomic_load_n(&counts[which], __ATOMIC_RELAXED); }

int kan_forward(const Sizes *s, float low, float per_step, const float *x, const float *base, const float *weight,
                const float *scaler, float *y, int threads) {
    Job job = {.s = s, .x = x, .base = base, .weight = weight, .scaler = scaler, .y = y, .low = low, .per_step = per_step};
    __atomic_fetch_add(&counts[0], 1, __ATOMIC_RELAXED);
    const ptrdiff_t each = ((s->rows + threads - 1) / threads + 15) / 16 * 16;
    job.rows_each = least(each, BLOCK);
    return s->rows ? share(&job, forward_items, (s->rows + job.rows_each - 1) / job.rows_each, threads, 0) : 0;
}

int kan_backward(const Sizes *s, float low, float per_step, const float *x, const float *base, const float *weight,
                 const float *scaler, const float *g, float *dx, float *dbase, float *dweight, float *dscaler, int threads) {
    const Job job = {.s = s, .x = x, .base = base, .weight = weight, .scaler = scaler, .g = g, .dx = dx, .dbase = dbase,
                     .dweight = dweight, .dscaler = dscaler, .low = low, .per_step = per_step};
    __atomic_fetch_add(&counts[1], 1, __ATOMIC_RELAXED);
    const ptrdiff_t each = features_each(s);
    return share(&job, backward_items, (s->in + each - 1) / each, threads, 1);
}
"""
)
# -fopenmp-simd reads only the `simd` pragmas: it starts no OpenMP runtime beside torch's.
FLAGS = ("-fopenmp-simd", "-pthread")
SYMBOLS = ("kan_forward", "kan_backward")
SIZES = 15  # numbers of `Sizes`


@cache
def library(order: int, *flags: str) -> ctypes.CDLL:
    """The code for splines of this order, its functions' arguments declared. flags: the compiler's, more. Raises NoCompiler."""
    made = native.load(SOURCE, flags=(*FLAGS, f"-DORDER={order}", *flags))
    address, real, count = ctypes.c_void_p, ctypes.c_float, ctypes.c_int
    made.kan_forward.argtypes = [address, real, real, *[address] * 5, count]
    made.kan_backward.argtypes = [address, real, real, *[address] * 9, count]
    for name in SYMBOLS:
        getattr(made, name).restype = count
    made.kan_calls.argtypes, made.kan_calls.restype = [count], ctypes.c_long
    return made


@cache
def why_not(order: int) -> str:
    """Why the C code cannot run here, "" where it can."""
    try:
        library(order)
    except native.NoCompiler as exc:
        return str(exc)
    return ""


def calls(order: int = 3) -> dict[str, int]:
    """How often each C function of this order was entered in this process: the code counts itself. Raises NoCompiler."""
    return {name: library(order).kan_calls(index) for index, name in enumerate(SYMBOLS)}
