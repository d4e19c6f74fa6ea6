// LeakyReLU and SiLU with their gradients; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

/// Calls f for every value.
template <class F> __device__ inline void each(long long n, F f) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < n; i += gridDim.x * 256LL) f(i);
}

__device__ inline float sigmoid(float v) { return 1.0f / (1.0f + expf(-v)); }

template <class E> __device__ inline void leaked(const E* x, long long n, float slope, E* y) {
    each(n, [&](long long i) {
        const float v = number(x[i]);
        store(y + i, v > 0.0f ? v : slope * v);
    });
}

/// sign: input or output of the activation.
template <class E> __device__ inline void leaked_back(const E* sign, const E* dy, long long n, float slope, E* dx) {
    each(n, [&](long long i) { store(dx + i, number(sign[i]) > 0.0f ? number(dy[i]) : slope * number(dy[i])); });
}

template <class E> __device__ inline void smoothed(const E* x, long long n, E* y) {
    each(n, [&](long long i) { store(y + i, number(x[i]) * sigmoid(number(x[i]))); });
}

template <class E> __device__ inline void smoothed_back(const E* x, const E* dy, long long n, E* dx) {
    each(n, [&](long long i) {
        const float v = number(x[i]), s = sigmoid(v);
        store(dx + i, number(dy[i]) * s * (1.0f + v * (1.0f - s)));
    });
}

BUDGET(leaky, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
leaky(const bf16* x, long long n, float slope, bf16* y) {
    leaked(x, n, slope, y);
}

BUDGET(leaky_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
leaky_f32(const float* x, long long n, float slope, float* y) {
    leaked(x, n, slope, y);
}

BUDGET(leaky_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
leaky_grad(const bf16* sign, const bf16* dy, long long n, float slope, bf16* dx) {
    leaked_back(sign, dy, n, slope, dx);
}

BUDGET(leaky_grad_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
leaky_grad_f32(const float* sign, const float* dy, long long n, float slope, float* dx) {
    leaked_back(sign, dy, n, slope, dx);
}

BUDGET(silu, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
silu(const bf16* x, long long n, bf16* y) {
    smoothed(x, n, y);
}

BUDGET(silu_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
silu_f32(const float* x, long long n, float* y) {
    smoothed(x, n, y);
}

BUDGET(silu_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
silu_grad(const bf16* x, const bf16* dy, long long n, bf16* dx) {
    smoothed_back(x, dy, n, dx);
}

BUDGET(silu_grad_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
silu_grad_f32(const float* x, const float* dy, long long n, float* dx) {
    smoothed_back(x, dy, n, dx);
}
