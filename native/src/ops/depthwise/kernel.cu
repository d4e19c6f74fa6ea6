// Depthwise 3x3x3 convolution on block lists, down and up; the contract is that of mod.rs, f32 or bf16, weights f32.
// Memory-bound: neighbours come through the cache, lanes are channels.
#include "device.cuh"

struct Depthwise {
    int blocks, c, stride;
    int fine[3], coarse[3];  // voxels of a block; coarse = ceil(fine / stride)
};

/// Row of voxel p, at most one voxel outside of `block`; -1 where that block is hidden.
__device__ inline long long row_at(const int* neighbours, int block, const int* side, const int* p) {
    int neighbour = 0;
    long long voxel = 0;
    for (int d = 0; d < 3; d++) {
        neighbour = neighbour * 3 + (p[d] < 0 ? 0 : p[d] < side[d] ? 1 : 2);
        voxel = voxel * side[d] + (p[d] < 0 ? p[d] + side[d] : p[d] < side[d] ? p[d] : p[d] - side[d]);
    }
    const int source = neighbours[block * 27 + neighbour];
    return source < 0 ? -1 : (long long)source * side[0] * side[1] * side[2] + voxel;
}

/// Block and voxel of a row.
__device__ inline int split_row(long long row, const int* side, int* at) {
    for (int d = 2; d >= 0; d--) {
        at[d] = row % side[d];
        row /= side[d];
    }
    return (int)row;
}

/// coarse = bias + conv(fine): any grid of 256 threads; bias may be null.
template <class E>
__device__ inline void down(const Depthwise& s, const E* x, const int* neighbours, const float* weight, const float* bias, E* y) {
    const long long count = (long long)s.blocks * s.coarse[0] * s.coarse[1] * s.coarse[2] * s.c;
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < count; i += gridDim.x * 256) {
        const int channel = i % s.c;
        int o[3];
        const int block = split_row(i / s.c, s.coarse, o);
        float sum = bias ? bias[channel] : 0.0f;
#pragma unroll 1
        for (int t = 0; t < 27; t++) {
            const int p[3] = {o[0] * s.stride - 1 + t / 9, o[1] * s.stride - 1 + t / 3 % 3, o[2] * s.stride - 1 + t % 3};
            const long long row = row_at(neighbours, block, s.fine, p);
            if (row >= 0) sum += weight[channel * 27 + t] * number(x[row * s.c + channel]);
        }
        store(y + i, sum);
    }
}

/// fine = bias + the transpose of `down` applied to coarse; its gradient of the input, and the reverse.
template <class E>
__device__ inline void up(const Depthwise& s, const E* x, const int* neighbours, const float* weight, const float* bias, E* y) {
    const long long count = (long long)s.blocks * s.fine[0] * s.fine[1] * s.fine[2] * s.c;
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < count; i += gridDim.x * 256) {
        const int channel = i % s.c;
        int p[3];
        const int block = split_row(i / s.c, s.fine, p);
        float sum = bias ? bias[channel] : 0.0f;
#pragma unroll 1
        for (int t = 0; t < 27; t++) {
            int o[3] = {p[0] + 1 - t / 9, p[1] + 1 - t / 3 % 3, p[2] + 1 - t % 3};
            if (s.stride == 2) {
                if ((o[0] | o[1] | o[2]) & 1) continue;
                for (int d = 0; d < 3; d++) o[d] /= 2;
            }
            const long long row = row_at(neighbours, block, s.coarse, o);
            if (row >= 0) sum += weight[channel * 27 + t] * number(x[row * s.c + channel]);
        }
        store(y + i, sum);
    }
}

/// Sums of fine[s o - 1 + t] * coarse[o] over slices of coarse rows: grid (slices, channels / 32, 27), 256 threads,
/// partial `[slices][27][c]`.
template <class E>
__device__ inline void weight_sums(const Depthwise& s, const E* fine, const E* coarse, const int* neighbours, int slice, float* partial) {
    SHARED(float, sums);  // [8 warps][32]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = blockIdx.y * 32 + lane, t = blockIdx.z;
    const long long count = (long long)s.blocks * s.coarse[0] * s.coarse[1] * s.coarse[2];
    const long long first = (long long)blockIdx.x * slice, last = first + slice < count ? first + slice : count;
    float sum = 0.0f;
    for (long long row = first + warp; row < last; row += 8) {
        int o[3];
        const int block = split_row(row, s.coarse, o);
        const int p[3] = {o[0] * s.stride - 1 + t / 9, o[1] * s.stride - 1 + t / 3 % 3, o[2] * s.stride - 1 + t % 3};
        const long long other = row_at(neighbours, block, s.fine, p);
        if (other >= 0 && channel < s.c) sum += number(fine[other * s.c + channel]) * number(coarse[row * s.c + channel]);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp || channel >= s.c) return;
    float total = 0.0f;
    for (int w = 0; w < 8; w++) total += sums[w * 32 + lane];
    partial[((long long)blockIdx.x * 27 + t) * s.c + channel] = total;
}

BUDGET(depthwise_down, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_down(const Depthwise s, const bf16* x, const int* neighbours, const float* weight, const float* bias, bf16* y) {
    down(s, x, neighbours, weight, bias, y);
}

BUDGET(depthwise_up, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_up(const Depthwise s, const bf16* x, const int* neighbours, const float* weight, const float* bias, bf16* y) {
    up(s, x, neighbours, weight, bias, y);
}

BUDGET(depthwise_weight, 64, 1024);
extern "C" __global__ void __launch_bounds__(256)
depthwise_weight(const Depthwise s, const bf16* fine, const bf16* coarse, const int* neighbours, int slice, float* partial) {
    weight_sums(s, fine, coarse, neighbours, slice, partial);
}

BUDGET(depthwise_down_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_down_f32(const Depthwise s, const float* x, const int* neighbours, const float* weight, const float* bias, float* y) {
    down(s, x, neighbours, weight, bias, y);
}

BUDGET(depthwise_up_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_up_f32(const Depthwise s, const float* x, const int* neighbours, const float* weight, const float* bias, float* y) {
    up(s, x, neighbours, weight, bias, y);
}

BUDGET(depthwise_weight_f32, 64, 1024);
extern "C" __global__ void __launch_bounds__(256)
depthwise_weight_f32(const Depthwise s, const float* fine, const float* coarse, const int* neighbours, int slice, float* partial) {
    weight_sums(s, fine, coarse, neighbours, slice, partial);
}

/// dweight `[c][27]`: the slices in order.
BUDGET(depthwise_weight_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_weight_fold(const float* partial, int slices, int c, float* dweight) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= 27 * c) return;
    float sum = 0.0f;
    for (int k = 0; k < slices; k++) sum += partial[((long long)k * 27 + i % 27) * c + i / 27];
    dweight[i] = sum;
}
