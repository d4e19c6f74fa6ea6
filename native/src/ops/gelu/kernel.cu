// GELU in its exact form; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

/// Normal distribution at v. erfc keeps the digits of the far left.
__device__ inline float normal_share(float v) { return 0.5f * erfcf(-v * 0.70710678f); }

template <class E> __device__ inline void softened(const E* x, long long len, E* y) {
    map(x, len, y, [](float v) { return v * normal_share(v); });
}

template <class E> __device__ inline void softened_back(const E* x, const E* dy, long long len, E* dx) {
    map(x, dy, len, dx, [](float v, float d) { return d * (normal_share(v) + v * 0.3989423f * expf(-0.5f * v * v)); });
}

BUDGET(gelu, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
gelu(const bf16* x, long long len, bf16* y) {
    softened(x, len, y);
}

BUDGET(gelu_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
gelu_f32(const float* x, long long len, float* y) {
    softened(x, len, y);
}

BUDGET(gelu_grad, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
gelu_grad(const bf16* x, const bf16* dy, long long len, bf16* dx) {
    softened_back(x, dy, len, dx);
}

BUDGET(gelu_grad_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
gelu_grad_f32(const float* x, const float* dy, long long len, float* dx) {
    softened_back(x, dy, len, dx);
}
