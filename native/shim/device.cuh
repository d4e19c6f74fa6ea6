// What a kernel.cu may use beside plain C++: 16-bit numbers, warp matrix instructions and asynchronous copies. On the
// device these are PTX instructions, on the host the emulation of emulate.h: the kernels are the same text in both.
// No standard header and no fixed-width type: NVRTC has none of them.
#pragma once

typedef unsigned short bf16;

/// What a kernel may need per thread and per block. `deno task kernels` compares the registers with what the compiler
/// reports, the emulation refuses a launch with more shared memory.
struct Budget {
    int registers;
    int shared;
};
#define BUDGET(kernel, registers, shared) [[maybe_unused]] constexpr Budget kernel##_budget{registers, shared}

#ifdef __CUDACC__
#include "ptx.cuh"
#else
#include "emulate.h"
#endif

__device__ inline float from_bf16(bf16 v) { return float_of_bits((unsigned)v << 16); }

/// Stored numbers of either type, as kernels compute with them.
__device__ inline float number(float v) { return v; }
__device__ inline float number(bf16 v) { return from_bf16(v); }
__device__ inline void store(float* to, float v) { *to = v; }
__device__ inline void store(bf16* to, float v) { *to = to_bf16(v); }

/// Two 16-bit numbers in one register; `low` comes first in memory.
__device__ inline unsigned pair(bf16 low, bf16 high) { return low | (unsigned)high << 16; }

/// Numbers of a type that 16 bytes hold: what a thread moves at once where memory is the limit.
template <class E> constexpr int WIDE = 16 / (int)sizeof(E);

/// W neighbours as numbers: so many that they fill 16 bytes once or more, on a boundary of 16; or fewer, one by one.
template <int W, class E> __device__ inline void load(const E* from, float (&v)[W]) {
    if constexpr (W < WIDE<E>) {
#pragma unroll
        for (int k = 0; k < W; k++) v[k] = number(from[k]);
    } else {
        constexpr int N = WIDE<E>;
#pragma unroll
        for (int first = 0; first < W; first += N) {
            unsigned words[4];
            load16(words, from + first);
#pragma unroll
            for (int k = 0; k < N; k++) {
                const unsigned word = words[N == 4 ? k : k / 2];
                v[first + k] = float_of_bits(N == 4 ? word : k % 2 ? word & 0xffff0000u : word << 16);
            }
        }
    }
}
template <int W, class E> __device__ inline void store(E* to, const float (&v)[W]) {
    if constexpr (W < WIDE<E>) {
#pragma unroll
        for (int k = 0; k < W; k++) store(to + k, v[k]);
    } else {
        constexpr int N = WIDE<E>;
#pragma unroll
        for (int first = 0; first < W; first += N) {
            unsigned words[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                if constexpr (N == 4) words[k] = bits_of_float(v[first + k]);
                else words[k] = pair(to_bf16(v[first + 2 * k]), to_bf16(v[first + 2 * k + 1]));
            }
            store16(to + first, words);
        }
    }
}

/// A number that is known when a kernel is compiled.
template <int N> struct Count {
    static constexpr int value = N;
};

/// Calls f(i, Count<W>()) for W values from i on, so that each of n has its turn: as many as 16 bytes hold, the last ones singly.
/// Any grid of 256 threads.
template <class E, class F> __device__ inline void each_wide(long long n, F f) {
    constexpr int W = WIDE<E>;
    const long long me = blockIdx.x * 256LL + threadIdx.x, step = gridDim.x * 256LL;
    for (long long i = me; i < n / W; i += step) f(i * W, Count<W>());
    for (long long i = n / W * W + me; i < n; i += step) f(i, Count<1>());
}

/// y = f(x) for each of n values; y = f(a, b).
template <class E, class F> __device__ inline void map(const E* x, long long n, E* y, F f) {
    each_wide<E>(n, [&](long long i, auto w) {
        float v[w.value];
        load(x + i, v);
#pragma unroll
        for (float& value : v) value = f(value);
        store(y + i, v);
    });
}
template <class E, class F> __device__ inline void map(const E* a, const E* b, long long n, E* y, F f) {
    each_wide<E>(n, [&](long long i, auto w) {
        float u[w.value], v[w.value];
        load(a + i, u);
        load(b + i, v);
#pragma unroll
        for (int k = 0; k < w.value; k++) u[k] = f(u[k], v[k]);
        store(y + i, u);
    });
}

/// Calls f(Count<W>()) with the widest W of which rows of c channels are made.
template <class E, class F> __device__ inline void wide_rows(int c, F f) {
    if (c % WIDE<E> == 0) f(Count<WIDE<E>>());
    else f(Count<1>());
}

/// How the threads of a grid step through rows of c channels, W values at a time: each of them meets the same channels again
/// and again, so that what belongs to a channel stays in registers. Row `row`, then every `rows`-th.
template <int W> struct Stride {
    long long row, rows;
    int channel;
    __device__ Stride(int c) {
        const int groups = c / W;
        const long long me = blockIdx.x * 256LL + threadIdx.x;
        rows = gridDim.x * 256LL / groups;
        row = me / groups < rows ? me / groups : 1LL << 60;  // the last threads of the grid have nothing to do
        channel = (int)(me % groups) * W;
    }
};

/// How 256 threads add up rows of c channels: each has W channels (of blockIdx.z those from 256 W on) of every `rows`-th row.
/// Shared memory: HALVES x W x 256 values.
template <int W> struct RowSums {
    int groups, group, row, rows;
    __device__ RowSums(int c) {
        groups = c / W - blockIdx.z * 256;
        groups = groups < 256 ? groups : 256;
        rows = 256 / groups;
        row = threadIdx.x / groups;
        group = threadIdx.x % groups;
    }
    __device__ bool active() const { return row < rows; }
    __device__ int channel() const { return (blockIdx.z * 256 + group) * W; }
    /// Calls put(half, channel, sum) with what all threads found, added in a fixed order.
    template <int HALVES, class F> __device__ void add(const float (&own)[HALVES][W], F put) const {
        SHARED(float, sums);  // [HALVES][W][256]
#pragma unroll
        for (int i = 0; i < HALVES * W; i++) sums[i * 256 + threadIdx.x] = own[i / W][i % W];
        __syncthreads();
        for (int i = threadIdx.x; i < HALVES * W * groups; i += 256) {
            const int k = i / groups % W, half = i / groups / W, of = i % groups;
            float sum = 0.0f;
            for (int r = 0; r < rows; r++) sum += sums[(half * W + k) * 256 + r * groups + of];
            put(half, (blockIdx.z * 256 + of) * W + k, sum);
        }
    }
};

/// Sum over the 32 lanes of a warp, the same bits in each lane: a tree of fixed order.
__device__ inline float warp_sum(float v) {
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

/// out[i] = the sum of partial `[slices][n]` over the slices, in a fixed order: a warp of 256 threads for each i.
__device__ inline void fold_slices(const float* partial, int slices, int n, float* out) {
    const int i = (blockIdx.x * 256 + threadIdx.x) / 32;
    if (i >= n) return;
    float sum = 0.0f;
    for (int k = threadIdx.x % 32; k < slices; k += 32) sum += partial[(long long)k * n + i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) out[i] = sum;
}

/// Two neighbours at once; `to` is aligned for both together.
__device__ inline void store_pair(bf16* to, float low, float high) {
    *reinterpret_cast<unsigned*>(to) = pair(to_bf16(low), to_bf16(high));
}
__device__ inline void store_pair(float* to, float low, float high) {
    to[0] = low;
    to[1] = high;
}

/// A value after its norm and before the activation: `factor` is gamma times the reciprocal deviation.
__device__ inline float normed(float x, float mean, float factor, float beta) { return (x - mean) * factor + beta; }

/// A matrix in shared memory as wgmma takes it, without swizzle: pieces of 8 rows of 16 bytes, each piece 128 bytes in
/// one; `down` bytes from a piece to the one of the next 8 rows, `along` bytes to the one of the next 8 columns.
__device__ inline unsigned long long matrix_at(const bf16* first, int along, int down) {
    return (unsigned long long)(shared_place(first) >> 4 & 0x3fff) | (unsigned long long)(along >> 4) << 16 |
           (unsigned long long)(down >> 4) << 32;
}

/// The same for a factor whose summed index goes down the rows (of memory): pieces of 8 summed values, each 16 bytes of rows of a
/// or columns of b; `along` bytes from a piece to the one of the next 8 summed values, `down` bytes to that of the next 8 rows.
__device__ inline unsigned long long turned_at(const bf16* first, int along, int down) { return matrix_at(first, along, down); }

/// out[channel] = sum of f(row, channel) over rows first .. last - 1, in a fixed order. 256 threads, lanes are the 32
/// channels of blockIdx.z, each warp takes every eighth row; shared memory: 8 x 32 values.
template <class F> __device__ inline void sum_of_rows(int first, int last, int c, float* out, F f) {
    SHARED(float, sums);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = blockIdx.z * 32 + lane;
    float sum = 0.0f;
    if (channel < c) {
        for (int row = first + warp; row < last; row += 8) sum += f(row, channel);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp == 0 && channel < c) {
        sum = 0.0f;
        for (int w = 0; w < 8; w++) sum += sums[w * 32 + lane];
        out[channel] = sum;
    }
}

/// The sample of a row: `starts` holds the first row of each sample.
__device__ inline int sample_of(const int* starts, int row) {
    int n = 0;
    while (row >= starts[n + 1]) n++;
    return n;
}
