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

/// Two 16-bit numbers in one register; `low` comes first in memory.
__device__ inline unsigned pair(bf16 low, bf16 high) { return low | (unsigned)high << 16; }

/// Sum over the 32 lanes of a warp, the same bits in each lane: a tree of fixed order.
__device__ inline float warp_sum(float v) {
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
