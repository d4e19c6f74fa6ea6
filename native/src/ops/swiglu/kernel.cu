// The gated unit of a SwiGLU layer; the contract is that of mod.rs, f32. Any grid of 256 threads.
#include "device.cuh"

__device__ inline float sigmoid(float v) { return 1.0f / (1.0f + expf(-v)); }

BUDGET(swiglu, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
swiglu(const float* gate, const float* value, long long len, float* y) {
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < len; i += gridDim.x * 256) {
        y[i] = gate[i] * sigmoid(gate[i]) * value[i];
    }
}

/// Gradients of both; dgate and dvalue may take the place of gate and value.
BUDGET(swiglu_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
swiglu_grad(const float* gate, const float* value, const float* dy, long long len, float* dgate, float* dvalue) {
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < len; i += gridDim.x * 256) {
        const float g = gate[i], v = value[i], s = sigmoid(g);
        dgate[i] = dy[i] * v * s * (1.0f + g * (1.0f - s));
        dvalue[i] = dy[i] * g * s;
    }
}
