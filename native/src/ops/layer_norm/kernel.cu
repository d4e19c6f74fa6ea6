// Layer normalisation; the contract is that of mod.rs; parameters and statistics f32. A warp per row; the
// variance is a second pass over the row.
#include "device.cuh"

/// Sum over a row of f(channel), by one warp; the same bits in every lane.
template <class F> __device__ inline float row_sum(int c, F f) {
    float sum = 0.0f;
    for (int i = threadIdx.x % 32; i < c; i += 32) sum += f(i);
    return warp_sum(sum);
}

/// statistics `[rows][2]`: mean, 1 / sqrt(variance + eps); and y where it is not null. Grid rows / 8, 256 threads.
template <class E>
__device__ inline void normalised(const E* x, const float* gamma, const float* beta, int rows, int c, float eps,
                                  float* statistics, E* y) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const E* const from = x + (long long)row * c;
    const float mean = row_sum(c, [&](int i) { return number(from[i]); }) / c;
    const float variance = row_sum(c, [&](int i) { return (number(from[i]) - mean) * (number(from[i]) - mean); }) / c;
    const float rstd = 1.0f / sqrtf(variance + eps);
    for (int i = threadIdx.x % 32; i < c && y; i += 32) {
        store(y + (long long)row * c + i, gamma[i] * ((number(from[i]) - mean) * rstd) + beta[i]);
    }
    if (threadIdx.x % 32 == 0) {
        statistics[2 * row] = mean;
        statistics[2 * row + 1] = rstd;
    }
}

/// y from x and its statistics: any grid of 256 threads.
template <class E>
__device__ inline void applied(const E* x, const float* statistics, const float* gamma, const float* beta, int rows, int c,
                               E* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < (long long)rows * c; i += gridDim.x * 256LL) {
        const float* const of = statistics + 2 * (i / c);
        store(y + i, gamma[i % c] * ((number(x[i]) - of[0]) * of[1]) + beta[i % c]);
    }
}

/// dx: grid rows / 8, 256 threads.
template <class E>
__device__ inline void normalised_back(const E* x, const float* statistics, const float* gamma, const E* dy, int rows, int c,
                                       E* dx) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const long long start = (long long)row * c;
    const float mean = statistics[2 * row], rstd = statistics[2 * row + 1];
    auto slope = [&](int i) { return number(dy[start + i]) * gamma[i]; };
    auto xhat = [&](int i) { return (number(x[start + i]) - mean) * rstd; };
    const float g = row_sum(c, slope) / c;
    const float product = row_sum(c, [&](int i) { return slope(i) * xhat(i); }) / c;
    for (int i = threadIdx.x % 32; i < c; i += 32) store(dx + start + i, rstd * (slope(i) - g - xhat(i) * product));
}

/// Sums of dy and of dy * xhat over slices of rows: grid (slices, c / 32), 256 threads, partial `[slices][2][c]`.
template <class E>
__device__ inline void affine_slices(const E* x, const float* statistics, const E* dy, int rows, int c, int slice,
                                     float* partial) {
    SHARED(float, sums);  // [2][8 warps][32]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = blockIdx.y * 32 + lane;
    const int first = blockIdx.x * slice, last = first + slice < rows ? first + slice : rows;
    float sum = 0.0f, product = 0.0f;
    for (int row = first + warp; row < last && channel < c; row += 8) {
        const long long at = (long long)row * c + channel;
        sum += number(dy[at]);
        product += number(dy[at]) * (number(x[at]) - statistics[2 * row]) * statistics[2 * row + 1];
    }
    sums[threadIdx.x] = sum;
    sums[256 + threadIdx.x] = product;
    __syncthreads();
    if (warp > 1 || channel >= c) return;
    float total = 0.0f;
    for (int w = 0; w < 8; w++) total += sums[(warp * 8 + w) * 32 + lane];
    partial[((long long)blockIdx.x * 2 + warp) * c + channel] = total;
}

/// Gradients of beta and gamma, `[2][c]`: the slices in order.
BUDGET(layer_norm_affine_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_affine_fold(const float* partial, int slices, int c, float* affine) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= 2 * c) return;
    float sum = 0.0f;
    for (int k = 0; k < slices; k++) sum += partial[(long long)k * 2 * c + i];
    affine[i] = sum;
}

BUDGET(layer_norm, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm(const bf16* x, const float* gamma, const float* beta, int rows, int c, float eps, float* statistics,
           bf16* y) {
    normalised(x, gamma, beta, rows, c, eps, statistics, y);
}

BUDGET(layer_norm_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_f32(const float* x, const float* gamma, const float* beta, int rows, int c, float eps, float* statistics,
           float* y) {
    normalised(x, gamma, beta, rows, c, eps, statistics, y);
}

BUDGET(layer_norm_apply, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_apply(const bf16* x, const float* statistics, const float* gamma, const float* beta, int rows, int c, bf16* y) {
    applied(x, statistics, gamma, beta, rows, c, y);
}

BUDGET(layer_norm_apply_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_apply_f32(const float* x, const float* statistics, const float* gamma, const float* beta, int rows, int c,
                     float* y) {
    applied(x, statistics, gamma, beta, rows, c, y);
}

BUDGET(layer_norm_grad_input, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_input(const bf16* x, const float* statistics, const float* gamma, const bf16* dy, int rows, int c,
                      bf16* dx) {
    normalised_back(x, statistics, gamma, dy, rows, c, dx);
}

BUDGET(layer_norm_grad_input_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_input_f32(const float* x, const float* statistics, const float* gamma, const float* dy, int rows, int c,
                      float* dx) {
    normalised_back(x, statistics, gamma, dy, rows, c, dx);
}

BUDGET(layer_norm_grad_affine, 40, 2048);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_affine(const bf16* x, const float* statistics, const bf16* dy, int rows, int c, int slice,
                       float* partial) {
    affine_slices(x, statistics, dy, rows, c, slice, partial);
}

BUDGET(layer_norm_grad_affine_f32, 40, 2048);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_affine_f32(const float* x, const float* statistics, const float* dy, int rows, int c, int slice,
                       float* partial) {
    affine_slices(x, statistics, dy, rows, c, slice, partial);
}
