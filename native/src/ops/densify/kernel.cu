// Between a block list and whole volumes, with the mask token; the contract is that of mod.rs. Volumes are bf16 or
// f32.
#include "device.cuh"

struct Volumes {
    int samples, dims[3], side[3], c;  // blocks per volume, voxels per block
    const int* cells;                  // block of each cell `[sample][z][y][x]`, or -1
};

__device__ inline int voxel_count(const Volumes& s) {
    int count = s.samples;
    for (int d = 0; d < 3; d++) count *= s.dims[d] * s.side[d];
    return count;
}

/// Row in the block list of a voxel of the whole volumes, or -1.
__device__ inline long long listed(const Volumes& s, int voxel) {
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

template <int W, class E>
__device__ inline void scatter(const Volumes& s, const E* blocks, const float* token, E* dense) {
    const Stride<W> step(s.c);
    float hidden[W];
#pragma unroll
    for (int k = 0; k < W; k++) hidden[k] = token ? token[step.channel + k] : 0.0f;
    for (long long voxel = step.row; voxel < voxel_count(s); voxel += step.rows) {
        const long long row = listed(s, (int)voxel);
        E* const to = dense + voxel * s.c + step.channel;
        if (row < 0) {
            store(to, hidden);
        } else {
            float v[W];
            load(blocks + row * s.c + step.channel, v);
            store(to, v);
        }
    }
}

template <int W, class E> __device__ inline void gather(const Volumes& s, const E* dense, E* blocks) {
    const Stride<W> step(s.c);
    for (long long voxel = step.row; voxel < voxel_count(s); voxel += step.rows) {
        const long long row = listed(s, (int)voxel);
        if (row < 0) continue;
        float v[W];
        load(dense + voxel * s.c + step.channel, v);
        store(blocks + row * s.c + step.channel, v);
    }
}

template <int W, class E> __device__ inline void hidden_sum(const Volumes& s, const E* dy, int slice, float* partial) {
    const RowSums<W> at(s.c);
    const long long first = (long long)blockIdx.x * slice, count = voxel_count(s);
    const long long last = first + slice < count ? first + slice : count;
    float own[1][W] = {};
    for (long long voxel = first + at.row; at.active() && voxel < last; voxel += at.rows) {
        if (listed(s, (int)voxel) >= 0) continue;
        float v[W];
        load(dy + voxel * s.c + at.channel(), v);
#pragma unroll
        for (int k = 0; k < W; k++) own[0][k] += v[k];
    }
    at.add(own, [&](int, int channel, float sum) { partial[(long long)blockIdx.x * s.c + channel] = sum; });
}

/// Whole volumes from blocks, elsewhere the token (null: zeros): any grid of 256 threads.
BUDGET(densify_scatter, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
densify_scatter(const Volumes s, const bf16* blocks, const float* token, bf16* dense) {
    wide_rows<bf16>(s.c, [&](auto w) { scatter<w.value>(s, blocks, token, dense); });
}

BUDGET(densify_scatter_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
densify_scatter_f32(const Volumes s, const float* blocks, const float* token, float* dense) {
    wide_rows<float>(s.c, [&](auto w) { scatter<w.value>(s, blocks, token, dense); });
}

/// The blocks out of whole volumes: any grid of 256 threads, each walks the volumes.
BUDGET(densify_gather, 48, 0);
extern "C" __global__ void __launch_bounds__(256) densify_gather(const Volumes s, const bf16* dense, bf16* blocks) {
    wide_rows<bf16>(s.c, [&](auto w) { gather<w.value>(s, dense, blocks); });
}

BUDGET(densify_gather_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
densify_gather_f32(const Volumes s, const float* dense, float* blocks) {
    wide_rows<float>(s.c, [&](auto w) { gather<w.value>(s, dense, blocks); });
}

/// Sums of dy over the hidden voxels of slices: grid (slices, 1, 1 for each 256 groups of channels), partial `[slices][c]`.
BUDGET(densify_token, 64, 8192);
extern "C" __global__ void __launch_bounds__(256)
densify_token(const Volumes s, const bf16* dy, int slice, float* partial) {
    wide_rows<bf16>(s.c, [&](auto w) { hidden_sum<w.value>(s, dy, slice, partial); });
}

BUDGET(densify_token_f32, 64, 4096);
extern "C" __global__ void __launch_bounds__(256)
densify_token_f32(const Volumes s, const float* dy, int slice, float* partial) {
    wide_rows<float>(s.c, [&](auto w) { hidden_sum<w.value>(s, dy, slice, partial); });
}

/// Gradient of the token: the slices in order.
BUDGET(densify_token_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
densify_token_fold(const float* partial, int slices, int c, float* dtoken) {
    fold_slices(partial, slices, c, dtoken);
}
