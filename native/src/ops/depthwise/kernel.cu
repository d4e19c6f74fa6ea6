// Depthwise 3x3x3 convolution on block lists, down and up; the contract is that of mod.rs, f32 or bf16, weights f32, packed as
// `[27][c]`. Memory-bound: neighbours come through the cache, a thread has the channels that 16 bytes hold. With stride 1 it walks
// along x, so that a value is read once for three taps.
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

/// weight `[c][27]` as `[27][c]`: one thread per value.
BUDGET(depthwise_pack, 32, 0);
extern "C" __global__ void __launch_bounds__(256) depthwise_pack(const float* weight, int c, float* packed) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i < 27 * c) packed[i] = weight[i % c * 27 + i / c];
}

/// sum += weight * v for W channels.
template <int W> __device__ inline void add_product(float (&sum)[W], const float (&weight)[W], const float (&v)[W]) {
#pragma unroll
    for (int k = 0; k < W; k++) sum[k] += weight[k] * v[k];
}

/// The same of what lies in memory.
template <int W, class E> __device__ inline void add_tap(float (&sum)[W], const float* weight, const E* x) {
    float by[W], v[W];
    load(weight, by);
    load(x, v);
    add_product(sum, by, v);
}

/// W channels of a bias, or zeros.
template <int W> __device__ inline void begin(float (&sum)[W], const float* bias, int channel) {
#pragma unroll
    for (int k = 0; k < W; k++) sum[k] = bias ? bias[channel + k] : 0.0f;
}

/// A line along x of a block, one voxel beyond both of its ends.
struct Line {
    long long own, left, right;  // rows of its first voxel, and of those beyond; -1 where they are hidden
    int length;

    /// z and y at most one voxel outside of `block`.
    __device__ Line(const int* neighbours, int block, const int* side, int z, int y) : length(side[2]) {
        const int before[3] = {z, y, -1}, in[3] = {z, y, 0}, after[3] = {z, y, side[2]};
        own = row_at(neighbours, block, side, in);
        left = row_at(neighbours, block, side, before);
        right = row_at(neighbours, block, side, after);
    }
    /// Row of voxel x, -1 .. length.
    __device__ long long row(int x) const { return x < 0 ? left : x < length ? (own < 0 ? -1 : own + x) : right; }
};

constexpr int STRETCH = 4;  // neighbouring voxels along x that a thread computes

/// y = bias + conv(x), stride 1, or the transpose of it: any grid of 256 threads; bias may be null.
template <int W, class E>
__device__ inline void along(const Depthwise& s, bool turned, const E* x, const int* neighbours, const float* weight, const float* bias, E* y) {
    const Stride<W> step(s.c);
    const int stretches[3] = {s.fine[0], s.fine[1], (s.fine[2] + STRETCH - 1) / STRETCH};
    const long long count = (long long)s.blocks * stretches[0] * stretches[1] * stretches[2];
    for (long long item = step.row; item < count; item += step.rows) {
        int at[3];
        const int block = split_row(item, stretches, at), first = at[2] * STRETCH;
        float sums[STRETCH][W];
#pragma unroll
        for (int o = 0; o < STRETCH; o++) begin(sums[o], bias, step.channel);
#pragma unroll 1
        for (int zy = 0; zy < 9; zy++) {
            const Line line(neighbours, block, s.fine, at[0] - 1 + zy / 3, at[1] - 1 + zy % 3);
            float taps[3][W];
#pragma unroll
            for (int t = 0; t < 3; t++) load(weight + (turned ? 26 - 3 * zy - t : 3 * zy + t) * s.c + step.channel, taps[t]);
#pragma unroll
            for (int i = -1; i <= STRETCH; i++) {
                const long long row = first + i <= s.fine[2] ? line.row(first + i) : -1;
                if (row < 0) continue;
                float v[W];
                load(x + row * s.c + step.channel, v);
#pragma unroll
                for (int t = 0; t < 3; t++) {
                    const int o = i + 1 - t;
                    if (o >= 0 && o < STRETCH) add_product(sums[o], taps[t], v);
                }
            }
        }
        const long long to = ((block * (long long)s.fine[0] + at[0]) * s.fine[1] + at[1]) * s.fine[2] + first;
#pragma unroll
        for (int o = 0; o < STRETCH; o++) {
            if (first + o < s.fine[2]) store(y + (to + o) * s.c + step.channel, sums[o]);
        }
    }
}

/// coarse = bias + conv(fine), stride 2: any grid of 256 threads; bias may be null.
template <int W, class E>
__device__ inline void down(const Depthwise& s, const E* x, const int* neighbours, const float* weight, const float* bias, E* y) {
    const Stride<W> step(s.c);
    const long long count = (long long)s.blocks * s.coarse[0] * s.coarse[1] * s.coarse[2];
    for (long long to = step.row; to < count; to += step.rows) {
        int o[3];
        const int block = split_row(to, s.coarse, o);
        float sum[W];
        begin(sum, bias, step.channel);
#pragma unroll 1
        for (int t = 0; t < 27; t++) {
            const int p[3] = {2 * o[0] - 1 + t / 9, 2 * o[1] - 1 + t / 3 % 3, 2 * o[2] - 1 + t % 3};
            const long long row = row_at(neighbours, block, s.fine, p);
            if (row >= 0) add_tap(sum, weight + t * s.c + step.channel, x + row * s.c + step.channel);
        }
        store(y + to * s.c + step.channel, sum);
    }
}

/// fine = bias + the transpose of `down` applied to coarse; its gradient of the input, and the reverse.
template <int W, class E>
__device__ inline void up(const Depthwise& s, const E* x, const int* neighbours, const float* weight, const float* bias, E* y) {
    const Stride<W> step(s.c);
    const long long count = (long long)s.blocks * s.fine[0] * s.fine[1] * s.fine[2];
    for (long long to = step.row; to < count; to += step.rows) {
        int p[3];
        const int block = split_row(to, s.fine, p);
        float sum[W];
        begin(sum, bias, step.channel);
#pragma unroll 1
        for (int t = 0; t < 27; t++) {
            int o[3] = {p[0] + 1 - t / 9, p[1] + 1 - t / 3 % 3, p[2] + 1 - t % 3};
            if ((o[0] | o[1] | o[2]) & 1) continue;
            for (int d = 0; d < 3; d++) o[d] /= 2;
            const long long row = row_at(neighbours, block, s.coarse, o);
            if (row >= 0) add_tap(sum, weight + t * s.c + step.channel, x + row * s.c + step.channel);
        }
        store(y + to * s.c + step.channel, sum);
    }
}

/// Stride 1: sums of fine[o - 1 + t] * coarse[o] over slices of lines: grid (slices, 3 planes of taps, 1 for each 256 groups of
/// channels), 256 threads, partial `[slices][27][c]`.
template <int W, class E>
__device__ inline void weight_lines(const Depthwise& s, const E* fine, const E* coarse, const int* neighbours, int slice, float* partial) {
    const RowSums<W> at(s.c);
    const int sides[3] = {s.fine[0], s.fine[1], 1}, plane = blockIdx.y;
    const long long count = (long long)s.blocks * s.fine[0] * s.fine[1], first = (long long)blockIdx.x * slice;
    const long long last = first + slice < count ? first + slice : count;
    float own[9][W] = {};
    for (long long item = first + at.row; at.active() && item < last; item += at.rows) {
        int o[3];
        const int block = split_row(item, sides, o);
        const E* const line = coarse + item * s.fine[2] * s.c + at.channel();
#pragma unroll
        for (int y = 0; y < 3; y++) {
            const Line from(neighbours, block, s.fine, o[0] - 1 + plane, o[1] - 1 + y);
            float near[3][W] = {};  // dy of voxels x - 1, x and x + 1
#pragma unroll 1
            for (int x = -1; x <= s.fine[2]; x++) {
#pragma unroll
                for (int k = 0; k < W; k++) near[0][k] = near[1][k], near[1][k] = near[2][k], near[2][k] = 0.0f;
                if (x + 1 < s.fine[2]) load(line + (x + 1LL) * s.c, near[2]);
                const long long row = from.row(x);
                if (row < 0) continue;
                float v[W];
                load(fine + row * s.c + at.channel(), v);
#pragma unroll
                for (int t = 0; t < 3; t++) add_product(own[3 * y + t], near[2 - t], v);
            }
        }
    }
#pragma unroll
    for (int y = 0; y < 3; y++) {
        const float(&three)[3][W] = reinterpret_cast<const float(&)[3][W]>(own[3 * y]);
        if (y) __syncthreads();
        at.add(three, [&](int t, int channel, float sum) {
            partial[((long long)blockIdx.x * 27 + 9 * plane + 3 * y + t) * s.c + channel] = sum;
        });
    }
}

/// Stride 2: sums of fine[2 o - 1 + t] * coarse[o] over slices of coarse rows: grid (slices, 27, 1 for each 256 groups of channels).
template <int W, class E>
__device__ inline void weight_sums(const Depthwise& s, const E* fine, const E* coarse, const int* neighbours, int slice, float* partial) {
    const RowSums<W> at(s.c);
    const int t = blockIdx.y;
    const long long count = (long long)s.blocks * s.coarse[0] * s.coarse[1] * s.coarse[2];
    const long long first = (long long)blockIdx.x * slice, last = first + slice < count ? first + slice : count;
    float own[1][W] = {};
    for (long long row = first + at.row; at.active() && row < last; row += at.rows) {
        int o[3];
        const int block = split_row(row, s.coarse, o);
        const int p[3] = {2 * o[0] - 1 + t / 9, 2 * o[1] - 1 + t / 3 % 3, 2 * o[2] - 1 + t % 3};
        const long long other = row_at(neighbours, block, s.fine, p);
        if (other < 0) continue;
        float v[W], g[W];
        load(fine + other * s.c + at.channel(), v);
        load(coarse + row * s.c + at.channel(), g);
        add_product(own[0], v, g);
    }
    at.add(own, [&](int, int channel, float sum) { partial[((long long)blockIdx.x * 27 + t) * s.c + channel] = sum; });
}

BUDGET(depthwise_along, 128, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_along(const Depthwise s, int turned, const bf16* x, const int* neighbours, const float* weight, const float* bias, bf16* y) {
    wide_rows<bf16>(s.c, [&](auto w) { along<w.value>(s, turned, x, neighbours, weight, bias, y); });
}

BUDGET(depthwise_down, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_down(const Depthwise s, const bf16* x, const int* neighbours, const float* weight, const float* bias, bf16* y) {
    wide_rows<bf16>(s.c, [&](auto w) { down<w.value>(s, x, neighbours, weight, bias, y); });
}

BUDGET(depthwise_up, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_up(const Depthwise s, const bf16* x, const int* neighbours, const float* weight, const float* bias, bf16* y) {
    wide_rows<bf16>(s.c, [&](auto w) { up<w.value>(s, x, neighbours, weight, bias, y); });
}

BUDGET(depthwise_weight_lines, 200, 24576);
extern "C" __global__ void __launch_bounds__(256)
depthwise_weight_lines(const Depthwise s, const bf16* fine, const bf16* coarse, const int* neighbours, int slice, float* partial) {
    wide_rows<bf16>(s.c, [&](auto w) { weight_lines<w.value>(s, fine, coarse, neighbours, slice, partial); });
}

BUDGET(depthwise_weight, 64, 8192);
extern "C" __global__ void __launch_bounds__(256)
depthwise_weight(const Depthwise s, const bf16* fine, const bf16* coarse, const int* neighbours, int slice, float* partial) {
    wide_rows<bf16>(s.c, [&](auto w) { weight_sums<w.value>(s, fine, coarse, neighbours, slice, partial); });
}

BUDGET(depthwise_along_f32, 128, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_along_f32(const Depthwise s, int turned, const float* x, const int* neighbours, const float* weight, const float* bias, float* y) {
    wide_rows<float>(s.c, [&](auto w) { along<w.value>(s, turned, x, neighbours, weight, bias, y); });
}

BUDGET(depthwise_down_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_down_f32(const Depthwise s, const float* x, const int* neighbours, const float* weight, const float* bias, float* y) {
    wide_rows<float>(s.c, [&](auto w) { down<w.value>(s, x, neighbours, weight, bias, y); });
}

BUDGET(depthwise_up_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_up_f32(const Depthwise s, const float* x, const int* neighbours, const float* weight, const float* bias, float* y) {
    wide_rows<float>(s.c, [&](auto w) { up<w.value>(s, x, neighbours, weight, bias, y); });
}

BUDGET(depthwise_weight_lines_f32, 200, 12288);
extern "C" __global__ void __launch_bounds__(256)
depthwise_weight_lines_f32(const Depthwise s, const float* fine, const float* coarse, const int* neighbours, int slice, float* partial) {
    wide_rows<float>(s.c, [&](auto w) { weight_lines<w.value>(s, fine, coarse, neighbours, slice, partial); });
}

BUDGET(depthwise_weight_f32, 64, 4096);
extern "C" __global__ void __launch_bounds__(256)
depthwise_weight_f32(const Depthwise s, const float* fine, const float* coarse, const int* neighbours, int slice, float* partial) {
    wide_rows<float>(s.c, [&](auto w) { weight_sums<w.value>(s, fine, coarse, neighbours, slice, partial); });
}

/// dweight `[c][27]`: the slices in order, a warp for each value.
BUDGET(depthwise_weight_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
depthwise_weight_fold(const float* partial, int slices, int c, float* dweight) {
    const int i = (blockIdx.x * 256 + threadIdx.x) / 32;
    if (i >= 27 * c) return;
    float sum = 0.0f;
    for (int k = threadIdx.x % 32; k < slices; k += 32) sum += partial[(long long)k * 27 * c + i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) dweight[i % c * 27 + i / c] = sum;
}
