// Means of 2x2x2 cubes and of whole samples, with their gradients; the contract is that of mod.rs.
#include "device.cuh"

/// Sides of the coarse blocks, and channels.
struct Pool {
    int blocks, side[3], c;
};

__device__ inline long long coarse_values(const Pool& p) {
    return (long long)p.blocks * p.side[0] * p.side[1] * p.side[2] * p.c;
}

/// First of the eight fine values of a coarse one; the others lie `z`, `y` and `x` further on.
struct Cube {
    long long first, z, y, x;
};
__device__ inline Cube cube(const Pool& p, long long value) {
    const long long voxel = value / p.c, line = voxel / p.side[2], plane = line / p.side[1];
    const long long fine_y = line % p.side[1] * 2, fine_x = voxel % p.side[2] * 2;
    const long long rows = 2LL * p.side[1], columns = 2LL * p.side[2];
    return {((plane * 2 * rows + fine_y) * columns + fine_x) * p.c + value % p.c, rows * columns * p.c, columns * p.c, p.c};
}

/// In the order of the reference: pairs along x, then along y, then planes.
template <class E> __device__ inline void averaged(const Pool& p, const E* x, E* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < coarse_values(p); i += gridDim.x * 256LL) {
        const Cube at = cube(p, i);
        auto two = [&](long long from) { return number(x[from]) + number(x[from + at.x]); };
        auto four = [&](long long from) { return two(from) + two(from + at.y); };
        store(y + i, 0.125f * (four(at.first) + four(at.first + at.z)));
    }
}

template <class E> __device__ inline void averaged_back(const Pool& p, const E* dy, E* dx) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < coarse_values(p); i += gridDim.x * 256LL) {
        const Cube at = cube(p, i);
        const float v = 0.125f * number(dy[i]);
        for (int k = 0; k < 8; k++) store(dx + at.first + (k >> 2) * at.z + (k >> 1 & 1) * at.y + (k & 1) * at.x, v);
    }
}

/// Sums of slices of rows: partial `[slices][samples][c]`. Grid (slices, samples, channels / 32).
template <class E> __device__ inline void global_slices(const int* starts, int slice, int c, const E* x, float* partial) {
    const int first = starts[blockIdx.y] + blockIdx.x * slice, end = starts[blockIdx.y + 1];
    sum_of_rows(first, first + slice < end ? first + slice : end, c, partial + (blockIdx.x * gridDim.y + blockIdx.y) * c,
                [&](int row, int channel) { return number(x[(long long)row * c + channel]); });
}

template <class E> __device__ inline void global_back(const int* starts, int samples, int c, const float* dy, E* dx) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < (long long)starts[samples] * c; i += gridDim.x * 256LL) {
        const int n = sample_of(starts, (int)(i / c));
        store(dx + i, dy[n * c + i % c] / (float)(starts[n + 1] - starts[n]));
    }
}

BUDGET(average_pool, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
average_pool(const Pool p, const bf16* x, bf16* y) {
    averaged(p, x, y);
}

BUDGET(average_pool_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
average_pool_f32(const Pool p, const float* x, float* y) {
    averaged(p, x, y);
}

BUDGET(average_pool_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
average_pool_grad(const Pool p, const bf16* dy, bf16* dx) {
    averaged_back(p, dy, dx);
}

BUDGET(average_pool_grad_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
average_pool_grad_f32(const Pool p, const float* dy, float* dx) {
    averaged_back(p, dy, dx);
}

BUDGET(global_average, 40, 1024);
extern "C" __global__ void __launch_bounds__(256)
global_average(const int* starts, int slice, int c, const bf16* x, float* partial) {
    global_slices(starts, slice, c, x, partial);
}

BUDGET(global_average_f32, 40, 1024);
extern "C" __global__ void __launch_bounds__(256)
global_average_f32(const int* starts, int slice, int c, const float* x, float* partial) {
    global_slices(starts, slice, c, x, partial);
}

/// y `[samples][c]` from the slices, in their order. One thread of 256 per value.
BUDGET(global_average_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
global_average_fold(const float* partial, int slices, const int* starts, int samples, int c, float* y) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= samples * c) return;
    float sum = 0.0f;
    for (int slice = 0; slice < slices; slice++) sum += partial[slice * samples * c + i];
    y[i] = sum / (float)(starts[i / c + 1] - starts[i / c]);
}

BUDGET(global_average_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
global_average_grad(const int* starts, int samples, int c, const float* dy, bf16* dx) {
    global_back(starts, samples, c, dy, dx);
}

BUDGET(global_average_grad_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
global_average_grad_f32(const int* starts, int samples, int c, const float* dy, float* dx) {
    global_back(starts, samples, c, dy, dx);
}
