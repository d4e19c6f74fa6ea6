// Rows of a tensor in another order, with gaps; the contract is that of mod.rs, f32 or bf16.
#include "device.cuh"

/// y `[rows][c]`; index -1 is a row of zeros. Any grid of 256 threads.
template <int W, class E>
__device__ inline void taken(const E* x, const int* index, long long rows, int c, E* y) {
    const Stride<W> step(c);
    for (long long row = step.row; row < rows; row += step.rows) {
        const int from = index[row];
        float v[W] = {};
        if (from >= 0) load(x + (long long)from * c + step.channel, v);
        store(y + row * c + step.channel, v);
    }
}

BUDGET(gather_rows, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
gather_rows(const bf16* x, const int* index, long long rows, int c, bf16* y) {
    wide_rows<bf16>(c, [&](auto w) { taken<w.value>(x, index, rows, c, y); });
}

BUDGET(gather_rows_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
gather_rows_f32(const float* x, const int* index, long long rows, int c, float* y) {
    wide_rows<float>(c, [&](auto w) { taken<w.value>(x, index, rows, c, y); });
}
