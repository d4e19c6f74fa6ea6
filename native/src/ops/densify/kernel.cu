// Between a block list and whole volumes, with the mask token; the contract is that of mod.rs. Volumes are bf16 or
// f32.
#include "device.cuh"

struct Volumes {
    int samples, dims[3], side[3], c;  // blocks per volume, voxels per block
    const int* cells;                  // block of each cell `[sample][z][y][x]`, or -1
};

__device__ inline long long voxel_count(const Volumes& s) {
    long long count = s.samples;
    for (int d = 0; d < 3; d++) count *= s.dims[d] * s.side[d];
    return count;
}

/// Row in the block list of a voxel of the whole volumes, or -1.
__device__ inline long long listed(const Volumes& s, long long voxel) {
    int cell[3], in[3];
    for (int d = 2; d >= 0; d--) {
        const int size = s.dims[d] * s.side[d], p = voxel % size;
        voxel /= size;
        cell[d] = p / s.side[d];
        in[d] = p % s.side[d];
    }
    const long long block = s.cells[((voxel * s.dims[0] + cell[0]) * s.dims[1] + cell[1]) * s.dims[2] + cell[2]];
    return block < 0 ? -1 : ((block * s.side[0] + in[0]) * s.side[1] + in[1]) * s.side[2] + in[2];
}

template <class E>
__device__ inline void scatter(const Volumes& s, const E* blocks, const float* token, E* dense) {
    const long long count = voxel_count(s) * s.c;
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < count; i += gridDim.x * 256) {
        const int channel = i % s.c;
        const long long row = listed(s, i / s.c);
        if (row >= 0) dense[i] = blocks[row * s.c + channel];
        else store(dense + i, token ? token[channel] : 0.0f);
    }
}

template <class E> __device__ inline void gather(const Volumes& s, const E* dense, E* blocks) {
    const long long count = voxel_count(s) * s.c;
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < count; i += gridDim.x * 256) {
        const long long row = listed(s, i / s.c);
        if (row >= 0) blocks[row * s.c + i % s.c] = dense[i];
    }
}

template <class E> __device__ inline void hidden_sum(const Volumes& s, const E* dy, int slice, float* partial) {
    SHARED(float, sums);  // [8 warps][32]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = blockIdx.y * 32 + lane;
    const long long first = (long long)blockIdx.x * slice, count = voxel_count(s);
    const long long last = first + slice < count ? first + slice : count;
    float sum = 0.0f;
    for (long long voxel = first + warp; voxel < last; voxel += 8) {
        if (channel < s.c && listed(s, voxel) < 0) sum += number(dy[voxel * s.c + channel]);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp || channel >= s.c) return;
    float total = 0.0f;
    for (int w = 0; w < 8; w++) total += sums[w * 32 + lane];
    partial[blockIdx.x * s.c + channel] = total;
}

/// Whole volumes from blocks, elsewhere the token (null: zeros): any grid of 256 threads.
BUDGET(densify_scatter, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
densify_scatter(const Volumes s, const bf16* blocks, const float* token, bf16* dense) {
    scatter(s, blocks, token, dense);
}

BUDGET(densify_scatter_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
densify_scatter_f32(const Volumes s, const float* blocks, const float* token, float* dense) {
    scatter(s, blocks, token, dense);
}

/// The blocks out of whole volumes: any grid of 256 threads, each walks the volumes.
BUDGET(densify_gather, 48, 0);
extern "C" __global__ void __launch_bounds__(256) densify_gather(const Volumes s, const bf16* dense, bf16* blocks) {
    gather(s, dense, blocks);
}

BUDGET(densify_gather_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
densify_gather_f32(const Volumes s, const float* dense, float* blocks) {
    gather(s, dense, blocks);
}

/// Sums of dy over the hidden voxels of slices: grid (slices, channels / 32), 256 threads, partial `[slices][c]`.
BUDGET(densify_token, 48, 1024);
extern "C" __global__ void __launch_bounds__(256)
densify_token(const Volumes s, const bf16* dy, int slice, float* partial) {
    hidden_sum(s, dy, slice, partial);
}

BUDGET(densify_token_f32, 48, 1024);
extern "C" __global__ void __launch_bounds__(256)
densify_token_f32(const Volumes s, const float* dy, int slice, float* partial) {
    hidden_sum(s, dy, slice, partial);
}

/// Gradient of the token: the slices in order.
BUDGET(densify_token_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
densify_token_fold(const float* partial, int slices, int c, float* dtoken) {
    const int channel = blockIdx.x * 256 + threadIdx.x;
    if (channel >= c) return;
    float sum = 0.0f;
    for (int k = 0; k < slices; k++) sum += partial[k * c + channel];
    dtoken[channel] = sum;
}
