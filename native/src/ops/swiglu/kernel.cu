// The gated unit of a SwiGLU layer; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

__device__ inline float sigmoid(float v) { return 1.0f / (1.0f + expf(-v)); }

template <class E> __device__ inline void gated(const E* gate, const E* value, long long len, E* y) {
    map(gate, value, len, y, [](float g, float v) { return v * (g * sigmoid(g)); });
}

/// Gradients of both; dgate and dvalue may take the place of gate and value.
template <class E>
__device__ inline void gated_back(const E* gate, const E* value, const E* dy, long long len, E* dgate, E* dvalue) {
    each_wide<E>(len, [&](long long i, auto w) {
        float g[w.value], v[w.value], d[w.value];
        load(gate + i, g);
        load(value + i, v);
        load(dy + i, d);
#pragma unroll
        for (int k = 0; k < w.value; k++) {
            const float s = sigmoid(g[k]), of_gate = d[k] * v[k] * s * (1.0f + g[k] * (1.0f - s));
            v[k] = d[k] * g[k] * s;
            g[k] = of_gate;
        }
        store(dgate + i, g);
        store(dvalue + i, v);
    });
}

BUDGET(swiglu, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
swiglu(const bf16* gate, const bf16* value, long long len, bf16* y) {
    gated(gate, value, len, y);
}

BUDGET(swiglu_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
swiglu_f32(const float* gate, const float* value, long long len, float* y) {
    gated(gate, value, len, y);
}

BUDGET(swiglu_grad, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
swiglu_grad(const bf16* gate, const bf16* value, const bf16* dy, long long len, bf16* dgate, bf16* dvalue) {
    gated_back(gate, value, dy, len, dgate, dvalue);
}

BUDGET(swiglu_grad_f32, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
swiglu_grad_f32(const float* gate, const float* value, const float* dy, long long len, float* dgate, float* dvalue) {
    gated_back(gate, value, dy, len, dgate, dvalue);
}
