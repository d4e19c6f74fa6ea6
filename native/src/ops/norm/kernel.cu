// Instance norm over the visible voxels of each sample; the contract is that of mod.rs, tensors are bf16 or f32,
// statistics and sums f32. Every sum is two steps: blocks add slices of rows, then one thread per channel adds the slices in order,
// so two runs give the same bits. The variance is a second pass over x, not a difference of squares.
#include "device.cuh"

constexpr int WARPS = 8;  // of a block of the sums: each takes every eighth row, lanes are channels

struct Norm {
    int samples, c;
    const int* starts;  // first row of each sample, and the number of rows
    int slice;          // rows that one block adds
    float slope;        // of negative values; 1: no activation
};

/// Adds `f(value index, channel index)`, two numbers, over a slice of rows of one sample: grid (slices, samples,
/// channels / 32), 256 threads. partial `[2][slices][samples][c]`.
template <class F> __device__ inline void slice_sums(const Norm& s, float* partial, F f) {
    SHARED(float, sums);  // [2][WARPS][32]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n = blockIdx.y, channel = blockIdx.z * 32 + lane;
    const int first = s.starts[n] + blockIdx.x * s.slice;
    const int last = first + s.slice < s.starts[n + 1] ? first + s.slice : s.starts[n + 1];
    float a = 0.0f, b = 0.0f;
    if (channel < s.c) {
        for (int row = first + warp; row < last; row += WARPS) f((long long)row * s.c + channel, n * s.c + channel, a, b);
    }
    sums[warp * 32 + lane] = a;
    sums[(WARPS + warp) * 32 + lane] = b;
    __syncthreads();
    if (warp < 2 && channel < s.c) {
        float sum = 0.0f;
        for (int w = 0; w < WARPS; w++) sum += sums[(warp * WARPS + w) * 32 + lane];
        partial[((long long)(warp * gridDim.x + blockIdx.x) * s.samples + n) * s.c + channel] = sum;
    }
}

template <class E> __device__ inline void mean(const Norm& s, const E* x, float* partial) {
    slice_sums(s, partial, [&](long long at, int, float& a, float&) { a += number(x[at]); });
}

/// Sums of x. Shared memory of all sums: 2 x 8 x 32 values.
BUDGET(norm_mean, 40, 2048);
extern "C" __global__ void __launch_bounds__(256) norm_mean(const Norm s, const bf16* x, float* partial) {
    mean(s, x, partial);
}

BUDGET(norm_mean_f32, 40, 2048);
extern "C" __global__ void __launch_bounds__(256) norm_mean_f32(const Norm s, const float* x, float* partial) {
    mean(s, x, partial);
}

template <class E> __device__ inline void variance(const Norm& s, const E* x, const float* mean, float* partial) {
    slice_sums(s, partial, [&](long long at, int of, float& a, float&) {
        const float d = number(x[at]) - mean[of];
        a += d * d;
    });
}

/// Sums of squared distances from the mean.
BUDGET(norm_variance, 40, 2048);
extern "C" __global__ void __launch_bounds__(256)
norm_variance(const Norm s, const bf16* x, const float* mean, float* partial) {
    variance(s, x, mean, partial);
}

BUDGET(norm_variance_f32, 40, 2048);
extern "C" __global__ void __launch_bounds__(256)
norm_variance_f32(const Norm s, const float* x, const float* mean, float* partial) {
    variance(s, x, mean, partial);
}

/// The same for rows that are means of stretches of one length, whose variances are known.
BUDGET(norm_stretches, 40, 2048);
extern "C" __global__ void __launch_bounds__(256)
norm_stretches(const Norm s, const float* means, const float* variances, const float* mean, float* partial) {
    slice_sums(s, partial, [&](long long at, int of, float& a, float&) {
        const float d = means[at] - mean[of];
        a += variances[at] + d * d;
    });
}

/// A value before the activation; gamma and beta may be null.
__device__ inline float before(const Norm& s, float x, const float* statistics, int of, const float* gamma, const float* beta) {
    const int channel = of % s.c;
    const float factor = (gamma ? gamma[channel] : 1.0f) * statistics[s.samples * s.c + of];
    return normed(x, statistics[of], factor, beta ? beta[channel] : 0.0f);
}

/// Gradient of what the activation was applied to, where there was no residual: the sign is that of the value from x.
__device__ inline float through(const Norm& s, float x, float dy, const float* statistics, int of, const float* gamma, const float* beta) {
    return s.slope == 1.0f || before(s, x, statistics, of, gamma, beta) > 0.0f ? dy : s.slope * dy;
}

template <class E>
__device__ inline void grad_sums(const Norm& s, const E* x, const E* dy, const float* statistics, const float* gamma,
                                 const float* beta, float* partial) {
    slice_sums(s, partial, [&](long long at, int of, float& a, float& b) {
        const float xhat = (number(x[at]) - statistics[of]) * statistics[s.samples * s.c + of];
        const float g = through(s, number(x[at]), number(dy[at]), statistics, of, gamma, beta);
        a += g;
        b += g * xhat;
    });
}

/// Sums of g and of g * xhat. statistics `[2][samples][c]`: mean, 1 / sqrt(variance + eps).
BUDGET(norm_grad_sums, 40, 2048);
extern "C" __global__ void __launch_bounds__(256)
norm_grad_sums(const Norm s, const bf16* x, const bf16* dy, const float* statistics, const float* gamma, const float* beta,
               float* partial) {
    grad_sums(s, x, dy, statistics, gamma, beta, partial);
}

BUDGET(norm_grad_sums_f32, 40, 2048);
extern "C" __global__ void __launch_bounds__(256)
norm_grad_sums_f32(const Norm s, const float* x, const float* dy, const float* statistics, const float* gamma, const float* beta,
               float* partial) {
    grad_sums(s, x, dy, statistics, gamma, beta, partial);
}

/// Adds the slices in order: grid over samples * c, twice where `halves` is 2. as: 0 the sums themselves, 1 the mean,
/// 2 the reciprocal deviation.
BUDGET(norm_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_fold(const Norm s, const float* partial, int slices, int halves, int as, float eps, float* out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x, lines = s.samples * s.c;
    if (i >= halves * lines) return;
    const int half = i / lines, line = i % lines, n = line / s.c;
    float sum = 0.0f;
    for (int k = 0; k < slices; k++) sum += partial[(long long)(half * slices + k) * lines + line];
    const float count = (float)(s.starts[n + 1] - s.starts[n]);
    out[i] = as == 0 ? sum : as == 1 ? sum / count : 1.0f / sqrtf(sum / count + eps);
}

template <class E>
__device__ inline void apply(const Norm& s, const E* x, const float* statistics, const float* gamma, const float* beta,
                             const E* residual, E* y) {
    const int n = blockIdx.y;
    const long long end = (long long)s.starts[n + 1] * s.c;
    long long at = (long long)s.starts[n] * s.c + blockIdx.x * blockDim.x + threadIdx.x;
    for (; at < end; at += gridDim.x * blockDim.x) {
        const int of = n * s.c + (int)(at % s.c);
        const float v = before(s, number(x[at]), statistics, of, gamma, beta) + (residual ? number(residual[at]) : 0.0f);
        store(y + at, v > 0.0f ? v : s.slope * v);
    }
}

/// y = act(gamma * xhat + beta + residual): grid (any, samples). gamma, beta, residual may be null.
BUDGET(norm_apply, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_apply(const Norm s, const bf16* x, const float* statistics, const float* gamma, const float* beta,
           const bf16* residual, bf16* y) {
    apply(s, x, statistics, gamma, beta, residual, y);
}

BUDGET(norm_apply_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_apply_f32(const Norm s, const float* x, const float* statistics, const float* gamma, const float* beta,
               const float* residual, float* y) {
    apply(s, x, statistics, gamma, beta, residual, y);
}

template <class E>
__device__ inline void grad_input(const Norm& s, const E* x, const E* dy, const float* statistics, const float* sums,
                                  const float* gamma, const float* beta, E* dx) {
    const int n = blockIdx.y, lines = s.samples * s.c;
    const float share = 1.0f / (float)(s.starts[n + 1] - s.starts[n]);
    const long long end = (long long)s.starts[n + 1] * s.c;
    long long at = (long long)s.starts[n] * s.c + blockIdx.x * blockDim.x + threadIdx.x;
    for (; at < end; at += gridDim.x * blockDim.x) {
        const int channel = at % s.c, of = n * s.c + channel;
        const float rstd = statistics[lines + of], xhat = (number(x[at]) - statistics[of]) * rstd;
        const float g = through(s, number(x[at]), number(dy[at]), statistics, of, gamma, beta);
        const float d = g - sums[of] * share - xhat * sums[lines + of] * share;
        store(dx + at, (gamma ? gamma[channel] : 1.0f) * rstd * d);
    }
}

/// dx = gamma * rstd * (g - mean(g) - xhat * mean(g * xhat)).
BUDGET(norm_grad_input, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_grad_input(const Norm s, const bf16* x, const bf16* dy, const float* statistics, const float* sums, const float* gamma,
                const float* beta, bf16* dx) {
    grad_input(s, x, dy, statistics, sums, gamma, beta, dx);
}

BUDGET(norm_grad_input_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_grad_input_f32(const Norm s, const float* x, const float* dy, const float* statistics, const float* sums,
                    const float* gamma, const float* beta, float* dx) {
    grad_input(s, x, dy, statistics, sums, gamma, beta, dx);
}

/// Gradient of beta (half 0) or gamma (half 1): that half of the sums, added over the samples; a thread per channel.
BUDGET(norm_grad_affine, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_grad_affine(const float* sums, int half, int samples, int c, float* out) {
    const int channel = blockIdx.x * 256 + threadIdx.x;
    if (channel >= c) return;
    float sum = 0.0f;
    for (int n = 0; n < samples; n++) sum += sums[(half * samples + n) * c + channel];
    out[channel] = sum;
}
