// How warp matrices lie in registers and shared memory, on known numbers: what emulate.h assumes and only a card can
// confirm. Every other kernel of tensor cores stands on these; `deno task gpu-check` runs them first.
#include "device.cuh"

/// Four 8x8 matrices of 16-bit numbers `[4][8][8]` as ldmatrix hands them out, plain or turned: out `[32 lanes][4 registers][2]`.
BUDGET(fragments_load, 40, 512);
extern "C" __global__ void __launch_bounds__(32) fragments_load(const bf16* values, int turned, float* out) {
    SHARED(bf16, held);
    for (int i = threadIdx.x; i < 256; i += 32) held[i] = values[i];
    __syncthreads();
    unsigned r[4];
    if (turned) load_transposed(r, held + threadIdx.x * 8);
    else load_matrices(r, held + threadIdx.x * 8);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        out[(threadIdx.x * 4 + j) * 2] = from_bf16((bf16)r[j]);
        out[(threadIdx.x * 4 + j) * 2 + 1] = from_bf16((bf16)(r[j] >> 16));
    }
}

/// a `[16][16]` and b `[16][8]`, laid out by hand; out `[32 lanes][4]`: what each lane then holds of a b.
BUDGET(fragments_product, 40, 0);
extern "C" __global__ void __launch_bounds__(32) fragments_product(const bf16* a, const bf16* b, float* out) {
    const int g = threadIdx.x >> 2, t = threadIdx.x & 3;
    unsigned left[4], right[2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const bf16* const at = a + (g + 8 * (i & 1)) * 16 + 2 * t + 8 * (i >> 1);
        left[i] = pair(at[0], at[1]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const bf16* const at = b + (2 * t + 8 * i) * 8 + g;
        right[i] = pair(at[0], at[8]);
    }
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma(sums, left, right[0], right[1]);
#pragma unroll
    for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = sums[i];
}

/// Asynchronous copies of 16 bytes: lane i brings values 8 i .. 8 i + 7, odd lanes bring zeros. out `[256]`.
BUDGET(fragments_copy, 40, 512);
extern "C" __global__ void __launch_bounds__(32) fragments_copy(const bf16* values, float* out) {
    SHARED(bf16, held);
    copy16(held + threadIdx.x * 8, values + threadIdx.x * 8, threadIdx.x % 2 == 0);
    copies_wait();
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += 32) out[i] = from_bf16(held[i]);
}

/// a `[64][16]` and b `[16][96]` on wgmma, pieces of 8 x 8 in shared memory; out `[128 threads][48]`: what each holds of a b.
BUDGET(fragments_wgmma, 96, 5120);
extern "C" __global__ void __launch_bounds__(128) fragments_wgmma(const bf16* a, const bf16* b, float* out) {
    SHARED(bf16, left);  // [2 pieces along k][64 rows][8]
    bf16* const right = left + 64 * 16;  // [2 pieces along k][96 columns][8]
    for (int i = threadIdx.x; i < 64 * 16; i += 128) left[(i % 16 / 8 * 64 + i / 16) * 8 + i % 8] = a[i];
    for (int i = threadIdx.x; i < 16 * 96; i += 128) right[(i / 96 / 8 * 96 + i % 96) * 8 + i / 96 % 8] = b[i];
    show_to_wgmma();
    __syncthreads();
    float sums[48];
#pragma unroll
    for (int i = 0; i < 48; i++) sums[i] = 0.0f;
    wgmma_begin();
    wgmma96(sums, matrix_at(left, 64 * 16, 128), matrix_at(right, 96 * 16, 128));
    wgmma_end();
#pragma unroll
    for (int i = 0; i < 48; i++) out[threadIdx.x * 48 + i] = sums[i];
}

/// The same with both factors turned, as weight gradients need them: pieces of 8 values of k by 8 rows of a or columns of b, with
/// gaps between those that follow each other along the rows or columns.
BUDGET(fragments_wgmma_turned, 96, 5440);
extern "C" __global__ void __launch_bounds__(128) fragments_wgmma_turned(const bf16* a, const bf16* b, float* out) {
    SHARED(bf16, left);  // [8 pieces of rows][17][8], of which 16 are values of k
    bf16* const right = left + 8 * 17 * 8;  // [12 pieces of columns][17][8]
    for (int i = threadIdx.x; i < 64 * 16; i += 128) left[(i / 16 / 8 * 17 + i % 16) * 8 + i / 16 % 8] = a[i];
    for (int i = threadIdx.x; i < 16 * 96; i += 128) right[(i % 96 / 8 * 17 + i / 96) * 8 + i % 96 % 8] = b[i];
    show_to_wgmma();
    __syncthreads();
    float sums[48];
#pragma unroll
    for (int i = 0; i < 48; i++) sums[i] = 0.0f;
    wgmma_begin();
    wgmma_turned(sums, turned_at(left, 128, 17 * 16), turned_at(right, 128, 17 * 16));
    wgmma_end();
#pragma unroll
    for (int i = 0; i < 48; i++) out[threadIdx.x * 48 + i] = sums[i];
}
