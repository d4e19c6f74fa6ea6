// Rows of unit length and inner products, for the cosine loss of aligned views; the contract is that of mod.rs, f32.
#include "device.cuh"

/// Sum over a row of a[i] * b[i], by one warp; the same bits in every lane.
__device__ inline float row_product(const float* a, const float* b, int c) {
    float sum = 0.0f;
    for (int i = threadIdx.x % 32; i < c; i += 32) sum += a[i] * b[i];
    return warp_sum(sum);
}

/// y = x / max(|x|, eps) per row: a warp per row, blocks of 256 threads.
BUDGET(cosine_normalize, 40, 0);
extern "C" __global__ void __launch_bounds__(256) cosine_normalize(const float* x, int rows, int c, float eps, float* y) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const float* const from = x + (long long)row * c;
    const float factor = 1.0f / fmaxf(sqrtf(row_product(from, from, c)), eps);
    for (int i = threadIdx.x % 32; i < c; i += 32) y[(long long)row * c + i] = from[i] * factor;
}

/// dx of cosine_normalize: (dy - x <x, dy> / |x|^2) / |x|; a norm below eps counts as a constant.
BUDGET(cosine_normalize_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
cosine_normalize_grad(const float* dy, const float* x, int rows, int c, float eps, float* dx) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const long long start = (long long)row * c;
    const float square = row_product(x + start, x + start, c), norm = sqrtf(square);
    const float product = row_product(x + start, dy + start, c);
    const float factor = 1.0f / fmaxf(norm, eps), along = norm < eps ? 0.0f : product / square;
    for (int i = threadIdx.x % 32; i < c; i += 32) dx[start + i] = (dy[start + i] - x[start + i] * along) * factor;
}

/// Sums of a * b: any grid of 256 threads, partial `[blocks]`.
BUDGET(cosine_dot, 40, 32);
extern "C" __global__ void __launch_bounds__(256) cosine_dot(const float* a, const float* b, long long len, float* partial) {
    SHARED(float, sums);  // [8 warps]
    float sum = 0.0f;
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < len; i += gridDim.x * 256) sum += a[i] * b[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    float total = 0.0f;
    for (int w = 0; w < 8; w++) total += sums[w];
    partial[blockIdx.x] = total;
}

/// offset + factor * the sum of the blocks in order. One thread of one block works.
BUDGET(cosine_dot_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(32)
cosine_dot_fold(const float* partial, int blocks, double offset, double factor, float* y) {
    if (threadIdx.x) return;
    double sum = 0.0;
    for (int i = 0; i < blocks; i++) sum += partial[i];
    y[0] = (float)(offset + factor * sum);
}

/// y = factor * scalar[0] * x: any grid of 256 threads.
BUDGET(cosine_scale, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
cosine_scale(const float* scalar, float factor, const float* x, long long len, float* y) {
    const float a = factor * scalar[0];
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < len; i += gridDim.x * 256) y[i] = a * x[i];
}

/// The second half of the values, then the first: row k of the teacher meets the other view.
BUDGET(cosine_swap, 40, 0);
extern "C" __global__ void __launch_bounds__(256) cosine_swap(const float* x, long long len, float* y) {
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < len; i += gridDim.x * 256) {
        y[i] = x[i < len / 2 ? i + len / 2 : i - len / 2];
    }
}

/// Standard deviation over rows (n - 1) of each column: a thread per column.
BUDGET(cosine_deviations, 40, 0);
extern "C" __global__ void __launch_bounds__(256) cosine_deviations(const float* y, int rows, int c, float* deviations) {
    const int column = blockIdx.x * 256 + threadIdx.x;
    if (column >= c) return;
    double sum = 0.0, squares = 0.0;
    for (int row = 0; row < rows; row++) {
        const double v = y[(long long)row * c + column];
        sum += v;
        squares += v * v;
    }
    const double rest = squares - sum * sum / rows;
    deviations[column] = (float)sqrt((rest > 0.0 ? rest : 0.0) / (rows - 1));
}
