// Instance norm over the visible voxels of each sample; the contract is that of mod.rs, tensors are bf16 or f32,
// statistics and sums f32. Every sum is two steps: blocks add slices of rows, then one warp per channel adds the slices, all in a
// fixed order, so two runs give the same bits. The variance is a second pass over x, not a difference of squares.
#include "device.cuh"

struct Norm {
    int samples, c;
    const int* starts;  // first row of each sample, and the number of rows
    int slice;          // rows that one block adds
    float slope;        // of negative values; 1: no activation
};

/// A slice of the rows of one sample, whose sums this block finds: grid (slices, samples, 1 for each 256 groups of channels),
/// 256 threads.
template <int W> struct Slice {
    const Norm& s;
    const RowSums<W> at;
    __device__ Slice(const Norm& s) : s(s), at(s.c) {}

    /// Index of this thread's first channel in what is known of each sample and channel.
    __device__ int of() const { return blockIdx.y * s.c + at.channel(); }
    /// Calls f with the index of the first of W values in each row of this thread.
    template <class F> __device__ void each(F f) const {
        const int first = s.starts[blockIdx.y] + blockIdx.x * s.slice, end = s.starts[blockIdx.y + 1];
        const int last = first + s.slice < end ? first + s.slice : end;
        for (int row = first + at.row; at.active() && row < last; row += at.rows) f((long long)row * s.c + at.channel());
    }
    /// Writes `partial` `[HALVES][slices][samples][c]`.
    template <int HALVES> __device__ void put(const float (&own)[HALVES][W], float* partial) const {
        at.add(own, [&](int half, int channel, float sum) {
            partial[((long long)(half * gridDim.x + blockIdx.x) * s.samples + blockIdx.y) * s.c + channel] = sum;
        });
    }
};

template <int W, class E> __device__ inline void mean(const Norm& s, const E* x, float* partial) {
    const Slice<W> slice(s);
    float own[1][W] = {};
    slice.each([&](long long at) {
        float v[W];
        load(x + at, v);
#pragma unroll
        for (int k = 0; k < W; k++) own[0][k] += v[k];
    });
    slice.put(own, partial);
}

/// Sums of x.
BUDGET(norm_mean, 48, 8192);
extern "C" __global__ void __launch_bounds__(256) norm_mean(const Norm s, const bf16* x, float* partial) {
    wide_rows<bf16>(s.c, [&](auto w) { mean<w.value>(s, x, partial); });
}

BUDGET(norm_mean_f32, 48, 4096);
extern "C" __global__ void __launch_bounds__(256) norm_mean_f32(const Norm s, const float* x, float* partial) {
    wide_rows<float>(s.c, [&](auto w) { mean<w.value>(s, x, partial); });
}

/// Adds `before(k)` and the squared distance of x from the mean. The same for rows that are means of stretches of one length,
/// whose variances are known: `variances`, else null.
template <int W, class E>
__device__ inline void variance(const Norm& s, const E* x, const float* variances, const float* mean, float* partial) {
    const Slice<W> slice(s);
    float own[1][W] = {}, middle[W];
#pragma unroll
    for (int k = 0; k < W; k++) middle[k] = mean[slice.of() + k];
    slice.each([&](long long at) {
        float v[W], inner[W] = {};
        load(x + at, v);
        if (variances) load(variances + at, inner);
#pragma unroll
        for (int k = 0; k < W; k++) own[0][k] += inner[k] + (v[k] - middle[k]) * (v[k] - middle[k]);
    });
    slice.put(own, partial);
}

/// Sums of squared distances from the mean.
BUDGET(norm_variance, 64, 8192);
extern "C" __global__ void __launch_bounds__(256)
norm_variance(const Norm s, const bf16* x, const float* mean, float* partial) {
    wide_rows<bf16>(s.c, [&](auto w) { variance<w.value>(s, x, nullptr, mean, partial); });
}

BUDGET(norm_variance_f32, 64, 4096);
extern "C" __global__ void __launch_bounds__(256)
norm_variance_f32(const Norm s, const float* x, const float* mean, float* partial) {
    wide_rows<float>(s.c, [&](auto w) { variance<w.value>(s, x, nullptr, mean, partial); });
}

/// The same for rows that are means of stretches of one length, whose variances are known.
BUDGET(norm_stretches, 64, 4096);
extern "C" __global__ void __launch_bounds__(256)
norm_stretches(const Norm s, const float* means, const float* variances, const float* mean, float* partial) {
    wide_rows<float>(s.c, [&](auto w) { variance<w.value>(s, means, variances, mean, partial); });
}

/// What the values of W channels of a sample are scaled by.
template <int W> struct Factors {
    float mean[W], factor[W], beta[W], slope;
    /// statistics `[2][samples][c]`: mean, 1 / sqrt(variance + eps); gamma and added may be null.
    __device__ Factors(const Norm& s, const float* statistics, const float* gamma, const float* added, int n, int channel) : slope(s.slope) {
        const int of = n * s.c + channel;
#pragma unroll
        for (int k = 0; k < W; k++) {
            mean[k] = statistics[of + k];
            factor[k] = (gamma ? gamma[channel + k] : 1.0f) * statistics[s.samples * s.c + of + k];
            beta[k] = added ? added[channel + k] : 0.0f;
        }
    }
    /// A value before the activation.
    __device__ float before(int k, float x) const { return normed(x, mean[k], factor[k], beta[k]); }
    /// Gradient of what the activation was applied to, where there was no residual: the sign is that of the value from x.
    __device__ float through(int k, float x, float dy) const { return slope == 1.0f || before(k, x) > 0.0f ? dy : slope * dy; }
};

template <int W, class E>
__device__ inline void grad_sums(const Norm& s, const E* x, const E* dy, const float* statistics, const float* gamma,
                                 const float* beta, float* partial) {
    const Slice<W> slice(s);
    const Factors<W> by(s, statistics, gamma, beta, blockIdx.y, slice.at.channel());
    float own[2][W] = {};
    slice.each([&](long long at) {
        float v[W], d[W];
        load(x + at, v);
        load(dy + at, d);
#pragma unroll
        for (int k = 0; k < W; k++) {
            const float g = by.through(k, v[k], d[k]);
            own[0][k] += g;
            own[1][k] += g * (v[k] - by.mean[k]);
        }
    });
#pragma unroll
    for (int k = 0; k < W; k++) own[1][k] *= statistics[s.samples * s.c + slice.of() + k];
    slice.put(own, partial);
}

/// Sums of g and of g * xhat.
BUDGET(norm_grad_sums, 96, 16384);
extern "C" __global__ void __launch_bounds__(256)
norm_grad_sums(const Norm s, const bf16* x, const bf16* dy, const float* statistics, const float* gamma, const float* beta,
               float* partial) {
    wide_rows<bf16>(s.c, [&](auto w) { grad_sums<w.value>(s, x, dy, statistics, gamma, beta, partial); });
}

BUDGET(norm_grad_sums_f32, 96, 8192);
extern "C" __global__ void __launch_bounds__(256)
norm_grad_sums_f32(const Norm s, const float* x, const float* dy, const float* statistics, const float* gamma, const float* beta,
               float* partial) {
    wide_rows<float>(s.c, [&](auto w) { grad_sums<w.value>(s, x, dy, statistics, gamma, beta, partial); });
}

/// Adds the slices: a warp for each of samples * c lines, twice where `halves` is 2. as: 0 the sums themselves, 1 the mean,
/// 2 the reciprocal deviation.
BUDGET(norm_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_fold(const Norm s, const float* partial, int slices, int halves, int as, float eps, float* out) {
    const int i = (blockIdx.x * 256 + threadIdx.x) / 32, lines = s.samples * s.c;
    if (i >= halves * lines) return;
    const int half = i / lines, line = i % lines, n = line / s.c;
    float sum = 0.0f;
    for (int k = threadIdx.x % 32; k < slices; k += 32) sum += partial[(long long)(half * slices + k) * lines + line];
    sum = warp_sum(sum);
    const float count = (float)(s.starts[n + 1] - s.starts[n]);
    if (threadIdx.x % 32 == 0) out[i] = as == 0 ? sum : as == 1 ? sum / count : 1.0f / sqrtf(sum / count + eps);
}

template <int W, class E>
__device__ inline void apply(const Norm& s, const E* x, const float* statistics, const float* gamma, const float* beta,
                             const E* residual, E* y) {
    const Stride<W> step(s.c);
    const Factors<W> by(s, statistics, gamma, beta, blockIdx.y, step.channel);
    for (long long row = s.starts[blockIdx.y] + step.row; row < s.starts[blockIdx.y + 1]; row += step.rows) {
        const long long at = row * s.c + step.channel;
        float v[W], other[W] = {};
        load(x + at, v);
        if (residual) load(residual + at, other);
#pragma unroll
        for (int k = 0; k < W; k++) {
            const float sum = by.before(k, v[k]) + other[k];
            v[k] = sum > 0.0f ? sum : s.slope * sum;
        }
        store(y + at, v);
    }
}

/// y = act(gamma * xhat + beta + residual): grid (any, samples). gamma, beta, residual may be null.
BUDGET(norm_apply, 80, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_apply(const Norm s, const bf16* x, const float* statistics, const float* gamma, const float* beta,
           const bf16* residual, bf16* y) {
    wide_rows<bf16>(s.c, [&](auto w) { apply<w.value>(s, x, statistics, gamma, beta, residual, y); });
}

BUDGET(norm_apply_f32, 80, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_apply_f32(const Norm s, const float* x, const float* statistics, const float* gamma, const float* beta,
               const float* residual, float* y) {
    wide_rows<float>(s.c, [&](auto w) { apply<w.value>(s, x, statistics, gamma, beta, residual, y); });
}

template <int W, class E>
__device__ inline void grad_input(const Norm& s, const E* x, const E* dy, const float* statistics, const float* sums,
                                  const float* gamma, const float* beta, E* dx) {
    const Stride<W> step(s.c);
    const Factors<W> by(s, statistics, gamma, beta, blockIdx.y, step.channel);
    const int of = blockIdx.y * s.c + step.channel, lines = s.samples * s.c;
    const float share = 1.0f / (float)(s.starts[blockIdx.y + 1] - s.starts[blockIdx.y]);
    float shift[W], slant[W];  // mean(g), and rstd * mean(g * xhat)
#pragma unroll
    for (int k = 0; k < W; k++) {
        shift[k] = sums[of + k] * share;
        slant[k] = sums[lines + of + k] * share * statistics[lines + of + k];
    }
    for (long long row = s.starts[blockIdx.y] + step.row; row < s.starts[blockIdx.y + 1]; row += step.rows) {
        const long long at = row * s.c + step.channel;
        float v[W], d[W];
        load(x + at, v);
        load(dy + at, d);
#pragma unroll
        for (int k = 0; k < W; k++) {
            const float g = by.through(k, v[k], d[k]);
            d[k] = by.factor[k] * (g - shift[k] - (v[k] - by.mean[k]) * slant[k]);
        }
        store(dx + at, d);
    }
}

/// dx = gamma * rstd * (g - mean(g) - xhat * mean(g * xhat)): grid (any, samples).
BUDGET(norm_grad_input, 96, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_grad_input(const Norm s, const bf16* x, const bf16* dy, const float* statistics, const float* sums, const float* gamma,
                const float* beta, bf16* dx) {
    wide_rows<bf16>(s.c, [&](auto w) { grad_input<w.value>(s, x, dy, statistics, sums, gamma, beta, dx); });
}

BUDGET(norm_grad_input_f32, 96, 0);
extern "C" __global__ void __launch_bounds__(256)
norm_grad_input_f32(const Norm s, const float* x, const float* dy, const float* statistics, const float* sums,
                    const float* gamma, const float* beta, float* dx) {
    wide_rows<float>(s.c, [&](auto w) { grad_input<w.value>(s, x, dy, statistics, sums, gamma, beta, dx); });
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
