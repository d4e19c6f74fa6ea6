// Columns of one matrix to columns of another; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

/// `count` columns of `[rows][width]` from column `first` on, to those of `[rows][to_width]` from `to_first` on.
struct Columns {
    long long rows;
    int count, width, first, to_width, to_first;
};

template <int W, class E> __device__ inline void copy(const Columns& s, const E* from, E* to) {
    const Stride<W> step(s.count);
    for (long long row = step.row; row < s.rows; row += step.rows) {
        float v[W];
        load(from + row * s.width + s.first + step.channel, v);
        store(to + row * s.to_width + s.to_first + step.channel, v);
    }
}

template <class E> __device__ inline void copy_columns(const Columns& s, const E* from, E* to) {
    const bool even = (s.count | s.width | s.first | s.to_width | s.to_first) % WIDE<E> == 0;
    wide_rows<E>(even ? WIDE<E> : 1, [&](auto w) { copy<w.value>(s, from, to); });
}

BUDGET(concat_columns, 40, 0);
extern "C" __global__ void __launch_bounds__(256) concat_columns(const Columns s, const bf16* from, bf16* to) {
    copy_columns(s, from, to);
}

BUDGET(concat_columns_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256) concat_columns_f32(const Columns s, const float* from, float* to) {
    copy_columns(s, from, to);
}
