// Layer normalisation; the contract is that of mod.rs; parameters and statistics f32. A warp per row; the
// variance is a second pass over the row.
#include "device.cuh"

/// Sum over a row of f(channel), which adds W channels, by one warp; the same bits in every lane.
template <int W, class F> __device__ inline float row_sum(int c, F f) {
    float sum = 0.0f;
    for (int i = threadIdx.x % 32 * W; i < c; i += 32 * W) sum += f(i);
    return warp_sum(sum);
}

/// statistics `[rows][2]`: mean, 1 / sqrt(variance + eps); and y where it is not null. Grid rows / 8, 256 threads.
template <int W, class E>
__device__ inline void normalised(const E* x, const float* gamma, const float* beta, int rows, int c, float eps,
                                  float* statistics, E* y) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const E* const from = x + (long long)row * c;
    const float mean = row_sum<W>(c, [&](int i) {
        float v[W], sum = 0.0f;
        load(from + i, v);
#pragma unroll
        for (float value : v) sum += value;
        return sum;
    }) / c;
    const float variance = row_sum<W>(c, [&](int i) {
        float v[W], sum = 0.0f;
        load(from + i, v);
#pragma unroll
        for (float value : v) sum += (value - mean) * (value - mean);
        return sum;
    }) / c;
    const float rstd = 1.0f / sqrtf(variance + eps);
    for (int i = threadIdx.x % 32 * W; i < c && y; i += 32 * W) {
        float v[W], by[W], added[W];
        load(from + i, v);
        load(gamma + i, by);
        load(beta + i, added);
#pragma unroll
        for (int k = 0; k < W; k++) v[k] = by[k] * ((v[k] - mean) * rstd) + added[k];
        store(y + (long long)row * c + i, v);
    }
    if (threadIdx.x % 32 == 0) {
        statistics[2 * row] = mean;
        statistics[2 * row + 1] = rstd;
    }
}

/// y from x and its statistics: any grid of 256 threads.
template <int W, class E>
__device__ inline void applied(const E* x, const float* statistics, const float* gamma, const float* beta, int rows, int c,
                               E* y) {
    const Stride<W> step(c);
    float by[W], added[W];
    load(gamma + step.channel, by);
    load(beta + step.channel, added);
    for (long long row = step.row; row < rows; row += step.rows) {
        const float mean = statistics[2 * row], rstd = statistics[2 * row + 1];
        float v[W];
        load(x + row * c + step.channel, v);
#pragma unroll
        for (int k = 0; k < W; k++) v[k] = by[k] * ((v[k] - mean) * rstd) + added[k];
        store(y + row * c + step.channel, v);
    }
}

/// dx: grid rows / 8, 256 threads.
template <int W, class E>
__device__ inline void normalised_back(const E* x, const float* statistics, const float* gamma, const E* dy, int rows, int c,
                                       E* dx) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const long long start = (long long)row * c;
    const float mean = statistics[2 * row], rstd = statistics[2 * row + 1];
    // Gradients of xhat, and xhat.
    auto both = [&](int i, float (&slope)[W], float (&xhat)[W]) {
        float by[W];
        load(gamma + i, by);
        load(dy + start + i, slope);
        load(x + start + i, xhat);
#pragma unroll
        for (int k = 0; k < W; k++) {
            slope[k] *= by[k];
            xhat[k] = (xhat[k] - mean) * rstd;
        }
    };
    float product = 0.0f;
    const float g = row_sum<W>(c, [&](int i) {
        float slope[W], xhat[W], sum = 0.0f;
        both(i, slope, xhat);
#pragma unroll
        for (int k = 0; k < W; k++) {
            sum += slope[k];
            product += slope[k] * xhat[k];
        }
        return sum;
    }) / c;
    product = warp_sum(product) / c;
    for (int i = threadIdx.x % 32 * W; i < c; i += 32 * W) {
        float slope[W], xhat[W];
        both(i, slope, xhat);
#pragma unroll
        for (int k = 0; k < W; k++) slope[k] = rstd * (slope[k] - g - xhat[k] * product);
        store(dx + start + i, slope);
    }
}

/// Sums of dy and of dy * xhat over slices of rows: grid (slices, 1, 1 for each 256 groups of channels), 256 threads, partial
/// `[slices][2][c]`.
template <int W, class E>
__device__ inline void affine_slices(const E* x, const float* statistics, const E* dy, int rows, int c, int slice,
                                     float* partial) {
    const RowSums<W> at(c);
    const int first = blockIdx.x * slice, last = first + slice < rows ? first + slice : rows;
    float own[2][W] = {};
    for (int row = first + at.row; at.active() && row < last; row += at.rows) {
        const float mean = statistics[2 * row], rstd = statistics[2 * row + 1];
        float v[W], d[W];
        load(x + (long long)row * c + at.channel(), v);
        load(dy + (long long)row * c + at.channel(), d);
#pragma unroll
        for (int k = 0; k < W; k++) {
            own[0][k] += d[k];
            own[1][k] += d[k] * (v[k] - mean) * rstd;
        }
    }
    at.add(own, [&](int half, int channel, float sum) { partial[((long long)blockIdx.x * 2 + half) * c + channel] = sum; });
}

/// Gradients of beta and gamma, `[2][c]`: the slices in order.
BUDGET(layer_norm_affine_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_affine_fold(const float* partial, int slices, int c, float* affine) {
    fold_slices(partial, slices, 2 * c, affine);
}

BUDGET(layer_norm, 72, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm(const bf16* x, const float* gamma, const float* beta, int rows, int c, float eps, float* statistics,
           bf16* y) {
    wide_rows<bf16>(c, [&](auto w) { normalised<w.value>(x, gamma, beta, rows, c, eps, statistics, y); });
}

BUDGET(layer_norm_f32, 72, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_f32(const float* x, const float* gamma, const float* beta, int rows, int c, float eps, float* statistics,
           float* y) {
    wide_rows<float>(c, [&](auto w) { normalised<w.value>(x, gamma, beta, rows, c, eps, statistics, y); });
}

BUDGET(layer_norm_apply, 72, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_apply(const bf16* x, const float* statistics, const float* gamma, const float* beta, int rows, int c, bf16* y) {
    wide_rows<bf16>(c, [&](auto w) { applied<w.value>(x, statistics, gamma, beta, rows, c, y); });
}

BUDGET(layer_norm_apply_f32, 72, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_apply_f32(const float* x, const float* statistics, const float* gamma, const float* beta, int rows, int c,
                     float* y) {
    wide_rows<float>(c, [&](auto w) { applied<w.value>(x, statistics, gamma, beta, rows, c, y); });
}

BUDGET(layer_norm_grad_input, 72, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_input(const bf16* x, const float* statistics, const float* gamma, const bf16* dy, int rows, int c,
                      bf16* dx) {
    wide_rows<bf16>(c, [&](auto w) { normalised_back<w.value>(x, statistics, gamma, dy, rows, c, dx); });
}

BUDGET(layer_norm_grad_input_f32, 72, 0);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_input_f32(const float* x, const float* statistics, const float* gamma, const float* dy, int rows, int c,
                      float* dx) {
    wide_rows<float>(c, [&](auto w) { normalised_back<w.value>(x, statistics, gamma, dy, rows, c, dx); });
}

BUDGET(layer_norm_grad_affine, 64, 16384);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_affine(const bf16* x, const float* statistics, const bf16* dy, int rows, int c, int slice,
                       float* partial) {
    wide_rows<bf16>(c, [&](auto w) { affine_slices<w.value>(x, statistics, dy, rows, c, slice, partial); });
}

BUDGET(layer_norm_grad_affine_f32, 64, 8192);
extern "C" __global__ void __launch_bounds__(256)
layer_norm_grad_affine_f32(const float* x, const float* statistics, const float* dy, int rows, int c, int slice,
                       float* partial) {
    wide_rows<float>(c, [&](auto w) { affine_slices<w.value>(x, statistics, dy, rows, c, slice, partial); });
}
