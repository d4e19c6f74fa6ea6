// Layer normalisation; the contract is that of mod.rs, f32. A warp per row; the variance is a second pass over the row.
#include "device.cuh"

/// Sum over a row of f(channel), by one warp; the same bits in every lane.
template <class F> __device__ inline float row_sum(int c, F f) {
    float sum = 0.0f;
    for (int i = threadIdx.x % 32; i < c; i += 32) sum += f(i);
    return warp_sum(sum);
}

/// y, and statistics `[rows][2]`: mean, 1 / sqrt(variance + eps). Grid rows / 8, 256 threads.
BUDGET(layer_norm, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm(const float* x, const float* gamma, const float* beta, int rows, int c, float eps, float* statistics, float* y) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const float* const from = x + (long long)row * c;
    const float mean = row_sum(c, [&](int i) { return from[i]; }) / c;
    const float variance = row_sum(c, [&](int i) { return (from[i] - mean) * (from[i] - mean); }) / c;
    const float rstd = 1.0f / sqrtf(variance + eps);
    for (int i = threadIdx.x % 32; i < c; i += 32) {
        y[(long long)row * c + i] = gamma[i] * ((from[i] - mean) * rstd) + beta[i];
    }
    if (threadIdx.x % 32 == 0) {
        statistics[2 * row] = mean;
        statistics[2 * row + 1] = rstd;
    }
}

/// dx: grid rows / 8, 256 threads.
BUDGET(layer_norm_grad_input, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_input(const float* x, const float* statistics, const float* gamma, const float* dy, int rows, int c, float* dx) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const long long start = (long long)row * c;
    const float mean = statistics[2 * row], rstd = statistics[2 * row + 1];
    const float g = row_sum(c, [&](int i) { return dy[start + i] * gamma[i]; }) / c;
    const float product = row_sum(c, [&](int i) { return dy[start + i] * gamma[i] * (x[start + i] - mean) * rstd; }) / c;
    for (int i = threadIdx.x % 32; i < c; i += 32) {
        dx[start + i] = rstd * (dy[start + i] * gamma[i] - g - (x[start + i] - mean) * rstd * product);
    }
}

/// Sums of dy and of dy * xhat over slices of rows: grid (slices, c / 32), 256 threads, partial `[slices][2][c]`.
BUDGET(layer_norm_grad_affine, 40, 2048);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_affine(const float* x, const float* statistics, const float* dy, int rows, int c, int slice, float* partial) {
    SHARED(float, sums);  // [2][8 warps][32]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = blockIdx.y * 32 + lane;
    const int first = blockIdx.x * slice, last = first + slice < rows ? first + slice : rows;
    float sum = 0.0f, product = 0.0f;
    for (int row = first + warp; row < last && channel < c; row += 8) {
        const long long at = (long long)row * c + channel;
        sum += dy[at];
        product += dy[at] * (x[at] - statistics[2 * row]) * statistics[2 * row + 1];
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
