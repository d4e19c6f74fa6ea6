// Weighted means of rows; the contract is that of mod.rs. Scores and weights f32; starts: first row of each sample.
#include "device.cuh"

/// Over 256 threads in a fixed order; the same value in all. Shared memory: 8 values.
template <class F> __device__ inline float over_block(float v, F fold) {
    SHARED(float, parts);
    for (int o = 16; o; o >>= 1) v = fold(v, __shfl_xor_sync(0xffffffffu, v, o));
    __syncthreads();  // the parts before are read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    v = parts[0];
    for (int w = 1; w < 8; w++) v = fold(v, parts[w]);
    return v;
}

/// Softmax of a sample's scores. Grid (samples), 256 threads.
BUDGET(softmax_rows, 40, 32);
extern "C" __global__ void __launch_bounds__(256) softmax_rows(const int* starts, const float* scores, float* weights) {
    const int first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float most = -1e30f, total = 0.0f;
    for (int row = first + threadIdx.x; row < end; row += 256) most = fmaxf(most, scores[row]);
    most = over_block(most, [](float a, float b) { return fmaxf(a, b); });
    for (int row = first + threadIdx.x; row < end; row += 256) total += expf(scores[row] - most);
    total = over_block(total, [](float a, float b) { return a + b; });
    for (int row = first + threadIdx.x; row < end; row += 256) weights[row] = expf(scores[row] - most) / total;
}

/// y `[samples][c]`. Grid (1, samples, channels / 32).
template <class E>
__device__ inline void summed(const int* starts, int c, const E* x, const float* weights, float* y) {
    sum_of_rows(starts[blockIdx.y], starts[blockIdx.y + 1], c, y + blockIdx.y * c,
                [&](int row, int channel) { return weights[row] * number(x[(long long)row * c + channel]); });
}

template <class E>
__device__ inline void summed_back(const int* starts, int samples, int c, const float* dy, const float* weights, E* dx) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < (long long)starts[samples] * c; i += gridDim.x * 256LL) {
        const int row = (int)(i / c);
        store(dx + i, weights[row] * dy[sample_of(starts, row) * c + i % c]);
    }
}

/// a (dy . x - dy . y), a warp per row.
template <class E>
__device__ inline void scores_back(const int* starts, int samples, int c, const float* dy, const E* x, const float* y,
                                   const float* weights, float* ds) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= starts[samples]) return;
    const int n = sample_of(starts, row);
    float sum = 0.0f;
    for (int i = threadIdx.x % 32; i < c; i += 32) {
        sum += dy[n * c + i] * (number(x[(long long)row * c + i]) - y[n * c + i]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) ds[row] = weights[row] * sum;
}

BUDGET(weighted_sum, 40, 1024);
extern "C" __global__ void __launch_bounds__(256)
weighted_sum(const int* starts, int c, const bf16* x, const float* weights, float* y) {
    summed(starts, c, x, weights, y);
}

BUDGET(weighted_sum_f32, 40, 1024);
extern "C" __global__ void __launch_bounds__(256)
weighted_sum_f32(const int* starts, int c, const float* x, const float* weights, float* y) {
    summed(starts, c, x, weights, y);
}

BUDGET(weighted_sum_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
weighted_sum_grad(const int* starts, int samples, int c, const float* dy, const float* weights, bf16* dx) {
    summed_back(starts, samples, c, dy, weights, dx);
}

BUDGET(weighted_sum_grad_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
weighted_sum_grad_f32(const int* starts, int samples, int c, const float* dy, const float* weights, float* dx) {
    summed_back(starts, samples, c, dy, weights, dx);
}

/// Grid rows / 8.
BUDGET(softmax_pool_grad_scores, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
softmax_pool_grad_scores(const int* starts, int samples, int c, const float* dy, const bf16* x, const float* y,
                         const float* weights, float* ds) {
    scores_back(starts, samples, c, dy, x, y, weights, ds);
}

BUDGET(softmax_pool_grad_scores_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
softmax_pool_grad_scores_f32(const int* starts, int samples, int c, const float* dy, const float* x, const float* y,
                         const float* weights, float* ds) {
    scores_back(starts, samples, c, dy, x, y, weights, ds);
}
