// Columns of one matrix to columns of another; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

/// `count` columns of `[rows][width]` from column `first` on, to those of `[rows][to_width]` from `to_first` on.
struct Columns {
    long long rows;
    int count, width, first, to_width, to_first;
};

template <class E> __device__ inline void copy_columns(const Columns& s, const E* from, E* to) {
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < s.rows * s.count; i += gridDim.x * 256) {
        const long long row = i / s.count;
        const int column = i % s.count;
        to[row * s.to_width + s.to_first + column] = from[row * s.width + s.first + column];
    }
}

BUDGET(concat_columns, 40, 0);
extern "C" __global__ void __launch_bounds__(256) concat_columns(const Columns s, const bf16* from, bf16* to) {
    copy_columns(s, from, to);
}

BUDGET(concat_columns_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256) concat_columns_f32(const Columns s, const float* from, float* to) {
    copy_columns(s, from, to);
}
