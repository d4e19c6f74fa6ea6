// The gated unit of a SwiGLU layer; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

__device__ inline float sigmoid(float v) { return 1.0f / (1.0f + expf(-v)); }

template <class E> __device__ inline void gated(const E* gate, const E* value, long long len, E* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < len; i += gridDim.x * 256LL) {
        const float g = number(gate[i]);
        store(y + i, g * sigmoid(g) * number(value[i]));
    }
}

/// Gradients of both; dgate and dvalue may take the place of gate and value.
template <class E>
__device__ inline void gated_back(const E* gate, const E* value, const E* dy, long long len, E* dgate, E* dvalue) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < len; i += gridDim.x * 256LL) {
        const float g = number(gate[i]), v = number(value[i]), d = number(dy[i]), s = sigmoid(g);
        store(dgate + i, d * v * s * (1.0f + g * (1.0f - s)));
        store(dvalue + i, d * g * s);
    }
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

BUDGET(swiglu_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
swiglu_grad(const bf16* gate, const bf16* value, const bf16* dy, long long len, bf16* dgate, bf16* dvalue) {
    gated_back(gate, value, dy, len, dgate, dvalue);
}

BUDGET(swiglu_grad_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
swiglu_grad_f32(const float* gate, const float* value, const float* dy, long long len, float* dgate, float* dvalue) {
    gated_back(gate, value, dy, len, dgate, dvalue);
}
