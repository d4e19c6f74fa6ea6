// Separable resampling, the operator of alignment and pooling; the contract is that of mod.rs. One thread per output value
// adds over the stretches of its three matrix rows that hold values, so no intermediate grid is stored. The gradient is
// the same kernel with the matrices transposed.
#include "device.cuh"

struct Resampling {
    int n, input[3], output[3], c;
};

/// Place of the matrix of axis d and sample n in the weights, row o.
__device__ inline long long row_start(const Resampling& s, int d, int n, int o) {
    long long at = 0;
    for (int e = 0; e < d; e++) at += (long long)s.n * s.input[e] * s.output[e];
    return at + ((long long)n * s.output[d] + o) * s.input[d];
}

/// First and last + 1 non-zero column of every matrix row: support `[n * (oz + oy + ox)][2]`, axis by axis.
BUDGET(separable_support, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
separable_support(const Resampling s, const float* weights, int* support) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    int rest = i, d = 0;
    while (d < 3 && rest >= s.n * s.output[d]) rest -= s.n * s.output[d++];
    if (d == 3) return;
    const float* const row = weights + row_start(s, d, 0, rest);
    int first = 0, last = s.input[d];
    while (first < last && row[first] == 0.0f) first++;
    while (last > first && row[last - 1] == 0.0f) last--;
    support[2 * i] = first;
    support[2 * i + 1] = last;
}

template <class X, class Y>
__device__ inline void resample(const Resampling& s, const float* weights, const int* support, const X* x, Y* y) {
    const long long count = (long long)s.n * s.output[0] * s.output[1] * s.output[2] * s.c;
    for (long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x; at < count; at += (long long)gridDim.x * blockDim.x) {
        const int c = at % s.c;
        long long voxel = at / s.c;
        int o[3], first[3], last[3];
        for (int d = 2; d >= 0; d--) {
            o[d] = voxel % s.output[d];
            voxel /= s.output[d];
        }
        const int n = (int)voxel;
        const float* row[3];
        int line = 0;
        for (int d = 0; d < 3; d++) {
            const int of = line + n * s.output[d] + o[d];
            first[d] = support[2 * of];
            last[d] = support[2 * of + 1];
            row[d] = weights + row_start(s, d, n, o[d]);
            line += s.n * s.output[d];
        }
        float sum = 0.0f;
        for (int i = first[0]; i < last[0]; i++) {
            float plane = 0.0f;
            for (int j = first[1]; j < last[1]; j++) {
                float stretch = 0.0f;
                const long long start = (((long long)n * s.input[0] + i) * s.input[1] + j) * s.input[2];
                for (int k = first[2]; k < last[2]; k++) stretch += row[2][k] * number(x[(start + k) * s.c + c]);
                plane += row[1][j] * stretch;
            }
            sum += row[0][i] * plane;
        }
        store(y + at, sum);
    }
}

/// Any grid of 256 threads. bf16 features to f32 samples: the forward pass.
BUDGET(separable_from_bf16, 80, 0);
extern "C" __global__ void __launch_bounds__(256)
separable_from_bf16(const Resampling s, const float* weights, const int* support, const bf16* x, float* y) {
    resample(s, weights, support, x, y);
}

/// f32 gradients to bf16 ones: the backward pass.
BUDGET(separable_to_bf16, 80, 0);
extern "C" __global__ void __launch_bounds__(256)
separable_to_bf16(const Resampling s, const float* weights, const int* support, const float* x, bf16* y) {
    resample(s, weights, support, x, y);
}

/// One type on both sides.
BUDGET(separable_f32, 80, 0);
extern "C" __global__ void __launch_bounds__(256)
separable_f32(const Resampling s, const float* weights, const int* support, const float* x, float* y) {
    resample(s, weights, support, x, y);
}

BUDGET(separable_bf16, 80, 0);
extern "C" __global__ void __launch_bounds__(256)
separable_bf16(const Resampling s, const float* weights, const int* support, const bf16* x, bf16* y) {
    resample(s, weights, support, x, y);
}
