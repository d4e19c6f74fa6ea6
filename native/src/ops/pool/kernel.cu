// Pooling; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

/// Coarse blocks of `side` voxels, half of the fine ones.
struct Halving {
    int blocks, side[3], c;
};

/// Voxel of the fine tensor at (2z, 2y, 2x) + offset of a coarse voxel; offset: its bits are z, y, x.
__device__ inline long long fine_of(const Halving& s, int voxel, int offset) {
    const int x = voxel % s.side[2], line = voxel / s.side[2], y = line % s.side[1];
    const long long plane = line / s.side[1];  // block * z
    return ((2 * plane + (offset >> 2)) * 2 * s.side[1] + 2 * y + (offset >> 1 & 1)) * 2 * s.side[2] + 2 * x + (offset & 1);
}

__device__ inline int coarse_count(const Halving& s) { return s.blocks * s.side[0] * s.side[1] * s.side[2]; }

template <int W, class E> __device__ inline void average(const Halving& s, const E* x, E* y) {
    const Stride<W> step(s.c);
    for (long long voxel = step.row; voxel < coarse_count(s); voxel += step.rows) {
        float sum[W] = {};
#pragma unroll
        for (int k = 0; k < 8; k += 2) {
            float left[W], right[W];
            load(x + fine_of(s, (int)voxel, k) * s.c + step.channel, left);
            load(x + fine_of(s, (int)voxel, k + 1) * s.c + step.channel, right);
#pragma unroll
            for (int i = 0; i < W; i++) sum[i] += left[i] + right[i];
        }
#pragma unroll
        for (float& v : sum) v *= 0.125f;
        store(y + voxel * s.c + step.channel, sum);
    }
}

template <int W, class E> __device__ inline void average_grad(const Halving& s, const E* dy, E* dx) {
    const Stride<W> step(s.c);
    for (long long voxel = step.row; voxel < coarse_count(s); voxel += step.rows) {
        float share[W];
        load(dy + voxel * s.c + step.channel, share);
#pragma unroll
        for (float& v : share) v *= 0.125f;
        for (int k = 0; k < 8; k++) store(dx + fine_of(s, (int)voxel, k) * s.c + step.channel, share);
    }
}

/// The mean of each 2x2x2 cube.
BUDGET(pool_average, 80, 0);
extern "C" __global__ void __launch_bounds__(256) pool_average(const Halving s, const bf16* x, bf16* y) {
    wide_rows<bf16>(s.c, [&](auto w) { average<w.value>(s, x, y); });
}

BUDGET(pool_average_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256) pool_average_f32(const Halving s, const float* x, float* y) {
    wide_rows<float>(s.c, [&](auto w) { average<w.value>(s, x, y); });
}

/// An eighth of dy at each of the eight voxels.
BUDGET(pool_average_grad, 48, 0);
extern "C" __global__ void __launch_bounds__(256) pool_average_grad(const Halving s, const bf16* dy, bf16* dx) {
    wide_rows<bf16>(s.c, [&](auto w) { average_grad<w.value>(s, dy, dx); });
}

BUDGET(pool_average_grad_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256) pool_average_grad_f32(const Halving s, const float* dy, float* dx) {
    wide_rows<float>(s.c, [&](auto w) { average_grad<w.value>(s, dy, dx); });
}

/// dy of a sample, divided by its rows, at each of them: grid (any, samples). starts: first row of each sample, and the
/// number of rows.
template <int W, class E> __device__ inline void spread(const float* dy, const int* starts, int c, E* dx) {
    const Stride<W> step(c);
    const float share = 1.0f / (float)(starts[blockIdx.y + 1] - starts[blockIdx.y]);
    float v[W];
#pragma unroll
    for (int k = 0; k < W; k++) v[k] = share * dy[blockIdx.y * c + step.channel + k];
    for (long long row = starts[blockIdx.y] + step.row; row < starts[blockIdx.y + 1]; row += step.rows) {
        store(dx + row * c + step.channel, v);
    }
}

BUDGET(pool_spread, 40, 0);
extern "C" __global__ void __launch_bounds__(256) pool_spread(const float* dy, const int* starts, int c, bf16* dx) {
    wide_rows<bf16>(c, [&](auto w) { spread<w.value>(dy, starts, c, dx); });
}

BUDGET(pool_spread_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256) pool_spread_f32(const float* dy, const int* starts, int c, float* dx) {
    wide_rows<float>(c, [&](auto w) { spread<w.value>(dy, starts, c, dx); });
}
