// Differences of Gram matrices; the contract is that of mod.rs, f32. One thread per value, sums in order.
#include "device.cuh"

/// D = P^T P - Z^T Z: grid (c * c / 256, samples), 256 threads.
BUDGET(gram_difference, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
gram_difference(const float* p, const float* z, int positions, int c, float* d) {
    const int at = blockIdx.x * 256 + threadIdx.x, i = at / c, j = at % c;
    if (at >= c * c) return;
    const long long start = (long long)blockIdx.y * positions * c;
    float sum = 0.0f;
    for (int r = 0; r < positions; r++) {
        const long long row = start + (long long)r * c;
        sum += p[row + i] * p[row + j] - z[row + i] * z[row + j];
    }
    d[(long long)blockIdx.y * c * c + at] = sum;
}

/// dp = 2 p dD of a symmetric dD: grid (positions * c / 256, samples), 256 threads.
BUDGET(gram_gradient, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
gram_gradient(const float* p, const float* dd, int positions, int c, float* dp) {
    const int at = blockIdx.x * 256 + threadIdx.x, j = at % c;
    if (at >= positions * c) return;
    const long long start = (long long)blockIdx.y * positions * c;
    float sum = 0.0f;
    for (int i = 0; i < c; i++) sum += p[start + at - j + i] * dd[((long long)blockIdx.y * c + i) * c + j];
    dp[start + at] = 2.0f * sum;
}
