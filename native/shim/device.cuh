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

/// Eight neighbours of 16 bits, moved as one.
struct alignas(16) Eight {
    unsigned pairs[4];
};

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

/// Sum over the 32 lanes of a warp, the same bits in each lane: a tree of fixed order.
__device__ inline float warp_sum(float v) {
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

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
