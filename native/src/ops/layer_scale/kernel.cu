// x + keep * gamma * branch and its gradients; the contract is that of mod.rs. starts: first row of each sample, and the
// number of rows; keep: a factor per sample; gamma f32.
#include "device.cuh"

template <class E>
__device__ inline void scaled(const int* starts, int samples, int c, const float* keep, const float* gamma, const E* x,
                              const E* branch, E* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < (long long)starts[samples] * c; i += gridDim.x * 256LL) {
        const float k = keep[sample_of(starts, (int)(i / c))];
        store(y + i, (x ? number(x[i]) : 0.0f) + k * gamma[i % c] * number(branch[i]));
    }
}

/// Sums of a slice of rows: partial `[slices][c]`. Grid (slices, 1, channels / 32).
template <class E>
__device__ inline void gamma_slices(const int* starts, int samples, int slice, int c, const float* keep, const E* dy,
                                    const E* branch, float* partial) {
    const int first = blockIdx.x * slice, end = starts[samples];
    sum_of_rows(first, first + slice < end ? first + slice : end, c, partial + blockIdx.x * c, [&](int row, int channel) {
        const long long at = (long long)row * c + channel;
        return keep[sample_of(starts, row)] * number(dy[at]) * number(branch[at]);
    });
}

BUDGET(layer_scale, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale(const int* starts, int samples, int c, const float* keep, const float* gamma, const bf16* x,
            const bf16* branch, bf16* y) {
    scaled(starts, samples, c, keep, gamma, x, branch, y);
}

BUDGET(layer_scale_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_f32(const int* starts, int samples, int c, const float* keep, const float* gamma, const float* x,
            const float* branch, float* y) {
    scaled(starts, samples, c, keep, gamma, x, branch, y);
}

/// keep * gamma * dy.
BUDGET(layer_scale_grad_branch, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_grad_branch(const int* starts, int samples, int c, const float* keep, const float* gamma, const bf16* dy, bf16* dbranch) {
    scaled<bf16>(starts, samples, c, keep, gamma, nullptr, dy, dbranch);
}

BUDGET(layer_scale_grad_branch_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_grad_branch_f32(const int* starts, int samples, int c, const float* keep, const float* gamma, const float* dy, float* dbranch) {
    scaled<float>(starts, samples, c, keep, gamma, nullptr, dy, dbranch);
}

BUDGET(layer_scale_grad_gamma, 40, 1024);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_grad_gamma(const int* starts, int samples, int slice, int c, const float* keep, const bf16* dy, const bf16* branch,
                       float* partial) {
    gamma_slices(starts, samples, slice, c, keep, dy, branch, partial);
}

BUDGET(layer_scale_grad_gamma_f32, 40, 1024);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_grad_gamma_f32(const int* starts, int samples, int slice, int c, const float* keep, const float* dy, const float* branch,
                       float* partial) {
    gamma_slices(starts, samples, slice, c, keep, dy, branch, partial);
}

/// The slices in their order. One thread of 256 per channel.
BUDGET(layer_scale_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_scale_fold(const float* partial, int slices, int c, float* dgamma) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= c) return;
    float sum = 0.0f;
    for (int slice = 0; slice < slices; slice++) sum += partial[slice * c + i];
    dgamma[i] = sum;
}
