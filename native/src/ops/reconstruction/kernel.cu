// Reconstruction error over the masked voxels as one number, and its gradient; the contract is that of mod.rs, f32. The
// blocks' sums are added in order by one thread, so two runs give the same bits.
#include "device.cuh"

/// kind 0: r^2, 1: |r|, 2: Huber with delta 1.
__device__ inline float error(int kind, float r) {
    const float a = fabsf(r);
    return kind == 0 ? r * r : kind == 1 || a >= 1.0f ? (kind == 1 ? a : a - 0.5f) : 0.5f * r * r;
}

__device__ inline float slope(int kind, float r) {
    if (kind == 0) return 2.0f * r;
    if (kind == 1) return r > 0.0f ? 1.0f : r < 0.0f ? -1.0f : 0.0f;
    return fminf(fmaxf(r, -1.0f), 1.0f);
}

/// Sums of w * f(r) and of w: any grid of 256 threads, partial `[blocks][2]`. weight may be null: 1 everywhere.
BUDGET(reconstruction_sums, 40, 64);
extern "C" __global__ void __launch_bounds__(256)
reconstruction_sums(const float* y, const float* target, const float* weight, int rows, int c, int kind, float* partial) {
    SHARED(float, sums);  // [8 warps][2]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float errors = 0.0f, weights = 0.0f;
    for (long long row = blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += gridDim.x * blockDim.x) {
        const float w = weight ? weight[row] : 1.0f;
        float f = 0.0f;
        for (int i = 0; i < c; i++) f += error(kind, y[row * c + i] - target[row * c + i]);
        errors += w * f;
        weights += w;
    }
    errors = warp_sum(errors);
    weights = warp_sum(weights);
    if (lane == 0) {
        sums[warp * 2] = errors;
        sums[warp * 2 + 1] = weights;
    }
    __syncthreads();
    if (threadIdx.x < 2) {
        float sum = 0.0f;
        for (int w = 0; w < 8; w++) sum += sums[w * 2 + threadIdx.x];
        partial[blockIdx.x * 2 + threadIdx.x] = sum;
    }
}

/// The loss, then c * sum w + eps. One thread of one block works.
BUDGET(reconstruction_fold, 72, 0);
extern "C" __global__ void __launch_bounds__(32) reconstruction_fold(const float* partial, int blocks, int c, float* result) {
    if (threadIdx.x) return;
    double errors = 0.0, weights = 0.0;
    for (int i = 0; i < blocks; i++) {
        errors += partial[2 * i];
        weights += partial[2 * i + 1];
    }
    const double count = c * weights + 1e-12;
    result[0] = (float)(errors / count);
    result[1] = (float)count;
}

/// dy from the gradient of the loss and `result`.
BUDGET(reconstruction_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
reconstruction_grad(const float* dloss, const float* result, const float* y, const float* target, const float* weight,
                    int rows, int c, int kind, float* dy) {
    const float factor = dloss[0] / result[1];
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < (long long)rows * c; i += gridDim.x * blockDim.x) {
        dy[i] = factor * (weight ? weight[i / c] : 1.0f) * slope(kind, y[i] - target[i]);
    }
}
