// Rows of a tensor in another order, with gaps; the contract is that of mod.rs, f32 or bf16.
#include "device.cuh"

/// y `[rows][c]`; index -1 is a row of zeros. Any grid of 256 threads.
template <class E>
__device__ inline void taken(const E* x, const int* index, long long rows, int c, E* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < rows * c; i += gridDim.x * 256LL) {
        const int row = index[i / c];
        y[i] = row < 0 ? (E)0 : x[(long long)row * c + i % c];
    }
}

BUDGET(gather_rows, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
gather_rows(const bf16* x, const int* index, long long rows, int c, bf16* y) {
    taken(x, index, rows, c, y);
}

BUDGET(gather_rows_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
gather_rows_f32(const float* x, const int* index, long long rows, int c, float* y) {
    taken(x, index, rows, c, y);
}
