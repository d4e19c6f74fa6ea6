// Matrices put together on channels and taken apart; the contract is that of mod.rs. Any grid of 256 threads. Copies of rows are copies
// of memory and need no kernel.
#include "device.cuh"

template <class E> __device__ inline void joined(const E* a, const E* b, long long rows, int ca, int cb, E* y) {
    const int c = ca + cb;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < rows * c; i += gridDim.x * 256LL) {
        const long long row = i / c;
        const int channel = (int)(i - row * c);
        y[i] = channel < ca ? a[row * ca + channel] : b[row * cb + channel - ca];
    }
}

template <class E> __device__ inline void taken(const E* x, long long rows, int c, int start, int count, E* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < rows * count; i += gridDim.x * 256LL) {
        y[i] = x[i / count * c + start + i % count];
    }
}

BUDGET(concat, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
concat(const bf16* a, const bf16* b, long long rows, int ca, int cb, bf16* y) {
    joined(a, b, rows, ca, cb, y);
}

BUDGET(concat_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
concat_f32(const float* a, const float* b, long long rows, int ca, int cb, float* y) {
    joined(a, b, rows, ca, cb, y);
}

BUDGET(columns, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
columns(const bf16* x, long long rows, int c, int start, int count, bf16* y) {
    taken(x, rows, c, start, count, y);
}

BUDGET(columns_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
columns_f32(const float* x, long long rows, int c, int start, int count, float* y) {
    taken(x, rows, c, start, count, y);
}
