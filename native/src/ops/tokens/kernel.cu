// Tokens: volumes to rows and back, the table of positions, rotary embedding; the contract is that of mod.rs. Tables f32.
#include "device.cuh"

/// Where rows lie. blocks `[rows / (side product)][4]`: sample, z, y, x in blocks.
struct Tokens {
    int rows, side[3];
    int dims[3];  // tokens per axis
    int samples;
};

struct Place {
    int sample, at[3];
};

__device__ inline Place place_of(const Tokens& s, const int* blocks, int row) {
    const int plane = s.side[1] * s.side[2], in = row % (s.side[0] * plane);
    const int* const block = blocks + row / (s.side[0] * plane) * 4;
    return {block[0], {block[1] * s.side[0] + in / plane, block[2] * s.side[1] + in / s.side[2] % s.side[1],
                       block[3] * s.side[2] + in % s.side[2]}};
}

__device__ inline int cell_of(const Tokens& s, const Place& p) {
    return (p.at[0] * s.dims[1] + p.at[1]) * s.dims[2] + p.at[2];
}

/// Value i of the rows `[row][c][token][token][token]` and the value of the volume that belongs to it.
__device__ inline long long voxel_of(const Tokens& s, const int* blocks, int token, int c, long long i) {
    const int cube = token * token * token, in = (int)(i % (c * cube)), k = in / cube, v = in % cube;
    const Place p = place_of(s, blocks, (int)(i / (c * cube)));
    const long long z = p.at[0] * token + v / (token * token), y = p.at[1] * token + v / token % token;
    const long long x = p.at[2] * token + v % token;
    const long long line = ((long long)p.sample * s.dims[0] * token + z) * s.dims[1] * token + y;
    return (line * s.dims[2] * token + x) * c + k;
}

template <class E>
__device__ inline void cut(const Tokens& s, const int* blocks, int token, int c, const E* x, E* y) {
    const long long n = (long long)s.rows * c * token * token * token;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        y[i] = x[voxel_of(s, blocks, token, c, i)];
    }
}

/// The volume was cleared before: tokens that are not listed stay 0.
template <class E>
__device__ inline void paste(const Tokens& s, const int* blocks, int token, int c, const E* dy, E* dx) {
    const long long n = (long long)s.rows * c * token * token * token;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) {
        dx[voxel_of(s, blocks, token, c, i)] = dy[i];
    }
}

template <int W, class E>
__device__ inline void placed(const Tokens& s, const int* blocks, int c, const E* x, const float* table, E* y) {
    const Stride<W> step(c);
    for (long long row = step.row; row < s.rows; row += step.rows) {
        const int cell = cell_of(s, place_of(s, blocks, (int)row));
        float v[W], at[W];
        load(x + row * c + step.channel, v);
        load(table + (long long)cell * c + step.channel, at);
#pragma unroll
        for (int k = 0; k < W; k++) v[k] += at[k];
        store(y + row * c + step.channel, v);
    }
}

/// Sum over the samples in turn. rows_of `[samples][tokens of the grid]`: the row of a token, or -1.
template <class E>
__device__ inline void placed_back(const Tokens& s, const int* rows_of, int c, const E* dy, float* dtable) {
    const long long cells = (long long)s.dims[0] * s.dims[1] * s.dims[2];
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < cells * c; i += gridDim.x * 256LL) {
        float sum = 0.0f;
        for (int n = 0; n < s.samples; n++) {
            const int row = rows_of[n * cells + i / c];
            if (row >= 0) sum += number(dy[(long long)row * c + i % c]);
        }
        dtable[i] = sum;
    }
}

/// W, an even number of channels, at a time.
template <int W, class E>
__device__ inline void turned_by(const Tokens& s, const int* blocks, const float* turns, int pairs, int heads, float sign,
                              const E* x, E* y) {
    const Stride<W> step(heads * 6 * pairs);
    for (long long row = step.row; row < s.rows; row += step.rows) {
        const Place p = place_of(s, blocks, (int)row);
        const long long at = row * heads * 6 * pairs + step.channel;
        float v[W];
        load(x + at, v);
#pragma unroll
        for (int k = 0; k < W; k += 2) {
            const int pair = (step.channel + k) / 2, axis = pair / pairs % 3;
            const int position = axis == 0   ? p.at[0]
                                 : axis == 1 ? s.dims[0] + p.at[1]
                                             : s.dims[0] + s.dims[1] + p.at[2];
            const float* const turn = turns + 2 * (position * pairs + pair % pairs);
            const float u = v[k], sine = sign * turn[1];
            v[k] = u * turn[0] - v[k + 1] * sine;
            v[k + 1] = v[k + 1] * turn[0] + u * sine;
        }
        store(y + at, v);
    }
}

/// turns: cosine and sine `[axis][position][pair][2]`, pairs per axis; sign -1 turns back.
template <class E>
__device__ inline void turned(const Tokens& s, const int* blocks, const float* turns, int pairs, int heads, float sign,
                              const E* x, E* y) {
    if (heads * 6 * pairs % WIDE<E> == 0) turned_by<WIDE<E>>(s, blocks, turns, pairs, heads, sign, x, y);
    else turned_by<2>(s, blocks, turns, pairs, heads, sign, x, y);
}

BUDGET(patchify, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
patchify(const Tokens s, const int* blocks, int token, int c, const bf16* x, bf16* y) {
    cut(s, blocks, token, c, x, y);
}

BUDGET(patchify_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
patchify_f32(const Tokens s, const int* blocks, int token, int c, const float* x, float* y) {
    cut(s, blocks, token, c, x, y);
}

BUDGET(patchify_grad, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
patchify_grad(const Tokens s, const int* blocks, int token, int c, const bf16* dy, bf16* dx) {
    paste(s, blocks, token, c, dy, dx);
}

BUDGET(patchify_grad_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
patchify_grad_f32(const Tokens s, const int* blocks, int token, int c, const float* dy, float* dx) {
    paste(s, blocks, token, c, dy, dx);
}

BUDGET(positions, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
positions(const Tokens s, const int* blocks, int c, const bf16* x, const float* table, bf16* y) {
    wide_rows<bf16>(c, [&](auto w) { placed<w.value>(s, blocks, c, x, table, y); });
}

BUDGET(positions_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
positions_f32(const Tokens s, const int* blocks, int c, const float* x, const float* table, float* y) {
    wide_rows<float>(c, [&](auto w) { placed<w.value>(s, blocks, c, x, table, y); });
}

BUDGET(positions_grad, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
positions_grad(const Tokens s, const int* rows_of, int c, const bf16* dy, float* dtable) {
    placed_back(s, rows_of, c, dy, dtable);
}

BUDGET(positions_grad_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
positions_grad_f32(const Tokens s, const int* rows_of, int c, const float* dy, float* dtable) {
    placed_back(s, rows_of, c, dy, dtable);
}

BUDGET(rope, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
rope(const Tokens s, const int* blocks, const float* turns, int pairs, int heads, float sign, const bf16* x, bf16* y) {
    turned(s, blocks, turns, pairs, heads, sign, x, y);
}

BUDGET(rope_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
rope_f32(const Tokens s, const int* blocks, const float* turns, int pairs, int heads, float sign, const float* x, float* y) {
    turned(s, blocks, turns, pairs, heads, sign, x, y);
}
