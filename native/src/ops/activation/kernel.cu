// LeakyReLU, SiLU and their gradients; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

template <class E> __device__ inline void leaky(const E* x, float slope, long long n, E* y) {
    map(x, n, y, [=](float v) { return v > 0.0f ? v : slope * v; });
}

template <class E> __device__ inline void leaky_grad(const E* sign, const E* dy, float slope, long long n, E* dx) {
    map(sign, dy, n, dx, [=](float of, float g) { return of > 0.0f ? g : slope * g; });
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class E> __device__ inline void silu(const E* x, long long n, E* y) {
    map(x, n, y, [](float v) { return v * sigmoid(v); });
}

template <class E> __device__ inline void silu_grad(const E* x, const E* dy, long long n, E* dx) {
    map(x, dy, n, dx, [](float v, float g) {
        const float s = sigmoid(v);
        return g * s * (1.0f + v * (1.0f - s));
    });
}

BUDGET(activation_leaky, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
activation_leaky(const bf16* x, float slope, long long n, bf16* y) { leaky(x, slope, n, y); }

BUDGET(activation_leaky_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
activation_leaky_f32(const float* x, float slope, long long n, float* y) { leaky(x, slope, n, y); }

/// sign: input or output of the activation.
BUDGET(activation_leaky_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
activation_leaky_grad(const bf16* sign, const bf16* dy, float slope, long long n, bf16* dx) {
    leaky_grad(sign, dy, slope, n, dx);
}

BUDGET(activation_leaky_grad_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
activation_leaky_grad_f32(const float* sign, const float* dy, float slope, long long n, float* dx) {
    leaky_grad(sign, dy, slope, n, dx);
}

BUDGET(activation_silu, 40, 0);
extern "C" __global__ void __launch_bounds__(256) activation_silu(const bf16* x, long long n, bf16* y) { silu(x, n, y); }

BUDGET(activation_silu_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
activation_silu_f32(const float* x, long long n, float* y) { silu(x, n, y); }

BUDGET(activation_silu_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
activation_silu_grad(const bf16* x, const bf16* dy, long long n, bf16* dx) { silu_grad(x, dy, n, dx); }

BUDGET(activation_silu_grad_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
activation_silu_grad_f32(const float* x, const float* dy, long long n, float* dx) { silu_grad(x, dy, n, dx); }
