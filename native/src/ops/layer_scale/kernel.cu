// x + keep * gamma * branch and its gradients; the contract is that of mod.rs. starts: first row of each sample, and the
// number of rows; keep: a factor per sample; gamma f32.
#include "device.cuh"

template <int W, class E>
__device__ inline void scaled(const int* starts, int samples, int c, const float* keep, const float* gamma, const E* x,
                              const E* branch, E* y) {
    const Stride<W> step(c);
    float by[W];
    load(gamma + step.channel, by);
    for (long long row = step.row; row < starts[samples]; row += step.rows) {
        const float kept = keep[sample_of(starts, (int)row)];
        const long long at = row * c + step.channel;
        float v[W], b[W];
        if (x) load(x + at, v);
        load(branch + at, b);
#pragma unroll
        for (int k = 0; k < W; k++) b[k] = (x ? v[k] : 0.0f) + kept * by[k] * b[k];
        store(y + at, b);
    }
}

/// Sums of a slice of rows: partial `[slices][c]`. Grid (slices, 1, 1 for each 256 groups of channels).
template <int W, class E>
__device__ inline void gamma_slices(const int* starts, int samples, int slice, int c, const float* keep, const E* dy,
                                    const E* branch, float* partial) {
    const RowSums<W> at(c);
    const int first = blockIdx.x * slice, last = first + slice < starts[samples] ? first + slice : starts[samples];
    float own[1][W] = {};
    for (int row = first + at.row; at.active() && row < last; row += at.rows) {
        const float kept = keep[sample_of(starts, row)];
        float d[W], b[W];
        load(dy + (long long)row * c + at.channel(), d);
        load(branch + (long long)row * c + at.channel(), b);
#pragma unroll
        for (int k = 0; k < W; k++) own[0][k] += kept * d[k] * b[k];
    }
    at.add(own, [&](int, int channel, float sum) { partial[(long long)blockIdx.x * c + channel] = sum; });
}

BUDGET(layer_scale, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale(const int* starts, int samples, int c, const float* keep, const float* gamma, const bf16* x,
            const bf16* branch, bf16* y) {
    wide_rows<bf16>(c, [&](auto w) { scaled<w.value>(starts, samples, c, keep, gamma, x, branch, y); });
}

BUDGET(layer_scale_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_f32(const int* starts, int samples, int c, const float* keep, const float* gamma, const float* x,
            const float* branch, float* y) {
    wide_rows<float>(c, [&](auto w) { scaled<w.value>(starts, samples, c, keep, gamma, x, branch, y); });
}

/// keep * gamma * dy.
BUDGET(layer_scale_grad_branch, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_grad_branch(const int* starts, int samples, int c, const float* keep, const float* gamma, const bf16* dy, bf16* dbranch) {
    wide_rows<bf16>(c, [&](auto w) { scaled<w.value, bf16>(starts, samples, c, keep, gamma, nullptr, dy, dbranch); });
}

BUDGET(layer_scale_grad_branch_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_grad_branch_f32(const int* starts, int samples, int c, const float* keep, const float* gamma, const float* dy, float* dbranch) {
    wide_rows<float>(c, [&](auto w) { scaled<w.value, float>(starts, samples, c, keep, gamma, nullptr, dy, dbranch); });
}

BUDGET(layer_scale_grad_gamma, 64, 8192);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_grad_gamma(const int* starts, int samples, int slice, int c, const float* keep, const bf16* dy, const bf16* branch,
                       float* partial) {
    wide_rows<bf16>(c, [&](auto w) { gamma_slices<w.value>(starts, samples, slice, c, keep, dy, branch, partial); });
}

BUDGET(layer_scale_grad_gamma_f32, 64, 4096);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_grad_gamma_f32(const int* starts, int samples, int slice, int c, const float* keep, const float* dy, const float* branch,
                       float* partial) {
    wide_rows<float>(c, [&](auto w) { gamma_slices<w.value>(starts, samples, slice, c, keep, dy, branch, partial); });
}

/// The slices in their order.
BUDGET(layer_scale_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_fold(const float* partial, int slices, int c, float* dgamma) {
    fold_slices(partial, slices, c, dgamma);
}
