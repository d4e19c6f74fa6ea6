// GELU in its exact form; the contract is that of mod.rs, f32. Any grid of 256 threads.
#include "device.cuh"

/// Normal distribution at v. erfc keeps the digits of the far left.
__device__ inline float normal_share(float v) { return 0.5f * erfcf(-v * 0.70710678f); }

BUDGET(gelu, 40, 0);
extern "C" __global__ void __launch_bounds__(256) gelu(const float* x, long long len, float* y) {
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < len; i += gridDim.x * 256) y[i] = x[i] * normal_share(x[i]);
}

BUDGET(gelu_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256) gelu_grad(const float* x, const float* dy, long long len, float* dx) {
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < len; i += gridDim.x * 256) {
        const float density = 0.3989423f * expf(-0.5f * x[i] * x[i]);
        dx[i] = dy[i] * (normal_share(x[i]) + x[i] * density);
    }
}
