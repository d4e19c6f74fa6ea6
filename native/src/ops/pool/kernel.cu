// Pooling; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

/// Coarse blocks of `side` voxels, half of the fine ones.
struct Halving {
    int blocks, side[3], c;
};

/// Value of the fine tensor at (2z, 2y, 2x) + offset of coarse value i.
__device__ inline long long fine_of(const Halving& s, long long i, int dz, int dy, int dx) {
    const int channel = i % s.c;
    i /= s.c;
    const int x = i % s.side[2], y = i / s.side[2] % s.side[1];
    const long long plane = i / s.side[2] / s.side[1];  // block * z
    return (((2 * plane + dz) * 2 * s.side[1] + 2 * y + dy) * 2 * s.side[2] + 2 * x + dx) * s.c + channel;
}

__device__ inline long long coarse_count(const Halving& s) {
    return (long long)s.blocks * s.side[0] * s.side[1] * s.side[2] * s.c;
}

template <class E> __device__ inline void average(const Halving& s, const E* x, E* y) {
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < coarse_count(s); i += gridDim.x * 256) {
        float row[4];
        for (int k = 0; k < 4; k++) {
            row[k] = number(x[fine_of(s, i, k >> 1, k & 1, 0)]) + number(x[fine_of(s, i, k >> 1, k & 1, 1)]);
        }
        store(y + i, 0.125f * ((row[0] + row[1]) + (row[2] + row[3])));
    }
}

template <class E> __device__ inline void average_grad(const Halving& s, const E* dy, E* dx) {
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < coarse_count(s); i += gridDim.x * 256) {
        const float share = 0.125f * number(dy[i]);
        for (int k = 0; k < 8; k++) store(dx + fine_of(s, i, k >> 2, k >> 1 & 1, k & 1), share);
    }
}

/// The mean of each 2x2x2 cube.
BUDGET(pool_average, 48, 0);
extern "C" __global__ void __launch_bounds__(256) pool_average(const Halving s, const bf16* x, bf16* y) {
    average(s, x, y);
}

BUDGET(pool_average_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256) pool_average_f32(const Halving s, const float* x, float* y) {
    average(s, x, y);
}

/// An eighth of dy at each of the eight voxels.
BUDGET(pool_average_grad, 48, 0);
extern "C" __global__ void __launch_bounds__(256) pool_average_grad(const Halving s, const bf16* dy, bf16* dx) {
    average_grad(s, dy, dx);
}

BUDGET(pool_average_grad_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256) pool_average_grad_f32(const Halving s, const float* dy, float* dx) {
    average_grad(s, dy, dx);
}

/// dy of a sample, divided by its rows, at each of them: grid (any, samples). starts: first row of each sample, and the
/// number of rows.
template <class E> __device__ inline void spread(const float* dy, const int* starts, int c, E* dx) {
    const int n = blockIdx.y;
    const float share = 1.0f / (float)(starts[n + 1] - starts[n]);
    const long long first = (long long)starts[n] * c, end = (long long)starts[n + 1] * c;
    for (long long i = first + blockIdx.x * 256 + threadIdx.x; i < end; i += gridDim.x * 256) {
        store(dx + i, share * dy[n * c + i % c]);
    }
}

BUDGET(pool_spread, 40, 0);
extern "C" __global__ void __launch_bounds__(256) pool_spread(const float* dy, const int* starts, int c, bf16* dx) {
    spread(dy, starts, c, dx);
}

BUDGET(pool_spread_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256) pool_spread_f32(const float* dy, const int* starts, int c, float* dx) {
    spread(dy, starts, c, dx);
}
